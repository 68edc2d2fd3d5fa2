"""What an upstream answered, whole or in chunks: untrusted, and read once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sightline.models.openai.wire import MalformedReplyError, Reply, read_object, reply_of
from sightline.serving.upstream import garbled

_LARGE = 1 << 18


@dataclass(slots=True)
class Heard:
    """One choice of a stream, as far as it has come."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    tokens: list[Any] = field(default_factory=list)
    finish: str | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def add(self, part: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        """Takes in one chunk's part, and who says it."""
        self.origin = {name: event.get(name) for name in ("model", "system_fingerprint")}
        delta = part.get("delta")
        for name in ("content", "reasoning_content", "refusal"):
            text = delta.get(name) if isinstance(delta, dict) else None
            if isinstance(text, str):
                self.texts.setdefault(name, []).append(text)
        logprobs = part.get("logprobs")
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        self.tokens += content if isinstance(content, list) else []
        self.finish = part.get("finish_reason") or self.finish

    def reply(self) -> Reply:
        """The same as if it had not been streamed."""
        message = {name: "".join(texts) for name, texts in self.texts.items()}
        whole = {
            **self.origin,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": self.finish,
                    "logprobs": {"content": self.tokens},
                }
            ],
        }
        return _reply(whole)


async def read_answer(answered: bytes) -> tuple[dict[str, Any], Reply]:
    """The document and what it says; a large one is read beside the event loop.

    Raises:
        RequestError: It is no chat completion.
    """
    if len(answered) > _LARGE:
        return await asyncio.to_thread(_read, answered)
    return _read(answered)


def _read(answered: bytes) -> tuple[dict[str, Any], Reply]:
    try:
        document = read_object(answered)
    except MalformedReplyError as error:
        raise garbled(error) from None
    return document, _reply(document)


def _reply(document: Mapping[str, Any]) -> Reply:
    try:
        return reply_of(document)
    except MalformedReplyError as error:
        raise garbled(error) from None


def ordered(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choices in the order in which they were read."""
    indices = [choice.get("index") for choice in choices]
    if all(type(index) is int and index >= 0 for index in indices):
        return sorted(choices, key=lambda choice: int(choice["index"]))
    return choices


def parts_of(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices of a chunk."""
    listed = event.get("choices")
    parts = listed if isinstance(listed, list) else []
    if not all(isinstance(p, dict) and type(p.get("index")) is int for p in parts):
        raise garbled(MalformedReplyError("a chunk's choices have no index"))
    return parts


async def chained(
    first: dict[str, Any], rest: AsyncGenerator[dict[str, Any], None]
) -> AsyncGenerator[dict[str, Any], None]:
    """A stream with the event that was read ahead."""
    yield first
    async with aclosing(rest):
        async for event in rest:
            yield event
