"""Rows sorted by confidence and merged into levels of equal confidence.

Every metric is computed from levels, so ties are exact and the order of the rows cannot matter.
Rows carry whole-number weights: one weighting of ones gives the metric itself, a matrix of
weightings gives all bootstrap resamples at once.

Axes: ``n`` rows, ``g`` levels (most confident first), ``b`` weightings, ``q`` distinct values of
correctness.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import DataError, UndefinedMetricError


@dataclass(frozen=True)
class Ranked:
    """Levels of equal confidence under ``b`` weightings; what a metric's weighted form reads.

    Attributes:
        confidence: Distinct confidences, descending.
        rows: Weight of the rows at each level.
        right: Weighted sum of correctness at each level.
        share: Mean correctness of each level; one row for all weightings where nothing is tied.
        right_squared: Weighted sum of squared correctness; equals ``right`` for 0/1.
        quality: Distinct values of correctness, descending.
        quality_rows: Weight of the rows with each correctness.
        shift: Added to confidence when it is held against correctness, but not when it is ranked
            or binned; None = 0.
    """

    confidence: Float[np.ndarray, " g"]
    rows: Float[np.ndarray, "b g"]
    right: Float[np.ndarray, "b g"]
    share: Float[np.ndarray, "#b g"]
    right_squared: Float[np.ndarray, "b g"]
    quality: Float[np.ndarray, " q"]
    quality_rows: Float[np.ndarray, "b q"]
    shift: Float[np.ndarray, " g"] | None = None

    @cached_property
    def rows_above(self) -> Float[np.ndarray, "b g"]:
        """Weight of the rows at least as confident as each level."""
        return _running_count(self.rows)

    @cached_property
    def right_above(self) -> Float[np.ndarray, "b g"]:
        """Weighted correctness of the rows at least as confident as each level."""
        if (self.quality == np.rint(self.quality)).all():
            return _running_count(self.right)
        return np.cumsum(self.right, axis=1)

    @cached_property
    def total(self) -> Float[np.ndarray, " b"]:
        """Weight of all rows."""
        return self.quality_rows.sum(axis=1)

    @cached_property
    def total_right(self) -> Float[np.ndarray, " b"]:
        """Weighted correctness of all rows."""
        return (self.quality_rows * self.quality).sum(axis=1)

    @property
    def total_wrong(self) -> Float[np.ndarray, " b"]:
        """Weighted sum of 1 - correctness of all rows."""
        wrong: Float[np.ndarray, " b"] = self.total - self.total_right
        return wrong

    @cached_property
    def gap(self) -> Float[np.ndarray, "b g"]:
        """Correctness minus confidence, summed over the rows of each level."""
        stated = self.confidence if self.shift is None else self.confidence + self.shift
        gap: Float[np.ndarray, "b g"] = self.rows * stated
        return np.subtract(self.right, gap, out=gap)

    def reaching(self, kept: Float[np.ndarray, "b k"]) -> Int[np.ndarray, "b k"]:
        """Index of the first level at which at least ``kept`` rows are covered, or the last one."""
        n, levels = self.rows.shape
        found = np.searchsorted(self._end_to_end, (kept + self._offsets).ravel())
        inside = found.reshape(kept.shape) - np.arange(n)[:, None] * levels
        level: Int[np.ndarray, "b k"] = np.clip(inside, 0, levels - 1)
        return level

    @cached_property
    def _offsets(self) -> Float[np.ndarray, "b 1"]:
        """What gives each weighting its own range of numbers."""
        return (np.arange(len(self.rows)) * (self.total.max() + 1))[:, None]

    @cached_property
    def _end_to_end(self) -> Float[np.ndarray, " bg"]:
        """`rows_above` of all weightings, ascending, for one search."""
        ends: Float[np.ndarray, " bg"] = (self.rows_above + self._offsets).ravel()
        return ends

    def shifted(self, shift: Float[np.ndarray, " g"]) -> Ranked:
        """The same rows with confidence moved where it is held against correctness."""
        other = replace(self, shift=shift)
        # What does not depend on the shift is not summed again.
        kept = vars(self).keys() - vars(other).keys() - {"gap"}
        vars(other).update({name: vars(self)[name] for name in kept})
        return other

    @cached_property
    def mean_accuracy(self) -> Float[np.ndarray, " b"]:
        """Mean over k = 1..n of the accuracy among the k most confident rows, ties averaged."""
        return self.mean_accuracy_from(np.zeros(len(self.rows)))

    @cached_property
    def ideal(self) -> Ranked:
        """The ranking by correctness itself."""
        right = self.quality_rows * self.quality
        share = self.quality[None, :]
        return Ranked(
            self.quality, self.quality_rows, right, share, right, self.quality, self.quality_rows
        )

    def mean_accuracy_from(self, lowest: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
        """Mean over k = lowest+1..n of the accuracy among the k most confident rows.

        Rows of one level are equally likely to come in any order: at its j-th row, a level of m
        rows and s right after N rows and R right has the expected accuracy (R + j s/m) / (N + j),
        and the sum over j is s + (R - N s/m) (H(N+m) - H(N)) with the harmonic numbers H.

        Args:
            lowest: Rows always kept.

        Returns:
            In [0, 1]; NaN where no k is left.
        """
        at = lowest[:, None]
        harmonic = _harmonic_numbers(int(self.total.max()))
        stop = np.maximum(self.rows_above, at) if lowest.any() else self.rows_above
        steps = np.take(harmonic, stop.astype(np.int32))
        before = steps[:, :-1].copy()
        steps[:, 0] -= harmonic[lowest.astype(np.int32)]
        steps[:, 1:] -= before
        # N s/m - R, in place: these arrays are as large as the data times the weightings.
        lead = self.rows_above - self.rows
        lead *= self.share
        lead -= self.right_above
        lead += self.right
        area = -over_levels(lead, steps)
        if lowest.any():
            area += over_levels(np.diff(stop, axis=1, prepend=at), self.share)
        else:
            area += self.total_right
        return ratio(area, self.total - lowest)


@dataclass(frozen=True)
class Ranking:
    """The sorted order of one set of rows; `ranked` applies weightings to it.

    Attributes:
        order: Row indices, most confident first.
        starts: Where each level begins in ``order``; None where nothing is tied.
        confidence: Distinct confidences, descending.
        correct: Correctness in ``order``.
        quality_order: Row indices by descending correctness, or None for 0/1 correctness.
        quality_starts: Where each distinct correctness begins there, or None with it.
        quality: Distinct values of correctness, descending; (1, 0) for 0/1 correctness.
    """

    order: Int[np.ndarray, " n"]
    starts: Int[np.ndarray, " g"] | None
    confidence: Float[np.ndarray, " g"]
    correct: Float[np.ndarray, " n"]
    quality_order: Int[np.ndarray, " n"] | None
    quality_starts: Int[np.ndarray, " q"] | None
    quality: Float[np.ndarray, " q"]

    def ranked(self, weights: Float[np.ndarray, "b n"] | None = None) -> Ranked:
        """Levels under the given weightings of the rows; None weighs every row once."""
        if weights is None:
            sorted_rows = np.ones((1, len(self.order)))
            sorted_right = self.correct[None, :]
        else:
            sorted_rows = np.take(weights, self.order, axis=1)
            sorted_right = sorted_rows * self.correct
        rows, right = self._levels(sorted_rows), self._levels(sorted_right)
        if self.quality_order is None or self.quality_starts is None:
            squared = right
            total_right = right.sum(axis=1)
            quality_rows = np.stack([total_right, rows.sum(axis=1) - total_right], axis=1)
        else:
            squared = self._levels(sorted_right * self.correct)
            by_quality = (
                sorted_rows if weights is None else np.take(weights, self.quality_order, axis=1)
            )
            quality_rows = np.add.reduceat(by_quality, self.quality_starts, axis=1)
        return Ranked(
            confidence=self.confidence,
            rows=rows,
            right=right,
            share=(self.correct[None, :] if self.starts is None else right / np.maximum(rows, 1.0)),
            right_squared=squared,
            quality=self.quality,
            quality_rows=quality_rows,
        )

    def of_groups(self, group_index: Int[np.ndarray, " n"]) -> Ranking:
        """The same order for weightings of groups: ``group_index`` is each row's group."""
        quality = None if self.quality_order is None else group_index[self.quality_order]
        return replace(self, order=group_index[self.order], quality_order=quality)

    def _levels(self, values: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b g"]:
        return values if self.starts is None else np.add.reduceat(values, self.starts, axis=1)


def rank(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> Ranking:
    """Sorts validated rows by confidence, most confident first."""
    if is_binary(correct):
        # Sums of 0/1 are exact, so the order within a level cannot show.
        order = np.argsort(confidence)[::-1]
        quality_order, quality_starts = None, None
        quality = np.array([1.0, 0.0])
    else:
        order = np.lexsort((correct, confidence))[::-1]
        quality_order = np.argsort(correct)[::-1]
        by_quality = correct[quality_order]
        quality_starts = np.flatnonzero(_is_new(by_quality))
        quality = by_quality[quality_starts]
    by_confidence = confidence[order]
    is_new = _is_new(by_confidence)
    starts = None if is_new.all() else np.flatnonzero(is_new)
    return Ranking(
        order=order,
        starts=starts,
        confidence=by_confidence if starts is None else by_confidence[starts],
        correct=correct[order],
        quality_order=quality_order,
        quality_starts=quality_starts,
        quality=quality,
    )


def _running_count(counts: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b g"]:
    """Cumulative sum of whole numbers; exact, and several times faster than one of floats."""
    whole = counts.astype(np.int32)
    np.cumsum(whole, axis=1, out=whole)
    return whole.astype(np.float64)


def _is_new(values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    is_new = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=is_new[1:])
    return is_new


@lru_cache(maxsize=1)  # a ranking and the ideal one need the same
def _harmonic_numbers(largest: int) -> Float[np.ndarray, " k"]:
    """H(0), …, H(largest), read-only."""
    numbers = np.arange(largest + 1, dtype=np.float64)
    np.reciprocal(numbers[1:], out=numbers[1:])
    np.cumsum(numbers, out=numbers)
    numbers.setflags(write=False)
    return numbers


def ratio(
    numerator: Float[np.ndarray, " *shape"],
    denominator: Float[np.ndarray, " *shape"],
    *,
    empty: float = np.nan,
) -> Float[np.ndarray, " *shape"]:
    """Quotient, with ``empty`` where the denominator is not above 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    out = np.full(shape, empty)
    np.divide(numerator, denominator, out=out, where=np.broadcast_to(denominator > 0, shape))
    return out


def over_levels(
    weights: Float[np.ndarray, "b g"], values: Float[np.ndarray, "#b g"]
) -> Float[np.ndarray, " b"]:
    """Sum over the levels of weight times value."""
    # Not a matrix product: its threads and its order of summation are not ours to choose.
    total: Float[np.ndarray, " b"] = np.einsum(
        "bg,g->b" if len(values) == 1 else "bg,bg->b",
        weights,
        values[0] if len(values) == 1 else values,
    )
    return total


def rows_of(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Both arrays as float64, checked.

    Raises:
        DataError: Lengths differ, a value is not finite, or correctness leaves [0, 1].
        UndefinedMetricError: There are no rows.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    correct = np.asarray(correct, dtype=np.float64)
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise DataError(
            f"Confidence of shape {confidence.shape} with correctness of shape {correct.shape}; "
            "two vectors of equal length are required. Align them by key first."
        )
    if not len(confidence):
        raise UndefinedMetricError("No rows; a metric requires at least one. Pass the graded rows.")
    for name, values in (("Confidence", confidence), ("Correctness", correct)):
        finite = np.isfinite(values)
        if not finite.all():
            at = int(np.argmin(finite))
            raise DataError(
                f"{name} is {values[at]} at row {at}; values must be finite. "
                "Skip and count rows without a value."
            )
    outside = _outside_unit(correct)
    if outside.any():
        at = int(np.argmax(outside))
        raise DataError(
            f"Correctness is {correct[at]} at row {at}; it must lie in [0, 1]. Grade the answers."
        )
    return confidence, correct


def require_probability(confidence: Float[np.ndarray, " n"]) -> None:
    """Checks that every confidence is a probability.

    Raises:
        DataError: A value lies outside [0, 1].
    """
    outside = _outside_unit(confidence)
    if outside.any():
        at = int(np.argmax(outside))
        raise DataError(
            f"Confidence is {confidence[at]} at row {at}; a calibration metric requires "
            "probabilities in [0, 1]. Calibrate the score first."
        )


def require_binary(correct: Float[np.ndarray, " n"], metric: str) -> None:
    """Checks that every answer is simply right or wrong.

    Raises:
        DataError: A value is a fraction.
    """
    if not is_binary(correct):
        at = int(np.argmax((correct > 0) & (correct < 1)))
        raise DataError(
            f"Correctness is {correct[at]} at row {at}; {metric} requires 0 or 1. "
            "Binarise first, for example correct >= 0.5."
        )


def is_binary(correct: Float[np.ndarray, " n"]) -> bool:
    """Whether every value is 0 or 1."""
    return bool(np.all((correct == 0) | (correct == 1)))


def _outside_unit(values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    return (values < 0) | (values > 1)


def value_or_reason(values: Float[np.ndarray, " b"], reason: str) -> float:
    """The single value of a weighted form.

    Raises:
        UndefinedMetricError: It is NaN, the weighted forms' mark for "not defined".
    """
    value = float(values[0])
    if np.isnan(value):
        raise UndefinedMetricError(reason)
    return value
