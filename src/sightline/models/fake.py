"""A tiny deterministic model for unit tests: no weights, no torch, every feature.

Its answers are drawn from a hash of the question and the image's pixels, so they change with
either; its numbers have the right shapes, signs and sums, and mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xxhash

from sightline.audit.structure import dirichlet_energy, energy_map
from sightline.core.condition_names import BLANK, asked_condition
from sightline.core.errors import ModelError
from sightline.core.features import FIXED_REPLIES, Feature
from sightline.core.protocols import Request
from sightline.core.text import answer_form
from sightline.core.types import Example, Generation, Record
from sightline.data.prompt_forms import follow_up_of
from sightline.data.prompts import PromptStyle, follow_up_text, user_text

if TYPE_CHECKING:
    from PIL.Image import Image

_WORDS = ("yes", "no", "red", "blue", "green", "one", "two", "three", "circle", "square")
_END = len(_WORDS)
_DEPTH, _WIDTH, _SIDE = 4, 8, 3
_SAID = {
    Feature.CONFIDENCE_NUMBER: "{3}%",
    Feature.CONFIDENCE_REASONED: "It looks like it.\nConfidence: {3}%",
    Feature.ANSWER_CONFIDENCE: "Answer: {0}\nConfidence: {3}%",
    Feature.ANSWER_CONFIDENCE_REASONED: "I see {1}.\nAnswer: {0}\nConfidence: {3}%",
    Feature.TOP_GUESSES: "{1}, {0}, {2}",
    Feature.GUESS_PROBABILITIES: "{0}: {3}%\n{1}: {4}%\n{2}: {5}%",
}


@dataclass(frozen=True, slots=True)
class FakeModel:
    """Implements `sightline.core.protocols.VisionLanguageModel`.

    Attributes:
        style: How an example becomes the user's text.
        fails_on: Example ids that raise `ModelError`, to test quarantine.
    """

    style: PromptStyle = field(default_factory=PromptStyle)
    fails_on: frozenset[str] = frozenset()

    counts_prompts: ClassVar[bool] = True
    """It says how many tokens its prompts have: words, and one for each picture."""

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies this model."""
        return {"name": "fake", "revision": "1", "prompt_style": self.style.to_dict()}

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        given: Sequence[Sequence[int] | None] | None = None,
        counted: Callable[[Sequence[int]], None] | None = None,
    ) -> list[Record]:
        """Observes every example by itself; the blank record follows its clean one."""
        records: list[Record] = []
        read = given or [None] * len(examples)
        for example, own, ids in zip(examples, images, read, strict=True):
            if example.id in self.fails_on:
                raise ModelError(
                    f"Example {example.id!r} is set to fail; another example is required. "
                    "Remove it from fails_on."
                )
            records += self._observe_one(example, own, request, ids)
        if counted is not None:
            texts = [user_text(example, self.style).split() for example in examples]
            counted([len(text) + len(own) for text, own in zip(texts, images, strict=True)])
        return records

    def _observe_one(
        self,
        example: Example,
        images: tuple[Image, ...],
        request: Request,
        given: Sequence[int] | None,
    ) -> list[Record]:
        text = user_text(example, self.style)
        seen = b"".join(image.tobytes() for image in images)
        clean = _Shown(text, seen, example, request)
        features = clean.features()
        if given is not None:
            features[Feature.CLEAN_LOGPROBS] = clean.logprobs(given)
        if request.channels:
            features |= clean.channels(given)
        if not self.style.asks_for_letters:
            features.pop(Feature.LETTER_LOGPROBS, None)
        replies = [
            self._reply(name, example, clean.answer.text, seen, request)
            for name in request.asks
            if self.style.can_ask(name)
        ]
        if not request.blank or not images:
            return [clean.record(features), *replies]
        white = b"".join(bytes([255]) * len(image.tobytes()) for image in images)
        blank = _Shown(text, white, example, request)
        features[Feature.BLANK_LOGPROBS] = blank.logprobs(clean.greedy_ids)
        if request.options and example.choices is not None:
            texts, letters = blank.options()
            features[Feature.BLANK_OPTION_LOGPROBS] = texts
            if self.style.asks_for_letters:
                features[Feature.BLANK_LETTER_LOGPROBS] = letters
        own = {}
        if request.channels and answer_form(example) == "yes_no":
            own[Feature.YES_NO_LOGPROBS] = blank.yes_no()
        shown = Record(example, condition=BLANK, greedy=blank.answer, features=own)
        return [clean.record(features), shown, *replies]

    def _reply(
        self, name: str, example: Example, answer: str, pixels: bytes, request: Request
    ) -> Record:
        """What the model replies to a follow-up question."""
        question, _ = follow_up_of(name)
        text = follow_up_text(name, example, answer, self.style)
        rng = _Shown(text, pixels, example, request).rng("reply")
        replies = FIXED_REPLIES.get(question, ())
        features = {}
        if replies:
            dist = rng.dirichlet(np.ones(len(replies) + 1))[:-1]
            features[Feature.REPLY_LOGPROBS] = np.log(np.maximum(dist, 1e-12))
            said = replies[int(dist.argmax())]
        else:
            guesses = [answer or "nothing", *rng.choice(_WORDS, 2, replace=False)]
            first = int(rng.integers(34, 101))
            numbers = (first, (100 - first) // 2, (100 - first) // 3)
            said = _SAID[question].format(*guesses, *numbers)
        reply = Generation(said, finish_reason="stop")
        return Record(example, condition=asked_condition(name), greedy=reply, features=features)


class _Shown:
    """What the model shows on one question with one set of pixels."""

    def __init__(self, text: str, pixels: bytes, example: Example, request: Request) -> None:
        self._seed = xxhash.xxh3_128_intdigest(text.encode() + b"\x1f" + pixels)
        self._example, self._request, self._has_image = example, request, bool(pixels)
        self._dists = self.rng("distributions").dirichlet(np.full(_END + 1, 0.5), size=64)
        self.greedy_ids = self._decode(lambda dist, _: int(dist.argmax()))

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers that depend on question, pixels and purpose."""
        return np.random.default_rng([self._seed, xxhash.xxh3_64_intdigest(purpose.encode())])

    def _dist(self, step: int) -> np.ndarray:
        dist: np.ndarray = np.maximum(self._dists[step % 64], 1e-12)
        return dist

    def _decode(self, choose: Any) -> list[int]:
        ids: list[int] = []
        for step in range(self._request.max_new_tokens):
            ids.append(choose(self._dist(step), step))
            if ids[-1] == _END:
                break
        return ids

    def _sample(self, index: int) -> list[int]:
        name = f"{self._request.seed} {self._example.id} {index}"
        rng = self.rng(name)
        heat = self._request.temperature

        def choose(dist: np.ndarray, _: int) -> int:
            with np.errstate(over="ignore"):  # of the coldest, all but the likeliest are nothing
                warm = np.exp(np.log(dist / dist.max()) / heat)
            return int(rng.choice(len(warm), p=warm / warm.sum()))

        return self._decode(choose)

    def _sample_state(self, index: int) -> np.ndarray:
        said = ",".join(map(str, self._sample(index)))
        shape = (len(self.layers), _WIDTH)
        state: np.ndarray = self.rng(f"state {said}").normal(size=shape).astype(np.float16)
        return state

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities of tokens, (t,) nats."""
        return np.array([min(0.0, np.log(self._dist(t)[token])) for t, token in enumerate(ids)])

    def generation(self, ids: Sequence[int]) -> Generation:
        """Tokens as a generation."""
        words = [_WORDS[i] for i in ids if i != _END]
        return Generation(
            text=" ".join(words),
            token_ids=np.asarray(ids, dtype=np.int32),
            tokens=tuple("</s>" if i == _END else f" {_WORDS[i]}" for i in ids),
            logprobs=self.logprobs(ids),
            finish_reason="stop" if ids[-1] == _END else "length",
        )

    @property
    def answer(self) -> Generation:
        """The greedy answer."""
        return self.generation(self.greedy_ids)

    def options(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities of option texts and of option letters, (c,) each."""
        count = len(self._example.choices or ())
        dist = self.rng("options").dirichlet(np.ones(count + 1))[:count]
        letters = self.rng("letters").dirichlet(np.ones(count + 1))[:count]
        return np.log(np.maximum(dist, 1e-12)), np.log(np.maximum(letters, 1e-12))

    def yes_no(self) -> np.ndarray:
        """Log-probabilities of yes and no, (2,)."""
        dist = self.rng("yes no").dirichlet(np.ones(3))[:2]
        return np.log(np.maximum(dist, 1e-12))

    def channels(self, given: Sequence[int] | None) -> dict[Feature, np.ndarray]:
        """States of question, picture and answer, and the energy of the picture's tokens."""
        shape = (len(self.layers), _WIDTH)
        wanted = [Feature.CTX_OPEN, Feature.ANS_OPEN]
        if self._example.choices is not None:
            wanted += [Feature.CTX_MCQ, Feature.ANS_MCQ_FREE]
            wanted += [Feature.ANS_MCQ] if self._request.options else []
        found: dict[Feature, np.ndarray] = {
            feature: self.rng(feature.value).normal(size=shape).astype(np.float16)
            for feature in wanted
        }
        if given is not None:
            asked = Feature.ANS_OPEN if self._example.choices is None else Feature.ANS_MCQ_FREE
            purpose = asked.value if list(given) == self.greedy_ids else f"given {list(given)}"
            state = self.rng(purpose).normal(size=shape)
            found[Feature.ANS_FIXED] = state.astype(np.float16)
        if answer_form(self._example) == "yes_no":
            found[Feature.YES_NO_LOGPROBS] = self.yes_no()
        if self._has_image:
            tokens = self.rng("vision").normal(size=(_SIDE, _SIDE, _WIDTH))
            found[Feature.VISION_ENCODED] = tokens.mean((0, 1)).astype(np.float32)
            found[Feature.VISION_PROJECTED] = -found[Feature.VISION_ENCODED]
            found[Feature.VISION_ENERGY] = np.asarray(dirichlet_energy(tokens))
            found[Feature.VISION_ENERGY_NORMALISED] = np.asarray(
                dirichlet_energy(tokens, normalised=True)
            )
            found[Feature.ENERGY_MAP] = energy_map(tokens).astype(np.float32)
        return found

    def features(self) -> dict[Feature, np.ndarray]:
        """Every array the request asks for."""
        steps = range(len(self.greedy_ids))
        dists = np.stack([self._dist(t) for t in steps])
        found: dict[Feature, np.ndarray] = {
            Feature.TOKEN_ENTROPY: np.maximum(-(dists * np.log(dists)).sum(1), 0)
        }
        k = min(self._request.top_k_logprobs, _END + 1)
        if k:
            ranked = np.argsort(-dists, axis=1, kind="stable")[:, :k]
            found[Feature.TOP_TOKEN_IDS] = ranked.astype(np.int32)
            found[Feature.TOP_LOGPROBS] = np.log(np.take_along_axis(dists, ranked, 1))
        layers = self.layers
        if layers:
            shape = (len(layers), len(self.greedy_ids), _WIDTH)
            hidden = self.rng("hidden").normal(size=shape).astype(np.float16)
            found[Feature.HIDDEN] = hidden
            found[Feature.PROMPT_HIDDEN] = hidden[:, 0].copy()
            if self._has_image:
                mean = self.rng("image").normal(size=(len(layers), _WIDTH))
                found[Feature.IMAGE_HIDDEN] = mean.astype(np.float16)
        if layers and self._request.sample_hidden and self._request.n_samples:
            states = [self._sample_state(i) for i in range(self._request.n_samples)]
            found[Feature.SAMPLE_HIDDEN] = np.stack(states, 1)
        if self._request.options and self._example.choices is not None:
            found[Feature.OPTION_LOGPROBS], found[Feature.LETTER_LOGPROBS] = self.options()
            lengths = [len(choice.split()) + 1 for choice in self._example.choices]
            found[Feature.OPTION_LENGTHS] = np.asarray(lengths, dtype=np.int32)
        return found

    @property
    def layers(self) -> tuple[int, ...]:
        """Requested depths as indices, doubles left out."""
        asked = (round(f * _DEPTH) if isinstance(f, float) else f for f in self._request.layers)
        return tuple(dict.fromkeys(asked))

    def record(self, features: dict[Feature, np.ndarray]) -> Record:
        """The clean record."""
        samples = (self._sample(i) for i in range(self._request.n_samples))
        return Record(
            self._example,
            greedy=self.answer,
            samples=tuple(self.generation(ids) for ids in samples),
            features=features,
            layers=self.layers,
        )
