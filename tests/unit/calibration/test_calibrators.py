"""Calibrators by hand: fits, signal, refusals and limits."""

import math

import numpy as np
import pytest

from sightline.calibration import CALIBRATORS
from sightline.calibration.calibrators import Beta, Histogram, Isotonic, Platt, Temperature
from sightline.calibration.fitted import (
    BaseRate,
    HistogramCalibration,
    IsotonicCalibration,
    PlattCalibration,
    TemperatureCalibration,
)
from sightline.core.errors import (
    AntiInformativeError,
    DataError,
    UndefinedMetricError,
    UsageError,
)
from sightline.metrics.proper_scores import nll

ALL = [pytest.param(calibrator, id=name) for name, calibrator in CALIBRATORS.items()]


def rows(seed=0, n=400, sharpness=1.0):
    """Uncertainty = 1 - p and answers that are right with the log-odds of p times sharpness."""
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 1.2, n).clip(0.01, 0.99)
    log_odds = np.log(p / (1 - p)) * sharpness
    correct = (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(float)
    return 1 - p, correct


@pytest.mark.parametrize("calibrator", ALL)
def test_informative_scores_become_better_probabilities(calibrator):
    uncertainty, correct = rows(sharpness=0.4)
    fit = calibrator.fit(uncertainty, correct)
    assert fit.informative
    confidence = fit.confidence(uncertainty)
    assert nll(confidence, correct) < nll(1 - uncertainty, correct)
    assert nll(confidence, correct) < nll(np.full(400, correct.mean()), correct)
    if not isinstance(calibrator, Temperature):  # one temperature cannot move the mean
        assert confidence.mean() == pytest.approx(correct.mean(), abs=0.03)


@pytest.mark.parametrize("calibrator", ALL)
def test_scores_without_signal_become_the_base_rate(calibrator):
    rng = np.random.default_rng(1)
    uncertainty, correct = rng.random(200), (rng.random(200) < 0.7).astype(float)
    fit = calibrator.fit(uncertainty, correct)
    assert isinstance(fit, BaseRate)
    assert not fit.informative
    assert fit.confidence(np.array([0.0, 0.3, 1.0])).tolist() == [correct.mean()] * 3


@pytest.mark.parametrize("calibrator", ALL)
def test_constant_scores_become_the_base_rate(calibrator):
    fit = calibrator.fit(np.full(40, 0.5), np.tile([1.0, 1.0, 1.0, 0.0], 10))
    assert fit == BaseRate(rate=0.75, n=40)


@pytest.mark.parametrize("calibrator", ALL)
def test_constant_scores_of_answers_right_in_part_become_the_base_rate(calibrator):
    """AUROC is .5 but for rounding, and its interval has no width."""
    fit = calibrator.fit(np.full(22, 0.4), np.full(22, 0.438))
    assert isinstance(fit, BaseRate)
    assert fit.rate == pytest.approx(0.438)


@pytest.mark.parametrize("calibrator", ALL)
@pytest.mark.parametrize(("correct", "rate"), [(1.0, 41 / 42), (0.0, 1 / 42)])
def test_one_class_becomes_a_base_rate_short_of_certainty(calibrator, correct, rate):
    fit = calibrator.fit(np.linspace(0, 1, 40), np.full(40, correct))
    assert fit.rate == pytest.approx(rate)


@pytest.mark.parametrize("calibrator", ALL)
def test_scores_that_rank_wrong_answers_first_are_an_error(calibrator):
    uncertainty, correct = rows()
    with pytest.raises(AntiInformativeError, match=r"AUROC is 0\.\d+ \[0\.\d+, 0\.\d+\] on 400"):
        calibrator.fit(1 - uncertainty, correct)


@pytest.mark.parametrize("calibrator", ALL)
def test_copies_in_one_group_are_no_evidence(calibrator):
    uncertainty = np.repeat([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], 50)
    correct = np.repeat([1.0, 1.0, 0.0, 1.0, 0.0, 0.0], 50)
    assert calibrator.fit(uncertainty, correct).informative
    groups = np.repeat(np.arange(6), 50)
    assert not calibrator.fit(uncertainty, correct, groups=groups).informative


@pytest.mark.parametrize("calibrator", ALL)
def test_fractional_correctness_is_fitted_as_such(calibrator):
    uncertainty, _ = rows()
    fit = calibrator.fit(uncertainty, np.round(1 - uncertainty, 1))
    confidence = fit.confidence(uncertainty)
    # Smoothed targets, one temperature and ten bins leave a little.
    assert np.abs(confidence - (1 - uncertainty)).max() < 0.2
    assert np.abs(confidence - (1 - uncertainty)).mean() < 0.03


@pytest.mark.parametrize("calibrator", ALL)
def test_rows_in_another_order_give_the_same_fit(calibrator):
    uncertainty, correct = rows()
    uncertainty = np.round(uncertainty, 2)
    order = np.random.default_rng(2).permutation(400)
    assert calibrator.fit(uncertainty[order], correct[order]) == calibrator.fit(
        uncertainty, correct
    )


@pytest.mark.parametrize("calibrator", ALL)
def test_refusals(calibrator):
    with pytest.raises(DataError, match="Uncertainty is nan at row 1"):
        calibrator.fit(np.array([0.1, np.nan]), np.array([1.0, 0.0]))
    with pytest.raises(DataError, match=r"Correctness is 2\.0 at row 0"):
        calibrator.fit(np.array([0.1, 0.5]), np.array([2.0, 0.0]))
    with pytest.raises(UndefinedMetricError, match="No rows"):
        calibrator.fit(np.zeros(0), np.zeros(0))
    fit = calibrator.fit(*rows())
    with pytest.raises(DataError, match="Uncertainty is inf at row 0"):
        fit.confidence(np.array([np.inf]))


@pytest.mark.parametrize("calibrator", [Temperature(), Beta()])
def test_scores_that_are_no_probabilities_are_sent_elsewhere(calibrator):
    uncertainty, correct = rows()
    with pytest.raises(UsageError, match=r"requires 1 - probability, in \[0, 1\]\. Use platt"):
        calibrator.fit(3 * uncertainty, correct)
    with pytest.raises(UsageError, match=r"Uncertainty is -0\.1 at row 0"):
        calibrator.fit(uncertainty, correct).confidence(np.array([-0.1]))


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_temperature_finds_the_sharpness(sharpness):
    fit = Temperature().fit(*rows(n=20_000, sharpness=sharpness))
    assert isinstance(fit, TemperatureCalibration)
    assert fit.temperature == pytest.approx(1 / sharpness, rel=0.05)
    assert fit.confidence(np.array([0.5]))[0] == 0.5


def test_temperature_of_two_levels_by_hand():
    # Log-odds ±ln 9 with 8 of 10 right each way: logit(.8) = ln 4, so T = ln 9 / ln 4.
    uncertainty = np.repeat([0.1, 0.9], 10)
    correct = np.array([1.0] * 8 + [0.0] * 2 + [0.0] * 8 + [1.0] * 2)
    fit = Temperature().fit(uncertainty, correct)
    assert fit.temperature == pytest.approx(math.log(9) / math.log(4), rel=1e-9)
    assert fit.confidence(np.array([0.1, 0.9])) == pytest.approx([0.8, 0.2])


def test_temperature_of_separated_rows_stops_at_its_bound():
    fit = Temperature().fit(np.repeat([0.4, 0.6], 20), np.repeat([1.0, 0.0], 20))
    assert fit.temperature == pytest.approx(0.01, rel=1e-6)


def test_platt_of_two_levels_by_hand():
    # Two levels fit exactly: 9 of 12 right at 0, 3 of 12 at 2; the slope is 2 ln 3 over 2.
    uncertainty = np.repeat([0.0, 2.0], 12)
    correct = np.array([1.0] * 9 + [0.0] * 3 + [1.0] * 3 + [0.0] * 9)
    fit = Platt(smooth_targets=False).fit(uncertainty, correct)
    assert (fit.center, fit.n) == (1.0, 24)
    assert fit.slope == pytest.approx(math.log(3), rel=1e-7)
    assert fit.intercept == pytest.approx(0.0, abs=1e-7)
    smooth = Platt().fit(uncertainty, correct)
    # Targets 13/14 and 1/14: mean at 0 is (9 * 13 + 3) / (12 * 14).
    assert smooth.confidence(np.array([0.0]))[0] == pytest.approx(120 / 168, rel=1e-7)


@pytest.mark.parametrize("smooth", [True, False])
def test_platt_of_separated_rows_is_finite(smooth):
    uncertainty = np.arange(40.0)
    correct = (uncertainty < 20).astype(float)
    fit = Platt(smooth_targets=smooth).fit(uncertainty, correct)
    confidence = fit.confidence(np.array([-1e9, 0.0, 39.0, 1e9]))
    assert 0 < confidence[3] <= confidence[2] < 0.1
    assert 0.9 < confidence[1] <= confidence[0] < 1


def test_platt_does_not_depend_on_the_unit_of_the_score():
    uncertainty, correct = rows()
    confidence = Platt().fit(uncertainty, correct).confidence(uncertainty)
    for scale, shift in ((1e-100, 0.0), (1e100, 0.0), (1.0, 1e6)):
        moved = uncertainty * scale + shift
        again = Platt().fit(moved, correct).confidence(moved)
        np.testing.assert_allclose(again, confidence, atol=1e-7)


def test_platt_refuses_scores_it_cannot_tell_apart():
    uncertainty, correct = rows()
    for scale in (1e-200, 1e200):
        with pytest.raises(UsageError, match="between 1e-150 and 1e150"):
            Platt().fit(uncertainty * scale, correct)


def test_one_extreme_score_against_the_ranks_leaves_the_base_rate():
    uncertainty, correct = rows()
    uncertainty[np.flatnonzero(correct == 1)[0]] = 1e9
    assert isinstance(Platt().fit(uncertainty, correct), BaseRate)
    assert Isotonic().fit(uncertainty, correct).informative


def test_beta_recovers_its_own_weights():
    rng = np.random.default_rng(3)
    p = rng.beta(1.5, 1.5, 50_000).clip(1e-4, 1 - 1e-4)
    logits = 0.5 * np.log(p) - 1.5 * np.log(1 - p) + 0.3
    correct = (rng.random(50_000) < 1 / (1 + np.exp(-logits))).astype(float)
    fit = Beta().fit(1 - p, correct)
    assert (fit.a, fit.b, fit.c) == pytest.approx((0.5, 1.5, 0.3), abs=0.08)


@pytest.mark.parametrize("flip", [False, True])
def test_beta_holds_a_negative_weight_at_zero(flip):
    rng = np.random.default_rng(4)
    p = rng.uniform(0.05, 0.95, 4000)
    # Right answers follow ln p alone, falling slightly with -ln(1 - p), or the mirror image.
    logits = 2.5 * np.log(p) + 0.4 * np.log(1 - p) + 2
    right = 1 / (1 + np.exp(-logits))
    if flip:
        p, right = 1 - p, 1 - right
    correct = (rng.random(4000) < right).astype(float)
    fit = Beta().fit(1 - p, correct)
    assert (fit.a == 0.0, fit.b == 0.0) == (flip, not flip)
    assert max(fit.a, fit.b) > 1


def test_beta_without_a_rising_weight_is_the_base_rate():
    rng = np.random.default_rng(5)
    p = np.concatenate([rng.uniform(0.4, 0.6, 400), np.full(12, 1e-6), np.full(12, 1 - 1e-6)])
    right = (p[:400] > 0.5).astype(float)
    flips = rng.random(400) < 0.35
    correct = np.concatenate([np.where(flips, 1 - right, right), np.ones(12), np.zeros(12)])
    fit = Beta().fit(1 - p, correct)
    assert isinstance(fit, BaseRate)
    assert Isotonic().fit(1 - p, correct).informative


def test_isotonic_pools_violators_by_hand():
    uncertainty = np.repeat([0.0, 1.0, 2.0, 3.0], 20)
    share = [16, 8, 12, 2]
    correct = np.concatenate([[1.0] * k + [0.0] * (20 - k) for k in share])
    fit = Isotonic().fit(uncertainty, correct)
    assert fit == IsotonicCalibration(knots=(0.0, 1.0, 2.0, 3.0), values=(0.8, 0.5, 0.5, 0.1), n=80)
    query = np.array([-5.0, 0.5, 1.5, 2.5, 9.0])
    assert fit.confidence(query) == pytest.approx([0.8, 0.65, 0.5, 0.3, 0.1])


def test_isotonic_never_says_never():
    fit = Isotonic().fit(np.arange(40.0), (np.arange(40) < 20).astype(float))
    assert fit.values == pytest.approx((41 / 42, 41 / 42, 1 / 42, 1 / 42))
    assert fit.knots == (0.0, 19.0, 20.0, 39.0)


def test_histogram_by_hand():
    uncertainty = np.arange(60.0)
    correct = np.concatenate([[1.0] * k + [0.0] * (20 - k) for k in (16, 10, 2)])
    fit = Histogram(n_bins=3).fit(uncertainty, correct)
    assert fit == HistogramCalibration(edges=(19.5, 39.5), values=(0.8, 0.5, 0.1), n=60)
    assert fit.confidence(np.array([19.4, 19.5, 100.0])).tolist() == [0.8, 0.5, 0.1]


def test_histogram_pools_bins_that_rise():
    uncertainty = np.arange(80.0)
    correct = np.concatenate([[1.0] * k + [0.0] * (20 - k) for k in (18, 8, 12, 2)])
    fit = Histogram(n_bins=4).fit(uncertainty, correct)
    assert fit.values == (0.9, 0.5, 0.1)
    assert fit.edges == (19.5, 59.5)


def test_histogram_keeps_ties_in_one_bin():
    uncertainty = np.concatenate([np.zeros(70), np.ones(30)])
    correct = np.concatenate([np.ones(60), np.zeros(10), np.ones(5), np.zeros(25)])
    fit = Histogram().fit(uncertainty, correct)
    assert (fit.edges, fit.values) == ((0.5,), pytest.approx((60 / 70, 5 / 30)))


def test_histogram_parts_neighbouring_floats():
    low, high = 1.0, np.nextafter(1.0, 2.0)
    fit = Histogram().fit(np.repeat([low, high], 30), np.repeat([1.0, 0.0], 30))
    assert fit.confidence(np.array([low, high])).tolist() == [61 / 62, 1 / 62]


def test_histogram_checks_its_bins():
    with pytest.raises(UsageError, match="n_bins is 0"):
        Histogram(n_bins=0)


def test_the_table_holds_defaults():
    assert CALIBRATORS["platt"] == Platt()
    assert isinstance(Platt().fit(*rows()), PlattCalibration)
    with pytest.raises(TypeError):
        CALIBRATORS["mine"] = Platt()
