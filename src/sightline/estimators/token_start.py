"""Where a scorer's log-odds start: a logistic regression on all that it reads, averaged.

It reads the answer's log-probabilities, the mean of its hidden states and which words the question
and the answer hold. What depends on how these stand together is left to the network beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.estimators.learning import fit_logistic, standardiser
from sightline.estimators.token_sequence import ANSWER, QUESTION, TokenSequence

LIMIT = 12.0
"""Log-odds of an answer's probability are held within this of 0."""

PROBABILITY_WEIGHT = 10.0
"""Standard deviation that the log-odds of the answer's probability are given beside 1 for every
other feature, so that the penalty hardly touches them."""

STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2)
"""Weights of the data against the penalty to choose from."""

MIDDLE = 3e-3
"""The one with which layers are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class StartInputs:
    """What the start reads of several answers.

    Attributes:
        numbers: Log-probabilities summed up, mean states, mean states over the image, (n, f).
        words: Whether the question, then whether the answer holds each observed row, (n, w).
        rows: What `word_rows` calls each of these, (w,).
        weighted: How many of the first numbers are log-odds of the answer's probability, 0 or 1.
    """

    numbers: Float[np.ndarray, "n f"]
    words: Float[np.ndarray, "n w"]
    rows: Int[np.ndarray, " w"]
    weighted: int

    @classmethod
    def of(cls, answers: Sequence[TokenSequence], table_rows: int) -> StartInputs:
        """Reads them off laid-out answers."""
        held = [word_rows(answer, table_rows) for answer in answers]
        rows = np.unique(np.concatenate(held))
        words = np.zeros((len(answers), len(rows)))
        for words_of_one, found in zip(words, held, strict=True):
            words_of_one[np.searchsorted(rows, found)] = 1.0
        numbers = np.stack([start_numbers(answer) for answer in answers])
        return cls(numbers, words, rows, int(len(answers[0].logprobs) > 0))

    def fit(
        self, chosen: np.ndarray, correct: Float[np.ndarray, " n"], strength: float
    ) -> tuple[Float[np.ndarray, " d"], float]:
        """Logistic regression on the chosen rows.

        Args:
            chosen: Rows to fit on, a mask.
            correct: Of all rows, in [0, 1].
            strength: Weight of the data against the penalty.

        Returns:
            Weights of numbers and words as they are, not standardised, and the intercept.
        """
        features = np.hstack([self.numbers, self.words])[chosen]
        mean, scale = standardiser(features)
        scale[: self.weighted] /= PROBABILITY_WEIGHT
        weights, bias = fit_logistic((features - mean) / scale, correct[chosen], strength)
        raw = weights / scale
        return raw, bias - float(mean @ raw)

    def log_odds(
        self, weights: Float[np.ndarray, " d"], bias: float, chosen: np.ndarray
    ) -> Float[np.ndarray, " k"]:
        """Log-odds of being right of the chosen rows."""
        return np.asarray(np.hstack([self.numbers, self.words])[chosen] @ weights + bias)

    def validated(
        self, correct: Float[np.ndarray, " n"], fold: Int[np.ndarray, " n"], strength: float
    ) -> Float[np.ndarray, " n"]:
        """Log-odds of all rows, each under the fit without its fold."""
        out = np.empty(len(correct))
        for held in range(fold.max() + 1):
            weights, bias = self.fit(fold != held, correct, strength)
            out[fold == held] = self.log_odds(weights, bias, fold == held)
        return out


def start_numbers(answer: TokenSequence) -> Float[np.ndarray, " f"]:
    """Log-probabilities summed up, the mean state and the image's, each where it is read.

    Of the log-probabilities: the log-odds of their sum, then, compressed, their mean and the least.
    """
    parts = [answer.states.mean(axis=0, dtype=np.float64)] if len(answer.states) else []
    if len(answer.logprobs):
        total, least = float(answer.logprobs.sum()), float(answer.logprobs.min())
        odds = total - np.log(-np.expm1(total)) if total < 0 else LIMIT
        mean = total / len(answer.logprobs)
        told = [min(max(odds, -LIMIT), LIMIT), -np.log1p(-mean), -np.log1p(-least)]
        parts.insert(0, np.array(told))
    return np.concatenate([*parts, answer.image])


def word_rows(answer: TokenSequence, table_rows: int) -> Int[np.ndarray, " w"]:
    """Rows of the words that the question holds, then of those of the answer, each once.

    Words of the answer are numbered after all those of the question.
    """
    held = set(zip(answer.kind.tolist(), answer.text[:, 0].tolist(), strict=True))
    asked = sorted(row - 1 for kind, row in held if kind == QUESTION and row)
    told = sorted(row - 1 + table_rows for kind, row in held if kind == ANSWER and row)
    return np.array(asked + told, dtype=np.int64)


def soft_auroc(score: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """AUROC where an answer is right and wrong by shares; NaN where one class is missing.

    Example:
        >>> soft_auroc(np.array([0.1, 0.2, 0.9]), np.array([0.0, 0.5, 1.0]))
        1.0
    """
    levels, at = np.unique(score, return_inverse=True)
    right = np.bincount(at, weights=correct, minlength=len(levels))
    wrong = np.bincount(at, weights=1.0 - correct, minlength=len(levels))
    own = np.bincount(at, weights=correct * (1.0 - correct), minlength=len(levels))
    below = np.cumsum(wrong) - wrong
    pairs = correct.sum() * (1.0 - correct).sum() - own.sum()
    if pairs <= 0:
        return float("nan")
    return float((right * below + 0.5 * (right * wrong - own)).sum() / pairs)
