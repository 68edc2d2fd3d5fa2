"""The types everything else stands on: examples, generations, records.

Logarithms are natural (nats). ``None`` means "not observable"; an observed array is finite, never
NaN. Axes of arrays are named in `sightline.core.features`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sightline.core.array_checks import checked_array, frozen_vector
from sightline.core.condition_names import (
    ASKED,
    BLANK,
    CLEAN,
    INJECTED,
    NEGATED,
    NOISE,
    UNRELATED,
    has_family,
    question_of,
)
from sightline.core.errors import DataError, MissingFeatureError
from sightline.core.features import (
    ARRAY_AXES,
    FIXED_REPLIES,
    FOLLOW_UPS,
    Feature,
    how_to_observe,
)

FinishReason = Literal["stop", "length", "unknown"]
Scalar = str | int | float | bool
Truth = Literal["same", "changed", "unknown"]
"""Whether the right answer under a condition is that of the clean question."""


class Key(NamedTuple):
    """What identifies a record within a run."""

    example_id: str
    condition: str


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of an example: where it lies and what bytes it must have.

    Attributes:
        path: File path; relative paths are resolved against the run's image root.
        sha256: Hex digest of the file's bytes.
    """

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Example:
    """One question about zero or more images.

    Attributes:
        id: Unique within a dataset.
        question: The user's question, without any answer instruction.
        images: In the order the question refers to them.
        choices: Option texts in letter order (A, B, …), or None for a free answer.
        references: Accepted answers; for multiple choice, letters. Repeats are votes.
        group: Rows that share it are not independent and are never split apart.
        question_type: Used for the within-type figures, or None.
        meta: Further scalar facts (difficulty, category, …).
    """

    id: str
    question: str
    images: tuple[ImageRef, ...] = ()
    choices: tuple[str, ...] | None = None
    references: tuple[str, ...] = ()
    group: str = ""
    question_type: str | None = None
    meta: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not self.id:
            raise DataError("Example with an empty id; ids are required and unique. Give it one.")
        if not self.group:
            object.__setattr__(self, "group", self.id)
        if self.choices is not None and len(self.choices) < 2:
            raise DataError(
                f"Example {self.id!r} has {len(self.choices)} choice(s); multiple choice requires "
                "at least 2. Leave choices out for a free answer."
            )

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the choices: A, B, … Z, AA, AB, …; empty for a free answer."""
        return choice_letters(len(self.choices or ()))


def choice_letters(count: int) -> tuple[str, ...]:
    """Returns the first ``count`` option letters: A to Z, then AA, AB and so on."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    single = [alphabet[i] for i in range(min(count, 26))]
    double = [alphabet[i // 26 - 1] + alphabet[i % 26] for i in range(26, count)]
    return tuple(single + double)


@dataclass(frozen=True, slots=True)
class Generation:
    """One text a model produced, with what was observed while it did.

    ``token_ids``, ``tokens`` and ``logprobs`` cover the whole generation, end token included, and
    have equal lengths where present.

    Attributes:
        text: The answer, without special tokens and without the reasoning prefix.
        token_ids: Int32 (t,), or None where not observable.
        tokens: Decoded tokens, or None.
        logprobs: Float64 (t,), nats, ≤ 0, of the raw distribution before temperature, or None.
        finish_reason: ``stop`` (end token), ``length`` (cut off) or ``unknown``.
        reasoning: Text before the answer (``<think>…</think>``), or None.
        answer_start: Index of the first token of the answer; tokens before it are reasoning.
    """

    text: str
    token_ids: Int[np.ndarray, " t"] | None = None
    tokens: tuple[str, ...] | None = None
    logprobs: Float[np.ndarray, " t"] | None = None
    finish_reason: FinishReason = "unknown"
    reasoning: str | None = None
    answer_start: int = 0

    def __post_init__(self) -> None:
        lengths = {
            name: len(value)
            for name in ("token_ids", "tokens", "logprobs")
            if (value := getattr(self, name)) is not None
        }
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"Generation {_clip(self.text)!r} has lengths {lengths}; token_ids, tokens and "
                "logprobs must have one entry per token. Leave out what was not observed."
            )
        if 0 in lengths.values():
            raise DataError(
                f"Generation {_clip(self.text)!r} has an empty token list; observed lists hold at "
                "least one token. Leave them out (null) if tokens were not observed."
            )
        if self.token_ids is not None:
            object.__setattr__(self, "token_ids", frozen_vector(self.token_ids, np.int32))
        if self.logprobs is not None:
            logprobs = frozen_vector(self.logprobs, np.float64)
            bad = ~np.isfinite(logprobs) | (logprobs > 0)
            if bad.any():
                at = int(np.flatnonzero(bad)[0])
                raise DataError(
                    f"Log-probability {logprobs[at]} at token {at} of {_clip(self.text)!r}; "
                    "log-probabilities must be finite and at most 0, in nats. "
                    "Fix the values or leave logprobs out."
                )
            object.__setattr__(self, "logprobs", logprobs)
        if not 0 <= self.answer_start <= max(lengths.values(), default=0):
            raise DataError(
                f"answer_start {self.answer_start} of {_clip(self.text)!r} lies outside the "
                f"{max(lengths.values(), default=0)} observed tokens; it must index the first "
                "answer token. Use 0 where there is no reasoning."
            )

    @property
    def is_empty(self) -> bool:
        """Whether the answer has no visible character."""
        return not self.text.strip()

    @property
    def is_truncated(self) -> bool:
        """Whether the token limit cut the generation off."""
        return self.finish_reason == "length"

    @property
    def n_tokens(self) -> int | None:
        """Generated tokens, end token and reasoning included, or None where not observed."""
        for value in (self.logprobs, self.token_ids, self.tokens):
            if value is not None:
                return len(value)
        return None

    @property
    def answer_logprobs(self) -> Float[np.ndarray, " t"] | None:
        """Log-probabilities of the answer's own tokens (reasoning excluded, end token included)."""
        return None if self.logprobs is None else self.logprobs[self.answer_start :]


@dataclass(frozen=True, slots=True)
class Related:
    """Records linked to one record, filled by `sightline.core.records.link`.

    Attributes:
        conditions: The same example under other conditions, same run.
        rotations: The same question with its options in another order, same run and condition.
        models: The same example and condition in other runs.
        follow_ups: What the model replied when asked about this record's answer, same run.
    """

    conditions: tuple[Record, ...] = ()
    rotations: tuple[Record, ...] = ()
    models: tuple[Record, ...] = ()
    follow_ups: tuple[Record, ...] = ()

    @property
    def views(self) -> tuple[Record, ...]:
        """Conditions under which the right answer stays the same.

        Neither blank nor negated, no follow-up question, no picture that names a wrong answer, and
        none whose truth changes or is not known.
        """
        return tuple(c for c in self._equivalent if c.truth == "same")

    @property
    def left_out(self) -> tuple[Record, ...]:
        """Conditions that are no views only because their truth changes or is not known."""
        return tuple(c for c in self._equivalent if c.truth != "same")

    @property
    def _equivalent(self) -> tuple[Record, ...]:
        return tuple(
            c
            for c in self.conditions
            if not any(has_family(c.condition, family) for family in _NO_VIEWS)
        )

    @property
    def noised(self) -> tuple[Record, ...]:
        """Conditions of noise alone under which this record's answer was read, weakest first."""
        found = [
            c
            for c in self.conditions
            if c.condition.partition(":")[0] == NOISE
            and "+" not in c.condition
            and c.has(Feature.CLEAN_LOGPROBS)
        ]
        return tuple(sorted(found, key=lambda c: float(c.condition.partition(":")[2])))

    @property
    def blank(self) -> tuple[Record, ...]:
        """The same question with a blank image: what the model answers from language alone."""
        return tuple(c for c in self.conditions if has_family(c.condition, BLANK))

    @property
    def negations(self) -> tuple[Record, ...]:
        """Conditions that ask for the opposite, so that the right answer changes."""
        return tuple(c for c in self.conditions if has_family(c.condition, NEGATED))

    def asked(self, question: Feature) -> tuple[Record, ...]:
        """Replies to a follow-up question, one record per wording that was asked."""
        return tuple(
            f for f in self.follow_ups if f.greedy and question_of(f.condition) == question
        )


@dataclass(frozen=True, slots=True)
class Record:
    """Everything one model showed on one example under one condition.

    Attributes:
        example: The question asked.
        condition: ``clean``, ``blank``, ``asked:NAME`` or ``family:level`` joined by ``+``.
        greedy: The answer being judged; None only where a condition recorded samples alone.
        samples: Drawn at the run's sampling temperature.
        features: Arrays by `Feature`, read-only, finite, of the axes in `ARRAY_AXES`.
        layers: Layer indices along the ``l`` axis of layered features (0 = embeddings).
        truth: Whether the example's references hold under the condition, as it was decided when
            the record was made; ``same`` where nothing was to decide.
        related: Linked records; empty until linked.
    """

    example: Example
    condition: str = CLEAN
    greedy: Generation | None = None
    samples: tuple[Generation, ...] = ()
    features: Mapping[Feature, np.ndarray] = field(default_factory=lambda: MappingProxyType({}))
    layers: tuple[int, ...] = ()
    truth: Truth = "same"
    related: Related = Related()

    def __post_init__(self) -> None:
        frozen = {
            feature: checked_array(feature, array, _sizes(self, feature), where=self.key)
            for feature, array in self.features.items()
        }
        object.__setattr__(self, "features", MappingProxyType(frozen))

    @property
    def key(self) -> Key:
        """(example id, condition), unique within a run."""
        return Key(self.example.id, self.condition)

    @property
    def answer(self) -> Generation:
        """The greedy generation.

        Raises:
            MissingFeatureError: The record holds samples only.
        """
        if self.greedy is None:
            raise MissingFeatureError(
                f"Record {self.key} has no greedy answer; this step requires one. "
                "Collect or import the answer of this condition."
            )
        return self.greedy

    def has(self, feature: Feature) -> bool:
        """Whether the signal was observed on this record."""
        if feature in ARRAY_AXES:
            return feature in self.features
        return _HAS[feature](self)

    def missing(self, needs: frozenset[Feature]) -> tuple[Feature, ...]:
        """The needed features this record lacks, in the order of the enum."""
        if all(map(self.has, needs)):
            return ()
        return tuple(f for f in Feature if f in needs and not self.has(f))

    def array(self, feature: Feature) -> np.ndarray:
        """Returns an array feature.

        Raises:
            MissingFeatureError: It was not observed.
        """
        if feature not in self.features:
            raise MissingFeatureError(
                f"Record {self.key} has no {feature.value}; it was not observed. "
                f"{how_to_observe([feature])}, or leave out what needs it."
            )
        return self.features[feature]

    def with_related(self, related: Related) -> Record:
        """Returns this record with other linked records."""
        return replace(self, related=related)


def _is_asked(question: Feature) -> Callable[[Record], bool]:
    return lambda record: len(record.related.asked(question)) > 0


_HAS: Mapping[Feature, Callable[[Record], bool]] = {
    Feature.ANSWER: lambda r: r.greedy is not None,
    Feature.LOGPROBS: lambda r: r.greedy is not None and r.greedy.logprobs is not None,
    Feature.SAMPLES: lambda r: len(r.samples) > 0,
    Feature.SAMPLE_LOGPROBS: lambda r: (
        len(r.samples) > 0 and all(s.logprobs is not None for s in r.samples)
    ),
    Feature.CHOICES: lambda r: r.example.choices is not None,
    Feature.QUESTION_TYPE: lambda r: r.example.question_type is not None,
    Feature.CONDITIONS: lambda r: any(c.greedy or c.samples for c in r.related.views),
    Feature.BLANK_ANSWER: lambda r: any(c.greedy for c in r.related.blank),
    Feature.NOISED_LOGPROBS: lambda r: len(r.related.noised) > 0,
    Feature.NEGATIONS: lambda r: any(c.greedy or c.samples for c in r.related.negations),
    Feature.ROTATIONS: lambda r: any(o.greedy for o in r.related.rotations),
    Feature.MODELS: lambda r: any(o.greedy for o in r.related.models),
    **{question: _is_asked(question) for question in FOLLOW_UPS},
}


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An example that could not be observed, kept as a row with its reason."""

    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A condition that does not exist for an example, kept as a row with its reason."""

    key: Key
    reason: str


_NO_VIEWS = (BLANK, NEGATED, ASKED, INJECTED, UNRELATED)


def _clip(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _sizes(record: Record, feature: Feature) -> dict[str, int | None]:
    """Lengths of those axes of a feature that the record fixes."""
    return {axis: _SIZES[axis](record) for axis in ARRAY_AXES.get(feature, ()) if axis in _SIZES}


def _reply_count(condition: str) -> int | None:
    question = question_of(condition)
    return next((len(FIXED_REPLIES[f]) for f in FIXED_REPLIES if f.value == question), None)


_SIZES: Mapping[str, Callable[[Record], int | None]] = {
    "t": lambda record: 0 if record.greedy is None else record.greedy.n_tokens,
    "l": lambda record: len(record.layers),
    "c": lambda record: len(record.example.choices or ()),
    "m": lambda record: len(record.samples),
    "a": lambda record: 1 + len(record.samples),
    "r": lambda record: _reply_count(record.condition),
}
