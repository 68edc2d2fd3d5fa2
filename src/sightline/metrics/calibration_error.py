"""How far confidence is from the share of right answers.

All functions take ``confidence``, a probability in [0, 1], and ``correct`` in [0, 1]. Bins of equal
width are (low, high], the first also holding 0. A public function is its weighted form with every
row weighed once; weighted forms (``…_levels``) give NaN where the metric is not defined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import UsageError
from sightline.metrics.ranked import (
    Ranked,
    over_levels,
    rank,
    ratio,
    require_probability,
    rows_of,
    value_or_reason,
)
from sightline.metrics.selective import NO_SPREAD, level_reaching

INFINITE_LOSS = (
    "Confidence is exactly 0 on a right or 1 on a wrong answer; NLL requires confidence strictly "
    "between. Calibrate the score first."
)


def _prepared(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> Ranked:
    confidence, correct = rows_of(confidence, correct)
    require_probability(confidence)
    return rank(confidence, correct).ranked()


def ece(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, n_bins: int = 10
) -> float:
    """Expected calibration error over bins of equal width; lower is better, 0 = calibrated.

    The mean over rows of abs(accuracy - mean confidence) of the row's bin. Biased upwards: a
    calibrated model scores about sqrt(n_bins / n) times .3 above 0; see `ece_debiased` and
    `sightline.metrics.calibration_test.consistency_test`.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1].
        n_bins: Bins over [0, 1].

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``n_bins`` is below 1.
        DataError: Confidence or correctness leaves [0, 1] or is not finite. (lm-polygraph ignores
            such rows and so calls them perfectly calibrated.)

    Source:
        Naeini et al. 2015; as netcal, torch-uncertainty, uqlm. MAPIE's ``num_bins=k`` makes k - 1
        bins.

    Example:
        >>> ece(np.array([0.9, 0.9, 0.1]), np.array([1.0, 0.0, 0.0]))
        0.3
    """
    _check_bins(n_bins)
    return float(ece_levels(_prepared(confidence, correct), n_bins)[0])


def _check_bins(n_bins: int) -> None:
    if n_bins < 1:
        raise UsageError(f"n_bins is {n_bins}; at least 1 is required. Use 10 or 15.")


@dataclass(frozen=True)
class Bins:
    """Sums over the non-empty bins of equal width, most confident first, by weighting.

    Attributes:
        index: Which of the ``n_bins`` bins each is, 0 = least confident.
        rows: Weight of the rows.
        right: Weighted correctness.
        right_squared: Weighted squared correctness.
        gap: Correctness minus confidence, summed.
    """

    index: Int[np.ndarray, " k"]
    rows: Float[np.ndarray, "b k"]
    right: Float[np.ndarray, "b k"]
    right_squared: Float[np.ndarray, "b k"]
    gap: Float[np.ndarray, "b k"]


def equal_width_bins(ranked: Ranked, n_bins: int) -> Bins:
    """Sums the levels over bins of equal width."""
    inner = np.linspace(0.0, 1.0, n_bins + 1)[1:-1]
    bin_of = np.searchsorted(inner, ranked.confidence, side="left")
    starts = np.flatnonzero(np.concatenate([[True], bin_of[1:] != bin_of[:-1]]))
    return Bins(
        index=bin_of[starts],
        rows=np.add.reduceat(ranked.rows, starts, axis=1),
        right=np.add.reduceat(ranked.right, starts, axis=1),
        right_squared=np.add.reduceat(ranked.right_squared, starts, axis=1),
        gap=np.add.reduceat(ranked.gap, starts, axis=1),
    )


def ece_levels(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " b"]:
    """`ece` under every weighting."""
    return ratio(np.abs(equal_width_bins(ranked, n_bins).gap).sum(axis=1), ranked.total)


def ece15_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`ece15` under every weighting."""
    return ece_levels(ranked, 15)


def ece15(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """`ece` over 15 bins of equal width; lower is better."""
    return ece(confidence, correct, n_bins=15)


def ece_mass(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, n_bins: int = 10
) -> float:
    """Expected calibration error over bins of equal mass; lower is better, 0 = calibrated.

    Each bin holds exactly n / n_bins rows: a level that crosses an edge is divided between the
    bins in proportion, so that ties need no order.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1].
        n_bins: Number of bins.

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``n_bins`` is below 1.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.

    Source:
        Nguyen and O'Connor 2015. Equals the peers' quantile bins where n_bins divides n and
        nothing is tied at an edge.

    Example:
        >>> ece_mass(np.array([0.9, 0.7, 0.3, 0.1]), np.array([1.0, 1.0, 0.0, 0.0]), n_bins=2)
        0.2
    """
    _check_bins(n_bins)
    return float(ece_mass_levels(_prepared(confidence, correct), n_bins)[0])


def ece_mass_levels(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " b"]:
    """`ece_mass` under every weighting."""
    cuts = ranked.total[:, None] * np.arange(1, n_bins + 1) / n_bins
    level = level_reaching(ranked, cuts)
    at = np.arange(len(cuts))[:, None]
    surplus = ranked.rows_above[at, level] - cuts
    gap_above = ranked.gap_above[at, level]
    gap_above -= surplus * ratio(ranked.gap[at, level], ranked.rows[at, level], empty=0.0)
    gaps = np.diff(gap_above, axis=1, prepend=0.0)
    return ratio(np.abs(gaps).sum(axis=1), ranked.total)


def ace(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, n_ranges: int = 15
) -> float:
    """Adaptive calibration error; lower is better, 0 = calibrated.

    The unweighted mean over ranges of equal mass of abs(accuracy - mean confidence). With two
    classes (right, wrong) both give the same, and with ranges of exactly equal mass the unweighted
    mean is the weighted one, so this is `ece_mass` with as many bins.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1].
        n_ranges: Number of ranges.

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``n_ranges`` is below 1.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.

    Source:
        Nixon et al. 2019; as torch-uncertainty. netcal's ACE is the *average* calibration error
        over bins of equal width, another quantity.
    """
    return ece_mass(confidence, correct, n_bins=n_ranges)


def ace_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`ace` under every weighting."""
    return ece_mass_levels(ranked, 15)


def ece_debiased(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, n_bins: int = 10
) -> float:
    """`ece` less an estimate of its upward bias; lower is better, about 0 = calibrated.

    In each bin the observed gap d has standard error s, so that even without miscalibration its
    size would be that of a folded normal variable; the excess of the folded normal mean over
    abs(d) is subtracted. Not clipped: a calibrated model scores around 0, slightly below as often
    as above.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1]; rows are taken as independent.
        n_bins: Bins of equal width.

    Returns:
        At most 1; may be slightly negative.

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``n_bins`` is below 1.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.

    Source:
        Kumar, Liang and Ma 2019 (their debiased estimator for the l1 norm, which samples the
        normal; here its mean is exact).
    """
    _check_bins(n_bins)
    return float(ece_debiased_levels(_prepared(confidence, correct), n_bins)[0])


def ece_debiased_levels(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " b"]:
    """`ece_debiased` under every weighting."""
    bins = equal_width_bins(ranked, n_bins)
    accuracy = ratio(bins.right, bins.rows, empty=0.0)
    variance = np.maximum(ratio(bins.right_squared, bins.rows, empty=0.0) - accuracy**2, 0.0)
    error = np.sqrt(ratio(variance, bins.rows, empty=0.0))
    gap = np.abs(ratio(bins.gap, bins.rows, empty=0.0))
    scaled = ratio(gap, error, empty=0.0)
    folded = error * math.sqrt(2 / math.pi) * np.exp(-(scaled**2) / 2) + gap * _erf(
        scaled / math.sqrt(2)
    )
    bias = np.where(error > 0, folded - gap, 0.0)
    return ratio((bins.rows * (gap - bias)).sum(axis=1), ranked.total)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def mce(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, n_bins: int = 10
) -> float:
    """Largest abs(accuracy - mean confidence) of any non-empty bin of equal width; lower is better.

    Args:
        confidence: In [0, 1].
        correct: In [0, 1].
        n_bins: Bins over [0, 1].

    Returns:
        In [0, 1]; dominated by the smallest bins.

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``n_bins`` is below 1.
        DataError: Confidence or correctness leaves [0, 1] or is not finite.

    Source:
        Naeini et al. 2015; as netcal, torch-uncertainty, uqlm.

    Example:
        >>> mce(np.array([0.9, 0.9, 0.1]), np.array([1.0, 0.0, 0.0]))
        0.4
    """
    _check_bins(n_bins)
    return float(mce_levels(_prepared(confidence, correct), n_bins)[0])


def mce_levels(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " b"]:
    """`mce` under every weighting."""
    bins = equal_width_bins(ranked, n_bins)
    largest: Float[np.ndarray, " b"] = np.abs(ratio(bins.gap, bins.rows, empty=0.0)).max(axis=1)
    return np.where(ranked.total > 0, largest, np.nan)


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
    return float(brier_levels(_prepared(confidence, correct))[0])


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
    return value_or_reason(brier_skill_levels(_prepared(confidence, correct)), NO_SPREAD)


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
    _check_bins(n_bins)
    ranked = _prepared(confidence, correct)
    bins = equal_width_bins(ranked, n_bins)
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
    return value_or_reason(nll_levels(_prepared(confidence, correct)), INFINITE_LOSS)


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
