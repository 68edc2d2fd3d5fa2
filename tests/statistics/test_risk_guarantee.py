"""The guarantee holds: over many data sets whose true risk is known, it fails at most at delta."""

import numpy as np
import pytest

from sightline.calibration.risk_control import learn_threshold, plan_thresholds

SIMULATIONS = 1000


def right_chance(confidence):
    """Not calibrated: right in .927 where confidence is .9, in .556 where it is .2."""
    return 0.45 + 0.53 * confidence


def true_risk(threshold):
    """Error rate among confidence uniform on [threshold, 1]."""
    return 1 - right_chance((max(threshold, 0.0) + 1) / 2)


def drawn(rng, n, per_group):
    """Rows of a group share their confidence and, half of the time, their luck."""
    groups = np.repeat(np.arange(n // per_group), per_group)
    confidence = rng.random(n // per_group)[groups]
    shared = rng.random(n // per_group)[groups]
    luck = np.where(rng.random(n) < 0.5, shared, rng.random(n))
    return confidence, (luck < right_chance(confidence)).astype(float), groups


@pytest.mark.parametrize(
    ("method", "unit", "per_group", "n", "least"),
    [
        ("fixed_sequence", "rows", 1, 1000, 0.8),
        ("bonferroni", "rows", 1, 1000, 0.4),
        ("fixed_sequence", "one_per_group", 3, 3000, 0.6),
        ("fixed_sequence", "groups", 3, 3000, 0.4),
    ],
)
def test_the_error_rate_is_exceeded_at_most_at_delta(method, unit, per_group, n, least):
    risk, delta = 0.12, 0.1
    exceeded, certified = 0, 0
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        confidence, correct, groups = drawn(rng, 2 * n, per_group)
        plan, test = slice(0, n), slice(n, None)
        thresholds = plan_thresholds(
            confidence[plan],
            correct[plan],
            risk=risk,
            delta=delta,
            n_test=n // per_group,
        )
        result = learn_threshold(
            confidence[test],
            correct[test],
            thresholds,
            risk=risk,
            delta=delta,
            method=method,
            groups=groups[test],
            unit=unit,
            rng=rng,
        )
        if result.threshold is not None:
            certified += 1
            exceeded += true_risk(result.threshold) > risk
    # The share of failures, less three standard errors of a share of delta.
    assert exceeded / SIMULATIONS <= delta + 3 * np.sqrt(delta * (1 - delta) / SIMULATIONS)
    # It is no empty promise: most data sets get a threshold.
    assert certified / SIMULATIONS > least


@pytest.mark.parametrize(("share", "size"), [(0.01, 50), (0.02, 20), (0.05, 6)])
def test_large_groups_that_are_rare_do_not_break_the_guarantee(share, size):
    """Rare groups of many rows, all wrong, among single rows: a group counts once, whatever its
    size, and those that were not drawn are allowed for."""
    risk, delta, groups = 0.1, 0.05, 300

    def certified(error):
        small = (error - share) / (1 - share)
        found = 0
        for seed in range(SIMULATIONS):
            rng = np.random.default_rng(seed)
            large = rng.random(groups) < share
            wrong = large | (rng.random(groups) < small)
            sizes = np.where(large, size, 1)
            result = learn_threshold(
                np.ones(sizes.sum()),
                1.0 - np.repeat(wrong, sizes),
                [0.5],
                risk=risk,
                delta=delta,
                groups=np.repeat(np.arange(groups), sizes),
                unit="groups",
                rng=rng,
            )
            found += result.threshold is not None
        return found / SIMULATIONS

    assert certified(1.01 * risk) <= delta + 3 * np.sqrt(delta * (1 - delta) / SIMULATIONS)
    assert certified(0.052) > 0.5


def test_repeating_rows_as_if_independent_breaks_the_guarantee():
    """Why groups matter: three copies of each row pass for three times the evidence."""
    risk, delta = 0.12, 0.1
    exceeded = 0
    border = 2 * (1 - risk - 0.45) / 0.53 - 1  # threshold at which the true risk is exactly `risk`
    for seed in range(300):
        rng = np.random.default_rng(seed)
        confidence = rng.random(1000)
        correct = (rng.random(1000) < right_chance(confidence)).astype(float)
        copied = learn_threshold(
            np.repeat(confidence, 3),
            np.repeat(correct, 3),
            [border - 0.005],
            risk=risk,
            delta=delta,
            rng=rng,
        )
        exceeded += copied.threshold is not None
    assert exceeded / 300 > delta + 3 * np.sqrt(delta * (1 - delta) / 300)


def test_a_score_without_information_gets_no_more_than_the_base_rate_allows():
    """Errors at .3 everywhere: a risk of .2 is certified about never, whatever the coverage."""
    certified = 0
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        confidence = rng.random(1600)
        correct = (rng.random(1600) < 0.7).astype(float)
        thresholds = plan_thresholds(
            confidence[:800], correct[:800], risk=0.2, delta=0.1, n_test=800
        )
        result = learn_threshold(
            confidence[800:], correct[800:], thresholds, risk=0.2, delta=0.1, rng=rng
        )
        certified += result.threshold is not None
    assert certified / SIMULATIONS <= 0.1
