"""Standing before another OpenAI-compatible server: its answers, with our trust.

What a client sends is checked and rebuilt from an allow-list (`sightline.serving.forwarding`);
log-probabilities are added as the judge needs them and taken out again where the client did not
ask; all else of the answer passes through. An answer is judged as its model's answers were
collected, so where there is a policy, what the client leaves open (temperature, length) is set as
it was then.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Generation, Record
from sightline.models.openai.reading import generation, top_logprobs
from sightline.models.openai.wire import Choice, MalformedReplyError, Reply
from sightline.serving.calls import Call
from sightline.serving.completions import chunks, refused
from sightline.serving.decisions import decide
from sightline.serving.engine import Seen
from sightline.serving.fetching import Fetch
from sightline.serving.forwarding import SENT, Forwarding, Served
from sightline.serving.limits import Limits
from sightline.serving.questions import Asked
from sightline.serving.replies import Heard, chained, ordered, parts_of, read_answer
from sightline.serving.trust import (
    Judgement,
    Trusting,
    held_to_limit,
    of_category,
    without_confidence,
)
from sightline.serving.upstream import Connection, garbled
from sightline.serving.wire import ChatBody, DecisionsBody, TextPart

_OURS = frozenset({"model", "messages", "stream", "stream_options", "logprobs", "top_logprobs"})
_QUICK_S = 0.002
"""A judge that takes less is asked on the event loop: a thread would cost more."""

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
        self.name, self.explains = served.name, False
        self.trusting = trusting
        self._served, self._connection, self._limits = served, connection, limits
        self._asked = trusting.judge.requests[-1]
        fitted = trusting.judge.calibrator is not None
        self._forwarding = Forwarding(served, self._asked, fetch, limits, fitted=fitted)
        self._judging_s = math.inf

    async def complete(self, body: ChatBody, raw: Mapping[str, Any], call: Call) -> dict[str, Any]:
        """Answers a chat request.

        Raises:
            RequestError: The request cannot be passed on, or the upstream failed.
        """
        document, reply, samples = await self._answered(await self._forwarding.chat(body))
        example = self._example(body, call)
        shown_choices = ordered(document["choices"])
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
        document |= {"id": call.request_id, "model": self.name, "choices": shown_choices}
        document.pop("trust", None)  # what the upstream calls so is not ours
        return document

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
        sent = await self._forwarding.chat(body)
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
        example, heard = self._example(body, call), dict[int, Heard]()
        try:
            async with aclosing(chained(first, events)) as all_events:
                async for event in all_events:
                    for part in parts_of(event):
                        part.pop("trust", None)  # what the upstream calls so is not ours
                        one = heard.setdefault(part["index"], Heard())
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
                    event.pop("trust", None)
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
        example, sent = await self._forwarding.question(asked, options)
        example = of_category(example, self.trusting.judge, call.category)
        _, reply, samples = await self._answered(sent)
        record = self._record(example, reply.choices[0], samples)
        return Seen(record, await self._judged(record, reply))

    def decision_requests(self, *, options: bool) -> tuple[Request, ...]:
        """What to observe; options are not scored, since no endpoint is sure to show that."""
        return self.trusting.judge.requests

    def fields(self) -> frozenset[str]:
        """Names of the chat fields that are passed on or used."""
        return SENT | _OURS | {"trust"}

    def describe(self) -> Mapping[str, Any]:
        """The policy, as the page shows it."""
        return {
            "backend": "upstream",
            "explains": self.explains,
            "policy": self.trusting.judge.describe(),
        }

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

    def _example(self, body: ChatBody, call: Call) -> Example:
        """What the judge knows of the question."""
        return of_category(_example(body), self.trusting.judge, call.category)

    async def _answered(
        self, sent: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Reply, tuple[Generation, ...]]:
        """The upstream's answer, and the samples that the judge needs, asked for together."""
        if not self._asked.n_samples:
            return *await read_answer(await self._connection.ask(sent)), ()
        answered, samples = await asyncio.gather(self._connection.ask(sent), self._samples(sent))
        return *await read_answer(answered), samples

    async def _samples(self, sent: Mapping[str, Any]) -> tuple[Generation, ...]:
        """Sampled answers, where the judge needs them."""
        wanted = self._forwarding.samples(sent)
        if wanted is None:
            return ()
        _, reply = await read_answer(await self._connection.ask(wanted))
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
        judgement = await self._judge(record)
        reason = self._changed(reply)
        if reason is None and body is not None and body.temperature:
            reason = "sampled answer: the policy was fitted on greedy ones (temperature 0)"
        if reason is not None:
            return without_confidence(judgement, reason)
        limit = None if body is None else body.max_completion_tokens or body.max_tokens
        fitted = self._asked.max_new_tokens
        return held_to_limit(judgement, record, limit or fitted, fitted)

    async def _judge(self, record: Record) -> Judgement:
        """Asks the judge, beside the event loop unless it took little time before."""
        if self._judging_s < _QUICK_S:
            return self._timed(record)
        return await asyncio.to_thread(self._timed, record)

    def _timed(self, record: Record) -> Judgement:
        started = time.thread_time()
        judgement = self.trusting.judge.judge([record])[0]
        self._judging_s = time.thread_time() - started
        return judgement

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


async def _listed(events: Sequence[dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
    for event in events:
        yield event


def _example(body: ChatBody) -> Example:
    """What the judge knows of the question."""
    texts: list[str] = []
    for message in body.messages:
        if message.role == "user" and isinstance(message.content, str):
            texts.append(message.content)
        elif message.role == "user":
            texts += [part.text for part in message.content or () if isinstance(part, TextPart)]
    choices = None if body.trust is None else body.trust.choices
    return Example("request", "\n".join(texts), choices=tuple(choices) if choices else None)
