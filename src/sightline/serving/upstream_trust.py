"""What an upstream showed of an answer, judged: its record, its samples, and what speaks against.

Samples are drawn at once where the judge's first look needs them, and else only for an answer that
the cheaper signals leave undecided; never for one that cannot have a confidence. Whatever speaks
against an answer (the upstream is not known to be the policy's, it was asked otherwise, it gave too
few samples, or none) takes its confidence, and never the answer itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.models.openai.reading import generation, top_logprobs
from sightline.models.openai.wire import Choice, Reply
from sightline.serving.errors import RequestError, let_go
from sightline.serving.forwarding import Forwarding, Served
from sightline.serving.replies import read_answer
from sightline.serving.trust import Judge, Judgement, held_to_limit, without_confidence
from sightline.serving.upstream import Connection

_FINISHED = ("stop", "length", "eos", "eos_token")
"""How servers call the end of an answer; one that reached its limit is judged by its length."""

Usage = tuple[int | None, int | None]
"""Tokens of a prompt and of what was said to it; None where the upstream does not say."""

BARE = "the answer came without log-probabilities: the policy was fitted on answers that had them"

_QUICK_S = 0.002
"""A judge that takes less is asked on the event loop: a thread would cost more."""


class Drawing:
    """The samples of one question: drawn once, for all of its choices, when first needed.

    Args:
        connection: To the upstream.
        requests: What draws them.
        deadline: Of `time.monotonic`, for the last of them.
        keeps_logprobs: Whether their log-probabilities mean what the answer's do.
        doubts: Why no confidence will hold for the answer; there are no samples then.
        alike: Whether the question is asked in every setting as the policy's were.

    Attributes:
        failed: Why there are none, once that is known.
        usage: Tokens of prompt and answers of each reply, as the upstream reports them.
    """

    def __init__(
        self,
        connection: Connection,
        requests: Sequence[Mapping[str, Any]],
        deadline: float,
        *,
        keeps_logprobs: bool,
        doubts: Sequence[str],
        alike: bool,
    ) -> None:
        self._connection, self._requests = connection, requests
        self._keeps_logprobs, self._deadline = keeps_logprobs, deadline
        self._task: asyncio.Task[tuple[Generation, ...]] | None = None
        self.doubts, self.alike = tuple(doubts), alike
        self.failed: str | None = None
        self.usage: list[Usage] = []

    def begin(self) -> asyncio.Task[tuple[Generation, ...]]:
        """Sends the requests, if they were not sent yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._all())
        return self._task

    async def drawn(self) -> tuple[Generation, ...]:
        """The samples; none where that failed."""
        try:
            return await self.begin()
        except RequestError as error:
            let_go(error)
            self.failed = str(error)
            return ()

    async def end(self) -> None:
        """Gives up what is still being drawn."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None  # one that failed holds its frames, and they hold this

    async def _all(self) -> tuple[Generation, ...]:
        parts = [asyncio.create_task(self._some(request)) for request in self._requests]
        try:
            drawn = await asyncio.gather(*parts)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        return tuple(generation for some in drawn for generation in some)

    async def _some(self, request: Mapping[str, Any]) -> list[Generation]:
        _, reply = await read_answer(await self._connection.ask(request, self._deadline))
        self.usage.append((reply.prompt_tokens, reply.completion_tokens))
        return [generation(choice, logprobs=self._keeps_logprobs) for choice in reply.choices]


class UpstreamTrust:
    """Judges the answers of an upstream.

    Args:
        served: The upstream's model.
        judge: Says what is thought of an answer.
        forwarding: Makes the requests for samples.
        connection: To the upstream.
    """

    def __init__(
        self, served: Served, judge: Judge, forwarding: Forwarding, connection: Connection
    ) -> None:
        self._served, self._judge = served, judge
        self._forwarding, self._connection = forwarding, connection
        self._asked = judge.requests[-1]
        self._at_once = judge.requests[0].n_samples > 0
        self._judging_s = math.inf
        self.without_samples = 0

    @asynccontextmanager
    async def drawing(
        self,
        sent: Mapping[str, Any],
        deadline: float,
        doubts: Sequence[str] = (),
        *,
        alike: bool = True,
    ) -> AsyncIterator[Drawing]:
        """The samples of a question, for as long as it is being answered.

        Args:
            sent: The request for the answer.
            deadline: Of `time.monotonic`, for its samples, too.
            doubts: Why a policy's confidence does not hold for it, whatever the answer.
            alike: Whether it is asked in every setting as the policy's were.
        """
        judged = self._judge.calibrator is not None
        doubts = (*self._of_identity(), *doubts, *self._unlike(sent)) if judged else ()
        found = Drawing(
            self._connection,
            self._forwarding.samples(sent),
            deadline,
            keeps_logprobs=self._forwarding.keeps_sample_logprobs,
            doubts=doubts,
            alike=alike,
        )
        if judged and self._served.identity is not None:
            self._served.identity.glance()
        if self._at_once and not doubts:
            found.begin()
        try:
            yield found
        finally:
            await found.end()
            self.without_samples += found.failed is not None

    async def judged(
        self,
        example: Example,
        choice: Choice,
        reply: Reply,
        drawing: Drawing,
        *,
        limit: int | None = None,
    ) -> tuple[Record, Judgement]:
        """What was observed of one answer, and what is thought of it.

        Args:
            example: The question.
            choice: The answer.
            reply: What it came with.
            drawing: Its samples.
            limit: Tokens that it could have, where that was not as for the policy.
        """
        samples = await drawing.drawn() if self._at_once and not drawing.doubts else ()
        record = self._record(example, choice, samples)
        judgement = await self._look(record)
        if self._judge.calibrator is None:
            return record, judgement
        await self._compare(reply, choice, drawing)
        found = dict.fromkeys([*drawing.doubts, *self._doubts(reply, choice)])
        reasons = [one for one in found if one not in judgement.warnings]
        if choice.finish_reason not in _FINISHED:
            reasons.append(
                "the upstream ended its answer without saying that it was finished: it may be cut"
                if choice.finish_reason is None
                else f"the upstream ended its answer by {choice.finish_reason[:40]!r}: the policy "
                "was fitted on answers that were finished"
            )
        if judgement.undecided and not self._at_once and self._asked.n_samples and not reasons:
            samples = await drawing.drawn()
            record = self._record(example, choice, samples)
            judgement = await self._look(record)
        if drawing.failed is not None:
            reasons.append(f"the upstream gave no samples: {drawing.failed}")
        if samples and len(samples) != self._asked.n_samples:
            reasons.append(
                f"the upstream gave {len(samples)} of {self._asked.n_samples} samples: the policy "
                f"was fitted on {self._asked.n_samples}"
            )
        if reasons and self._at_once and not samples:
            # That there are none follows from the reasons.
            judgement = replace(judgement, warnings=())
        for reason in reasons:
            judgement = without_confidence(judgement, reason)
        fitted = self._asked.max_new_tokens
        return record, held_to_limit(judgement, record, limit or fitted, fitted)

    def _record(self, example: Example, choice: Choice, samples: tuple[Generation, ...]) -> Record:
        """What the upstream showed of one answer."""
        answer = generation(choice, logprobs=self._forwarding.keeps_logprobs)
        features = {}
        if self._asked.top_k_logprobs and answer.tokens is not None and choice.steps is not None:
            top = top_logprobs(choice.steps, self._asked.top_k_logprobs)
            if top is not None:
                features[Feature.TOP_LOGPROBS] = top
        return Record(example, greedy=answer, samples=samples, features=features)

    async def _look(self, record: Record) -> Judgement:
        """Asks the judge, beside the event loop unless it took little time before."""
        if self._judging_s < _QUICK_S:
            return self._timed(record, time.perf_counter)
        # Other threads may run in between: only the time of this one counts.
        return await asyncio.to_thread(self._timed, record, time.thread_time)

    def _timed(self, record: Record, clock: Callable[[], float]) -> Judgement:
        started = clock()
        judgement = self._judge.judge([record])[0]
        self._judging_s = clock() - started
        return judgement

    async def _compare(self, reply: Reply, choice: Choice, drawing: Drawing) -> None:
        """Takes in what the answer, and what the upstream lists, say of who answered."""
        identity = self._served.identity
        if identity is not None:
            if not drawing.doubts:
                identity.hear(reply, choice, self._served.models, alike=drawing.alike)
            await identity.glanced()

    def _unlike(self, sent: Mapping[str, Any]) -> list[str]:
        """That the question has more or fewer pictures than the policy's."""
        turns = [turn.get("content") for turn in sent["messages"]]
        parts = [part for turn in turns if isinstance(turn, list) for part in turn]
        reason = self._served.unlike(sum(part["type"] == "image_url" for part in parts))
        return [] if reason is None else [reason]

    def _of_identity(self) -> list[str]:
        identity = self._served.identity
        return [] if identity is None or identity.doubt is None else [identity.doubt]

    def _doubts(self, reply: Reply, choice: Choice) -> list[str]:
        """Why the policy may not know the upstream, or this answer of it."""
        served, found = self._served, self._of_identity()
        if reply.model is not None and reply.model not in served.models:
            found.append(
                f"the upstream says that {reply.model[:80]!r} answered; the policy was fitted on "
                f"{served.name!r}"
            )
        if served.identity is not None and served.identity.lacks_logprobs(choice):
            found.append(BARE)
        return found
