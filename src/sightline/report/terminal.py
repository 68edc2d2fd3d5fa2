"""The leaderboard as a table for the terminal; nothing a terminal would act on gets through."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sightline.core.estimates import Estimate
from sightline.core.results import EstimatorResult, Evaluation
from sightline.report import numbers
from sightline.report.classifier_tables import SECOND_TASK
from sightline.report.numbers import inert
from sightline.report.tables import heldout, marks

WIDTH = 120
"""Columns where the output is not a terminal, so that files do not depend on a window."""

METRICS = ("auroc", "within_type_auroc", "prr", "aurc", "ece", "brier")
NARROW = ("auroc", "prr", "ece")
"""Figures for a narrower terminal; the first of them where even these leave names no room."""

NAME, FIGURE = 24, 15
"""Columns for an estimator's name and n, and for a figure with its interval."""

BETWEEN = 2
"""Columns between two of the table."""

REASONS = 4
"""Reasons shown why scores were not computed."""

ECE = " Few rows in a bin make ECE too large; its interval takes that off."
RAW = " Raw: the score as it is on all rows, where no held-out figure is defined."


def print_leaderboard(evaluation: Evaluation, *, top: int = 15, file: TextIO | None = None) -> None:
    """Prints what was evaluated and its best estimators, with intervals and n.

    Controls, the best simple baseline and estimators fitted before are shown whatever their rank.

    Args:
        evaluation: What to print.
        top: Estimators shown beside those.
        file: Where to; standard output if None.
    """
    console = terminal_console(file or sys.stdout)
    run, protocol = evaluation.run, evaluation.protocol
    console.print(Text(inert(f"{run.model} on {run.dataset}"), style="bold"))
    accuracy = numbers.plain(evaluation.accuracy, "accuracy", level=protocol.level)
    console.print(Text(f"accuracy {accuracy}"))
    mean = evaluation.mean_correctness
    if mean.value is not None and mean.value != evaluation.accuracy.value:
        marks_mean = numbers.plain(mean, "accuracy", level=protocol.level)
        console.print(
            Text(
                f"mean correctness {marks_mean}; right from a correctness of {protocol.threshold:g}"
            )
        )
    for line in _remarks(evaluation):
        console.print(Text(line, style="yellow"))
    shown = _shown(evaluation, top)
    if not shown:
        console.print(Text("no estimator could score any answer"))
        return
    metrics = _metrics(console.width)
    console.print(_table(evaluation, shown, metrics, console.width))
    left_out = len(evaluation.estimators) - len(shown)
    if left_out:
        console.print(Text(f"{left_out} more in the report", style="dim"))
    for line in _not_applicable(evaluation):
        console.print(Text(line, style="dim"))
    for number, reason in enumerate(_reasons(shown, metrics), start=1):
        console.print(Text(f"({number}) {reason}", style="dim"))
    console.print(
        Text(
            f"Held-out rows, mean over {len(protocol.seeds)} splits; "
            f"{numbers.share(protocol.level)} intervals from "
            f"{numbers.count(protocol.resamples)} resamples of groups. "
            "Higher is better for AUROC and PRR, lower for the others."
            f"{ECE if 'ece' in metrics else ''}"
            f"{RAW if _any_raw(shown, metrics) else ''}",
            style="dim",
        )
    )
    if (second := _second_task(evaluation, top)) is not None:
        said, table = second
        console.print(Text(f"\n{said}"))
        console.print(table)


def _not_applicable(evaluation: Evaluation) -> list[str]:
    """What could score no answer: of a classifier's scores the reasons, too."""
    count = len(evaluation.not_applicable)
    if not count:
        return []
    if evaluation.classifier is None:
        return [f"{count} estimators need signals that this run lacks; the report names them"]
    names: dict[str, list[str]] = {}
    for one in evaluation.not_applicable:
        names.setdefault(inert(one.reasons[0].reason), []).append(inert(one.name))
    first = sorted(names.items(), key=lambda item: -len(item[1]))[:REASONS]
    shown = [
        f"  {', '.join(those[:5])}{f' and {len(those) - 5} more' if len(those) > 5 else ''}: {why}"
        for why, those in first
    ]
    what = "1 score was" if count == 1 else f"{count} scores were"
    named = "it" if count == 1 else "them all"
    return [f"{what} not computed; the report names {named}", *shown]


def _second_task(evaluation: Evaluation, top: int) -> tuple[str, Table] | None:
    """How well the scores tell out-of-distribution pictures, the best first."""
    task = None if evaluation.classifier is None else evaluation.classifier.out_of_distribution
    if task is None:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("score", overflow="fold", min_width=8)
    for metric in SECOND_TASK:
        table.add_column(numbers.STYLES[metric].label, justify="right", no_wrap=True)
    ordered = sorted(
        task.figures.items(), key=lambda item: (-(item[1]["auroc"].value or 0.0), item[0])
    )
    for name, figures in ordered[:top]:
        table.add_row(inert(name), *(_around(figures[metric], metric) for metric in SECOND_TASK))
    more = f"; {len(ordered) - top} more in the report" if len(ordered) > top else ""
    said = (
        f"Telling this run's pictures from {numbers.count(task.pictures)} of none of its classes "
        f"({inert(task.run)}){more}"
    )
    return said, table


def _around(estimate: Estimate, metric: str) -> Text:
    """A figure with its interval, on one line."""
    if estimate.value is None:
        return Text(numbers.DASH)
    style = numbers.STYLES[metric]
    text = Text(numbers.number(estimate.value, style))
    text.append(f"  {numbers.interval(estimate, style) or 'no interval'}", style="dim")
    return text


def terminal_console(file: TextIO) -> Console:
    """A console for a file: no colour and a fixed width unless it is a terminal."""
    terminal = file.isatty()
    colour = terminal and not os.environ.get("NO_COLOR")
    return Console(
        file=file,
        width=None if terminal else WIDTH,
        no_color=not colour,
        color_system="auto" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def _remarks(evaluation: Evaluation) -> list[str]:
    run = evaluation.run
    remarks = [] if run.partial is None else [f"partial: {inert(run.partial)}"]
    remarks.extend(f"note: {inert(note)}" for note in run.notes)
    for count, what in (
        (run.quarantined, "quarantined"),
        (run.truncated_answers, "cut off at the token limit"),
        (run.empty_answers, "empty"),
        (sum(s.n for s in evaluation.protocol.ungraded), "not graded"),
    ):
        if count:
            remarks.append(f"{numbers.count(count)} of {numbers.count(run.records)} {what}")
    return remarks


def _shown(evaluation: Evaluation, top: int) -> list[EstimatorResult]:
    real = [e.name for e in evaluation.estimators if not e.control][:top]
    fitted = [e.name for e in evaluation.estimators if "fitted_on" in e.spec]
    keep = {*real, *fitted, evaluation.protocol.baseline}
    return [e for e in evaluation.estimators if e.control or e.name in keep]


def _metrics(width: int) -> tuple[str, ...]:
    return METRICS if width >= WIDTH else NARROW[: max(1, (width - NAME) // FIGURE)]


def _table(
    evaluation: Evaluation, shown: list[EstimatorResult], metrics: tuple[str, ...], width: int
) -> Table:
    notes = _reasons(shown, metrics)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("estimator", overflow="fold", min_width=8)
    table.add_column("n", justify="right", no_wrap=True)
    for metric in metrics:
        table.add_column(numbers.STYLES[metric].label, justify="right", no_wrap=True)
    rows = [
        [
            Text(numbers.count(heldout(result, "auroc").n)),
            *(_figure(result, metric, notes) for metric in metrics),
        ]
        for result in shown
    ]
    headings = ["n", *(numbers.STYLES[metric].label for metric in metrics)]
    room = width - sum(
        BETWEEN
        + max(map(cell_len, [heading, *(line for c in cells for line in c.plain.split("\n"))]))
        for heading, cells in zip(headings, zip(*rows, strict=True), strict=True)
    )
    for result, cells in zip(shown, rows, strict=True):
        name = Text(_folded(inert(result.name), room))
        if tags := marks(result, evaluation):
            name.append(f"\n  {', '.join(tags)}", style="dim")
        if skipped := [f"{numbers.count(s.n)}{_note(s.reason, notes)}" for s in result.skipped]:
            name.append(f"\n  skipped {', '.join(skipped)}", style="dim")
        table.add_row(name, *cells, style="dim" if result.control else None)
    return table


def _folded(name: str, room: int) -> str:
    """A name broken behind the last underscore that fits, where it does not fit whole."""
    last = name.rfind("_", 0, max(room, 0))
    if len(name) <= room or last < 1:
        return name
    return f"{name[: last + 1]}\n{_folded(name[last + 1 :], room)}"


def _figure(result: EstimatorResult, metric: str, notes: list[str]) -> Text:
    estimate = heldout(result, metric)
    style = numbers.STYLES[metric]
    note = "" if estimate.reason is None else _note(estimate.reason, notes)
    if estimate.value is None:
        text = Text(f"{numbers.DASH}{note}")
        raw = result.raw.get(metric)
        if raw is not None and raw.value is not None:
            around = numbers.interval(raw, style) or "no interval"
            text.append(f"\nraw {numbers.number(raw.value, style)}\n{around}", style="dim")
        return text
    text = Text(f"{numbers.number(estimate.value, style)}{note}")
    ends = numbers.interval(estimate, style)
    text.append(f"\n{ends or 'no interval'}", style="dim")
    return text


def _note(reason: str, notes: list[str]) -> str:
    return f" ({notes.index(inert(reason)) + 1})"


def _any_raw(shown: list[EstimatorResult], metrics: tuple[str, ...]) -> bool:
    return any(
        heldout(result, metric).value is None and result.raw[metric].value is not None
        for result in shown
        for metric in metrics
        if metric in result.raw
    )


def _reasons(shown: list[EstimatorResult], metrics: tuple[str, ...]) -> list[str]:
    """Every reason that the table names by number, each once."""
    out: list[str] = []
    for result in shown:
        figures = [heldout(result, metric).reason for metric in metrics]
        for reason in (*(s.reason for s in result.skipped), *figures):
            if reason is not None and inert(reason) not in out:
                out.append(inert(reason))
    return out
