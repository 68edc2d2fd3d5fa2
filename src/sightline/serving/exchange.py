"""One request on its way: reading it, answering it, noticing that its client has left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from sightline.serving.beside import beside
from sightline.serving.bodies import ClientGoneError
from sightline.serving.errors import RequestError
from sightline.serving.guard import SALT, Receive, Scope, Send
from sightline.serving.shared import Server
from sightline.serving.strict_json import loads

_T = TypeVar("_T")
_LARGE_BODY = 1 << 16
"""Bytes from which a body is read beside the event loop, which it would hold up. Smaller ones do
not wait in line with those."""


def is_large(body: bytes) -> bool:
    """Whether a body is read beside the event loop."""
    return len(body) > _LARGE_BODY


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request on its way."""

    server: Server
    scope: Scope
    receive: Receive
    send: Send

    async def answer(
        self,
        body: bytes,
        kind: str = "application/json",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Sends a whole answer."""
        await self.start(
            status, {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
        )
        shown = b"" if self.scope["method"] == "HEAD" else body
        await self.send({"type": "http.response.body", "body": shown})

    async def answer_json(self, value: Mapping[str, Any], **settings: Any) -> None:
        """Sends a JSON document."""
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        await self.answer(text.encode("utf-8", "replace"), **settings)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Sends the headers."""
        encoded = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})

    @property
    def salt(self) -> str:
        """Keeps apart what is kept of requests with different keys."""
        return str(self.scope.get(SALT, ""))

    def header(self, name: bytes) -> str:
        """A header's value, or nothing."""
        return next((v.decode("latin-1") for n, v in self.scope["headers"] if n == name), "")

    async def document(self, data: bytes) -> dict[str, Any]:
        """The body as a JSON object; a large one is read beside the event loop.

        Raises:
            RequestError: It is none.
        """
        kind = self.header(b"content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Pages of other origins can send some types, and none, without asking first.
            named = f"content type is {kind[:60]!r}" if kind else "request names no content type"
            raise RequestError(
                f"The {named}; application/json is required. Set it.",
                status=415,
                code="unsupported_content_type",
            )
        return await beside(loads, data) if is_large(data) else loads(data)

    def body(self) -> AbstractAsyncContextManager[bytes]:
        """Reads the body, held while the block lasts."""
        return self.server.bodies.read(self.receive, self.scope["headers"])

    async def while_connected(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Awaits work that ends when the client leaves.

        Raises:
            ClientGoneError: It left.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientGoneError
            return task.result()
        finally:
            for one in (task, gone):
                one.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
