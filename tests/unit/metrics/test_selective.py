"""Selective prediction by hand: areas, ties, oracles and their variants."""

import itertools

import numpy as np
import pytest

from sightline.core.errors import UndefinedMetricError, UsageError
from sightline.metrics.discrimination import auroc
from sightline.metrics.selective import accuracy, auarc, augrc, aurc, e_aurc, prr

CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6])
CORRECT = np.array([1.0, 0.0, 1.0, 0.0])
TIED = np.array([0.9, 0.5, 0.5, 0.5, 0.1, 0.1])
TIED_CORRECT = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
SOFT = np.array([1.0, 0.3, 0.6, 0.0])
ORDERS = [np.random.default_rng(i).permutation(6) for i in range(40)]


def mean_over_tie_orders(confidence, correct, function):
    """The mean of a metric over every order that keeps confidence descending."""
    values = [
        function(correct[list(order)])
        for order in itertools.permutations(range(len(confidence)))
        if np.all(np.diff(confidence[list(order)]) <= 0)
    ]
    return float(np.mean(values))


def running_accuracy(ordered):
    return np.cumsum(ordered) / np.arange(1, len(ordered) + 1)


def test_prr_by_hand():
    # Accuracies of the kept: 1, 1/2, 2/3, 1/2; ideal 1, 1, 2/3, 1/2; random 1/2.
    ours, ideal = (1 + 1 / 2 + 2 / 3 + 1 / 2) / 4, (1 + 1 + 2 / 3 + 1 / 2) / 4
    assert prr(CONFIDENCE, CORRECT) == pytest.approx((ours - 0.5) / (ideal - 0.5), abs=1e-14)


def test_prr_up_to_half_rejected():
    # Kept 3 and 4 rows; one and no rejection.
    ours, ideal = (2 / 3 + 1 / 2) / 2, (2 / 3 + 1 / 2) / 2
    assert prr(CONFIDENCE, CORRECT, max_rejection=0.5) == pytest.approx(
        (ours - 0.5) / (ideal - 0.5), abs=1e-14
    )


def test_prr_is_one_for_the_ideal_and_zero_for_constant_scores():
    assert prr(CORRECT, CORRECT) == pytest.approx(1.0, abs=1e-14)
    assert prr(SOFT, SOFT) == pytest.approx(1.0, abs=1e-14)
    assert prr(np.ones(4), CORRECT) == pytest.approx(0.0, abs=1e-14)
    assert prr(np.ones(4), SOFT) == pytest.approx(0.0, abs=1e-14)


def test_prr_takes_fractions():
    ours = running_accuracy(SOFT).mean()
    ideal = running_accuracy(np.sort(SOFT)[::-1]).mean()
    expected = (ours - SOFT.mean()) / (ideal - SOFT.mean())
    assert prr(CONFIDENCE, SOFT) == pytest.approx(expected, abs=1e-14)


def test_prr_with_a_drawn_baseline_comes_near_the_exact_one():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(200), (rng.random(200) < 0.6).astype(float)
    for limit in (1.0, 0.5):
        drawn = prr(
            confidence, correct, max_rejection=limit, shuffles=1000, rng=np.random.default_rng(42)
        )
        assert drawn == pytest.approx(prr(confidence, correct, max_rejection=limit), abs=0.01)


def test_prr_settings_are_checked():
    with pytest.raises(UsageError, match=r"max_rejection is 1\.5"):
        prr(CONFIDENCE, CORRECT, max_rejection=1.5)
    with pytest.raises(UsageError, match="10 shuffles without a random generator"):
        prr(CONFIDENCE, CORRECT, shuffles=10)


@pytest.mark.parametrize("correct", [np.ones(4), np.zeros(4), np.full(4, 0.3)])
def test_prr_of_equally_right_answers_is_undefined(correct):
    with pytest.raises(UndefinedMetricError, match="equally right"):
        prr(CONFIDENCE, correct)


def test_prr_that_rejects_nothing_is_undefined():
    with pytest.raises(UndefinedMetricError):
        prr(CONFIDENCE, CORRECT, max_rejection=0.1)


@pytest.mark.parametrize("correct", [TIED_CORRECT, np.array([1.0, 0.2, 0.5, 0.9, 0.0, 0.4])])
def test_ties_are_the_mean_over_all_orders(correct):
    expected = mean_over_tie_orders(TIED, correct, lambda z: 1 - running_accuracy(z).mean())
    assert aurc(TIED, correct) == pytest.approx(expected, abs=1e-14)
    assert auarc(TIED, correct) == pytest.approx(1 - expected, abs=1e-14)
    trapezoid = mean_over_tie_orders(
        TIED, correct, lambda z: np.trapezoid(running_accuracy(z), dx=1 / (len(z) - 1))
    )
    assert auarc(TIED, correct, rule="trapezoid") == pytest.approx(trapezoid, abs=1e-14)
    assert aurc(TIED, correct, rule="torch_uncertainty") == pytest.approx(1 - trapezoid, abs=1e-14)
    half = mean_over_tie_orders(TIED, correct, lambda z: running_accuracy(z)[3:].mean())
    ideal = running_accuracy(np.sort(correct)[::-1])[3:].mean()
    expected = (half - correct.mean()) / (ideal - correct.mean())
    assert prr(TIED, correct, max_rejection=0.5) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("correct", [TIED_CORRECT, np.array([1.0, 0.2, 0.5, 0.9, 0.0, 0.4])])
def test_generalised_risk_under_ties_is_the_mean_over_all_orders(correct):
    def area(ordered, lowest):
        heights = np.append(0.0, np.cumsum(1 - ordered)) / len(ordered)
        return np.trapezoid(heights[lowest:], dx=1 / (len(ordered) - lowest))

    for rule, lowest in (("fd_shifts", 0), ("torch_uncertainty", 1)):
        expected = mean_over_tie_orders(TIED, correct, lambda z, k=lowest: area(z, k))
        assert augrc(TIED, correct, rule=rule) == pytest.approx(expected, abs=1e-14)


def test_the_merged_trapezoid_by_hand():
    # Working points: coverage 1/6 at risk 0, 4/6 at 1/4, 1 at 2/6.
    expected = 0 / 6 + 3 / 6 * (0 + 1 / 4) / 2 + 2 / 6 * (1 / 4 + 2 / 6) / 2
    assert aurc(TIED, TIED_CORRECT, rule="fd_shifts") == pytest.approx(expected, abs=1e-14)


def test_aurc_of_constant_scores_is_the_error_rate():
    for rule in ("mean", "torch_uncertainty", "fd_shifts"):
        assert aurc(np.zeros(4), CORRECT, rule=rule) == pytest.approx(0.5, abs=1e-14)


def test_a_perfect_ranking_has_the_finite_ideal_area():
    n, wrong = 10, 3
    correct = np.array([1.0] * (n - wrong) + [0.0] * wrong)
    confidence = np.arange(n, 0, -1.0)
    ideal = sum((k - n + wrong) / k for k in range(n - wrong + 1, n + 1)) / n
    assert aurc(confidence, correct) == pytest.approx(ideal, abs=1e-14)
    assert e_aurc(confidence, correct) == 0.0
    asymptotic = ideal - (0.3 + 0.7 * np.log(0.7))
    assert e_aurc(confidence, correct, ideal="asymptotic") == pytest.approx(asymptotic, abs=1e-14)


def test_the_asymptotic_ideal_without_right_answers():
    assert e_aurc(CONFIDENCE, np.zeros(4), ideal="asymptotic") == 0.0


def test_the_finite_ideal_belongs_to_the_mean_of_risks():
    with pytest.raises(UsageError, match="belongs to the mean of risks"):
        e_aurc(CONFIDENCE, CORRECT, rule="fd_shifts")


@pytest.mark.parametrize(
    "undefined",
    [
        lambda c, z: aurc(c, z, rule="torch_uncertainty"),
        lambda c, z: augrc(c, z, rule="torch_uncertainty"),
        lambda c, z: auarc(c, z, rule="trapezoid"),
    ],
)
def test_a_trapezoid_needs_two_rows(undefined):
    with pytest.raises(UndefinedMetricError, match="One row"):
        undefined(np.array([0.5]), np.array([1.0]))


def test_augrc_follows_from_auroc_and_accuracy():
    rng = np.random.default_rng(1)
    confidence, correct = rng.integers(0, 9, 80) / 9, rng.integers(0, 2, 80).astype(float)
    a = accuracy(confidence, correct)
    expected = (1 - auroc(confidence, correct)) * a * (1 - a) + (1 - a) ** 2 / 2
    assert augrc(confidence, correct) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("correct", [TIED_CORRECT, np.array([1.0, 0.2, 0.5, 0.9, 0.0, 0.4])])
@pytest.mark.parametrize("metric", [prr, aurc, e_aurc, augrc, auarc, accuracy])
def test_no_order_of_the_rows_changes_a_bit(metric, correct):
    values = {metric(TIED[order], correct[order]) for order in ORDERS}
    assert len(values) == 1
