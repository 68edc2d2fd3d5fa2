"""An answer in chunks while the local model generates it; its trust comes with the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any

from sightline.serving.completions import OPENING, chunk, rest, usage_chunk
from sightline.serving.engine import Told
from sightline.serving.errors import RequestError

Completing = Callable[[Told], Coroutine[Any, Any, dict[str, Any]]]
"""Generates one whole completion, telling its text on the way."""


async def streamed(
    complete: Completing, head: Mapping[str, Any], *, include_usage: bool
) -> AsyncGenerator[dict[str, Any], None]:
    """Starts a completion and returns its chunks; what fails before the first is raised here.

    Args:
        complete: Generates it, with one choice.
        head: Id, time and model of its chunks.
        include_usage: Whether the chunks end with the tokens used.
    """
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[str] = asyncio.Queue()

    def tell(text: str) -> None:
        loop.call_soon_threadsafe(told.put_nowait, text)

    work = asyncio.ensure_future(complete(tell))
    try:
        first = await _next(told, work)
    except BaseException:
        work.cancel()
        raise
    return _chunks(first, told, work, head, include_usage=include_usage)


async def _chunks(
    first: str | None,
    told: asyncio.Queue[str],
    work: asyncio.Future[dict[str, Any]],
    head: Mapping[str, Any],
    *,
    include_usage: bool,
) -> AsyncGenerator[dict[str, Any], None]:
    sent, text = "", first
    try:
        yield chunk(head, 0, OPENING)
        while text is not None:
            if text.startswith(sent) and len(text) > len(sent):
                yield chunk(head, 0, {"content": text[len(sent) :]})
                sent = text
            text = await _next(told, work)
        whole = work.result()
        (chosen,) = whole["choices"]
        if not (chosen["message"]["content"] or "").startswith(sent):
            raise RequestError(
                "The answer's beginning was sent and is not the beginning of the whole answer. "
                "Ask again without stream.",
                status=500,
                code="stream_changed",
            )
        for one in rest(whole, chosen, sent=sent):
            yield one
        if include_usage:
            yield usage_chunk(whole)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _next(told: asyncio.Queue[str], work: asyncio.Future[dict[str, Any]]) -> str | None:
    """The next text; None when the work is done. Its error is raised."""
    getting = asyncio.ensure_future(told.get())
    try:
        await asyncio.wait((getting, work), return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        work.result()
        return None
    finally:
        getting.cancel()
