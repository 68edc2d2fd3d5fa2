"""Talking to an OpenAI-compatible server: what is sent, and what its failures mean to a client."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from sightline.models.openai.waiting import retry_after
from sightline.models.openai.wire import MalformedReplyError, read_object
from sightline.serving.beside import beside
from sightline.serving.connections import (
    BrokenError,
    Connections,
    Reply,
    UnreachableError,
    read_whole,
)
from sightline.serving.errors import RequestError
from sightline.serving.image_files import LARGE
from sightline.serving.limits import Limits

_RETRY_AFTER = 5
_LONGEST_WAIT_S = 3600.0
_KEPT_S = 2.0
_CONNECT_S = 5.0
_PASSED_ON = frozenset({400, 404, 413, 422})


class Connection:
    """A pool of connections to one server.

    Args:
        base_url: Its address up to the version, such as ``http://127.0.0.1:8000/v1``.
        key: Its bearer key, or None.
        limits: Limits on time and on the size of answers.

    Attributes:
        gone: Called when the server cannot be reached.
    """

    def __init__(self, base_url: str, key: str | None, limits: Limits) -> None:
        self.gone: Callable[[], None] = lambda: None
        self._limits = limits
        self._path = f"{urlsplit(base_url).path.rstrip('/')}/chat/completions"
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        # Servers close idle connections after about five seconds: ours are gone before, since a
        # request that meets a closing connection may have been read, and is not sent twice.
        self._connections = Connections(
            base_url, most=2 * limits.concurrency, connect_s=_CONNECT_S, kept_s=_KEPT_S
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._connections.close()

    async def ask(self, body: Mapping[str, Any], deadline: float = math.inf) -> bytes:
        """Sends a request and returns the answer's bytes.

        Args:
            body: The request.
            deadline: Of `time.monotonic`, where less is left than a request may take.

        Raises:
            RequestError: The upstream refused, failed, is gone or says too much.
        """
        async with self._sent(body, deadline) as reply:
            return await self._whole(reply)

    async def events(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Sends a streamed request and yields the events' documents.

        Raises:
            RequestError: The upstream refused, failed, or broke off before its end.
        """
        async with self._sent(body) as reply:
            kind = reply.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise _garbage(f"it answered a streamed request with {kind[:40]!r}")
            async for line in self._lines(reply):
                if line.startswith(b"data:"):
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    yield _document(data)
            raise _died("The upstream broke off in the middle of its answer. Ask again.")

    @asynccontextmanager
    async def _sent(
        self, body: Mapping[str, Any], deadline: float = math.inf
    ) -> AsyncIterator[Reply]:
        data = await beside(_encoded, body) if _is_large(body) else _encoded(body)
        seconds = min(self._limits.request_s, deadline - time.monotonic())
        try:
            async with (
                asyncio.timeout(seconds),
                self._connections.post(self._path, self._headers, data) as reply,
            ):
                if reply.status != 200:
                    raise _failure(reply, await self._whole(reply))
                if reply.headers.get("content-encoding", "identity") != "identity":
                    raise _garbage("it is compressed, which was not asked for")
                yield reply
        except TimeoutError:
            raise RequestError(
                f"The upstream did not answer within {self._limits.request_s:g} s. Try again "
                "later, or ask for fewer tokens.",
                status=504,
                code="upstream_timeout",
            ) from None
        except (UnreachableError, BrokenError) as error:
            if isinstance(error, UnreachableError):
                self.gone()
            raise _died(
                "The upstream cannot be reached, or closed the connection before it had answered. "
                "Try again."
            ) from None

    async def _whole(self, reply: Reply) -> bytes:
        found = await read_whole(reply, self._limits.max_answer)
        if found is None:
            raise self._too_long()
        return found

    async def _lines(self, reply: Reply) -> AsyncIterator[bytes]:
        rest, size = b"", 0
        async for part in reply.parts:
            size += len(part)
            if size > self._limits.max_answer:
                raise self._too_long()
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line.rstrip(b"\r")
        if rest:
            yield rest

    def _too_long(self) -> RequestError:
        return _garbage(f"it answered more than {self._limits.max_answer} bytes")


def garbled(error: MalformedReplyError) -> RequestError:
    """The answer to a client where the upstream's makes no sense."""
    return _garbage(str(error.args[0]))


def _document(data: bytes) -> dict[str, Any]:
    try:
        return read_object(data)
    except MalformedReplyError as error:
        raise garbled(error) from None


def _failure(reply: Reply, body: bytes) -> RequestError:
    status = reply.status
    if status in _PASSED_ON:
        return RequestError(
            f"The upstream refuses the request: {_said(body)}",
            status=status,
            code="upstream_refused",
        )
    if status in (429, 503):
        wait = retry_after(reply.headers.get("retry-after"), _LONGEST_WAIT_S)
        return RequestError(
            "The upstream is busy. Try again after the number of seconds in Retry-After.",
            status=503,
            code="upstream_busy",
            retry_after=_RETRY_AFTER if wait is None else math.ceil(wait),
        )
    if status in (408, 504):
        return RequestError(
            "The upstream did not answer in time. Try again later.",
            status=504,
            code="upstream_timeout",
        )
    if status in (401, 403):
        return RequestError(
            "The upstream does not accept this server's key; its operator has to set it. "
            "Tell them.",
            status=502,
            code="upstream_key",
        )
    return RequestError(
        f"The upstream failed with status {status}. Try again.",
        status=502,
        code="upstream_failed",
    )


def _said(body: bytes) -> str:
    """The upstream's own words, if it speaks OpenAI's language."""
    try:
        error = read_object(body).get("error")
    except MalformedReplyError:
        error = None
    message = error.get("message") if isinstance(error, dict) else None
    text = message if isinstance(message, str) else "it says nothing that can be read."
    return " ".join(text.encode("utf-8", "replace").decode().split())[:500]


def _died(message: str) -> RequestError:
    return RequestError(message, status=502, code="upstream_died", retry_after=_RETRY_AFTER)


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _is_large(body: Mapping[str, Any]) -> bool:
    """Whether a request holds large images, whose writing would hold up the event loop."""
    contents = (message.get("content") for message in body["messages"])
    parts = (part for content in contents if isinstance(content, list) for part in content)
    urls = (part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    return sum(map(len, urls)) > LARGE


def _garbage(what: str) -> RequestError:
    return RequestError(
        f"The upstream's answer makes no sense: {what}. Try again.",
        status=502,
        code="upstream_garbage",
    )
