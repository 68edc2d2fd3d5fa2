from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import pytest
from evaluations import bare, evaluation

from sightline.core.results import Curve
from sightline.report import figures
from sightline.report.charts import SERIES, VARIABLES, dash_array, marker_path, svg
from sightline.report.view import Figure, HistogramChart, ReliabilityChart


def drawn() -> list[Figure]:
    run = evaluation()
    groups = [
        figures.curves(run, "a"),
        figures.reliability(run, "a"),
        figures.histograms(run, "a"),
        figures.across_runs([run, evaluation(seed=1)], ["one", "two"], ["perplexity", "random"]),
    ]
    return [figure for group in groups if group is not None for figure in group.figures]


FIGURES = drawn()
ONE_OF_EACH = list({type(figure.chart): figure for figure in FIGURES}.values())


@pytest.mark.parametrize("figure", ONE_OF_EACH, ids=lambda f: f.key)
def test_a_chart_is_labelled_and_takes_its_colours_from_the_page(figure: Figure) -> None:
    text = svg(figure)
    assert text.startswith('<svg class="chart" viewBox="0 0 360 ')
    assert 'role="img"' in text
    assert f'aria-labelledby="{figure.key}-title {figure.key}-description"' in text
    assert f'<title id="{figure.key}-title">' in text
    assert f'<desc id="{figure.key}-description">' in text
    assert "var(--ink)" in text
    assert "<text" in text
    assert not re.search(r"#[0-9a-fA-F]{6}\b", text), "a colour that does not follow the page"
    assert "<style" not in text
    assert "<metadata" not in text
    assert "DejaVu" not in text
    assert "http" not in text


@pytest.mark.parametrize("figure", ONE_OF_EACH, ids=lambda f: f.key)
def test_identifiers_are_unique_on_the_page_and_every_reference_resolves(figure: Figure) -> None:
    text = svg(figure)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(found.startswith(f"{figure.key}-") for found in ids)
    references = re.findall(r"url\(#([^)]+)\)", text) + re.findall(r'href="#([^"]+)"', text)
    assert set(references) <= set(ids)
    assert references or isinstance(figure.chart, HistogramChart)


def test_drawing_is_deterministic_and_ignores_the_readers_settings() -> None:
    figure = FIGURES[0]
    first = svg(figure)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert svg(figure) == first
        assert mpl.rcParams["font.size"] == 30


def test_drawing_leaves_no_trace_and_needs_no_pyplot() -> None:
    code = (
        "import sys, matplotlib as mpl; before = mpl.rcParams.copy()\n"
        "from sightline.report.charts import svg\n"
        "from sightline.report.view import Figure, HistogramChart, Table\n"
        "svg(Figure('k', 't', 'd', 'c', HistogramChart((0.0, 0.5, 1.0), (3, 1), (0, 2)),"
        " Table('c', 'k', (), ())))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert all(mpl.rcParams[k] == before[k] for k in before if k != 'backend')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_dollar_signs_in_a_label_are_not_read_as_formulas() -> None:
    run = evaluation()
    odd = replace(run, estimators=(replace(run.estimators[0], name=r"$\frac{1}{0}$ $x"),))
    group = figures.across_runs([odd, odd], ["one", "two"], [r"$\frac{1}{0}$ $x"])
    assert group is not None
    assert r"$\frac{1}{0}$ $x" in svg(group.figures[0])


def test_bins_with_few_rows_are_hollow() -> None:
    run = evaluation()
    figure = figures.reliability(run, "a").figures[0]
    assert isinstance(figure.chart, ReliabilityChart)
    assert [b.sparse for b in figure.chart.bins] == [b.n < 10 for b in figure.chart.bins]
    sparse = replace(
        figure,
        chart=replace(figure.chart, bins=tuple(replace(b, sparse=True) for b in figure.chart.bins)),
    )
    assert svg(sparse).count("fill: var(--paper)") > svg(figure).count("fill: var(--paper)")


def test_every_bin_prints_its_count() -> None:
    figure = figures.reliability(evaluation(), "a").figures[0]
    assert isinstance(figure.chart, ReliabilityChart)
    text = svg(figure)
    for b in figure.chart.bins:
        if b.n:
            assert re.search(rf"<text[^>]*>{b.n}</text>", text)


def test_a_chart_without_any_answer_is_still_drawn() -> None:
    empty = HistogramChart((0.0, 0.5, 1.0), (0, 0), (0, 0))
    assert "<svg" in svg(replace(FIGURES[0], chart=empty))
    for figure in figures.curves(bare(), "a").figures:
        assert "<svg" in svg(figure)


def test_legend_swatches_repeat_the_lines_of_the_drawing() -> None:
    text = svg(FIGURES[0])
    drawn_dashes = set(re.findall(r"stroke-dasharray: ([\d., ]+)", text))
    normal = {tuple(float(v) for v in re.split(r"[, ]+", d.strip(", "))) for d in drawn_dashes}
    for style in (1, 2, 3, "oracle", "random"):
        pattern = tuple(float(v) for v in dash_array(style).split())
        assert any(pattern == pytest.approx(found) for found in normal), style
    assert dash_array(0) == "none"
    assert marker_path(0) != marker_path(1)


def test_every_placeholder_has_a_variable() -> None:
    assert len(set(VARIABLES.values())) == len(VARIABLES)
    assert set(SERIES) <= set(VARIABLES)


def test_the_baseline_is_drawn_whatever_its_rank() -> None:
    run = evaluation()
    last = sorted(run.estimators, key=lambda e: e.name == run.protocol.baseline)
    shown = figures.shown_estimators(replace(run, estimators=tuple(last)))
    assert [e.name for e in shown][-1] == run.protocol.baseline
    assert len(shown) == 5
    assert not any(e.control for e in shown)


def test_an_estimator_without_held_out_rows_is_not_drawn() -> None:
    run = evaluation()
    first = replace(run.estimators[0], risk_coverage=Curve((), ()), roc=Curve((), ()))
    run = replace(run, estimators=(first, *run.estimators[1:]))
    assert first.name not in [e.name for e in figures.shown_estimators(run)]
    nothing = replace(run, estimators=(first,))
    assert figures.shown_estimators(nothing) == ()
    assert all("<svg" in svg(figure) for figure in figures.curves(nothing, "a").figures)


def test_estimators_that_rank_alike_are_drawn_once_and_named() -> None:
    run = evaluation()
    first = run.estimators[0]
    twin = replace(first, name="twin")
    run = replace(run, estimators=(first, twin, *run.estimators[1:]))
    shown = figures.shown_estimators(run)
    assert "twin" not in [e.name for e in shown]
    assert len(shown) == 4
    note = figures.curves(run, "a").note
    assert note is not None
    assert note.endswith(f": twin (as {first.name}).")
    assert figures.curves(evaluation(), "a").note is None
