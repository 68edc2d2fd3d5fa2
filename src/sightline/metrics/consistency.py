"""Tests of calibration: could this calibration error be chance?

An ECE above 0 says little by itself, since a calibrated model scores above 0 on any finite sample,
and a percentile bootstrap interval of ECE lies above it. These tests ask the question directly.
Both take rows as independent: with several rows a group their p-values are too small.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UndefinedMetricError, UsageError
from sightline.metrics.calibration_error import bin_starts, ece
from sightline.metrics.ranked import require_binary, require_probability, rows_of

_BLOCK_CELLS = 1 << 19


@dataclass(frozen=True, slots=True)
class CalibrationTest:
    """Outcome of a test whose hypothesis is that confidence is calibrated.

    Attributes:
        statistic: What was observed.
        expected: Its mean if confidence is calibrated.
        p_value: Chance of a statistic at least as extreme if confidence is calibrated.
    """

    statistic: float
    expected: float
    p_value: float


def consistency_test(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    rng: np.random.Generator,
    n_bins: int = 10,
    n_resamples: int = 1000,
) -> CalibrationTest:
    """Compares the ECE with those of answers drawn right with exactly the stated confidence.

    Args:
        confidence: In [0, 1].
        correct: 0 or 1.
        rng: Draws the answers.
        n_bins: Bins of equal width.
        n_resamples: Sets of answers drawn.

    Returns:
        The ECE, its mean under calibration, and a one-sided p-value (at least
        1 / (n_resamples + 1)).

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``n_bins`` or ``n_resamples`` is below 1.
        DataError: Confidence leaves [0, 1] or is not finite, or correctness is a fraction.

    Source:
        Consistency resampling: Bröcker and Smith 2007; as a test Vaicenavicius et al. 2019.
    """
    if n_resamples < 1:
        raise UsageError(f"n_resamples is {n_resamples}; at least 1 is required. Use 1000.")
    confidence, correct = rows_of(confidence, correct)
    require_probability(confidence)
    require_binary(correct, "the consistency test")
    observed = ece(confidence, correct, n_bins=n_bins)
    n = len(confidence)
    descending = np.sort(confidence)[::-1]
    starts = bin_starts(descending, n_bins)
    size = max(1, _BLOCK_CELLS // n)
    drawn = []
    for start in range(0, n_resamples, size):
        right = rng.random((min(size, n_resamples - start), n)) < descending
        gaps = np.add.reduceat(right - descending, starts, axis=1)
        drawn.append(np.abs(gaps).sum(axis=1) / n)
    under_calibration = np.concatenate(drawn)
    as_extreme = int(np.sum(under_calibration >= observed - 1e-12))
    return CalibrationTest(
        statistic=observed,
        expected=float(under_calibration.mean()),
        p_value=(1 + as_extreme) / (1 + n_resamples),
    )


def spiegelhalter_test(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]
) -> CalibrationTest:
    """Compares the Brier score with what it would be if confidence were calibrated.

    Args:
        confidence: In [0, 1].
        correct: 0 or 1.

    Returns:
        The score's deviation in standard errors (above 0: worse than stated), 0 expected, and a
        two-sided p-value.

    Raises:
        UndefinedMetricError: No rows, or every confidence is 0, .5 or 1, where the score's
            variance is 0.
        DataError: Confidence leaves [0, 1] or is not finite, or correctness is a fraction.

    Source:
        Spiegelhalter 1986. MAPIE's p-value is one-sided, half of ours where the score is worse.
    """
    confidence, correct = rows_of(confidence, correct)
    require_probability(confidence)
    require_binary(correct, "Spiegelhalter's test")
    order = np.lexsort((correct, confidence))
    c, z = confidence[order], correct[order]
    variance = float(np.sum((1 - 2 * c) ** 2 * c * (1 - c)))
    if variance <= 0:
        raise UndefinedMetricError(
            "Every confidence is 0, .5 or 1; Spiegelhalter's test requires others. "
            "Use the consistency test."
        )
    deviation = float(np.sum((z - c) * (1 - 2 * c))) / variance**0.5
    return CalibrationTest(deviation, 0.0, 2 * (1 - NormalDist().cdf(abs(deviation))))
