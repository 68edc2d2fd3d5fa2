"""Scores from the probabilities of the greedy answer's own tokens; they cost nothing extra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UnscorableError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.signals import (
    FREE,
    Ragged,
    answer_logprobs,
    per_answer_token,
    require,
)


@dataclass(frozen=True, slots=True)
class SequenceProbability:
    """One minus the probability of the whole answer.

    Below a probability of 1e-16 the result rounds to 1 and no longer ranks;
    `negative_log_likelihood` ranks alike and never rounds.

    Source: the maximum-softmax baseline of Hendrycks and Gimpel (ICLR 2017), over a sequence.
    """

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.LOGPROBS})
    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − Π p, in [0, 1]."""
        return np.asarray(-np.expm1(_logprobs(self, records).sum()))

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


@dataclass(frozen=True, slots=True)
class NegativeLogLikelihood:
    """Negative log-probability of the whole answer.

    Source: "maximum sequence probability" of Fadeeva et al. (LM-Polygraph, EMNLP 2023); equal.
    """

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.LOGPROBS})
    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """−Σ log p, in nats, ≥ 0."""
        return -_logprobs(self, records).sum()

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


@dataclass(frozen=True, slots=True)
class LengthNormalisedProbability:
    """One minus the geometric mean of the answer's token probabilities.

    Source: "length-normalised scoring" of Malinin and Gales (ICLR 2021).
    """

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.LOGPROBS})
    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − (Π p)^(1/t), in [0, 1]."""
        return np.asarray(-np.expm1(_logprobs(self, records).mean()))

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Logarithm of the answer's perplexity: mean negative log-probability per token.

    The logarithm ranks as the perplexity itself and cannot overflow. Ranks as
    `length_normalised_probability`, which is a probability.

    Source: "perplexity" of Fadeeva et al. (LM-Polygraph, EMNLP 2023), which is this logarithm too.
    """

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.LOGPROBS})
    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """−(1/t) Σ log p, in nats, ≥ 0."""
        return -_logprobs(self, records).mean()

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


@dataclass(frozen=True, slots=True)
class TokenProbability:
    """One minus the first, the smallest or the mean probability of the answer's tokens.

    Attributes:
        over: The first token, the least probable one (min), or the mean over all.
    """

    over: Literal["first", "min", "mean"] = "first"

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.LOGPROBS})
    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − p, in [0, 1]."""
        doubt = _logprobs(self, records).map(lambda logprobs: -np.expm1(logprobs))
        if self.over == "first":
            return doubt.first()
        return doubt.max() if self.over == "min" else doubt.mean()

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


@dataclass(frozen=True, slots=True)
class TokenEntropy:
    """First, mean or largest entropy of the next-token distributions along the answer.

    Attributes:
        over: The first token, the mean over all, or the token with the largest entropy (max).

    Source: Fomicheva et al. (TACL 2020) and LM-Polygraph for the mean; equal to the latter.
    """

    over: Literal["first", "mean", "max"] = "mean"

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.ANSWER, Feature.TOKEN_ENTROPY})
    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Entropy over the full vocabulary, in nats, ≥ 0."""
        require(records, self.needs, self)
        entropy = Ragged.of(per_answer_token(records, Feature.TOKEN_ENTROPY))
        if self.over == "first":
            return entropy.first()
        return entropy.max() if self.over == "max" else entropy.mean()

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


@dataclass(frozen=True, slots=True)
class TokenMargin:
    """One minus the lead of the most likely token over the next one.

    Attributes:
        over: The first token, the smallest lead of the answer, or the mean lead.

    Source: "probability margin" of Scheffer et al. (2001), as used for language models.
    """

    over: Literal["first", "min", "mean"] = "first"

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.ANSWER, Feature.TOP_LOGPROBS})
    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − (p₁ − p₂), in [0, 1].

        Raises:
            UnscorableError: Only one token per position was recorded.
        """
        require(records, self.needs, self)
        tops = per_answer_token(records, Feature.TOP_LOGPROBS)
        narrow = [row for row, top in enumerate(tops) if top.shape[1] < 2]
        if narrow:
            raise UnscorableError(
                narrow,
                "fewer than 2 tokens in top_logprobs; a token margin requires 2",
                "Collect with more top log-probabilities.",
            )
        best = Ragged.of([top[:, 0] for top in tops])
        second = Ragged.of([top[:, 1] for top in tops])
        doubt = best.map(lambda logprobs: np.exp(second.values) - np.expm1(logprobs))
        if self.over == "first":
            return doubt.first()
        return doubt.max() if self.over == "min" else doubt.mean()

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


def _logprobs(
    estimator: SequenceProbability
    | NegativeLogLikelihood
    | LengthNormalisedProbability
    | Perplexity
    | TokenProbability,
    records: Sequence[Record],
) -> Ragged:
    require(records, estimator.needs, estimator)
    return answer_logprobs(record.answer for record in records)
