"""Risk at a coverage and coverage at a risk, by hand."""

import numpy as np
import pytest

from sightline.core.errors import UsageError
from sightline.metrics.operating_points import coverage_at_risk, risk_at_coverage

CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
CORRECT = np.array([1.0, 1, 0, 1, 1, 0, 1, 0, 0, 1])


def test_coverage_is_rounded_up_to_whole_rows():
    assert risk_at_coverage(CONFIDENCE, CORRECT, coverage=0.3) == pytest.approx(1 / 3)
    assert risk_at_coverage(CONFIDENCE, CORRECT, coverage=0.31) == pytest.approx(1 / 4)
    assert risk_at_coverage(CONFIDENCE, CORRECT, coverage=0.7) == pytest.approx(2 / 7)
    assert risk_at_coverage(CONFIDENCE, CORRECT, coverage=1.0) == pytest.approx(4 / 10)
    assert risk_at_coverage(CONFIDENCE, CORRECT, coverage=1e-9) == 0.0


def test_ties_at_the_edge_are_averaged():
    confidence = np.array([0.9, 0.5, 0.5, 0.5])
    correct = np.array([1.0, 0.0, 0.0, 1.0])
    # One sure row and one of the three tied ones, wrong with chance 2/3.
    assert risk_at_coverage(confidence, correct, coverage=0.5) == pytest.approx((2 / 3) / 2)


def test_the_largest_coverage_within_the_risk_counts():
    # Risks: 0, 0, 1/3, 1/4, 1/5, 2/6, 2/7, 3/8, 4/9, 4/10.
    assert coverage_at_risk(CONFIDENCE, CORRECT, risk=0.2) == 0.5
    assert coverage_at_risk(CONFIDENCE, CORRECT, risk=0.3) == 0.7
    assert coverage_at_risk(CONFIDENCE, CORRECT) == 0.2
    assert coverage_at_risk(CONFIDENCE, CORRECT, risk=0.0) == 0.2
    assert coverage_at_risk(CONFIDENCE, CORRECT, risk=1.0) == 1.0


def test_no_threshold_within_the_risk_covers_nothing():
    assert coverage_at_risk(CONFIDENCE, 1 - CORRECT, risk=0.1) == 0.0


def test_a_threshold_cannot_part_tied_rows():
    confidence = np.array([0.9, 0.9, 0.1])
    correct = np.array([1.0, 0.0, 1.0])
    assert coverage_at_risk(confidence, correct, risk=0.25) == 0.0
    assert coverage_at_risk(confidence, correct, risk=0.4) == 1.0


def test_settings_are_checked():
    with pytest.raises(UsageError, match=r"coverage is 0\.0; a share in \(0, 1\]"):
        risk_at_coverage(CONFIDENCE, CORRECT, coverage=0.0)
    with pytest.raises(UsageError, match=r"risk is -0\.1; an error rate"):
        coverage_at_risk(CONFIDENCE, CORRECT, risk=-0.1)
