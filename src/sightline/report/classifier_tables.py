"""Tables that only zero-shot classifiers have: repeated support draws, and a second task."""

from __future__ import annotations

from sightline.core.estimates import Estimate
from sightline.core.results import ClassifierSummary, DrawFigures, Evaluation
from sightline.report import numbers
from sightline.report.numbers import Notes, inert
from sightline.report.view import Cell, Fact, Heading, Row, Table

DRAWN = ("accuracy", "auroc", "aurc", "fpr95", "fpr95_nearest")
_NEAREST = (
    "FPR95 accepts at least 95 % of right answers; the nearest rate is the rule of TrustVLM's "
    "released code, which may accept fewer."
)
SECOND_TASK = ("auroc", "fpr95")


def source_marks(name: str, evaluation: Evaluation) -> tuple[str, ...]:
    """Whether a classifier's score learned from labels, the first thing to know of a comparison."""
    summary = evaluation.classifier
    if summary is None or name not in summary.scores:
        return ()
    figures = summary.scores[name]
    first = "uses support labels" if figures.uses_support else "zero-shot"
    return (first, "may relabel") if figures.may_relabel else (first,)


def over_draws(evaluation: Evaluation) -> Table | None:
    """Every score on all judged pictures, over the support draws; None for other runs."""
    summary = evaluation.classifier
    if summary is None:
        return None
    order = sorted(
        summary.scores.items(), key=lambda item: (-(item[1].mean["auroc"] or 0.0), item[0])
    )
    rows = [
        Row(
            inert(name),
            (
                Cell(numbers.count(figures.draws)),
                *(_mean(figures, metric) for metric in DRAWN),
            ),
            source_marks(name, evaluation),
        )
        for name, figures in order
    ]
    return Table(
        caption=_caption(summary),
        corner="Score",
        headings=(Heading("Draws", "support draws"), *(numbers.heading(m) for m in DRAWN)),
        rows=tuple(rows),
    )


def second_task(evaluation: Evaluation) -> Table | None:
    """How well every score tells pictures of none of the classes; None where there are none."""
    task = None if evaluation.classifier is None else evaluation.classifier.out_of_distribution
    if task is None:
        return None
    notes = Notes()
    missing = Estimate(None, reason="not measured")
    order = sorted(
        task.figures.items(), key=lambda item: (-(item[1]["auroc"].value or 0.0), item[0])
    )
    rows = [
        Row(
            inert(name),
            tuple(numbers.cell(found.get(m, missing), m, notes) for m in SECOND_TASK),
            source_marks(name, evaluation),
        )
        for name, found in order
    ]
    return Table(
        caption=(
            f"Telling this run's pictures from {numbers.count(task.pictures)} pictures of none of "
            f"its classes ({inert(task.run)}) by the same scores; FPR95 is the share of those that "
            "is let through when 95 % of this run's pictures are."
        ),
        corner="Score",
        headings=tuple(numbers.heading(m) for m in SECOND_TASK),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )


def facts(evaluation: Evaluation) -> tuple[Fact, ...]:
    """What the classifier was given, for the page's protocol."""
    summary = evaluation.classifier
    if summary is None:
        return ()
    templates = "; ".join(inert(t, 80) for t in summary.templates[:8])
    support = "none"
    if summary.support is not None:
        support = (
            f"{_shots(summary)} pictures of every class from {inert(summary.support)}, "
            f"{numbers.count(summary.draws)} draws"
        )
    lost = f"{numbers.count(summary.unreadable)} support pictures could not be used"
    return (
        Fact("Classes", numbers.count(summary.classes), templates),
        Fact("Auxiliary encoders", ", ".join(map(inert, summary.encoders)) or "none"),
        Fact("Support pictures", support, lost if summary.unreadable else None),
    )


def _caption(summary: ClassifierSummary) -> str:
    if summary.support is None:
        return (
            "All judged pictures, by each score's own labels; nothing is learned from labels. "
            f"{_NEAREST}"
        )
    return (
        "All judged pictures, by each score's own labels: mean and standard deviation over "
        f"{numbers.count(summary.draws)} draws of {_shots(summary)} support pictures of every "
        "class. "
        "Scores that use these labels are to be compared with one another; zero-shot ones had "
        f"none. {_NEAREST}"
    )


def _shots(summary: ClassifierSummary) -> str:
    """How many pictures of a class the draws hold, which may be fewer than were asked for."""
    fewest = summary.shots if summary.fewest_shots is None else summary.fewest_shots
    most = numbers.count(summary.shots)
    return most if fewest == summary.shots else f"{numbers.count(fewest)} to {most}"


def _mean(figures: DrawFigures, metric: str) -> Cell:
    style = numbers.STYLES[metric]
    mean, spread = figures.mean.get(metric), figures.spread.get(metric)
    if mean is None:
        return Cell(numbers.DASH)
    around = None if spread is None else f"± {numbers.number(spread, style)}"
    return Cell(numbers.number(mean, style), interval=around)
