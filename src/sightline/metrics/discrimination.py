"""How well confidence separates right from wrong answers.

All functions take ``confidence`` (any real number, higher = more trustworthy) and ``correct``
(0 or 1). Each public function is its weighted form with every row weighed once; the weighted forms
(``…_levels``) give NaN where the metric is not defined.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sightline.metrics.ranked import (
    Ranked,
    over_levels,
    rank,
    ratio,
    require_binary,
    rows_of,
    value_or_reason,
)

ONE_CLASS = (
    "All answers are right or all are wrong; this metric requires both. "
    "Measure on more or harder rows."
)

NO_CLASS_SPREAD = (
    "Right or wrong answers are missing, or confidence does not vary within them; Cohen's d "
    "requires both classes and a spread. Measure on more rows."
)


def _prepared(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], metric: str
) -> Ranked:
    confidence, correct = rows_of(confidence, correct)
    require_binary(correct, metric)
    return rank(confidence, correct).ranked()


def auroc(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """Area under the ROC curve, positive = right; higher is better, 0.5 = no signal.

    The probability that a right answer has the higher confidence than a wrong one, a tie counting
    one half.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: 0 or 1.

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: All answers are right, or all wrong.
        DataError: A value is not finite, or correctness is a fraction.

    Source:
        Mann and Whitney 1947; as scikit-learn ``roc_auc_score``.

    Example:
        >>> auroc(np.array([0.9, 0.8, 0.4, 0.4]), np.array([1.0, 1.0, 1.0, 0.0]))
        0.8333333333333334
    """
    return value_or_reason(auroc_levels(_prepared(confidence, correct, "AUROC")), ONE_CLASS)


def auroc_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`auroc` under every weighting."""
    right, wrong = ranked.total_right, ranked.total_wrong
    # Rank sum: right answers beat each other in half of their pairs, so only the rows count.
    beats = right * wrong + right**2 / 2 - over_levels(ranked.right, ranked.rows_above)
    beats += over_levels(ranked.right, ranked.rows) / 2
    return ratio(beats, right * wrong)


def aupr_right(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """Average precision with right answers as positives; higher is better, base = accuracy.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: 0 or 1.

    Returns:
        In (0, 1].

    Raises:
        UndefinedMetricError: All answers are right, or all wrong.
        DataError: A value is not finite, or correctness is a fraction.

    Source:
        Step-wise average precision with equal scores as one threshold, as scikit-learn
        ``average_precision_score``. A trapezoid over the precision-recall points (as in
        TruthTorchLM's AUPRC) is optimistic and not offered.

    Example:
        >>> aupr_right(np.array([0.9, 0.6, 0.3]), np.array([1.0, 0.0, 1.0]))
        0.8333333333333333
    """
    return value_or_reason(aupr_right_levels(_prepared(confidence, correct, "AUPR")), ONE_CLASS)


def aupr_right_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`aupr_right` under every weighting."""
    precision = ranked.right_above / np.maximum(ranked.rows_above, 1)
    area = ratio(over_levels(ranked.right, precision), ranked.total_right)
    return np.where(ranked.total_wrong > 0, area, np.nan)


def aupr_wrong(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """Average precision with wrong answers as positives; higher is better, base = error rate.

    Ranks from the least confident row, so it tells how well low confidence finds errors.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: 0 or 1.

    Returns:
        In (0, 1].

    Raises:
        UndefinedMetricError: All answers are right, or all wrong.
        DataError: A value is not finite, or correctness is a fraction.

    Source:
        As `aupr_right` with the classes exchanged; equals lm-polygraph's PRAUC of uncertainty.

    Example:
        >>> aupr_wrong(np.array([0.9, 0.6, 0.3]), np.array([1.0, 0.0, 1.0]))
        0.5
    """
    return value_or_reason(aupr_wrong_levels(_prepared(confidence, correct, "AUPR")), ONE_CLASS)


def aupr_wrong_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`aupr_wrong` under every weighting."""
    rows_below = ranked.rows - ranked.rows_above
    rows_below += ranked.total[:, None]
    wrong_below = ranked.right_above - ranked.right
    wrong_below -= ranked.total_right[:, None]
    wrong_below += rows_below
    precision = np.divide(wrong_below, np.maximum(rows_below, 1, out=rows_below), out=wrong_below)
    area = over_levels(ranked.rows - ranked.right, precision)
    return np.where(ranked.total_right > 0, ratio(area, ranked.total_wrong), np.nan)


def fpr95(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, tpr: float = 0.95
) -> float:
    """Share of wrong answers still accepted when 95 % of the right ones are; lower is better.

    Strict rule: the highest threshold on confidence that accepts at least 95 % of right answers.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: 0 or 1; positive = right.
        tpr: Share of right answers to accept, in (0, 1].

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: All answers are right, or all wrong.
        DataError: A value is not finite, or correctness is a fraction.

    Source:
        As torch-uncertainty's FPR95 with right = positive (its default is wrong = positive, another
        quantity). See `fpr_at_tpr_nearest` for the rule of TrustVLM's code.

    Example:
        >>> fpr95(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0]))
        0.5
    """
    return value_or_reason(fpr95_levels(_prepared(confidence, correct, "FPR95"), tpr), ONE_CLASS)


def fpr95_levels(ranked: Ranked, tpr: float = 0.95) -> Float[np.ndarray, " b"]:
    """`fpr95` under every weighting."""
    # Counts are whole numbers; the slack keeps 0.95 * 20 from becoming 20 through rounding.
    needed = np.ceil(tpr * ranked.total_right - 1e-9)
    at = np.argmax(ranked.right_above >= needed[:, None], axis=1)
    each = np.arange(len(at))
    accepted = ranked.rows_above[each, at] - ranked.right_above[each, at]
    share = ratio(accepted, ranked.total_wrong)
    return np.where(ranked.total_right > 0, share, np.nan)


def fpr_at_tpr_nearest(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], *, tpr: float = 0.95
) -> float:
    """False positive rate at the ROC point nearest to 95 % true positives; lower is better.

    Kept for comparison with published numbers: the accepted share of right answers may lie below
    95 %. Of two equally near points the stricter threshold counts. Points within a straight run of
    the curve are no candidates, as in the published code; with few answers the rate may therefore
    lie far from 95 %.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: 0 or 1; positive = right.
        tpr: True positive rate to come near to.

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: All answers are right, or all wrong.
        DataError: A value is not finite, or correctness is a fraction.

    Source:
        TrustVLM's evaluation code, on the points of scikit-learn's ``roc_curve`` with its default
        ``drop_intermediate=True``.
    """
    ranked = _prepared(confidence, correct, "FPR95")
    if not (ranked.total_right[0] and ranked.total_wrong[0]):
        return value_or_reason(np.array([np.nan]), ONE_CLASS)
    right_above = ranked.right_above[0]
    wrong_above = ranked.rows_above[0] - right_above
    if len(right_above) > 2:
        bends = (np.diff(right_above, 2) != 0) | (np.diff(wrong_above, 2) != 0)
        kept = np.concatenate([[True], bends, [True]])
        right_above, wrong_above = right_above[kept], wrong_above[kept]
    true_positive = np.append(0.0, right_above) / ranked.total_right[0]
    false_positive = np.append(0.0, wrong_above) / ranked.total_wrong[0]
    return float(false_positive[np.argmin(np.abs(true_positive - tpr))])


def cohens_d(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """Mean confidence, right less wrong, in pooled standard deviations; higher is better.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: 0 or 1.

    Returns:
        Any real number; 0 = equal means.

    Raises:
        UndefinedMetricError: A class is missing, or confidence does not vary within the classes.
        DataError: A value is not finite, or correctness is a fraction.

    Source:
        Cohen 1988, pooled variance with ddof = 1.

    Example:
        >>> round(cohens_d(np.array([3.0, 5.0, 1.0, 3.0]), np.array([1.0, 1.0, 0.0, 0.0])), 6)
        1.414214
    """
    ranked = _prepared(confidence, correct, "Cohen's d")
    return value_or_reason(cohens_d_levels(ranked), NO_CLASS_SPREAD)


def cohens_d_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`cohens_d` under every weighting."""
    high, low = ranked.confidence[0] / 2, ranked.confidence[-1] / 2
    if high == low:
        return np.full(len(ranked.rows), np.nan)
    # Scaled to [-1, 1] so that squares do not overflow.
    scaled = (ranked.confidence / 2 - (high / 2 + low / 2)) / (high / 2 - low / 2)
    right, wrong = ranked.total_right, ranked.total_wrong
    sum_right = over_levels(ranked.right, scaled[None])
    mean_right = ratio(sum_right, right)
    mean_wrong = ratio(over_levels(ranked.rows, scaled[None]) - sum_right, wrong)
    spread = over_levels(ranked.rows, scaled[None] ** 2)
    spread -= right * mean_right**2 + wrong * mean_wrong**2
    variance = ratio(spread, right + wrong - 2)
    # Squares cancel to about 1e-16 of the range; less spread than that is none.
    deviation = np.sqrt(np.where(variance > 1e-14, variance, np.nan))
    difference: Float[np.ndarray, " b"] = (mean_right - mean_wrong) / deviation
    return difference
