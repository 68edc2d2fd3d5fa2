"""The page in a real browser: quiet, offline, locked, usable by keyboard and on a phone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, Tab

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from judges import HalfJudge
from running import Running, data_url, picture, running
from test_local_policies import by_type, with_sets
from upstreams import upstream

from sightline.core.protocols import Request
from sightline.data.prompts import PromptStyle
from sightline.models.fake import FakeModel
from sightline.serving.feedback import FeedbackStore
from sightline.serving.forwarding import Served
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server

PICTURE = data_url(picture("green", size=(200, 150))).partition(",")[2]
pytestmark = pytest.mark.browser


def opened(browser: Browser, server: Running, width: int = 390) -> Tab:
    tab = browser.tab(width=width)
    tab.call("Page.navigate", url=f"http://127.0.0.1:{server.port}/")
    browser.wait_for("Page.loadEventFired", tab)
    wait(tab, "document.getElementById('model').textContent.startsWith('Model')")
    return tab


def wait(tab: Tab, holds: str) -> None:
    deadline = time.monotonic() + 30
    while not tab.evaluate(f"Boolean({holds})") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tab.evaluate(f"Boolean({holds})"), tab.evaluate("document.body.innerText")


def text(tab: Tab, name: str) -> str:
    return str(tab.evaluate(f"document.getElementById('{name}').textContent"))


def press(tab: Tab, key: str, code: int, letters: str = "") -> None:
    common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
    tab.call("Input.dispatchKeyEvent", type="keyDown", text=letters, **common)
    tab.call("Input.dispatchKeyEvent", type="keyUp", **common)


@pytest.mark.parametrize("width", [360, 1280])
def test_asking_by_keyboard(browser: Browser, tmp_path: Path, width: int) -> None:
    store = FeedbackStore(tmp_path, "half@sha256:0")
    with running(judge=HalfJudge(), feedback=store, has_policy=True) as server:
        tab = opened(browser, server, width)
        url = data_url(picture("green", size=(200, 150)))
        drop = f"""(() => {{
            const bytes = Uint8Array.from(atob({json.dumps(url.partition(",")[2])}),
              (c) => c.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], 'x.png', {{ type: 'image/png' }}));
            document.getElementById('drop').dispatchEvent(
              new DragEvent('drop', {{ dataTransfer: files, bubbles: true, cancelable: true }}));
        }})()"""
        tab.evaluate(drop)
        wait(tab, "document.getElementById('preview').naturalWidth === 200")
        press(tab, "Tab", 9)
        press(tab, "Tab", 9)
        assert tab.evaluate("document.activeElement.id") == "question"
        tab.call("Input.insertText", text="What is it?")
        press(tab, "Enter", 13, "\r")
        wait(tab, "!document.getElementById('result').classList.contains('hidden')")
        assert text(tab, "answer")
        assert "Right with probability" in text(tab, "confidence")
        assert text(tab, "verdict") in ("✓ Accepted.", "✗ Do not rely on it.")
        assert "sequence probability" in text(tab, "signals")
        assert "weakest token" in text(tab, "signals")
        assert tab.evaluate("document.querySelectorAll('#diagram .bin').length") == 5
        assert tab.evaluate("document.querySelectorAll('#diagram .here').length") == 1
        assert "labelled answers with a confidence like this one" in text(tab, "place")
        assert "this answer at" in tab.evaluate(
            "document.querySelector('#diagram svg').getAttribute('aria-label')"
        )
        assert tab.evaluate("document.activeElement.id") == "result"
        press(tab, "Tab", 9)
        assert tab.evaluate("document.activeElement.id") == "right"
        press(tab, "Enter", 13, "\r")
        wait(tab, "document.getElementById('graded').textContent.startsWith('Kept.')")
        assert store.kept == 1
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.complaints == []
        own = f"http://127.0.0.1:{server.port}/"
        assert all(request.startswith((own, "data:")) for request in tab.requests)


def test_the_place_of_an_answer_is_told_in_plain_numbers(browser: Browser) -> None:
    with running(judge=HalfJudge(), has_policy=True) as server:
        tab = opened(browser, server, 1280)
        wait(tab, "policy !== null")

        def place(n: int, share: float | None) -> str:
            told = {"low": 0.4, "high": 0.6, "n": n, "accuracy": share, "accuracy_low": None}
            tab.evaluate(f"policy.reliability = [{json.dumps(told)}]")
            return str(tab.evaluate("placeOf(0.5)"))

        like = "labelled answer with a confidence like this one was"
        assert place(1, 1.0) == f"The one {like} right."
        assert place(1, 0.0) == f"The one {like} wrong."
        assert place(2, 0.5).startswith("Of 2 labelled answers with a confidence like this one, 50")
        assert place(0, None) == "No labelled answer had a confidence near this one."


@pytest.mark.parametrize("width", [360, 1280])
def test_the_explanation_is_shown_where_it_is_ticked(browser: Browser, width: int) -> None:
    with running(judge=HalfJudge(), has_policy=True) as server:
        tab = opened(browser, server, width)
        tab.evaluate(
            f"choose(new File([Uint8Array.from(atob('{PICTURE}'), (c) => c.charCodeAt(0))], "
            "'x.png', { type: 'image/png' }))"
        )
        wait(tab, "picture !== null")
        asked(tab)
        assert hidden(tab, "explanation")
        tab.evaluate("document.getElementById('explain').focus()")
        press(tab, " ", 32, " ")
        assert tab.evaluate("document.getElementById('explain').checked")
        before = server.server.backend.gauges()["engine_observed_total"]
        tab.evaluate("document.getElementById('ask').click()")
        wait(tab, "!document.getElementById('explanation').classList.contains('hidden')")
        titles = tab.evaluate("[...document.querySelectorAll('dt')].map((d) => d.textContent)")
        assert titles[:2] == ["Language prior", "Ten samples"]
        assert titles[-1] == "Hidden drift"
        lines = tab.evaluate("[...document.querySelectorAll('dd')].map((d) => d.textContent)")
        assert "of 10 say the same" in lines[1]
        changes = ["Moved by 4 pixels", "Saved again as JPEG (severity 3)", "Blank picture"]
        assert all(line.startswith(c) for line, c in zip(lines[-3:], changes, strict=True))
        assert server.server.backend.gauges()["engine_observed_total"] == before + 5
        assert tab.evaluate("document.querySelectorAll('#diagram .here').length") == 1
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tick = tab.evaluate("document.getElementById('explaining').getBoundingClientRect().height")
        assert tick >= 44
        assert tab.complaints == []


def hidden(tab: Tab, name: str) -> bool:
    found = tab.evaluate(f"document.getElementById('{name}').classList.contains('hidden')")
    return bool(found)


def test_before_an_upstream_there_is_nothing_to_tick(browser: Browser) -> None:
    with upstream() as behind:
        settings = Settings("m", upstream=behind.url)
        backend = proxy_of(settings, Served("m", frozenset({"m"})), HalfJudge(), None)
        with running(server=Server(backend=backend, has_policy=True)) as server:
            for how in ("ok", "null content"):
                tab = opened(browser, server)
                assert hidden(tab, "explaining")
                tab.evaluate(f"document.getElementById('question').value = '{how}'")
                tab.evaluate("document.getElementById('ask').click()")
                wait(tab, "!document.getElementById('result').classList.contains('hidden')")
                assert hidden(tab, "explanation")
                assert text(tab, "answer") == "a red circle"


@pytest.mark.parametrize("keys", [(), ("k",)])
def test_before_an_upstream_questions_are_worded_as_the_policys_and_the_page_says_how(
    browser: Browser, keys: tuple[str, ...]
) -> None:
    with upstream() as behind:
        settings = Settings("m", upstream=behind.url)
        style = PromptStyle(short_instruction="In a word.", choice_instruction="A letter.")
        known = Served("m", frozenset({"m"}), style=style)
        backend = proxy_of(settings, known, HalfJudge(), None)
        with running(server=Server(backend=backend, has_policy=True, keys=keys)) as server:
            tab = browser.tab(width=390)
            tab.call("Page.navigate", url=f"http://127.0.0.1:{server.port}/")
            browser.wait_for("Page.loadEventFired", tab)
            if not keys:  # with one the first question finds out how it is worded
                wait(tab, "known")
            if keys:
                tab.evaluate("document.getElementById('key').value = 'k'")
            tab.evaluate("document.getElementById('question').value = 'ok'")
            for choices, sent in (("", "ok\nIn a word."), ("a; b", "ok\nA. a\nB. b\nA letter.")):
                tab.evaluate(f"document.getElementById('choices').value = '{choices}'")
                tab.evaluate("document.getElementById('result').classList.add('hidden')")
                tab.evaluate("document.getElementById('ask').click()")
                wait(tab, "!document.getElementById('result').classList.contains('hidden')")
                assert behind.bodies[-1]["messages"][-1]["content"][-1]["text"] == sent
                assert "Right with probability" in text(tab, "confidence")
            assert not hidden(tab, "choosing")
            assert text(tab, "wording").endswith("“In a word.” or, behind options, “A letter.”")
            assert not hidden(tab, "wording")
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def without_policy(browser: Browser, use: Callable[[Tab], None], model: Any = None) -> None:
    with running(model) as server:
        use(opened(browser, server))


def asked(tab: Tab) -> None:
    tab.evaluate("document.getElementById('question').value = 'What is it?'")
    tab.evaluate("document.getElementById('ask').click()")
    wait(tab, "!document.getElementById('result').classList.contains('hidden')")


def test_the_reason_and_what_was_tested_are_shown(browser: Browser) -> None:
    for threshold, verdict in ((0.0, "✓ Accepted."), (1.0, "✗ Do not rely on it.")):
        with running(judge=HalfJudge(threshold), has_policy=True) as server:
            tab = opened(browser, server)
            assert "on 80 labelled answers, one drawn from each group (of 200)" in text(
                tab, "promise"
            )
            assert hidden(tab, "grouped")
            asked(tab)
            assert text(tab, "verdict") == verdict
            assert text(tab, "reason").startswith("confidence 0.")
            assert text(tab, "reason").endswith(f"against the threshold {threshold:.4f}")
            assert tab.complaints == []


@pytest.mark.parametrize("width", [360, 1280])
def test_a_category_is_chosen_where_thresholds_go_by_one(browser: Browser, width: int) -> None:
    with running(judge=by_type(), has_policy=True) as server:
        tab = opened(browser, server, width)
        assert not hidden(tab, "grouped")
        assert text(tab, "grouping") == "Its question type (each has a threshold of its own)"
        names = tab.evaluate("[...document.getElementById('category').options].map((o) => o.value)")
        assert names == ["", "a", "b"]
        assert " within each of 2 of 2 kinds of question" in text(tab, "promise")
        tab.evaluate("policy.thresholds.a = null; showPolicy({ id: 'm', policy })")
        assert " within each of 1 of 2 kinds of question" in text(tab, "promise")
        shown = tab.evaluate("[...document.getElementById('category').options].map((o) => o.text)")
        assert shown == ["not said", "a (nothing certified)", "b"]
        asked(tab)
        assert text(tab, "verdict") == "✗ Do not rely on it."
        assert text(tab, "reason").startswith("the question has no question_type")
        assert "is required" not in text(tab, "confidence")
        tab.evaluate("document.getElementById('category').focus()")
        press(tab, "b", 66, "b")
        assert tab.evaluate("document.getElementById('category').value") == "b"
        tab.evaluate("document.getElementById('ask').click()")
        wait(tab, "document.getElementById('reason').textContent.startsWith('confidence')")
        assert "is required" in text(tab, "confidence")
        assert tab.evaluate("document.querySelectorAll('#diagram .threshold').length") == 1
        height = tab.evaluate("document.getElementById('category').getBoundingClientRect().height")
        assert height >= 44
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.complaints == []


def test_the_options_of_a_set_are_shown(browser: Browser) -> None:
    with running(judge=with_sets(), has_policy=True) as server:
        tab = opened(browser, server)
        tab.evaluate("document.getElementById('choices').value = 'red; green; blue; white'")
        asked(tab)
        assert "options that hold the right one in 85.0\u00a0% of answers" in text(tab, "signals")
        assert tab.complaints == []


def test_without_a_policy_it_says_so(browser: Browser) -> None:
    def use(tab: Tab) -> None:
        assert "not probabilities" in text(tab, "model")
        asked(tab)
        assert text(tab, "confidence") == "No probability."
        assert "they are not probabilities" in text(tab, "reason")

    without_policy(browser, use)


def test_a_hostile_answer_stays_text(browser: Browser) -> None:
    evil = "</script><img src=x onerror=alert(1)><b>{{7*7}}</b> " + "W" * 5000

    class Evil(FakeModel):
        def observe(self, examples: Any, images: Any, request: Request, **more: Any) -> Any:
            records = super().observe(examples, images, request, **more)
            object.__setattr__(records[0].greedy, "text", evil)
            return records

    def use(tab: Tab) -> None:
        asked(tab)
        assert text(tab, "answer") == evil
        assert tab.evaluate("document.querySelectorAll('#answer *').length") == 0
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.complaints == []

    without_policy(browser, use, Evil())


def test_errors_are_shown_in_words(browser: Browser) -> None:
    def use(tab: Tab) -> None:
        tab.evaluate("choose(new File(['<svg/>'], 'x.png', { type: 'image/png' }))")
        wait(tab, "picture !== null")
        tab.evaluate("document.getElementById('question').value = 'What?'")
        tab.evaluate("document.getElementById('ask').click()")
        wait(tab, "document.getElementById('status').textContent.includes('not a readable image')")

    without_policy(browser, use)


def test_a_server_that_is_gone_is_told_in_words_and_the_page_goes_on(browser: Browser) -> None:
    with running() as server:
        tab = opened(browser, server)
        tab.evaluate("document.getElementById('question').value = 'What?'")
    tab.evaluate("document.getElementById('ask').click()")
    wait(tab, "document.getElementById('status').textContent.startsWith('The server cannot be')")
    assert not tab.evaluate("document.getElementById('ask').disabled")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("name", ["x.png", "x.gif", "x"])
def test_a_picture_goes_by_its_bytes_whatever_its_file_is_called(
    browser: Browser, kind: str, name: str
) -> None:
    said = {"x.png": "image/png", "x.gif": "image/gif", "x": ""}[name]
    content = data_url(picture("green", size=(200, 150), kind=kind)).partition(",")[2]

    def use(tab: Tab) -> None:
        tab.evaluate(
            f"choose(new File([Uint8Array.from(atob('{content}'), (c) => c.charCodeAt(0))], "
            f"'{name}', {{ type: '{said}' }}))"
        )
        wait(tab, "document.getElementById('preview').naturalWidth === 200")
        assert tab.evaluate("picture.split(';')[0]") == f"data:image/{kind.lower()}"
        asked(tab)
        assert text(tab, "answer")
        assert tab.complaints == []

    without_policy(browser, use)


def test_a_key_is_asked_for(browser: Browser) -> None:
    with running(keys=("k",)) as server:
        tab = browser.tab(width=390)
        tab.call("Page.navigate", url=f"http://127.0.0.1:{server.port}/")
        wait(
            tab,
            "document.getElementById('keyed') && !document.getElementById('keyed')"
            ".classList.contains('hidden')",
        )
        tab.evaluate("document.getElementById('key').value = 'k'")
        asked(tab)
        assert text(tab, "answer")


def test_nothing_else_may_run() -> None:
    with running() as server:
        status, body, headers = server.call("/")
        assert status == 200
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert b"http" not in body.replace(b"http://www.w3.org/2000/svg", b"").replace(
            b'startsWith("http")', b""
        )
