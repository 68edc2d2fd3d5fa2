"""A saved policy before the endpoint that it was fitted on, and before another one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_servers import PLAIN, ChatServer
from proxied_chats import SAMPLES, TOKENS, Chat, collect, policy, questions
from running import Running, running

from sightline import api
from sightline.core.errors import UsageError
from sightline.core.types import Record
from sightline.models.fake import FakeModel
from sightline.serving import identity
from sightline.serving.fields import PLAIN as NEUTRAL
from sightline.serving.limits import Limits
from sightline.serving.server import Settings, build
from sightline.store.run import RunStore
from sightline.workflow.policy import load_policy

CHEAP, DEAR = "sequence_probability", "sample_agreement"


class Fitted:
    """A chat server, policies fitted on it, and what its run recorded."""

    def __init__(self, chat: Chat, server: ChatServer, run: Path) -> None:
        self.chat, self.server = chat, server
        self.cheap = policy(run, "cheap", CHEAP)
        self.dear = policy(run, "dear", DEAR)
        self.cascade = policy(run, "cascade", CHEAP, DEAR, budget=SAMPLES / 2)
        self.records = [r for r in RunStore.open(run).records() if r.greedy is not None]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fitted]:
    chat = Chat()
    chat.chat.learn(questions(240))
    with ChatServer(chat) as server:
        run = collect(tmp_path_factory.mktemp("fitted"), server.url)
        yield Fitted(chat, server, run)


def settings(url: str, path: Path, **more: Any) -> Settings:
    return Settings("m", policy=path, upstream=url, **more)


@pytest.fixture(scope="module")
def cheap(fitted: Fitted) -> Iterator[Running]:
    with running(server=build(settings(fitted.server.url, fitted.cheap))) as found:
        yield found


@pytest.fixture(scope="module")
def dear(fitted: Fitted) -> Iterator[Running]:
    with running(server=build(settings(fitted.server.url, fitted.dear))) as found:
        yield found


def trust_of(server: Running, question: str = "Question 1?", **fields: Any) -> dict[str, Any]:
    status, document, _ = server.chat(question, **fields)
    assert status == 200, document
    return dict(document["choices"][0]["trust"])


def test_the_upstream_it_was_fitted_on_is_judged_as_in_its_run(
    cheap: Running, fitted: Fitted
) -> None:
    decisions = load_policy(fitted.cheap).decide(fitted.records[:20])
    for record, decision in zip(fitted.records[:20], decisions, strict=True):
        trust = trust_of(cheap, record.example.question)
        assert trust["confidence"] == pytest.approx(decision.confidence, abs=1e-9)
        assert trust["raw_score"] == pytest.approx(decision.uncertainty, abs=1e-9)
        assert trust["abstain"] is not decision.accepted
        assert trust["warnings"] == []
    assert b"sightline_upstream_verified 1" in cheap.call("/metrics")[1]


def test_it_is_asked_as_for_the_run(cheap: Running, fitted: Fitted) -> None:
    fitted.server.requests.clear()
    trust_of(cheap)
    (sent,) = fitted.server.bodies
    assert sent == {
        "model": "m",
        "messages": [{"role": "user", "content": "Question 1?"}],
        "temperature": 0,
        "max_completion_tokens": TOKENS,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "logprobs": True,
    }


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"ignored": frozenset({"n"})}, "capabilities n False for True"),
        ({"end_token": False}, "capabilities end_token False for True"),
        (
            {"space": "after"},
            "capabilities logprob_space 'after temperature' for 'raw', "
            "logprob_space 'after temperature' for 'raw')",
        ),
    ],
)
def test_39_an_upstream_that_does_otherwise_is_refused(
    fitted: Fitted, changed: dict[str, Any], named: str
) -> None:
    other = Chat(replace(fitted.chat.chat, **changed))
    with ChatServer(other) as server, pytest.raises(UsageError) as error:
        build(settings(server.url, fitted.cheap))
    assert error.value.exit_code == 2
    assert "The policy was fitted on m and the upstream is m" in str(error.value)
    assert f"differing in {named}" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_39_an_upstream_of_another_version_or_name_is_refused(fitted: Fitted) -> None:
    with ChatServer(Chat(fitted.chat.chat)) as server:
        server.version = "9"
        wrong = "differing in server version '9' for '1.2'"
        with pytest.raises(UsageError, match=wrong):
            build(settings(server.url, fitted.cheap))
        server.models = [{"id": "n"}]
        with pytest.raises(UsageError, match="does not serve 'm'"):
            build(settings(server.url, fitted.cheap))


def test_39_a_policy_of_a_loaded_model_speaks_for_no_endpoint(
    fitted: Fitted, tmp_path: Path
) -> None:
    source = fitted.cheap.parent / "questions.jsonl"
    api.collect("fake", source, tmp_path / "run", estimators=(CHEAP,), max_new_tokens=TOKENS)
    made = policy(tmp_path / "run", "local", CHEAP)
    fitted.server.requests.clear()
    with pytest.raises(UsageError, match="fitted on answers of a model that was loaded"):
        build(Settings("fake", policy=made, upstream=fitted.server.url))
    assert not fitted.server.requests


def awaited(server: Running, doubt: str | None) -> dict[str, Any]:
    """Trust once the doubt about the upstream is this one."""
    deadline = time.monotonic() + 60
    served = server.server.backend._served  # type: ignore[attr-defined]
    while served.identity.doubt != doubt and time.monotonic() < deadline:
        time.sleep(0.02)
    return trust_of(server)


@pytest.mark.parametrize("same", [True, False])
def test_39_an_upstream_that_comes_later_has_no_confidence_until_it_was_examined(
    fitted: Fitted,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    same: bool,
) -> None:
    chat = Chat(replace(fitted.chat.chat, end_token=same))
    with ChatServer(chat) as gone:
        port, url = gone.port, gone.url
    monkeypatch.setattr(identity, "_AGAIN_S", 3.0)
    asked = build(settings(url, fitted.cheap))
    (line,) = caplog.messages
    assert f"{url} gave no answer" in line
    assert "same command" not in line, "serving goes on by itself"
    with running(server=asked) as server:
        assert server.call("/health")[0] == 200
        with ChatServer(chat, port=port) as back:
            assert not back.bodies
            trust = trust_of(server)
            assert (trust["confidence"], trust["abstain"]) == (None, True)
            assert trust["warnings"] == [identity.NOT_KNOWN]
            assert trust["receipt"] is None
            assert b"sightline_upstream_verified 0" in server.call("/metrics")[1]
            trust = awaited(server, None if same else identity.OTHER)
            assert (trust["confidence"] is not None) is same
            assert trust["warnings"] == ([] if same else [identity.OTHER])


@pytest.mark.parametrize("same", [True, False])
def test_39_an_upstream_that_was_gone_is_examined_before_it_is_believed_again(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    monkeypatch.setattr(identity, "_AGAIN_S", 2.0)
    chat = Chat(fitted.chat.chat)
    with ChatServer(chat) as first:
        asked = build(settings(first.url, fitted.cheap))
        port = first.port
    with running(server=asked) as server:
        assert server.chat("Question 1?")[0] == 502
        with ChatServer(Chat(replace(chat.chat, end_token=same)), port=port):
            trust = trust_of(server)
            assert (trust["confidence"], trust["warnings"]) == (None, [identity.NOT_KNOWN])
            trust = awaited(server, None if same else identity.OTHER)
            assert (trust["confidence"] is not None) is same


def test_38_samples_come_in_groups_and_all_are_read(dear: Running, fitted: Fitted) -> None:
    fitted.server.requests.clear()
    trust = trust_of(dear)
    assert trust["confidence"] is not None
    assert trust["warnings"] == []
    drawn = [body for body in fitted.server.bodies if body["temperature"] == 1.0]
    assert sorted(body["n"] for body in drawn) == [SAMPLES - 8, 8]
    assert len({body["seed"] for body in drawn}) == 2
    assert all(body["max_completion_tokens"] == TOKENS for body in drawn)
    again = trust_of(dear)
    assert again["raw_score"] == trust["raw_score"], "equal questions have equal samples"


@pytest.mark.parametrize("stream", [False, True])
def test_38_fewer_samples_have_no_confidence(dear: Running, fitted: Fitted, stream: bool) -> None:
    fitted.chat.most = 1
    try:
        trust = streamed(dear)[1] if stream else trust_of(dear)
    finally:
        fitted.chat.most = 64
    assert (trust["confidence"], trust["abstain"], trust["receipt"]) == (None, True, None)
    (warning,) = trust["warnings"]
    assert warning == "the upstream gave 2 of 10 samples: the policy was fitted on 10"


def test_38_a_server_that_does_little_is_asked_for_no_more(fitted: Fitted, tmp_path: Path) -> None:
    refused = frozenset({"logprobs", "max_completion_tokens", "min_p"})
    ignored = frozenset({"n", "seed"})
    chat = Chat(replace(fitted.chat.chat, refused=refused, ignored=ignored))
    with ChatServer(chat) as server:
        made = policy(collect(tmp_path, server.url, count=120, samples=3), "single", DEAR)
        with running(server=build(settings(server.url, made))) as proxy:
            server.requests.clear()
            assert trust_of(proxy)["confidence"] is not None
        messages = [{"role": "user", "content": "Question 1?"}]
        own = {"model": "m", "messages": messages, "max_tokens": TOKENS}
        drawn = {**own, "temperature": 1.0, "top_p": 1.0}
        found = sorted(server.bodies, key=lambda body: body["temperature"])
        assert found == [{**own, "temperature": 0}, drawn, drawn, drawn]


def test_the_key_goes_with_every_question_of_the_examination(fitted: Fitted) -> None:
    fitted.server.requests.clear()
    build(settings(fitted.server.url, fitted.cheap, upstream_key="secret"))
    assert len(fitted.server.requests) > 10
    for _, headers, _ in fitted.server.requests:
        sent = {name.lower(): value for name, value in headers.items()}
        assert sent["authorization"] == "Bearer secret"


def test_twenty_samples_of_our_own_server(tmp_path: Path) -> None:
    with running(FakeModel(PLAIN)) as own:
        url = f"http://127.0.0.1:{own.port}/v1"
        made = policy(collect(tmp_path, url, "fake", count=80, samples=20), "own", DEAR)
        asked = Settings("fake", policy=made, upstream=url)
        with running(server=build(asked)) as proxy:
            trust = trust_of(proxy)
            assert trust["confidence"] is not None
            assert trust["warnings"] == []


SET: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.5,
    "presence_penalty": 2.0,
    "frequency_penalty": -1.0,
    "stop": ["x"],
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
}


@pytest.mark.parametrize("name", SET)
@pytest.mark.parametrize("stream", [False, True])
def test_other_decoding_has_no_confidence_and_says_why(
    cheap: Running, name: str, stream: bool
) -> None:
    fields = {name: SET[name]}
    trust = streamed(cheap, **fields)[1] if stream else trust_of(cheap, **fields)
    assert (trust["confidence"], trust["abstain"]) == (None, True)
    (warning,) = trust["warnings"]
    assert ("sampled answer" if name == "temperature" else f"{name} is set") in warning


def test_what_does_not_change_an_answer_keeps_its_confidence(cheap: Running) -> None:
    plain = trust_of(cheap)
    assert plain["confidence"] is not None
    values = {name: value for name, (*_, value) in NEUTRAL.items()}
    for fields in (values, {"seed": 5, "n": 2, "temperature": 0, "logprobs": True}):
        trust = trust_of(cheap, **fields)
        assert trust["confidence"] == plain["confidence"]
        assert trust["warnings"] == []


USER = {"role": "user", "content": "Question 1?"}
SAID = {"role": "assistant", "content": "red"}


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"role": "system", "content": "Be short."}, USER], "messages hold system text"),
        ([{"role": "developer", "content": ""}, USER], "messages hold system text"),
        ([USER, SAID, USER], "messages hold 3 turns"),
        ([USER, USER], "messages hold 2 turns"),
        ([{**USER, "name": "ann"}], "messages.name is set"),
    ],
)
def test_other_conversations_have_no_confidence_and_say_why(
    cheap: Running, messages: list[dict[str, Any]], why: str
) -> None:
    status, document, _ = cheap.call("/v1/chat/completions", {"messages": messages})
    assert status == 200, document
    trust = document["choices"][0]["trust"]
    assert (trust["confidence"], trust["abstain"]) == (None, True)
    assert why in trust["warnings"][0]


def undecided(fitted: Fitted) -> dict[bool, list[Record]]:
    """Answers by whether the cascade's first stage leaves them to the second."""
    bare = [replace(record, samples=()) for record in fitted.records]
    decisions = load_policy(fitted.cascade).decide(bare)
    found: dict[bool, list[Record]] = {True: [], False: []}
    for record, decision in zip(fitted.records, decisions, strict=True):
        found[bool(decision.pending)].append(record)
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_cascade_draws_samples_only_where_the_first_stage_is_undecided(
    fitted: Fitted, stream: bool
) -> None:
    parts = undecided(fitted)
    assert parts[True]
    assert parts[False]
    with running(server=build(settings(fitted.server.url, fitted.cascade))) as server:
        for goes_on, records in parts.items():
            for record in records[:5]:
                fitted.server.requests.clear()
                text = record.example.question
                trust = streamed(server, text)[1] if stream else trust_of(server, text)
                assert trust["confidence"] is not None
                assert trust["warnings"] == []
                assert (DEAR in trust["signals"]) is goes_on
                assert len(fitted.server.bodies) == (3 if goes_on else 1)
        text = parts[True][0].example.question
        fitted.server.requests.clear()
        assert trust_of(server, text, stop=["x"])["confidence"] is None
        assert len(fitted.server.bodies) == 1, "samples of an answer that has no confidence anyway"
        fitted.server.requests.clear()
        question = {"type": "predicate", "instructions": text}
        status, document, _ = server.call("/v1/decisions", {"input": "x", "questions": [question]})
        assert status == 200, document


def test_a_cascade_keeps_the_deadline_of_one_request(fitted: Fitted) -> None:
    text = undecided(fitted)[True][0].example.question
    limits = Limits(request_s=1.0)
    asked = settings(fitted.server.url, fitted.cascade, limits=limits)
    with running(server=build(asked), limits=limits) as server:
        fitted.server.delay_s = 0.7
        try:
            started = time.monotonic()
            trust = trust_of(server, text)
            assert time.monotonic() - started < 1.5
        finally:
            fitted.server.delay_s = 0.0
        assert (trust["confidence"], trust["abstain"]) == (None, True)
        assert "gave no samples: The upstream did not answer within" in trust["reason"]
        assert trust_of(server, text)["confidence"] is not None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["dear", "cascade"])
def test_an_answer_whose_samples_fail_is_delivered_without_confidence(
    fitted: Fitted, kind: str, stream: bool
) -> None:
    text = undecided(fitted)[True][0].example.question
    with running(server=build(settings(fitted.server.url, getattr(fitted, kind)))) as server:
        whole, trust = streamed(server, text)
        assert trust["confidence"] is not None
        fitted.chat.draws = False
        try:
            if stream:
                said, trust = streamed(server, text)
                assert said == whole
            else:
                trust = trust_of(server, text)
        finally:
            fitted.chat.draws = True
        assert (trust["confidence"], trust["abstain"], trust["receipt"]) == (None, True, None)
        assert trust["reason"].startswith("the upstream gave no samples: The upstream is busy.")
        assert trust["warnings"] == [trust["reason"]]
        assert b"sightline_upstream_samples_failed_total 1\n" in server.call("/metrics")[1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{"stop": ["x"]}, {"temperature": 0.5}, {"top_p": 0.5}])
def test_no_samples_are_drawn_for_answers_that_cannot_have_confidence(
    dear: Running, fitted: Fitted, fields: dict[str, Any], stream: bool
) -> None:
    fitted.server.requests.clear()
    trust = streamed(dear, **fields)[1] if stream else trust_of(dear, **fields)
    assert (trust["confidence"], trust["abstain"]) == (None, True)
    assert trust["warnings"] == [trust["reason"]]
    time.sleep(0.05)
    assert len(fitted.server.bodies) == 1


def test_no_samples_are_drawn_while_the_upstream_is_doubted(
    dear: Running, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = dear.server.backend._served  # type: ignore[attr-defined]
    monkeypatch.setattr(served.identity, "doubt", identity.OTHER)
    fitted.server.requests.clear()
    trust = trust_of(dear)
    assert trust["warnings"] == [identity.OTHER]
    question = {"type": "predicate", "instructions": "Question 1?"}
    status, document, _ = dear.call("/v1/decisions", {"input": "x", "questions": [question]})
    assert (status, document["answers"][0]["type"]) == (200, "refusal")
    time.sleep(0.05)
    assert len(fitted.server.bodies) == 2


def streamed(
    server: Running, question: str = "Question 1?", **fields: Any
) -> tuple[str, dict[str, Any]]:
    """The text that a client gets, and the only trust."""
    status, data, _ = server.chat(question, stream=True, **fields)
    assert status == 200, data
    events = [json.loads(line[6:]) for line in data.decode().split("\n\n")[:-2]]
    parts = [part for event in events for part in event["choices"]]
    (trust,) = [part["trust"] for part in parts if "trust" in part]
    assert "trust" in parts[-1], "said behind the trust"
    return "".join(part["delta"].get("content", "") for part in parts), trust


def test_a_stream_is_judged_as_the_whole_answer(cheap: Running) -> None:
    _, document, _ = cheap.chat("Question 1?")
    text, trust = streamed(cheap)
    (choice,) = document["choices"]
    assert text.strip() == choice["message"]["content"]
    assert trust["confidence"] == choice["trust"]["confidence"]


def test_38_a_stream_without_an_end_has_no_confidence(cheap: Running, fitted: Fitted) -> None:
    whole, _ = streamed(cheap)
    fitted.chat.finishes = False
    try:
        text, trust = streamed(cheap)
    finally:
        fitted.chat.finishes = True
    assert text == whole
    assert (trust["confidence"], trust["abstain"], trust["receipt"]) == (None, True, None)
    assert trust["warnings"] == [
        "the upstream ended its answer without saying that it was finished: it may be cut"
    ]


@pytest.mark.parametrize(
    ("reason", "says"),
    [(None, "it may be cut"), ("content_filter", "'content_filter'"), ("tool_calls", "'tool_")],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_did_not_finish_has_no_confidence(
    cheap: Running, fitted: Fitted, reason: str | None, says: str, stream: bool
) -> None:
    fitted.chat.reason = reason
    try:
        trust = streamed(cheap)[1] if stream else trust_of(cheap)
    finally:
        fitted.chat.reason = ""
    assert (trust["confidence"], trust["abstain"]) == (None, True)
    assert says in trust["warnings"][0]


@pytest.mark.parametrize("stream", [False, True])
def test_options_that_the_upstream_would_not_see_are_refused(cheap: Running, stream: bool) -> None:
    trust = {"choices": ["red", "blue"]}
    status, document, _ = cheap.chat("Question 1?", trust=trust, stream=stream)
    assert status == 400
    assert document["error"]["param"] == "trust.choices"
    assert "Write the options into the question" in document["error"]["message"]


def test_what_is_said_behind_the_end_is_neither_judged_nor_delivered(
    cheap: Running, fitted: Fitted
) -> None:
    whole, plain = streamed(cheap)
    fitted.chat.behind = " NOT REALLY"
    try:
        text, trust = streamed(cheap)
    finally:
        fitted.chat.behind = ""
    assert text == whole
    assert trust["confidence"] == plain["confidence"]
