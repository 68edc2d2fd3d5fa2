"""What of a client's request reaches the upstream: rebuilt from an allow-list, images checked."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.data.prompts import PromptStyle, user_text
from sightline.models.openai.capabilities import NEUTRAL, Capabilities
from sightline.models.openai.forecasting import SAMPLES_PER_REQUEST
from sightline.models.openai.model import sample_seed
from sightline.models.openai.wire import user_turn
from sightline.serving.calls import Kept
from sightline.serving.errors import RequestError
from sightline.serving.fetching import Fetch
from sightline.serving.fields import LENGTHS, NOT_SAMPLED, SENT
from sightline.serving.identity import Identity
from sightline.serving.image_files import as_data_url, require_image, require_pixels
from sightline.serving.limits import Limits
from sightline.serving.questions import Asked, example_of, require_within
from sightline.serving.wire import ChatBody, ImagePart, Message, TextPart
from sightline.serving.wordings import as_asked

_TURN = ("role", "name", "tool_calls", "tool_call_id")
_MARKERS = re.compile(r"<\|[^|<>\s]{1,40}\|>|<image>|<img>|<start_of_image>|<image_soft_token>")


@dataclass(frozen=True, slots=True)
class Served:
    """What the upstream is known by.

    Attributes:
        name: What it calls the model.
        models: Names under which it may say that it answered; others are another model.
        style: How questions became prompts when the policy was fitted; None where that is not
            known.
        words: Whether it words questions so itself, as our own server with a local model does.
        capabilities: What it was seen to do then; None where that is not known.
        identity: Says whether it still is what the policy was fitted on; None where none is asked.
        unlike: Says why a question with so many pictures is unlike the policy's, or None.
    """

    name: str
    models: frozenset[str]
    style: PromptStyle | None = None
    words: bool = False
    capabilities: Capabilities | None = None
    identity: Identity | None = None
    unlike: Callable[[int], str | None] = lambda _: None


class Forwarding:
    """Makes the requests that the upstream gets.

    Args:
        served: The upstream's model.
        asked: How its answers are judged, and so what it is asked to show.
        fitted: Whether what a client leaves open (temperature, length) is set as it was for the
            policy.
        fetch: From image addresses to bytes.
        limits: Limits on requests.
    """

    def __init__(
        self, served: Served, asked: Request, fetch: Fetch, limits: Limits, *, fitted: bool
    ) -> None:
        self._served, self._asked, self._fitted = served, asked, fitted
        self._fetch, self._limits = fetch, limits

    async def chat(self, body: ChatBody) -> dict[str, Any]:
        """A client's conversation.

        Raises:
            RequestError: Its texts or images break a limit, a text holds a special token, or an
                image is not read.
        """
        require_within(body, self._limits)
        _require_plain_beside(body)
        pixels: list[int] = []
        return self._as_set(body, [await self._message(one, pixels) for one in body.messages])

    async def labelled(
        self, body: ChatBody, asked: Asked, options: Sequence[str] | None, kept: Kept
    ) -> tuple[Example, dict[str, Any]]:
        """A client's question, worded as the policy's were; decoded as the client says.

        Raises:
            RequestError: As for `question`.
        """
        _require_plain_beside(body)
        example, turn = await self._worded(asked, options, kept)
        return example, self._as_set(body, [turn])

    async def question(
        self, asked: Asked, options: Sequence[str] | None, kept: Kept
    ) -> tuple[Example, dict[str, Any]]:
        """One question, asked as the policy's questions were.

        Args:
            asked: The question.
            options: Options that are shown to the model, or None for a free answer.
            kept: The pictures of the request's other questions.

        Raises:
            RequestError: Its text holds a special token, or an image is not read.
        """
        example, turn = await self._worded(asked, options, kept)
        sent = {"messages": [turn], **self._decoding()}
        return example, self._with_logprobs(sent, 0, shown=False)

    async def _worded(
        self, asked: Asked, options: Sequence[str] | None, kept: Kept
    ) -> tuple[Example, dict[str, Any]]:
        """The question, and the user's turn as it was worded for the policy."""
        style = self._served.style or PromptStyle()
        pictures = [
            await kept.get(address, partial(self._picture, address, asked.param))
            for address in asked.images
        ]
        require_pixels(sum(one.pixels for one in pictures), self._limits, asked.param)
        asked, options = as_asked(asked, options, style)
        example = example_of(asked, [one.digest for one in pictures], options)
        text = user_text(example, style)
        _require_plain(text)
        urls = [one.url for one in pictures]
        return example, user_turn(text, urls)

    def _as_set(self, body: ChatBody, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Messages with the client's settings, and the policy's where the client leaves it open."""
        values = {name: value for name in SENT if (value := getattr(body, name)) is not None}
        fitted = self._decoding()
        if values.keys() & LENGTHS:
            fitted = {name: value for name, value in fitted.items() if name not in LENGTHS}
        return self._with_logprobs(
            {**fitted, **values, "messages": messages},
            body.top_logprobs or 0,
            shown=bool(body.logprobs),
        )

    def samples(self, sent: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The same once more for sampled answers, in requests of as many as the upstream draws.

        Equal messages get equal seeds, where the upstream honours seeds.
        """
        asked, found = self._asked, self._served.capabilities
        kept = {name: value for name, value in sent.items() if name not in NOT_SAMPLED}
        kept |= {"temperature": asked.temperature, "top_p": asked.top_p}
        seeded = found is not None and found.seed and asked.n_samples
        said = json.dumps(sent["messages"]).encode() if seeded else b""
        digest = hashlib.sha256(said).hexdigest()
        size = SAMPLES_PER_REQUEST if found is None or found.n else 1
        requests = []
        for start in range(0, asked.n_samples, size):
            count = min(size, asked.n_samples - start)
            drawn = {"n": count} if count > 1 else {}
            if seeded:
                drawn["seed"] = sample_seed(asked.seed, digest, start)
            requests.append({**kept, **drawn})
        return requests

    @property
    def keeps_logprobs(self) -> bool:
        """Whether the answer's log-probabilities were seen to mean something."""
        return self._served.capabilities is None or self._served.capabilities.logprobs

    @property
    def keeps_sample_logprobs(self) -> bool:
        """Whether the log-probabilities of samples are those before the sampling temperature."""
        found, asked = self._served.capabilities, self._asked
        return found is None or found.keeps_sample_logprobs(asked.temperature, asked.top_p)

    def _decoding(self) -> dict[str, Any]:
        """What a client leaves open is decoded as it was for the policy."""
        if not self._fitted:
            return {"model": self._served.name}
        found = self._served.capabilities
        return {
            "model": self._served.name,
            "temperature": 0,
            "max_tokens" if found is None else found.limit_field: self._asked.max_new_tokens,
            **(NEUTRAL if found is not None and found.neutral else {}),
        }

    def _with_logprobs(self, sent: dict[str, Any], wanted: int, *, shown: bool) -> dict[str, Any]:
        """With what the judge reads of the answer, or the client asked for, as far as it is shown.

        Args:
            sent: The request.
            wanted: Likeliest tokens that the client asked for.
            shown: Whether the client asked for log-probabilities.
        """
        own, found = self._asked.top_k_logprobs, self._served.capabilities
        if found is not None:
            own = min(own, found.top_logprobs)
            if not (found.logprobs or shown):
                return sent
        top = min(20, max(wanted, own))
        return {**sent, "logprobs": True, **({"top_logprobs": top} if top else {})}

    async def _message(self, message: Message, pixels: list[int]) -> dict[str, Any]:
        fields = {name: getattr(message, name) for name in _TURN}
        turn = {name: value for name, value in fields.items() if value is not None}
        if not isinstance(message.content, list):
            _require_plain(message.content or "")
            return {**turn, "content": message.content}
        parts: list[dict[str, Any]] = []
        for part in message.content:
            if isinstance(part, TextPart):
                _require_plain(part.text)
                parts.append({"type": "text", "text": part.text})
            else:
                address = await self._address(part, pixels)
                parts.append({"type": "image_url", "image_url": address})
        return {**turn, "content": parts}

    async def _address(self, part: ImagePart, pixels: list[int]) -> dict[str, Any]:
        """The image as a data URL, whatever address it came by, so that nobody else fetches."""
        url = part.image_url.url
        found = await self._picture(url, "messages")
        pixels.append(found.pixels)
        require_pixels(sum(pixels), self._limits, "messages")
        detail = part.image_url.detail
        return {"url": found.url, **({"detail": detail} if detail else {})}

    async def _picture(self, address: str, param: str) -> _Picture:
        """The checked file behind an address; beside the event loop, which a large one holds up."""
        (data,) = await self._fetch([address], param)

        def checked() -> _Picture:
            pixels = require_image(data, self._limits, param)
            url = address if address[:5].lower() == "data:" else as_data_url(data)
            return _Picture(hashlib.sha256(data).hexdigest(), pixels, url)

        return await asyncio.to_thread(checked)


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image of a request that was checked.

    Attributes:
        digest: SHA-256 of the file.
        pixels: As its header says.
        url: The file as a data URL.
    """

    digest: str
    pixels: int
    url: str


def _require_plain_beside(body: ChatBody) -> None:
    """Refuses the same in what a chat template writes into the prompt beside the messages."""
    for name in ("tools", "response_format"):
        _require_plain(json.dumps(getattr(body, name), ensure_ascii=False), name)
    for message in body.messages:
        said = [message.name, message.tool_call_id, message.tool_calls]
        _require_plain(json.dumps(said, ensure_ascii=False))


def _require_plain(text: str, param: str = "messages") -> None:
    """Refuses what a model's processor would take for a picture or for the end of a turn."""
    found = _MARKERS.search(text)
    if found is not None:
        raise RequestError(
            f"The text holds {found[0]!r}, which models read as a special token; plain text is "
            "required. Reword it.",
            param=param,
            code="special_token",
        )
