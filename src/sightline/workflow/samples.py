"""The per-answer table of an evaluation, for notebooks and spreadsheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sightline.workflow.judged import Heldout, JudgedRows
from sightline.workflow.scoring import Scored


def samples_table(
    scored: Sequence[Scored], heldout: Sequence[Sequence[Heldout]], rows: JudgedRows
) -> pa.Table:
    """One row per judged answer.

    Returns:
        Columns: the example and its answer; ``correct``; ``split`` of the first seed; per estimator
        ``uncertainty.NAME`` (null where not scored; of an estimator that learns, on the first
        seed's test rows only) and ``confidence.NAME`` (null outside the first seed's test rows).
    """
    n = len(rows.records)
    split = np.empty(n, dtype=object)
    for name in ("train", "calibration", "test"):
        split[getattr(rows.splits[0], name)] = name
    columns: dict[str, pa.Array] = {
        "example_id": pa.array([r.example.id for r in rows.records]),
        "condition": pa.array([r.condition for r in rows.records]),
        "group": pa.array([r.example.group for r in rows.records]),
        "question_type": pa.array([r.example.question_type for r in rows.records], pa.string()),
        "question": pa.array([r.example.question for r in rows.records]),
        "answer": pa.array([r.answer.text for r in rows.records]),
        "references": pa.array(
            [list(r.example.references) for r in rows.records], pa.list_(pa.string())
        ),
        "correct": pa.array(rows.correct),
        "split": pa.array(split.tolist(), pa.string()),
    }
    for item, per_seed in zip(scored, heldout, strict=True):
        first = per_seed[0]
        if item.learns:
            columns[f"uncertainty.{item.name}"] = _sparse(n, first.rows, first.uncertainty)
        else:
            columns[f"uncertainty.{item.name}"] = _sparse(n, item.rows, item.uncertainty)
        if first.confidence is not None:
            columns[f"confidence.{item.name}"] = _sparse(n, first.rows, first.confidence)
    return pa.table(columns)


def _sparse(n: int, rows: np.ndarray, values: np.ndarray) -> pa.Array:
    full = np.zeros(n)
    absent = np.ones(n, dtype=bool)
    full[rows] = values
    absent[rows] = False
    return pa.array(full, mask=absent)
