"""Estimates whose intervals need no resampling: shares and AUROC, allowing for groups."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.metrics.discrimination import ONE_CLASS
from sightline.metrics.ranked import rank, rows_of

NORMAL = NormalDist()


def proportion(
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
    *,
    weights: Float[np.ndarray, " n_weights"] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Mean correctness with its interval, allowing for groups; needs no random draws.

    Wilson's interval, which holds at any n and near 0 and 1, with the effective number of rows:
    p (1 - p) over the between-group variance of the mean, at most n. With groups of several rows
    the normal quantile gives way to Student's with one degree of freedom per group less one.

    Args:
        correct: In [0, 1].
        groups: Rows that share a number are not independent; None if all are.
        weights: How much each row counts, above 0; None for alike.
        level: Coverage of the interval, in (0, 1).

    Returns:
        Value in [0, 1]; None without rows. No interval where all rows are in one group of several.

    Raises:
        DataError: Correctness leaves [0, 1] or is not finite, or groups differ in length.

    Source:
        Wilson 1927; effective size as Korn and Graubard 1998 and Dean and Pagano 2015.
    """
    n = len(correct)
    if not n:
        return Estimate(None, n=0, reason="no rows")
    if groups is not None and len(groups) != n:
        raise DataError(
            f"{n} correctness values with {len(groups)} groups; one group per row is required. "
            "Align them by key first."
        )
    _, correct = rows_of(np.zeros(n), correct)
    if weights is not None and np.ptp(weights) > 0:
        return _weighted(correct, groups, weights, level)
    share = float(np.mean(np.sort(correct)))
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_groups = int(index.max()) + 1
    quantile = NORMAL.inv_cdf((1 + level) / 2)
    effective = float(n)
    if n_groups < n:
        if n_groups == 1:
            return Estimate(share, n=n)
        deviation = np.bincount(index, correct - share)
        variance = float(np.sum(deviation**2)) * n_groups / (n_groups - 1) / n**2
        effective = (
            min(effective, share * (1 - share) / variance) if variance > 0 else float(n_groups)
        )
        quantile = student(quantile, n_groups - 1)
    return _wilson(share, effective, quantile, n)


def _weighted(
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None,
    weights: Float[np.ndarray, " n_weights"],
    level: float,
) -> Estimate:
    """`proportion` of rows that count unequally, so that no number of rows is the effective one."""
    n = len(correct)
    if len(weights) != n or not np.all(np.isfinite(weights) & (weights > 0)):
        raise DataError(
            f"{n} correctness values with {len(weights)} weights, not all above 0; one such weight "
            "per row is required. Leave out rows that do not count."
        )
    share = float(np.clip(np.average(correct, weights=weights), 0.0, 1.0))
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    total = np.bincount(index, weights)
    if len(total) == 1:
        return Estimate(share, n=n)
    whole = float(total.sum())
    deviation = np.bincount(index, weights * (correct - share))
    variance = float(np.sum(deviation**2)) * len(total) / (len(total) - 1) / whole**2
    effective = whole**2 / float(np.sum(total**2))
    if variance > 0:
        alone = whole**2 / float(np.sum(weights**2))
        effective = min(alone, share * (1 - share) / variance)
    quantile = student(NORMAL.inv_cdf((1 + level) / 2), len(total) - 1)
    return _wilson(share, effective, quantile, n)


def _wilson(share: float, effective: float, quantile: float, n: int) -> Estimate:
    """Wilson's interval of a share of so many effective rows."""
    square = quantile**2
    centre = (share + square / (2 * effective)) / (1 + square / effective)
    half = (
        quantile
        * np.sqrt(share * (1 - share) / effective + square / (4 * effective**2))
        / (1 + square / effective)
    )
    low, high = np.clip([centre - half, centre + half], 0.0, 1.0)
    return Estimate(share, min(float(low), share), max(float(high), share), n=n)


def student(z: float, freedom: int) -> float:
    """Student's quantile for a normal quantile: Fisher's expansion, within 4 % from 2 up."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(freedom) ** (i + 1) for i, term in enumerate(terms))


def auroc_estimate(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
    *,
    level: float = 0.95,
) -> Estimate:
    """AUROC with a closed-form interval, allowing for groups; for deciding whether there is signal.

    The variance is that of the placements, summed by group, but never below the variance of a
    score without signal on as many rows as there are groups, so that a chance streak on a few rows
    does not look certain. A fraction of correctness counts as that share of a right and the rest of
    a wrong answer.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        groups: Rows that share a number are not independent; None if all are.
        level: Coverage of the interval, in (0, 1).

    Returns:
        Value in [0, 1]; None where all answers are right, or all wrong.

    Raises:
        DataError: A value is not finite, or correctness leaves [0, 1].

    Source:
        DeLong, DeLong and Clarke-Pearson 1988; Obuchowski 1997 for groups; Mann and Whitney 1947
        with the correction for ties for the floor.
    """
    confidence, correct = rows_of(confidence, correct)
    n = len(correct)
    ranking = rank(confidence, correct)
    ranked = ranking.ranked()
    right, wrong = float(ranked.total_right[0]), float(ranked.total_wrong[0])
    if not (right > 0 and wrong > 0):
        return Estimate(None, n=n, reason=ONE_CLASS)
    wrong_rows = ranked.rows[0] - ranked.right[0]
    beats = (wrong - np.cumsum(wrong_rows) + wrong_rows / 2) / wrong
    beaten = (ranked.right_above[0] - ranked.right[0] / 2) / right
    value = float(np.sum(ranked.right[0] * beats) / right)
    level_of = np.repeat(np.arange(len(ranked.confidence)), ranked.rows[0].astype(np.intp))
    influence = np.empty(n)
    influence[ranking.order] = (
        ranking.correct * (beats[level_of] - value) / right
        + (1 - ranking.correct) * (beaten[level_of] - value) / wrong
    )
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    by_group = np.bincount(index, influence)
    variance = float(np.sum(by_group**2)) * len(by_group) / max(1, len(by_group) - 1)
    ties = float(np.sum(ranked.rows[0] ** 3 - ranked.rows[0])) / (n * max(1, n - 1))
    chance = (n + 1 - ties) / (12 * right * wrong) * n / len(by_group)
    half = NORMAL.inv_cdf((1 + level) / 2) * max(variance, chance) ** 0.5
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), n=n)
