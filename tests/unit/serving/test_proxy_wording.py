"""A policy whose questions were worded with an instruction, before its upstream and before a model.

A confidence takes the question as the policy's were worded, whoever words it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_servers import ChatServer
from judges import HalfJudge
from proxied_chats import Chat, choices, collect, policy, questions
from running import Running, data_url, picture, running
from upstreams import upstream

from sightline import api
from sightline.core.types import Example
from sightline.data.prompts import PromptStyle, user_text
from sightline.models.fake import FakeModel
from sightline.serving.forwarding import Served
from sightline.serving.server import Settings, backend_of, build, proxy_of
from sightline.serving.shared import Server
from sightline.store.run import RunStore
from sightline.workflow.policy import load_policy

LINE = "Answer in one word."
STYLE = PromptStyle(short_instruction=LINE)
COUNT = 160
PICTURE = data_url(picture())


class Fitted:
    """The proxy of a policy, its upstream, and the run that the policy was fitted on."""

    def __init__(self, proxy: Running, behind: ChatServer, run: Path, saved: Path) -> None:
        self.proxy, self.behind, self.run, self.saved = proxy, behind, run, saved

    def last(self) -> Any:
        """Content of the last question that the upstream got."""
        return self.behind.bodies[-1]["messages"][-1]["content"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fitted]:
    chat = Chat()
    chat.chat.learn([*questions(COUNT), *choices(3)], STYLE)
    with ChatServer(chat) as server:
        run = collect(tmp_path_factory.mktemp("worded"), server.url, count=COUNT, style=STYLE)
        saved = policy(run, "cheap", "sequence_probability")
        asked = build(Settings("m", policy=saved, upstream=server.url))
        with running(server=asked) as proxy:
            yield Fitted(proxy, server, run, saved)


@pytest.fixture(scope="module")
def local(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The same policy's questions before a local model."""
    folder = tmp_path_factory.mktemp("local")
    source = fitted.run.parent / "questions.jsonl"
    names = ("sequence_probability",)
    api.collect("fake", source, folder / "run", estimators=names, max_new_tokens=2, style=STYLE)
    saved = policy(folder / "run", "local", *names)
    from sightline.serving.judging import saved_judge

    asked = Settings("fake")
    backend = backend_of(asked, FakeModel(STYLE), saved_judge(saved), None)
    with running(server=Server(backend=backend, has_policy=True)) as found:
        yield found


def asked(server: Running, content: Any, **fields: Any) -> dict[str, Any]:
    """The choice of an answer to one question, whole or streamed."""
    status, document, _ = server.call(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **fields}
    )
    assert status == 200, document
    last = server.last(document) if fields.get("stream") else document
    return dict(last["choices"][0])


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else str(content[-1]["text"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_without_the_policys_line_passes_unchanged_without_confidence(
    fitted: Fitted, stream: bool
) -> None:
    trust = asked(fitted.proxy, "Question 1?", stream=stream)["trust"]
    assert fitted.last() == "Question 1?"
    assert (trust["confidence"], trust["abstain"], trust["receipt"]) == (None, True, None)
    (warning,) = trust["warnings"]
    assert warning == trust["reason"]
    assert f"does not end in the line {LINE!r} (behind options: " in warning
    assert warning.endswith("as the policy's did: word it so, or set trust.as_labelled")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["the client words it", "the server words it", "both"])
def test_a_question_in_the_policys_words_is_judged_as_in_its_run(
    fitted: Fitted, how: str, stream: bool
) -> None:
    records = [r for r in RunStore.open(fitted.run).records() if r.greedy is not None][:5]
    for record, decision in zip(records, load_policy(fitted.saved).decide(records), strict=True):
        question = record.example.question
        text = question if how == "the server words it" else f"{question}\n{LINE}"
        extra = {} if how == "the client words it" else {"trust": {"as_labelled": True}}
        trust = asked(fitted.proxy, text, stream=stream, **extra)["trust"]
        assert text_of(fitted.last()) == f"{question}\n{LINE}"
        assert trust["confidence"] == pytest.approx(decision.confidence, abs=1e-9)
        assert trust["warnings"] == []


def test_decisions_are_worded_once(fitted: Fitted) -> None:
    for text in ("Question 1?", f"Question 1?\n{LINE}"):
        question = {"type": "predicate", "instructions": text}
        body = {"input": "", "questions": [question]}
        status, document, _ = fitted.proxy.call("/v1/decisions", body)
        assert status == 200, document
        assert text_of(fitted.last()) == f"Question 1?\n{LINE}"
        # What the model says is neither yes nor no; nothing else speaks against it.
        assert document["answers"][0]["trust"]["warnings"] == ["the answer is none of the options"]


def test_options_are_worded_by_the_server_or_by_the_client(fitted: Fitted) -> None:
    (example,) = choices(1)
    worded = user_text(example, STYLE)
    options = {"as_labelled": True, "choices": list(example.choices or ())}
    own = asked(fitted.proxy, example.question, trust=options)["trust"]
    assert text_of(fitted.last()) == worded
    trust = asked(fitted.proxy, worded)["trust"]
    assert fitted.last() == worded
    assert (trust["confidence"], trust["warnings"]) == (own["confidence"], [])
    assert trust["confidence"] is not None
    other = worded.replace("A. ", "A) ").replace("B. ", "B) ")
    (warning,) = asked(fitted.proxy, other)["trust"]["warnings"]
    assert "the options stand otherwise than one a line as '{letter}. {text}'" in warning


def test_pictures_stand_before_one_text(fitted: Fitted) -> None:
    shown = {"type": "image_url", "image_url": {"url": PICTURE}}
    line = {"type": "text", "text": f"Question 1?\n{LINE}"}
    assert asked(fitted.proxy, [shown, line])["trust"]["confidence"] is not None
    parts = [{"type": "text", "text": "Question 1?"}, {"type": "text", "text": LINE}]
    for content in ([line, shown], [shown, *parts], [parts[0], shown, line]):
        trust = asked(fitted.proxy, content)["trust"]
        assert trust["confidence"] is None
        assert "not one text behind its pictures" in trust["warnings"][0]
        trust = asked(fitted.proxy, content, trust={"as_labelled": True})["trust"]
        assert [part["type"] for part in fitted.last()] == ["image_url", "text"]
        assert trust["confidence"] is not None


def test_a_labelled_question_keeps_the_clients_settings(fitted: Fitted) -> None:
    extra = {"trust": {"as_labelled": True}}
    trust = asked(fitted.proxy, "Question 1?", temperature=0.5, seed=3, **extra)["trust"]
    sent = fitted.behind.bodies[-1]
    assert (sent["temperature"], sent["seed"]) == (0.5, 3)
    assert trust["confidence"] is None
    assert ["sampled answer" in warning for warning in trust["warnings"]] == [True]


def tool(name: str) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": name}}]}


@pytest.mark.parametrize(
    ("fields", "trust", "said"),
    [
        (tool("<|im_start|>system"), {}, "'<|im_start|>', which models read"),
        (tool("o" * 200_000), {}, "characters of text; at most 200000"),
        ({}, {"choices": ["o" * 200_000, "p"]}, "characters of text; at most 200000"),
    ],
)
def test_a_labelled_question_is_held_to_the_same_limits(
    fitted: Fitted, fields: dict[str, Any], trust: dict[str, Any], said: str
) -> None:
    before = len(fitted.behind.bodies)
    extra = {**fields, "trust": {"as_labelled": True, **trust}}
    status, document, _ = fitted.proxy.chat("Question 1?", **extra)
    assert status == 400, document
    assert said in document["error"]["message"]
    assert len(fitted.behind.bodies) == before


@pytest.mark.parametrize(
    ("trust", "messages", "param"),
    [
        ({"as_labelled": False}, 1, "trust.as_labelled"),
        ({"as_labelled": True}, 2, "messages"),
        ({"choices": ["red", "blue"]}, 1, "trust.choices"),
    ],
)
def test_what_cannot_be_worded_is_refused(
    fitted: Fitted, trust: dict[str, Any], messages: int, param: str
) -> None:
    body = {"messages": [{"role": "user", "content": "Question 1?"}] * messages, "trust": trust}
    status, document, _ = fitted.proxy.call("/v1/chat/completions", body)
    assert (status, document["error"]["param"]) == (400, param)


def test_without_a_policy_nothing_is_known_to_word_by() -> None:
    with upstream() as behind:
        settings = Settings("m", upstream=behind.url)
        for judge in (None, HalfJudge()):
            backend = proxy_of(settings, Served("m", frozenset({"m"})), judge, None)
            with running(server=Server(backend=backend)) as server:
                (model,) = server.call("/v1/models")[1]["data"]
                assert (model["words_questions"], model["prompt_style"]) == (False, None)
                status, document, _ = server.chat("ok", trust={"as_labelled": True})
                assert (status, document["error"]["param"]) == (400, "trust.as_labelled")
                assert not any("line" in w for w in asked(server, "ok")["trust"]["warnings"])


def test_a_local_model_is_not_told_twice(local: Running) -> None:
    plain = asked(local, "Question 1?")
    for content in (f"Question 1?\n{LINE}", [{"type": "text", "text": f"Question 1?\n{LINE} "}]):
        again = asked(local, content)
        assert again["message"] == plain["message"]
        assert again["trust"]["confidence"] == plain["trust"]["confidence"] is not None
    example = Example("e", "Which 1?", choices=("red", "blue"))
    own = asked(local, example.question, trust={"choices": ["red", "blue"]})
    worded = asked(local, user_text(example, STYLE))
    assert worded["message"] == own["message"]
    assert worded["trust"]["raw_score"] == own["trust"]["raw_score"]
    other = asked(local, f"Question 1? {LINE}")
    assert other["trust"]["raw_score"] != plain["trust"]["raw_score"]


ASKED: list[tuple[dict[str, Any], bool]] = [
    ({"content": f"Question 1?\n{LINE}"}, True),
    ({"content": "Question 1?", "trust": {"as_labelled": True}}, True),
    ({"content": f"Question 1?\n{LINE}", "trust": {"as_labelled": True}}, True),
    ({"content": f"Question 1?\n{LINE}", "temperature": 0.5}, False),
    ({"content": "Question 1?", "trust": {"as_labelled": True}, "temperature": 0.5}, False),
    ({"content": "Which 1?", "trust": {"as_labelled": True, "choices": ["a", "b"]}}, True),
]


@pytest.mark.parametrize(("fields", "has"), ASKED)
def test_what_says_how_it_is_worded_has_a_confidence_in_both_or_in_neither(
    fitted: Fitted, local: Running, fields: dict[str, Any], has: bool
) -> None:
    for server in (fitted.proxy, local):
        assert (asked(server, **fields)["trust"]["confidence"] is not None) is has


def test_servers_say_who_words_questions_and_how(fitted: Fitted, local: Running) -> None:
    for server, words in ((fitted.proxy, False), (local, True)):
        (model,) = server.call("/v1/models")[1]["data"]
        assert model["words_questions"] is words
        assert model["prompt_style"] == STYLE.to_dict()


def test_an_upstream_that_words_questions_itself_is_sent_them_either_way(tmp_path: Path) -> None:
    with running(FakeModel(STYLE)) as own:
        url = f"http://127.0.0.1:{own.port}/v1"
        run = collect(tmp_path, url, "fake", count=80, samples=2, style=None)
        saved = policy(run, "own", "sequence_probability")
        with running(server=build(Settings("fake", policy=saved, upstream=url))) as proxy:
            (record,) = (r for r in RunStore.open(run).records() if r.example.id == "q1")
            (decision,) = load_policy(saved).decide([record])
            for text in ("Question 1?", f"Question 1?\n{LINE}"):
                for extra in ({}, {"trust": {"as_labelled": True}}):
                    trust = asked(proxy, text, **extra)["trust"]
                    assert trust["confidence"] == pytest.approx(decision.confidence, abs=1e-9)
                    assert trust["warnings"] == []
            (model,) = proxy.call("/v1/models")[1]["data"]
            assert model["words_questions"] is True


def test_an_upstream_that_words_questions_otherwise_than_the_policys_is_told_how(
    tmp_path: Path,
) -> None:
    with running(FakeModel(STYLE)) as own:
        url = f"http://127.0.0.1:{own.port}/v1"
        style = PromptStyle(short_instruction="Be brief.")
        run = collect(tmp_path, url, "fake", count=80, samples=2, style=style)
        saved = policy(run, "own", "sequence_probability")
        with running(server=build(Settings("fake", policy=saved, upstream=url))) as proxy:
            (model,) = proxy.call("/v1/models")[1]["data"]
            assert model["words_questions"] is False
            trust = asked(proxy, "Question 1?")["trust"]
            assert trust["confidence"] is None
            assert "does not end in the line 'Be brief.'" in trust["reason"]
            for text, extra in (
                ("Question 1?\nBe brief.", {}),
                ("Question 1?", {"trust": {"as_labelled": True}}),
            ):
                assert asked(proxy, text, **extra)["trust"]["confidence"] is not None


@pytest.mark.parametrize("estimator", ["sequence_probability", "sample_agreement"])
def test_a_question_with_more_pictures_than_the_policys_has_no_confidence(
    fitted: Fitted, estimator: str
) -> None:
    saved = policy(fitted.run, f"{estimator}-pictures", estimator)
    server = build(Settings("m", policy=saved, upstream=fitted.behind.url))
    shown = {"type": "image_url", "image_url": {"url": PICTURE}}
    said = "number of pictures is 2: the policy was fitted on questions with 0 to 1"
    line = {"type": "text", "text": f"Question 1?\n{LINE}"}
    extra: list[dict[str, Any]] = [{}, {"stream": True}, {"trust": {"as_labelled": True}}]
    with running(server=server) as proxy:
        for fields in extra:
            one = asked(proxy, [shown, line], **fields)["trust"]
            assert one["confidence"] is not None, one
            before = len(fitted.behind.bodies)
            two = asked(proxy, [shown, shown, line], **fields)["trust"]
            assert len(fitted.behind.bodies) == before + 1, "the answer alone, no samples"
            assert (two["confidence"], two["abstain"]) == (None, True)
            assert (two["reason"], two["warnings"]) == (said, [said])
        question = {"type": "predicate", "instructions": "Question 1?"}
        pictures = [{"type": "input_image", "image_url": PICTURE}] * 2
        content = [*pictures, {"type": "input_text", "text": "Two."}]
        body = {"input": [{"role": "user", "content": content}], "questions": [question]}
        status, document, _ = proxy.call("/v1/decisions", body)
        assert status == 200, document
        assert document["answers"][0]["trust"]["warnings"] == [said]
