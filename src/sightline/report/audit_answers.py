"""Tables of what an audit's answers do: right and wrong, margins, readings, yes and no, prior."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.core.audit_answers import Rates, YesNo
from sightline.core.audit_results import Audit
from sightline.core.estimates import Estimate
from sightline.report.audit_terminal import by_kind, row_name
from sightline.report.audit_view import Grid, GridRow, Shaded
from sightline.report.numbers import DASH, MINUS, count, inert

NATS = "nats"


def answer_tables(audit: Audit) -> tuple[Grid, ...]:
    """Every table that has something in it."""
    found = (
        _transitions(audit),
        _margins(audit),
        _undecided(audit),
        _readings(audit),
        *_yes_no(audit),
        _without_picture(audit),
    )
    return tuple(grid for grid in found if grid is not None)


def cell_of(
    value: Estimate | None, top: float | None, *, places: int = 3, counts: bool = False
) -> Shaded:
    """A figure with its interval, shaded by its share of the largest one if that is given.

    Args:
        value: The figure.
        top: The largest one.
        places: Decimals.
        counts: The figure is a share; say of how many.
    """
    if value is None or value.value is None:
        return Shaded(DASH)
    ends = None
    if value.low is not None and value.high is not None:
        ends = f"{signed(value.low, places)} to {signed(value.high, places)}"
    shade = None if not top else min(60, round(60 * abs(value.value) / top))
    text = signed(value.value, places)
    if counts:
        text += f" ({count(round(value.value * value.n))} of {count(value.n)})"
    return Shaded(text, ends, shade)


def signed(value: float, places: int | None = None) -> str:
    """A number with a true minus sign and no negative zero."""
    if places is None:
        return f"{value:g}".replace("-", MINUS)
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", MINUS)


def _transitions(audit: Audit) -> Grid | None:
    """Graded pairs by right and wrong, before and after."""
    rows = []
    for own in by_kind(audit):
        counts = (own.right_right, own.right_wrong, own.wrong_right, own.wrong_wrong)
        if sum(counts):
            figures = (own.accuracy_before, own.accuracy_after, own.accuracy_change)
            cells = (*(Shaded(count(n)) for n in counts), *(cell_of(e, None) for e in figures))
            rows.append(GridRow(f"{row_name(own)} ({count(sum(counts))})", cells))
    if not rows:
        return None
    columns = ("R→R", "R→W", "W→R", "W→W", "accuracy before", "after", "change")
    return Grid(
        "Pairs by whether the answer is right before and after; only those whose right answer is "
        "known.",
        columns,
        tuple(rows),
    )


def _margins(audit: Audit) -> Grid | None:
    columns = (
        "where the label flips",
        "where it stays",
        "change",
        "change, of the right option",
        "change of the clean answer's log-probability",
    )

    def figures(own: Rates) -> tuple[Estimate, ...]:
        return (
            own.margin_flipped,
            own.margin_stays,
            own.margin_change,
            own.margin_true_change,
            own.score_change,
        )

    rows = [(f"{row_name(own)} ({count(own.pairs)})", figures(own)) for own in by_kind(audit)]
    return _estimates(
        f"Margin of the clean label under the perturbation, {NATS}: means over questions of its "
        "flips and of the answers that stay.",
        columns,
        rows,
    )


def _undecided(audit: Audit) -> Grid | None:
    rows = tuple(
        GridRow(row_name(own), (Shaded(count(own.undecided.n)), cell_of(own.undecided, None)))
        for own in by_kind(audit)
        if own.undecided.n
    )
    if not rows:
        return None
    return Grid(
        "Undecided pairs: it is not known whether the right answer stays. They are in no other "
        "figure.",
        ("pairs", "of these, flip"),
        rows,
    )


def _readings(audit: Audit) -> Grid | None:
    """Flip rates by how the label is read off, beside the one that every other figure has."""
    if not audit.variants:
        return None
    rows = [("as in every other figure", audit.rates[0].ifr), *audit.variants.items()]
    return Grid(
        "Flip rate (IFR) by how labels are read, over changed pictures.",
        ("pairs", "IFR"),
        tuple(
            GridRow(inert(name, 60), (Shaded(count(value.n)), cell_of(value, None)))
            for name, value in rows
        ),
    )


def _yes_no(audit: Audit) -> tuple[Grid | None, ...]:
    """Rates, then margins and flips, of yes-or-no questions."""
    rates = {
        "accuracy": "accuracy",
        "precision": "precision",
        "recall": "recall",
        "F1": "f1",
        "false positives": "false_positive_rate",
        "says yes": "yes_rate",
    }
    moves = {
        f"yes less no, {NATS}": "margin",
        "where it flips": "margin_flipped",
        "where it stays": "margin_stays",
        "yes, right: flips": "hit",
        "yes, wrong: flips": "false_alarm",
        "no, wrong: flips": "miss",
        "no, right: flips": "rejection",
    }
    return (
        _of_yes_no("Yes-or-no questions.", audit.yes_no, rates),
        _of_yes_no(
            "Yes-or-no questions: margin of yes against no, and the share of clean answers that "
            "flip with their number, by what was said and whether that is right.",
            audit.yes_no,
            moves,
            counted=frozenset({"hit", "false_alarm", "miss", "rejection"}),
        ),
    )


def _of_yes_no(
    caption: str,
    found: Sequence[YesNo],
    columns: dict[str, str],
    *,
    counted: frozenset[str] = frozenset(),
) -> Grid | None:
    """Figures by type; of the ``counted`` ones how many flip, of how many."""
    rows = []
    for own in found:
        cells = (
            cell_of(getattr(own, name), None, counts=name in counted) for name in columns.values()
        )
        rows.append(GridRow(f"{inert(own.name, 60)} ({count(own.n)})", tuple(cells)))
    if all(cell.text == DASH for row in rows for cell in row.cells):
        return None
    return Grid(caption, tuple(columns), tuple(rows))


def _without_picture(audit: Audit) -> Grid | None:
    prior = audit.prior
    if prior is None:
        return None
    figures = {
        "same answer": prior.unchanged,
        "of right ones": prior.unchanged_right,
        "of wrong ones": prior.unchanged_wrong,
        "accuracy with": prior.accuracy,
        "accuracy without": prior.accuracy_blank,
        "gain": prior.accuracy_gain,
        f"margin with, {NATS}": prior.margin,
        f"margin without, {NATS}": prior.margin_blank,
    }
    missing = "; ".join(
        f"{count(s.n)} pairs have no prior index: {s.reason}" for s in prior.without_index
    )
    caption = "Without the picture: what is answered to a blank one, and the margin there."
    if missing:
        caption += f" {inert(missing, 200)}."
    row = (f"questions ({count(prior.unchanged.n)})", tuple(figures.values()))
    return _estimates(caption, tuple(figures), [row])


def _estimates(
    caption: str, columns: tuple[str, ...], rows: Sequence[tuple[str, tuple[Estimate, ...]]]
) -> Grid | None:
    """A table of figures; None where no cell has one."""
    if not any(value.value is not None for _, own in rows for value in own):
        return None
    return Grid(
        caption,
        columns,
        tuple(GridRow(name, tuple(cell_of(value, None) for value in own)) for name, own in rows),
    )
