"""Whether all questions lie to one another as before: CKA of clean and perturbed vectors."""

from __future__ import annotations

import numpy as np

from sightline.audit.drift import linear_cka
from sightline.core.errors import UndefinedMetricError
from sightline.store.run import RunStore
from sightline.workflow.auditing.columns import Columns
from sightline.workflow.auditing.drifts import Place
from sightline.workflow.auditing.pairs import AuditRows

_HELD = 64_000_000
_FEWEST = 4


def similarities(
    store: RunStore, rows: AuditRows, columns: Columns, place: Place | None
) -> dict[str, float]:
    """Debiased linear CKA of a channel between clean and perturbed vectors, by condition.

    Of the pairs that count; a condition with fewer than four has none, nor one whose vectors are
    all equal. The run is read once for as many conditions as `_HELD` values hold the vectors of.

    Args:
        store: The run.
        rows: Questions and pairs.
        columns: What was measured of each pair.
        place: Channel and layer; None where the run has none.
    """
    if place is None:
        return {}
    number = {item.record.example.id: i for i, item in enumerate(rows.items)}
    conditions = list(dict.fromkeys(columns.conditions.tolist()))
    counted = {rows.pairs[i].record.key for i in np.flatnonzero(columns.pairs.counted)}
    layers = None if place.layer is None else {place.layer}
    width = next(
        item.channels[place.channel].shape[-1]
        for item in rows.items
        if place.channel in item.channels
    )
    at_once = max(1, _HELD // (width * len(rows.items)))
    found: dict[str, float] = {}
    for start in range(0, len(conditions), at_once):
        held: dict[str, dict[int, np.ndarray]] = {c: {} for c in conditions[start:][:at_once]}
        for record in store.records(features={place.channel}, layers=layers):
            own = number.get(record.example.id)
            if own is None or record.condition not in held or record.key not in counted:
                continue
            if record.has(place.channel) and place.channel in rows.items[own].channels:
                held[record.condition][own] = record.array(place.channel).reshape(-1)
        for condition, after in held.items():
            if len(after) < _FEWEST:
                continue
            clean = [rows.items[own].channels[place.channel][place.at] for own in after]
            perturbed = np.stack(list(after.values())).astype(np.float32)
            try:
                found[condition] = linear_cka(np.stack(clean), perturbed, debiased=True)
            except UndefinedMetricError:
                continue
    return found
