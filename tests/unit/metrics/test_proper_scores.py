"""Brier, its parts, skill and log-likelihood by hand."""

import math

import numpy as np
import pytest

from sightline.core.errors import UndefinedMetricError, UsageError
from sightline.metrics.proper_scores import brier, brier_parts, brier_skill, nll

CONFIDENCE = np.array([0.9, 0.6, 0.6, 0.1])
CORRECT = np.array([1.0, 1.0, 0.0, 0.0])


def test_brier_by_hand():
    assert brier(CONFIDENCE, CORRECT) == pytest.approx((0.01 + 0.16 + 0.36 + 0.01) / 4)


def test_brier_of_a_fraction_hit_exactly_is_zero():
    values = np.array([0.3, 0.7, 1.0, 0.0])
    assert brier(values, values) == pytest.approx(0.0, abs=1e-16)
    assert brier(np.array([0.2, 0.5]), np.array([0.5, 0.5])) == pytest.approx(0.045)


def test_brier_skill_by_hand():
    assert brier_skill(CONFIDENCE, CORRECT) == pytest.approx(1 - 0.135 / 0.25)
    assert brier_skill(np.full(4, 0.5), CORRECT) == pytest.approx(0.0, abs=1e-15)
    assert brier_skill(1 - CORRECT, CORRECT) == pytest.approx(-3.0)


@pytest.mark.parametrize("correct", [np.ones(4), np.full(4, 0.25)])
def test_brier_skill_of_equally_right_answers_is_undefined(correct):
    with pytest.raises(UndefinedMetricError, match="equally right"):
        brier_skill(CONFIDENCE, correct)


def test_the_parts_by_hand_with_one_confidence_a_bin():
    parts = brier_parts(CONFIDENCE, CORRECT)
    # Levels .9 (1 right of 1), .6 (1 of 2), .1 (0 of 1); base rate 1/2.
    assert parts.reliability == pytest.approx((0.01 + 2 * 0.01 + 0.01) / 4)
    assert parts.resolution == pytest.approx((0.25 + 0 + 0.25) / 4)
    assert parts.uncertainty == 0.25
    assert parts.within_bin == pytest.approx(0.0, abs=1e-16)


@pytest.mark.parametrize("n_bins", [1, 3, 10])
def test_the_parts_add_up_to_the_score(n_bins):
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(50), rng.integers(0, 3, 50) / 2
    parts = brier_parts(confidence, correct, n_bins=n_bins)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bin
    assert total == pytest.approx(brier(confidence, correct), abs=1e-15)
    # What one bin hides: the variance of confidence less twice its covariance with correctness.
    if n_bins == 1:
        covariance = np.mean(confidence * correct) - confidence.mean() * correct.mean()
        assert parts.within_bin == pytest.approx(np.var(confidence) - 2 * covariance, abs=1e-15)


def test_the_parts_check_the_number_of_bins():
    with pytest.raises(UsageError, match="n_bins is 0"):
        brier_parts(CONFIDENCE, CORRECT, n_bins=0)


def test_nll_by_hand():
    expected = -(math.log(0.9) + math.log(0.6) + math.log(0.4) + math.log(0.9)) / 4
    assert nll(CONFIDENCE, CORRECT) == pytest.approx(expected)
    assert nll(np.array([0.25]), np.array([0.5])) == pytest.approx(
        -(math.log(0.25) + math.log(0.75)) / 2
    )


def test_nll_of_sure_and_right_answers_is_zero():
    assert nll(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0


@pytest.mark.parametrize(("confidence", "correct"), [(0.0, 1.0), (1.0, 0.0), (1.0, 0.99)])
def test_nll_never_is_infinite(confidence, correct):
    with pytest.raises(UndefinedMetricError, match="exactly 0 on a right or 1 on a wrong"):
        nll(np.array([confidence, 0.5]), np.array([correct, 1.0]))
