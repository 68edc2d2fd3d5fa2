"""The HTTP protocol: what is written in one turn of the event loop is sent in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from sightline.serving.limits import Limits
from sightline.serving.protocol import protocol_class

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Wire(asyncio.Transport):
    """Records what is sent, call by call, and whether it was closed behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = self.aborted = False
        self.untaken = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written behind the end"
        if data:
            self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.untaken


def asked(
    answer: Callable[[Send], Awaitable[None]],
    *,
    keeps: bool = True,
    wire: Wire | None = None,
    asks_no_more: bool = False,
    fields: bytes = b"",
    limits: Limits | None = None,
) -> Wire:
    """What leaves where a request is answered by ``answer``, while its client stays."""
    wire = wire or Wire()
    limits = limits or Limits()

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await answer(send)

    async def one() -> None:
        kind = protocol_class(limits)
        config = uvicorn.Config(app, http=kind, lifespan="off", log_config=None)
        config.load()
        protocol = kind(config, ServerState(), {})
        protocol.connection_made(wire)
        ends = fields + (b"" if keeps else b"connection: close\r\n")
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: localhost\r\n" + ends + b"\r\n")
        if asks_no_more:
            await asyncio.sleep(0)  # the end is read in the turn in which the answer is written
            protocol.eof_received()
            wire.close()
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(2 * limits.write_s if wire.untaken else 0)

    asyncio.run(one())
    return wire


async def _starts(send: Send, length: int) -> None:
    headers = [(b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _hello(send: Send) -> None:
    await _starts(send, 5)
    await send({"type": "http.response.body", "body": b"hello"})


def test_head_and_body_leave_in_one_call() -> None:
    wire = asked(_hello)
    (whole,) = wire.sent
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b"\r\n\r\nhello")
    assert not wire.closed


def test_a_connection_is_closed_behind_its_answer() -> None:
    wire = asked(_hello, keeps=False)
    (whole,) = wire.sent
    assert whole.endswith(b"\r\n\r\nhello")
    assert wire.closed
    assert not wire.aborted


def test_what_is_sent_in_another_turn_does_not_wait() -> None:
    async def slowly(send: Send) -> None:
        await _starts(send, 4)
        for part in (b"one", b"2"):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": part, "more_body": part == b"one"})

    head, *parts = asked(slowly).sent
    assert head.endswith(b"\r\n\r\n")
    assert parts == [b"one", b"2"]


def test_much_is_sent_before_the_turn_ends_and_in_order() -> None:
    pieces = [bytes([i]) * 10_000 for i in range(1, 41)]

    async def at_once(send: Send) -> None:
        await _starts(send, 400_000)
        for piece in pieces:
            more = piece is not pieces[-1]
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    sent = asked(at_once).sent
    assert b"".join(sent).endswith(b"".join(pieces))
    assert 4 < len(sent) < 12
    assert max(map(len, sent)) <= (1 << 16) + 10_000


def test_nothing_is_sent_to_a_client_that_was_cut_off() -> None:
    wire = Wire()

    async def late(send: Send) -> None:
        await _starts(send, 5)
        wire.abort()
        await send({"type": "http.response.body", "body": b"hello"})

    asked(late, wire=wire)
    assert wire.sent == []
    assert wire.aborted


def test_a_client_that_asks_no_more_has_what_was_answered() -> None:
    wire = asked(_hello, asks_no_more=True)
    (whole,) = wire.sent
    assert whole.endswith(b"\r\n\r\nhello")
    assert not wire.aborted


def test_a_closed_connection_ends_where_its_client_takes_nothing() -> None:
    wire = Wire()
    wire.untaken = 1000
    asked(_hello, keeps=False, wire=wire, limits=Limits(write_s=0.05))
    assert wire.aborted


@pytest.mark.parametrize("kind", [b"h2c", b"websocket"])
def test_a_client_that_offers_another_protocol_is_answered_in_this_one(
    kind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    offer = b"connection: upgrade\r\nupgrade: %b\r\n" % kind
    (whole,) = asked(_hello, fields=offer).sent
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert caplog.messages == []
