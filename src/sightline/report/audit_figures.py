"""Drawings of an audit's page: what is drawn, said in words, and tabled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sightline.core.audit_results import Audit, Density
from sightline.core.estimates import Estimate
from sightline.core.probe_results import BudgetedAudit, Probes
from sightline.report.audit_terminal import control_name
from sightline.report.numbers import DASH, MINUS, count, inert
from sightline.report.view import (
    Cell,
    DotChart,
    Figure,
    FigureGroup,
    Heading,
    LegendEntry,
    Line,
    LineChart,
    Point,
    Row,
    Table,
)

STAYS, FLIPS, CONTROL = 0, 1, 6
_FEW_CONTROLS = 20  # a line through fewer values says nothing, as no flag is set against them
_SHORT = 40


def density_figures(audit: Audit, key: str) -> FigureGroup:
    """Drift of answers that stay and that flip, over the control's, channel by channel.

    A channel that no counted pair of changed pictures has is not drawn.
    """
    return FigureGroup(
        tuple(
            _density(found, f"{key}-density-{i}")
            for i, found in enumerate(audit.densities)
            if any((*found.unchanged, *found.flipped))
        ),
        (
            LegendEntry("the answer stays", STAYS),
            LegendEntry("the answer flips", FLIPS),
            LegendEntry("control, as named below each drawing", CONTROL),
        ),
    )


def profile_figures(audit: Audit, key: str) -> FigureGroup:
    """Drift of answers that stay by layer, a line per channel; none where one layer was kept."""
    layers = sorted({d.layer for d in audit.drift if d.layer is not None})
    own = [
        d
        for d in audit.drift
        if d.name == "all" and d.unchanged and d.layer is not None and d.percent.value is not None
    ]
    lines = []
    for style, channel in enumerate(dict.fromkeys(d.channel for d in own)):
        points = sorted(
            (d.layer, d.percent.value)
            for d in own
            if d.channel == channel and d.layer is not None and d.percent.value is not None
        )
        if len(points) > 1:
            at, values = zip(*points, strict=True)
            lines.append(Line(channel, style, tuple(map(float, at)), values))
    if len(layers) < 2 or not lines:
        return FigureGroup(())
    figure = Figure(
        key=f"{key}-profile",
        title="Drift by layer, where the answer stays",
        description="Drift as per cent of the control at every kept layer, a line per channel. "
        "100 is as far as the control.",
        caption=f"Layers {', '.join(map(str, layers))}; the last one behind the final norm.",
        chart=LineChart(
            "layer",
            "drift, % of control",
            (0.0, above(y for line in lines for y in line.y)),
            tuple(lines),
            (0.0, float(layers[-1])),
        ),
        table=_by_x("Drift as per cent of the control.", "Layer", lines, "{:.0f}", "{:.1f}"),
    )
    return FigureGroup((figure,), tuple(LegendEntry(line.label, line.style) for line in lines))


def energy_figures(audit: Audit, key: str) -> FigureGroup:
    """What the change of the vision tokens' energy goes with."""
    found = {name: e for name, e in audit.energy_correlations.items() if e.value is not None}
    if not found:
        return FigureGroup(())
    figure = Figure(
        key=f"{key}-energy",
        title="What the change of energy goes with",
        description="Pearson correlation of the change of the vision tokens' normalised energy "
        "with other changes, with intervals over pictures.",
        caption="Pearson correlation over pairs; intervals over pictures. 0 is no relation.",
        chart=DotChart(
            "Pearson correlation",
            (-1.0, 1.0),
            0.0,
            tuple((inert(name, 60), (point_of(0, e),)) for name, e in found.items()),
        ),
        table=_estimates("Correlation of the change of energy.", "With", found),
    )
    return FigureGroup((figure,))


def probe_figures(probes: Probes, key: str) -> FigureGroup:
    """Labels that stay as pictures are filtered, and that flip under noise of one band."""
    names = {"low": "low pass: low frequencies kept", "high": "high pass: high ones kept"}
    lines = []
    for style, found in enumerate(probes.filters):
        points = sorted(
            (cut, e.value)
            for cut, e in zip(found.cutoffs, found.kept, strict=True)
            if e.value is not None
        )
        if points:
            at, values = zip(*points, strict=True)
            lines.append(Line(names[found.filtering], style, at, values))
    filters = Figure(
        key=f"{key}-filters",
        title="Answers that stay under filters",
        description="Share of questions whose label has not flipped by a cut-off. A low pass gets "
        "stronger to the left, a high pass to the right.",
        caption=f"n = {count(probes.questions)} questions. A low pass keeps what lies left of the "
        "cut-off, and is stronger further left; a high pass keeps what lies right of it.",
        chart=LineChart("cut-off (1 = highest frequency)", "share that stays", (0.0, 1.0),
                        tuple(lines)),
        table=_by_x("Share of labels that stay.", "Cut-off", lines, "{:.1f}", "{:.3f}"),
    )  # fmt: skip
    sizes = sorted({found.size for found in probes.noise})
    noise = []
    for style, band in enumerate(dict.fromkeys(found.band for found in probes.noise)):
        by_size = {f.size: f.flips.value for f in probes.noise if f.band == band}
        own = [(size * 255, by_size[size]) for size in sizes if by_size.get(size) is not None]
        if own:
            noise.append(
                Line(
                    f"noise of the {band} band",
                    style,
                    tuple(x for x, _ in own),
                    tuple(float(y) for _, y in own if y is not None),
                )
            )
    flips = Figure(
        key=f"{key}-noise",
        title="Answers that flip under noise",
        description="Share of draws of band-limited Gaussian noise that flip the label, by the "
        "largest change of a pixel.",
        caption=f"{probes.trials} draws for each question, band and size.",
        chart=LineChart(
            "largest change of a pixel, of 255",
            "share of draws that flip",
            (0.0, above((y for line in noise for y in line.y), least=0.1)),
            tuple(noise),
            (0.0, max((size * 255 for size in sizes), default=1.0)),
        ),
        table=_by_x("Share of draws that flip.", "Of 255", noise, "{:.0f}", "{:.3f}"),
    )
    legend = (
        LegendEntry("low frequencies: kept by the filter, disturbed by the noise", 0),
        LegendEntry("high frequencies, likewise", 1),
    )
    return FigureGroup((filters, flips), legend)


def budget_figures(budgets: Sequence[BudgetedAudit], key: str) -> FigureGroup:
    """What the first conditions of a budget, and all of them, are worth on other questions."""
    figures = []
    for i, budget in enumerate(budgets):
        if not budget.steps:
            continue
        worth: dict[str, Estimate] = {
            f"{n}. {inert(step.condition, _SHORT)}": step.held_out
            for n, step in enumerate(budget.steps, 1)
        }
        worth[f"all {budget.conditions}"] = budget.everything
        ends = [end for e in worth.values() for end in (e.value, e.low, e.high) if end is not None]
        low, high = min(0.0, *ends), max(0.0, *ends)
        room = 0.05 * (high - low or 1.0)
        figures.append(
            Figure(
                key=f"{key}-budget-{i}",
                title=f"Target: {inert(budget.target, 80)}",
                description="Gain of the first one, two and more chosen conditions, and of all, "
                "on questions that did not choose them.",
                caption=f"n = {count(budget.questions)} questions, of which {budget.share:.0%} are "
                "such. Right of 0 = predicted better than without any perturbation.",
                chart=DotChart(
                    "gain on other questions, nats per question",
                    (low - room, high + room),
                    0.0,
                    tuple((name, (point_of(0, e),)) for name, e in worth.items()),
                ),
                table=_estimates("Gain on other questions, nats per question.", "With", worth),
            )
        )
    return FigureGroup(tuple(figures))


def _density(found: Density, key: str) -> Figure:
    kinds = {"unchanged": STAYS, "flipped": FLIPS, "control": CONTROL}
    names = {"unchanged": "stays", "flipped": "flips", "control": control_name(found.control_name)}
    middles = tuple((a + b) / 2 for a, b in zip(found.edges[:-1], found.edges[1:], strict=True))
    lines = []
    for kind, style in kinds.items():
        counts = getattr(found, kind)
        total = sum(counts)
        if total and (kind != "control" or total >= _FEW_CONTROLS):
            shares = tuple(n / total for n in counts)
            lines.append(Line(names[kind], style, middles, shares))
    layer = "" if found.layer is None else f", layer {found.layer}"
    stays, flips, control = (count(sum(getattr(found, kind))) for kind in kinds)
    few = " (too few to draw)" if sum(found.control) < _FEW_CONTROLS else ""
    return Figure(
        key=key,
        title=f"{found.channel}{layer}",
        description=f"Shares of drift values in bins of 1 {MINUS} cosine, of answers that stay and "
        f"that flip, beside the control: {names['control']}.",
        caption=f"n: stays {stays}, flips {flips}. Control: {names['control']}, n = "
        f"{control}{few}.",
        chart=LineChart(
            f"drift, 1 {MINUS} cosine",
            "share of values in the bin",
            (0.0, above(y for line in lines for y in line.y)),
            tuple(lines),
            (0.0, found.edges[-1]),
        ),
        table=_by_x("Share of values by drift.", "Drift", lines, "{:.3f}", "{:.3f}"),
    )


def _by_x(caption: str, corner: str, lines: Sequence[Line], at: str, places: str) -> Table:
    of: list[Mapping[float, float]] = [dict(zip(ln.x, ln.y, strict=True)) for ln in lines]
    every = sorted({x for own in of for x in own})
    return Table(
        caption,
        corner,
        tuple(Heading(line.label) for line in lines),
        tuple(
            Row(
                at.format(x),
                tuple(Cell(places.format(own[x]) if x in own else DASH) for own in of),
            )
            for x in every
        ),
    )


def _estimates(caption: str, corner: str, found: Mapping[str, Estimate]) -> Table:
    rows = tuple(Row(inert(name, 80), (figure_cell(e),)) for name, e in found.items())
    return Table(caption, corner, (Heading("Value"),), rows)


def figure_cell(value: Estimate | None) -> Cell:
    """A figure with its interval, for the table beside a drawing."""
    if value is None or value.value is None:
        return Cell(DASH)
    ends = None
    if value.low is not None and value.high is not None:
        ends = f"{value.low:.3f} to {value.high:.3f}"
    return Cell(f"{value.value:.3f}", ends)


def point_of(style: int, value: Estimate) -> Point:
    """A figure that has a value, as it is drawn."""
    return Point(style, value.value or 0.0, value.low, value.high)


def above(values: Iterable[float], least: float = 0.0) -> float:
    """A little above the largest value; 1 where all are 0."""
    return 1.08 * max(max(values, default=0.0), least) or 1.0
