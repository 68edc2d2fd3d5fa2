"""What goes to a chat-completions endpoint and what comes back; untrusted replies end here.

A value that was not observed is None: a log-probability that is null, NaN, infinite, positive or
the sentinel −9999 ("very unlikely") says nothing and is never averaged.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

    from sightline.models.openai.settings import ImageFormat

SENTINEL = -9999.0
MAX_IMAGE_BYTES = 20_000_000
_ROUNDING = 1e-3
_HUGE = re.compile(rb"[eE]\+?\d{3}|\d{309}")
"""Stands in every number beyond what a float holds."""


class MalformedReplyError(Exception):
    """A reply that is no chat completion; ``args[0]`` says what it is, in a few words."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token as the wire shows it: its bytes, and its log-probability in nats or None."""

    raw: bytes
    logprob: float | None

    @property
    def text(self) -> str:
        """The token's text; broken characters are replaced."""
        return self.raw.decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Step:
    """One generated token with the likeliest tokens at its place, best first."""

    chosen: Piece
    top: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer of a reply.

    Attributes:
        text: What the model said; its refusal where it only refused.
        reasoning: What it thought before, where the server keeps that apart; else None.
        finish_reason: As the server calls it.
        steps: One entry per token, or None where the server shows none.
        token_ids: Ids of the generated tokens, or None.
    """

    text: str
    reasoning: str | None
    finish_reason: str | None
    steps: tuple[Step, ...] | None
    token_ids: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion.

    Attributes:
        choices: In the order of their index.
        model: Which model the server says has answered.
        prompt_tokens: Length of the prompt, or None.
        completion_tokens: Tokens generated, or None.
        prompt_pieces: Tokens of the prompt where they were asked for and shown; None in the place
            of a token that has no log-probability.
        system_fingerprint: The server's word for its configuration, or None.
    """

    choices: tuple[Choice, ...]
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    prompt_pieces: tuple[Piece | None, ...] | None
    system_fingerprint: str | None


def user_turn(text: str, images: Sequence[str]) -> dict[str, Any]:
    """The user's turn: pictures (data URLs) first, then the text."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}} for url in images
    ]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def data_url(image: Image, image_format: ImageFormat) -> str:
    """A picture as a data URL.

    Raises:
        ModelError: It is larger than endpoints take.
    """
    buffer = io.BytesIO()
    if image_format == "png":
        image.save(buffer, "PNG", compress_level=3)
    else:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    if buffer.tell() > MAX_IMAGE_BYTES:
        raise ModelError(
            f"A picture of {image.size[0]} × {image.size[1]} pixels is {buffer.tell()} bytes as "
            f"{image_format}; at most {MAX_IMAGE_BYTES} can be sent. Scale it down, or send JPEG "
            "(--model-args image_format=jpeg)."
        )
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_object(body: bytes) -> dict[str, Any]:
    """Reads a body that must be one JSON object; NaN and infinity in any spelling become None.

    Raises:
        MalformedReplyError: It is something else.
    """
    try:
        huge = _finite if _HUGE.search(body) else None
        value = json.loads(body.decode("utf-8"), parse_constant=lambda _: None, parse_float=huge)
    except (ValueError, RecursionError):
        start = body[:64].lstrip().lower()
        what = "an HTML page" if start.startswith((b"<!doctype", b"<html")) else "not JSON"
        raise MalformedReplyError(f"the body is {what if body else 'empty'}") from None
    if not isinstance(value, dict):
        raise MalformedReplyError(f"the body is a JSON {type(value).__name__}, not an object")
    return value


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def read_reply(body: bytes) -> Reply:
    """Reads a chat completion.

    Raises:
        MalformedReplyError: It is none, or holds no choice.
    """
    return reply_of(read_object(body))


def reply_of(value: Mapping[str, Any]) -> Reply:
    """Reads a chat completion from its document.

    Raises:
        MalformedReplyError: It is none, or holds no choice.
    """
    listed = value.get("choices")
    if not isinstance(listed, list) or not listed:
        raise MalformedReplyError("the reply holds no choices")
    choices = [_choice(one) for one in listed]
    order = [_whole(one.get("index")) for one in listed]
    if all(index is not None for index in order):
        ranked = sorted(zip(order, range(len(order)), strict=True), key=lambda pair: pair[0] or 0)
        choices = [choices[at] for _, at in ranked]
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        choices=tuple(choices),
        model=_text(value.get("model")),
        prompt_tokens=_whole(usage.get("prompt_tokens")),
        completion_tokens=_whole(usage.get("completion_tokens")),
        prompt_pieces=_prompt_pieces(value.get("prompt_logprobs")),
        system_fingerprint=_text(value.get("system_fingerprint")),
    )


def single_token(body: bytes) -> int | None:
    """The id of the one token that a text is, from the reply that says how it is tokenised.

    Returns:
        None where the text is several tokens.

    Raises:
        MalformedReplyError: It lists no ids of tokens.

    Example:
        >>> single_token(b'{"tokens": [362]}'), single_token(b'{"tokens": [1, 2]}')
        (362, None)
    """
    ids = _ids(read_object(body).get("tokens"))
    if ids is None:
        raise MalformedReplyError("the reply lists no ids of tokens")
    return ids[0] if len(ids) == 1 else None


def observed_logprob(value: Any) -> float | None:
    """A log-probability, or None where the value says nothing.

    Example:
        >>> observed_logprob(-0.5), observed_logprob(-9999.0), observed_logprob(None)
        (-0.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number) or number <= SENTINEL or number > _ROUNDING:
        return None
    return min(number, 0.0)


def _choice(value: Any) -> Choice:
    message = value.get("message") if isinstance(value, dict) else None
    if not isinstance(message, dict):
        raise MalformedReplyError("a choice of the reply has no message")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_text(part.get("text")) or "" for part in content if _is_text(part))
    refusal = _text(message.get("refusal"))
    if content is not None and not isinstance(content, str):
        raise MalformedReplyError(f"a choice's content is a JSON {type(content).__name__}")
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    return Choice(
        text=_text(content) or refusal or "",
        reasoning=reasoning,
        finish_reason=_text(value.get("finish_reason")),
        steps=_steps(value.get("logprobs")),
        token_ids=_ids(value.get("token_ids")),
    )


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("text", "output_text")


def _steps(value: Any) -> tuple[Step, ...] | None:
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, list) or not content:
        return None
    steps = []
    for one in content:
        chosen = _piece(one)
        if chosen is None:
            return None
        listed = one.get("top_logprobs")
        pieces = [_piece(other) for other in listed] if isinstance(listed, list) else []
        top = [piece for piece in pieces if piece is not None and piece.logprob is not None]
        top.sort(key=lambda piece: piece.logprob or 0.0, reverse=True)
        steps.append(Step(chosen, tuple(top)))
    return tuple(steps)


def _piece(value: Any) -> Piece | None:
    token = _text(value.get("token")) if isinstance(value, dict) else None
    if token is None:
        return None
    listed = value.get("bytes")
    raw = _as_bytes(listed) if isinstance(listed, list) else None
    return Piece(
        token.encode("utf-8", errors="replace") if raw is None else raw,
        observed_logprob(value.get("logprob")),
    )


def _as_bytes(values: list[Any]) -> bytes | None:
    whole = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 256 for v in values)
    return bytes(values) if whole else None


def _prompt_pieces(value: Any) -> tuple[Piece | None, ...] | None:
    """One piece per prompt token: the first entry of each place is the token that stands there."""
    if not isinstance(value, list) or not value:
        return None
    pieces: list[Piece | None] = []
    for place in value:
        entry = next(iter(place.values()), None) if isinstance(place, Mapping) else None
        if not isinstance(entry, dict):
            pieces.append(None)
            continue
        text = _text(entry.get("decoded_token")) or ""
        pieces.append(
            Piece(text.encode("utf-8", errors="replace"), observed_logprob(entry.get("logprob")))
        )
    return tuple(pieces)


def _ids(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    ids = [_whole(one) for one in value]
    if any(one is None or one >= 2**31 for one in ids):
        return None
    return tuple(one for one in ids if one is not None)


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value


def _text(value: Any) -> str | None:
    """A string that can be stored: lone surrogates are replaced."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", errors="replace").decode("utf-8")
