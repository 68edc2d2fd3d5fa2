"""The application: every path, what it reads and what it answers."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from typing import Any

from sightline import __version__
from sightline.core.printing import printable
from sightline.serving.beside import beside
from sightline.serving.calls import Call
from sightline.serving.engine import overloaded
from sightline.serving.errors import RequestError, let_go
from sightline.serving.exchange import Exchange, is_large
from sightline.serving.feedback import FeedbackStore
from sightline.serving.guard import App, Guard, Receive, Scope, Send
from sightline.serving.multipart import read_multipart
from sightline.serving.openapi import description
from sightline.serving.page import page
from sightline.serving.shared import Server
from sightline.serving.trust import category_warnings
from sightline.serving.wire import (
    ChatBody,
    DecisionsBody,
    dropped_fields,
    read_chat,
    read_decisions,
    read_feedback,
)


def create_app(server: Server) -> App:
    """Returns the ASGI application of a server."""
    routes: dict[tuple[str, str], _Handler] = {
        ("POST", "/v1/chat/completions"): _chat,
        ("POST", "/v1/decisions"): _decisions,
        ("POST", "/v1/feedback"): _feedback,
        ("GET", "/v1/feedback"): _drift,
        ("GET", "/v1/models"): _models,
        ("GET", "/health"): _health,
        ("GET", "/metrics"): _metrics,
        ("GET", "/openapi.json"): _openapi,
        ("GET", "/"): _page,
    }
    paths = frozenset(path for _, path in routes)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(server, receive, send)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = routes.get((method, scope["path"]))
        if handler is None:
            raise _unrouted(scope, [verb for verb, path in routes if path == scope["path"]])
        await handler(Exchange(server, scope, receive, send))

    return Guard(app, limits=server.limits, keys=server.keys, counters=server.counters, paths=paths)


_Handler = Callable[[Exchange], Awaitable[None]]


async def _lifespan(server: Server, receive: Receive, send: Send) -> None:
    await receive()
    await server.backend.start()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await server.backend.stop()
    if server.feedback is not None:
        server.feedback.close()
    await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def _place(server: Server) -> AsyncIterator[None]:
    """A place among the requests that are worked on.

    Raises:
        RequestError: Too many wait already; status 503.
    """
    counters = server.counters
    if server.places.locked() and counters.waiting >= server.limits.queue:
        raise overloaded(counters.waiting)
    counters.waiting += 1
    try:
        await server.places.acquire()
    finally:
        counters.waiting -= 1
    counters.active += 1
    try:
        yield
    finally:
        counters.active -= 1
        server.places.release()


async def _chat(exchange: Exchange) -> None:
    server = exchange.server
    async with exchange.body() as data:
        raw, large = await exchange.document(data), is_large(data)
        del data  # its bytes; what they say is held by now
        body = read_chat(raw, server.limits, strict=server.strict)
        backend = server.backend
        explains = backend.explains
        call = _call(
            exchange, "chatcmpl", raw, backend.fields(), body, large=large, explains=explains
        )
        del raw  # with what nobody reads of it
        try:
            await exchange.while_connected(_completed(exchange, body, call))
        finally:
            server.memory.used(4 * call.kept.pixels)


async def _completed(exchange: Exchange, body: ChatBody, call: Call) -> None:
    server = exchange.server
    async with _place(server):
        if body.stream:
            await _send_chunks(exchange, await server.backend.stream(body, call))
            return
        whole = await server.backend.complete(body, call)
    trusts = [choice["trust"] for choice in whole["choices"]]
    for trust in trusts:
        server.counters.judged(trust)
    confidence = trusts[0]["confidence"] if trusts else None
    headers = {} if confidence is None else {"x-trust-confidence": f"{confidence:.6f}"}
    await exchange.answer_json(whole, headers=headers)


async def _send_chunks(exchange: Exchange, chunks: AsyncGenerator[dict[str, Any], None]) -> None:
    await exchange.start(200, {"content-type": "text/event-stream; charset=utf-8"})
    end = b"data: [DONE]\n\n"
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                for choice in chunk.get("choices", ()):
                    if "trust" in choice:
                        exchange.server.counters.judged(choice["trust"])
                data = json.dumps(chunk, ensure_ascii=False, allow_nan=False)
                event = f"data: {data}\n\n".encode("utf-8", "replace")
                await exchange.send(
                    {"type": "http.response.body", "body": event, "more_body": True}
                )
    except RequestError as error:  # the headers are gone: the stream itself says what happened
        let_go(error)
        end = b"data: " + error.encoded() + b"\n\n"
    await exchange.send({"type": "http.response.body", "body": end})


async def _decisions(exchange: Exchange) -> None:
    server = exchange.server
    async with exchange.body() as data:
        kind, large = exchange.header(b"content-type"), is_large(data)
        if kind.partition(";")[0].strip().lower() != "multipart/form-data":
            raw = await exchange.document(data)
        elif large:
            raw = await beside(read_multipart, data, kind, server.limits)
        else:
            raw = read_multipart(data, kind, server.limits)
        del data
        body = read_decisions(raw, server.limits, strict=server.strict)
        known = frozenset(DecisionsBody.model_fields)
        call = _call(exchange, "dec", raw, known, body, large=large)
        del raw

        async def decided() -> dict[str, Any]:
            async with _place(server):
                return await server.backend.decide(body, call)

        try:
            answer = await exchange.while_connected(decided())
        finally:
            server.memory.used(4 * call.kept.pixels)
        for one in answer["answers"]:
            server.counters.judged(one["trust"])
        await exchange.answer_json(answer)


async def _feedback(exchange: Exchange) -> None:
    store = _store(exchange.server)
    async with exchange.body() as data:
        body = read_feedback(await exchange.document(data))
        new = await store.add(body.receipt, float(body.correct), body.note)
        await exchange.answer_json({"kept": True, "new": new, "calibration": store.watch.to_dict()})


async def _drift(exchange: Exchange) -> None:
    store = _store(exchange.server)
    await exchange.answer_json({"outcomes": store.kept, "calibration": store.watch.to_dict()})


async def _models(exchange: Exchange) -> None:
    server = exchange.server
    model = {
        "id": server.backend.name,
        "object": "model",
        "created": 0,
        "owned_by": "sightline",
        **server.backend.describe(),
    }
    await exchange.answer_json({"object": "list", "data": [model]})


async def _health(exchange: Exchange) -> None:
    trouble = exchange.server.backend.trouble()
    if trouble is not None:
        raise RequestError(trouble, status=503, code="unhealthy")
    await exchange.answer_json({"status": "ok", "version": __version__})


async def _metrics(exchange: Exchange) -> None:
    server = exchange.server
    gauges = dict(server.backend.gauges())
    if server.feedback is not None:
        watch = server.feedback.watch
        gauges |= {
            "feedback_total": server.feedback.kept,
            "feedback_e_value": watch.evidence,
            "feedback_recalibrate": int(watch.recalibrate),
        }
    text = server.counters.text(gauges)
    await exchange.answer(text.encode(), "text/plain; version=0.0.4; charset=utf-8")


async def _openapi(exchange: Exchange) -> None:
    server, backend = exchange.server, exchange.server.backend
    # This path is open to all, and the model's name need not be.
    named = not server.keys and backend.describe()["backend"] == "local"
    await exchange.answer_json(description(server.limits, backend.name if named else None))


async def _page(exchange: Exchange) -> None:
    found = page()
    await exchange.answer(found.html, "text/html; charset=utf-8", headers=found.headers)


def _call(
    exchange: Exchange,
    prefix: str,
    raw: Mapping[str, Any],
    known: frozenset[str],
    body: ChatBody | DecisionsBody,
    *,
    large: bool,
    explains: bool = False,
) -> Call:
    server, trust = exchange.server, body.trust
    wanted = trust is not None and trust.abstain_mode == "refuse"
    if wanted and not server.has_policy:
        raise RequestError(
            "abstain_mode is 'refuse' and this server has no policy to refuse by; 'flag' is "
            "required. Leave it out, or start the server with --policy.",
            param="trust.abstain_mode",
        )
    if trust is not None and trust.explain and not explains:
        raise RequestError(
            "explain is set, and only chat answers of a model that this server runs itself are "
            "explained. Leave it out.",
            param="trust.explain",
            code="unsupported_parameter",
        )
    category = None if trust is None else trust.category
    warnings = () if trust is None else category_warnings(server.backend.trusting.judge, category)
    unused = (printable(name[:40]) for name in islice((n for n in raw if n not in known), 20))
    dropped = list(dict.fromkeys([*dropped_fields(raw, body), *unused]))[:20]
    return Call(
        request_id=f"{prefix}-{secrets.token_hex(12)}",
        created=int(time.time()),
        deadline=time.monotonic() + server.limits.request_s,
        refuse=wanted or server.mode == "refuse",
        warnings=(*warnings, *((f"not used, dropped: {', '.join(dropped)}",) if dropped else ())),
        category=category,
        large=large,
        salt=exchange.salt,
    )


def _store(server: Server) -> FeedbackStore:
    if server.feedback is None:
        raise RequestError(
            "This server keeps no feedback; one started with --feedback DIR is required. "
            "Ask its operator.",
            status=404,
            code="feedback_off",
        )
    return server.feedback


def _unrouted(scope: Scope, allowed: list[str]) -> RequestError:
    if allowed:
        return RequestError(
            f"{scope['method'][:20]} is not allowed here; {' or '.join(allowed)} is required. "
            "Use it.",
            status=405,
            code="method_not_allowed",
        )
    return RequestError(
        "There is nothing at this path; see /openapi.json for what there is.",
        status=404,
        code="not_found",
    )
