"""Standing before another OpenAI-compatible server: its answers, with our trust.

What a client sends is checked and rebuilt from an allow-list; log-probabilities are added as the
judge needs them and taken out again where the client did not ask; all else of the answer passes
through. An answer is judged as its model's answers were collected, so where there is a policy, what
the client leaves open (temperature, length) is set as it was then.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Generation, Record
from sightline.data.prompts import PromptStyle, user_text
from sightline.models.openai.reading import generation, top_logprobs
from sightline.models.openai.wire import (
    Choice,
    MalformedReplyError,
    Reply,
    read_object,
    read_reply,
    user_turn,
)
from sightline.serving.calls import Call
from sightline.serving.completions import chunks, refused
from sightline.serving.decisions import decide
from sightline.serving.engine import Seen
from sightline.serving.errors import RequestError
from sightline.serving.fetching import Fetch
from sightline.serving.images import as_data_url, require_image
from sightline.serving.limits import Limits
from sightline.serving.questions import Asked, example_of, too_many_images
from sightline.serving.trust import Judgement, Trusting, held_to_limit, without_confidence
from sightline.serving.upstream import Connection, garbled
from sightline.serving.wire import ChatBody, DecisionsBody, ImagePart, Message, TextPart

_SENT = frozenset(
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

_OURS = frozenset({"model", "messages", "stream", "stream_options", "logprobs", "top_logprobs"})
_MARKERS = re.compile(r"<\|[^|<>\s]{1,40}\|>|<image>|<img>|<start_of_image>|<image_soft_token>")
SHOWN = frozenset(
    {
        Feature.ANSWER,
        Feature.LOGPROBS,
        Feature.TOP_LOGPROBS,
        Feature.SAMPLES,
        Feature.SAMPLE_LOGPROBS,
        Feature.CHOICES,
    }
)
"""Signals that every OpenAI-compatible server can show."""


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


class Proxy:
    """Answers with an upstream server.

    Args:
        served: The upstream's model.
        connection: To the upstream.
        trusting: Judges the answers.
        fetch: From image addresses to bytes.
        limits: Limits on requests.
    """

    def __init__(
        self,
        served: Served,
        connection: Connection,
        trusting: Trusting,
        fetch: Fetch,
        limits: Limits,
    ) -> None:
        self.name = served.name
        self.trusting = trusting
        self._served, self._connection = served, connection
        self._fetch, self._limits = fetch, limits
        self._asked = trusting.judge.requests[-1]

    async def complete(self, body: ChatBody, raw: Mapping[str, Any], call: Call) -> dict[str, Any]:
        """Answers a chat request.

        Raises:
            RequestError: The request cannot be passed on, or the upstream failed.
        """
        sent = await self._sent(body)
        answered, samples = await asyncio.gather(self._connection.ask(sent), self._samples(sent))
        document, reply = _read(answered)
        example = _example(body)
        shown_choices = _ordered(document["choices"])
        for index, (choice, shown) in enumerate(zip(reply.choices, shown_choices, strict=True)):
            record = self._record(example, choice, samples)
            judgement = await self._judged(record, reply, body)
            shown["trust"] = self.trusting.trust(
                record, judgement, f"{call.request_id}:{index}", call.warnings
            )
            if not body.logprobs:
                shown["logprobs"] = None
            if call.refuse and judgement.abstain:
                shown.update(refused(shown, judgement))
        return {
            **document,
            "id": call.request_id,
            "model": self.name,
            "choices": shown_choices,
        }

    async def stream(
        self, body: ChatBody, raw: Mapping[str, Any], call: Call
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The same in chunks, as the upstream sends them.

        Where answers may be withheld, the chunks begin when the answer is complete.
        """
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        if call.refuse:
            whole = await self.complete(body, raw, call)
            return _listed(list(chunks({"usage": None, **whole}, include_usage=usage)))
        sent = await self._sent(body)
        sent |= {"stream": True, "stream_options": {"include_usage": usage}}
        events = self._connection.events(sent)
        try:
            first = await anext(events)
        except StopAsyncIteration:
            raise garbled(MalformedReplyError("the stream holds nothing")) from None
        return self._judged_stream(first, events, sent, body, call)

    async def _judged_stream(
        self,
        first: dict[str, Any],
        events: AsyncGenerator[dict[str, Any], None],
        sent: Mapping[str, Any],
        body: ChatBody,
        call: Call,
    ) -> AsyncGenerator[dict[str, Any], None]:
        samples = asyncio.ensure_future(self._samples(sent))
        example, heard = _example(body), dict[int, _Heard]()
        try:
            async with aclosing(_chained(first, events)) as all_events:
                async for event in all_events:
                    for part in _parts(event):
                        one = heard.setdefault(part["index"], _Heard())
                        one.add(part)
                        if not body.logprobs:
                            part["logprobs"] = None
                        if part.get("finish_reason"):
                            reply = one.reply(event)
                            record = self._record(example, reply.choices[0], await samples)
                            judgement = await self._judged(record, reply, body)
                            key = f"{call.request_id}:{part['index']}"
                            part["trust"] = self.trusting.trust(
                                record, judgement, key, call.warnings
                            )
                    yield {**event, "id": call.request_id, "model": self.name}
        finally:
            samples.cancel()
            await asyncio.gather(samples, return_exceptions=True)

    async def decide(self, body: DecisionsBody, call: Call) -> dict[str, Any]:
        """Answers a decisions request.

        Raises:
            RequestError: A question cannot be asked, or the upstream failed.
        """
        return await decide(self, body, call, self._limits)

    async def observe(
        self,
        asked: Asked,
        options: Sequence[str] | None,
        requests: Sequence[Request],
        call: Call,
    ) -> Seen:
        """Asks one question as the policy's questions were asked."""
        files = await self._images(asked.images, asked.param)
        example = example_of(asked, files, options)
        _require_plain(asked.text)
        urls = [as_data_url(data) for data in files]
        turn = user_turn(user_text(example, self._served.style), urls)
        sent = self._with_logprobs({"messages": [turn], **self._decoding()}, 0)
        answered, samples = await asyncio.gather(self._connection.ask(sent), self._samples(sent))
        _, reply = _read(answered)
        record = self._record(example, reply.choices[0], samples)
        return Seen(record, await self._judged(record, reply))

    def decision_requests(self, *, options: bool) -> tuple[Request, ...]:
        """What to observe; options are not scored, since no endpoint is sure to show that."""
        return self.trusting.judge.requests

    def fields(self) -> frozenset[str]:
        """Names of the chat fields that are passed on or used."""
        return _SENT | _OURS | {"trust"}

    def describe(self) -> Mapping[str, Any]:
        """The policy, as the page shows it."""
        return {"backend": "upstream", "policy": self.trusting.judge.describe()}

    def gauges(self) -> Mapping[str, float | None]:
        """Nothing beyond what every server counts."""
        return {}

    def trouble(self) -> str | None:
        """None: whether the upstream answers is only known by asking it."""
        return None

    async def start(self) -> None:
        """Connections open when they are needed."""

    async def stop(self) -> None:
        """Closes the connections."""
        await self._connection.close()

    async def _sent(self, body: ChatBody) -> dict[str, Any]:
        """The request that goes to the upstream."""
        values = body.model_dump(include=set(_SENT), exclude_none=True)
        fitted = self._decoding()
        if "max_completion_tokens" in values:
            fitted.pop("max_tokens", None)
        messages = [await self._message(message) for message in body.messages]
        return self._with_logprobs(
            {**fitted, **values, "messages": messages}, body.top_logprobs or 0
        )

    def _decoding(self) -> dict[str, Any]:
        """What a client leaves open is decoded as it was for the policy."""
        if self.trusting.judge.calibrator is None:
            return {"model": self.name}
        return {
            "model": self.name,
            "temperature": 0,
            "max_tokens": self._asked.max_new_tokens,
        }

    def _with_logprobs(self, sent: dict[str, Any], wanted: int) -> dict[str, Any]:
        top = min(20, max(wanted, self._asked.top_k_logprobs))
        return {**sent, "logprobs": True, **({"top_logprobs": top} if top else {})}

    async def _message(self, message: Message) -> dict[str, Any]:
        turn = message.model_dump(exclude_none=True, exclude={"content"})
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

    async def _samples(self, sent: Mapping[str, Any]) -> tuple[Generation, ...]:
        """Sampled answers, where the judge needs them."""
        asked = self._asked
        if not asked.n_samples:
            return ()
        kept = {k: v for k, v in sent.items() if k not in ("stream", "stream_options", "seed")}
        drawn = {"n": asked.n_samples, "temperature": asked.temperature, "top_p": asked.top_p}
        _, reply = _read(await self._connection.ask({**kept, **drawn}))
        return tuple(generation(choice) for choice in reply.choices)

    def _record(self, example: Example, choice: Choice, samples: tuple[Generation, ...]) -> Record:
        """What the upstream showed of one answer."""
        answer = generation(choice)
        features = {}
        if self._asked.top_k_logprobs and answer.tokens is not None and choice.steps is not None:
            top = top_logprobs(choice.steps, self._asked.top_k_logprobs)
            if top is not None:
                features[Feature.TOP_LOGPROBS] = top
        return Record(example, greedy=answer, samples=samples, features=features)

    async def _judged(
        self, record: Record, reply: Reply, body: ChatBody | None = None
    ) -> Judgement:
        judge = self.trusting.judge
        if judge.calibrator is None:
            return judge.judge([record])[0]
        judgement = (await asyncio.to_thread(judge.judge, [record]))[0]
        reason = self._changed(reply)
        if reason is None and body is not None and body.temperature:
            reason = "sampled answer: the policy was fitted on greedy ones (temperature 0)"
        if reason is not None:
            return without_confidence(judgement, reason)
        limit = None if body is None else body.max_completion_tokens or body.max_tokens
        fitted = self._asked.max_new_tokens
        return held_to_limit(judgement, record, limit or fitted, fitted)

    def _changed(self, reply: Reply) -> str | None:
        """Why the policy does not know the upstream any more, or None."""
        served = self._served
        if reply.model is not None and reply.model not in served.models:
            return (
                f"the upstream says that {reply.model[:80]!r} answered; the policy was fitted on "
                f"{served.name!r}"
            )
        known, now = served.system_fingerprint, reply.system_fingerprint
        if known is not None and now != known:
            return "the upstream's system fingerprint is not the one the policy was fitted on"
        return None


@dataclass(slots=True)
class _Heard:
    """One choice of a stream, as far as it has come."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    tokens: list[Any] = field(default_factory=list)
    finish: str | None = None

    def add(self, part: Mapping[str, Any]) -> None:
        """Takes in one chunk's part."""
        delta = part.get("delta")
        for name in ("content", "reasoning_content", "refusal"):
            text = delta.get(name) if isinstance(delta, dict) else None
            if isinstance(text, str):
                self.texts.setdefault(name, []).append(text)
        logprobs = part.get("logprobs")
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        self.tokens += content if isinstance(content, list) else []
        self.finish = part.get("finish_reason") or self.finish

    def reply(self, event: Mapping[str, Any]) -> Reply:
        """The same as if it had not been streamed."""
        message = {name: "".join(texts) for name, texts in self.texts.items()}
        whole = {
            "model": event.get("model"),
            "system_fingerprint": event.get("system_fingerprint"),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": self.finish,
                    "logprobs": {"content": self.tokens},
                }
            ],
        }
        return _read(json.dumps(whole).encode())[1]


def _read(answered: bytes) -> tuple[dict[str, Any], Reply]:
    try:
        return read_object(answered), read_reply(answered)
    except MalformedReplyError as error:
        raise garbled(error) from None


def _ordered(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choices in the order in which they were read."""
    indices = [choice.get("index") for choice in choices]
    if all(type(index) is int and index >= 0 for index in indices):
        return sorted(choices, key=lambda choice: int(choice["index"]))
    return choices


def _parts(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices of a chunk."""
    listed = event.get("choices")
    parts = listed if isinstance(listed, list) else []
    if not all(isinstance(p, dict) and type(p.get("index")) is int for p in parts):
        raise garbled(MalformedReplyError("a chunk's choices have no index"))
    return parts


async def _chained(
    first: dict[str, Any], rest: AsyncGenerator[dict[str, Any], None]
) -> AsyncGenerator[dict[str, Any], None]:
    yield first
    async with aclosing(rest):
        async for event in rest:
            yield event


async def _listed(events: Sequence[dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
    for event in events:
        yield event


def _example(body: ChatBody) -> Example:
    """What the judge knows of the question."""
    texts = [
        part.text
        for message in body.messages
        if message.role == "user"
        for part in (
            [TextPart(type="text", text=message.content)]
            if isinstance(message.content, str)
            else message.content or ()
        )
        if isinstance(part, TextPart)
    ]
    choices = None if body.trust is None else body.trust.choices
    return Example("request", "\n".join(texts), choices=tuple(choices) if choices else None)


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
