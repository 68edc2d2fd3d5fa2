"""Selective prediction at one coverage or one risk.

All functions take ``confidence`` (any real number, higher = more trustworthy) and ``correct`` in
[0, 1]. A public function is its weighted form with every row weighed once; weighted forms
(``…_levels``) give NaN where the metric is not defined.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UsageError
from sightline.metrics.ranked import Ranked, ratio
from sightline.metrics.selective import score_levels


def risk_at_coverage(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    coverage: float = 0.8,
) -> float:
    """Error rate among the most confident share of the rows; lower is better.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        coverage: Share kept, in (0, 1]; rounded up to whole rows. Ties at the edge are averaged.

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``coverage`` leaves (0, 1].
        DataError: A value is not finite, or correctness leaves [0, 1].

    Source:
        El-Yaniv and Wiener 2010; as torch-uncertainty's RiskAt80Cov where nothing is tied.

    Example:
        >>> risk_at_coverage(np.array([0.9, 0.8, 0.2, 0.1]), np.array([1.0, 0.0, 1.0, 0.0]))
        0.5
    """
    if not 0 < coverage <= 1:
        raise UsageError(f"coverage is {coverage}; a share in (0, 1] is required. Use 0.8.")
    return float(risk_at_coverage_levels(score_levels(confidence, correct), coverage)[0])


def risk_at_coverage_levels(ranked: Ranked, coverage: float = 0.8) -> Float[np.ndarray, " b"]:
    """`risk_at_coverage` under every weighting."""
    kept = np.maximum(np.ceil(coverage * ranked.total - 1e-9), 1)
    risk = 1.0 - accuracy_among(ranked, kept[:, None])[:, 0]
    return np.where(ranked.total > 0, risk, np.nan)


def accuracy_among(ranked: Ranked, kept: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b k"]:
    """Accuracy among the ``kept`` most confident rows, ties averaged; 1 <= kept <= n."""
    level = ranked.reaching(kept)
    at = np.arange(len(kept))[:, None]
    rows, right = ranked.rows[at, level], ranked.right[at, level]
    surplus = ranked.rows_above[at, level] - kept
    accuracy: Float[np.ndarray, "b k"] = (
        ranked.right_above[at, level] - surplus * ratio(right, rows)
    ) / kept
    return accuracy


def coverage_at_risk(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    risk: float = 0.05,
) -> float:
    """Largest share of rows that a threshold can keep at no more than this risk; higher is better.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        risk: Error rate allowed among the kept rows, in [0, 1].

    Returns:
        In [0, 1]; 0 where no threshold reaches the risk.

    Raises:
        UndefinedMetricError: No rows.
        UsageError: ``risk`` leaves [0, 1].
        DataError: A value is not finite, or correctness leaves [0, 1].

    Source:
        As torch-uncertainty's CovAt5Risk, except that rows of equal confidence are kept or
        rejected together, since no threshold can part them.

    Example:
        >>> coverage_at_risk(np.array([0.9, 0.8, 0.2, 0.1]), np.array([1.0, 1.0, 0.0, 1.0]))
        0.5
    """
    if not 0 <= risk <= 1:
        raise UsageError(f"risk is {risk}; an error rate in [0, 1] is required. Use 0.05.")
    return float(coverage_at_risk_levels(score_levels(confidence, correct), risk)[0])


def coverage_at_risk_levels(ranked: Ranked, risk: float = 0.05) -> Float[np.ndarray, " b"]:
    """`coverage_at_risk` under every weighting."""
    needed = (1.0 - risk) * ranked.rows_above
    admissible = (ranked.rows > 0) & (ranked.right_above >= needed - 1e-9)
    kept = np.where(admissible, ranked.rows_above, 0.0).max(axis=1)
    return ratio(kept, ranked.total)
