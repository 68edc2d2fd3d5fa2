"""Discrimination metrics by hand: values, ties, limits and refusals."""

import itertools

import numpy as np
import pytest

from sightline.core.errors import DataError, UndefinedMetricError
from sightline.metrics.discrimination import (
    aupr_right,
    aupr_wrong,
    auroc,
    cohens_d,
    fpr95,
    fpr_at_tpr_nearest,
)

CONFIDENCE = np.array([0.9, 0.8, 0.8, 0.4, 0.1])
CORRECT = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
BINARY = [auroc, aupr_right, aupr_wrong, fpr95, fpr_at_tpr_nearest, cohens_d]


def test_auroc_counts_a_tie_as_half():
    # Pairs (right, wrong): .9 beats both; .8 ties .8 and beats .1; .4 loses to .8 and beats .1.
    assert auroc(CONFIDENCE, CORRECT) == (2 + 1.5 + 1) / 6


def test_auroc_of_constant_scores_is_one_half():
    assert auroc(np.ones(7), np.array([1.0, 0, 0, 1, 1, 0, 0])) == 0.5


def test_average_precision_takes_a_tie_as_one_threshold():
    # Right first: 1/1 at .9, then 2 of 3 at .8, then 3 of 4 at .4; recall rises by a third each.
    assert aupr_right(CONFIDENCE, CORRECT) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)
    # Wrong first, from below: 1/1 at .1, then 2 of 4 at .8.
    assert aupr_wrong(CONFIDENCE, CORRECT) == pytest.approx((1 + 2 / 4) / 2, abs=1e-15)


def test_average_precision_of_constant_scores_is_the_base_rate():
    correct = np.array([1.0, 0, 0, 1, 1, 0, 0])
    assert aupr_right(np.ones(7), correct) == pytest.approx(3 / 7, abs=1e-15)
    assert aupr_wrong(np.ones(7), correct) == pytest.approx(4 / 7, abs=1e-15)


def test_fpr95_takes_the_first_threshold_that_accepts_enough():
    right = np.linspace(0.5, 1.0, 20)
    wrong = np.array([0.51, 0.52, 0.53, 0.4])
    confidence = np.concatenate([right, wrong])
    correct = np.concatenate([np.ones(20), np.zeros(4)])
    # 95 % of 20 right answers is 19: all but the one at .5, so the threshold is .526…
    assert fpr95(confidence, correct) == 1 / 4
    assert fpr95(confidence, correct, tpr=1.0) == 3 / 4


def test_fpr95_of_constant_scores_accepts_everything():
    assert fpr95(np.zeros(4), np.array([1.0, 0, 1, 0])) == 1.0


def test_the_nearest_rule_may_accept_fewer_right_answers():
    confidence = np.arange(16.0)[::-1]
    correct = np.ones(16)
    correct[14] = 0.0
    # 14 of 15 (.933) is nearer to .95 than 15 of 15, and accepts no wrong answer.
    assert fpr_at_tpr_nearest(confidence, correct) == 0.0
    assert fpr95(confidence, correct) == 1.0


def test_the_nearest_rule_takes_corners_only():
    # One right and one wrong answer at each of 20 levels: a straight line, and its ends are left.
    confidence = np.repeat(np.arange(20.0), 2)
    correct = np.tile([1.0, 0.0], 20)
    assert fpr_at_tpr_nearest(confidence, correct) == 1.0
    # The wrong one of the level that 19 of 20 right ones reach comes late: a corner at .95.
    confidence[3] = -1.0
    assert fpr_at_tpr_nearest(confidence, correct) == 18 / 20


def test_cohens_d_pools_the_variances():
    confidence = np.array([2.0, 4.0, 6.0, 1.0, 3.0])
    correct = np.array([1.0, 1, 1, 0, 0])
    pooled = ((4 + 0 + 4) + (1 + 1)) / (5 - 2)
    assert cohens_d(confidence, correct) == pytest.approx((4 - 2) / pooled**0.5, rel=1e-14)


def test_cohens_d_does_not_overflow():
    confidence = np.array([1e308, 5e307, -1e308, -5e307])
    assert cohens_d(confidence, np.array([1.0, 1, 0, 0])) == pytest.approx(4.242640687, rel=1e-9)


@pytest.mark.parametrize("confidence", [[1.0, 1, 1, 1], [2.0, 2, 1, 1]])
def test_cohens_d_without_spread_is_undefined(confidence):
    with pytest.raises(UndefinedMetricError, match="requires both classes and a spread"):
        cohens_d(np.array(confidence), np.array([1.0, 1, 0, 0]))


@pytest.mark.parametrize("metric", BINARY)
@pytest.mark.parametrize("correct", [np.ones(3), np.zeros(3)])
def test_one_class_is_undefined_with_its_reason(metric, correct):
    with pytest.raises(UndefinedMetricError, match="require") as caught:
        metric(np.array([0.1, 0.2, 0.3]), correct)
    assert caught.value.reason == str(caught.value)


@pytest.mark.parametrize("metric", BINARY)
def test_fractional_correctness_asks_to_binarise(metric):
    with pytest.raises(DataError, match=r"0\.3 at row 1; .* requires 0 or 1\. Binarise"):
        metric(np.array([0.1, 0.2, 0.3]), np.array([1.0, 0.3, 0.0]))


@pytest.mark.parametrize("metric", BINARY)
def test_no_order_of_the_rows_changes_a_bit(metric):
    values = {
        metric(CONFIDENCE[list(order)], CORRECT[list(order)])
        for order in itertools.permutations(range(5))
    }
    assert len(values) == 1
