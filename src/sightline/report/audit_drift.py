"""Tables of an audit's drift: by layer, beside every control, and by type of perturbation."""

from __future__ import annotations

from sightline.core.audit_results import CONTROL_NAMES, Audit
from sightline.core.estimates import Estimate
from sightline.report.audit_answers import cell_of, signed
from sightline.report.audit_terminal import by_kind, control_name, row_name
from sightline.report.audit_view import Grid, GridRow, Shaded
from sightline.report.numbers import DASH, count, inert


def drift_tables(audit: Audit) -> tuple[Grid, ...]:
    """Drift by layer: a row per channel, a column per layer; and the controls at the last layer."""
    control = control_name(audit.protocol.flag_control)
    own = [d for d in audit.drift if d.name == "all"]
    channels = channels_of(audit)
    layers = sorted({d.layer for d in own if d.layer is not None})
    if not own:
        return ()
    by_layer = []
    for channel in channels:
        cells = []
        for layer in [*layers, None]:
            found = next(
                (d for d in own if (d.channel, d.layer, d.unchanged) == (channel, layer, True)),
                None,
            )
            cells.append(cell_of(None if found is None else found.percent, 100.0, places=1))
        by_layer.append(GridRow(channel, tuple(cells)))
    by_control = []
    for channel in channels:
        rows = [d for d in own if d.channel == channel and not d.unchanged]
        last = rows[0].layer
        cells = [cell_of(rows[0].drift, None), cell_of(rows[0].l2, None)]
        for name in CONTROL_NAMES:
            found = next((d for d in rows if d.control == name and d.layer == last), None)
            cells.append(cell_of(None if found is None else found.percent, None, places=1))
            cells.append(cell_of(None if found is None else found.cohens_d, None, places=2))
        by_control.append(GridRow(channel, tuple(cells)))
    return (
        Grid(
            f"Drift of answers that stay, as per cent of the control ({control}, or the one that "
            "has pairs), by layer.",
            (*(f"layer {layer}" for layer in layers), "vision tokens"),
            tuple(by_layer),
        ),
        Grid(
            "Drift at the last layer beside every control: per cent of it, and Cohen's d.",
            (
                "1 − cosine",
                "L2",
                *(part for name in CONTROL_NAMES.values() for part in (f"% of {name}", "d")),
            ),
            tuple(by_control),
        ),
        *_euclidean(audit),
        *_similarities(audit),
    )


def channels_of(audit: Audit) -> list[str]:
    """Channels that have drift over all pairs, in the order they were measured."""
    return list(dict.fromkeys(d.channel for d in audit.drift if d.name == "all"))


def _euclidean(audit: Audit) -> tuple[Grid, ...]:
    """Euclidean drift by type and channel."""
    found: dict[tuple[str, str], Estimate] = {}
    for drift in audit.drift:  # the last layer of a channel comes first
        if not drift.unchanged:
            found.setdefault((drift.name, drift.channel), drift.l2)
    channels = channels_of(audit)
    rows = tuple(
        GridRow(
            f"{row_name(own)} ({count(own.pairs)})",
            tuple(cell_of(found.get((own.name, channel)), None) for channel in channels),
        )
        for own in by_kind(audit)
        if any((own.name, channel) in found for channel in channels)
    )
    caption = (
        "Euclidean drift at the last layer by type, in each channel's own unit: of the pairs that "
        "count, whatever the answer."
    )
    return (Grid(caption, tuple(channels), rows),) if rows else ()


def _similarities(audit: Audit) -> tuple[Grid, ...]:
    """CKA of every channel and layer by type, where it was asked for."""
    found = {(own.channel, own.layer, own.name): own.value for own in audit.similarities}
    names = list(dict.fromkeys(name for _, _, name in found))
    rows = []
    for channel, layer in dict.fromkeys((channel, layer) for channel, layer, _ in found):
        cells = (found.get((channel, layer, name)) for name in names)
        where = channel if layer is None else f"{channel}, layer {layer}"
        rows.append(GridRow(where, tuple(_similarity(value) for value in cells)))
    if not rows:
        return ()
    caption = (
        "CKA of clean with perturbed vectors, mean over a type's conditions: 1 = the same geometry."
    )
    return (Grid(caption, tuple(inert(name, 60) for name in names), tuple(rows)),)


def _similarity(value: float | None) -> Shaded:
    return Shaded(DASH) if value is None else Shaded(signed(value, 3))
