"""The watch over calibration: false alarms at most as often as stated, drift found soon."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.serving.drift import CalibrationWatch


def watched(confidences: np.ndarray, outcomes: np.ndarray, alpha: float = 0.01) -> CalibrationWatch:
    watch = CalibrationWatch(alpha)
    for confidence, outcome in zip(confidences, outcomes, strict=True):
        watch.add(float(confidence), float(outcome))
    return watch


def test_a_hand_worked_value() -> None:
    watch = CalibrationWatch()
    assert watch.evidence == 1.0
    watch.add(0.5, 1.0)
    # Half of the wealth enters at the first outcome. Bets on every answer alike gain and lose the
    # same at +½; at confidence ½ the tilted bets stake nothing. So nothing is learnt.
    assert watch.evidence == pytest.approx(1.0)
    watch.add(0.5, 1.0)
    # 1/6 more enters. A stake s entered first is worth ½(1 + s/2) before and then times (1 + s/2).
    stakes = [s * size for s in (1, -1) for size in (0.05, 0.1, 0.25, 0.5)]
    plain = [(0.5 * (1 + s / 2) + 1 / 6) * (1 + s / 2) for s in stakes]
    expected = (sum(plain) + 8 * (0.5 + 1 / 6)) / 16 + 1 / 3
    assert watch.evidence == pytest.approx(expected)
    assert watch.to_dict()["mean_confidence"] == 0.5


def test_evidence_is_a_fair_game() -> None:
    # Exactly fair: the mean over both outcomes, weighted by the confidence, is the value before.
    rng = np.random.default_rng(0)
    confidences = rng.random(6)
    values = {(): 1.0}
    for t, confidence in enumerate(confidences, 1):
        after = {}
        for before, value in values.items():
            for outcome in (0.0, 1.0):
                path = (*before, outcome)
                after[path] = watched(confidences[:t], np.array(path)).evidence
            mean = after[*before, 1.0] * confidence + after[*before, 0.0] * (1 - confidence)
            assert mean == pytest.approx(value, rel=1e-12)
        values = after


def test_false_alarms_are_as_rare_as_stated() -> None:
    rng = np.random.default_rng(1)
    alpha, runs = 0.1, 400
    alarms = 0
    for _ in range(runs):
        confidences = rng.beta(4, 1.5, 1000)
        alarms += watched(confidences, rng.random(1000) < confidences, alpha).recalibrate
    # At most 10 %; with three standard errors of room.
    assert alarms / runs <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize(
    ("shift", "reading"),
    [
        (lambda c: c - 0.2, "less often than stated"),
        (lambda c: np.minimum(c + 0.15, 1.0), "more often than stated"),
        (lambda c: 0.5 + 0.2 * (c - 0.5), "too far from one half"),
    ],
)
def test_drift_is_found_also_after_a_quiet_time(shift, reading: str) -> None:
    rng = np.random.default_rng(2)
    for quiet in (0, 500):
        confidences = rng.choice([0.2, 0.5, 0.8], quiet + 1500)
        truth = confidences.copy()
        truth[quiet:] = shift(confidences[quiet:])
        watch = watched(confidences, rng.random(len(truth)) < truth)
        assert watch.recalibrate
        assert watch.alarmed_at is not None
        assert watch.alarmed_at > quiet
        assert reading in watch.to_dict()["reading"]


def test_soft_grades_count_too() -> None:
    rng = np.random.default_rng(3)
    confidences = rng.random(300)
    watch = watched(confidences, confidences)  # the mean outcome is exactly the confidence
    assert not watch.recalibrate
    assert "No drift shown by 300 outcomes" in watch.to_dict()["reading"]
    assert "shown by 1 outcome:" in watched([0.5], [0.5]).to_dict()["reading"]
    assert "No outcome yet" in CalibrationWatch().to_dict()["reading"]
