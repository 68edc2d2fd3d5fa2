"""Chat and decisions answered by a local model."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Record
from sightline.data.prompts import PromptStyle
from sightline.serving.calls import Call
from sightline.serving.completions import (
    choice,
    chunks,
    completion,
    refused,
    token_logprobs,
    with_top_logprobs,
)
from sightline.serving.decisions import decide
from sightline.serving.departures import departures, set_fields
from sightline.serving.engine import Engine, Seen, Told
from sightline.serving.errors import RequestError, not_served
from sightline.serving.explained import explained
from sightline.serving.fetching import Fetch
from sightline.serving.fields import LOCAL
from sightline.serving.image_files import digest_of, require_pixels
from sightline.serving.images import Decoders
from sightline.serving.limits import Limits
from sightline.serving.questions import Asked, asked_in_chat, example_of, options_in_chat
from sightline.serving.streaming import streamed
from sightline.serving.trust import Trusting, held_to_limit, of_category, without_confidence
from sightline.serving.wire import ChatBody, DecisionsBody
from sightline.serving.wordings import as_asked

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_TOP = "top_logprobs is not used: of sampled answers only their own tokens are observed"


@runtime_checkable
class SpellsTokens(Protocol):
    """A model that can show tokens as text."""

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        ...


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded picture of a request, and the SHA-256 of its file."""

    digest: str
    image: Image


class LocalModel:
    """Answers with one local model through its engine.

    Args:
        name: What clients call the model.
        model: The model, for showing its tokens only; the engine owns it.
        engine: Observes and judges.
        fetch: From image addresses to bytes.
        decoders: From bytes to pixels.
        limits: Limits on requests.
        trusting: Its judge is the engine's.
        style: How the model's questions are worded.
    """

    def __init__(
        self,
        name: str,
        model: object,
        engine: Engine,
        fetch: Fetch,
        decoders: Decoders,
        limits: Limits,
        trusting: Trusting,
        style: PromptStyle,
    ) -> None:
        self.name, self.explains = name, True
        self._style = style
        self._spells = model if isinstance(model, SpellsTokens) else None
        self._engine, self._judge = engine, trusting.judge
        self.trusting = trusting
        self._fetch, self._decoders, self._limits = fetch, decoders, limits

    async def complete(self, body: ChatBody, call: Call) -> dict[str, Any]:
        """Answers a chat request.

        Raises:
            RequestError: The local model cannot do what is asked, or the engine refuses.
        """
        return await self._completed(body, call)

    async def _completed(
        self, body: ChatBody, call: Call, told: Told | None = None
    ) -> dict[str, Any]:
        self._check(body)
        asked = asked_in_chat(body, self._limits)
        options = options_in_chat(body)
        seed = _seed(body) if body.temperature else None
        requests = self._greedy(body) if seed is None else self._sampling(body)
        seen, pictures = await self._observed(asked, options, requests, call, told, seed)
        warnings = call.warnings
        if seed is not None and body.top_logprobs:
            warnings += (_NO_TOP,)
        doubts = departures(body) if self._judge.calibrator is not None else ()
        answers = [seen] * (body.n or 1) if seed is None else self._sampled(seen)
        fitted = self._judge.requests[0].max_new_tokens
        made = []
        for index, one in enumerate(answers):
            judgement = one.judgement
            for doubt in doubts:
                judgement = without_confidence(judgement, doubt)
            judgement = held_to_limit(judgement, one.record, requests[0].max_new_tokens, fitted)
            trust = self.trusting.trust(
                one.record, judgement, f"{call.request_id}:{index}", warnings
            )
            if seed is not None:
                trust["seed"] = seed
            shown = self._logprobs(body, one.record)
            made.append(choice(index, one.record.answer, trust, logprobs=shown))
            withheld = call.refuse and judgement.abstain
            if body.trust is not None and body.trust.explain and not index:
                made[-1]["trust"]["explanation"] = (
                    None if withheld else await self._explained(one, pictures, requests[0], call)
                )
            if withheld:
                made[-1] = refused(made[-1], judgement)
        counts = [one.record.answer.n_tokens for one in answers]
        return completion(
            request_id=call.request_id,
            created=call.created,
            model=self.name,
            choices=made,
            prompt_tokens=seen.prompt_tokens,
            completion_tokens=None if None in counts else sum(filter(None, counts)),
        )

    async def stream(self, body: ChatBody, call: Call) -> AsyncGenerator[dict[str, Any], None]:
        """The same in chunks.

        One greedy answer flows as it is generated, where the model tells it. Where answers may be
        withheld, and where several are asked for or sampled, the chunks begin when all is done.
        """
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        if self._engine.tells and not (call.refuse or body.temperature or (body.n or 1) > 1):
            head = {"id": call.request_id, "created": call.created, "model": self.name}
            return await streamed(
                lambda told: self._completed(body, call, told), head, include_usage=usage
            )
        whole = await self._completed(body, call)

        async def parts() -> AsyncGenerator[dict[str, Any], None]:
            for part in chunks(whole, include_usage=usage):
                yield part

        return parts()

    async def decide(self, body: DecisionsBody, call: Call) -> dict[str, Any]:
        """Answers a decisions request.

        Raises:
            RequestError: A question cannot be asked, or the engine refuses.
        """
        self._require_name(body.model)
        return await decide(self, body, call, self._limits)

    def fields(self) -> frozenset[str]:
        """Names of the chat fields that mean something to it."""
        return LOCAL

    def describe(self) -> Mapping[str, Any]:
        """The policy, and how questions are worded, as the page shows it."""
        return {
            "backend": "local",
            "explains": self.explains,
            "words_questions": True,
            "prompt_style": self._style.to_dict(),
            "policy": self._judge.describe(),
        }

    def gauges(self) -> Mapping[str, float | None]:
        """What the engine has done."""
        counts = self._engine.counts
        return {
            "engine_queue": self._engine.waiting,
            "engine_batches_total": counts.batches,
            "engine_observed_total": counts.observed,
            "engine_dropped_total": counts.dropped,
            "engine_busy_seconds_total": counts.busy_s,
        }

    def trouble(self) -> str | None:
        """Why the engine is down, or None."""
        return self._engine.failed

    async def start(self) -> None:
        """Starts the engine and a decoder."""
        self._engine.start()
        await self._decoders.start()

    async def stop(self) -> None:
        """Stops engine and decoders."""
        await asyncio.to_thread(self._engine.stop)
        await self._decoders.close()

    async def observe(
        self,
        asked: Asked,
        options: Sequence[str] | None,
        requests: Sequence[Request],
        call: Call,
    ) -> Seen:
        """Observes one question as the requests say."""
        seen, _ = await self._observed(asked, options, requests, call)
        return seen

    async def _observed(
        self,
        asked: Asked,
        options: Sequence[str] | None,
        requests: Sequence[Request],
        call: Call,
        told: Told | None = None,
        seed: int | None = None,
    ) -> tuple[Seen, tuple[Image, ...]]:
        pictures = [
            await call.kept.get(address, partial(self._picture, address, asked.param, call))
            for address in asked.images
        ]
        images = tuple(one.image for one in pictures)
        require_pixels(sum(i.width * i.height for i in images), self._limits, asked.param)
        digests = [one.digest for one in pictures]
        asked, options = as_asked(asked, options, self._style)
        example = of_category(example_of(asked, digests, options), self._judge, call.category)
        if seed is not None:
            # Of the example, not of the request: requests of all seeds are observed together.
            example = replace(example, id=f"{example.id}-{seed}")
        seen = await self._engine.observe(
            example, images, requests, deadline=call.deadline, told=told
        )
        return seen, images

    async def _picture(self, address: str, param: str, call: Call) -> _Picture:
        """The picture behind an address; those of all questions of a request are counted."""
        (data,) = await self._fetch([address], param)
        digest = await digest_of(data)
        image = await self._decoders.image(data, param, call.salt + digest)
        call.kept.pixels += image.width * image.height
        require_pixels(call.kept.pixels, self._limits, param)
        return _Picture(digest, image)

    async def _explained(
        self, seen: Seen, pictures: tuple[Image, ...], request: Request, call: Call
    ) -> dict[str, Any]:
        return await explained(
            self._engine,
            seen.record,
            pictures,
            max_new_tokens=request.max_new_tokens,
            deadline=call.deadline,
        )

    def decision_requests(self, *, options: bool) -> tuple[Request, ...]:
        """What to observe for a decision; scores of the options share out what is left over."""
        return tuple(replace(r, options=r.options or options) for r in self._judge.requests)

    def _require_name(self, name: str | None) -> None:
        if name is not None and name != self.name:
            raise not_served(name, self.name)

    def _check(self, body: ChatBody) -> None:
        self._require_name(body.model)
        for name in set_fields(body):
            if name != "top_p":  # samples heed it, and greedy answers do not change by it
                raise RequestError(
                    f"{name} is not supported by the local model; answers are the model's own, "
                    "greedy or sampled. Leave it out.",
                    param=name,
                    code="unsupported_parameter",
                )
        if body.top_logprobs and self._spells is None:
            raise RequestError(
                "top_logprobs is not supported by this model, which cannot spell single tokens. "
                "Leave it out.",
                param="top_logprobs",
                code="unsupported_parameter",
            )

    def _greedy(self, body: ChatBody) -> tuple[Request, ...]:
        limit = body.max_completion_tokens or body.max_tokens
        top = body.top_logprobs or 0
        return tuple(
            replace(
                request,
                max_new_tokens=limit or request.max_new_tokens,
                top_k_logprobs=max(request.top_k_logprobs, top),
            )
            for request in self._judge.requests
        )

    def _sampling(self, body: ChatBody) -> tuple[Request, ...]:
        base = self._greedy(body)[0]
        return (
            Request(
                max_new_tokens=base.max_new_tokens,
                n_samples=body.n or 1,
                temperature=body.temperature or 1.0,
                top_p=body.top_p or 1.0,
                top_k_logprobs=0,
            ),
        )

    def _sampled(self, seen: Seen) -> list[Seen]:
        """Each sample as an answer of its own."""
        found = []
        for sample in seen.record.samples:
            record = Record(seen.record.example, greedy=sample)
            found.append(Seen(record, self._judge.judge([record])[0]))
        return found

    def _logprobs(self, body: ChatBody, record: Record) -> dict[str, Any] | None:
        shown = token_logprobs(record.answer) if body.logprobs else None
        if shown is None or not body.top_logprobs or self._spells is None:
            return shown
        if not record.has(Feature.TOP_TOKEN_IDS):
            return shown
        ids = record.array(Feature.TOP_TOKEN_IDS)[:, : body.top_logprobs]
        spelled = [self._spells.token_texts(row.tolist()) for row in ids]
        return with_top_logprobs(shown, record, body.top_logprobs, spelled)


def _seed(body: ChatBody) -> int:
    """The client's seed, or a fresh one that every JSON reader keeps exactly."""
    return secrets.randbits(53) if body.seed is None else body.seed
