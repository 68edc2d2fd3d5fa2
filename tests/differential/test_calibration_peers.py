"""Our calibrators against frozen numbers of netcal, scikit-learn and torch-uncertainty."""

import json
from pathlib import Path

import numpy as np
import pytest

from sightline.calibration.calibrators import Beta, Histogram, Isotonic, Platt, Temperature

ORACLES = Path(__file__).parent / "oracles" / "metrics"


def load(peer):
    document = json.loads((ORACLES / f"{peer}.json").read_text(encoding="utf-8"))
    return {case["id"]: case for case in document["cases"]}


NETCAL, SKLEARN, TU = load("netcal"), load("sklearn"), load("torch_uncertainty")


def fitted(calibrator, case, transform=lambda p: 1 - p):
    confidence, correct, query = (
        np.array(case["inputs"][name], dtype=float) for name in ("confidence", "correct", "query")
    )
    calibration = calibrator.fit(transform(confidence), correct)
    return calibration.confidence(transform(query))


def test_temperature_is_netcals():
    case = NETCAL["cal_temperature"]
    np.testing.assert_allclose(fitted(Temperature(), case), case["output"], atol=1e-6)


def test_platt_on_log_odds_is_netcals_logistic_calibration():
    case = NETCAL["cal_logistic"]
    ours = fitted(Platt(smooth_targets=False), case, lambda p: np.log1p(-p) - np.log(p))
    np.testing.assert_allclose(ours, case["output"], atol=1e-6)
    # Platt's smoothed targets, our default, move it a little towards .5.
    smooth = fitted(Platt(), case, lambda p: np.log1p(-p) - np.log(p))
    assert 1e-4 < np.abs(smooth - ours).max() < 0.01
    assert np.all(np.abs(smooth - 0.5) <= np.abs(ours - 0.5) + 1e-3)


def test_beta_is_netcals_to_its_stopping_rule():
    case = NETCAL["cal_beta"]
    ours = fitted(Beta(), case)
    np.testing.assert_allclose(ours, case["output"], atol=2e-5)
    # Theirs stops early; ours is where the likelihood is flat.
    confidence, correct = (np.array(case["inputs"][k], float) for k in ("confidence", "correct"))
    residual = Beta().fit(1 - confidence, correct).confidence(1 - confidence) - correct
    for feature in (np.log(confidence), np.log1p(-confidence), np.ones(len(correct))):
        assert np.mean(residual * feature) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("case", [NETCAL["cal_isotonic"], SKLEARN["isotonic"]])
def test_isotonic_is_the_peers_but_for_certainty_at_the_ends(case):
    ours, theirs = fitted(Isotonic(), case), np.array(case["output"])
    n = len(case["inputs"]["correct"])
    # They say 0 and 1 at the ends, which makes the likelihood infinite; we stop 1/(n + 2) short.
    assert theirs.min() == 0.0
    assert theirs.max() == 1.0
    np.testing.assert_allclose(ours, np.clip(theirs, 1 / (n + 2), 1 - 1 / (n + 2)), atol=1e-12)


def test_histogram_never_rises_and_netcals_does():
    case = NETCAL["cal_histogram10"]
    ours, theirs = fitted(Histogram(), case), np.array(case["output"])
    # More confident queries get less confidence there (.47 at .3, .41 at .5).
    assert np.any(np.diff(theirs) < 0)
    assert np.all(np.diff(ours) >= 0)
    # Bins of equal mass against bins of equal width, and ends short of 0 and 1.
    assert np.abs(ours - theirs).max() < 0.2


def test_torch_uncertainty_stops_short_of_the_best_temperature():
    case = TU["temperature_mcq"]
    logits = np.array(case["inputs"]["logits"], dtype=float)
    target = np.array(case["inputs"]["target"], dtype=int)

    def loss(temperature):
        scaled = logits / temperature
        scaled -= scaled.max(1, keepdims=True)
        log_probability = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
        return -log_probability[np.arange(len(target)), target].mean()

    theirs = case["output"][0][0]
    grid = np.linspace(2.9, 3.1, 20_001)
    best = grid[np.argmin([loss(t) for t in grid])]
    assert best == pytest.approx(2.9933, abs=2e-4)
    assert loss(best) < loss(theirs)


def test_temperature_of_being_right_is_not_that_of_all_classes():
    case = TU["temperature_mcq"]
    logits = np.array(case["inputs"]["logits"], dtype=float)
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    correct = (probabilities.argmax(1) == np.array(case["inputs"]["target"])).astype(float)
    ours = Temperature().fit(1 - probabilities.max(1), correct)
    # With four classes the temperatures answer different questions; a score of .5 stays .5 here,
    # while theirs moves every probability towards .25.
    assert ours.confidence(np.array([0.5]))[0] == 0.5
    assert ours.informative
    assert abs(ours.temperature - case["output"][0][0]) > 0.05
