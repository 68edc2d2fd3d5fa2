"""A model behind an OpenAI-compatible endpoint, observed as far as the endpoint shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from sightline.core.condition_names import BLANK, asked_condition
from sightline.core.errors import EndpointError, ModelError, UsageError
from sightline.core.features import FIXED_REPLIES, Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Generation, Record
from sightline.data.prompt_forms import FOLLOW_UP_FORMS, follow_up_of
from sightline.data.prompts import PromptStyle, follow_up_text, user_text
from sightline.models.inputs import as_int32, blank_images
from sightline.models.openai.background import wait_for
from sightline.models.openai.capabilities import NEUTRAL, SCORED, Capabilities
from sightline.models.openai.forecasting import SAMPLES_PER_REQUEST
from sightline.models.openai.reading import generation, top_logprobs
from sightline.models.openai.scoring import (
    Continuation,
    cases,
    continuation,
    logprob_of_spellings,
)
from sightline.models.openai.settings import WORDS, EndpointSettings
from sightline.models.openai.showing import unseen, worded_there
from sightline.models.openai.token_scores import groups, listed, naming, token_ids
from sightline.models.openai.transport import Transport
from sightline.models.openai.wire import Choice, Reply, data_url, user_turn

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt and the model's greedy answer to it."""

    turn: dict[str, Any]
    reply: Reply
    answer: Generation

    @property
    def choice(self) -> Choice:
        return self.reply.choices[0]


@dataclass(frozen=True, slots=True)
class EndpointModel:
    """Implements `sightline.core.protocols.VisionLanguageModel` over HTTP.

    Attributes:
        name: What the server calls the model.
        settings: Where it is, and how hard it may be asked.
        capabilities: What it was seen to do.
        identity: What the server says of itself and the model.
        transport: Sends the requests.
        style: How an example becomes the user's text.
        blank_colour: Colour of the image that stands for "no image".
    """

    name: str
    settings: EndpointSettings
    capabilities: Capabilities
    identity: Mapping[str, Any]
    transport: Transport = field(repr=False, compare=False)
    style: PromptStyle = field(default_factory=PromptStyle)
    blank_colour: str = "white"
    _kept: dict[Any, list[Record] | ModelError] = field(
        default_factory=dict, repr=False, compare=False
    )
    _token_ids: dict[str, asyncio.Task[int | None]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies model and server, and all that affects results; no address, no key."""
        found = self.capabilities
        return {
            "name": self.name,
            "endpoint": "openai",
            **self.identity,
            "capabilities": found.to_dict(),
            "logprob_space": found.logprob_space,
            "prompt_style": self.style.to_dict(),
            "blank_image": self.blank_colour,
            "image_format": self.settings.image_format,
            "generation_settings": "neutral" if found.neutral else "the server's",
            "samples": self._sampling(),
        }

    def unobservable(self, request: Request) -> str | None:
        """One line on what is asked for and cannot be seen here; None where all can."""
        line = unseen(request, self.capabilities)
        return line if self.wording is None else f"{line} {self.wording}"

    @property
    def wording(self) -> str | None:
        """One line on a server that words questions itself; None where it does not."""
        own = self.identity.get(WORDS)
        return None if own is None else worded_there(own, self.style)

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        given: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Record]:
        """Observes a batch; see `sightline.core.protocols.VisionLanguageModel.observe`.

        Token ids cannot be sent to an endpoint, so ``given`` answers are not scored. What a batch
        has shown before one of its examples failed is kept until it is asked for again.

        Raises:
            ModelError: The server fails on an example, or refuses it.
            EndpointError: No server answers, or another model does; what was collected stays.
            UsageError: The server takes no pictures.
        """
        if self.capabilities.images == "refused" and any(images):
            raise UsageError(
                f"openai:{self.name} refuses pictures; a vision-language model is required. "
                "Choose another, or leave the pictures out."
            )
        keys = [
            (example.id, request, tuple(xxhash.xxh3_128_digest(image.tobytes()) for image in own))
            for example, own in zip(examples, images, strict=True)
        ]
        wait_for(self._observe_all(keys, examples, images, request))
        shown = [self._kept[key] for key in keys]
        failed = next((kept for kept in shown if isinstance(kept, ModelError)), None)
        if failed is None or len(keys) == 1:
            for key in keys:
                self._kept.pop(key, None)
        if failed is not None:
            raise ModelError(str(failed))
        return [record for kept in shown if not isinstance(kept, ModelError) for record in kept]

    async def _observe_all(
        self,
        keys: Sequence[Any],
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
    ) -> None:
        async def one(key: Any, example: Example, own: tuple[Image, ...]) -> None:
            try:
                self._kept[key] = await self._records(example, own, request)
            except ModelError as error:
                self._kept[key] = ModelError(f"Example {example.id!r}: {error}")

        tasks = [
            asyncio.ensure_future(one(key, example, own))
            for key, example, own in zip(keys, examples, images, strict=True)
            if key not in self._kept
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _records(
        self, example: Example, images: tuple[Image, ...], request: Request
    ) -> list[Record]:
        text = user_text(example, self.style)
        asked = await self._greedy(self._turn(text, images), request)
        samples, options, blank, replies = await asyncio.gather(
            self._samples(asked.turn, example, request),
            self._options(asked, example, request),
            self._blank(asked, example, images, request),
            asyncio.gather(
                *(
                    self._reply(name, example, images, asked.answer.text)
                    for name in request.asks
                    if self.style.can_ask(name)
                )
            ),
        )
        features = {**options, **blank[1]}
        steps = asked.choice.steps
        if steps and asked.answer.logprobs is not None and request.top_k_logprobs:
            top = top_logprobs(steps, request.top_k_logprobs)
            if top is not None:
                features[Feature.TOP_LOGPROBS] = top
        clean = Record(example, greedy=asked.answer, samples=tuple(samples), features=features)
        return [clean, *blank[0], *replies]

    def _turn(self, text: str, images: Sequence[Image]) -> dict[str, Any]:
        return user_turn(text, [data_url(image, self.settings.image_format) for image in images])

    async def _greedy(self, turn: dict[str, Any], request: Request) -> _Asked:
        reply = await self._complete([turn], tokens=request.max_new_tokens, top=True)
        answer = generation(reply.choices[0], logprobs=self.capabilities.logprobs)
        return _Asked(turn, reply, answer)

    async def _samples(
        self, turn: dict[str, Any], example: Example, request: Request
    ) -> list[Generation]:
        size = SAMPLES_PER_REQUEST if self.capabilities.n else 1
        parts = [
            (start, min(size, request.n_samples - start))
            for start in range(0, request.n_samples, size)
        ]

        async def draw(start: int, count: int) -> tuple[Choice, ...]:
            drawing: dict[str, Any] = {
                "temperature": request.temperature,
                "top_p": request.top_p,
            }
            if count > 1:
                drawing["n"] = count
            if self.capabilities.seed:
                drawing["seed"] = sample_seed(request.seed, example.id, start)
            reply = await self._complete(
                [turn],
                tokens=request.max_new_tokens,
                repeatable=self.capabilities.seed,
                **drawing,
            )
            if len(reply.choices) != count:
                raise ModelError(
                    f"the server gave {len(reply.choices)} of {count} samples; all are required. "
                    "Look at its limits."
                )
            return reply.choices

        drawn = await asyncio.gather(*(draw(start, count) for start, count in parts))
        keep = self._keeps_sample_logprobs(request)
        return [generation(choice, logprobs=keep) for part in drawn for choice in part]

    async def _options(
        self, asked: _Asked, example: Example, request: Request
    ) -> dict[Feature, np.ndarray]:
        """Log-probabilities of options and letters, as far as the server scores them."""
        if not request.options or example.choices is None:
            return {}
        found: dict[Feature, np.ndarray] = {}
        if self.capabilities.prompt_logprobs:
            scored = await self._scored(asked, [choice.strip() for choice in example.choices])
            whole = [one for one in scored if one is not None and one.end is not None]
            if len(whole) == len(scored):
                sums = [sum(one.logprobs) + (one.end or 0.0) for one in whole]
                found[Feature.OPTION_LOGPROBS] = np.array(sums)
                found[Feature.OPTION_LENGTHS] = as_int32([len(o.logprobs) + 1 for o in whole])
        if self.style.asks_for_letters:
            letters = await self._beginnings(asked, [(letter,) for letter in example.letters])
            if letters is not None:
                found[Feature.LETTER_LOGPROBS] = letters
        return found

    async def _blank(
        self, asked: _Asked, example: Example, images: tuple[Image, ...], request: Request
    ) -> tuple[list[Record], dict[Feature, np.ndarray]]:
        """The record under a blank image, and what the clean one keeps of it."""
        if not request.blank or not images:
            return [], {}
        text = user_text(example, self.style)
        turn = self._turn(text, blank_images(images, self.blank_colour))
        blank = await self._greedy(turn, request)
        options = await self._options(blank, example, request)
        features = {_BLANK_OF[f]: options[f] for f in _BLANK_OF if f in options}
        values = await self._rescored(asked, blank)
        if values is not None:
            features[Feature.BLANK_LOGPROBS] = values
        return [Record(example, condition=BLANK, greedy=blank.answer)], features

    async def _rescored(self, asked: _Asked, blank: _Asked) -> np.ndarray | None:
        """Log-probabilities of the clean answer's tokens behind the blank prompt, (t,)."""
        answer = asked.answer
        if not self.capabilities.prompt_logprobs or answer.tokens is None or answer.answer_start:
            return None
        (scored,) = await self._scored(blank, [answer.text])
        if scored is None:
            return None
        values = list(scored.logprobs)
        spelled = [piece.text for piece in scored.pieces]
        if len(answer.tokens) == len(values) + 1 and scored.end is not None:
            values.append(scored.end)
        same = [token.strip() for token in answer.tokens[: len(spelled)]]
        if len(values) != len(answer.tokens) or same != [token.strip() for token in spelled]:
            return None
        return np.array(values)

    async def _reply(
        self, name: str, example: Example, images: tuple[Image, ...], answer: str
    ) -> Record:
        """What the model replies to a follow-up question."""
        question, _ = follow_up_of(name)
        turn = self._turn(follow_up_text(name, example, answer, self.style), images)
        limit = FOLLOW_UP_FORMS[question].max_new_tokens
        asked = await self._greedy(turn, Request(max_new_tokens=limit, top_k_logprobs=0))
        features = {}
        replies = FIXED_REPLIES.get(question, ())
        values = await self._beginnings(asked, [cases(r) for r in replies]) if replies else None
        if values is not None:
            features[Feature.REPLY_LOGPROBS] = values
        condition = asked_condition(name)
        return Record(example, condition=condition, greedy=asked.answer, features=features)

    async def _beginnings(
        self, asked: _Asked, wanted: Sequence[Sequence[str]]
    ) -> np.ndarray | None:
        """Log-probability that the answer begins with each of the texts, in any spelling."""
        steps, answer = asked.choice.steps, asked.answer
        readable = self.capabilities.logprobs and answer.tokens is not None
        first = answer.answer_start
        found = await self._named(asked, wanted)
        if steps and readable and first < len(steps):
            found = [
                logprob_of_spellings(steps[first], spellings) if value is None else value
                for value, spellings in zip(found, wanted, strict=True)
            ]
        if first == 0 and self.capabilities.prompt_logprobs:
            for at, spellings in enumerate(wanted):
                if found[at] is None:
                    scored = await self._scored(asked, spellings)
                    sums = [sum(one.logprobs) for one in scored if one is not None]
                    if sums:
                        found[at] = min(0.0, float(np.logaddexp.reduce(sums)))
        values = [value for value in found if value is not None]
        return np.array(values) if len(values) == len(wanted) else None

    async def _named(self, asked: _Asked, wanted: Sequence[Sequence[str]]) -> list[float | None]:
        """As `_beginnings`, of those whose tokens the server shows where they are named by id."""
        found: list[float | None] = [None] * len(wanted)
        choice, most = asked.choice, self.capabilities.top_logprobs
        begins = choice.reasoning is None and not asked.answer.answer_start
        if not self.capabilities.named_tokens or not begins or not choice.steps:
            return found
        ids = [
            await token_ids(self.transport, self.name, spellings, self._token_ids)
            for spellings in wanted
        ]
        for group in groups([len(own) for own in ids], most):
            named = [one for at in group for one in ids[at]]
            if not named:
                continue
            reply = await self._complete([asked.turn], tokens=1, **naming(named, most))
            steps = reply.choices[0].steps
            if steps and steps[0].chosen.raw == choice.steps[0].chosen.raw:
                for at in group:
                    found[at] = listed(steps[0], wanted[at], len(ids[at]))
        return found

    async def _scored(self, asked: _Asked, texts: Sequence[str]) -> list[Continuation | None]:
        """Each text as an answer behind the prompt; None where it could not be read off."""
        start = asked.reply.prompt_tokens

        async def score(text: str) -> Continuation | None:
            turns = [asked.turn, {"role": "assistant", "content": text}]
            reply = await self._complete(turns, tokens=1, **SCORED)
            if start is None or reply.prompt_pieces is None:
                return None
            return continuation(reply.prompt_pieces[start:], text)

        return list(await asyncio.gather(*map(score, texts)))

    async def _complete(
        self,
        turns: Sequence[dict[str, Any]],
        *,
        tokens: int,
        top: bool = False,
        repeatable: bool = True,
        **fields: Any,
    ) -> Reply:
        found = self.capabilities
        payload: dict[str, Any] = {
            "model": self.name,
            "messages": list(turns),
            found.limit_field: tokens,
            "temperature": 0,
            **(NEUTRAL if found.neutral else {}),
            **({"logprobs": True} if found.logprobs else {}),
            **({"return_token_ids": True} if found.token_ids else {}),
            **fields,
        }
        if top and found.top_logprobs:
            payload["top_logprobs"] = found.top_logprobs
        reply = await self.transport.complete(payload, repeatable=repeatable)
        if None not in (reply.model, found.answers_as) and reply.model != found.answers_as:
            raise EndpointError(
                f"openai:{self.name} now answers as {reply.model!r}, before as "
                f"{found.answers_as!r}; one model for a whole run is required. Start another run."
            )
        return reply

    def _keeps_sample_logprobs(self, request: Request) -> bool:
        """Whether samples show log-probabilities of the raw distribution."""
        return self.capabilities.keeps_sample_logprobs(request.temperature, request.top_p)

    def _sampling(self) -> str:
        size = SAMPLES_PER_REQUEST if self.capabilities.n else 1
        return f"{size} a request, {'seeded' if self.capabilities.seed else 'without a seed'}"


_BLANK_OF = {
    Feature.OPTION_LOGPROBS: Feature.BLANK_OPTION_LOGPROBS,
    Feature.LETTER_LOGPROBS: Feature.BLANK_LETTER_LOGPROBS,
}


def sample_seed(seed: int, example_id: str, index: int) -> int:
    """Seed of a sample from run seed, example and index, as everywhere; 31 bits."""
    return xxhash.xxh3_128_intdigest(f"{seed}\x1f{index}\x1f{example_id}".encode()) % 2**31
