"""Requests that are made to hold up the event loop or to fill memory cost what they must, once."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from running import Running, data_url, picture, running, with_image
from upstreams import upstream

from sightline.models.fake import FakeModel
from sightline.serving import beside, fetching, images
from sightline.serving.counters import Counters
from sightline.serving.errors import RequestError
from sightline.serving.forwarding import Served
from sightline.serving.guard import Guard
from sightline.serving.images import Decoders
from sightline.serving.limits import Limits
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server
from sightline.serving.wire import dropped_fields, read_chat

CHAT, DECISIONS = "/v1/chat/completions", "/v1/decisions"
TEXT = [{"role": "user", "content": "What is it?"}]
RED = {"type": "predicate", "instructions": "Is it red?"}
MANY = {f"k{i}": 1 for i in range(90_000)}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert holds()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


def test_of_90_000_unknown_fields_twenty_are_looked_for_and_named(server: Running) -> None:
    class Counted(dict[str, Any]):
        looked = 0

        def __iter__(self) -> Iterator[str]:
            for name in super().__iter__():
                Counted.looked += 1
                yield name

    for body in ({"messages": TEXT, **MANY}, {"messages": [{**TEXT[0], **MANY}]}):
        status, document, _ = server.call(CHAT, body)
        assert status == 200
        dropped = document["choices"][0]["trust"]["warnings"][-1]
        assert dropped.startswith("not used, dropped: ")
        assert len(dropped.partition(": ")[2].split(", ")) == 20
    raw = Counted({"messages": TEXT, **MANY})
    assert len(dropped_fields(raw, read_chat(dict(raw), Limits(), strict=False))) == 20
    assert Counted.looked <= 30


def test_of_90_000_unknown_wishes_the_first_is_named(server: Running) -> None:
    status, document, _ = server.call(CHAT, {"messages": TEXT, "trust": MANY})
    assert (status, document["error"]["param"]) == (400, "trust.k0")


PART = {"type": "text", "text": "x"}
TOO_MANY = {
    "parts": (CHAT, {"messages": [{"role": "user", "content": [PART] * 2049}]}),
    "parts of several": (CHAT, {"messages": [{"role": "user", "content": [PART] * 1025}] * 2}),
    "parts at fault": (CHAT, {"messages": [{"role": "user", "content": [{"type": 1}] * 30_000}]}),
    "calls": (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{}] * 2049}]}),
    "tools": (CHAT, {"messages": TEXT, "tools": [{}] * 1025}),
    "choices": (CHAT, {"messages": TEXT, "trust": {"choices": ["a"] * 99_000}}),
    "input": (DECISIONS, {"input": [{"role": "user", "content": [PART] * 2049}], "questions": []}),
    "instructions": (
        DECISIONS,
        {"input": "x", "questions": [{**RED, "instructions": [PART] * 1025}] * 2},
    ),
    "options": (
        DECISIONS,
        {
            "input": "x",
            "questions": [
                {"type": "choice", "instructions": "x", "choices": [{"value": "a"}] * 240}
            ]
            * 35,
        },
    ),
}


@pytest.mark.parametrize(("path", "body"), TOO_MANY.values(), ids=TOO_MANY)
def test_lists_are_bounded_together(server: Running, path: str, body: dict[str, Any]) -> None:
    status, document, _ = server.call(path, body)
    assert status == 400
    assert "at most" in document["error"]["message"]
    assert server.works()


def test_of_parts_at_fault_the_first_is_reported(server: Running) -> None:
    body = {"messages": [{"role": "user", "content": [PART, *[{**PART, "text": 1}] * 2000]}]}
    status, document, _ = server.call(CHAT, body)
    assert (status, document["error"]["param"]) == (400, "messages.0.content.1")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_an_input_of_many_questions_is_measured_once(server: Running, kind: str) -> None:
    given: Any = "x" * 4_000_000
    if kind == "json":
        part = {"type": "input_json", "data": {"a": given}}
        given = [{"role": "user", "content": [part]}]
    body = json.dumps({"input": given, "questions": [RED] * 400}).encode()
    gc.collect()
    tracemalloc.start()
    try:
        status, document, _ = server.call(DECISIONS, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert status == 400
    assert "at most 200000 are read" in document["error"]["message"]
    assert peak < 60e6, "a copy of the input for every question"


def test_a_picture_of_many_questions_is_read_once(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = fetching.read_data_url

    def counted(url: str, *more: Any) -> bytes:
        read.append(url)
        return real(url, *more)

    monkeypatch.setattr(fetching, "read_data_url", counted)
    image = {"type": "input_image", "image_url": data_url(picture("teal"))}
    body = {"input": [{"role": "user", "content": [image]}], "questions": [RED] * 20}
    status, document, _ = server.call(DECISIONS, body)
    assert (status, len(document["answers"])) == (200, 20)
    assert len(read) == 1


def test_22_the_images_of_all_questions_are_counted_together() -> None:
    def body(*colours: str) -> dict[str, Any]:
        shown = [{"type": "input_image", "image_url": data_url(picture(c))} for c in colours]
        asked = {"type": "input_text", "text": "Is it red?"}
        return {
            "input": "x",
            "questions": [{**RED, "instructions": [one, asked]} for one in shown],
        }

    with running(limits=Limits(max_request_pixels=2000)) as server:
        assert server.call(DECISIONS, body("red", "blue", "red", "blue"))[0] == 200
        status, document, _ = server.call(DECISIONS, body("red", "blue", "green"))
        assert (status, document["error"]["code"]) == (400, "image_too_large")


def test_images_of_all_requests_are_held_within_a_limit() -> None:
    async def use() -> None:
        pool = Decoders(Limits(max_held_pixels=2000))
        held = [await pool.image(picture(c), "messages", c) for c in ("red", "blue")]
        with pytest.raises(RequestError, match="would have 2304 pixels; at most 2000") as error:
            await pool.image(picture("green"), "messages", "green")
        assert (error.value.status, error.value.code) == (503, "memory_full")
        assert error.value.retry_after is not None
        del error
        held.pop()
        gc.collect()
        # What is only cached makes room.
        assert (await pool.image(picture("green"), "messages", "green")).size == (32, 24)
        await pool.close()

    asyncio.run(use())


def test_images_that_are_copied_at_once_are_held_within_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied, go = list[Any](), threading.Event()
    real = images._shared_image

    def copying(*size: Any) -> Any:
        copied.append(size)
        assert go.wait(30)
        return real(*size)

    monkeypatch.setattr(images, "_shared_image", copying)

    async def use() -> None:
        pool = Decoders(Limits(max_held_pixels=1000), count=2)
        both = [asyncio.create_task(pool.image(picture(c), "messages", c)) for c in ("red", "blue")]
        while len(copied) < 2 and not any(one.done() for one in both):
            await asyncio.sleep(0.01)
        go.set()
        found = await asyncio.gather(*both, return_exceptions=True)
        (refused,) = (one for one in found if isinstance(one, RequestError))
        assert (refused.status, refused.code) == (503, "memory_full")
        del found, both
        gc.collect()
        # What was refused, and what is only cached, takes no room.
        assert (await pool.image(picture("green"), "messages", "green")).size == (32, 24)
        await pool.close()

    asyncio.run(use())


@pytest.fixture
def busy_reader() -> Iterator[None]:
    """The thread that reads large bodies is held up."""
    done = threading.Event()
    beside._READER.submit(done.wait)
    try:
        yield
    finally:
        done.set()


def test_what_is_small_does_not_wait_for_large_bodies(server: Running, busy_reader: None) -> None:
    image = {"type": "input_image", "image_url": data_url(picture("olive"))}
    body = {"input": [{"role": "user", "content": [image]}], "questions": [RED]}
    assert server.call(DECISIONS, body, timeout=20)[0] == 200
    form = b'--b\r\ncontent-disposition: form-data; name="request"\r\n\r\n%b\r\n--b--\r\n'
    form %= json.dumps({"input": "x", "questions": [RED]}).encode()
    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert server.call(DECISIONS, form, headers=kind, timeout=20)[0] == 200
    with upstream() as behind:
        asked = Settings("m", upstream=behind.url)
        backend = proxy_of(asked, Served("m", frozenset({"m"})), None, None)
        with running(server=Server(backend=backend)) as proxy:
            body = {"messages": with_image("ok", data_url(picture()))}
            assert proxy.call(CHAT, body, timeout=20)[0] == 200


class Marked:
    """Something that a request holds."""


def test_an_error_lets_go_of_its_request_at_once() -> None:
    seen: list[weakref.ref[Marked]] = []

    async def app(*_: Any) -> None:
        own = Marked()
        seen.append(weakref.ref(own))
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(RequestError("No."))
        await failed  # the error is the future's, and the future a local of this frame

    async def ask() -> None:
        async def send(message: Any) -> None:
            del message

        guard = Guard(
            app, limits=Limits(), keys=(), counters=Counters(), paths=frozenset({"/health"})
        )
        await guard({"type": "http", "headers": [], "path": "/health"}, None, send)  # type: ignore[arg-type]

    gc.collect()
    gc.disable()
    try:
        asyncio.run(ask())
        (one,) = seen
        assert one() is None
    finally:
        gc.enable()


def test_a_waiting_engine_holds_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[Any]] = []

    class Looking(FakeModel):
        def observe(self, examples: Any, images: Any, request: Any, **more: Any) -> Any:
            seen.extend(weakref.ref(image) for own in images for image in own)
            return super().observe(examples, images, request, **more)

    monkeypatch.setattr(images, "_CACHED", 0)
    with running(Looking()) as server:
        body = {"messages": with_image("What?", data_url(picture()))}
        assert server.call(CHAT, body)[0] == 200
        wait_until(collected(lambda: seen[0]() is None))


def collected(holds: Callable[[], bool]) -> Callable[[], bool]:
    def after() -> bool:
        gc.collect()
        return holds()

    return after


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="other allocators give memory back by themselves, or never",
)
def test_memory_falls_again_after_large_requests() -> None:
    process = psutil.Process()
    texts = {"messages": [{"role": "user", "content": "x " * 10_000_000}]}
    body = json.dumps(texts).encode()
    with running() as server:
        assert server.works()
        before = process.memory_info().rss
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: server.call(CHAT, body)[0], range(16)))
        assert answers == [400] * 16
        # 320 MB passed through, at most 160 MB of it at once; less than two bodies stay.
        wait_until(lambda: process.memory_info().rss - before < 40e6)
