"""uvicorn's HTTP protocol with the deadlines it lacks: for headers, bodies and slow readers.

What is written in one turn of the event loop is sent in one call: head and body of an answer leave
together. Sending is the dearest thing that a proxy does.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits

_GATHERED = 1 << 16
"""Bytes that are kept at most for the end of a turn."""


def protocol_class(limits: Limits) -> type[H11Protocol]:
    """Returns the protocol with these limits, as uvicorn's configuration takes it."""

    class DeadlineProtocol(H11Protocol):
        """Cuts connections whose client is slow, whether it sends or reads.

        uvicorn makes one per connection and calls nothing with settings of ours; a subclass is
        the only way in.
        """

        _timer: asyncio.TimerHandle | None = None
        _phase: str = ""
        _writing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            gathering = _Gathering(transport, self.loop, limits.write_s)
            super().connection_made(cast(asyncio.Transport, gathering))
            self._arm("headers", limits.header_s)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def eof_received(self) -> None:
            """Sends what was answered to a client that says it asks no more (``nc -N``)."""
            self.transport.close()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            _stop(self._timer)
            _stop(self._writing)
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._writing = self.loop.call_later(limits.write_s, self.transport.abort)

        def resume_writing(self) -> None:
            _stop(self._writing)
            super().resume_writing()

        def _should_upgrade(self) -> bool:
            # Clients that would rather speak HTTP/2 offer it with every first request; uvicorn
            # would log each, with advice on what to install.
            return False

        def send_400_response(self, msg: str) -> None:
            found = _refusal(sys.exception(), limits)
            body, reason = found.encoded(), HTTPStatus(found.status).phrase.encode()
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b"
                % (found.status, reason, len(body), body)
            )
            self.transport.close()

        def _watch(self) -> None:
            """Sets the deadline of what the client is sending, or none."""
            state = self.conn.their_state
            if state is h11.SEND_BODY:
                self._arm("body", limits.body_s)
            elif state is h11.IDLE and self.conn.trailing_data[0]:
                self._arm("headers", limits.header_s)
            else:
                self._phase = ""
                _stop(self._timer)

        def _arm(self, phase: str, seconds: float) -> None:
            if self._phase != phase:
                _stop(self._timer)
                self._phase = phase
                self._timer = self.loop.call_later(seconds, self._cut)

        def _cut(self) -> None:
            if not self.transport.is_closing():
                self.transport.abort()

    return DeadlineProtocol


class _Gathering:
    """A transport that sends what was written when the turn of the event loop ends.

    Args:
        transport: Sends it.
        loop: Its event loop.
        write_s: Seconds that a closed connection's client has for taking what is left.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, write_s: float
    ) -> None:
        self._transport, self._loop, self._write_s = transport, loop, write_s
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Keeps data until the turn ends, and sends at once where much is kept."""
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._size += len(data)
        if self._size > _GATHERED:  # the transport says when its reader is too slow
            self._send()

    def close(self) -> None:
        """Closes the connection behind what was written, and cuts it where that is not taken."""
        self._send()
        self._transport.close()
        if self._transport.get_write_buffer_size():  # too little to be told that it is slow
            self._loop.call_later(self._write_s, self._transport.abort)

    def _send(self) -> None:
        data, self._size = b"".join(self._held), 0
        self._held.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _refusal(error: BaseException | None, limits: Limits) -> RequestError:
    """What is wrong with bytes that h11 does not read."""
    if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
        return RequestError(
            f"The header has more than {2 * limits.max_header_bytes} bytes; at most "
            f"{limits.max_header_bytes} are read. Send fewer.",
            status=431,
            code="headers_too_large",
        )
    return RequestError(
        "The request is not HTTP; one request by the standard is required. Correct it.",
        code="invalid_http",
    )


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
