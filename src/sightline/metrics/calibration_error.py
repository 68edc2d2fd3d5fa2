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
    rank,
    ratio,
    require_probability,
    rows_of,
)


def probability_levels(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]
) -> Ranked:
    """Checks both arrays, confidence as a probability, and sorts them into levels."""
    confidence, correct = rows_of(confidence, correct)
    require_probability(confidence)
    return rank(confidence, correct).ranked()


def ece(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, n_bins: int = 10
) -> float:
    """Expected calibration error over bins of equal width; lower is better, 0 = calibrated.

    The mean over rows of abs(accuracy - mean confidence) of the row's bin. Biased upwards: a
    calibrated model scores about sqrt(n_bins / n) times .3 above 0; see `ece_debiased` and
    `sightline.metrics.consistency.consistency_test`.

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
    return float(ece_levels(probability_levels(confidence, correct), n_bins)[0])


def bin_starts(descending: Float[np.ndarray, " g"], n_bins: int) -> Int[np.ndarray, " k"]:
    """Where each non-empty bin of equal width begins in descending confidences.

    Raises:
        UsageError: ``n_bins`` is below 1.
    """
    _check_bins(n_bins)
    inner = np.linspace(0.0, 1.0, n_bins + 1)[1:-1]
    bin_of = np.searchsorted(inner, descending, side="left")
    return np.flatnonzero(np.diff(bin_of, prepend=n_bins))


def _check_bins(n_bins: int) -> None:
    if n_bins < 1:
        raise UsageError(f"n_bins is {n_bins}; at least 1 is required. Use 10 or 15.")


@dataclass(frozen=True)
class Bins:
    """Sums over the non-empty bins of equal width, most confident first, by weighting."""

    rows: Float[np.ndarray, "b k"]
    right: Float[np.ndarray, "b k"]
    right_squared: Float[np.ndarray, "b k"]
    gap: Float[np.ndarray, "b k"]

    @staticmethod
    def of(ranked: Ranked, n_bins: int) -> Bins:
        """Sums the levels over ``n_bins`` bins over [0, 1]."""
        starts = bin_starts(ranked.confidence, n_bins)
        return Bins(
            *(
                np.add.reduceat(values, starts, axis=1)
                for values in (ranked.rows, ranked.right, ranked.right_squared, ranked.gap)
            )
        )


def ece_levels(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " b"]:
    """`ece` under every weighting."""
    starts = bin_starts(ranked.confidence, n_bins)
    gaps = np.add.reduceat(ranked.gap, starts, axis=1)
    return ratio(np.abs(gaps).sum(axis=1), ranked.total)


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
    return float(ece_mass_levels(probability_levels(confidence, correct), n_bins)[0])


def ece_mass_levels(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " b"]:
    """`ece_mass` under every weighting."""
    cuts = ranked.total[:, None] * np.arange(1, n_bins + 1) / n_bins
    level = ranked.reaching(cuts)
    at = np.arange(len(cuts))[:, None]
    surplus = ranked.rows_above[at, level] - cuts
    beyond = surplus * ratio(ranked.gap[at, level], ranked.rows[at, level], empty=0.0)
    gaps = _between(ranked.gap, level) - np.diff(beyond, axis=1, prepend=0.0)
    return ratio(np.abs(gaps).sum(axis=1), ranked.total)


def _between(
    values: Float[np.ndarray, "b g"], last: Int[np.ndarray, "b k"]
) -> Float[np.ndarray, "b k"]:
    """Sum of the levels after one ``last`` level to the next; the final sum goes to the end."""
    rows, levels = values.shape
    starts = np.pad(last[:, :-1] + 1, ((0, 0), (1, 0)))
    flat = np.arange(rows)[:, None] * levels + starts
    # A part may begin behind the final level, where one more value makes room for it.
    sums = np.add.reduceat(np.append(values, 0.0), flat.ravel()).reshape(starts.shape)
    return np.where(starts <= last, sums, 0.0)


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
    """`ece` less an estimate of its upward bias; lower is better, near 0 = calibrated.

    In each bin the observed gap d has standard error s, so that its size is on average that of a
    folded normal variable; the excess of the folded normal mean over abs(d) is subtracted. The
    excess is judged from the observed gap, so it takes away about two fifths of the bias of a
    calibrated model and nearly all where gaps are large. Not clipped at 0.

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
    return float(ece_debiased_levels(probability_levels(confidence, correct), n_bins)[0])


def ece_debiased_levels(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " b"]:
    """`ece_debiased` under every weighting."""
    bins = Bins.of(ranked, n_bins)
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
    return float(mce_levels(probability_levels(confidence, correct), n_bins)[0])


def mce_levels(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " b"]:
    """`mce` under every weighting."""
    bins = Bins.of(ranked, n_bins)
    largest: Float[np.ndarray, " b"] = np.abs(ratio(bins.gap, bins.rows, empty=0.0)).max(axis=1)
    return np.where(ranked.total > 0, largest, np.nan)


def width_bin_gaps(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " g"]:
    """Mean gap of the bin of equal width that each level is in, every row weighed once."""
    starts = bin_starts(ranked.confidence, n_bins)
    bins = Bins.of(ranked, n_bins)
    sizes = np.diff(np.append(starts, len(ranked.confidence)))
    return np.repeat(bins.gap[0] / bins.rows[0], sizes)


def mass_bin_gaps(ranked: Ranked, n_bins: int = 10) -> Float[np.ndarray, " g"]:
    """Mean gap of the bin of equal mass that each level's middle row is in."""
    middle = ranked.rows_above[0] - ranked.rows[0] / 2
    bin_of = (middle * n_bins / ranked.total[0]).astype(np.intp)
    gaps = np.bincount(bin_of, ranked.gap[0], n_bins)
    rows = np.bincount(bin_of, ranked.rows[0], n_bins)
    return ratio(gaps, rows, empty=0.0)[bin_of]
