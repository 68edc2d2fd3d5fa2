"""The proxy keeps the limits of the local server, over the whole request and in its words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from judges import HalfJudge
from running import Running, data_url, picture, running, with_image
from upstreams import Upstream, upstream

from sightline.serving.forwarding import Served
from sightline.serving.limits import Limits
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server

CHAT = "/v1/chat/completions"
LIMITS = Limits(max_images=2, max_text=100, max_request_pixels=2500, max_pixels=1600)
SMALL = data_url(picture(size=(32, 32)))


@pytest.fixture(scope="module")
def behind() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


@pytest.fixture(scope="module")
def local() -> Iterator[Running]:
    with running(judge=HalfJudge(), limits=LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def proxy(behind: Upstream) -> Iterator[Running]:
    asked = Settings("m", upstream=behind.url, limits=LIMITS)
    backend = proxy_of(asked, Served("m", frozenset({"m"})), HalfJudge(), None)
    with running(server=Server(backend=backend, limits=LIMITS), limits=LIMITS) as found:
        yield found


def decision(text: str, *urls: str) -> dict[str, Any]:
    images = [{"type": "input_image", "image_url": url} for url in urls]
    content = [*images, {"type": "input_text", "text": text}]
    question = {"type": "predicate", "instructions": "ok"}
    return {"input": [{"role": "user", "content": content}], "questions": [question]}


BROKEN: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "images": ("ok", (SMALL, SMALL, SMALL), "too_many_images"),
    "characters": ("o" * 101, (), None),
    "pixels": ("ok", (data_url(picture(size=(40, 40))), SMALL), "image_too_large"),
    "one image": ("ok", (data_url(picture(size=(41, 40))),), "invalid_image"),
}


@pytest.mark.parametrize("limit", BROKEN)
@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_is_refused_as_by_the_local_server(
    local: Running, proxy: Running, behind: Upstream, limit: str, stream: bool
) -> None:
    text, urls, code = BROKEN[limit]
    body = {"messages": with_image(text, *urls), "stream": stream}
    before = len(behind.bodies)
    status, document, _ = proxy.call(CHAT, body)
    assert (status, document) == local.call(CHAT, body)[:2]
    assert (status, document["error"]["code"]) == (400, code)
    assert len(behind.bodies) == before


@pytest.mark.parametrize("limit", BROKEN)
def test_decisions_are_refused_as_by_the_local_server(
    local: Running, proxy: Running, behind: Upstream, limit: str
) -> None:
    text, urls, code = BROKEN[limit]
    before = len(behind.bodies)
    status, document, _ = proxy.call("/v1/decisions", decision(text, *urls))
    assert (status, document) == local.call("/v1/decisions", decision(text, *urls))[:2]
    assert (status, document["error"]["code"]) == (400, code)
    assert len(behind.bodies) == before


def test_options_count_as_text(local: Running, proxy: Running, behind: Upstream) -> None:
    before = len(behind.bodies)
    options = ["o" * 50, "p" * 49]
    body = {"messages": with_image("ok", SMALL), "trust": {"choices": options}}
    status, document, _ = local.call(CHAT, body)
    assert "101 characters of text; at most 100" in document["error"]["message"], status
    asked = {"type": "choice", "instructions": "ok"}
    levels = [{"label": "o" * 50}, {"label": "p" * 30, "description": "q" * 16}]
    for question in (
        {**asked, "choices": [{"value": one} for one in options]},
        {**asked, "type": "score", "levels": levels},
    ):
        for server in (local, proxy):
            body = {"input": "", "questions": [question]}
            status, document, _ = server.call("/v1/decisions", body)
            assert "101 characters of text; at most 100" in document["error"]["message"], status
    assert len(behind.bodies) == before


SPREAD: dict[str, dict[str, Any]] = {
    "images": {"messages": [*with_image("ok", SMALL) * 3]},
    "pixels": {"messages": [*with_image("ok", data_url(picture(size=(40, 40)))) * 2]},
    "characters": {"messages": [{"role": "user", "content": "o" * 51}] * 2},
    "names": {"messages": [{"role": "user", "content": "ok", "name": "o" * 100}]},
    "tools": {
        "messages": [{"role": "user", "content": "ok"}],
        "tools": [{"type": "function", "function": {"name": "o" * 100}}],
    },
    "format": {
        "messages": [{"role": "user", "content": "ok"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "o" * 100}},
    },
    "calls": {
        "messages": [
            {"role": "user", "content": "ok"},
            {"role": "assistant", "tool_calls": [{"function": {"arguments": "o" * 100}}]},
            {"role": "user", "content": "ok"},
        ]
    },
}


@pytest.mark.parametrize("where", SPREAD)
def test_limits_are_those_of_all_messages_together(
    proxy: Running, behind: Upstream, where: str
) -> None:
    before = len(behind.bodies)
    status, document, _ = proxy.call(CHAT, SPREAD[where])
    assert status == 400, document
    found = {"images": "3 images", "pixels": "3200 pixels together"}
    assert found.get(where, "characters of text; at most 100") in document["error"]["message"]
    assert len(behind.bodies) == before


def test_what_is_within_all_limits_is_passed_on(proxy: Running, behind: Upstream) -> None:
    before = len(behind.bodies)
    status, document, _ = proxy.call(CHAT, {"messages": with_image("ok" + " " * 98, SMALL, SMALL)})
    assert status == 200, document
    assert len(behind.bodies) == before + 1
