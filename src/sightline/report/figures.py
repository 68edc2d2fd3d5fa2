"""The figures of a run: what is drawn, said in words, and tabled."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.core.results import Curve, EstimatorResult, Evaluation
from sightline.report import numbers
from sightline.report.numbers import Notes, inert
from sightline.report.tables import heldout
from sightline.report.view import (
    BinView,
    Cell,
    DotChart,
    Figure,
    FigureGroup,
    Heading,
    HistogramChart,
    LegendEntry,
    Line,
    LineChart,
    Point,
    ReliabilityChart,
    Row,
    Table,
)

SHOWN = 4
SPARSE_BIN = 10
GRID = tuple(i / 10 for i in range(11))
DOTS = 12


def shown_estimators(evaluation: Evaluation) -> tuple[EstimatorResult, ...]:
    """The estimators drawn: the best by held-out AUROC, and the best simple baseline.

    Of several whose curves coincide only the first is drawn; one without held-out rows has none.
    """
    chosen: dict[Curve, EstimatorResult] = {}
    for result in evaluation.estimators:
        wanted = len(chosen) < SHOWN or result.name == evaluation.protocol.baseline
        if wanted and not result.control and result.risk_coverage.x:
            chosen.setdefault(result.risk_coverage, result)
    return tuple(chosen.values())


def _identical(evaluation: Evaluation, shown: Sequence[EstimatorResult]) -> str | None:
    """Names the estimators whose lines coincide with a drawn one."""
    parts = []
    for drawn in shown:
        same = [
            inert(e.name)
            for e in evaluation.estimators
            if e.name != drawn.name and not e.control and e.risk_coverage == drawn.risk_coverage
        ]
        if same:
            parts.append(f"{', '.join(same)} (as {inert(drawn.name)})")
    if not parts:
        return None
    return f"Not drawn, since their curves coincide on the first split: {'; '.join(parts)}."


def _legend(shown: Sequence[EstimatorResult]) -> tuple[LegendEntry, ...]:
    """Styles of the drawn estimators and of the reference lines."""
    return (
        *(LegendEntry(inert(result.name), i) for i, result in enumerate(shown)),
        LegendEntry("oracle: ideal ranking", "oracle"),
        LegendEntry("random ranking", "random"),
    )


def curves(evaluation: Evaluation, key: str) -> FigureGroup:
    """Risk-coverage, rejection and ROC of the drawn estimators."""
    shown = shown_estimators(evaluation)
    risk = [Line(inert(e.name), i, *_xy(e.risk_coverage)) for i, e in enumerate(shown)]
    kept = [Line(inert(e.name), i, *_xy(e.rejection)) for i, e in enumerate(shown)]
    roc = [Line(inert(e.name), i, *_xy(e.roc)) for i, e in enumerate(shown) if e.roc.x]
    oracle_risk = Line("oracle", "oracle", *_xy(evaluation.oracle_risk_coverage))
    oracle_kept = Line("oracle", "oracle", *_xy(evaluation.oracle_rejection))
    total_risk = oracle_risk.y[-1] if oracle_risk.y else 0.0
    random_risk = Line("random", "random", (0.0, 1.0), (total_risk, total_risk))
    random_kept = Line("random", "random", (0.0, 1.0), (1 - total_risk, 1 - total_risk))
    n = _rows_drawn(evaluation, shown)
    figures = [
        Figure(
            key=f"{key}-risk",
            title="Risk–coverage",
            description=(
                "Error rate among the kept answers against the share of answers kept, most "
                "confident first. Lower is better. The area below a line is its AURC."
            ),
            caption=f"Error rate of the kept answers. {n} The area below is AURC.",
            chart=LineChart(
                "share of answers kept",
                "error rate of kept answers",
                (0.0, _top([*risk, random_risk])),
                (*risk, oracle_risk, random_risk),
            ),
            table=_points_table("Error rate by share kept", "Kept", [*risk, oracle_risk]),
        ),
        Figure(
            key=f"{key}-rejection",
            title="Rejection",
            description=(
                "Accuracy of the answers that remain against the share refused, least confident "
                "first. Higher is better. PRR is the area between a line and random, as a share "
                "of that between oracle and random."
            ),
            caption=f"Accuracy of what remains after refusing the least confident. {n}",
            chart=LineChart(
                "share of answers refused",
                "accuracy of the remaining answers",
                (_bottom([*kept, random_kept]), 1.0),
                (*kept, oracle_kept, random_kept),
            ),
            table=_points_table("Accuracy by share refused", "Refused", [*kept, oracle_kept]),
        ),
    ]
    if roc:
        chance = Line("random", "random", (0.0, 1.0), (0.0, 1.0))
        figures.append(
            Figure(
                key=f"{key}-roc",
                title="ROC",
                description=(
                    "Share of right answers accepted against share of wrong answers accepted, "
                    "over all thresholds. Closer to the upper left is better. The area below a "
                    "line is its AUROC."
                ),
                caption=f"Right answers accepted against wrong ones accepted. {n}",
                chart=LineChart(
                    "share of wrong answers accepted",
                    "share of right answers accepted",
                    (0.0, 1.0),
                    (*roc, chance),
                ),
                table=_points_table(
                    "Right answers accepted by share of wrong answers accepted",
                    "Wrong accepted",
                    roc,
                ),
            )
        )
    return FigureGroup(tuple(figures), _legend(shown), _identical(evaluation, shown))


def reliability(evaluation: Evaluation, key: str) -> FigureGroup:
    """One reliability diagram per drawn estimator that is calibrated."""
    figures = []
    for style, result in enumerate(shown_estimators(evaluation)):
        if not result.reliability:
            continue
        bins = tuple(
            BinView(
                b.low,
                b.high,
                b.n,
                b.confidence,
                b.accuracy.value,
                b.accuracy.low,
                b.accuracy.high,
                sparse=b.n < SPARSE_BIN,
            )
            for b in result.reliability
        )
        n = sum(b.n for b in bins)
        ece = numbers.plain(heldout(result, "ece"), "ece", level=evaluation.protocol.level)
        figures.append(
            Figure(
                key=f"{key}-reliability-{style}",
                title=inert(result.name),
                description=(
                    "Accuracy against calibrated confidence in ten bins of equal width, with "
                    f"{numbers.share(evaluation.protocol.level)} bands, and the rows in each bin "
                    "below. Points on the diagonal are calibrated; below it the confidence is too "
                    "high, above it too low."
                ),
                caption=f"n = {numbers.count(n)} held-out rows of the first split. ECE {ece}.",
                chart=ReliabilityChart(bins, style),
                table=_bins_table(result),
            )
        )
    return FigureGroup(tuple(figures))


def histograms(evaluation: Evaluation, key: str) -> FigureGroup:
    """Calibrated confidence of right and of wrong answers, per drawn estimator."""
    figures = []
    for style, result in enumerate(shown_estimators(evaluation)):
        histogram = result.histogram
        if histogram is None:
            continue
        right, wrong = sum(histogram.right), sum(histogram.wrong)
        rows = tuple(
            Row(
                f"{low:.2f}–{high:.2f}",
                (Cell(numbers.count(r)), Cell(numbers.count(w))),
            )
            for low, high, r, w in zip(
                histogram.edges[:-1],
                histogram.edges[1:],
                histogram.right,
                histogram.wrong,
                strict=True,
            )
        )
        figures.append(
            Figure(
                key=f"{key}-histogram-{style}",
                title=inert(result.name),
                description=(
                    "Number of answers by calibrated confidence: right answers upwards, wrong "
                    "answers downwards. A score that separates them puts the upper bars to the "
                    "right and the lower bars to the left."
                ),
                caption=(
                    f"n = {numbers.count(right + wrong)} held-out rows of the first split: "
                    f"{numbers.count(right)} right, {numbers.count(wrong)} wrong."
                ),
                chart=HistogramChart(histogram.edges, histogram.right, histogram.wrong),
                table=Table(
                    "Answers by confidence",
                    "Confidence",
                    (Heading("Right"), Heading("Wrong")),
                    rows,
                ),
            )
        )
    return FigureGroup(tuple(figures))


def across_runs(
    evaluations: Sequence[Evaluation], names: Sequence[str], estimators: Sequence[str]
) -> FigureGroup | None:
    """Held-out AUROC of the same estimators on several runs; None where no two share one."""
    rows = []
    table_rows = []
    notes = Notes()
    for estimator in estimators[:DOTS]:
        points = []
        cells = []
        for style, evaluation in enumerate(evaluations):
            found = next((e for e in evaluation.estimators if e.name == estimator), None)
            if found is None:
                cells.append(Cell(numbers.DASH, note=notes.number("not measured on this run")))
                continue
            auroc = heldout(found, "auroc")
            cells.append(numbers.cell(auroc, "auroc", notes))
            if auroc.value is not None:
                points.append(Point(style, auroc.value, auroc.low, auroc.high))
        if points:
            rows.append((inert(estimator), tuple(points)))
            table_rows.append(Row(inert(estimator), tuple(cells)))
    if not rows:
        return None
    low = min(
        [0.5, *(p.low if p.low is not None else p.value for _, points in rows for p in points)]
    )
    level = numbers.share(evaluations[0].protocol.level)
    figure = Figure(
        key="runs-auroc",
        title="AUROC of the same estimators on every run",
        description=(
            "One row per estimator, one point per run, each with its interval. Further right is "
            "better; the vertical line at 0.5 is a score without signal."
        ),
        caption=(
            f"Held-out AUROC with {level} intervals; n stands in the table. Drawn are the "
            f"{len(rows)} estimators with the best mean rank."
        ),
        chart=DotChart("held-out AUROC", (max(0.0, low - 0.02), 1.0), 0.5, tuple(rows)),
        table=Table(
            "Held-out AUROC by run",
            "Estimator",
            tuple(Heading(name) for name in names),
            tuple(table_rows),
            tuple(notes.texts),
        ),
    )
    return FigureGroup(
        (figure,), tuple(LegendEntry(name, i, dot=True) for i, name in enumerate(names))
    )


def _xy(curve: Curve) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return curve.x, curve.y


def _rows_drawn(evaluation: Evaluation, shown: Sequence[EstimatorResult]) -> str:
    counts = sorted({e.coverage_table[-1].accuracy.n for e in shown if e.coverage_table})
    if not counts:
        return "No held-out rows."
    span = numbers.count(counts[0])
    if len(counts) > 1:
        span = f"{span} to {numbers.count(counts[-1])}"
    return f"n = {span} held-out rows of the first split."


def _top(lines: Sequence[Line]) -> float:
    """Upper end of the y axis: what the lines reach once a tenth of the answers is kept."""
    reached = [y for line in lines for x, y in zip(line.x, line.y, strict=True) if x >= 0.1]
    return min(1.0, max([0.1, *reached]) * 1.15)


def _bottom(lines: Sequence[Line]) -> float:
    reached = [y for line in lines for x, y in zip(line.x, line.y, strict=True) if x <= 0.9]
    return max(0.0, 1.0 - (1.0 - min([0.9, *reached])) * 1.15)


def _points_table(caption: str, corner: str, lines: Sequence[Line]) -> Table:
    """The point of each line nearest to every tenth."""
    rows = []
    for at in GRID:
        cells = []
        for line in lines:
            if not line.x:
                cells.append(Cell(numbers.DASH))
                continue
            nearest = min(range(len(line.x)), key=lambda i: abs(line.x[i] - at))
            cells.append(Cell(f"{line.y[nearest]:.3f}"))
        rows.append(Row(numbers.share(at), tuple(cells)))
    return Table(
        f"{caption}, at the nearest point of each line",
        corner,
        tuple(Heading(line.label) for line in lines),
        tuple(rows),
    )


def _bins_table(result: EstimatorResult) -> Table:
    notes = Notes()
    rows = []
    for b in result.reliability:
        rows.append(
            Row(
                f"{b.low:.1f}–{b.high:.1f}",
                (
                    Cell(numbers.count(b.n)),
                    Cell(numbers.DASH, note=notes.number("empty bin"))
                    if b.confidence is None
                    else Cell(f"{b.confidence:.3f}"),
                    numbers.cell(b.accuracy, "accuracy", notes, row_n=b.n),
                ),
            )
        )
    return Table(
        "Confidence and accuracy by bin",
        "Bin",
        (Heading("n"), Heading("Mean confidence"), Heading("Accuracy")),
        tuple(rows),
        tuple(notes.texts),
    )
