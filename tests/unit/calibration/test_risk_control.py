"""Certified thresholds: hand-worked values, limits, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.calibration.risk_control import (
    betting_p_value,
    binomial_p_value,
    error_bound,
    learn_threshold,
    plan_thresholds,
    smallest_accepted,
)
from sightline.core.errors import DataError, UsageError


def learn(confidence, correct, thresholds, **settings):
    options = {"risk": 0.05, "delta": 0.05, "rng": np.random.default_rng(0)} | settings
    return learn_threshold(
        np.array(confidence, float), np.array(correct, float), thresholds, **options
    )


def test_fifty_nine_right_answers_are_the_fewest_that_certify_five_per_cent():
    assert smallest_accepted(0.05, 0.05) == 59
    assert binomial_p_value(0, 59, 0.05) <= 0.05 < binomial_p_value(0, 58, 0.05)
    assert learn(np.ones(59), np.ones(59), [0.5]).threshold == 0.5
    assert learn(np.ones(58), np.ones(58), [0.5]).threshold is None


@pytest.mark.parametrize(("risk", "delta", "n"), [(0.1, 0.1, 22), (0.5, 0.5, 1), (0.01, 0.05, 299)])
def test_the_fewest_answers_by_hand(risk, delta, n):
    assert smallest_accepted(risk, delta) == n
    assert (1 - risk) ** n <= delta < (1 - risk) ** (n - 1)


def test_a_binomial_chance_by_hand():
    # Two errors or fewer among four at one half: (1 + 4 + 6) / 16.
    assert binomial_p_value(2, 4, 0.5) == pytest.approx(11 / 16, abs=1e-14)
    assert binomial_p_value(4, 4, 0.5) == 1.0
    assert binomial_p_value(0, 0, 0.5) == 1.0


def test_a_large_binomial_chance_is_scipys():
    scipy_stats = pytest.importorskip("scipy.stats", reason="the learn extra is not installed")
    for wrong, n, rate in ((900, 20_000, 0.05), (0, 5000, 0.001), (37, 400, 0.1)):
        expected = scipy_stats.binom.cdf(wrong, n, rate)
        assert binomial_p_value(wrong, n, rate) == pytest.approx(expected, rel=1e-9)


def test_a_fixed_sequence_stops_at_the_first_failure():
    # 100 sure and right, 30 middling with 12 wrong, 400 unsure and right.
    confidence = np.repeat([0.9, 0.6, 0.3], [100, 30, 400])
    correct = np.ones(530)
    correct[100:112] = 0
    sequence = learn(confidence, correct, [0.9, 0.6, 0.3])
    assert [test.certified for test in sequence.tests] == [True, False, False]
    assert sequence.threshold == 0.9
    assert [(t.accepted, t.wrong) for t in sequence.tests] == [(100, 0), (130, 12), (530, 12)]
    # Bonferroni tests all of them, each at a third, and comes to the far side of the dip.
    every = learn(confidence, correct, [0.9, 0.6, 0.3], method="bonferroni")
    assert [test.certified for test in every.tests] == [True, False, True]
    assert every.threshold == 0.3


def test_where_nothing_is_certified_the_nearest_is_named():
    result = learn(np.linspace(0, 1, 200), np.arange(200) % 2, [0.9, 0.5, 0.1])
    assert result.threshold is None
    assert result.closest.p_value == min(test.p_value for test in result.tests)
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_bound_is_clopper_and_pearsons():
    scipy_stats = pytest.importorskip("scipy.stats", reason="the learn extra is not installed")
    assert error_bound(4, 120, 0.05) == pytest.approx(scipy_stats.beta.ppf(0.95, 5, 116), abs=1e-9)
    assert error_bound(120, 120, 0.05) == 1.0
    assert error_bound(0, 0, 0.05) == 1.0


def test_one_row_of_every_group_is_kept():
    groups = np.repeat(np.arange(70), 3)
    result = learn(np.ones(210), np.ones(210), [0.5], groups=groups, unit="one_per_group")
    assert (result.n, result.tests[0].accepted, result.threshold) == (70, 70, 0.5)


def test_dependent_rows_are_no_evidence():
    # 40 groups of five rows, all right: 200 rows would certify 5 %, 40 groups cannot.
    groups = np.repeat(np.arange(40), 5)
    for unit in ("one_per_group", "groups"):
        result = learn(np.ones(200), np.ones(200), [0.5], groups=groups, unit=unit)
        assert result.threshold is None
    with pytest.raises(DataError, match="200 rows in 40 groups; independent rows are required"):
        learn(np.ones(200), np.ones(200), [0.5], groups=groups)


def test_groups_as_units_take_part_marks():
    groups = np.repeat(np.arange(400), 2)
    result = learn(np.ones(800), np.full(800, 0.99), [0.5], groups=groups, unit="groups")
    assert result.threshold == 0.5
    with pytest.raises(DataError, match="exact binomial tests require 0 or 1"):
        learn(np.ones(4), np.full(4, 0.5), [0.5])


def test_nothing_accepted_certifies_nothing():
    for unit in ("rows", "groups"):
        result = learn(np.zeros(500), np.ones(500), [0.5], unit=unit)
        assert (result.threshold, result.tests[0].accepted, result.tests[0].p_value) == (None, 0, 1)
    assert learn([], [], [0.5]).threshold is None
    assert learn([], [], [0.5], unit="groups").threshold is None


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"risk": 0.0}, "risk 0; a share above 0"),
        ({"delta": 1.0}, "delta 1; a share above 0"),
        ({"thresholds": []}, "No thresholds"),
    ],
)
def test_wrong_settings_are_named(settings, found):
    thresholds = settings.pop("thresholds", [0.5])
    with pytest.raises(UsageError, match=found):
        learn([0.5], [1], thresholds, **settings)


@pytest.mark.parametrize(
    ("confidence", "correct", "groups", "found"),
    [
        ([0.5, 0.6], [1], None, "2 confidences with 1 values"),
        ([0.5], [1], np.array([0, 1]), "1 confidences with 1 values of correctness and 2 groups"),
        ([np.nan], [1], None, "not finite"),
        ([0.5], [1.5], None, r"outside \[0, 1\]"),
    ],
)
def test_wrong_rows_are_named(confidence, correct, groups, found):
    with pytest.raises(DataError, match=found):
        learn(confidence, correct, [0.5], groups=groups)


@given(st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_row_order_changes_nothing(n_wrong, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 20, 300) / 20
    correct = (np.arange(300) >= n_wrong).astype(float)
    order = rng.permutation(300)
    for unit in ("rows",):
        one = learn(confidence, correct, [0.8, 0.5, 0.0], unit=unit)
        two = learn(confidence[order], correct[order], [0.0, 0.5, 0.8], unit=unit)
        assert one == two


def test_a_p_value_of_bets_falls_with_evidence_and_is_one_without():
    assert betting_p_value(np.empty(0), 0.1) == 1.0
    assert betting_p_value(np.full(50, 0.1), 0.1) == 1.0
    assert betting_p_value(np.ones(50), 0.1) == 1.0
    few, many = (betting_p_value(np.zeros(n), 0.1) for n in (50, 500))
    assert many < few < 1


def test_a_plan_starts_where_passing_is_likely_and_ends_with_everything():
    rng = np.random.default_rng(0)
    confidence = rng.random(2000)
    correct = (rng.random(2000) < 0.5 + 0.5 * confidence).astype(float)
    thresholds = plan_thresholds(confidence, correct, risk=0.1, delta=0.1, n_test=2000)
    assert np.all(np.diff(thresholds) < 0)
    assert thresholds[-1] == confidence.min()
    assert 0.85 < thresholds[0] < 1
    # At least as many as can pass at all are expected to be accepted at the first.
    assert 2000 * np.mean(confidence >= thresholds[0]) >= smallest_accepted(0.1, 0.1)


def test_a_plan_without_a_chance_starts_at_the_best_there_is():
    rng = np.random.default_rng(1)
    confidence = rng.random(400)
    thresholds = plan_thresholds(
        confidence, np.zeros(400), risk=0.05, delta=0.05, n_test=100, count=3
    )
    assert 1 <= len(thresholds) <= 3
    tied = plan_thresholds(np.full(50, 0.7), np.ones(50), risk=0.1, delta=0.1, n_test=50)
    assert tied.tolist() == [0.7]
    with pytest.raises(DataError, match="plan thresholds on"):
        plan_thresholds(np.empty(0), np.empty(0), risk=0.1, delta=0.1, n_test=50)
    with pytest.raises(UsageError, match="0 thresholds"):
        plan_thresholds(confidence, confidence, risk=0.1, delta=0.1, n_test=50, count=0)


@pytest.mark.parametrize(("risk", "n"), [(0.05, 80), (0.1, 40), (0.5, 7), (0.999, 6)])
def test_groups_as_units_take_more_than_single_answers(risk, n):
    assert smallest_accepted(risk, 0.05, "groups") == n
    assert betting_p_value(np.zeros(n), risk) <= 0.05 < betting_p_value(np.zeros(n - 1), risk)
    assert n > smallest_accepted(risk, 0.05, "one_per_group")


def test_a_risk_next_to_nothing_is_answered_at_once():
    assert smallest_accepted(1e-12, 0.05, "groups") > smallest_accepted(1e-12, 0.05)
