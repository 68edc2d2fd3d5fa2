"""Tables of an audit's drift: every channel beside its controls, by type, by layer, by length."""

from __future__ import annotations

from sightline.core.audit_results import CONTROL_NAMES, Audit, ChannelDrift
from sightline.core.estimates import Estimate
from sightline.workflow.studies.tables import Cell, StudyTable

ALL = "all"
NOT_OBSERVED = Estimate(None, n=0, reason="not observed")


def drift_tables(run: str, audit: Audit) -> list[StudyTable]:
    """Tables of drift of one audit.

    Args:
        run: Name of the run.
        audit: Its results.
    """
    return [
        _drift(run, audit),
        _conditional(run, audit),
        _euclidean(run, audit),
        _controls(run, audit),
        _layers(run, audit),
        _similarities(run, audit),
    ]


def last_drift(
    audit: Audit, channel: str, name: str, *, unchanged: bool = False
) -> ChannelDrift | None:
    """Drift of a channel at its last layer beside its main control; None where there is none.

    Args:
        audit: The results.
        channel: The channel.
        name: Type of perturbation or condition.
        unchanged: Of the pairs whose label stayed alone.
    """
    own = [d for d in audit.drift if (d.channel, d.name) == (channel, name)]
    main = next((d.control for d in own if d.unchanged), None)
    return next((d for d in own if d.control == main and d.unchanged is unchanged), None)


def types_of(audit: Audit) -> list[str]:
    """Names of the rates that are no single conditions, all pairs first."""
    singles = set(audit.protocol.conditions)
    return [rates.name for rates in audit.rates if rates.name not in singles]


def _drift(run: str, audit: Audit) -> StudyTable:
    """Per cent of the control ± its spread, with Cohen's d, by type and channel."""
    return StudyTable(
        key=f"drift-{run}",
        title=f"Drift by channel on {run}",
        note=(
            "Last layer; 1 − cosine as per cent of the control ± the spread over questions as "
            "per cent of the same, with Cohen's d of drift less control. All pairs that count, "
            "whatever the answer. Control of each channel: the same question about another picture "
            "where it is asked often enough, else another question."
        ),
        columns=("Type", *_channels(audit)),
        rows=tuple(
            (name, *(_paper_form(last_drift(audit, c, name)) for c in _channels(audit)))
            for name in types_of(audit)
        ),
    )


def _conditional(run: str, audit: Audit) -> StudyTable:
    return StudyTable(
        key=f"unchanged-{run}",
        title=f"Drift behind answers that stay on {run}",
        note=(
            "As above, of pairs that count and keep their answer, as per cent of the control with "
            "an interval over pictures."
        ),
        columns=("Type", *_channels(audit)),
        rows=tuple(
            (
                name,
                *(
                    NOT_OBSERVED if drift is None else drift.percent
                    for drift in (
                        last_drift(audit, channel, name, unchanged=True)
                        for channel in _channels(audit)
                    )
                ),
            )
            for name in types_of(audit)
            if any(
                d.name == name and d.unchanged and d.drift.value is not None for d in audit.drift
            )
        ),
    )


def _euclidean(run: str, audit: Audit) -> StudyTable:
    return StudyTable(
        key=f"l2-{run}",
        title=f"Euclidean drift by channel on {run}",
        note=(
            "Last layer; distance between clean and perturbed vector in the channel's own unit, "
            "mean over pairs that count, with an interval over pictures. Comparable within a "
            "column alone."
        ),
        columns=("Type", *_channels(audit)),
        rows=tuple(
            (
                name,
                *(
                    NOT_OBSERVED if drift is None else drift.l2
                    for drift in (last_drift(audit, c, name) for c in _channels(audit))
                ),
            )
            for name in types_of(audit)
        ),
    )


def _controls(run: str, audit: Audit) -> StudyTable:
    """Every channel beside all three controls."""
    rows: list[tuple[Cell, ...]] = []
    for channel in _channels(audit):
        own = [d for d in audit.drift if (d.channel, d.name) == (channel, ALL) and not d.unchanged]
        last = own[0].layer
        cells: list[Cell] = [own[0].drift]
        for control in CONTROL_NAMES:
            drift = next((d for d in own if (d.control, d.layer) == (control, last)), None)
            found = (NOT_OBSERVED,) * 3
            if drift is not None:
                found = (drift.control_drift, drift.percent, drift.cohens_d)
            cells += found
        rows.append((channel, *cells))
    return StudyTable(
        key=f"controls-{run}",
        title=f"Three controls on {run}",
        note=(
            "Drift at the last layer over all perturbations of the picture, beside that to the "
            "same question about another picture, to another question about another picture, and "
            "to the same question about the same picture in other words: each control's mean, "
            "the drift as per cent of it, and Cohen's d of drift less control."
        ),
        columns=(
            "Channel",
            "1 − cosine",
            *(
                part
                for name in CONTROL_NAMES.values()
                for part in (f"1 − cosine: {name}", f"% of: {name}", f"d to: {name}")
            ),
        ),
        rows=tuple(rows),
    )


def _layers(run: str, audit: Audit) -> StudyTable:
    layers = list(audit.protocol.layers)
    rows: list[tuple[Cell, ...]] = []
    for channel in _channels(audit):
        own = {
            d.layer: d.percent
            for d in audit.drift
            if (d.channel, d.name) == (channel, ALL) and d.unchanged
        }
        if None not in own:
            rows.append((channel, *(own.get(layer, NOT_OBSERVED) for layer in layers)))
    return StudyTable(
        key=f"layers-{run}",
        title=f"Drift by layer on {run}",
        note="Pairs that keep their answer, over all perturbations, as per cent of the control.",
        columns=("Channel", *(f"layer {layer}" for layer in layers)),
        rows=tuple(rows),
    )


def _similarities(run: str, audit: Audit) -> StudyTable:
    """Linear CKA, a row for each channel and layer, a column for each type."""
    found = {(own.channel, own.layer, own.name): own for own in audit.similarities}
    names = list(dict.fromkeys(name for _, _, name in found))
    rows: list[tuple[Cell, ...]] = []
    for channel, layer in dict.fromkeys((channel, layer) for channel, layer, _ in found):
        cells = (found.get((channel, layer, name)) for name in names)
        where = channel if layer is None else f"{channel}, layer {layer}"
        rows.append((where, *(None if own is None else f"{own.value:.3f}" for own in cells)))
    return StudyTable(
        key=f"cka-{run}",
        title=f"Linear CKA by channel and layer on {run}",
        note=(
            "Debiased linear CKA of clean and perturbed vectors of the questions that count under "
            f"a condition, of at most {audit.protocol.control_items:,} spread over the run; mean "
            "over the type's conditions. 1: all questions lie to one another as before."
        ),
        columns=("Channel", *names),
        rows=tuple(rows),
    )


def _channels(audit: Audit) -> list[str]:
    return list(dict.fromkeys(drift.channel for drift in audit.drift))


def _paper_form(drift: ChannelDrift | None) -> str:
    if drift is None or drift.percent.value is None:
        return "—"
    spread = "" if drift.percent_sd is None else f" ± {drift.percent_sd:.1f}"
    d = "" if drift.cohens_d.value is None else f" (d {drift.cohens_d.value:.2f})"
    return f"{drift.percent.value:.1f}{spread}{d}"
