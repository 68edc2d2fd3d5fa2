"""Curves, bins and tables to draw: what the metrics are areas and averages of.

Curves are two tuples (x, y) of at most ``max_points`` points, exact at each of them: where rows
tie, a point is the mean over all orders the tied rows could come in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import UndefinedMetricError
from sightline.core.estimates import Estimate
from sightline.core.results import CoverageRow, Histogram, ReliabilityBin
from sightline.metrics.discrimination import ONE_CLASS
from sightline.metrics.intervals import proportion
from sightline.metrics.operating_points import accuracy_among
from sightline.metrics.ranked import rank, require_binary, require_probability, rows_of

Points = tuple[tuple[float, ...], tuple[float, ...]]


def _kept_accuracy(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], max_points: int
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Coverages, ascending, and the accuracy of the rows kept there."""
    ranked = rank(*rows_of(confidence, correct)).ranked()
    n = int(ranked.total[0])
    kept = np.unique(np.round(np.linspace(1, n, min(n, max_points))))
    return kept / n, accuracy_among(ranked, kept[None, :])[0]


def _points(x: Float[np.ndarray, " k"], y: Float[np.ndarray, " k"]) -> Points:
    return tuple(x.tolist()), tuple(y.tolist())


def risk_coverage(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, max_points: int = 200
) -> Points:
    """Error rate of the kept rows (y) against the share kept (x, ascending, above 0 to 1).

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        max_points: Most points returned.

    Raises:
        UndefinedMetricError: No rows.
        DataError: A value is not finite, or correctness leaves [0, 1].
    """
    coverage, accuracy = _kept_accuracy(confidence, correct, max_points)
    return _points(coverage, 1.0 - accuracy)


def rejection(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, max_points: int = 200
) -> Points:
    """Accuracy of the kept rows (y) against the share rejected (x, ascending, 0 to below 1).

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        max_points: Most points returned.

    Raises:
        UndefinedMetricError: No rows.
        DataError: A value is not finite, or correctness leaves [0, 1].
    """
    coverage, accuracy = _kept_accuracy(confidence, correct, max_points)
    return _points((1.0 - coverage)[::-1], accuracy[::-1])


def oracle_risk_coverage(correct: Float[np.ndarray, " n"], *, max_points: int = 200) -> Points:
    """`risk_coverage` of the ideal ranking, by correctness itself."""
    return risk_coverage(correct, correct, max_points=max_points)


def oracle_rejection(correct: Float[np.ndarray, " n"], *, max_points: int = 200) -> Points:
    """`rejection` of the ideal ranking, by correctness itself."""
    return rejection(correct, correct, max_points=max_points)


def roc(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, max_points: int = 200
) -> Points:
    """True positive rate (y) against false positive rate (x), positive = right, (0, 0) to (1, 1).

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: 0 or 1.
        max_points: Most points returned.

    Raises:
        UndefinedMetricError: All answers are right, or all wrong.
        DataError: A value is not finite, or correctness is a fraction.
    """
    confidence, correct = rows_of(confidence, correct)
    require_binary(correct, "ROC")
    ranked = rank(confidence, correct).ranked()
    right, wrong = ranked.total_right[0], ranked.total_wrong[0]
    if not (right and wrong):
        raise UndefinedMetricError(ONE_CLASS)
    x = np.append(0.0, (ranked.rows_above[0] - ranked.right_above[0]) / wrong)
    y = np.append(0.0, ranked.right_above[0] / right)
    if len(x) > max_points:
        # Evenly along the path, which climbs by x + y = 2 in all.
        chosen = np.unique(np.searchsorted(x + y, np.linspace(0.0, 2.0, max_points) - 1e-12))
        x, y = x[chosen], y[chosen]
    return _points(x, y)


def reliability_bins(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
    *,
    n_bins: int = 10,
    level: float = 0.95,
) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy with its interval in bins of equal width, as in `ece`.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1].
        groups: Rows that share a number are not independent; None if all are.
        n_bins: Bins over [0, 1].
        level: Coverage of the intervals.

    Returns:
        All ``n_bins`` bins in ascending order; an empty one has no confidence and no accuracy.

    Raises:
        UndefinedMetricError: No rows.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.
    """
    confidence, correct = rows_of(confidence, correct)
    require_probability(confidence)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    bins = []
    for b in range(n_bins):
        chosen = bin_of == b
        inside = np.sort(confidence[chosen])
        accuracy = (
            _proportion(correct, groups, chosen, level)
            if len(inside)
            else Estimate(None, n=0, reason="empty bin")
        )
        bins.append(
            ReliabilityBin(
                low=float(edges[b]),
                high=float(edges[b + 1]),
                confidence=float(inside.mean()) if len(inside) else None,
                accuracy=accuracy,
                n=len(inside),
            )
        )
    return tuple(bins)


def _proportion(
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None,
    chosen: np.ndarray,
    level: float,
) -> Estimate:
    return proportion(correct[chosen], None if groups is None else groups[chosen], level=level)


def coverage_table(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
    *,
    coverages: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    level: float = 0.95,
) -> tuple[CoverageRow, ...]:
    """Accuracy of the most confident rows at several coverages, with the threshold that keeps them.

    Rows of equal confidence are kept together, since no threshold can part them: each row of the
    table keeps at least the share asked for, and its ``accuracy.n`` says how many that is.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        groups: Rows that share a number are not independent; None if all are.
        coverages: Shares to keep, in (0, 1].
        level: Coverage of the intervals.

    Raises:
        UndefinedMetricError: No rows.
        DataError: A value is not finite, or correctness leaves [0, 1].
    """
    confidence, correct = rows_of(confidence, correct)
    descending = np.sort(confidence)[::-1]
    table = []
    for coverage in coverages:
        threshold = descending[max(0, int(np.ceil(coverage * len(descending) - 1e-9)) - 1)]
        accuracy = _proportion(correct, groups, confidence >= threshold, level)
        table.append(CoverageRow(coverage, accuracy, float(threshold)))
    return tuple(table)


def histogram(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, n_bins: int = 20
) -> Histogram:
    """Counts of confidence by correctness in bins of equal width, as in `ece`.

    Args:
        confidence: In [0, 1].
        correct: 0 or 1.
        n_bins: Bins over [0, 1].

    Raises:
        UndefinedMetricError: No rows.
        DataError: Confidence leaves [0, 1], or correctness is a fraction.
    """
    confidence, correct = rows_of(confidence, correct)
    require_probability(confidence)
    require_binary(correct, "A histogram by correctness")
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    right = np.bincount(bin_of[correct == 1], minlength=n_bins)
    wrong = np.bincount(bin_of[correct == 0], minlength=n_bins)
    return Histogram(tuple(edges.tolist()), tuple(right.tolist()), tuple(wrong.tolist()))
