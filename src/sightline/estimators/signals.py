"""Reading signals off records: checks that they are there, and ragged arrays over all records.

Token lists differ in length, so the arrays of all records are laid end to end and reduced by
segment; no estimator loops over records to compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import MissingFeatureError, UnscorableError
from sightline.core.features import Feature, how_to_observe
from sightline.core.protocols import Cost
from sightline.core.types import Generation, Record

FREE = Cost()
"""Read off the greedy answer and its prefill, the scores of the options included."""

ONE_MORE_PREFILL = Cost(forward_passes=1)
"""The blank image: one more pass over image and prompt."""


def require(records: Sequence[Record], needs: frozenset[Feature], who: object) -> None:
    """Checks that every record shows every needed signal.

    Raises:
        MissingFeatureError: One does not; the message names the first such record and the signals.
    """
    for record in records:
        if not all(record.has(feature) for feature in needs):
            lacking = ", ".join(feature.value for feature in record.missing(needs))
            raise MissingFeatureError(
                f"Record {tuple(record.key)} has no {lacking}; {type(who).__name__} requires it. "
                f"{how_to_observe(record.missing(needs))}, or leave the estimator out."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Arrays of different lengths laid end to end; every reduction gives one value per array.

    Attributes:
        values: All entries.
        starts: Where each array begins.
        lengths: How many entries each array has, at least 1.
    """

    values: Float[np.ndarray, " total"]
    starts: Int[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> Ragged:
        """Lays non-empty one-dimensional arrays end to end."""
        lengths = np.fromiter((len(a) for a in arrays), dtype=np.int64, count=len(arrays))
        values = np.concatenate(arrays, dtype=np.float64) if len(arrays) else np.empty(0)
        return cls(values, np.cumsum(lengths) - lengths, lengths)

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Ragged:
        """Changes every entry."""
        return Ragged(change(self.values), self.starts, self.lengths)

    def sum(self) -> Float[np.ndarray, " n"]:
        """Sum of each array."""
        return self._reduce(np.add)

    def mean(self) -> Float[np.ndarray, " n"]:
        """Mean of each array."""
        return np.asarray(self.sum() / self.lengths)

    def min(self) -> Float[np.ndarray, " n"]:
        """Smallest entry of each array."""
        return self._reduce(np.minimum)

    def max(self) -> Float[np.ndarray, " n"]:
        """Largest entry of each array."""
        return self._reduce(np.maximum)

    def first(self) -> Float[np.ndarray, " n"]:
        """First entry of each array."""
        return np.asarray(self.values[self.starts])

    def at(self, index: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Entry ``index`` of each array."""
        return np.asarray(self.values[self.starts + index])

    def spread(self, per_array: Float[np.ndarray, " n"]) -> Float[np.ndarray, " total"]:
        """One value per array, repeated for each of its entries."""
        return np.repeat(per_array, self.lengths)

    def descending(self) -> Ragged:
        """Every array sorted, largest first."""
        owner = np.repeat(np.arange(len(self.lengths)), self.lengths)
        order = np.lexsort((-self.values, owner))
        return Ragged(self.values[order], self.starts, self.lengths)

    def log_softmax(self) -> Ragged:
        """Logarithms normalised so that each array's exponentials sum to 1.

        The largest entry is left out of the sum and added as log(1 + rest), so that near-certain
        arrays still differ.
        """
        shifted = self.map(lambda values: values - self.spread(self.max()))
        rest = shifted.descending().map(np.exp)
        rest.values[rest.starts] = 0.0
        log_total = np.log1p(rest.sum())
        return shifted.map(lambda values: values - self.spread(log_total))

    def _reduce(self, ufunc: np.ufunc) -> Float[np.ndarray, " n"]:
        if not len(self.starts):
            return np.empty(0)
        return np.asarray(ufunc.reduceat(self.values, self.starts))


def run_begins(*keys: Int[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
    """Where a run of entries with equal keys begins."""
    begins = np.ones(len(keys[0]), dtype=bool)
    begins[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return begins


def answer_start(generation: Generation) -> int:
    """Index of the first answer token.

    Where the limit cut the generation off inside its reasoning there is no answer token, and the
    reasoning stands in for the answer: what was generated is all there is to judge.
    """
    tokens = generation.n_tokens
    return 0 if tokens is None or generation.answer_start >= tokens else generation.answer_start


def answer_logprobs(generations: Iterable[Generation]) -> Ragged:
    """Log-probabilities of the answers' tokens, end token included, in nats.

    Every generation has log-probabilities; the estimator's `needs` say so.
    """
    arrays = []
    for generation in generations:
        if generation.logprobs is None:
            raise MissingFeatureError(
                f"Answer {generation.text[:40]!r} has no logprobs; they are required here. "
                "Collect or import them."
            )
        arrays.append(generation.logprobs[answer_start(generation) :])
    return Ragged.of(arrays)


def per_answer_token(records: Sequence[Record], feature: Feature) -> list[np.ndarray]:
    """A feature with a token axis, cut to the answer's tokens, one array per record.

    Raises:
        UnscorableError: It holds no token.
    """
    arrays = [record.array(feature) for record in records]
    empty = [row for row, array in enumerate(arrays) if not len(array)]
    if empty:
        raise UnscorableError(
            empty,
            f"no token in {feature.value}; observed arrays hold at least one",
            "Leave the feature out where nothing was observed.",
        )
    return [
        array[answer_start(record.answer) :] for record, array in zip(records, arrays, strict=True)
    ]


def per_choice(records: Sequence[Record], feature: Feature) -> Ragged:
    """A feature with a choice axis, one array per record."""
    return Ragged.of([record.array(feature) for record in records])


def cost_of_samples(records: Sequence[Record]) -> Cost:
    """The samples drawn."""
    return Cost(generations=mean_count([len(record.samples) for record in records]))


def mean_count(counts: Sequence[int]) -> int:
    """Mean number of something per record, rounded up; 0 for no records."""
    return math.ceil(sum(counts) / len(counts)) if counts else 0
