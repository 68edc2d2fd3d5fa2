"""The outermost layer: who may ask, how much, how long; and no error leaves without its shape."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from sightline.core.errors import SightlineError
from sightline.core.printing import printable
from sightline.serving.bodies import ClientGoneError
from sightline.serving.counters import Counters
from sightline.serving.errors import RequestError, let_go
from sightline.serving.limits import Limits

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/health", "/openapi.json"})
"""Paths that need no key: they show nothing of anybody's requests."""

SALT = "sightline.salt"
"""Entry of a request's scope that is the same for requests with the same key, and for them alone;
what is kept of requests is kept apart by it."""

CLIENT_GONE = 499
"""Counted where the client left before it had an answer."""

_LOG = logging.getLogger("sightline.serving")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Wraps the application.

    Args:
        app: What is guarded.
        limits: Limits on headers.
        keys: Bearer keys; none means that no key is asked for.
        counters: Counts every answer.
        paths: The application's paths; the others are counted together.
    """

    def __init__(
        self,
        app: App,
        *,
        limits: Limits,
        keys: Sequence[str],
        counters: Counters,
        paths: frozenset[str],
    ) -> None:
        self._app, self._limits, self._counters, self._paths = app, limits, counters, paths
        self._keys = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._salts = [secrets.token_hex(16) for _ in keys or [""]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, watched)
        except RequestError as error:
            let_go(error)
            if not status:
                await send_error(watched, error)
        except ClientGoneError as error:
            let_go(error)
            status = CLIENT_GONE
        except SightlineError as error:
            _LOG.error("%s", printable(str(error)))
            let_go(error)
            if not status:
                await send_error(watched, RequestError(_INTERNAL, status=500))
        except Exception as error:
            # What a request said may stand in it: one indented line each, nothing a terminal obeys.
            lines = map(printable, traceback.format_exc().splitlines())
            _LOG.error("internal error\n  %s", "\n  ".join(lines))
            let_go(error)
            if not status:
                await send_error(watched, RequestError(_INTERNAL, status=500))
            else:
                raise
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._counters.answered(path, status or CLIENT_GONE, time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        size = sum(len(name) + len(value) + 4 for name, value in headers)
        if size > self._limits.max_header_bytes or len(headers) > self._limits.max_headers:
            raise RequestError(
                f"{len(headers)} header fields of {size} bytes; at most {self._limits.max_headers} "
                f"of {self._limits.max_header_bytes} bytes are read. Send fewer.",
                status=431,
                code="headers_too_large",
                closes=True,
            )
        names = [name for name, _ in headers]
        if b"content-length" in names and b"transfer-encoding" in names:
            raise RequestError(
                "Content-Length and Transfer-Encoding together; one of them is required. "
                "Leave the other out.",
                code="ambiguous_length",
                closes=True,
            )
        if not self._keys:
            _require_own_page(headers)
        position = self._position(headers) if self._keys else 0
        if position is not None:
            scope[SALT] = self._salts[position]
        elif scope["path"] not in OPEN:
            raise RequestError(
                "No valid API key; 'Authorization: Bearer KEY' is required. Send the server's key.",
                status=401,
                code="invalid_api_key",
                closes=True,
            )

    def _position(self, headers: Sequence[tuple[bytes, bytes]]) -> int | None:
        """Which of the keys a request has, or None."""
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return None
        scheme, _, key = given[0].partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        # Every key is compared, so that the time tells nothing of which one is near.
        known = [hmac.compare_digest(digest, one) for one in self._keys]
        return known.index(True) if scheme.lower() == b"bearer" and any(known) else None


def _require_own_page(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuses what a page of another site asks of a server on this machine that has no keys.

    A browser would send such a form, and a name that was made to point here could read the answer.
    """
    found = {name: value.decode("latin-1") for name, value in headers if name in _ADDRESSED}
    host, origin = found.get(b"host"), found.get(b"origin")
    if host is not None and not _is_loopback(host):
        raise RequestError(
            f"Asked as {host[:60]!r}; a server without keys answers on this machine alone, as "
            "localhost or a loopback address. Start it with --api-key-env.",
            status=403,
            code="foreign_host",
            closes=True,
        )
    if origin is not None and origin.partition("://")[2].lower() != (host or "").lower():
        raise RequestError(
            f"Asked by a page of {origin[:60]!r}; a server without keys answers its own page "
            "alone. Start it with --api-key-env.",
            status=403,
            code="foreign_origin",
            closes=True,
        )


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine, whatever the port."""
    name = host.lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


_ADDRESSED = (b"host", b"origin")
_INTERNAL = "The server failed on this request; its log says why. Try again."


async def send_error(send: Send, error: RequestError) -> None:
    """Sends an error; the connection closes where the request may not have been read whole."""
    body = error.encoded()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in error.headers().items()),
    ]
    if error.closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
