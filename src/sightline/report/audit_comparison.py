"""Several audits side by side: their main figures, and figures by type of perturbation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sightline.core.audit_answers import Rates
from sightline.core.audit_results import Audit
from sightline.core.estimates import Estimate
from sightline.report.audit_answers import cell_of
from sightline.report.audit_figures import above, figure_cell, point_of
from sightline.report.audit_tables import largest
from sightline.report.audit_terminal import by_kind, flagged_drift, row_name
from sightline.report.audit_view import Grid, GridRow
from sightline.report.view import DotChart, Figure, FigureGroup, Heading, LegendEntry, Row, Table

Pick = Callable[[Audit, Rates | None, str], Estimate | None]


def comparison_figures(audits: Sequence[Audit], names: Sequence[str]) -> FigureGroup:
    """Flip rates of several runs by type of perturbation."""
    kinds = {rates.name: row_name(rates) for audit in audits for rates in by_kind(audit)}
    of = [{rates.name: rates.ifr for rates in audit.rates} for audit in audits]
    rows = tuple(
        (
            shown,
            tuple(
                point_of(style, own[kind])
                for style, own in enumerate(of)
                if kind in own and own[kind].value is not None
            ),
        )
        for kind, shown in kinds.items()
    )
    drawn = tuple((kind, points) for kind, points in rows if points)
    if not drawn:
        return FigureGroup(())
    tops = [p.high if p.high is not None else p.value for _, points in drawn for p in points]
    table = Table(
        "Flip rate by type of perturbation.",
        "Type",
        tuple(Heading(name) for name in names),
        tuple(
            Row(shown, tuple(figure_cell(own.get(kind)) for own in of))
            for kind, shown in kinds.items()
        ),
    )
    figure = Figure(
        key="comparison-flips",
        title="Flip rate by type of perturbation",
        description="Share of perturbed pictures whose answer differs from the clean one, a point "
        "per run, with intervals over pictures. Lower is steadier.",
        caption="Share of answers that flip; intervals over pictures. Further left is steadier.",
        chart=DotChart("flip rate (IFR)", (0.0, above(tops)), None, drawn),
        table=table,
    )
    legend = tuple(LegendEntry(name, style, dot=True) for style, name in enumerate(names))
    return FigureGroup((figure,), legend)


def comparison_tables(audits: Sequence[Audit], names: Sequence[str]) -> tuple[Grid, ...]:
    """Several runs, a column each: their main figures, then figures by type of perturbation."""
    kinds = {rates.name: row_name(rates) for audit in audits for rates in by_kind(audit)}
    of = [{rates.name: rates for rates in audit.rates} for audit in audits]

    def table(caption: str, pick: Pick) -> Grid:
        values = [
            [pick(audit, own.get(kind), kind) for audit, own in zip(audits, of, strict=True)]
            for kind in kinds
        ]
        top = largest([value for row in values for value in row])
        rows = tuple(
            GridRow(shown, tuple(cell_of(v, top) for v in row))
            for shown, row in zip(kinds.values(), values, strict=True)
        )
        return Grid(caption, tuple(names), rows)

    def drift(audit: Audit, _rates: Rates | None, kind: str) -> Estimate | None:
        found = flagged_drift(audit, kind)
        return None if found is None else found.percent

    return (
        _glance(audits, names),
        table("Flip rate (IFR).", lambda _a, r, _k: None if r is None else r.ifr),
        table(
            "Accuracy after, darker is better.",
            lambda _a, r, _k: None if r is None else r.accuracy_after,
        ),
        table("Drift as per cent of each run's control.", drift),
    )


def _glance(audits: Sequence[Audit], names: Sequence[str]) -> Grid:
    """The main figures of each run, a column per run."""

    def attacked(audit: Audit, band: str) -> Estimate | None:
        own = () if audit.probes is None else audit.probes.attacks
        return next((found.success for found in own if found.band == band), None)

    measures: dict[str, list[Estimate | None]] = {
        "accuracy, clean": [a.rates[0].accuracy_before for a in audits],
        "accuracy, perturbed": [a.rates[0].accuracy_after for a in audits],
        "flip rate (IFR)": [a.rates[0].ifr for a in audits],
        "questions with a flip (IV)": [a.rates[0].iv for a in audits],
        "visual entropy, nats": [a.visual_entropy for a in audits],
        "stays, but moved far": [a.moved_far for a in audits],
        "same answer without a picture": [
            None if a.prior is None else a.prior.unchanged for a in audits
        ],
        "low-band attack succeeds": [attacked(a, "low") for a in audits],
        "high-band attack succeeds": [attacked(a, "high") for a in audits],
    }
    rows = tuple(
        GridRow(name, tuple(cell_of(value, None) for value in own))
        for name, own in measures.items()
        if any(value is not None and value.value is not None for value in own)
    )
    return Grid("At a glance.", tuple(names), rows)
