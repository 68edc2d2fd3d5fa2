"""Drift of every channel beside its controls, and which unchanged answers moved far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.audit.controls import Partners, other_images, other_items
from sightline.audit.drift import (
    ControlDrift,
    MovedFar,
    cosine_drift,
    moved_far,
    summarise_drift,
)
from sightline.audit.resampled import Clusters
from sightline.core.audit_results import ChannelDrift, Density
from sightline.core.estimates import Estimate
from sightline.core.features import LAYERED, Feature
from sightline.workflow.auditing.columns import WORDING, Columns
from sightline.workflow.auditing.pairs import CHANNEL_ORDER, AuditRows
from sightline.workflow.auditing.rates import ALL

SAME_QUESTION, ANY_ITEM, PARAPHRASES = "other_images", "other_items", "paraphrases"
FEWEST = 20
"""Control values below which the same-question control gives no threshold at the 5 % quantile."""

_CHUNK = 1024
_BINS = 24


@dataclass(frozen=True, slots=True)
class Place:
    """One channel at one place along its layer axis."""

    channel: Feature
    at: int
    layer: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Drifts:
    """Drifts of all pairs, and those of the controls.

    Attributes:
        places: Channels and layers that were observed, last layer of each first.
        cosine: 1 - cosine of each pair, NaN where a pair lacks the channel.
        l2: Euclidean distance of each pair.
        controls: By place, then by name.
    """

    places: tuple[Place, ...]
    cosine: Mapping[Place, Float[np.ndarray, " n"]]
    l2: Mapping[Place, Float[np.ndarray, " n"]]
    controls: Mapping[Place, Mapping[str, ControlDrift]]


def measure_drifts(rows: AuditRows, *, control_items: int, k: int, seed: int) -> Drifts:
    """Takes the drifts of all pairs and draws the controls.

    Args:
        rows: Questions and pairs.
        control_items: Questions that controls are drawn among, spread evenly over the run.
        k: Partners of each.
        seed: Of the draws.
    """
    places = [
        Place(channel, at, rows.layers[at] if channel in LAYERED else None)
        for channel in CHANNEL_ORDER
        if any(channel in item.channels for item in rows.items)
        for at in (range(len(rows.layers))[::-1] if channel in LAYERED else [0])
    ]
    partners = _partners(rows, control_items, k, seed)
    cosine = {place: _values([pair.drift for pair in rows.pairs], place) for place in places}
    controls = {}
    for place in places:
        drawn = {name: _control(rows, place, found) for name, found in partners.items()}
        drawn[SAME_QUESTION] = _with_unrelated(rows, place, drawn[SAME_QUESTION])
        drawn[PARAPHRASES] = _paraphrases(rows, cosine[place])
        controls[place] = drawn
    return Drifts(
        tuple(places),
        cosine,
        {place: _values([pair.l2 for pair in rows.pairs], place) for place in places},
        controls,
    )


def main_control(controls: Mapping[str, ControlDrift]) -> str:
    """The control that flags are held against: the same question, where asked often enough."""
    return SAME_QUESTION if len(controls[SAME_QUESTION].items) >= FEWEST else ANY_ITEM


def flag(drifts: Drifts, place: Place, unchanged: Bool[np.ndarray, " n"]) -> tuple[MovedFar, str]:
    """Flags pairs whose label stayed and whose channel moved as far as an unrelated picture."""
    name = main_control(drifts.controls[place])
    values = drifts.cosine[place]
    there = np.isfinite(values)
    found = moved_far(
        np.where(there, values, 0.0), drifts.controls[place][name].values, among=unchanged & there
    )
    return found, name


def drift_table(
    rows: AuditRows,
    columns: Columns,
    drifts: Drifts,
    clusters: Clusters,
    *,
    flagged: Place | None,
) -> tuple[ChannelDrift, ...]:
    """Drift per channel, layer and type of perturbation, beside the controls, of pairs that count.

    The last layer of each channel is held against every control, the others against the main one;
    with the main one, also conditioned on pairs whose label stayed. What flags
    single answers is also there for every single condition, held against the main control.
    """
    items, images, kinds = rows.item_of, rows.image_of, columns.kinds
    stayed = ~columns.pairs.flipped
    found = []
    for i, place in enumerate(drifts.places):
        last = i == 0 or drifts.places[i - 1].channel != place.channel
        there = columns.pairs.counted & np.isfinite(drifts.cosine[place])
        main = main_control(drifts.controls[place])
        names = [ALL, *dict.fromkeys(kinds[there].tolist())]
        for name in names:
            own = there & (columns.counted_pictures if name == ALL else kinds == name)
            for control, values in drifts.controls[place].items():
                if control != main and not last:
                    continue
                for unchanged in (False, True) if control == main else (False,):
                    used = own & stayed if unchanged else own
                    case = _Case(place, name, control, unchanged)
                    found.append(
                        _summary(case, values, images[used], items[used], drifts, used, clusters)
                    )
        if place != flagged:
            continue
        for name in dict.fromkeys(columns.conditions[there].tolist()):
            own = there & (columns.conditions == name)
            for unchanged, used in ((False, own), (True, own & stayed)):
                case, values = _Case(place, name, main, unchanged), drifts.controls[place][main]
                found.append(
                    _summary(case, values, images[used], items[used], drifts, used, clusters)
                )
    return tuple(found)


def density(columns: Columns, drifts: Drifts, place: Place) -> Density:
    """Counts of the drifts of picture pairs that count, and of the main control's, in bins."""
    name = main_control(drifts.controls[place])
    control = drifts.controls[place][name].values
    values = drifts.cosine[place]
    used = np.isfinite(values) & columns.counted_pictures
    flipped = columns.pairs.flipped
    top = float(max(np.max(values[used], initial=0.0), np.max(control, initial=0.0))) or 1.0
    edges = np.linspace(0.0, top, _BINS + 1)

    def counts(own: np.ndarray) -> tuple[int, ...]:
        return tuple(int(n) for n in np.histogram(own, edges)[0])

    return Density(
        channel=place.channel.value,
        layer=place.layer,
        edges=tuple(float(edge) for edge in edges),
        unchanged=counts(values[used & ~flipped]),
        flipped=counts(values[used & flipped]),
        control=counts(control),
        control_name=name,
    )


def _partners(
    rows: AuditRows, control_items: int, k: int, seed: int
) -> dict[str, tuple[Int[np.ndarray, " c"], Partners]]:
    n = len(rows.items)
    chosen = np.unique(np.linspace(0, n - 1, min(n, control_items)).round().astype(int))
    own = [rows.items[i] for i in chosen]
    keys = np.array([item.record.example.id for item in own])
    images = np.array([item.image for item in own])
    questions = np.array([item.question for item in own])
    return {
        SAME_QUESTION: (chosen, other_images(keys, images, questions, k=k, seed=seed)),
        ANY_ITEM: (chosen, other_items(keys, images, k=k, seed=seed)),
    }


def _control(
    rows: AuditRows, place: Place, drawn: tuple[Int[np.ndarray, " c"], Partners]
) -> ControlDrift:
    chosen, partners = drawn
    has = np.array([place.channel in rows.items[i].channels for i in chosen])
    used = has[partners.rows] & has[partners.partners]
    first, second = chosen[partners.rows[used]], chosen[partners.partners[used]]
    vectors = {int(i): rows.items[i].channels[place.channel][place.at] for i in chosen[has]}
    parts = [
        cosine_drift(
            np.stack([vectors[int(i)] for i in first[start : start + _CHUNK]]),
            np.stack([vectors[int(i)] for i in second[start : start + _CHUNK]]),
        )
        for start in range(0, len(first), _CHUNK)
    ]
    return ControlDrift(first.astype(np.int64), np.concatenate([np.zeros(0), *parts]))


def _with_unrelated(rows: AuditRows, place: Place, natural: ControlDrift) -> ControlDrift:
    """The control of the same question, with the answers that were asked for it alone.

    Only these read the same fixed text under another picture, so that where there are enough of
    them they are all of that channel's control.
    """
    own = _values([answer.drift for answer in rows.unrelated], place)
    items = np.array([answer.item for answer in rows.unrelated], dtype=np.int64)
    there = np.isfinite(own)
    if place.channel is Feature.ANS_FIXED and there.sum() >= FEWEST:
        return ControlDrift(items[there], own[there])
    return ControlDrift(
        np.concatenate([natural.items, items[there]]), np.concatenate([natural.values, own[there]])
    )


def _paraphrases(rows: AuditRows, cosine: Float[np.ndarray, " n"]) -> ControlDrift:
    """The same picture under the same question in other words."""
    at = np.array([pair.kind == WORDING for pair in rows.pairs]) & np.isfinite(cosine)
    return ControlDrift(rows.item_of[at], cosine[at])


def _values(found: Sequence[Mapping[Feature, np.ndarray]], place: Place) -> np.ndarray:
    return np.array(
        [own[place.channel][place.at] if place.channel in own else np.nan for own in found],
        dtype=np.float64,
    )


@dataclass(frozen=True, slots=True)
class _Case:
    place: Place
    name: str
    control: str
    unchanged: bool


def _summary(
    case: _Case,
    values: ControlDrift,
    images: Int[np.ndarray, " m"],
    items: Int[np.ndarray, " m"],
    drifts: Drifts,
    used: Bool[np.ndarray, " n"],
    clusters: Clusters,
) -> ChannelDrift:
    drift, l2 = drifts.cosine[case.place][used], drifts.l2[case.place][used]
    found = summarise_drift(images, items, drift, values, clusters)
    alone = found.drift
    if alone.value is None and len(drift):  # the drift stands without a control
        alone = clusters.mean(images, drift)
    return ChannelDrift(
        channel=case.place.channel.value,
        layer=case.place.layer,
        name=case.name,
        control=case.control,
        unchanged=case.unchanged,
        drift=alone,
        l2=clusters.mean(images, l2) if len(l2) else Estimate(None, n=0, reason="no rows"),
        control_drift=found.control,
        percent=found.percent,
        percent_sd=found.percent_sd,
        cohens_d=found.cohens_d,
        rows=len(drift),
        partners=found.pairs,
    )
