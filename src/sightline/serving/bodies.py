"""Reading request bodies: bounded one by one and all together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits
from sightline.serving.memory import Memory


class ClientGoneError(Exception):
    """The client left; there is nobody to answer."""


class Bodies:
    """Counts the bytes of all bodies that are being read or answered."""

    def __init__(self, limits: Limits, memory: Memory) -> None:
        self._limits, self._memory = limits, memory
        self.held = 0

    @asynccontextmanager
    async def read(
        self,
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        headers: Sequence[tuple[bytes, bytes]],
    ) -> AsyncIterator[bytes]:
        """Reads a body, which counts as held until the block ends.

        Raises:
            RequestError: It is too large (413) or too slow (408), or all are too large (503).
            ClientGoneError: The client left.
        """
        declared = next((value for name, value in headers if name == b"content-length"), b"")
        if declared.isdigit() and int(declared) > self._limits.max_body:
            raise self._too_large()
        counted = 0
        parts: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self._limits.body_s):
                    async for part in _parts(receive):
                        counted += len(part)
                        self.held += len(part)
                        if counted > self._limits.max_body:
                            raise self._too_large()
                        if self.held > self._limits.max_held:
                            raise _all_too_large(self.held)
                        parts.append(part)
            except TimeoutError:
                raise self._too_slow() from None
            whole = [b"".join(parts)]
            parts.clear()  # else it is held twice
            yield whole.pop()
        finally:
            self.held -= counted
            self._memory.used(counted)

    def _too_large(self) -> RequestError:
        return RequestError(
            f"The body has more than {self._limits.max_body} bytes; that is the most that is "
            "read. Send less.",
            status=413,
            code="body_too_large",
            closes=True,
        )

    def _too_slow(self) -> RequestError:
        return RequestError(
            f"The body did not arrive within {self._limits.body_s:g} s; that is the longest that "
            "is waited. Send it faster.",
            status=408,
            code="slow_body",
            closes=True,
        )


async def _parts(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _all_too_large(held: int) -> RequestError:
    return RequestError(
        f"All requests together hold {held} bytes; the server reads no more at once. Try again.",
        status=503,
        code="memory_full",
        retry_after=1,
        closes=True,
    )
