"""How figures are written: digits, intervals, signs, and reasons where there is no figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sightline.core.estimates import Estimate
from sightline.core.printing import printable
from sightline.metrics import METRICS
from sightline.report.view import Cell, Heading

DASH = "—"
MINUS = "−"
NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Style:
    """How one metric is written.

    Attributes:
        label: Name in a heading.
        digits: Decimals.
        scale: What the value is multiplied by.
        unit: Written after the figure.
    """

    label: str
    digits: int = 3
    scale: float = 1.0
    unit: str = ""


STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "auroc": Style("AUROC"),
        "within_type_auroc": Style("AUROC within type"),
        "prr": Style("PRR"),
        "aurc": Style("AURC ×1000", 1, 1000),
        "e_aurc": Style("E-AURC ×1000", 1, 1000),
        "auarc": Style("AUARC"),
        "fpr95": Style("FPR95"),
        "fpr95_nearest": Style("FPR95, nearest rate"),
        "ece": Style("ECE"),
        "ece15": Style("ECE, 15 bins"),
        "brier": Style("Brier"),
        "accuracy": Style("Accuracy", 1, 100, f"{NBSP}%"),
    }
)


_VARIANTS = {"within_type_auroc": "auroc", "fpr95_nearest": "fpr95"}

TEXT_LIMIT = 300
THRESHOLD = Style("Threshold")


def heading(metric: str, prefix: str = "") -> Heading:
    """Returns the heading of a metric's column, with the direction that is better."""
    rule = METRICS[_VARIANTS.get(metric, metric)]
    hint = "higher is better" if rule.direction == "higher" else "lower is better"
    return Heading(prefix + STYLES[metric].label, hint)


def number(value: float, style: Style, *, signed: bool = False, unit: bool = True) -> str:
    """Returns a figure with a true minus sign and no negative zero."""
    scaled = round(value * style.scale, style.digits) + 0.0
    sign = MINUS if scaled < 0 else "+" if signed and scaled > 0 else ""
    return f"{sign}{abs(scaled):,.{style.digits}f}{style.unit if unit else ''}"


def interval(estimate: Estimate, style: Style, *, signed: bool = False) -> str | None:
    """Returns the ends of the interval, or None where there is none."""
    if estimate.low is None or estimate.high is None:
        return None
    low, high = (
        number(end, style, signed=signed, unit=False) for end in (estimate.low, estimate.high)
    )
    joint = " to " if signed or MINUS in low else "–"
    return f"{low}{joint}{high}{style.unit}"


def count(n: int) -> str:
    """Returns a count with thousands separated."""
    return f"{n:,}"


def counted(n: int, noun: str) -> str:
    """Returns a count with its noun: "1 picture", "2 pictures", "no picture"."""
    return f"no {noun}" if n == 0 else f"{count(n)} {noun}" + ("" if n == 1 else "s")


def plain(estimate: Estimate, metric: str, *, level: float, signed: bool = False) -> str:
    """Returns a figure with interval and n as part of a sentence."""
    style = STYLES[metric]
    if estimate.value is None:
        return f"not defined ({inert(estimate.reason or 'no reason recorded')})"
    ends = interval(estimate, style, signed=signed)
    around = f"{share(level)} interval {ends}" if ends else "no interval"
    figure = number(estimate.value, style, signed=signed)
    return f"{figure} ({around}, n{NBSP}={NBSP}{count(estimate.n)})"


def seconds(value: float) -> str:
    """Returns a duration as people read it."""
    if value < 0.1:
        return "< 0.1 s"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def share(value: float) -> str:
    """Returns a share as a percentage without needless decimals."""
    return f"{round(value * 100, 1):g}{NBSP}%"


@dataclass(slots=True)
class Notes:
    """Numbers the reasons of one table, each reason once."""

    texts: list[str] = field(default_factory=list)

    def number(self, reason: str) -> int:
        """Returns the number of a reason, counted from 1."""
        text = inert(reason)
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def cell(
    estimate: Estimate,
    metric: str,
    notes: Notes,
    *,
    row_n: int | None = None,
    signed: bool = False,
) -> Cell:
    """Returns the cell of a figure: never hidden, with its reason where there is one.

    Args:
        estimate: The figure.
        metric: Key of `STYLES`.
        notes: Where a reason is added.
        row_n: The n printed in the row; the cell names its own only where it differs.
        signed: Whether it is a difference.
    """
    n = None if estimate.n == row_n else count(estimate.n)
    if estimate.value is None:
        n = n if estimate.n else None
        return Cell(DASH, n=n, note=notes.number(estimate.reason or "no reason recorded"))
    style = STYLES[metric]
    ends = interval(estimate, style, signed=signed)
    return Cell(
        number(estimate.value, style, signed=signed),
        interval=ends or "no interval",
        n=n,
        note=None if estimate.reason is None else notes.number(estimate.reason),
    )


def words(text: str) -> Cell:
    """Returns a cell of inert text."""
    return Cell(inert(text))


def inert(text: str, limit: int = TEXT_LIMIT) -> str:
    """Returns text nothing acts on, of bounded length, that says how much was left out."""
    if len(text) <= limit:
        return printable(text)
    return f"{printable(text[:limit])} … ({len(text):,} characters in all)"
