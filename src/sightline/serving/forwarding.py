"""What of a client's request reaches the upstream: rebuilt from an allow-list, images checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.data.prompts import PromptStyle, user_text
from sightline.models.openai.wire import user_turn
from sightline.serving.errors import RequestError
from sightline.serving.fetching import Fetch
from sightline.serving.images import as_data_url, require_image
from sightline.serving.limits import Limits
from sightline.serving.questions import Asked, example_of, too_many_images
from sightline.serving.wire import ChatBody, ImagePart, Message, TextPart

SENT = frozenset(
    {
        "n",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "response_format",
        "tools",
        "tool_choice",
    }
)
"""Fields that are passed on beside the messages; nothing else of a request reaches the upstream."""


_TURN = ("role", "name", "tool_calls", "tool_call_id")
_MARKERS = re.compile(r"<\|[^|<>\s]{1,40}\|>|<image>|<img>|<start_of_image>|<image_soft_token>")


@dataclass(frozen=True, slots=True)
class Served:
    """What the upstream is known by.

    Attributes:
        name: What it calls the model.
        models: Names under which it may say that it answered; others are another model.
        system_fingerprint: Its configuration when the policy was fitted, or None.
        style: How questions became prompts when the policy was fitted.
    """

    name: str
    models: frozenset[str]
    system_fingerprint: str | None = None
    style: PromptStyle = field(default_factory=PromptStyle)


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
            RequestError: Its text holds a special token, or an image is not read.
        """
        values = {name: value for name in SENT if (value := getattr(body, name)) is not None}
        fitted = self._decoding()
        if "max_completion_tokens" in values:
            fitted.pop("max_tokens", None)
        messages = [await self._message(message) for message in body.messages]
        return self._with_logprobs(
            {**fitted, **values, "messages": messages}, body.top_logprobs or 0
        )

    async def question(
        self, asked: Asked, options: Sequence[str] | None
    ) -> tuple[Example, dict[str, Any]]:
        """One question, asked as the policy's questions were.

        Raises:
            RequestError: Its text holds a special token, or an image is not read.
        """
        files = await self._images(asked.images, asked.param)
        example = example_of(asked, files, options)
        _require_plain(asked.text)
        urls = [as_data_url(data) for data in files]
        turn = user_turn(user_text(example, self._served.style), urls)
        return example, self._with_logprobs({"messages": [turn], **self._decoding()}, 0)

    def samples(self, sent: Mapping[str, Any]) -> dict[str, Any] | None:
        """The same once more for sampled answers; None where none are needed."""
        asked = self._asked
        if not asked.n_samples:
            return None
        kept = {k: v for k, v in sent.items() if k not in ("stream", "stream_options", "seed")}
        drawn = {"n": asked.n_samples, "temperature": asked.temperature, "top_p": asked.top_p}
        return {**kept, **drawn}

    def _decoding(self) -> dict[str, Any]:
        """What a client leaves open is decoded as it was for the policy."""
        if not self._fitted:
            return {"model": self._served.name}
        return {
            "model": self._served.name,
            "temperature": 0,
            "max_tokens": self._asked.max_new_tokens,
        }

    def _with_logprobs(self, sent: dict[str, Any], wanted: int) -> dict[str, Any]:
        top = min(20, max(wanted, self._asked.top_k_logprobs))
        return {**sent, "logprobs": True, **({"top_logprobs": top} if top else {})}

    async def _message(self, message: Message) -> dict[str, Any]:
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
                parts.append({"type": "image_url", "image_url": await self._address(part)})
        if sum(part["type"] == "image_url" for part in parts) > self._limits.max_images:
            raise too_many_images(self._limits, "messages")
        return {**turn, "content": parts}

    async def _address(self, part: ImagePart) -> dict[str, Any]:
        """The image as a data URL, whatever address it came by, so that nobody else fetches."""
        url = part.image_url.url
        (data,) = await self._images([url], "messages")
        own = url if url[:5].lower() == "data:" else as_data_url(data)
        detail = part.image_url.detail
        return {"url": own, **({"detail": detail} if detail else {})}

    async def _images(self, urls: Sequence[str], param: str) -> list[bytes]:
        files = await self._fetch(urls, param)
        for data in files:
            require_image(data, self._limits, param)
        return files


def _require_plain(text: str) -> None:
    """Refuses what a model's processor would take for a picture or for the end of a turn."""
    found = _MARKERS.search(text)
    if found is not None:
        raise RequestError(
            f"The text holds {found[0]!r}, which models read as a special token; plain text is "
            "required. Reword it.",
            param="messages",
            code="special_token",
        )
