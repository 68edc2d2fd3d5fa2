"""What every metric refuses."""

import numpy as np
import pytest

from sightline.core.errors import DataError, UndefinedMetricError
from sightline.metrics import METRICS
from sightline.metrics.ranked import rank

FUNCTIONS = [pytest.param(metric.function, id=name) for name, metric in METRICS.items()]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_errors(function, bad):
    with pytest.raises(DataError, match=r"Confidence is .* at row 1; values must be finite"):
        function(np.array([0.5, bad, 0.25]), np.array([1.0, 0.0, 1.0]))
    with pytest.raises(DataError, match=r"Correctness is .* at row 2; values must be finite"):
        function(np.array([0.5, 0.5, 0.25]), np.array([1.0, 0.0, bad]))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_correctness_outside_the_unit_interval_is_an_error(function):
    with pytest.raises(DataError, match=r"Correctness is 1\.5 at row 0; it must lie in \[0, 1\]"):
        function(np.array([0.5, 0.25]), np.array([1.5, 0.0]))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_rows_are_undefined(function):
    with pytest.raises(UndefinedMetricError, match="No rows"):
        function(np.zeros(0), np.zeros(0))


@pytest.mark.parametrize(
    "function",
    [pytest.param(m.function, id=name) for name, m in METRICS.items() if m.input == "probability"],
)
@pytest.mark.parametrize("outside", [-0.1, 1.1])
def test_probability_metrics_refuse_other_scores(function, outside):
    with pytest.raises(DataError, match=r"requires probabilities in \[0, 1\]\. Calibrate"):
        function(np.array([0.5, outside]), np.array([1.0, 0.0]))


def test_unequal_lengths_are_an_error(unchecked):
    ranked = unchecked("sightline.metrics.ranked")
    with pytest.raises(DataError, match=r"\(2,\) with correctness of shape \(3,\)"):
        ranked.rows_of(np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="two vectors of equal length"):
        ranked.rows_of(np.zeros((2, 2)), np.zeros((2, 2)))


def test_a_weight_of_two_is_the_row_twice():
    rng = np.random.default_rng(3)
    confidence = rng.integers(0, 6, 40) / 8 + 0.1
    correct = rng.integers(0, 2, 40).astype(float)
    weights = rng.integers(0, 4, (3, 40)).astype(float)
    ranked = rank(confidence, correct).ranked(weights)
    for name, metric in METRICS.items():
        for b, drawn in enumerate(weights.astype(int)):
            expected = metric.function(np.repeat(confidence, drawn), np.repeat(correct, drawn))
            assert metric.weighted(ranked)[b] == pytest.approx(expected, abs=1e-12), name


def test_a_weight_of_two_is_the_row_twice_for_fractions():
    rng = np.random.default_rng(4)
    confidence = rng.permutation(40) / 64 + 0.1
    correct = rng.integers(0, 4, 40) / 3
    weights = rng.integers(0, 4, (3, 40)).astype(float)
    ranked = rank(confidence, correct).ranked(weights)
    for name, metric in METRICS.items():
        if metric.binary:
            continue
        for b, drawn in enumerate(weights.astype(int)):
            expected = metric.function(np.repeat(confidence, drawn), np.repeat(correct, drawn))
            assert metric.weighted(ranked)[b] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("name", METRICS)
def test_a_resample_without_rows_is_undefined(name):
    ranked = rank(np.array([0.2, 0.4]), np.array([0.0, 1.0])).ranked(np.zeros((1, 2)))
    assert np.isnan(METRICS[name].weighted(ranked)).all()
