"""Judged answers of a run, and what one estimator says of those held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import UsageError
from sightline.core.protocols import Calibration
from sightline.core.types import Record
from sightline.data.splits import Split
from sightline.workflow.classifying.reading import open_answers


@dataclass(frozen=True, slots=True)
class JudgedRows:
    """The judged answers of one run.

    Attributes:
        records: One per judged answer.
        correct: 0 or 1.
        correctness: In [0, 1], before the threshold.
        groups: Index of each row's group.
        types: Index of each row's question type, or None where some row has none.
        type_names: Names of the types.
        splits: One per seed, over these rows.
    """

    records: tuple[Record, ...]
    correct: Float[np.ndarray, " n"]
    correctness: Float[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    types: Int[np.ndarray, " n"] | None
    type_names: tuple[str, ...]
    splits: tuple[Split, ...]


@dataclass(frozen=True, slots=True)
class Heldout:
    """One estimator on one seed's test rows.

    Attributes:
        rows: Indices of the test rows it can score.
        uncertainty: Its raw score there.
        confidence: Its calibrated confidence there, or None where there is no calibration.
        calibration: ``fitted``, ``base rate``, or why there is none.
        fit: The calibration, or None.
        refused: Held-out rows that it could not score once it was fitted, by reason.
        correct: Correctness of its own answers there, where it may change them; else None.
    """

    rows: Int[np.ndarray, " rows"]
    uncertainty: Float[np.ndarray, " rows"]
    confidence: Float[np.ndarray, " rows"] | None
    calibration: str
    fit: Calibration | None = None
    refused: Mapping[str, frozenset[int]] = field(default_factory=dict)
    correct: Float[np.ndarray, " rows"] | None = None

    def correct_in(self, rows: JudgedRows) -> Float[np.ndarray, " rows"]:
        """Correctness of the answers that it judges."""
        return rows.correct[self.rows] if self.correct is None else self.correct


def answers_beside(path: Path, own: Sequence[Record], other: Path) -> list[Record]:
    """The answers of a run that is to be set beside another.

    Args:
        path: The run that is judged.
        own: Its records.
        other: The run to be set beside it.

    Raises:
        UsageError: The other run is a classifier's, or answers none of the same examples.
    """
    records = list(open_answers(other).records(features=()))
    if {record.key for record in own}.isdisjoint(record.key for record in records):
        raise UsageError(
            f"{other} answers none of the examples of {path}; runs of models on the same examples "
            "are required. Leave --together out, or collect both on the same data."
        )
    return records
