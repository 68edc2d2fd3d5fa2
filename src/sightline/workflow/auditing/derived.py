"""What an audit knows of each clean answer, kept in the run as derived signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sightline.audit.comparable import comparable_means
from sightline.audit.drift import ControlDrift
from sightline.audit.labels import item_means
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.store.derived import Derivation
from sightline.store.run import RunStore
from sightline.workflow.auditing.columns import Columns
from sightline.workflow.auditing.pairs import AuditRows


def answer_signals(
    rows: AuditRows,
    columns: Columns,
    drift: Float[np.ndarray, " n"],
    control: ControlDrift | None,
) -> dict[str, dict[Feature, float]]:
    """What each answer's picture pairs that count show, by example id; higher = less stable.

    Means that are comparable between answers of unlike conditions: see `comparable_means`.

    Args:
        rows: Questions and pairs.
        columns: What was measured of each pair.
        drift: 1 - cosine of the flagged channel, NaN where there is none.
        control: What it is held against; None where there is none.
    """
    values = {
        Feature.FLIP_RATE: columns.pairs.flipped * 1.0,
        Feature.MARGIN_LOSS: columns.margin_before - columns.margin,
        Feature.DELTA_ENERGY: np.abs(columns.energy_change),
        Feature.PRIOR_INDEX: columns.prior_index,
    }
    if control is not None and len(control.items):
        mean = float(np.mean(item_means(control.items, control.values)[1]))
        if mean > 0:
            values[Feature.DRIFT_SHARE] = 100 * drift / mean
    found: dict[str, dict[Feature, float]] = {}
    for feature, own in values.items():
        used = columns.counted_pictures & np.isfinite(own)
        means = comparable_means(rows.item_of[used], columns.conditions[used], own[used])
        for item, value in zip(*means, strict=True):
            found.setdefault(rows.items[item].record.example.id, {})[feature] = float(value)
    return found


def store_signals(
    store: RunStore, signals: Mapping[str, Mapping[Feature, float]], source: Mapping[str, Any]
) -> int:
    """Writes the signals beside the shards, those of another audit replaced; returns their number.

    Args:
        store: The run.
        signals: By example id.
        source: Settings of the audit that decide them.

    Raises:
        StoreError: Another process writes the run.
    """
    written = 0
    source = {"name": "audit", "means": "comparable", **source}
    with store.deriver(Derivation.AUDIT, source, replace=True) as writer:
        for index in writer.pending:
            records = [
                Record(
                    example,
                    features={f: np.asarray(v) for f, v in signals[example.id].items()},
                )
                for example in store.shard_examples(index)
                if signals.get(example.id)
            ]
            writer.commit(index, records)
            written += len(records)
    return written
