"""Intervals hold what they promise: simulated coverage, seeded."""

from statistics import NormalDist

import numpy as np
import pytest

from sightline.metrics import METRICS
from sightline.metrics.closed_form import auroc_estimate, proportion
from sightline.metrics.consistency import consistency_test, spiegelhalter_test
from sightline.metrics.intervals import Sample, cluster_bootstrap


def drawn_rows(rng, n, *, per_group=1, overconfidence=1.0):
    """Confidence, correctness and groups; rows of a group share half of score and luck."""
    groups = np.repeat(np.arange(n // per_group), per_group)
    shared = rng.normal(size=n // per_group)[groups]
    score = rng.normal(size=n) if per_group == 1 else 0.8 * shared + 0.6 * rng.normal(size=n)
    log_odds = 0.8 + 1.3 * score
    luck = rng.random(n)
    if per_group > 1:
        luck = np.where(rng.random(n) < 0.5, rng.random(n // per_group)[groups], luck)
    correct = (luck < 1 / (1 + np.exp(-log_odds))).astype(float)
    return 1 / (1 + np.exp(-overconfidence * log_odds)), correct, groups


def coverage(metrics, *, n, simulations, resamples, **settings):
    """Share of simulated samples whose interval holds the figure of a million rows."""
    confidence, correct, _ = drawn_rows(np.random.default_rng(999), 1_000_000, **settings)
    truth = {m: METRICS[m].function(confidence, correct) for m in metrics}
    held = dict.fromkeys(metrics, 0)
    for seed in range(simulations):
        rng = np.random.default_rng(seed)
        confidence, correct, groups = drawn_rows(rng, n, **settings)
        drawn = cluster_bootstrap(
            [Sample(confidence[None], correct, groups)],
            metrics=metrics,
            n_resamples=resamples,
            rng=rng,
        )
        for m in metrics:
            estimate = drawn.estimate(0, m)
            held[m] += estimate.low <= truth[m] <= estimate.high
    return {m: count / simulations for m, count in held.items()}


def test_intervals_cover_with_independent_rows():
    metrics = ("auroc", "aurc", "accuracy", "prr", "brier")
    shares = coverage(metrics, n=200, simulations=150, resamples=200)
    # Three standard errors of 150 simulations around .95 reach from .90 to 1.
    assert all(0.90 <= share <= 0.995 for share in shares.values()), shares


def test_intervals_cover_with_dependent_rows():
    shares = coverage(
        ("auroc", "aurc", "accuracy"), n=600, simulations=120, resamples=300, per_group=4
    )
    assert all(0.89 <= share <= 0.995 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"n": 200}, {"n": 1000}, {"n": 600, "per_group": 4}])
def test_intervals_cover_between_92_and_98_percent(settings):
    metrics = ("auroc", "aupr_wrong", "aurc", "augrc", "prr", "accuracy", "brier", "nll")
    shares = coverage(metrics, simulations=1000, resamples=1000, **settings)
    assert all(0.92 <= share <= 0.98 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.parametrize("overconfidence", [1.0, 1.3, 2.0])
def test_calibration_errors_cover_roughly(overconfidence):
    metrics = ("ece", "ece15", "ece_mass", "ace")
    shares = coverage(metrics, n=500, simulations=500, resamples=500, overconfidence=overconfidence)
    # Absolute values near 0 have no exact bootstrap; a bare percentile interval covers 0 to 5 %
    # where confidence is calibrated.
    assert all(share >= 0.84 for share in shares.values()), shares


def test_calibrated_confidence_is_not_called_miscalibrated():
    shares = coverage(("ece", "ece_mass"), n=500, simulations=100, resamples=150)
    assert all(share >= 0.84 for share in shares.values()), shares


def test_a_percentile_interval_of_ece_would_leave_out_its_own_estimate():
    outside, held = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        confidence, correct, groups = drawn_rows(rng, 500)
        drawn = cluster_bootstrap(
            [Sample(confidence[None], correct, groups)],
            metrics=("ece",),
            n_resamples=200,
            rng=rng,
        )
        estimate = drawn.estimate(0, "ece")
        outside += np.quantile(drawn.draws["ece"][0], 0.025) > estimate.value
        held += estimate.low <= estimate.value <= estimate.high
    assert outside > 3
    assert held == 60


@pytest.mark.parametrize(("n", "share"), [(20, 0.8), (100, 0.95), (300, 0.5)])
def test_wilson_covers(n, share):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        estimate = proportion((rng.random(n) < share).astype(float))
        held += estimate.low <= share <= estimate.high
    assert 0.92 <= held / 1000 <= 0.98


def test_shares_cover_with_dependent_rows():
    truth = drawn_rows(np.random.default_rng(999), 400_000, per_group=4)[1].mean()
    held = naive = 0
    for seed in range(600):
        _, correct, groups = drawn_rows(np.random.default_rng(seed), 240, per_group=4)
        estimate, alone = proportion(correct, groups), proportion(correct)
        held += estimate.low <= truth <= estimate.high
        naive += alone.low <= truth <= alone.high
    assert 0.92 <= held / 600 <= 0.98
    assert naive / 600 < 0.90


@pytest.mark.parametrize("per_group", [1, 4])
def test_scores_without_signal_are_rarely_called_informative(per_group):
    false_alarms = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        _, correct, groups = drawn_rows(rng, 120, per_group=per_group)
        score = rng.normal(size=120 // per_group)[groups]
        estimate = auroc_estimate(score, correct, groups)
        false_alarms += not estimate.low <= 0.5 <= estimate.high
    assert false_alarms / 500 <= 0.07


def test_p_values_are_uniform_under_calibration():
    p_values = {"consistency": [], "spiegelhalter": []}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        confidence, correct, _ = drawn_rows(rng, 150)
        test = consistency_test(confidence, correct, rng=rng, n_resamples=99)
        p_values["consistency"].append(test.p_value)
        p_values["spiegelhalter"].append(spiegelhalter_test(confidence, correct).p_value)
    for name, values in p_values.items():
        for level in (0.05, 0.2, 0.5):
            slack = NormalDist().inv_cdf(0.9995) * (level * (1 - level) / 300) ** 0.5
            assert abs(np.mean(np.array(values) <= level) - level) < slack, (name, level)
