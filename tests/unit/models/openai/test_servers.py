"""Work goes to the server expected to answer soonest; a failing one is left alone for a while."""

from __future__ import annotations

import time

import pytest
from chat_servers import PLAIN, ChatServer, FakeChat

from sightline.core.errors import EndpointError, UsageError
from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.models.openai import EndpointSettings, load_endpoint
from sightline.models.openai.servers import Pool, backoff

MANY = [Example(f"e{i}", f"What is number {i}?") for i in range(40)]
REQUEST = Request(max_new_tokens=6)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def both(first, second, **settings):
    urls = (first.url, second.url)
    return load_endpoint(
        "m", EndpointSettings(urls, **{"backoff_s": 0.05, **settings}), style=PLAIN
    )


def shares(pool, clock, latencies, requests):
    """How many requests each server gets when one is sent as soon as another has finished."""
    running = []
    for _ in range(requests):
        while len(running) >= 4:
            running.sort(key=lambda one: one[0])
            end, server, start = running.pop(0)
            clock.now = max(clock.now, end)
            server.finish(start, clock.now, answered=True)
        server = pool.choose()
        server.started.append(clock.now)
        running.append((clock.now + latencies[server.url], server, clock.now))
        clock.now += 1e-6
    return {server.url: server.answered for server in pool.servers}


def test_shares_follow_the_latencies():
    clock = Clock()
    got = shares(Pool(["a", "b"], clock), clock, {"a": 0.1, "b": 0.9}, 200)
    assert got["a"] > 5 * got["b"] > 0
    clock = Clock()
    got = shares(Pool(["a", "b"], clock), clock, {"a": 0.1, "b": 0.1}, 200)
    assert abs(got["a"] - got["b"]) < 40


def test_a_server_that_does_not_answer_gets_nothing_more():
    clock = Clock()
    pool = Pool(["a", "b"], clock)
    stuck, other = pool.servers
    stuck.started.append(clock.now)
    other.latency_s = 0.1
    clock.now += 5
    assert all(pool.choose() is other for _ in range(10))


def test_after_a_failure_a_server_is_paused_then_tried_with_one_request():
    clock = Clock()
    pool = Pool(["a"], clock)
    (server,) = pool.servers
    server.strike(clock.now, 1.0, None)
    assert pool.choose() is None
    assert 0.5 <= pool.pause_s() <= 1.0
    clock.now += 1.0
    assert pool.choose() is server
    server.started.append(clock.now)
    assert pool.choose() is None  # one at a time until it answers
    server.finish(clock.now, clock.now + 0.1, answered=True)
    server.started += [1.0, 2.0]
    assert pool.choose() is server


def test_a_pause_that_the_server_asks_for_is_kept_up_to_a_minute():
    clock = Clock()
    (server,) = Pool(["a"], clock).servers
    server.strike(clock.now, 0.01, 20.0)
    assert server.paused_until == clock.now + 20
    server.strike(clock.now, 0.01, 1e9)
    assert server.paused_until == clock.now + 60


def test_backoff_doubles_and_is_never_longer_than_a_minute():
    for failures, longest in ((1, 0.5), (2, 1.0), (3, 2.0), (20, 60.0)):
        drawn = [backoff(failures, 0.5) for _ in range(50)]
        assert longest / 2 <= min(drawn) <= max(drawn) <= longest
        assert len(set(drawn)) > 1


def test_a_slow_server_loses_its_share():
    chat = FakeChat()
    with ChatServer(chat) as fast, ChatServer(chat) as slow:
        model = both(fast, slow, concurrency=4)
        fast.requests.clear(), slow.requests.clear()
        slow.delay_s = 0.4
        model.observe(MANY, [()] * len(MANY), REQUEST)
        assert len(slow.requests) < len(fast.requests) / 2


def test_a_stuck_request_is_taken_over_by_an_idle_server():
    chat = FakeChat()
    with ChatServer(chat) as good, ChatServer(chat) as stuck:
        model = both(good, stuck, timeout_s=30.0)
        (expected,) = model.observe(MANY[:1], [()], REQUEST)
        stuck.delay_s = 20.0
        started = time.monotonic()
        records = model.observe(MANY[:4], [()] * 4, REQUEST)
        assert time.monotonic() - started < 15
    assert len(records) == 4
    assert records[0].answer.text == expected.answer.text


def test_a_dead_server_is_done_without_and_asked_again_later():
    chat = FakeChat()
    with ChatServer(chat) as good:
        with ChatServer(chat) as other:
            model = both(good, other, concurrency=4)
            port = other.port
        assert len(model.observe(MANY, [()] * len(MANY), REQUEST)) == len(MANY)
        with ChatServer(chat, port=port) as back:
            for _ in range(50):
                time.sleep(0.1)
                model.observe(MANY[:8], [()] * 8, REQUEST)
                if back.requests:
                    break
            assert back.requests


def test_a_server_that_is_down_at_the_start_is_no_obstacle():
    chat = FakeChat()
    with ChatServer(chat) as lost:
        pass
    with ChatServer(chat) as good:
        model = both(lost, good)
        assert len(model.observe(MANY[:3], [()] * 3, REQUEST)) == 3
    with pytest.raises(EndpointError, match="gave no answer"):
        both(lost, lost)


def test_servers_that_differ_are_refused():
    with ChatServer(FakeChat()) as one, ChatServer(FakeChat(top=5)) as other:
        with pytest.raises(UsageError, match="differ in top_logprobs"):
            both(one, other)
        other.models = [{"id": "something else"}]
        with pytest.raises(UsageError, match="does not serve 'm'; it serves something else"):
            both(one, other)


def test_no_more_requests_at_once_than_allowed():
    with ChatServer(FakeChat()) as server:
        model = load_endpoint("m", EndpointSettings((server.url,), concurrency=3), style=PLAIN)
        server.delay_s = 0.02
        model.observe(MANY, [()] * len(MANY), Request(max_new_tokens=4, n_samples=2))
        assert server.most == 3
