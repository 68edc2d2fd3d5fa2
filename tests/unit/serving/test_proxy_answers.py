"""Answers of an upstream: what they cost, and what becomes of them where their samples fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from judges import HalfJudge
from running import Running, running
from upstreams import Upstream, upstream

from sightline.serving.forwarding import Served
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server


@contextmanager
def before(behind: Upstream, judge: Any) -> Iterator[Running]:
    backend = proxy_of(
        Settings("m", upstream=behind.url), Served("m", frozenset({"m"})), judge, None
    )
    has_policy = judge is not None
    with running(server=Server(backend=backend, has_policy=has_policy)) as found:
        yield found


def decisions(server: Running, *instructions: str) -> Any:
    questions = [{"type": "predicate", "instructions": one} for one in instructions]
    status, document, _ = server.call("/v1/decisions", {"input": "", "questions": questions})
    assert status == 200, document
    return document


@pytest.mark.parametrize(("samples", "requests"), [(0, 1), (3, 2), (10, 3)])
def test_decisions_use_what_the_upstream_says_of_all_it_was_asked(
    samples: int, requests: int
) -> None:
    with upstream() as behind, before(behind, HalfJudge(samples=samples)) as server:
        for count in (1, 2):
            behind.bodies.clear()
            usage = decisions(server, *["Is it?"] * count)["usage"]
            assert len(behind.bodies) == requests * count
            assert usage == {
                "input_tokens": 9 * requests * count,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 3 * requests * count,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 12 * requests * count,
            }


def test_decisions_know_no_usage_where_the_upstream_says_none() -> None:
    with upstream() as behind, before(behind, HalfJudge()) as server:
        assert decisions(server, "no usage")["usage"] is None
        assert decisions(server, "Is it?", "no usage")["usage"] is None


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_whose_samples_fail_is_delivered(stream: bool) -> None:
    with upstream() as behind, before(behind, HalfJudge(samples=10)) as proxy:
        status, found, _ = proxy.chat("samples fail", model="m", stream=stream)
        assert status == 200, found
        (choice,) = (proxy.last(found) if stream else found)["choices"]
        assert stream or choice["message"]["content"] == "a red circle"
        trust = choice["trust"]
        assert (trust["confidence"], trust["abstain"]) == (None, True)
        (warning,) = trust["warnings"]
        assert warning == trust["reason"]
        assert warning == (
            "the upstream gave no samples: The upstream failed with status 500. Try again."
        )
        assert b"sightline_upstream_samples_failed_total 1\n" in proxy.call("/metrics")[1]
        assert b'sightline_answers_total{decision="no_confidence"} 1' in proxy.call("/metrics")[1]
