"""HTTP/1.1 to one server over kept connections, one request at a time on each.

What a general client does beyond that costs about a millisecond of CPU time a request, which is
most of what standing before another server costs. No proxy from the environment is used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import h11

_PENDING = 1 << 18
"""Bytes that wait to be read before the sender is told to pause."""


class UnreachableError(Exception):
    """No connection: nothing of the request was sent."""


class BrokenError(Exception):
    """The connection broke, or what came back is no HTTP."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of an answer, and its body as it comes.

    Attributes:
        status: HTTP status.
        headers: By name in lower case; of several the last.
        parts: The body.
    """

    status: int
    headers: Mapping[str, str]
    parts: AsyncGenerator[bytes, None]


class Connections:
    """Connections to one server, opened when they are needed.

    Args:
        url: Scheme, host and port; its path is not used.
        most: Connections at once; further requests wait.
        connect_s: Seconds that opening one may take.
        kept_s: Seconds that an idle one is kept.
    """

    def __init__(self, url: str, *, most: int, connect_s: float, kept_s: float) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._named = parts.netloc
        self._tls = ssl.create_default_context() if secure else None
        self._free = asyncio.Semaphore(most)
        self._idle: list[tuple[_Link, float]] = []
        self._connect_s, self._kept_s = connect_s, kept_s

    @asynccontextmanager
    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[Reply]:
        """Sends a request; its connection is kept if the answer is read to its end.

        Raises:
            UnreachableError: Nothing was sent.
            BrokenError: The connection broke, or the answer is no HTTP.
        """
        async with self._free:
            link = self._kept() or await self._opened()
            try:
                yield await link.ask(path, {"host": self._named, **headers}, body)
            finally:
                if link.again():
                    self._idle.append((link, link.loop.time() + self._kept_s))
                else:
                    link.end()

    async def close(self) -> None:
        """Closes the idle connections."""
        self._end_idle()

    def _kept(self) -> _Link | None:
        """The connection used last, if it is still good; those idle for longer end with it."""
        while self._idle:
            link, until = self._idle.pop()
            if link.loop.time() >= until:
                self._idle.append((link, until))
                self._end_idle()
            elif link.is_lost:
                link.end()
            else:
                return link
        return None

    def _end_idle(self) -> None:
        while self._idle:
            self._idle.pop()[0].end()

    async def _opened(self) -> _Link:
        try:
            return await self._connected()
        except UnreachableError:  # nothing was sent: trying again cannot ask twice
            return await self._connected()

    async def _connected(self) -> _Link:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                _, link = await loop.create_connection(
                    lambda: _Link(loop), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError):
            raise UnreachableError from None
        return link


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_lost = False
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 16)
        self._transport: Any = None
        self._arrived: asyncio.Future[None] | None = None
        self._pending = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._pending += len(data)
        if self._pending > _PENDING:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if exc is None:
            with suppress(RuntimeError):  # the end was received before
                self._http.receive_data(b"")
        self._wake()

    async def ask(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Sends a request and reads the head of its answer."""
        fields = [*headers.items(), ("content-length", str(len(body)))]
        request = h11.Request(method="POST", target=path, headers=fields)
        data = (self._http.send(request) or b"") + (self._http.send(h11.Data(body)) or b"")
        self._transport.write(data + (self._http.send(h11.EndOfMessage()) or b""))
        head = await self._event()
        while isinstance(head, h11.InformationalResponse):
            head = await self._event()
        if not isinstance(head, h11.Response):
            raise BrokenError
        found = {name.decode("latin-1"): v.decode("latin-1") for name, v in head.headers}
        return Reply(head.status_code, found, self._parts())

    def again(self) -> bool:
        """Whether another request can follow; if so, the connection is ready for it."""
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if self.is_lost or not done or self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        return True

    def end(self) -> None:
        """Cuts the connection."""
        self._transport.abort()

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise BrokenError
            yield bytes(event.data)

    async def _event(self) -> Any:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                raise BrokenError from None
            if event is not h11.NEED_DATA:
                return event
            if self.is_lost:
                raise BrokenError
            if self._pending > _PENDING:
                self._transport.resume_reading()
            self._pending = 0
            self._arrived = self.loop.create_future()
            await self._arrived

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


async def read_whole(reply: Reply, most: int) -> bytes | None:
    """The whole body; None where it has more bytes than that."""
    parts, size = [], 0
    async with aclosing(reply.parts):
        async for part in reply.parts:
            parts.append(part)
            size += len(part)
            if size > most:
                return None
    return b"".join(parts)
