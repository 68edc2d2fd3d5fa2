"""An upstream that is swapped while the server runs: what is noticed, and when it is believed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from chat_servers import ChatServer, FakeChat
from proxied_chats import Chat, collect, policy, questions
from running import Running, running

from sightline.serving import identity
from sightline.serving.departures import ANOTHER
from sightline.serving.server import Settings, build
from sightline.serving.upstream_trust import BARE

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeChat, Any]]:
    """A chat, and a policy that was fitted on it."""
    chat = Chat()
    chat.chat.learn(questions(160))
    with ChatServer(chat) as server:
        run = collect(tmp_path_factory.mktemp("identity"), server.url, count=160)
        yield chat.chat, policy(run, "cheap", "sequence_probability")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_AGAIN_S", 0.3)
    monkeypatch.setattr(identity, "_LONGEST_PAUSE_S", 0.6)
    monkeypatch.setattr(identity, "_LOOK_AGAIN_S", 0.0)


@contextmanager
def served(fitted: tuple[FakeChat, Any]) -> Iterator[tuple[Running, ChatServer, Chat]]:
    """The proxy, the server behind it, and what answers there."""
    chat = Chat(replace(fitted[0]))
    with ChatServer(chat) as server:
        asked = build(Settings("m", policy=fitted[1], upstream=server.url))
        with running(server=asked) as proxy:
            assert trust_of(proxy)["confidence"] is not None
            yield proxy, server, chat


def trust_of(proxy: Running, **fields: Any) -> dict[str, Any]:
    status, document, _ = proxy.chat("Question 1?", **fields)
    assert status == 200, document
    last = proxy.last(document) if fields.get("stream") else document
    return dict(last["choices"][0]["trust"])


def doubt_of(proxy: Running) -> str | None:
    return proxy.server.backend._served.identity.doubt  # type: ignore[attr-defined,no-any-return]


def awaited(proxy: Running, doubt: str | None) -> dict[str, Any]:
    """Trust once the doubt is this one."""
    deadline = time.monotonic() + 30
    while doubt_of(proxy) != doubt:
        assert time.monotonic() < deadline, doubt_of(proxy)
        time.sleep(0.02)
    return trust_of(proxy)


def version(server: ChatServer, _: Chat) -> None:
    server.version = "9"


def owner(server: ChatServer, _: Chat) -> None:
    server.models = [{"id": "m", "owned_by": "others"}]


def unlisted(server: ChatServer, _: Chat) -> None:
    server.models = [{"id": "n"}]


def other_name(_: ChatServer, chat: Chat) -> None:
    chat.answers_as = "n"


CHANGES = [version, owner, unlisted, other_name]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_a_swapped_upstream_is_noticed_and_believed_again_once_it_is_the_same(
    fitted: tuple[FakeChat, Any], change: Callable[[ChatServer, Chat], None], stream: bool
) -> None:
    with served(fitted) as (proxy, server, chat):
        models = server.models
        change(server, chat)
        trust = trust_of(proxy, stream=stream)
        assert (trust["confidence"], trust["abstain"], trust["receipt"]) == (None, True, None)
        assert identity.CHANGED in trust["warnings"]
        trust = awaited(proxy, identity.OTHER)
        assert identity.OTHER in trust["warnings"]
        assert b"sightline_upstream_verified 0" in proxy.call("/metrics")[1]
        server.version, server.models = "1.2", models
        chat.answers_as = None
        trust = awaited(proxy, None)
        assert (trust["confidence"] is not None, trust["warnings"]) == (True, [])


@contextmanager
def without_logprobs(chat: Chat) -> Iterator[None]:
    known = chat.chat.ignored
    chat.chat.ignored = frozenset({"logprobs"})
    try:
        yield
    finally:
        chat.chat.ignored = known


def bare(proxy: Running, chat: Chat, **fields: Any) -> dict[str, Any]:
    """Trust of an answer that comes without log-probabilities."""
    with without_logprobs(chat):
        return trust_of(proxy, **fields)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_logprobs_takes_no_other_answers_confidence(
    fitted: tuple[FakeChat, Any], stream: bool
) -> None:
    with served(fitted) as (proxy, _, chat):
        for _ in range(2 * identity._BARE_IN_A_ROW):
            trust = bare(proxy, chat, stream=stream)
            assert (trust["confidence"], trust["abstain"], trust["receipt"]) == (None, True, None)
            assert trust["reason"] == BARE
            assert identity.CHANGED not in trust["warnings"]
            trust = trust_of(proxy, stream=stream)
            assert (trust["confidence"] is not None, trust["warnings"]) == (True, [])


def test_several_in_a_row_without_logprobs_are_a_sign_of_a_change(
    fitted: tuple[FakeChat, Any],
) -> None:
    with served(fitted) as (proxy, _, chat), without_logprobs(chat):
        for _ in range(identity._BARE_IN_A_ROW - 1):
            assert identity.CHANGED not in trust_of(proxy)["warnings"]
        assert identity.CHANGED in trust_of(proxy)["warnings"]
        awaited(proxy, identity.OTHER)


def test_who_repeats_questions_that_are_filtered_is_believed_ever_less(
    fitted: tuple[FakeChat, Any],
) -> None:
    with served(fitted) as (proxy, _, chat):
        for doubling in (1, 2):
            for _ in range(doubling * identity._BARE_IN_A_ROW):
                assert doubt_of(proxy) is None
                bare(proxy, chat)
            assert doubt_of(proxy) == identity.CHANGED
            assert awaited(proxy, None)["confidence"] is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True},
        {"n": 2},
        {"top_logprobs": 1, "logprobs": True},
        {"max_tokens": 1},
        {"temperature": 0.5},
        {"tools": []},
    ],
)
def test_a_clients_own_settings_are_no_sign_of_a_change(
    fitted: tuple[FakeChat, Any], fields: dict[str, Any]
) -> None:
    with served(fitted) as (proxy, _, chat):
        for _ in range(2 * identity._BARE_IN_A_ROW):
            assert bare(proxy, chat, **fields)["confidence"] is None
            assert doubt_of(proxy) is None


def test_another_upstream_is_examined_ever_more_seldom(
    fitted: tuple[FakeChat, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[float] = []
    check = identity.Identity._check

    async def counted(self: identity.Identity) -> None:
        examined.append(time.monotonic())
        await check(self)

    with served(fitted) as (proxy, server, _):
        monkeypatch.setattr(identity.Identity, "_check", counted)
        server.version = "9"
        trust_of(proxy)
        awaited(proxy, identity.OTHER)
        while len(examined) < 4:
            assert trust_of(proxy)["confidence"] is None
            time.sleep(0.05)
        gaps = [b - a for a, b in pairwise(examined)]
        assert all(gap > 0.55 for gap in gaps)


def test_a_new_system_fingerprint_is_examined_once(fitted: tuple[FakeChat, Any]) -> None:
    with served(fitted) as (proxy, server, chat):
        for mark in ("a", "a"):
            chat.mark = mark
            assert trust_of(proxy)["confidence"] is not None
        chat.mark = "b"
        assert trust_of(proxy)["warnings"] == [identity.CHANGED]
        assert awaited(proxy, None)["confidence"] is not None
        server.requests.clear()
        for mark in ("a", "b", "a"):
            chat.mark = mark
            assert trust_of(proxy)["confidence"] is not None
        assert len(server.bodies) == 3


def test_a_list_that_is_not_shown_says_nothing(fitted: tuple[FakeChat, Any]) -> None:
    with served(fitted) as (proxy, server, _):
        server.models = server.version = None
        for _ in range(3):
            assert trust_of(proxy)["confidence"] is not None
        assert doubt_of(proxy) is None


def test_looks_are_bounded_in_rate(
    fitted: tuple[FakeChat, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_LOOK_AGAIN_S", 60.0)
    with served(fitted) as (proxy, server, _):
        server.version = "9"
        for _ in range(5):
            assert trust_of(proxy)["confidence"] is not None


@pytest.mark.parametrize("stream", [False, True])
def test_another_models_name_is_not_found_unless_the_upstream_lists_it(
    fitted: tuple[FakeChat, Any], stream: bool
) -> None:
    with served(fitted) as (proxy, server, _):
        server.requests.clear()
        for name in ("gpt-4o", "m ", "", "x" * 500, "\x1b[2J\n"):
            status, document, _ = proxy.chat("Question 1?", model=name, stream=stream)
            error = document["error"]
            assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
            assert "'m' is required" in error["message"]
            assert "\x1b" not in error["message"]
        assert not server.bodies
        assert trust_of(proxy, model="m")["confidence"] is not None


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_the_upstream_lists_answers_without_confidence(
    fitted: tuple[FakeChat, Any], stream: bool
) -> None:
    with served(fitted) as (proxy, server, _):
        assert server.models is not None
        server.models = [*server.models, {"id": "adapter"}]
        server.requests.clear()
        status, found, _ = proxy.chat("Question 1?", model="adapter", stream=stream)
        assert status == 200, found
        last = proxy.last(found) if stream else found
        assert last["model"] == "adapter"
        assert [body["model"] for body in server.bodies] == ["adapter"]
        trust = last["choices"][0]["trust"]
        assert (trust["confidence"], trust["abstain"]) == (None, True)
        assert trust["warnings"][0] == ANOTHER
        assert doubt_of(proxy) is None
        question = {"type": "predicate", "instructions": "Question 1?"}
        asked = {"input": "", "questions": [question], "model": "adapter"}
        assert proxy.call("/v1/decisions", asked)[0] == 404
