"""The report in a real browser: quiet, offline, inert, labelled, and no wider than a phone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from chromium import Browser, Tab
from evaluations import bare, evaluation, picture
from hostile import TEXTS, hostile

from sightline.core.results import Evaluation
from sightline.report.render import write_report

pytestmark = pytest.mark.browser
PHONE, DESK = 390, 1280
MILLION = "W" * 1_000_000


def shouting() -> Evaluation:
    """Every text of the results hostile, and answers a million characters long without a space."""
    run = hostile(evaluation(), " ".join(TEXTS[:-1]))
    first = run.estimators[0]
    rows = tuple(
        replace(row, answer=MILLION, question=MILLION, example_id=MILLION)
        for row in first.confident_wrong
    )
    rows = (*rows, *(replace(rows[0], answer=text, question=text) for text in TEXTS))
    return replace(run, estimators=(replace(first, confident_wrong=rows), *run.estimators[1:]))


PAGES = {
    "one": lambda: [evaluation()],
    "several": lambda: [evaluation(), evaluation(model="Qwen2.5-VL-3B-Instruct", seed=1), bare()],
    "bare": lambda: [bare()],
    "hostile": lambda: [shouting()],
}


@pytest.fixture(scope="session")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    paths = {}
    for name, evaluations in PAGES.items():
        paths[name] = folder / f"{name}.html"
        write_report(evaluations(), paths[name], image_bytes=picture)
    return paths


def opened(browser: Browser, path: Path, width: int, *, dark: bool = False) -> Tab:
    tab = browser.tab(width=width, dark=dark)
    tab.open(path)
    return tab


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", PAGES)
def test_it_is_quiet_offline_and_fits(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    tab = opened(browser, pages[name], width)
    assert tab.complaints == []
    asked = [url for url in tab.requests if not url.startswith("data:")]
    assert asked == [pages[name].as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    beyond = tab.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .chart, .skip')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"
    )
    assert beyond == []


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_has_a_name_a_description_and_its_numbers(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    tab = opened(browser, pages[name], DESK)
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    shown = [node for node in tree if not node.get("ignored")]
    pictures = [n for n in shown if n["role"]["value"] in ("image", "img", "graphics-document")]
    figures = tab.evaluate("document.querySelectorAll('figure').length")
    charts = tab.evaluate("document.querySelectorAll('svg.chart').length")
    images = tab.evaluate("document.querySelectorAll('img').length")
    assert figures == charts
    assert charts >= 2
    assert len(pictures) == charts + images
    assert all(node.get("name", {}).get("value") for node in pictures)
    assert tab.evaluate(
        "[...document.querySelectorAll('figure')].every(f => f.querySelector('details table')"
        " && f.querySelector('figcaption').textContent.includes('n'))"
    )
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("[...document.images].every(i => i.naturalWidth <= 256)")


def test_hostile_answers_are_text(browser: Browser, pages: dict[str, Path]) -> None:
    tab = opened(browser, pages["hostile"], DESK)
    assert tab.evaluate("document.scripts.length") == 0
    assert (
        tab.evaluate("document.querySelectorAll('[onerror], [onload], iframe, form').length") == 0
    )
    links = tab.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert all(link.startswith("#") for link in links)
    sources = tab.evaluate("[...document.images].map(i => i.src.slice(0, 22))")
    assert set(sources) == {"data:image/png;base64,"}
    shown = tab.evaluate("document.body.innerText")
    assert "</script><img src=x onerror=alert(1)>" in shown
    assert "{{7*7}}" in shown
    assert "\\u202egnp.exe" in shown
    assert "(1,000,000 characters in all)" in shown
    assert "\u202e" not in shown
    assert tab.evaluate("document.title").startswith("Can llava")


def test_the_policy_of_the_page_stops_a_script_that_got_in(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    page = pages["bare"].read_text(encoding="utf-8")
    path = tmp_path / "injected.html"
    injected = "<script>document.title='owned'</script><img src='https://example.test/x.png'>"
    path.write_text(page.replace("</main>", f"{injected}</main>"), encoding="utf-8")
    tab = opened(browser, path, DESK)
    assert tab.evaluate("document.title") != "owned"
    violations = [c for c in tab.complaints if "Content Security Policy" in c]
    assert len(violations) == 2


def luminance(colour: list[float]) -> float:
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: list[float], second: list[float]) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_lines_stand_out_in_light_and_dark(
    browser: Browser, pages: dict[str, Path], dark: bool
) -> None:
    tab = opened(browser, pages["one"], DESK, dark=dark)
    colour = (
        "(name) => { const e = document.createElement('i'); e.style.color = `var(--${name})`;"
        " document.body.append(e); const c = getComputedStyle(e).color; e.remove();"
        " return c.match(/[\\d.]+/g).map(Number).slice(0, 3) }"
    )
    values = {
        name: tab.evaluate(f"({colour})('{name}')")
        for name in (
            *("paper", "raised", "ink", "faint", "link", "right", "wrong", "stamp"),
            "stamp-paper",
            *(f"series-{i}" for i in range(8)),
        )
    }
    assert (luminance(values["paper"]) < 0.1) is dark
    for name in ("ink", "faint", "link"):
        assert contrast(values[name], values["paper"]) >= 4.5, name
        assert contrast(values[name], values["raised"]) >= 4.5, name
    assert contrast(values["stamp"], values["stamp-paper"]) >= 4.5
    for name in ("right", "wrong", *(f"series-{i}" for i in range(8))):
        assert contrast(values[name], values["paper"]) >= 3, name
    drawn = tab.evaluate("getComputedStyle(document.querySelector('.chart text')).fill")
    assert drawn == "rgb({}, {}, {})".format(*(int(v) for v in values["ink"]))


def test_wide_tables_scroll_by_keyboard_on_a_phone(
    browser: Browser, pages: dict[str, Path]
) -> None:
    tab = opened(browser, pages["one"], PHONE)
    wide = tab.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
        ".map(e => [e.tabIndex, e.getAttribute('role'), e.getAttribute('aria-labelledby')])"
    )
    assert wide
    assert all(index == 0 and role == "region" and label for index, role, label in wide)
    stays = tab.evaluate(
        "(() => { const box = document.querySelector('.scroll'); box.scrollLeft = 400;"
        " const name = box.querySelector('tbody th').getBoundingClientRect();"
        " return [box.scrollLeft, name.left - box.getBoundingClientRect().left] })()"
    )
    assert stays == [400, 0]


def test_text_in_charts_stays_readable_on_a_phone(browser: Browser, pages: dict[str, Path]) -> None:
    tab = opened(browser, pages["several"], PHONE)
    smallest = tab.evaluate(
        "Math.min(...[...document.querySelectorAll('svg.chart')].flatMap(s => {"
        " const scale = s.getBoundingClientRect().width / s.viewBox.baseVal.width;"
        " return [...s.querySelectorAll('text')].map(t =>"
        " parseFloat(getComputedStyle(t).fontSize) * scale) }))"
    )
    assert smallest >= 8.5
    cut = tab.evaluate(
        "[...document.querySelectorAll('svg.chart text')].filter(t => {"
        " const box = t.getBoundingClientRect(); return box.width && (box.left < -1 ||"
        " box.right > innerWidth + 1) }).map(t => t.textContent)"
    )
    assert cut == []


def test_it_prints_without_hidden_tables(browser: Browser, pages: dict[str, Path]) -> None:
    tab = opened(browser, pages["one"], DESK)
    tab.call("Emulation.setEmulatedMedia", media="print")
    hidden = tab.evaluate(
        "[...document.querySelectorAll('section details table')].filter(t =>"
        " !t.closest('figure') && t.getBoundingClientRect().height === 0).length"
    )
    assert hidden == 0
    assert tab.call("Page.printToPDF")["data"]
