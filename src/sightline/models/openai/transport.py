"""Sending requests: bounded, repeated where that changes nothing, over several servers.

A request is sent again after 429, 500, 502, 503, 504, a timeout or a broken connection. Once a
byte of the answer has come, only a repeatable request is: greedy, or sampled from a seed that the
server honours. With several servers, one that lets a repeatable request wait far longer than
another needs loses it to an idle one; whichever answers first is taken.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sightline.core.errors import EndpointError, MissingExtraError, ModelError, SightlineError
from sightline.core.printing import printable
from sightline.models.openai.servers import Pool, Server, backoff
from sightline.models.openai.settings import EndpointSettings
from sightline.models.openai.waiting import retry_after
from sightline.models.openai.wire import MalformedReplyError, Reply, read_object, read_reply

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

_CHAT = "chat/completions"
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_DOWN = frozenset({429, 502, 503, 504})
_BUSY = frozenset({429, 503})
_LONGEST_WAIT_S = 60.0
_SHOWN = 160


class NotServedError(EndpointError):
    """A request beside chat completions that a server refuses, or answers with something else."""


class FailedTryError(Exception):
    """One try that gave no reply.

    Attributes:
        reason: In words.
        server: Who was asked.
        begun: Whether bytes of an answer had come.
        malformed: Whether a whole answer came that is not of the form asked for.
        down: Whether it says something of the server rather than of the request.
        busy: Whether the server said that it has no room now.
        wait_s: How long it asked to be left alone, or None.
    """

    def __init__(
        self,
        reason: str,
        server: Server,
        *,
        begun: bool = False,
        malformed: bool = False,
        down: bool = False,
        busy: bool = False,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.server = server
        self.begun = begun
        self.malformed = malformed
        self.down = down
        self.busy = busy
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class _Message(Generic[T]):
    """A request, and how a reply to it is read; sent twice, a repeatable one changes nothing."""

    path: str
    body: bytes
    read: Callable[[bytes], T]
    repeatable: bool

    @property
    def named(self) -> str:
        return "this request" if self.path == _CHAT else self.path


class Transport:
    """Sends chat completions, and what is asked beside them, to the servers of one model.

    Args:
        settings: Where they are, and how hard they may be asked.
        key: Their key, in place of the one that the settings name.
    """

    def __init__(self, settings: EndpointSettings, key: str | None = None) -> None:
        import_client()
        self._settings = settings
        self._key = settings.api_key() if key is None else key
        self.pool = Pool(settings.base_urls, time.monotonic)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._client: httpx2.AsyncClient | None = None

    async def complete(
        self, payload: Mapping[str, Any], *, repeatable: bool, attempts: int | None = None
    ) -> Reply:
        """Sends a chat completion until it is answered.

        Args:
            payload: The request.
            repeatable: Whether sending it twice gives the same answer.
            attempts: Tries; None = those of the settings.

        Raises:
            ModelError: The server refuses this request, or fails on it while it answers others.
            EndpointError: No server answers, or none may be asked.
        """
        body = json.dumps(payload, allow_nan=False).encode()
        return await self._send(_Message(_CHAT, body, read_reply, repeatable), attempts)

    async def get(self, server: Server, path: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Reads a JSON object from one server, once; its headers beside it.

        Args:
            server: Who is asked.
            path: Behind the base URL; one with a leading slash replaces the base URL's path.

        Raises:
            FailedTryError: It did not give one.
        """
        body, headers = await self._exchange(server, "GET", path, None)
        try:
            return read_object(body), headers
        except MalformedReplyError as error:
            raise FailedTryError(str(error), server, begun=True, malformed=True) from None

    async def post(
        self,
        path: str,
        payload: Mapping[str, Any],
        read: Callable[[bytes], T],
        *,
        attempts: int | None = None,
    ) -> T:
        """Sends a request that changes nothing until it is answered.

        Failures, waits and pauses are those of chat completions.

        Args:
            path: Behind the base URL; one with a leading slash replaces the base URL's path.
            payload: The request.
            read: Gives what a reply says; raises MalformedReplyError where it says something else.
            attempts: Tries; None = those of the settings.

        Raises:
            NotServedError: The server refuses it, or every reply is something else.
            ModelError: The server fails on it while it answers others.
            EndpointError: No server answers.
        """
        body = json.dumps(payload, allow_nan=False).encode()
        return await self._send(_Message(path, body, read, True), attempts)

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _send(self, message: _Message[T], attempts: int | None) -> T:
        limit = self._settings.attempts if attempts is None else attempts
        failed: list[FailedTryError] = []
        while len(failed) < limit:
            try:
                return await self._answered(message, {f.server for f in failed})
            except FailedTryError as failure:
                failed.append(failure)
                if failure.begun and not message.repeatable:
                    break
                if not failure.down and len(failed) < limit:  # else the server is paused
                    await asyncio.sleep(backoff(len(failed), self._settings.backoff_s))
        raise await self._given_up(failed, message)

    async def _answered(self, message: _Message[T], avoid: set[Server]) -> T:
        async with self._slots:
            while (server := self.pool.choose(avoid)) is None:
                await asyncio.sleep(min(self.pool.pause_s(), _LONGEST_WAIT_S))
            tries = {asyncio.create_task(self._try(server, message))}
            try:
                return await self._first(tries, server, message)
            finally:
                for task in tries:
                    task.cancel()
                await asyncio.gather(*tries, return_exceptions=True)

    async def _first(self, tries: set[asyncio.Task[T]], server: Server, message: _Message[T]) -> T:
        """The first reply to come; after a while an idle server is asked, too."""
        patience = self.pool.patience_s(server) if message.repeatable else None
        done, _ = await asyncio.wait(tries, timeout=patience)
        if not done and not self._slots.locked():
            other = self.pool.choose({server})
            if other is not None and other is not server:
                async with self._slots:
                    tries.add(asyncio.create_task(self._try(other, message)))
                    return await _first_of(tries)
        return await _first_of(tries)

    async def _try(self, server: Server, message: _Message[T]) -> T:
        start = time.monotonic()
        server.started.append(start)
        answered = False
        try:
            raw, _ = await self._exchange(server, "POST", message.path, message.body)
            try:
                reply = message.read(raw)
            except MalformedReplyError as error:
                raise FailedTryError(str(error), server, begun=True, malformed=True) from None
            answered = True
            return reply
        except FailedTryError as failure:
            if failure.down:
                server.strike(time.monotonic(), self._settings.backoff_s, failure.wait_s)
            raise
        finally:
            timed = message.path == _CHAT
            server.finish(start, time.monotonic(), answered=answered, timed=timed)

    async def _exchange(
        self, server: Server, method: str, path: str, body: bytes | None
    ) -> tuple[bytes, Mapping[str, str]]:
        import httpx2

        begun = False
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                request = self._connected().stream(
                    method, _url(server.url, path), content=body, headers=self._headers(body)
                )
                async with request as response:
                    begun = response.status_code == 200
                    raw = await self._read(response, server)
                    if begun:
                        return raw, response.headers
        except TimeoutError:
            limit = f"no whole answer within {self._settings.timeout_s:g} s"
            raise FailedTryError(limit, server, begun=begun, down=not begun) from None
        except httpx2.RequestError as error:
            raise FailedTryError(_broken(error), server, begun=begun, down=not begun) from None
        raise self._refusal(response, raw, server, path)

    async def _read(self, response: httpx2.Response, server: Server) -> bytes:
        limit = self._settings.max_reply_bytes
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise ModelError(
                    f"{server.url} sent a reply of more than {limit} bytes; shorter ones are read. "
                    "Ask for fewer tokens, samples or log-probabilities."
                )
        return b"".join(parts)

    def _refusal(
        self, response: httpx2.Response, raw: bytes, server: Server, path: str
    ) -> Exception:
        """What a reply without an answer means for the request."""
        status = response.status_code
        said = self._said(raw)
        if status in _AGAIN:
            return FailedTryError(
                f"status {status}{said}",
                server,
                down=status in _DOWN,
                busy=status in _BUSY,
                wait_s=retry_after(response.headers.get("retry-after"), _LONGEST_WAIT_S),
            )
        if path != _CHAT:
            return _not_served(server, path, f"status {status}{said}")
        if status in (401, 403):
            return EndpointError(
                f"{server.url} refuses the key (status {status}){said}; a key that may use this "
                "model is required. Name the variable that holds it with --api-key-env."
            )
        if status == 404 or 300 <= status < 400:
            return EndpointError(
                f"{server.url} has no chat completions of this model (status {status}){said}; the "
                "address up to the version (…/v1) and a model it serves are required. Correct "
                "--base-url or the name after openai:."
            )
        return ModelError(
            f"{server.url} refuses the request (status {status}){said}; one that it takes is "
            "required. Leave out what it names."
        )

    def _said(self, raw: bytes) -> str:
        """The server's own message, in one printable line, the key blotted out."""
        try:
            error = read_object(raw).get("error")
        except MalformedReplyError:
            return ""
        message = error.get("message") if isinstance(error, dict) else error
        if not isinstance(message, str) or not message.strip():
            return ""
        if self._key is not None:
            message = message.replace(self._key, "***")
        return f": {printable(' '.join(message.split()))[:_SHOWN]}"

    async def _given_up(self, failed: list[FailedTryError], message: _Message[T]) -> SightlineError:
        """Whose fault it was, told by whether a server still answers anything."""
        last = failed[-1]
        if message.path != _CHAT and all(failure.malformed for failure in failed):
            return _not_served(last.server, message.path, last.reason)
        tries = f"{len(failed)} {'try' if len(failed) == 1 else 'tries'}"
        if not last.busy:
            for server in dict.fromkeys([last.server, *self.pool.servers]):
                try:
                    await self.get(server, "models")
                except (FailedTryError, SightlineError):
                    continue
                return ModelError(
                    f"{last.server.url} gave no answer to {message.named} ({last.reason}) in "
                    f"{tries}; one whole reply is required. Look at the server's log."
                )
        return EndpointError(
            f"{', '.join(server.url for server in self.pool.servers)} gave no answer "
            f"({last.reason}) in {tries}; a server that answers is required. Look at the server."
        )

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            import httpx2

            room = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
            self._client = httpx2.AsyncClient(
                timeout=self._settings.timeout_s, limits=room, follow_redirects=False
            )
        return self._client

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        return headers


def import_client() -> None:
    """Raises unless the HTTP client is installed.

    Raises:
        MissingExtraError: It is not.
    """
    try:
        import httpx2  # noqa: F401
    except ImportError:
        raise MissingExtraError("httpx2", "remote", "asking an endpoint") from None


async def _first_of(tries: set[asyncio.Task[T]]) -> T:
    """The first result; an exception only where every try has raised one."""
    pending = set(tries)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None or not pending:
                return task.result()


def _not_served(server: Server, path: str, reason: str) -> NotServedError:
    return NotServedError(
        f"{server.url} does not serve {path} ({reason}); what it served when it was first asked "
        "is required. Look at the server."
    )


def _url(base: str, path: str) -> str:
    if not path.startswith("/"):
        return f"{base}/{path}"
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}{path}"


def _broken(error: Exception) -> str:
    """A connection's failure in words; the library's own can hold addresses and internals."""
    import httpx2

    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "no connection"
    if isinstance(error, httpx2.TimeoutException):
        return "the connection timed out"
    if isinstance(error, httpx2.DecodingError):
        return "a reply that cannot be unpacked"
    return "the connection broke"
