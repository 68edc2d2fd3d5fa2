from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from evaluations import bare, evaluation, picture
from hostile import TEXTS, hostile

from sightline.core.errors import DiskError, MissingExtraError, UsageError
from sightline.report.render import breakable, render_report, write_report

VOID = {"meta", "link", "img", "wbr", "br", "line", "circle", "path", "use", "rect"}
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Document(HTMLParser):
    """The elements of a page, in order, with the text directly in them."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open[-1].tag != tag:
            self.unbalanced.append(tag)
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1].text += data

    def all(self, *tags: str) -> Iterator[Element]:
        return (e for e in self.elements if e.tag in tags)


def parsed(text: str) -> Document:
    document = Document()
    document.feed(text)
    document.close()
    return document


@pytest.fixture(scope="module")
def one() -> str:
    return render_report([evaluation()], image_bytes=picture)


@pytest.fixture(scope="module")
def two() -> str:
    return render_report(
        [evaluation(), evaluation(model="Qwen2.5-VL-3B-Instruct", seed=1), bare()],
        image_bytes=picture,
    )


def assert_sound(text: str) -> Document:
    """What holds for every page, whatever it is given."""
    document = parsed(text)
    assert not document.unbalanced
    assert not document.open
    assert not INVISIBLE.search(text)
    tags = {e.tag for e in document.elements}
    assert not tags & {"script", "iframe", "object", "embed", "form", "input", "base", "button"}
    for element in document.elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (element.tag, name)
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,")) or value == "data:,"
    policies = [
        e.attributes["content"]
        for e in document.all("meta")
        if e.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    ids = [e.attributes["id"] for e in document.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in document.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            for target in (element.attributes.get(name) or "").split():
                assert target in ids
        target = element.attributes.get("href") or ""
        if target.startswith("#"):
            assert target[1:] in ids
    levels = [int(e.tag[1]) for e in document.all("h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert next(document.all("html")).attributes["lang"] == "en"
    assert all(e.attributes.get("scope") in ("row", "col") for e in document.all("th"))
    assert len(list(document.all("caption"))) == len(list(document.all("table")))
    for image in document.all("img"):
        assert image.attributes.get("alt")
    charts = [e for e in document.all("svg") if e.attributes.get("role") == "img"]
    drawings = [e for e in document.all("svg") if e.attributes.get("aria-hidden") == "true"]
    assert len(charts) + len(drawings) == len(list(document.all("svg")))
    assert len(charts) == len(list(document.all("figure"))) == len(list(document.all("figcaption")))
    return document


def test_a_report_of_one_run_is_sound_and_complete(one: str) -> None:
    document = assert_sound(one)
    headings = [e.text.strip() for e in document.all("h3")]
    assert headings == [
        "Leaderboard",
        "Reliability",
        "Answering only when confident",
        "Confidence of right and wrong answers",
        "By question type",
        "Where confidence misleads",
        "Protocol",
    ]
    for word in ("Risk–coverage", "Rejection", "ROC", "ideal ranking", "Partial run"):
        assert word in one


def test_a_report_of_several_runs_is_sound(two: str) -> None:
    document = assert_sound(two)
    titles = [e.attributes.get("id") for e in document.all("h2")]
    assert titles == ["comparison-title", "run1-title", "run2-title", "run3-title", "reading"]


def test_a_run_where_nothing_can_be_measured_still_renders() -> None:
    text = render_report([bare()], image_bytes=picture)
    assert_sound(text)
    assert "all answers are right; both right and wrong ones are required" in text


@pytest.mark.parametrize("text", [" ".join(TEXTS[:5]), " ".join(TEXTS[5:-1]), TEXTS[-1]])
def test_hostile_text_anywhere_is_inert(text: str) -> None:
    page = render_report([hostile(evaluation(), text)], image_bytes=picture)
    assert_sound(page)
    assert "49" not in re.findall(r"llava-1\.5-7b-hf(\d+)", page)
    assert len(page) < 4_000_000


def test_an_answer_of_a_million_characters_is_cut_and_counted() -> None:
    run = bare()
    row = replace(evaluation().estimators[0].confident_wrong[0], answer="A" * 1_000_000)
    run = replace(run, estimators=(replace(run.estimators[0], confident_wrong=(row,)),))
    page = render_report([run], image_bytes=picture)
    assert "(1,000,000 characters in all)" in page
    assert len(page) < 1_000_000


def test_the_same_results_give_the_same_bytes(one: str) -> None:
    assert render_report([evaluation()], image_bytes=picture) == one


def test_there_is_nothing_to_report_without_evaluations() -> None:
    with pytest.raises(UsageError, match="at least one is required"):
        render_report([])


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed.*\[report\]"):
        render_report([evaluation()])


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report([bare()], path, image_bytes=picture)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(path.parent.iterdir()) == [path]


def test_a_refused_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.mkdir()
    with pytest.raises(DiskError):
        write_report([bare()], path, image_bytes=picture)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(DiskError):
        write_report([bare()], blocked / "report.html", image_bytes=picture)


def test_names_may_break_and_are_escaped() -> None:
    assert str(breakable("a_b:<i>")) == "a_<wbr>b:<wbr>&lt;i&gt;"
