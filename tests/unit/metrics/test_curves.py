"""Curves and tables by hand, and agreement with the metrics they belong to."""

import numpy as np
import pytest

from sightline.core.errors import DataError, UndefinedMetricError
from sightline.core.results import Curve
from sightline.metrics import curves
from sightline.metrics.calibration_error import ece
from sightline.metrics.discrimination import auroc
from sightline.metrics.selective import aurc

CONFIDENCE = np.array([0.9, 0.5, 0.5, 0.1])
CORRECT = np.array([1.0, 1.0, 0.0, 0.0])


def test_risk_coverage_by_hand():
    # The tied pair is right in one of two orders each: .5 right expected after two rows.
    x, y = curves.risk_coverage(CONFIDENCE, CORRECT)
    assert x == (0.25, 0.5, 0.75, 1.0)
    assert y == pytest.approx((0.0, 0.25, 1 / 3, 0.5), abs=1e-15)


def test_rejection_is_its_mirror_image():
    x, y = curves.rejection(CONFIDENCE, CORRECT)
    assert x == (0.0, 0.25, 0.5, 0.75)
    assert y == pytest.approx((0.5, 2 / 3, 0.75, 1.0), abs=1e-15)


def test_oracles_rank_by_correctness():
    correct = np.array([0.0, 1.0, 0.5, 1.0])
    x, y = curves.oracle_risk_coverage(correct)
    assert x == (0.25, 0.5, 0.75, 1.0)
    assert y == pytest.approx((0.0, 0.0, 1 / 6, 3 / 8), abs=1e-15)
    x, y = curves.oracle_rejection(correct)
    assert x == (0.0, 0.25, 0.5, 0.75)
    assert y == pytest.approx((5 / 8, 5 / 6, 1.0, 1.0), abs=1e-15)


def test_roc_by_hand():
    x, y = curves.roc(CONFIDENCE, CORRECT)
    assert x == (0.0, 0.0, 0.5, 1.0)
    assert y == (0.0, 0.5, 1.0, 1.0)


def test_roc_of_one_class_is_undefined():
    with pytest.raises(UndefinedMetricError, match="requires both"):
        curves.roc(CONFIDENCE, np.ones(4))
    with pytest.raises(DataError, match="ROC requires 0 or 1"):
        curves.roc(CONFIDENCE, np.full(4, 0.5))


def test_long_curves_are_thinned_but_keep_their_area_and_ends():
    rng = np.random.default_rng(0)
    confidence = rng.random(5000)
    correct = (rng.random(5000) < confidence).astype(float)
    for curve in (curves.risk_coverage, curves.rejection, curves.roc):
        x, y = curve(confidence, correct)
        assert 150 < len(x) == len(y) <= 200
        assert np.all(np.diff(x) >= 0)
        Curve(x, y)
    x, y = curves.roc(confidence, correct)
    assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(y, x) == pytest.approx(auroc(confidence, correct), abs=2e-3)
    x, y = curves.risk_coverage(confidence, correct)
    assert x[-1] == 1.0
    assert np.trapezoid(y, x) == pytest.approx(aurc(confidence, correct), abs=2e-3)


def test_reliability_bins_add_up_to_the_calibration_error():
    rng = np.random.default_rng(0)
    confidence = np.round(rng.random(300), 1)
    correct = rng.integers(0, 3, 300) / 2
    groups = np.arange(300) // 3
    bins = curves.reliability_bins(confidence, correct, groups)
    assert [b.low for b in bins] == pytest.approx(np.arange(10) / 10)
    assert sum(b.n for b in bins) == 300
    total = sum(b.n * abs(b.accuracy.value - b.confidence) for b in bins) / 300
    assert total == pytest.approx(ece(confidence, correct), abs=1e-14)
    assert all(b.accuracy.low < b.accuracy.value < b.accuracy.high for b in bins)


def test_an_empty_bin_says_so():
    first, second = curves.reliability_bins(np.array([0.0, 0.5]), np.array([0.0, 1.0]), n_bins=2)
    assert (first.n, first.confidence, first.accuracy.value) == (2, 0.25, 0.5)
    assert (second.n, second.confidence, second.accuracy.value) == (0, None, None)
    assert second.accuracy.reason == "empty bin"


def test_the_coverage_table_keeps_tied_rows_together():
    rows = curves.coverage_table(CONFIDENCE, CORRECT, coverages=(0.25, 0.5, 1.0))
    assert [(r.coverage, r.threshold, r.accuracy.n) for r in rows] == [
        (0.25, 0.9, 1),
        (0.5, 0.5, 3),
        (1.0, 0.1, 4),
    ]
    assert [r.accuracy.value for r in rows] == pytest.approx([1.0, 2 / 3, 0.5])


def test_a_coverage_of_nearly_nothing_keeps_one_row():
    (row,) = curves.coverage_table(CONFIDENCE, CORRECT, np.arange(4), coverages=(1e-12,))
    assert (row.threshold, row.accuracy.n) == (0.9, 1)


def test_histogram_counts_by_correctness():
    counts = curves.histogram(CONFIDENCE, CORRECT, n_bins=2)
    assert counts.edges == (0.0, 0.5, 1.0)
    assert (counts.right, counts.wrong) == ((1, 1), (2, 0))
    with pytest.raises(DataError, match="requires 0 or 1"):
        curves.histogram(CONFIDENCE, np.full(4, 0.5))
