"""Proper scores of confidence: best in the mean only for honest probabilities.

All functions take ``confidence``, a probability in [0, 1], and ``correct`` in [0, 1]. A public
function is its weighted form with every row weighed once; weighted forms (``…_levels``) give NaN
where the metric is not defined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sightline.metrics.calibration_error import Bins, probability_levels
from sightline.metrics.ranked import Ranked, over_levels, ratio, value_or_reason
from sightline.metrics.selective import NO_SPREAD

INFINITE_LOSS = (
    "Confidence is exactly 0 on a right or 1 on a wrong answer; NLL requires confidence strictly "
    "between. Calibrate the score first."
)


def brier(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """Mean squared difference of confidence and correctness; lower is better, 0 = perfect.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1].

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: No rows.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.

    Source:
        Brier 1950 in the one-probability form of scikit-learn; the form summed over two classes
        (torch-uncertainty) is twice as large.

    Example:
        >>> brier(np.array([0.5, 1.0]), np.array([1.0, 1.0]))
        0.125
    """
    return float(brier_levels(probability_levels(confidence, correct))[0])


def brier_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`brier` under every weighting."""
    c = ranked.confidence
    squares: Float[np.ndarray, " b"] = over_levels(ranked.right, (1 - c)[None] ** 2)
    squares += over_levels(ranked.rows - ranked.right, c[None] ** 2)
    # Zero for 0/1 correctness; a fraction f at confidence f costs nothing.
    squares += (ranked.right_squared - ranked.right).sum(axis=1)
    return ratio(squares, ranked.total)


def _uncertainty(ranked: Ranked) -> Float[np.ndarray, " b"]:
    mean = ratio(ranked.total_right, ranked.total)
    variance: Float[np.ndarray, " b"] = (
        ratio(ranked.right_squared.sum(axis=1), ranked.total) - mean**2
    )
    return variance


def brier_skill(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """1 - Brier / Brier of the constant base rate; higher is better, 0 = base rate, 1 = perfect.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1].

    Returns:
        At most 1; negative where worse than always saying the base rate of the same rows.

    Raises:
        UndefinedMetricError: All answers are equally right.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.

    Source:
        Murphy 1973.

    Example:
        >>> brier_skill(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
        0.0
    """
    return value_or_reason(brier_skill_levels(probability_levels(confidence, correct)), NO_SPREAD)


def brier_skill_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`brier_skill` under every weighting."""
    uncertainty = _uncertainty(ranked)
    spread = np.where(uncertainty > 1e-13, uncertainty, 0.0)
    skill: Float[np.ndarray, " b"] = 1.0 - ratio(brier_levels(ranked), spread)
    return skill


@dataclass(frozen=True, slots=True)
class BrierParts:
    """Brier = reliability - resolution + uncertainty + within_bin.

    Attributes:
        reliability: Mean squared gap between the bins' accuracy and mean confidence; lower is
            better.
        resolution: Variance of accuracy over bins; higher is better.
        uncertainty: Variance of correctness; a property of the rows.
        within_bin: What binning hides: variance of confidence within bins less twice its
            covariance with correctness; 0 where each bin holds one confidence.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bin: float


def brier_parts(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, n_bins: int = 10
) -> BrierParts:
    """Murphy's decomposition of the Brier score over bins of equal width.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1].
        n_bins: Bins over [0, 1].

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``n_bins`` is below 1.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.

    Source:
        Murphy 1973; the within-bin term is that of Stephenson et al. 2008, so that the parts add
        up exactly.

    Example:
        >>> parts = brier_parts(np.array([0.8, 0.8, 0.2, 0.2]), np.array([1.0, 1.0, 0.0, 1.0]))
        >>> round(parts.reliability, 4), round(parts.resolution, 4), parts.uncertainty
        (0.065, 0.0625, 0.1875)
    """
    ranked = probability_levels(confidence, correct)
    bins = Bins.of(ranked, n_bins)
    n = float(ranked.total[0])
    rows, accuracy = bins.rows[0], bins.right[0] / bins.rows[0]
    reliability = float(np.sum(bins.gap[0] ** 2 / rows) / n)
    resolution = float(np.sum(rows * (accuracy - ranked.total_right[0] / n) ** 2) / n)
    uncertainty = float(_uncertainty(ranked)[0])
    total = float(brier_levels(ranked)[0])
    return BrierParts(
        reliability, resolution, uncertainty, total - (reliability - resolution + uncertainty)
    )


def nll(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """Mean negative log-likelihood of correctness, in nats; lower is better.

    Args:
        confidence: In [0, 1]; 0 on a right or 1 on a wrong answer makes it infinite, hence
            undefined. The calibrators of this library never give exactly 0 or 1.
        correct: In [0, 1].

    Returns:
        At least 0, nats.

    Raises:
        UndefinedMetricError: No rows, or an infinite loss.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.

    Source:
        Good 1952; as scikit-learn ``log_loss`` without its clipping.

    Example:
        >>> round(nll(np.array([0.5, 0.5]), np.array([1.0, 0.0])), 6)
        0.693147
    """
    return value_or_reason(nll_levels(probability_levels(confidence, correct)), INFINITE_LOSS)


def nll_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`nll` under every weighting."""
    c = ranked.confidence
    surprise_right = -np.log(np.where(c > 0, c, 1.0))
    surprise_wrong = -np.log1p(-np.where(c < 1, c, 0.0))
    wrong = ranked.rows - ranked.right
    losses = over_levels(ranked.right, surprise_right[None])
    losses += over_levels(wrong, surprise_wrong[None])
    loss = ratio(losses, ranked.total)
    infinite = ranked.right[:, c == 0].sum(axis=1) + wrong[:, c == 1].sum(axis=1)
    return np.where(infinite > 0, np.nan, loss)
