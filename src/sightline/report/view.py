"""What a report shows: frozen values in which every number is already text.

The template and the charts only place what stands here. All text is inert: control characters and
bidirectional marks of model output are visible escapes, and long texts are clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval as a small drawing; positions in [0, 1] from left to right.

    Attributes:
        at: Where the value lies.
        low: Where the interval starts, or None without interval.
        high: Where it ends.
        chance: Where a score without signal lies.
        baseline: Where the best simple baseline lies, or None.
    """

    at: float
    low: float | None
    high: float | None
    chance: float
    baseline: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: The figure or words; an em dash where there is none.
        interval: Ends of the interval, or words saying that there is none.
        n: Rows the figure was measured on, where they are not those of the table's row.
        note: Number of the table's note that gives the reason.
        best: Whether it leads its column.
        bar: Drawn instead of text.
    """

    text: str
    interval: str | None = None
    n: str | None = None
    note: int | None = None
    best: bool = False
    bar: Bar | None = None


@dataclass(frozen=True, slots=True)
class Heading:
    """Heading of a column.

    Attributes:
        text: Its name.
        hint: Which way is better, or the unit.
        words: Whether the column holds words, set flush left, rather than figures.
    """

    text: str
    hint: str | None = None
    words: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its heading, marks beside it, and its cells."""

    heading: str
    cells: tuple[Cell, ...]
    marks: tuple[str, ...] = ()
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with caption, headings in scope, and numbered notes for figures that lack a value."""

    caption: str
    corner: str
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        label: Its name in the legend and the table.
        style: Index of its colour and dashes, or the reference line it is.
        x: Ascending.
        y: As many as x.
    """

    label: str
    style: int | Literal["oracle", "random"]
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LineChart:
    """Lines over [0, 1] on the x axis, or over another range."""

    x_label: str
    y_label: str
    y_range: tuple[float, float]
    lines: tuple[Line, ...]
    x_range: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class BinView:
    """One bin of a reliability diagram; ``sparse`` where it holds too few rows to be read."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    sparse: bool


@dataclass(frozen=True, slots=True)
class ReliabilityChart:
    """Accuracy against confidence in bins, with counts below."""

    bins: tuple[BinView, ...]
    style: int


@dataclass(frozen=True, slots=True)
class HistogramChart:
    """Counts of confidence: right answers upwards, wrong answers downwards."""

    edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval, in the colour of a style."""

    style: int
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class DotChart:
    """Values with intervals, one labelled row each, one point per style."""

    x_label: str
    x_range: tuple[float, float]
    reference: float | None
    rows: tuple[tuple[str, tuple[Point, ...]], ...]


Chart = LineChart | ReliabilityChart | HistogramChart | DotChart


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with what its readers need who see it, and who do not.

    Attributes:
        key: Unique on the page.
        title: What it shows.
        description: What can be read off it, in words.
        caption: Printed below it, with n.
        chart: What is drawn.
        table: The same numbers.
    """

    key: str
    title: str
    description: str
    caption: str
    chart: Chart
    table: Table


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A style and what it stands for; ``dot`` where it marks points rather than a line."""

    label: str
    style: int | Literal["oracle", "random"]
    dot: bool = False


@dataclass(frozen=True, slots=True)
class FigureGroup:
    """Figures that share a legend; ``note`` names what is not drawn, and why."""

    figures: tuple[Figure, ...]
    legend: tuple[LegendEntry, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as a data URI, or the reason why there is none."""

    uri: str | None
    alt: str
    missing: str | None


@dataclass(frozen=True, slots=True)
class AnswerCard:
    """One answer with its question and images."""

    question: str
    answer: str
    references: str
    choices: tuple[str, ...]
    confidence: str
    example_id: str
    question_type: str | None
    images: tuple[Thumbnail, ...]
    more_images: str | None


@dataclass(frozen=True, slots=True)
class AnswerList:
    """Answers under one heading; ``empty`` says why there are none."""

    title: str
    note: str
    empty: str
    answers: tuple[AnswerCard, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """A term and what it is."""

    term: str
    text: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """One run of the report, in reading order."""

    key: str
    title: str
    subtitle: str
    partial: str | None
    notes: tuple[str, ...]
    facts: tuple[Fact, ...]
    summary: tuple[str, ...]
    leaderboard: Table
    differences: Table | None
    raw: Table
    costs: Table
    not_applicable: Table | None
    over_draws: Table | None
    second_task: Table | None
    reliability: FigureGroup
    curves: FigureGroup
    histograms: FigureGroup
    coverage: Table | None
    types: Table | None
    types_absent: str | None
    all_types: Table | None
    answers: tuple[AnswerList, ...]
    protocol: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """A table behind a line of text that opens it."""

    summary: str
    table: Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs side by side; ``absent`` says why no estimator can be compared."""

    overview: Table
    figure: FigureGroup | None
    estimators: tuple[Folded, ...]
    absent: str


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report."""

    title: str
    version: str
    runs: tuple[RunView, ...]
    comparison: Comparison | None
