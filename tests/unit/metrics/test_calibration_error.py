"""Calibration errors by hand: bins, edges, ties and the debiased form."""

import math

import numpy as np
import pytest

from sightline.core.errors import UsageError
from sightline.metrics.calibration_error import ace, ece, ece15, ece_debiased, ece_mass, mce

CONFIDENCE = np.array([0.05, 0.15, 0.15, 0.95, 0.85, 0.85])
CORRECT = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
ORDERS = [np.random.default_rng(i).permutation(6) for i in range(40)]


def test_ece_and_mce_by_hand():
    # Bins (gap, rows): .05 (.05, 1), .15 (.35, 2), .95 (.05, 1), .85 (.35, 2).
    assert ece(CONFIDENCE, CORRECT) == pytest.approx((0.05 + 2 * 0.35 + 0.05 + 2 * 0.35) / 6)
    assert mce(CONFIDENCE, CORRECT) == pytest.approx(0.35)
    assert ece(CONFIDENCE, CORRECT, n_bins=1) == pytest.approx(abs(3.0 - 3.0) / 6)


def test_an_edge_belongs_to_the_bin_below_and_zero_to_the_first():
    # 0 and .5 share a bin, so the gap is 1/2 - 1/4; 1 is in the other, without a gap.
    confidence = np.array([0.0, 0.5, 1.0])
    assert ece(confidence, np.array([0.0, 1.0, 1.0]), n_bins=2) == pytest.approx(0.5 / 3)
    above = np.array([0.0, np.nextafter(0.5, 1), 1.0])
    assert ece(above, np.array([0.0, 1.0, 0.0]), n_bins=2) == pytest.approx((0 + 0.5) / 3)


def test_equal_mass_divides_rows_that_cross_an_edge():
    # Three rows in two bins: the middle row counts half in each.
    confidence, correct = np.array([0.9, 0.6, 0.2]), np.array([1.0, 0.0, 0.0])
    upper = abs((1 - 0.9) + (0 - 0.6) / 2)
    lower = abs((0 - 0.6) / 2 + (0 - 0.2))
    assert ece_mass(confidence, correct, n_bins=2) == pytest.approx((upper + lower) / 3)


def test_equal_mass_of_one_level_is_its_gap():
    correct = np.array([1.0, 0, 1, 1, 0])
    for k in (1, 3, 10):
        assert ece_mass(np.full(5, 0.5), correct, n_bins=k) == pytest.approx(0.1)


def test_ace_is_equal_mass_with_fifteen_ranges():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(100), rng.integers(0, 2, 100).astype(float)
    assert ace(confidence, correct) == ece_mass(confidence, correct, n_bins=15)
    assert ace(confidence, correct, n_ranges=4) == ece_mass(confidence, correct, n_bins=4)
    assert ece15(confidence, correct) == ece(confidence, correct, n_bins=15)


def test_fractions_count_as_such():
    assert ece(np.full(4, 0.55), np.array([0.3, 0.7, 0.5, 0.7])) == pytest.approx(0.0, abs=1e-15)


def test_the_debiased_form_subtracts_the_folded_normal_mean():
    confidence = np.full(8, 0.55)
    correct = np.array([1.0, 1, 1, 1, 1, 0, 0, 0])
    gap, error = 5 / 8 - 0.55, math.sqrt(5 / 8 * 3 / 8 / 8)
    draws = np.random.default_rng(0).normal(gap, error, 2_000_000)
    expected = 2 * gap - np.abs(draws).mean()
    assert ece_debiased(confidence, correct) == pytest.approx(expected, abs=1e-3)
    assert ece_debiased(confidence, correct) < ece(confidence, correct) / 10


def test_the_debiased_form_of_a_sure_bin_has_no_bias_to_subtract():
    assert ece_debiased(np.full(3, 0.75), np.ones(3)) == 0.25


def test_the_debiased_form_takes_two_fifths_of_the_bias_of_a_calibrated_model():
    rng = np.random.default_rng(5)
    confidence = rng.random((200, 500))
    correct = (rng.random((200, 500)) < confidence).astype(float)
    debiased = np.mean([ece_debiased(c, z) for c, z in zip(confidence, correct, strict=True)])
    plain = np.mean([ece(c, z) for c, z in zip(confidence, correct, strict=True)])
    # For a gap d ~ N(0, s): E[2|d| - E|N(d, s)|] = (2 - sqrt 2) E|d|.
    assert debiased == pytest.approx((2 - math.sqrt(2)) * plain, rel=0.03)


@pytest.mark.parametrize("metric", [ece, ece_mass, ece_debiased, mce])
def test_the_number_of_bins_is_checked(metric):
    with pytest.raises(UsageError, match="n_bins is 0; at least 1"):
        metric(CONFIDENCE, CORRECT, n_bins=0)


@pytest.mark.parametrize("correct", [CORRECT, np.array([0.1, 0.2, 0.7, 0.6, 0.4, 0.3])])
@pytest.mark.parametrize("metric", [ece, ece15, ece_mass, ece_debiased, ace, mce])
def test_no_order_of_the_rows_changes_a_bit(metric, correct):
    values = {metric(CONFIDENCE[order], correct[order]) for order in ORDERS}
    assert len(values) == 1
