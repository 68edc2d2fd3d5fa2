"""What the model says of its own answer when it is asked about it.

The questions are those of `sightline.core.features.FOLLOW_UPS`, asked behind the answer under the
same image. Where one was asked in several wordings, the scores of those that can be read are
averaged; a record none of whose replies can be read is not scored. A model that reasons before it
replies shows no probability of its reply at its first token; read the reply itself there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UnscorableError, UsageError
from sightline.core.features import FIXED_REPLIES, Feature
from sightline.core.protocols import Cost
from sightline.core.text import parse_yes_no
from sightline.core.types import Record
from sightline.estimators.agreement import canonical_forms
from sightline.estimators.replies import (
    Guess,
    answer_with_confidence,
    stated_guesses,
    stated_phrase,
    stated_probability,
)
from sightline.estimators.signals import mean_count, require

MEANING: Mapping[Feature, tuple[float, ...]] = MappingProxyType(
    {
        # The middles of three equal parts of [0, 1]: an order, not a measured meaning.
        Feature.CONFIDENCE_WORD: (1 / 6, 1 / 2, 5 / 6),
        # Kent's words of estimative probability; of "probable", "probably not" and "almost
        # certainly not" the synonyms he gives, none of which begins another.
        Feature.CONFIDENCE_SCALE: (0.93, 0.75, 0.50, 0.30, 0.07),
    }
)
"""Probability that each of the fixed replies stands for."""


@dataclass(frozen=True, slots=True)
class JudgedTrue:
    """Probability that the model calls its own answer wrong, against calling it right.

    Attributes:
        form: Whether it was asked for true or false, or for yes or no.
        read: The probabilities of both replies in all their spellings, normalised over the two, or
            what the model replied (1 or 0).
        wording: Which wording of the question counts, from 1; 0 averages those that were asked.

    Source: P(True) of Kadavath et al. (2022), with the image in view. The paper's prompt shows
    brainstormed samples and options (A), (B); ours asks for the words and sums capitalisations.
    The VisualUE code keeps the mass on yes without normalising it.
    """

    form: Literal["p_true", "self_check"] = "p_true"
    read: Literal["probability", "stated"] = "probability"
    wording: int = 0

    family: ClassVar[str] = "verbal"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer, and the reply."""
        return frozenset({Feature.ANSWER, Feature(self.form)})

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − p(right) / (p(right) + p(wrong)), in [0, 1]."""
        require(records, self.needs, self)
        read = _wrong_mass if self.read == "probability" else _called_wrong
        return _over_wordings(records, Feature(self.form), self.wording, lambda _, r: read(r))

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill per wording, and the reply where it is read."""
        return _cost(records, Feature(self.form), self.wording, replies=self.read == "stated")


@dataclass(frozen=True, slots=True)
class WordConfidence:
    """One minus the confidence that the model gives its answer in words.

    Attributes:
        form: Low, medium or high; or a scale of five phrases from almost certain to highly
            doubtful.
        read: The mean over the phrases' probabilities, or the phrase the model replied.
        wording: Which wording of the question counts, from 1; 0 averages those that were asked.

    Source: linguistic confidence of Tian et al. (EMNLP 2023) and Xiong et al. (ICLR 2024); the
    phrases of the scale stand for the probabilities of Kent ("Words of Estimative Probability",
    1964), low, medium and high for 1/6, 1/2 and 5/6.
    """

    form: Literal["confidence_word", "confidence_scale"] = "confidence_word"
    read: Literal["expected", "stated"] = "expected"
    wording: int = 0

    family: ClassVar[str] = "verbal"
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer, and the reply."""
        return frozenset({Feature.ANSWER, Feature(self.form)})

    @property
    def is_probability(self) -> bool:
        """The phrases of the scale mean probabilities; low, medium and high are an order."""
        return self.form == "confidence_scale"

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − what the phrase stands for, in [0, 1]."""
        require(records, self.needs, self)
        question = Feature(self.form)
        meaning = MEANING[question]

        def read(_: Record, reply: Record) -> float | None:
            if self.read == "expected":
                shares = _reply_shares(reply, len(meaning))
                if shares is None:
                    return None
                return 1.0 - sum(p * m for p, m in zip(shares, meaning, strict=True))
            said = stated_phrase(reply.answer.text, FIXED_REPLIES[question])
            return None if said is None else 1.0 - meaning[said]

        return _over_wordings(records, question, self.wording, read)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill per wording, and the reply where it is read."""
        return _cost(records, Feature(self.form), self.wording, replies=self.read == "stated")


_COMBINED: Mapping[str, Callable[[list[float]], float]] = MappingProxyType(
    {"mean": fmean, "median": median, "min": max}  # of confidences; these are uncertainties
)


@dataclass(frozen=True, slots=True)
class VerbalisedConfidence:
    """One minus the probability of being right that the model states as a number.

    Attributes:
        form: The number alone, or reasoning first.
        aggregation: How the confidences under several wordings become one: their mean, their
            median, or the least (min).
        wording: Which wording of the question counts, from 1; 0 takes all that were asked.

    Source: self-probing of Xiong et al. (ICLR 2024) and its several prompts; their average weighted
    by agreement is the reading "share" of `answer_confidence`. The wordings are ours.
    """

    form: Literal["confidence_number", "confidence_reasoned"] = "confidence_number"
    aggregation: Literal["mean", "median", "min"] = "mean"
    wording: int = 0

    family: ClassVar[str] = "verbal"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer, and the reply."""
        return frozenset({Feature.ANSWER, Feature(self.form)})

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − stated probability, in [0, 1]."""
        require(records, self.needs, self)

        def read(_: Record, reply: Record) -> float | None:
            stated = stated_probability(reply.answer.text)
            return None if stated is None else 1.0 - stated

        combine = _COMBINED[self.aggregation]
        return _over_wordings(records, Feature(self.form), self.wording, read, combine)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill and one reply per wording."""
        return _cost(records, Feature(self.form), self.wording, replies=True)


@dataclass(frozen=True, slots=True)
class StatedGuesses:
    """How badly the answer fares among the answers that the model names when it is asked again.

    Guesses agree with the answer when both have the same short form, as `sample_agreement` compares
    them; of guesses that agree with one another the first counts.

    Attributes:
        form: Several guesses, the same with a probability each, or one answer with its confidence,
            with or without reasoning first.
        read: ``rank`` is the answer's place among the guesses, over their number (1 = not named);
            ``agreement`` whether it is named; ``stated`` one minus the probability stated for it
            (0 for an answer not named); ``share`` the other answers' share of all probability
            stated, under all wordings together.
        wording: Which wording of the question counts, from 1; 0 takes all that were asked.

    Source: top-k of Tian et al. (EMNLP 2023) and Xiong et al. (ICLR 2024). Of the latter,
    answer_confidence is the plain prompt, answer_confidence_reasoned chain of thought; over several
    prompts ``agreement`` is its consistency and ``share`` its average confidence (Avg-Conf). Left
    out are its multi-step prompt and Pair-Rank, whose likelihood has no maximum where lists agree.
    """

    form: Literal[
        "top_guesses", "guess_probabilities", "answer_confidence", "answer_confidence_reasoned"
    ] = "top_guesses"
    read: Literal["rank", "agreement", "stated", "share"] = "rank"
    wording: int = 0

    family: ClassVar[str] = "verbal"
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.form == "top_guesses" and self.is_probability:
            raise UsageError(
                f"read={self.read} of top_guesses, whose replies state no probability; rank or "
                "agreement is required. Use form=guess_probabilities for stated ones."
            )

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer, and the reply."""
        return frozenset({Feature.ANSWER, Feature(self.form)})

    @property
    def is_probability(self) -> bool:
        """Where probabilities were stated and are read."""
        return self.read in ("stated", "share")

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """In [0, 1]; see the readings."""
        require(records, self.needs, self)
        question = Feature(self.form)
        if self.read != "share":
            return _over_wordings(records, question, self.wording, self._read)
        return _scored(records, question, self._share)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill and one reply per wording."""
        return _cost(records, Feature(self.form), self.wording, replies=True)

    def _guesses(self, record: Record, reply: Record) -> tuple[str, dict[str, float | None]]:
        """The answer's short form, and the probability stated for each guess, by short form."""
        guesses = self._parsed(reply.answer.text)
        texts = (record.answer.text, *(guess.text for guess in guesses))
        mine, *theirs = canonical_forms(record.example, texts)
        named: dict[str, float | None] = {}
        for form, guess in zip(theirs, guesses, strict=True):
            named.setdefault(form, guess.probability)
        return mine, named

    def _parsed(self, text: str) -> list[Guess]:
        if self.form in ("top_guesses", "guess_probabilities"):
            return stated_guesses(text, with_probabilities=self.form == "guess_probabilities")
        return answer_with_confidence(text)

    def _read(self, record: Record, reply: Record) -> float | None:
        mine, named = self._guesses(record, reply)
        if not named:
            return None
        if self.read == "agreement":
            return float(mine not in named)
        if self.read == "rank":
            return list(named).index(mine) / len(named) if mine in named else 1.0
        stated = named.get(mine, 0.0)
        if stated is None or all(p is None for p in named.values()):
            return None
        return 1.0 - stated

    def _share(self, record: Record) -> float | None:
        total = agreeing = 0.0
        for reply in _asked(record, Feature(self.form), self.wording):
            mine, named = self._guesses(record, reply)
            stated = {form: p for form, p in named.items() if p is not None}
            total += math.fsum(stated.values())
            agreeing += stated.get(mine, 0.0)
        return 1.0 - agreeing / total if total > 0 else None


def _wrong_mass(reply: Record) -> float | None:
    shares = _reply_shares(reply, 2)
    return None if shares is None else shares[1]


def _called_wrong(reply: Record) -> float | None:
    said = parse_yes_no(reply.answer.text)
    return None if said is None else float(said == "no")


def _reply_shares(reply: Record, count: int) -> list[float] | None:
    """Probabilities of the fixed replies, normalised over them; None where not observed."""
    logprobs = reply.features.get(Feature.REPLY_LOGPROBS)
    if logprobs is None or len(logprobs) != count:
        return None
    largest = float(logprobs.max())
    masses = [math.exp(float(value) - largest) for value in logprobs]
    total = math.fsum(masses)
    return [mass / total for mass in masses]


def _asked(record: Record, question: Feature, wording: int) -> tuple[Record, ...]:
    """The replies to a question, in one wording or, for 0, in all."""
    replies = record.related.asked(question)
    suffix = question.value if wording == 1 else f"{question.value}.{wording}"
    return tuple(r for r in replies if wording == 0 or r.condition.endswith(f":{suffix}"))


def _over_wordings(
    records: Sequence[Record],
    question: Feature,
    wording: int,
    read: Callable[[Record, Record], float | None],
    combine: Callable[[list[float]], float] = fmean,
) -> Float[np.ndarray, " n"]:
    """Reads every reply to a question, and combines those of one record that can be read."""

    def score(record: Record) -> float | None:
        values = [read(record, reply) for reply in _asked(record, question, wording)]
        known = [value for value in values if value is not None]
        return combine(known) if known else None

    return _scored(records, question, score)


def _scored(
    records: Sequence[Record], question: Feature, score: Callable[[Record], float | None]
) -> Float[np.ndarray, " n"]:
    """One value per record.

    Raises:
        UnscorableError: Records without one.
    """
    values = [score(record) for record in records]
    unread = [row for row, value in enumerate(values) if value is None]
    if unread:
        raise UnscorableError(
            unread,
            f"no readable reply to {question.value}",
            "Ask in another wording, or read the reply in another way.",
        )
    return np.array(values, dtype=np.float64)


def _cost(records: Sequence[Record], question: Feature, wording: int, *, replies: bool) -> Cost:
    passes = mean_count([len(_asked(record, question, wording)) for record in records])
    return Cost(forward_passes=passes, generations=passes if replies else 0)
