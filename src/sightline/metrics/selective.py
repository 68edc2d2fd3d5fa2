"""How good the answers are that remain when the least confident are rejected.

All functions take ``confidence`` (any real number, higher = more trustworthy) and ``correct`` in
[0, 1]. Rows of equal confidence are averaged over every order they could come in, analytically. A
public function is its weighted form with every row weighed once; weighted forms (leading
``…_levels``) give NaN where the metric is not defined.

Areas are fractions in [0, 1]; papers often print them times 1,000.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UsageError
from sightline.metrics.ranked import (
    Ranked,
    over_levels,
    rank,
    ratio,
    rows_of,
    value_or_reason,
)

AreaRule = Literal["mean", "torch_uncertainty", "fd_shifts"]
"""How the area under a risk-coverage curve is taken; see `aurc`."""

NO_SPREAD = (
    "All answers are equally right; this metric requires better and worse ones. "
    "Measure on more or harder rows."
)


def score_levels(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> Ranked:
    """Checks both arrays and sorts them into levels."""
    return rank(*rows_of(confidence, correct)).ranked()


def accuracy(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float:
    """Mean correctness of all rows; higher is better. Confidence plays no part.

    Raises:
        UndefinedMetricError: No rows.
        DataError: A value is not finite, or correctness leaves [0, 1].
    """
    return float(accuracy_levels(score_levels(confidence, correct))[0])


def accuracy_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`accuracy` under every weighting."""
    return ratio(ranked.total_right, ranked.total)


def prr(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    max_rejection: float = 1.0,
    shuffles: int = 0,
    rng: np.random.Generator | None = None,
) -> float:
    """Prediction rejection ratio; higher is better, 1 = ideal ranking, 0 = random.

    With A the mean accuracy of the kept rows over all numbers of rejected rows up to
    ``max_rejection``, PRR = (A - A_random) / (A_ideal - A_random).

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        max_rejection: Largest share of rows rejected, in (0, 1].
        shuffles: 0 takes A_random exactly, as mean correctness; above 0 estimates it by that many
            random orders, as the peers do.
        rng: Draws the shuffles; required with them.

    Returns:
        At most 1; negative where worse than random.

    Raises:
        UndefinedMetricError: All answers are equally right, or nothing would be rejected.
        DataError: A value is not finite, or correctness leaves [0, 1].
        UsageError: ``max_rejection`` leaves (0, 1], or ``shuffles`` comes without ``rng``.

    Source:
        Malinin and Gales 2021; as lm-polygraph's PredictionRejectionArea, with ties averaged and
        the exact random baseline.

    Example:
        >>> round(prr(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])), 6)
        0.571429
    """
    if not 0 < max_rejection <= 1:
        raise UsageError(
            f"max_rejection is {max_rejection}; a share in (0, 1] is required. Use 1 or 0.5."
        )
    ranked = score_levels(confidence, correct)
    baseline = None
    if shuffles:
        if rng is None:
            raise UsageError(
                f"{shuffles} shuffles without a random generator; rng is required. "
                "Pass numpy.random.default_rng(seed)."
            )
        baseline = np.array([_shuffled_baseline(ranked, max_rejection, shuffles, rng)])
    return value_or_reason(prr_levels(ranked, max_rejection, baseline), NO_SPREAD)


def prr_levels(
    ranked: Ranked,
    max_rejection: float = 1.0,
    baseline: Float[np.ndarray, " b"] | None = None,
) -> Float[np.ndarray, " b"]:
    """`prr` under every weighting."""
    if max_rejection == 1.0:
        area, ideal = ranked.mean_accuracy, ranked.ideal.mean_accuracy
    else:
        kept = ranked.total - np.floor(max_rejection * ranked.total + 1e-9)
        area, ideal = ranked.mean_accuracy_from(kept), ranked.ideal.mean_accuracy_from(kept)
    if baseline is None:
        baseline = ratio(ranked.total_right, ranked.total)
    return ratio(area - baseline, _above_rounding(ideal - baseline))


def _above_rounding(spread: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """Zero where a difference of areas is rounding only."""
    return np.where(spread > 1e-13, spread, 0.0)


def _shuffled_baseline(
    ranked: Ranked, max_rejection: float, shuffles: int, rng: np.random.Generator
) -> float:
    correct = np.repeat(ranked.quality, ranked.quality_rows[0].astype(np.intp))
    n = len(correct)
    kept = n - int(np.floor(max_rejection * n + 1e-9))
    counts = np.arange(kept + 1, n + 1)
    areas = [
        float(np.mean(np.cumsum(rng.permutation(correct))[kept:] / counts)) for _ in range(shuffles)
    ]
    return float(np.mean(areas))


def aurc(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    rule: AreaRule = "mean",
) -> float:
    """Area under the risk-coverage curve; lower is better, error rate = random.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1]; risk is 1 - correctness.
        rule: ``mean`` averages the risk among the k most confident rows over k = 1..n.
            ``torch_uncertainty`` takes the trapezoid over coverages 1/n..1 divided by 1 - 1/n.
            ``fd_shifts`` takes the trapezoid between levels of distinct confidence, the first
            risk extended to coverage 0.

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: No rows, or one row with ``torch_uncertainty``.
        DataError: A value is not finite, or correctness leaves [0, 1].

    Source:
        Geifman and El-Yaniv 2017; mean of risks as TrustVLM's code. The three rules differ by
        O(1/n), with ties by more.

    Example:
        >>> round(aurc(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0])), 6)
        0.277778
    """
    return value_or_reason(aurc_levels(score_levels(confidence, correct), rule), _TWO_ROWS)


_TWO_ROWS = "One row; the trapezoid requires at least two. Use the mean of risks."


def aurc_levels(ranked: Ranked, rule: AreaRule = "mean") -> Float[np.ndarray, " b"]:
    """`aurc` under every weighting."""
    if rule == "mean":
        return 1.0 - ranked.mean_accuracy
    if rule == "torch_uncertainty":
        return 1.0 - _trapezoid_accuracy(ranked)
    risk = 1.0 - ratio(ranked.right_above, ranked.rows_above, empty=1.0)
    previous = np.concatenate([risk[:, :1], risk[:, :-1]], axis=1)
    # A level nobody drew at the top repeats the first risk that exists.
    first = np.argmax(ranked.rows > 0, axis=1)
    at = np.arange(len(first))
    previous[at, first] = risk[at, first]
    area = over_levels(ranked.rows, previous + risk) / 2
    return ratio(area, ranked.total)


def _trapezoid_accuracy(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """Trapezoid of the accuracy among the k most confident over k = 1..n, divided by n - 1."""
    first = np.argmax(ranked.rows > 0, axis=1)
    at = np.arange(len(first))
    most_confident = ratio(ranked.right[at, first], ranked.rows[at, first])
    ends = (most_confident + ratio(ranked.total_right, ranked.total)) / 2
    return ratio(ranked.mean_accuracy * ranked.total - ends, ranked.total - 1)


def e_aurc(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    rule: AreaRule = "mean",
    ideal: Literal["finite", "asymptotic"] = "finite",
) -> float:
    """AURC above that of the ideal ranking; lower is better, 0 = ideal.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        rule: As in `aurc`.
        ideal: ``finite`` subtracts the area a perfect ranking of these n rows has, so that it
            scores 0; ``asymptotic`` subtracts r + (1 - r) ln(1 - r) with error rate r, as the
            peers do, which leaves a perfect ranking slightly off 0. The finite form belongs to the
            mean of risks.

    Returns:
        In [0, 1] for the finite form.

    Raises:
        UndefinedMetricError: No rows.
        UsageError: The finite ideal with another rule than ``mean``.
        DataError: A value is not finite, or correctness leaves [0, 1].

    Source:
        Geifman, Uziel and El-Yaniv 2019 (asymptotic); the finite form is ours.

    Example:
        >>> e_aurc(np.array([0.9, 0.8, 0.7]), np.array([1.0, 1.0, 0.0]))
        0.0
    """
    if ideal == "finite" and rule != "mean":
        raise UsageError(
            f"The finite ideal with rule {rule!r}; it belongs to the mean of risks. "
            "Use ideal='asymptotic' or rule='mean'."
        )
    ranked = score_levels(confidence, correct)
    if ideal == "finite":
        return float(e_aurc_levels(ranked)[0])
    error = float(ranked.total_wrong[0] / ranked.total[0])
    right = 1.0 - error
    lowest = error + right * float(np.log(right)) if right > 0 else error
    return value_or_reason(aurc_levels(ranked, rule) - lowest, _TWO_ROWS)


def e_aurc_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`e_aurc` under every weighting."""
    excess: Float[np.ndarray, " b"] = ranked.ideal.mean_accuracy - ranked.mean_accuracy
    # A perfect ranking can fall below 0 by rounding; NaN must stay NaN.
    return np.maximum(excess, 0.0, out=excess)


def augrc(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    rule: Literal["fd_shifts", "torch_uncertainty"] = "fd_shifts",
) -> float:
    """Area under the generalised risk-coverage curve; lower is better.

    Generalised risk is the share of all rows that are kept *and* wrong; its area is the chance
    that a random kept row fails silently, averaged over thresholds. For 0/1 correctness it equals
    (1 - AUROC) a (1 - a) + (1 - a)² / 2 with accuracy a.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        rule: ``fd_shifts`` (the authors') takes the trapezoid from coverage 0;
            ``torch_uncertainty`` from coverage 1/n, divided by 1 - 1/n.

    Returns:
        In [0, 1/2].

    Raises:
        UndefinedMetricError: No rows, or one row with ``torch_uncertainty``.
        DataError: A value is not finite, or correctness leaves [0, 1].

    Source:
        Traub et al. 2024 and their library fd-shifts, which merges ties as we do.

    Example:
        >>> augrc(np.array([0.9, 0.1]), np.array([1.0, 0.0]))
        0.125
    """
    return value_or_reason(augrc_levels(score_levels(confidence, correct), rule), _TWO_ROWS)


def augrc_levels(
    ranked: Ranked, rule: Literal["fd_shifts", "torch_uncertainty"] = "fd_shifts"
) -> Float[np.ndarray, " b"]:
    """`augrc` under every weighting."""
    # The sum over levels of rows times the mean height of (rows - right) above them.
    area = ranked.total**2 / 2 - over_levels(ranked.rows, ranked.right_above)
    area += over_levels(ranked.rows, ranked.right) / 2
    if rule == "fd_shifts":
        return ratio(area, ranked.total**2)
    first = np.argmax(ranked.rows > 0, axis=1)
    at = np.arange(len(first))
    # The segment from coverage 0 to 1/n is a triangle under the most confident row's risk.
    triangle = (1.0 - ratio(ranked.right[at, first], ranked.rows[at, first])) / 2
    return ratio(area - triangle, ranked.total * (ranked.total - 1))


def auarc(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    rule: Literal["mean", "trapezoid"] = "mean",
) -> float:
    """Area under the accuracy-rejection curve; higher is better, accuracy = random.

    Args:
        confidence: Any real number, higher = more trustworthy.
        correct: In [0, 1].
        rule: ``mean`` averages the accuracy among the k most confident rows over k = 1..n, so it
            equals 1 - AURC; ``trapezoid`` integrates it over n evenly spaced coverages.

    Returns:
        In [0, 1].

    Raises:
        UndefinedMetricError: No rows, or one row with ``trapezoid``.
        DataError: A value is not finite, or correctness leaves [0, 1].

    Source:
        Nadeem et al. 2009; the trapezoid is TruthTorchLM's.

    Example:
        >>> round(auarc(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0])), 6)
        0.722222
    """
    ranked = score_levels(confidence, correct)
    return value_or_reason(
        auarc_levels(ranked) if rule == "mean" else _trapezoid_accuracy(ranked), _TWO_ROWS
    )


def auarc_levels(ranked: Ranked) -> Float[np.ndarray, " b"]:
    """`auarc` under every weighting."""
    return ranked.mean_accuracy
