"""Tests of calibration: limits, hand values and refusals."""

import numpy as np
import pytest

from sightline.core.errors import DataError, UndefinedMetricError, UsageError
from sightline.metrics.calibration_error import ece
from sightline.metrics.consistency import consistency_test, spiegelhalter_test


def test_miscalibration_is_found():
    rng = np.random.default_rng(0)
    confidence = rng.random(400)
    correct = (rng.random(400) < 0.5 * confidence).astype(float)
    outcome = consistency_test(confidence, correct, rng=rng, n_resamples=200)
    assert outcome.statistic == ece(confidence, correct)
    assert outcome.p_value == 1 / 201
    assert outcome.expected < 0.1 < outcome.statistic


def test_perfect_answers_at_full_confidence_are_consistent():
    outcome = consistency_test(np.ones(5), np.ones(5), rng=np.random.default_rng(0))
    assert (outcome.statistic, outcome.expected, outcome.p_value) == (0.0, 0.0, 1.0)


def test_the_expected_error_of_one_bin_is_that_of_a_binomial():
    outcome = consistency_test(
        np.full(2, 0.5), np.ones(2), rng=np.random.default_rng(0), n_resamples=20_000
    )
    # Of 0, 1, 2 right answers: gaps 1/2, 0, 1/2 with chances 1/4, 1/2, 1/4.
    assert outcome.expected == pytest.approx(0.25, abs=0.01)
    assert outcome.p_value == pytest.approx(0.5, abs=0.02)


def test_spiegelhalter_by_hand():
    confidence, correct = np.array([0.2, 0.4]), np.array([1.0, 0.0])
    numerator = 0.8 * 0.6 + (-0.4) * 0.2
    variance = 0.6**2 * 0.2 * 0.8 + 0.2**2 * 0.4 * 0.6
    outcome = spiegelhalter_test(confidence, correct)
    assert outcome.statistic == pytest.approx(numerator / variance**0.5)
    assert 0 < outcome.p_value < 1


def test_refusals():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="n_resamples is 0"):
        consistency_test(np.array([0.5]), np.array([1.0]), rng=rng, n_resamples=0)
    with pytest.raises(UsageError, match="n_bins is 0"):
        consistency_test(np.array([0.5]), np.array([1.0]), rng=rng, n_bins=0)
    with pytest.raises(UndefinedMetricError, match=r"0, \.5 or 1"):
        spiegelhalter_test(np.array([0.5, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    for test in (spiegelhalter_test, lambda c, z: consistency_test(c, z, rng=rng)):
        with pytest.raises(DataError, match="requires 0 or 1"):
            test(np.array([0.5, 0.7]), np.array([0.5, 1.0]))
        with pytest.raises(DataError, match="requires probabilities"):
            test(np.array([0.5, 1.7]), np.array([0.0, 1.0]))
