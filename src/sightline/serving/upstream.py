"""Talking to an OpenAI-compatible server: what is sent, and what its failures mean to a client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from sightline.models.openai.wire import MalformedReplyError, read_object
from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits

_RETRY_AFTER = 5
_KEPT_S = 2.0
_PASSED_ON = frozenset({400, 404, 413, 422})


class Connection:
    """A pool of connections to one server.

    Args:
        base_url: Its address up to the version, such as ``http://127.0.0.1:8000/v1``.
        key: Its bearer key, or None.
        limits: Limits on time and on the size of answers.
    """

    def __init__(self, base_url: str, key: str | None, limits: Limits) -> None:
        self._limits = limits
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._client = httpx2.AsyncClient(
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            timeout=httpx2.Timeout(limits.request_s, connect=5.0),
            # Servers close idle connections after about five seconds: ours are gone before, since
            # a request that meets a closing connection may have been read, and is not sent twice.
            limits=httpx2.Limits(max_connections=2 * limits.concurrency, keepalive_expiry=_KEPT_S),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def ask(self, body: Mapping[str, Any]) -> bytes:
        """Sends a request and returns the answer's bytes.

        Raises:
            RequestError: The upstream refused, failed, is gone or says too much.
        """
        async with self._sent(body) as response:
            return await self._whole(response)

    async def events(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Sends a streamed request and yields the events' documents.

        Raises:
            RequestError: The upstream refused, failed, or broke off before its end.
        """
        async with self._sent(body) as response:
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise _garbage(f"it answered a streamed request with {kind[:40]!r}")
            ended = False
            async for line in self._lines(response):
                if line.startswith(b"data:"):
                    data = line.removeprefix(b"data:").strip()
                    ended = data == b"[DONE]"
                    if ended:
                        break
                    yield _document(data)
            if not ended:
                raise RequestError(
                    "The upstream broke off in the middle of its answer. Ask again.",
                    status=502,
                    code="upstream_died",
                )

    @asynccontextmanager
    async def _sent(self, body: Mapping[str, Any]) -> AsyncIterator[httpx2.Response]:
        try:
            async with asyncio.timeout(self._limits.request_s):
                response = await self._connected(body)
                try:
                    if response.status_code != 200:
                        raise _failure(response, await self._whole(response))
                    yield response
                finally:
                    await response.aclose()
        except (TimeoutError, httpx2.TimeoutException):
            raise RequestError(
                f"The upstream did not answer within {self._limits.request_s:g} s. Try again "
                "later, or ask for fewer tokens.",
                status=504,
                code="upstream_timeout",
            ) from None
        except httpx2.HTTPError:
            raise RequestError(
                "The upstream cannot be reached, or closed the connection before it had answered. "
                "Try again.",
                status=502,
                code="upstream_died",
                retry_after=_RETRY_AFTER,
            ) from None

    async def _connected(self, body: Mapping[str, Any]) -> httpx2.Response:
        data = json.dumps(body, ensure_ascii=False).encode()
        headers = {"content-type": "application/json"}
        request = self._client.build_request("POST", self._url, content=data, headers=headers)
        try:
            return await self._client.send(request, stream=True)
        except httpx2.ConnectError:  # nothing was sent: trying again cannot ask twice
            return await self._client.send(request, stream=True)

    async def _whole(self, response: httpx2.Response) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._limits.max_answer:
                raise _garbage(f"it answered more than {self._limits.max_answer} bytes")
        return b"".join(parts)

    async def _lines(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        rest, size = b"", 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > self._limits.max_answer:
                raise _garbage(f"it answered more than {self._limits.max_answer} bytes")
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line.rstrip(b"\r")
        if rest:
            yield rest


def garbled(error: MalformedReplyError) -> RequestError:
    """The answer to a client where the upstream's makes no sense."""
    return _garbage(str(error.args[0]))


def _document(data: bytes) -> dict[str, Any]:
    try:
        return read_object(data)
    except MalformedReplyError as error:
        raise garbled(error) from None


def _failure(response: httpx2.Response, body: bytes) -> RequestError:
    status = response.status_code
    if status in _PASSED_ON:
        return RequestError(
            f"The upstream refuses the request: {_said(body)}",
            status=status,
            code="upstream_refused",
        )
    if status in (429, 503):
        wait = response.headers.get("retry-after", "")
        return RequestError(
            "The upstream is busy. Try again after the number of seconds in Retry-After.",
            status=503,
            code="upstream_busy",
            retry_after=min(int(wait), 3600) if wait.isdigit() else _RETRY_AFTER,
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


def _garbage(what: str) -> RequestError:
    return RequestError(
        f"The upstream's answer makes no sense: {what}. Try again.",
        status=502,
        code="upstream_garbage",
    )
