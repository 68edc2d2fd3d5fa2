"""Whether all questions lie to one another as before: CKA of clean and perturbed vectors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from sightline.audit.drift import linear_cka
from sightline.core.audit_results import Similarity
from sightline.core.errors import UndefinedMetricError
from sightline.core.types import Key, Record
from sightline.store.run import RunStore
from sightline.workflow.auditing.columns import Columns
from sightline.workflow.auditing.drifts import Place
from sightline.workflow.auditing.pairs import AuditRows

_HELD = 64_000_000
_FEWEST = 4

Vectors = dict[int, np.ndarray]
"""Perturbed vectors by question."""


def similarities(
    store: RunStore,
    rows: AuditRows,
    columns: Columns,
    places: Sequence[Place],
    *,
    among: Collection[int] | None = None,
) -> dict[Place, dict[str, float]]:
    """Debiased linear CKA of channels between clean and perturbed vectors, by condition.

    Of the pairs that count; a condition with fewer than four has none, nor one whose vectors are
    all equal. The run is read once for as many conditions as `_HELD` values hold the vectors of.

    Args:
        store: The run.
        rows: Questions and pairs.
        columns: What was measured of each pair.
        places: Channels and layers.
        among: Numbers of the questions that are compared; None for all.
    """
    found: dict[Place, dict[str, float]] = {place: {} for place in places}
    used = set(range(len(rows.items)) if among is None else among)
    counted = {
        rows.pairs[i].record.key: rows.pairs[i].item
        for i in np.flatnonzero(columns.pairs.counted)
        if rows.pairs[i].item in used
    }
    conditions = list(dict.fromkeys(columns.conditions.tolist()))
    values = sum(_width(rows, place) for place in places) * len(used)
    at_once = max(1, _HELD // max(values, 1))
    for start in range(0, len(conditions), at_once):
        wanted = set(conditions[start : start + at_once])
        for (place, condition), after in _held(store, rows, counted, places, wanted).items():
            if len(after) < _FEWEST:
                continue
            clean = [rows.items[own].channels[place.channel][place.at] for own in after]
            perturbed = np.stack(list(after.values())).astype(np.float32)
            try:
                own = linear_cka(np.stack(clean), perturbed, debiased=True)
            except UndefinedMetricError:
                continue
            found[place][condition] = own
    return found


def similarities_by_type(
    store: RunStore,
    rows: AuditRows,
    columns: Columns,
    places: Sequence[Place],
    *,
    questions: int,
) -> tuple[Similarity, ...]:
    """The same of every type of perturbation: means over its conditions.

    Args:
        store: The run.
        rows: Questions and pairs.
        columns: What was measured of each pair.
        places: Channels and layers.
        questions: How many are compared at most, spread evenly over the run.
    """
    n = len(rows.items)
    among = np.unique(np.linspace(0, n - 1, min(n, questions)).round().astype(int)).tolist()
    found = similarities(store, rows, columns, places, among=among)
    kind_of = dict(zip(columns.conditions.tolist(), columns.kinds.tolist(), strict=True))
    out = []
    for place, own in found.items():
        by_kind: dict[str, list[float]] = {}
        for condition, value in own.items():
            by_kind.setdefault(kind_of[condition], []).append(value)
        out += [
            Similarity(place.channel.value, place.layer, kind, float(np.mean(values)), len(values))
            for kind, values in by_kind.items()
        ]
    return tuple(out)


def _held(
    store: RunStore,
    rows: AuditRows,
    counted: Mapping[Key, int],
    places: Sequence[Place],
    wanted: Collection[str],
) -> dict[tuple[Place, str], Vectors]:
    """Perturbed vectors of the pairs that count, of some conditions."""
    layers = {place.layer for place in places if place.layer is not None}
    held: dict[tuple[Place, str], Vectors] = {}
    channels = {place.channel for place in places}
    for record in store.records(features=channels, layers=layers or None):
        item = counted.get(record.key)
        if item is None or record.condition not in wanted:
            continue
        for place in places:
            if record.has(place.channel) and place.channel in rows.items[item].channels:
                own = held.setdefault((place, record.condition), {})
                own[item] = _vector(record, place)
    return held


def _vector(record: Record, place: Place) -> np.ndarray:
    values = record.array(place.channel)
    return values if place.layer is None else values[record.layers.index(place.layer)]


def _width(rows: AuditRows, place: Place) -> int:
    own = (item.channels[place.channel] for item in rows.items if place.channel in item.channels)
    return int(next(own).shape[-1])
