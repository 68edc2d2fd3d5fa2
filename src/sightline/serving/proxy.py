"""Standing before another OpenAI-compatible server: its answers, with our trust.

What a client sends is checked and rebuilt from an allow-list (`sightline.serving.forwarding`);
log-probabilities are added as the judge needs them and taken out again where the client did not
ask; all else of the answer passes through. An answer is judged as its model's answers were
collected, so where there is a policy, what the client leaves open (temperature, length) is set as
it was then. What a client says is not changed unless it asks for that (``trust.as_labelled``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, ImageRef
from sightline.data.prompts import PromptStyle
from sightline.models.openai.wire import MalformedReplyError
from sightline.serving.calls import Call
from sightline.serving.completions import chunk, chunks, refused
from sightline.serving.decisions import decide
from sightline.serving.departures import ANOTHER, departures, unworded
from sightline.serving.engine import Seen
from sightline.serving.errors import RequestError, not_served
from sightline.serving.fetching import Fetch
from sightline.serving.fields import BEFORE_UPSTREAM, OWN
from sightline.serving.forwarding import Forwarding, Served
from sightline.serving.limits import Limits
from sightline.serving.listing import Listing
from sightline.serving.questions import Asked, asked_in_chat, options_in_chat
from sightline.serving.replies import Heard, chained, ordered, parts_of, read_answer
from sightline.serving.trust import Trusting, of_category
from sightline.serving.upstream import Connection, garbled
from sightline.serving.upstream_trust import Drawing, UpstreamTrust
from sightline.serving.wire import ChatBody, DecisionsBody, ImagePart, TextPart
from sightline.serving.wordings import taken_apart

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


class Proxy:
    """Answers with an upstream server.

    Args:
        served: The upstream's model.
        connection: To the upstream.
        listing: Names of its other models.
        trusting: Judges the answers.
        fetch: From image addresses to bytes.
        limits: Limits on requests.
        salted: Whether the upstream keeps its prefix cache apart by ``cache_salt``.
    """

    def __init__(
        self,
        served: Served,
        connection: Connection,
        listing: Listing,
        trusting: Trusting,
        fetch: Fetch,
        limits: Limits,
        *,
        salted: bool = False,
    ) -> None:
        self._salted = salted
        self.name, self.explains = served.name, False
        self.trusting = trusting
        self._served, self._connection, self._limits = served, connection, limits
        self._listing = listing
        judge = trusting.judge
        fitted = judge.calibrator is not None
        self._forwarding = Forwarding(served, judge.requests[-1], fetch, limits, fitted=fitted)
        self._trust = UpstreamTrust(served, judge, self._forwarding, connection)
        self._watching: asyncio.Task[None] | None = None

    async def complete(self, body: ChatBody, call: Call) -> dict[str, Any]:
        """Answers a chat request.

        Raises:
            RequestError: The request cannot be passed on, or the upstream failed.
        """
        example, sent = await self._sent(body, call)
        limit = _limit(body)
        async with self._drawing(sent, body, call) as drawing:
            document, reply = await read_answer(await self._connection.ask(sent, call.deadline))
            shown_choices = ordered(document["choices"])
            for index, (choice, shown) in enumerate(zip(reply.choices, shown_choices, strict=True)):
                record, judgement = await self._trust.judged(
                    example, choice, reply, drawing, limit=limit
                )
                shown["trust"] = self.trusting.trust(
                    record, judgement, f"{call.request_id}:{index}", call.warnings
                )
                if not body.logprobs:
                    shown["logprobs"] = None
                if call.refuse and judgement.abstain:
                    shown.update(refused(shown, judgement))
        document |= {"id": call.request_id, "model": sent["model"], "choices": shown_choices}
        document.pop("trust", None)  # what the upstream calls so is not ours
        return document

    async def stream(self, body: ChatBody, call: Call) -> AsyncGenerator[dict[str, Any], None]:
        """The same in chunks, as the upstream sends them.

        Where answers may be withheld, the chunks begin when the answer is complete.
        """
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        if call.refuse:
            whole = await self.complete(body, call)
            return _listed(list(chunks({"usage": None, **whole}, include_usage=usage)))
        example, sent = await self._sent(body, call)
        sent |= {"stream": True, "stream_options": {"include_usage": usage}}
        events = self._connection.events(sent)
        try:
            first = await anext(events)
        except StopAsyncIteration:
            raise garbled(MalformedReplyError("the stream holds nothing")) from None
        return self._judged_stream(chained(first, events), example, sent, body, call)

    async def _judged_stream(
        self,
        events: AsyncGenerator[dict[str, Any], None],
        example: Example,
        sent: Mapping[str, Any],
        body: ChatBody,
        call: Call,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The upstream's chunks, with trust on the one that ends a choice; none follows it."""
        heard = dict[int, Heard]()
        async with self._drawing(sent, body, call) as drawing, aclosing(events):
            async for event in events:
                parts, kept = parts_of(event), []
                for part in parts:
                    one = heard.setdefault(part["index"], Heard())
                    if one.finish:
                        continue  # said behind its end: the trust covers what the client has
                    one.add(part, event)
                    part.pop("trust", None)  # what the upstream calls so is not ours
                    if not body.logprobs:
                        part["logprobs"] = None
                    if one.finish:
                        part["trust"] = await self._trust_of(
                            one, part["index"], example, body, call, drawing
                        )
                    kept.append(part)
                event.pop("trust", None)
                if kept or not parts or event.get("usage"):
                    named = {"choices": kept} if parts else {}
                    yield {**event, **named, "id": call.request_id, "model": sent["model"]}
            if not heard:
                raise garbled(MalformedReplyError("the stream holds no choices"))
            head = {"id": call.request_id, "created": call.created, "model": sent["model"]}
            for index, one in heard.items():
                if not one.finish:
                    last = chunk(head, index, {})
                    trust = await self._trust_of(one, index, example, body, call, drawing)
                    last["choices"][0]["trust"] = trust
                    yield last

    async def _sent(self, body: ChatBody, call: Call) -> tuple[Example, dict[str, Any]]:
        """What the judge knows of the question, and the request that the upstream gets."""
        name = self.name if body.model is None else body.model
        if name != self.name and not await self._listing.holds(name):
            raise not_served(name, self.name)
        if _is_labelled(body):
            example, sent = await self._labelled(body, call)
        else:
            _require_no_options(body)
            example, sent = _example(body, self._served.style), await self._forwarding.chat(body)
        example = of_category(example, self.trusting.judge, call.category)
        return example, {**self._for(call, sent), "model": name}

    async def _labelled(self, body: ChatBody, call: Call) -> tuple[Example, dict[str, Any]]:
        """The same of a question that is to be worded as the policy's were."""
        if self._served.style is None:
            raise RequestError(
                "trust.as_labelled is set, and this server has no policy whose questions show how "
                "to word yours. Leave it out.",
                param="trust.as_labelled",
            )
        asked = asked_in_chat(body, self._limits)
        return await self._forwarding.labelled(body, asked, options_in_chat(body), call.kept)

    def _drawing(
        self, sent: Mapping[str, Any], body: ChatBody, call: Call
    ) -> AbstractAsyncContextManager[Drawing]:
        """The samples of a chat answer."""
        alike = all(getattr(body, name) in (None, False) for name in OWN)
        return self._trust.drawing(sent, call.deadline, self._doubts(body), alike=alike)

    def _doubts(self, body: ChatBody) -> tuple[str, ...]:
        """Why a policy has no confidence, whatever the answer."""
        found = [] if body.model in (None, self.name) else [ANOTHER]
        found += departures(body)
        served = self._served
        if served.style is not None and not (served.words or _is_labelled(body)):
            found += unworded(body, served.style)
        return tuple(found)

    def _for(self, call: Call, sent: dict[str, Any]) -> dict[str, Any]:
        """The request, with what keeps the upstream's cache apart for every key."""
        return {**sent, "cache_salt": call.salt} if self._salted else sent

    async def _trust_of(
        self,
        heard: Heard,
        index: int,
        example: Example,
        body: ChatBody,
        call: Call,
        drawing: Drawing,
    ) -> dict[str, Any]:
        """The ``trust`` object of a choice whose chunks have all come."""
        reply = heard.reply()
        record, judgement = await self._trust.judged(
            example, reply.choices[0], reply, drawing, limit=_limit(body)
        )
        return self.trusting.trust(record, judgement, f"{call.request_id}:{index}", call.warnings)

    async def decide(self, body: DecisionsBody, call: Call) -> dict[str, Any]:
        """Answers a decisions request.

        Raises:
            RequestError: A question cannot be asked, or the upstream failed.
        """
        if body.model not in (None, self.name):
            raise not_served(str(body.model), self.name)
        return await decide(self, body, call, self._limits)

    async def observe(
        self,
        asked: Asked,
        options: Sequence[str] | None,
        requests: Sequence[Request],
        call: Call,
    ) -> Seen:
        """Asks one question as the policy's questions were asked."""
        example, sent = await self._forwarding.question(asked, options, call.kept)
        example = of_category(example, self.trusting.judge, call.category)
        sent = self._for(call, sent)
        async with self._trust.drawing(sent, call.deadline) as drawing:
            _, reply = await read_answer(await self._connection.ask(sent, call.deadline))
            found = await self._trust.judged(example, reply.choices[0], reply, drawing)
        usage = [(reply.prompt_tokens, reply.completion_tokens), *drawing.usage]
        if any(None in counts for counts in usage):
            return Seen(*found)
        read, said = (sum(filter(None, counts)) for counts in zip(*usage, strict=True))
        return Seen(*found, prompt_tokens=read, completion_tokens=said)

    def decision_requests(self, *, options: bool) -> tuple[Request, ...]:
        """What to observe; options are not scored, since no endpoint is sure to show that."""
        return self.trusting.judge.requests

    def fields(self) -> frozenset[str]:
        """Names of the chat fields that are passed on or used."""
        return BEFORE_UPSTREAM

    def describe(self) -> Mapping[str, Any]:
        """The policy, and how its questions are worded, as the page shows it."""
        style = self._served.style
        return {
            "backend": "upstream",
            "explains": self.explains,
            "words_questions": self._served.words,
            "prompt_style": None if style is None else style.to_dict(),
            "policy": self.trusting.judge.describe(),
        }

    def gauges(self) -> Mapping[str, float | None]:
        """Whether the upstream was found to be the policy's, and answers without their samples."""
        identity = self._served.identity
        return {
            "upstream_verified": None if identity is None else int(identity.doubt is None),
            "upstream_samples_failed_total": self._trust.without_samples,
        }

    def trouble(self) -> str | None:
        """None: whether the upstream answers is only known by asking it."""
        return None

    async def start(self) -> None:
        """Begins to watch whether the upstream is the policy's; connections open when needed."""
        identity = self._served.identity
        if identity is not None:
            self._connection.gone = identity.lose
            self._watching = asyncio.create_task(identity.watch())

    async def stop(self) -> None:
        """Closes the connections."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._served.identity is not None:
            await self._served.identity.close()
        await self._connection.close()


async def _listed(events: Sequence[dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
    for event in events:
        yield event


def _example(body: ChatBody, style: PromptStyle | None) -> Example:
    """What the judge knows of a question that is passed on as it is; as its run recorded it."""
    texts: list[str] = []
    images: list[ImageRef] = []
    for message in body.messages:
        if message.role == "user" and isinstance(message.content, str):
            texts.append(message.content)
        elif message.role == "user":
            parts = message.content or ()
            texts += [part.text for part in parts if isinstance(part, TextPart)]
            images += [ImageRef("request", "") for part in parts if isinstance(part, ImagePart)]
    text = "\n".join(texts)
    question, choices = (None if style is None else taken_apart(text, style)) or (text, None)
    return Example("request", question, tuple(images), choices)


def _is_labelled(body: ChatBody) -> bool:
    """Whether the client has its question worded as the policy's were."""
    return body.trust is not None and body.trust.as_labelled is True


def _require_no_options(body: ChatBody) -> None:
    """Refuses options that a local model would be shown: the upstream never sees them.

    Raises:
        RequestError: There are some.
    """
    if options_in_chat(body):
        raise RequestError(
            "trust.choices are options that this server's own model is shown; the upstream is sent "
            "your messages as they are. Write the options into the question, or set "
            "trust.as_labelled.",
            param="trust.choices",
        )


def _limit(body: ChatBody) -> int | None:
    """Tokens that an answer may have, where the client says it."""
    return body.max_completion_tokens or body.max_tokens
