"""What becomes of every field of a request, and one rule for confidence whoever answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from judges import HalfJudge
from running import Running, data_url, picture, running
from upstreams import upstream

from sightline.serving import fields
from sightline.serving.forwarding import Served
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server
from sightline.serving.wire import ChatBody


def test_the_table_holds_just_the_fields_of_a_request() -> None:
    assert set(fields.FIELDS) == set(ChatBody.model_fields)


def test_what_samples_are_drawn_without_is_sent_or_used_for_the_answer() -> None:
    assert fields.BEFORE_UPSTREAM >= fields.NOT_SAMPLED
    assert fields.SENT >= fields.LENGTHS
    assert fields.PLAIN.keys() <= fields.SENT
    assert not any(one.sent and one.used for one in fields.FIELDS.values())


@pytest.fixture(scope="module")
def local() -> Iterator[Running]:
    with running(judge=HalfJudge(threshold=0.0), has_policy=True) as found:
        yield found


@pytest.fixture(scope="module")
def proxy() -> Iterator[Running]:
    with upstream() as behind:
        asked = Settings("m", upstream=behind.url)
        judge = HalfJudge(threshold=0.0)
        backend = proxy_of(asked, Served("m", frozenset({"m"})), judge, None)
        with running(server=Server(backend=backend, has_policy=True)) as found:
            yield found


def turn(text: str = "Is it?", detail: str | None = None, **more: Any) -> dict[str, Any]:
    image = {"url": data_url(picture()), **({"detail": detail} if detail else {})}
    parts = [{"type": "image_url", "image_url": image}, {"type": "text", "text": text}]
    return {"role": "user", "content": parts, **more}


REQUESTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "plain": ({"messages": [turn()]}, None),
    "temperature 0": ({"messages": [turn()], "temperature": 0}, None),
    "seed": ({"messages": [turn()], "seed": 5}, None),
    "several": ({"messages": [turn()], "n": 2}, None),
    "log-probabilities": ({"messages": [turn()], "logprobs": True}, None),
    "top_p 1": ({"messages": [turn()], "top_p": 1}, None),
    "detail auto": ({"messages": [turn(detail="auto")]}, None),
    "temperature": ({"messages": [turn()], "temperature": 0.5}, "sampled answer"),
    "top_p": ({"messages": [turn()], "top_p": 0.5}, "top_p is set"),
    "top_p at 0": ({"messages": [turn()], "top_p": 0.5, "temperature": 0}, "top_p is set"),
    "detail": ({"messages": [turn(detail="low")]}, "image_url.detail is set"),
    "name": ({"messages": [turn(name="ann")]}, "messages.name is set"),
    "system": (
        {"messages": [{"role": "system", "content": "Be short."}, turn()]},
        "messages hold system text",
    ),
    "developer": (
        {"messages": [{"role": "developer", "content": ""}, turn()]},
        "messages hold system text",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_local_model_and_an_upstream_have_confidence_in_the_same_answers(
    local: Running, proxy: Running, name: str, stream: bool
) -> None:
    body, why = REQUESTS[name]
    for server in (local, proxy):
        for trust in trusts(server, body, stream=stream):
            assert (trust["confidence"] is None) is (why is not None), trust
            assert trust["abstain"] is (why is not None)
            warnings = [one for one in trust["warnings"] if "no logprobs" not in one]
            assert [why in one for one in warnings] == ([] if why is None else [True])


def trusts(server: Running, body: dict[str, Any], *, stream: bool) -> list[dict[str, Any]]:
    """Trust of every choice."""
    if stream and body.get("n", 1) > 1:
        stream = False
    status, found, _ = server.call("/v1/chat/completions", {**body, "stream": stream})
    assert status == 200, found
    if not stream:
        return [choice["trust"] for choice in found["choices"]]
    events = [json.loads(line[6:]) for line in found.decode().split("\n\n")[:-2]]
    parts = [part for event in events for part in event["choices"]]
    return [part["trust"] for part in parts if "trust" in part]
