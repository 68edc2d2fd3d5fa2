"""Laws every calibration obeys on any rows: never rising, bounded, blind to order, JSON."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sightline.calibration import CALIBRATORS, load_calibration
from sightline.core.errors import AntiInformativeError

quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def rows(draw):
    """Uncertainty in [0, 1] of any shape, and answers that it tells apart more or less."""
    n = draw(st.integers(2, 60))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    uncertainty = rng.beta(*rng.uniform(0.2, 3, 2), n)
    decimals = draw(st.sampled_from([0, 1, 3, 17]))
    if decimals < 17:
        uncertainty = np.round(uncertainty, decimals)
    steepness = draw(st.sampled_from([0.5, 3.0, 50.0]))
    chance = 1 / (1 + np.exp(np.clip(steepness * (uncertainty - 0.5), -700, 700)))
    if draw(st.booleans()):
        return uncertainty, (rng.random(n) < chance).astype(float)
    return uncertainty, np.round(chance, 3)


def fit(name, uncertainty, correct):
    try:
        return CALIBRATORS[name].fit(uncertainty, correct)
    except AntiInformativeError:
        return None


@pytest.mark.parametrize("name", CALIBRATORS)
@quick
@given(rows(), st.lists(st.floats(0, 1), max_size=30))
def test_confidence_is_a_probability_that_never_rises(name, drawn, query):
    uncertainty, correct = drawn
    calibration = fit(name, uncertainty, correct)
    if calibration is None:
        return
    ascending = np.sort(np.concatenate([uncertainty, np.array(query), [0.0, 1.0]]))
    confidence = calibration.confidence(ascending)
    assert np.all((confidence > 0) & (confidence < 1))
    assert np.all(np.diff(confidence) <= 1e-15)
    # Each row's confidence depends on its own uncertainty alone.
    order = np.random.default_rng(0).permutation(len(ascending))
    np.testing.assert_allclose(
        calibration.confidence(ascending[order]), confidence[order], rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("name", CALIBRATORS)
@quick
@given(rows(), st.randoms(use_true_random=False))
def test_row_order_never_shows_in_a_fit(name, drawn, random):
    uncertainty, correct = drawn
    order = list(range(len(correct)))
    random.shuffle(order)
    assert fit(name, uncertainty, correct) == fit(name, uncertainty[order], correct[order])


@pytest.mark.parametrize("name", CALIBRATORS)
@quick
@given(rows())
def test_json_keeps_every_bit(name, drawn):
    calibration = fit(name, *drawn)
    if calibration is None:
        return
    again = load_calibration(json.loads(json.dumps(calibration.to_dict(), allow_nan=False)))
    assert again == calibration


@pytest.mark.parametrize("name", ["platt", "isotonic", "histogram"])
@quick
@given(rows())
def test_any_rising_line_of_a_score_serves_as_well(name, drawn):
    uncertainty, correct = drawn
    plain, moved = fit(name, uncertainty, correct), fit(name, 8 * uncertainty - 4, correct)
    if plain is None:
        assert moved is None
    else:
        np.testing.assert_allclose(
            moved.confidence(8 * uncertainty - 4), plain.confidence(uncertainty), atol=1e-6
        )
