"""Saved calibrations: round trip, strict reading, never pickle."""

import json

import numpy as np
import pytest

from sightline.calibration import CALIBRATORS, load_calibration
from sightline.calibration.fitted import (
    BaseRate,
    BetaCalibration,
    HistogramCalibration,
    IsotonicCalibration,
    PlattCalibration,
    TemperatureCalibration,
)
from sightline.core.errors import DataError, UsageError

EXAMPLES = [
    BaseRate(rate=0.7, n=10),
    TemperatureCalibration(temperature=1.5, n=10),
    PlattCalibration(center=0.2, slope=3.0, intercept=-0.1, n=10),
    BetaCalibration(a=0.5, b=1.0, c=0.0, n=10),
    IsotonicCalibration(knots=(0.1, 0.4), values=(0.9, 0.2), n=10),
    HistogramCalibration(edges=(0.4,), values=(0.9, 0.2), n=10),
]
KINDS = [pytest.param(example, id=example.kind) for example in EXAMPLES]


@pytest.mark.parametrize("example", KINDS)
def test_json_round_trip(example):
    data = json.loads(json.dumps(example.to_dict(), allow_nan=False))
    assert data["format_version"] == 1
    assert load_calibration(data) == example
    assert load_calibration(example.to_dict()) == example


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_fit_survives_to_the_last_bit(name):
    rng = np.random.default_rng(0)
    uncertainty = rng.random(300)
    correct = (rng.random(300) > uncertainty).astype(float)
    fit = CALIBRATORS[name].fit(uncertainty, correct)
    again = load_calibration(json.loads(json.dumps(fit.to_dict())))
    np.testing.assert_array_equal(again.confidence(uncertainty), fit.confidence(uncertainty))


@pytest.mark.parametrize("example", KINDS)
def test_missing_and_unknown_fields_are_errors(example):
    for field in example.to_dict():
        data = example.to_dict()
        del data[field]
        with pytest.raises(DataError, match="Fit the calibration again"):
            load_calibration(data)
    with pytest.raises(DataError, match="extra"):
        load_calibration(example.to_dict() | {"extra": 1})


@pytest.mark.parametrize("example", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "1", None, True, [], {}])
def test_wrong_values_are_errors(example, bad):
    for field in example.to_dict():
        with pytest.raises(DataError):
            load_calibration(example.to_dict() | {field: bad})


@pytest.mark.parametrize(
    ("example", "change"),
    [
        (EXAMPLES[0], {"rate": 1.0}),
        (EXAMPLES[0], {"n": 0}),
        (EXAMPLES[0], {"format_version": 2}),
        (EXAMPLES[0], {"kind": "pickle"}),
        (EXAMPLES[1], {"temperature": 0.0}),
        (EXAMPLES[2], {"slope": -1.0}),
        (EXAMPLES[3], {"a": -0.1}),
        (EXAMPLES[4], {"knots": [0.4, 0.1]}),
        (EXAMPLES[4], {"knots": [0.1, 0.1]}),
        (EXAMPLES[4], {"values": [0.2, 0.9]}),
        (EXAMPLES[4], {"values": [0.9]}),
        (EXAMPLES[4], {"knots": [], "values": []}),
        (EXAMPLES[5], {"edges": [0.2, 0.1]}),
        (EXAMPLES[5], {"values": [0.9]}),
        (EXAMPLES[5], {"values": [1.0, 0.2]}),
    ],
)
def test_values_out_of_range_are_errors(example, change):
    with pytest.raises(DataError) as caught:
        load_calibration(example.to_dict() | change)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_values_that_are_no_json_are_errors():
    with pytest.raises(DataError, match="not JSON"):
        load_calibration(EXAMPLES[0].to_dict() | {"rate": np.array([0.5])})


def test_confidence_needs_a_vector(unchecked):
    module = unchecked("sightline.calibration.fitted")
    with pytest.raises(DataError, match=r"Uncertainty of shape \(2, 2\)"):
        module.vector(np.zeros((2, 2)))


def test_probability_forms_refuse_other_scores():
    for example in (EXAMPLES[1], EXAMPLES[3]):
        with pytest.raises(UsageError, match="requires 1 - probability"):
            example.confidence(np.array([1.2]))
        confidence = example.confidence(np.array([0.0, 1.0]))
        assert 0 < confidence[1] < confidence[0] < 1


def test_logistic_forms_stop_short_of_certainty():
    confidence = EXAMPLES[2].confidence(np.array([-1e300, 1e300]))
    assert 0 < confidence[1] < 1e-12
    assert 1 - 1e-12 < confidence[0] < 1


@pytest.mark.parametrize("example", KINDS)
def test_no_rows_give_no_confidence(example):
    assert example.confidence(np.zeros(0)).shape == (0,)
