"""Thresholds with a guarantee: accept answers only where their error rate is certified.

Learn-then-Test. A few thresholds are fixed before the labels of the test rows are seen. For each,
the hypothesis "more than ``risk`` of the accepted answers are wrong" is tested; thresholds whose
hypotheses are rejected, with errors over all tests held at ``delta``, are certified: with
probability at least 1 - delta over the draw of these rows, the error rate among accepted answers is
at most ``risk`` at every certified threshold, for future rows drawn like them.

The guarantee is about independent units. Where rows come in groups, either one row per group is
kept, or the groups are tested as units of their own.

Source:
    Angelopoulos et al. 2021 (Learn then Test); p-values for bounded means by betting: Waudby-Smith
    and Ramdas 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import DataError, UsageError

Method = Literal["fixed_sequence", "bonferroni"]
Unit = Literal["rows", "one_per_group", "groups"]

MOST_TESTS = 20
"""Thresholds that are tested, unless said otherwise."""

LARGEST_STAKE = 0.75
"""Most of its capital that a bet may lose: the nearer to 1, the fewer groups pass that are all
right, and the more one wrong group costs."""

_COUNTED = 1_000_000
"""Groups up to which the fewest that can pass are counted rather than bounded from below."""


@dataclass(frozen=True, slots=True)
class ThresholdTest:
    """One threshold's test.

    Attributes:
        threshold: Answers with at least this confidence are accepted.
        accepted: Accepted rows.
        wrong: Wrong ones among them; a sum of parts of 1 where correctness is not 0 or 1.
        p_value: Of the hypothesis that more than the risk of the accepted answers are wrong.
        certified: Whether the hypothesis is rejected, errors over all tests held at delta.
    """

    threshold: float
    accepted: int
    wrong: float
    p_value: float
    certified: bool


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What was certified, and how.

    Attributes:
        risk: Largest error rate among accepted answers.
        delta: Chance, over the draw of the test rows, that the guarantee does not hold.
        threshold: The certified threshold that accepts most answers; None where there is none.
        tests: In the order of testing, the highest threshold first; those that a fixed sequence
            did not reach any more are not certified either.
        n: Rows tested.
        method: How errors over all tests are held at delta.
        unit: What is taken to be independent.
    """

    risk: float
    delta: float
    threshold: float | None
    tests: tuple[ThresholdTest, ...]
    n: int
    method: Method
    unit: Unit

    @property
    def closest(self) -> ThresholdTest:
        """The test of the chosen threshold, or where there is none the one nearest to passing."""
        certified = [test for test in self.tests if test.certified]
        if certified:
            return certified[-1]
        return min(self.tests, key=lambda test: test.p_value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return asdict(self)


def smallest_accepted(risk: float, delta: float, unit: Unit = "rows") -> int:
    """Accepted answers, all of them right, that can certify the risk at all.

    With ``groups`` as units, groups whose answers are all accepted and right: betting takes more of
    them than the exact test of single answers.

    Example:
        >>> smallest_accepted(0.05, 0.05), smallest_accepted(0.05, 0.05, "groups")
        (59, 80)
    """
    _check_levels(risk, delta)
    if unit != "groups":
        return math.ceil(math.log(delta) / math.log1p(-risk))
    # The largest stake at every group; the first stakes are smaller.
    fewest = math.ceil(-math.log(delta) / math.log1p(LARGEST_STAKE * risk / (1.0 - risk)))
    n = fewest
    while n <= _COUNTED:
        passing = np.flatnonzero(np.exp(-_log_capital(np.zeros(n), risk)) <= delta)
        if len(passing):
            return int(passing[0]) + 1
        n *= 2
    return fewest


def binomial_p_value(wrong: int, accepted: int, risk: float) -> float:
    """Chance of at most ``wrong`` errors among ``accepted`` answers at an error rate of ``risk``.

    Exact; 1 where nothing is accepted.

    Example:
        >>> round(binomial_p_value(0, 59, 0.05), 4)
        0.0485
    """
    if accepted == 0 or wrong >= accepted:
        return 1.0
    return float(_binomial_cdf(accepted, risk)[wrong])


def error_bound(wrong: int, accepted: int, delta: float) -> float:
    """Clopper and Pearson's upper bound on the error rate of independent rows, at 1 - delta.

    It holds for one threshold chosen beforehand, not for the best of several.

    Example:
        >>> round(error_bound(0, 59, 0.05), 4)
        0.0495
    """
    if wrong >= accepted:
        return 1.0
    low, high = wrong / accepted, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        below = middle < 1.0 and binomial_p_value(wrong, accepted, max(middle, 1e-300)) > delta
        low, high = (middle, high) if below else (low, middle)
    return high


def betting_p_value(values: Float[np.ndarray, " g"], mean: float) -> float:
    """Chance, if independent values in [0, 1] had at least this mean, to look so much smaller.

    A capital is bet, value by value, on the next one lying below ``mean``; under the hypothesis it
    exceeds c with a chance of at most 1 / c. Stakes follow the variance of the values before.
    """
    if not len(values):
        return 1.0
    return float(min(1.0, math.exp(-max(0.0, float(_log_capital(values, mean).max())))))


def _log_capital(values: Float[np.ndarray, " g"], mean: float) -> Float[np.ndarray, " g"]:
    """Logarithm of the capital after each bet, of 1 to begin with."""
    gains = mean - values
    count = np.arange(1, len(values) + 1)
    before = np.concatenate([[0.0], np.cumsum(gains)[:-1]]) / count
    spread = (0.25 + np.concatenate([[0.0], np.cumsum(gains**2)[:-1]])) / count
    stake = np.clip(before / spread, 0.0, LARGEST_STAKE / (1.0 - mean))
    # Before anything is known of the drift, a small constant stake keeps the capital in play.
    stake = np.maximum(stake, 0.02)
    return np.asarray(np.cumsum(np.log1p(stake * gains)))


def plan_thresholds(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    *,
    risk: float,
    delta: float,
    n_test: int,
    count: int = MOST_TESTS,
) -> Float[np.ndarray, " k"]:
    """Chooses which thresholds to test, on rows that are not tested.

    Coverages run in equal steps from the likeliest to pass, by the error rates seen here, up to
    everything. A fixed sequence that fails at its first threshold certifies nothing, and one that
    passes goes on to more coverage, so nothing is gained by beginning with less.

    Args:
        confidence: Of the planning rows.
        correct: Of the planning rows, in [0, 1].
        risk: Error rate to certify.
        delta: Chance that the guarantee does not hold.
        n_test: Units that will be tested.
        count: Most thresholds.

    Returns:
        Distinct thresholds, highest first.

    Raises:
        DataError: There are no planning rows.
        UsageError: Levels outside (0, 1), or a count below 1.
    """
    _check_levels(risk, delta)
    if not len(confidence) or len(confidence) != len(correct):
        raise DataError(
            f"{len(confidence)} confidences and {len(correct)} values of correctness to plan "
            "thresholds on; one of each for at least 1 row is required. Give a planning split."
        )
    if count < 1 or n_test < 0:
        raise UsageError(
            f"{count} thresholds for {n_test} units; at least 1 threshold is required. Raise it."
        )
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1.0 - np.asarray(correct, dtype=np.float64)[order])
    kept = np.unique(np.linspace(1, len(order), 50).astype(np.int64))
    chances = np.array(
        [_power(wrong[k - 1], int(k), k / len(order), n_test, risk, delta) for k in kept.tolist()]
    )
    start = kept[int(np.argmax(chances))]
    ranks = np.unique(np.linspace(start, len(order), count).astype(np.int64))
    thresholds = np.unique(confidence[order][ranks - 1])[::-1]
    return np.array(thresholds, dtype=np.float64)


def learn_threshold(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n_correct"],
    thresholds: Sequence[float] | Float[np.ndarray, " k"],
    *,
    risk: float,
    delta: float,
    method: Method = "fixed_sequence",
    groups: Int[np.ndarray, " n_groups"] | None = None,
    unit: Unit = "rows",
    rng: np.random.Generator,
) -> Guarantee:
    """Tests thresholds and returns what is certified.

    Args:
        confidence: Of the test rows, which neither estimator nor calibration nor thresholds saw.
        correct: 0 or 1; any value in [0, 1] where groups are the units.
        thresholds: Fixed beforehand; see `plan_thresholds`.
        risk: Largest error rate among accepted answers, in (0, 1).
        delta: Chance that the guarantee does not hold, in (0, 1).
        method: ``fixed_sequence`` tests from the highest threshold down, each at delta, and stops
            at the first that fails; ``bonferroni`` tests each at delta over their number.
        groups: Rows that share a number are not independent; None if all are.
        unit: ``one_per_group`` keeps a random row of every group, which makes the guarantee one
            about a random row of a new group; ``groups`` gives the same guarantee from the means
            over all rows of each group, so that a large group counts as much as a small one;
            ``rows`` requires independent rows.
        rng: Draws the rows that are kept, and the order of the groups.

    Raises:
        DataError: Lengths differ, correctness does not fit the unit, or rows share a group where
            ``rows`` says that they are independent.
        UsageError: Levels outside (0, 1), or no thresholds.
    """
    _check_levels(risk, delta)
    confidence = np.asarray(confidence, dtype=np.float64)
    correct = np.asarray(correct, dtype=np.float64)
    index = _units(confidence, correct, groups, unit)
    if unit == "one_per_group":
        chosen = one_of_each(index, rng)
        confidence, correct, index = confidence[chosen], correct[chosen], np.arange(len(chosen))
    levels = np.unique(np.asarray(thresholds, dtype=np.float64))[::-1]
    if not len(levels):
        raise UsageError("No thresholds to test; at least one is required. Plan them first.")
    order = rng.permutation(int(index.max()) + 1 if len(index) else 0)
    each = delta if method == "fixed_sequence" else delta / len(levels)
    tests: list[ThresholdTest] = []
    passing = True
    for level in levels.tolist():
        accepted = confidence >= level
        wrong = float(np.sum(1.0 - correct[accepted]))
        n = int(accepted.sum())
        if unit == "groups":
            p_value = _group_p_value(accepted, correct, index, order, risk)
        else:
            p_value = binomial_p_value(round(wrong), n, risk)
        rejected = p_value <= each
        passing = rejected and (passing or method == "bonferroni")
        tests.append(ThresholdTest(level, n, wrong, p_value, passing))
    certified = [test.threshold for test in tests if test.certified]
    return Guarantee(
        risk=risk,
        delta=delta,
        threshold=min(certified) if certified else None,
        tests=tuple(tests),
        n=len(confidence),
        method=method,
        unit=unit,
    )


def one_of_each(groups: Int[np.ndarray, " n"], rng: np.random.Generator) -> Int[np.ndarray, " g"]:
    """Position of a random row of every group, in ascending order."""
    shuffled = rng.permutation(len(groups))
    return np.sort(shuffled[np.unique(groups[shuffled], return_index=True)[1]])


def _check_levels(risk: float, delta: float) -> None:
    for name, value in (("risk", risk), ("delta", delta)):
        if not 0 < value < 1:
            raise UsageError(
                f"{name} {value:g}; a share above 0 and below 1 is required. For example 0.05."
            )


def _units(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n_correct"],
    groups: Int[np.ndarray, " n_groups"] | None,
    unit: Unit,
) -> Int[np.ndarray, " n"]:
    """Index of each row's group."""
    lengths = {len(confidence), len(correct), len(confidence) if groups is None else len(groups)}
    if len(lengths) > 1:
        raise DataError(
            f"{len(confidence)} confidences with {len(correct)} values of correctness and "
            f"{'no' if groups is None else len(groups)} groups; one each per row is required. "
            "Align them by key first."
        )
    if not np.all((correct >= 0) & (correct <= 1)) or not np.all(np.isfinite(confidence)):
        raise DataError(
            "A confidence that is not finite, or a correctness outside [0, 1]; both are required. "
            "Correct the values."
        )
    if unit != "groups" and not np.all((correct == 0) | (correct == 1)):
        raise DataError(
            "Correctness between 0 and 1; exact binomial tests require 0 or 1. Set a threshold on "
            "correctness, or take groups as units."
        )
    n = len(confidence)
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    if unit == "rows" and n and int(index.max()) + 1 < n:
        raise DataError(
            f"{n} rows in {int(index.max()) + 1} groups; independent rows are required. Take one "
            "row per group (one_per_group), or groups as units (groups)."
        )
    return index


def _group_p_value(
    accepted: Bool[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    index: Int[np.ndarray, " n"],
    order: Int[np.ndarray, " g"],
    risk: float,
) -> float:
    """Tests E[mean over a group of accepted x (wrong - risk)] >= 0, groups as units.

    A mean lies in [-risk, 1 - risk] whatever the size of its group. A sum would need a bound on
    sizes that is known beforehand: the largest group seen is none, since larger ones may be rare.
    """
    excess = np.where(accepted, (1.0 - correct) - risk, 0.0)
    sums = np.bincount(index, weights=excess, minlength=len(order))
    means = sums / np.maximum(np.bincount(index, minlength=len(order)), 1)
    return betting_p_value(np.clip(means[order] + risk, 0.0, 1.0), risk)


def _binomial_cdf(n: int, rate: float) -> Float[np.ndarray, " k"]:
    """P(at most k errors among n) for k = 0 … n."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    log_chance = (
        factorials[n]
        - factorials
        - factorials[::-1]
        + k * math.log(rate)
        + (n - k) * math.log1p(-rate)
    )
    cdf: Float[np.ndarray, " k"] = np.minimum(np.cumsum(np.exp(log_chance)), 1.0)
    return cdf


def _power(
    wrong: float, kept: int, coverage: float, n_test: int, risk: float, delta: float
) -> float:
    """Chance that a threshold passes its test, by the error rate seen on the planning rows."""
    accepted = int(coverage * n_test)
    if accepted == 0:
        return 0.0
    rate = (wrong + 0.5) / (kept + 1.0)
    most = int(np.searchsorted(_binomial_cdf(accepted, risk), delta, side="right")) - 1
    return 0.0 if most < 0 else float(_binomial_cdf(accepted, rate)[most])
