"""The tables of a run, each figure with its interval and n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sightline.core.estimates import Estimate
from sightline.core.results import EstimatorResult, Evaluation, Skipped
from sightline.metrics import METRICS
from sightline.report import numbers
from sightline.report.classifier_tables import source_marks
from sightline.report.numbers import Notes, inert
from sightline.report.view import Bar, Cell, Heading, Row, Table

LEADERBOARD = ("auroc", "within_type_auroc", "prr", "aurc", "auarc", "fpr95", "ece", "brier")
COMPARED = ("auroc", "prr", "aurc", "auarc", "ece", "brier")
RAW = ("auroc", "within_type_auroc", "prr", "aurc", "ece", "ece15", "brier")
BAR_LOW = 0.3


def heldout(result: EstimatorResult, metric: str) -> Estimate:
    """Returns a held-out figure, or a missing one that says so."""
    if metric == "within_type_auroc":
        return result.within_type
    return result.heldout.get(metric, Estimate(None, reason="not measured"))


def raw(result: EstimatorResult, metric: str) -> Estimate:
    """Returns a figure of the raw score on all rows, or a missing one that says why."""
    if metric in result.raw:
        return result.raw[metric]
    if not result.raw:
        reason = "fits on labels, so it has no raw figure on all rows"
    elif metric == "within_type_auroc":
        reason = "some rows have no question type"
    else:
        reason = "the raw score is no probability, so its calibration error has no meaning"
    return Estimate(None, n=result.scored, reason=reason)


def leading(estimators: Sequence[EstimatorResult], metric: str) -> str | None:
    """Best held-out value of a column as it is printed; None where there is none.

    As printed, so that of two figures that read the same none is set apart.
    """
    rule = METRICS["auroc" if metric == "within_type_auroc" else metric]
    values = [
        value
        for result in estimators
        if may_lead(result, estimators, metric)
        and (value := heldout(result, metric).value) is not None
    ]
    if not values:
        return None
    best = max(values) if rule.direction == "higher" else min(values)
    return numbers.number(best, numbers.STYLES[metric])


def may_lead(result: EstimatorResult, estimators: Sequence[EstimatorResult], metric: str) -> bool:
    """Whether a figure may be set apart as the best of its column.

    Not of a control, nor of an estimator that sees fewer than half as many rows as another, nor,
    in calibration, of the base rate.
    """
    most = max(other.scored for other in estimators)
    probability = metric in ("ece", "brier")
    base_rate = probability and result.calibration == "base rate"
    return not result.control and 2 * result.scored >= most and not base_rate


def marks(result: EstimatorResult, evaluation: Evaluation) -> tuple[str, ...]:
    """What a reader must know about an estimator before its figures."""
    out = []
    if result.control:
        out.append("control")
    if result.name == evaluation.protocol.baseline:
        out.append("best simple baseline")
    out.extend(source_marks(result.name, evaluation))
    if result.calibration == "base rate":
        out.append("base rate")
    elif result.calibration.startswith("fitted in "):
        out.append(result.calibration)
    elif result.calibration != "fitted":
        out.append("not calibrated")
    if not result.raw:
        out.append("fits on labels")
    return tuple(out)


def leaderboard(evaluation: Evaluation) -> Table:
    """Held-out figures of every estimator, best AUROC first."""
    notes = Notes()
    best = {m: leading(evaluation.estimators, m) for m in LEADERBOARD}
    baseline = next(
        (e for e in evaluation.estimators if e.name == evaluation.protocol.baseline), None
    )
    rows = []
    for result in evaluation.estimators:
        auroc = heldout(result, "auroc")
        figures = []
        for metric in LEADERBOARD:
            figure = numbers.cell(heldout(result, metric), metric, notes, row_n=auroc.n)
            leads = may_lead(result, evaluation.estimators, metric)
            figures.append(replace(figure, best=leads and figure.text == best[metric]))
        rows.append(
            Row(
                inert(result.name),
                (
                    Cell(numbers.count(auroc.n)),
                    figures[0],
                    Cell("", bar=_bar(auroc, baseline)),
                    *figures[1:],
                    _difference(result, "auroc", evaluation, notes, auroc.n),
                ),
                marks(result, evaluation),
                quiet=result.control,
            )
        )
    headings = [numbers.heading(m) for m in LEADERBOARD]
    return Table(
        caption=(
            f"Held-out figures with {_level(evaluation)} intervals, ordered by AUROC. "
            "The best value of each column is set in bold, controls, base rates and estimators "
            "that see few of the rows aside."
        ),
        corner="Estimator",
        headings=(
            Heading("n", "held-out rows"),
            headings[0],
            Heading("", f"AUROC from {BAR_LOW:g} to 1"),
            *headings[1:],
            Heading("AUROC − baseline", "above 0 is better"),
        ),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )


def differences(evaluation: Evaluation) -> Table | None:
    """Paired differences to the best simple baseline; None where there is no baseline."""
    if evaluation.protocol.baseline is None:
        return None
    notes = Notes()
    rows = []
    for result in evaluation.estimators:
        if result.name == evaluation.protocol.baseline:
            continue
        n = result.vs_baseline["auroc"].n if "auroc" in result.vs_baseline else 0
        cells = [_difference(result, m, evaluation, notes, n) for m in COMPARED]
        rows.append(
            Row(
                inert(result.name),
                (Cell(numbers.count(n)), *cells),
                marks(result, evaluation),
                quiet=result.control,
            )
        )
    return Table(
        caption=(
            "Difference to the best simple baseline, "
            f"{inert(evaluation.protocol.baseline)}, on the rows both can score, with "
            f"{_level(evaluation)} intervals of the paired difference. An interval that leaves "
            "out 0 is a difference beyond chance."
        ),
        corner="Estimator",
        headings=(
            Heading("n", "rows scored by both"),
            *(numbers.heading(m, "Δ ") for m in COMPARED),
        ),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )


def raw_figures(evaluation: Evaluation) -> Table:
    """Figures of the raw score on all rows, beside the calibrated ones on held-out rows."""
    notes = Notes()
    rows = []
    for result in evaluation.estimators:
        cells = [numbers.cell(raw(result, m), m, notes, row_n=result.scored) for m in RAW]
        held_n = heldout(result, "ece").n
        beside = [
            numbers.cell(heldout(result, m), m, notes, row_n=held_n) for m in ("ece", "brier")
        ]
        rows.append(
            Row(
                inert(result.name),
                (Cell(numbers.count(result.scored)), *cells, Cell(numbers.count(held_n)), *beside),
                marks(result, evaluation),
                quiet=result.control,
            )
        )
    return Table(
        caption=(
            "Raw scores on all scored rows, where nothing is fitted and nothing needs to be held "
            "out, beside the calibrated confidence on held-out rows."
        ),
        corner="Estimator",
        headings=(
            Heading("n", "all scored rows"),
            *(numbers.heading(m, "raw ") for m in RAW),
            Heading("n", "held-out rows"),
            numbers.heading("ece", "calibrated "),
            numbers.heading("brier", "calibrated "),
        ),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )


def costs(evaluation: Evaluation) -> Table:
    """What each estimator costs beyond the greedy answer, and what it could not score."""
    notes = Notes()
    generated = evaluation.classifier is None
    rows = []
    for result in evaluation.estimators:
        skipped = sum(s.n for s in result.skipped)
        answers: tuple[Cell, ...] = ()
        if generated:
            tokens = (
                Cell(numbers.DASH, note=notes.number("tokens of the samples were not recorded"))
                if result.generated_tokens is None
                else Cell(f"{result.generated_tokens:,.1f}")
            )
            answers = (Cell(numbers.count(result.generations)), tokens)
        rows.append(
            Row(
                inert(result.name),
                (
                    Cell(inert(result.family)),
                    Cell(numbers.count(result.scored)),
                    Cell(numbers.count(skipped)),
                    Cell(reasons(result.skipped) or "none"),
                    Cell(numbers.count(result.forward_passes)),
                    *answers,
                    Cell(numbers.seconds(result.seconds)),
                    Cell(inert(result.calibration)),
                ),
                marks(result, evaluation),
                quiet=result.control,
            )
        )
    return Table(
        caption=(
            f"What each score costs per {'answer' if generated else 'picture'} beyond the "
            f"{'greedy answer' if generated else 'classification'} itself, the seconds its "
            "computation took for all rows, and the rows it could not score."
        ),
        corner="Estimator",
        headings=(
            Heading("Family", words=True),
            Heading("Scored", "rows"),
            Heading("Skipped", "rows"),
            Heading("Why skipped", words=True),
            Heading("Forward passes", "per answer" if generated else "per picture"),
            *(
                (
                    Heading("Generations", "per answer"),
                    Heading("Generated tokens", "mean per answer"),
                )
                if generated
                else ()
            ),
            Heading("Seconds", "all rows"),
            Heading("Calibration", words=True),
        ),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )


def not_applicable(evaluation: Evaluation) -> Table | None:
    """Estimators that scored no answer, by the reason; None where all did."""
    names: dict[str, list[str]] = {}
    for one in evaluation.not_applicable:
        why = inert(one.reasons[0].reason) if len(one.reasons) == 1 else reasons(one.reasons)
        names.setdefault(why, []).append(inert(one.name))
    if not names:
        return None
    return Table(
        caption="Estimators that scored no answer of this run, by the reason.",
        corner="Reason",
        headings=(Heading("Estimators", "number"), Heading("Which", words=True)),
        rows=tuple(
            Row(why, (Cell(numbers.count(len(those))), Cell(", ".join(those))))
            for why, those in sorted(names.items(), key=lambda item: -len(item[1]))
        ),
    )


def coverage(evaluation: Evaluation, shown: Sequence[EstimatorResult]) -> Table | None:
    """Accuracy when only the most confident share is kept; None without held-out answers."""
    notes = Notes()
    coverages = sorted({row.coverage for result in shown for row in result.coverage_table})
    if not coverages:
        return None
    rows = []
    for result in shown:
        by_coverage = {row.coverage: row for row in result.coverage_table}
        cells = []
        for share in coverages:
            row = by_coverage.get(share)
            missing = Estimate(None, reason="no rows at this coverage")
            figure = numbers.cell(row.accuracy if row else missing, "accuracy", notes)
            if row is not None and row.threshold is not None:
                edge = numbers.number(row.threshold, numbers.THRESHOLD)
                figure = replace(figure, n=f"{figure.n}, ≥ {edge}")
            cells.append(figure)
        rows.append(Row(inert(result.name), tuple(cells), marks(result, evaluation)))
    return Table(
        caption=(
            "Accuracy of the kept answers when the least confident are refused: held-out rows of "
            f"the first split, {_level(evaluation)} intervals, the rows kept, and the threshold "
            "from which an answer is kept (calibrated confidence; the raw score, negated, where "
            "there is no calibration). Ties are kept together."
        ),
        corner="Estimator",
        headings=tuple(Heading(f"{numbers.share(c)} kept") for c in coverages),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )


def types(
    evaluation: Evaluation, shown: Sequence[EstimatorResult], *, all_of: bool
) -> Table | None:
    """Accuracy by question type, and AUROC within it; None where there are no types."""
    if not evaluation.types:
        return None
    notes = Notes()
    rows = []
    for kind in evaluation.types:
        cells = [
            Cell(numbers.count(kind.n)),
            numbers.cell(kind.accuracy, "accuracy", notes, row_n=kind.n),
        ]
        for result in shown:
            figures = result.by_type.get(kind.name, {})
            missing = Estimate(None, reason="no held-out row of this type was scored")
            cells.append(numbers.cell(figures.get("auroc", missing), "auroc", notes))
        rows.append(Row(inert(kind.name), tuple(cells)))
    which = "all estimators" if all_of else "the estimators drawn above"
    return Table(
        caption=(
            f"Accuracy on all judged rows, and held-out AUROC of {which}, by question type, with "
            f"{_level(evaluation)} intervals."
        ),
        corner="Question type",
        headings=(
            Heading("n", "judged rows"),
            numbers.heading("accuracy"),
            *(Heading(inert(result.name), "AUROC") for result in shown),
        ),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )


def reasons(skipped: Sequence[Skipped]) -> str:
    """Returns counted reasons as one phrase."""
    return "; ".join(f"{inert(s.reason)} ({numbers.count(s.n)})" for s in skipped if s.n)


def _difference(
    result: EstimatorResult, metric: str, evaluation: Evaluation, notes: Notes, row_n: int
) -> Cell:
    if result.name == evaluation.protocol.baseline:
        return Cell("baseline")
    if evaluation.protocol.baseline is None:
        missing = Estimate(None, n=row_n, reason="no simple baseline could be scored")
    else:
        missing = Estimate(None, n=row_n, reason="not compared: one of the two is not calibrated")
    estimate = result.vs_baseline.get(metric, missing)
    return numbers.cell(estimate, metric, notes, row_n=row_n, signed=True)


def _bar(estimate: Estimate, baseline: EstimatorResult | None) -> Bar | None:
    if estimate.value is None:
        return None
    reference = None if baseline is None else heldout(baseline, "auroc").value
    return Bar(
        _along(estimate.value),
        None if estimate.low is None else _along(estimate.low),
        None if estimate.high is None else _along(estimate.high),
        _along(0.5),
        None if reference is None else _along(reference),
    )


def _along(auroc: float) -> float:
    return min(1.0, max(0.0, (auroc - BAR_LOW) / (1.0 - BAR_LOW)))


def _level(evaluation: Evaluation) -> str:
    return numbers.share(evaluation.protocol.level)
