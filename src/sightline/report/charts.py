"""Charts as inline SVG, drawn by matplotlib's object-oriented interface.

Colours are placeholders in the drawing and CSS variables in the result, so that one drawing serves
light and dark pages; text stays text in the page's own font. The result is deterministic: no
dates, no random identifiers, and the reader's matplotlib settings have no effect.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from sightline.report.view import (
    Chart,
    DotChart,
    Figure,
    HistogramChart,
    Line,
    LineChart,
    ReliabilityChart,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INK, FAINT, RULE, RIGHT, WRONG = "#000001", "#000002", "#000003", "#000004", "#000005"
STYLES = 8
SERIES = tuple(f"#0000{16 + i:02x}" for i in range(STYLES))
PAPER = "#000006"
VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        INK: "var(--ink)",
        FAINT: "var(--faint)",
        RULE: "var(--rule)",
        RIGHT: "var(--right)",
        WRONG: "var(--wrong)",
        PAPER: "var(--paper)",
    }
    | {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)}
)
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (6, 2),
    (2, 1.5),
    (7, 2, 1.5, 2),
    (4, 1.5, 1.5, 1.5, 1.5, 1.5),
)
REFERENCES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"oracle": (1, 1.6), "random": (5, 3)}
)
MARKERS = ("o", "s", "^", "D")
MARKER_PATHS = (
    "M13.5 4a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "M13.8 .8h6.4v6.4h-6.4z",
    "M17 .4l3.8 7.2h-7.6z",
    "M17 -.2l4.2 4.2l-4.2 4.2l-4.2 -4.2z",
)
WIDTH = 360
POINTS_PER_INCH = 72

_SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 10.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "text.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 0.8,
}

_DRAWING = (
    "axes.",
    "figure.",
    "font.",
    "grid.",
    "hatch.",
    "legend.",
    "lines.",
    "markers.",
    "mathtext.",
    "patch.",
    "path.",
    "savefig.",
    "svg.",
    "text.",
    "xaxis.",
    "xtick.",
    "yaxis.",
    "ytick.",
)
"""Groups of matplotlib's settings that a chart depends on; the reader's own are set aside."""


def svg(figure: Figure) -> str:
    """Returns a figure's chart as an ``<svg>`` element with a title and a description."""
    import matplotlib as mpl

    defaults = {k: v for k, v in mpl.rcParamsDefault.items() if k.startswith(_DRAWING)}
    with mpl.rc_context(defaults | _SETTINGS | {"svg.hashsalt": figure.key}):
        canvas = _draw(figure.chart)
        out = io.StringIO()
        canvas.savefig(
            out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True
        )
    return _inline(out.getvalue(), figure)


def _draw(chart: Chart) -> Canvas:
    match chart:
        case LineChart():
            return _lines(chart)
        case ReliabilityChart():
            return _reliability(chart)
        case HistogramChart():
            return _histogram(chart)
        case DotChart():
            return _dots(chart)


def _canvas(height: float) -> Canvas:
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH))


def _axes(canvas: Canvas, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes whose edges are given in points from the canvas's lower left."""
    width, height = canvas.get_size_inches() * POINTS_PER_INCH
    box = (left / width, bottom / height, (right - left) / width, (top - bottom) / height)
    return canvas.add_axes(box)


def dashes(style: int | str) -> tuple[float, ...]:
    """Lengths drawn and skipped, in line widths, of a series or a reference; empty = solid."""
    return REFERENCES[style] if isinstance(style, str) else DASHES[style % len(DASHES)]


def dash_array(style: int | str) -> str:
    """Returns the dashes as SVG takes them, for the swatches of a legend."""
    width = _line_width(style)
    return " ".join(f"{length * width:g}" for length in dashes(style)) or "none"


def marker_path(style: int) -> str:
    """Returns the marker of a style as an SVG path around (17, 4), for the swatches of a legend."""
    return MARKER_PATHS[style % len(MARKER_PATHS)]


def _line_width(style: int | str) -> float:
    return 1.2 if isinstance(style, str) else 1.8


def _line_style(style: int | str) -> Any:
    pattern = dashes(style)
    return (0, pattern) if pattern else "-"


def _line(axes: Axes, line: Line) -> None:
    reference = isinstance(line.style, str)
    axes.plot(
        line.x,
        line.y,
        color=FAINT if reference else SERIES[int(line.style) % STYLES],
        linestyle=_line_style(line.style),
        linewidth=_line_width(line.style),
        zorder=2 if reference else 3 + STYLES - int(line.style),
    )


def _lines(chart: LineChart) -> Canvas:
    height = 340
    canvas = _canvas(height)
    axes = _axes(canvas, 50, 44, WIDTH - 8, height - 8)
    axes.grid(True)
    axes.set_axisbelow(True)
    for line in chart.lines:
        _line(axes, line)
    axes.set_xlim(*chart.x_range)
    axes.set_ylim(*chart.y_range)
    if chart.x_range == (0, 1):
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    return canvas


def _reliability(chart: ReliabilityChart) -> Canvas:
    height = 390
    canvas = _canvas(height)
    axes = _axes(canvas, 50, 112, WIDTH - 8, height - 8)
    counts = _axes(canvas, 50, 44, WIDTH - 8, 98)
    colour = SERIES[chart.style % STYLES]
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle=_line_style("random"))
    for b in chart.bins:
        if b.accuracy is None or b.confidence is None:
            continue
        if b.accuracy_low is not None and b.accuracy_high is not None:
            axes.fill_between(
                [b.low, b.high],
                b.accuracy_low,
                b.accuracy_high,
                color=colour,
                alpha=0.1 if b.sparse else 0.22,
                linewidth=0,
            )
        axes.plot(
            b.confidence,
            b.accuracy,
            marker="o",
            markersize=6,
            color=colour,
            markerfacecolor=PAPER if b.sparse else colour,
            linestyle="none",
            clip_on=False,
            zorder=5,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], [""] * 6)
    axes.set_ylabel("accuracy")
    top = max((b.n for b in chart.bins), default=0) or 1
    for b in chart.bins:
        middle = (b.low + b.high) / 2
        counts.bar(middle, b.n, width=0.085, color=colour, alpha=0.55, linewidth=0)
        if b.n:
            counts.text(middle, b.n + 0.06 * top, f"{b.n}", ha="center", va="bottom", fontsize=9)
    counts.set_xlim(0, 1)
    counts.set_ylim(0, top * 1.45)
    counts.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    counts.set_yticks([])
    counts.spines["left"].set_visible(False)
    counts.set_ylabel("rows", labelpad=24)
    counts.set_xlabel("calibrated confidence")
    return canvas


def _histogram(chart: HistogramChart) -> Canvas:
    from matplotlib.ticker import MaxNLocator

    height = 250
    canvas = _canvas(height)
    axes = _axes(canvas, 50, 44, WIDTH - 8, height - 8)
    for low, high, right, wrong in zip(
        chart.edges[:-1], chart.edges[1:], chart.right, chart.wrong, strict=True
    ):
        middle, width = (low + high) / 2, (high - low) * 0.86
        axes.bar(middle, right, width=width, color=RIGHT, linewidth=0)
        axes.bar(middle, -wrong, width=width, color=WRONG, linewidth=0)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    top = max((*chart.right, 1)) * 1.2
    bottom = max((*chart.wrong, 0.25 * top)) * 1.2
    axes.set_xlim(0, 1)
    axes.set_ylim(-bottom, top)
    axes.text(0.01, top, "right ↑", va="top", color=RIGHT, fontweight="bold")
    axes.text(0.01, -bottom, "wrong ↓", va="bottom", color=WRONG, fontweight="bold")
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlabel("calibrated confidence")
    axes.set_ylabel("answers")
    return canvas


def _dots(chart: DotChart) -> Canvas:
    """Rows with their label above, so that long names fit a phone."""
    styles = 1 + max(point.style for _, points in chart.rows for point in points)
    step = 18 + 9 * styles
    height = 52 + step * len(chart.rows)
    canvas = _canvas(height)
    axes = _axes(canvas, 8, 44, WIDTH - 8, height - 8)
    low, high = chart.x_range
    for index, (label, points) in enumerate(chart.rows):
        base = -step * index
        axes.axhline(base, color=RULE, linewidth=0.6)
        axes.text(low, base - 3, label, va="top", parse_math=False)
        if chart.reference is not None:
            axes.vlines(chart.reference, base - step, base - 15, color=FAINT, linewidth=1.0)
        for point in points:
            y = base - 20 - 9 * point.style
            colour = SERIES[point.style % STYLES]
            if point.low is not None and point.high is not None:
                axes.plot([point.low, point.high], [y, y], color=colour, linewidth=1.6)
            axes.plot(
                point.value,
                y,
                marker=MARKERS[point.style % len(MARKERS)],
                markersize=6,
                color=colour,
                linestyle="none",
                clip_on=False,
            )
    axes.set_xlim(low, high)
    axes.set_ylim(-step * len(chart.rows), 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(chart.x_label)
    return canvas


_FONT = re.compile(r"font:\s*(?:(bold|\d{3})\s+)?([\d.]+)px[^;]*|font-family:[^;]*;?\s*")
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")


def _inline(document: str, figure: Figure) -> str:
    """Turns matplotlib's document into an element for a page that holds many of them."""
    root = ET.fromstring(document)  # noqa: S314 (matplotlib wrote it)
    referenced = {
        found
        for element in root.iter()
        for value in element.attrib.values()
        for pair in _REFERENCE.findall(value)
        for found in pair
        if found
    }
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        for name in list(element.attrib):
            value = element.attrib.pop(name)
            if name == "id":
                if value in referenced:
                    element.set("id", f"{figure.key}-{value}")
                continue
            value = re.sub(r"url\(#", f"url(#{figure.key}-", value)
            if _local(name) == "href":
                value = value.replace("#", f"#{figure.key}-", 1)
            if name in ("style", "fill", "stroke"):
                value = _FONT.sub(_font, value)
                for placeholder, variable in VARIABLES.items():
                    value = value.replace(placeholder, variable)
            if name in ("style", "fill", "stroke") or _local(name) != "space":
                element.set(_local(name), value)
        element.tail = None if element.tail and not element.tail.strip() else element.tail
        element.text = None if element.text and not element.text.strip() else element.text
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.set("class", "chart")
    root.set("viewBox", box)
    root.set("role", "img")
    root.set("aria-labelledby", f"{figure.key}-title {figure.key}-description")
    title = ET.Element("title", id=f"{figure.key}-title")
    title.text = figure.title
    description = ET.Element("desc", id=f"{figure.key}-description")
    description.text = figure.description
    root.insert(0, title)
    root.insert(1, description)
    return ET.tostring(root, encoding="unicode")


def _font(found: re.Match[str]) -> str:
    """The page chooses the font; the drawing only its size and weight."""
    if found[2] is None:
        return ""
    weight = f"font-weight: {found[1]}; " if found[1] else ""
    return f"{weight}font-size: {found[2]}px"


def _local(name: str) -> str:
    return name.rpartition("}")[2]
