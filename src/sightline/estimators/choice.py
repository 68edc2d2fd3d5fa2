"""Scores from the probabilities a model gives to the options of a multiple-choice question.

`Scores` says which: ``letters`` (log p of the option letters), ``options`` (log p of the option
texts, summed over their tokens) or ``options_per_token`` (that sum per token, so that long texts
are not penalised). Each is normalised over the options.

The judged answer is the greedy text, and that need not name the most probable option:
`ChoiceMaxProbability` looks at the favourite, `ChoiceAnswerProbability` at the option answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.text import parse_choice
from sightline.core.types import Record
from sightline.estimators.signals import FREE, Ragged, per_choice, require

Scores = Literal["letters", "options", "options_per_token"]

_FEATURES: Mapping[Scores, frozenset[Feature]] = {
    "letters": frozenset({Feature.CHOICES, Feature.LETTER_LOGPROBS}),
    "options": frozenset({Feature.CHOICES, Feature.OPTION_LOGPROBS}),
    "options_per_token": frozenset(
        {Feature.CHOICES, Feature.OPTION_LOGPROBS, Feature.OPTION_LENGTHS}
    ),
}


def choice_logprobs(records: Sequence[Record], scores: Scores) -> Ragged:
    """Log-probabilities over the options, normalised, one array per record."""
    if scores == "letters":
        return per_choice(records, Feature.LETTER_LOGPROBS).log_softmax()
    summed = per_choice(records, Feature.OPTION_LOGPROBS)
    if scores == "options":
        return summed.log_softmax()
    lengths = per_choice(records, Feature.OPTION_LENGTHS).values
    return summed.map(lambda values: values / lengths).log_softmax()


@dataclass(frozen=True, slots=True)
class ChoiceMaxProbability:
    """One minus the probability of the most probable option.

    Attributes:
        scores: Whose probabilities count, normalised over the options: those of their letters,
            of their texts (options), or of their texts per token (options_per_token).

    Source: Hendrycks and Gimpel (ICLR 2017).
    """

    scores: Scores = "letters"

    family: ClassVar[str] = "choice"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Feature]:
        """The scores of the options."""
        return _FEATURES[self.scores]

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − max p, in [0, 1)."""
        require(records, self.needs, self)
        return np.asarray(-np.expm1(choice_logprobs(records, self.scores).max()))

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer's prefill."""
        return FREE


@dataclass(frozen=True, slots=True)
class ChoiceAnswerProbability:
    """One minus the probability of the option that the answer names.

    An answer that names no option, or several, has probability 0.

    Attributes:
        scores: Whose probabilities count, normalised over the options: those of their letters,
            of their texts (options), or of their texts per token (options_per_token).
    """

    scores: Scores = "letters"

    family: ClassVar[str] = "choice"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer and the scores of the options."""
        return _FEATURES[self.scores] | {Feature.ANSWER}

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − p, in [0, 1]."""
        require(records, self.needs, self)
        answered = np.array([_answered(record) for record in records], dtype=np.int64)
        logprobs = choice_logprobs(records, self.scores).at(np.maximum(answered, 0))
        return np.where(answered < 0, 1.0, -np.expm1(logprobs))

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer's prefill."""
        return FREE


@dataclass(frozen=True, slots=True)
class ChoiceMargin:
    """One minus the lead of the most probable option over the next one.

    Attributes:
        scores: Whose probabilities count, normalised over the options: those of their letters,
            of their texts (options), or of their texts per token (options_per_token).
    """

    scores: Scores = "letters"

    family: ClassVar[str] = "choice"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Feature]:
        """The scores of the options."""
        return _FEATURES[self.scores]

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − (p₁ − p₂), in [0, 1]."""
        require(records, self.needs, self)
        ranked = choice_logprobs(records, self.scores).descending()
        second = ranked.at(np.ones_like(ranked.starts))
        return np.asarray(np.exp(second) - np.expm1(ranked.first()))

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer's prefill."""
        return FREE


@dataclass(frozen=True, slots=True)
class ChoiceEntropy:
    """Entropy of the distribution over the options.

    Attributes:
        scores: Whose probabilities count, normalised over the options: those of their letters,
            of their texts (options), or of their texts per token (options_per_token).
    """

    scores: Scores = "letters"

    family: ClassVar[str] = "choice"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Feature]:
        """The scores of the options."""
        return _FEATURES[self.scores]

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Entropy in nats, between 0 and the logarithm of the number of options."""
        require(records, self.needs, self)
        logprobs = choice_logprobs(records, self.scores)
        return logprobs.map(lambda values: -np.exp(values) * values).sum()

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer's prefill."""
        return FREE


def _answered(record: Record) -> int:
    """Index of the option the answer names, or -1."""
    letter = parse_choice(record.answer.text, record.example.choices or ())
    return -1 if letter is None else record.example.letters.index(letter)
