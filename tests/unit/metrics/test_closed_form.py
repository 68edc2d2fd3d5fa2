"""Shares and AUROC with closed-form intervals."""

import numpy as np
import pytest

from sightline.core.errors import DataError
from sightline.metrics.closed_form import auroc_estimate, proportion, student
from sightline.metrics.discrimination import auroc


def test_wilson_by_hand():
    # 8 of 10 at 95 %: the textbook interval.
    estimate = proportion(np.array([1.0] * 8 + [0.0] * 2))
    assert (estimate.value, estimate.n) == (0.8, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(("correct", "expected"), [(1.0, (0.7225, 1.0)), (0.0, (0.0, 0.2775))])
def test_wilson_at_the_ends(correct, expected):
    estimate = proportion(np.full(10, correct))
    assert (estimate.low, estimate.high) == pytest.approx(expected, abs=1e-4)


def test_no_rows_have_a_reason():
    assert proportion(np.zeros(0)).reason == "no rows"


def test_groups_of_one_are_no_groups():
    correct = np.array([1.0, 0, 0, 1, 1])
    assert proportion(correct, np.array([7, 3, 9, 1, 0])) == proportion(correct)


def test_copies_of_a_row_do_not_narrow_the_interval():
    correct = np.array([1.0] * 30 + [0.0] * 20)
    alone = proportion(correct)
    copied = proportion(np.repeat(correct, 5), np.repeat(np.arange(50), 5))
    assert copied.value == alone.value
    # Slightly wider: Student's quantile, and the variance divides by one group less.
    assert 1.0 < (copied.high - copied.low) / (alone.high - alone.low) < 1.05


def test_an_effective_number_of_rows_never_exceeds_the_rows():
    # Each group is half right, so the groups show no variance at all.
    correct, groups = np.tile([1.0, 0.0], 10), np.repeat(np.arange(10), 2)
    grouped, alone = proportion(correct, groups), proportion(correct)
    assert grouped.high - grouped.low > alone.high - alone.low


def test_one_group_of_several_rows_has_no_interval():
    estimate = proportion(np.array([1.0, 0.0, 1.0]), np.zeros(3, dtype=int))
    assert (estimate.value, estimate.low, estimate.high) == (pytest.approx(2 / 3), None, None)


@pytest.mark.parametrize(("freedom", "quantile"), [(2, 4.303), (4, 2.776), (9, 2.262), (99, 1.984)])
def test_few_groups_take_students_quantile(freedom, quantile):
    assert student(1.959964, freedom) == pytest.approx(quantile, rel=0.02)


def test_fractions_and_bad_values():
    assert proportion(np.array([0.3, 0.6])).value == pytest.approx(0.45)
    with pytest.raises(DataError, match="must be finite"):
        proportion(np.array([np.nan]))
    with pytest.raises(DataError, match="must lie in"):
        proportion(np.array([2.0]))


def test_groups_must_match(unchecked):
    module = unchecked("sightline.metrics.closed_form")
    with pytest.raises(DataError, match="2 correctness values with 3 groups"):
        module.proportion(np.zeros(2), np.zeros(3, dtype=int))


def test_auroc_estimate_is_auroc_with_delongs_variance():
    rng = np.random.default_rng(0)
    correct = (rng.random(300) < 0.6).astype(float)
    confidence = np.round(rng.normal(size=300) + correct, 1)
    estimate = auroc_estimate(confidence, correct)
    assert estimate.value == pytest.approx(auroc(confidence, correct), abs=1e-14)
    right, wrong = confidence[correct == 1], confidence[correct == 0]
    beats = (right[:, None] > wrong) + (right[:, None] == wrong) / 2
    delong = beats.mean(1).var(ddof=1) / len(right) + beats.mean(0).var(ddof=1) / len(wrong)
    chance = (len(correct) + 1) / (12 * len(right) * len(wrong))
    half = 1.959964 * max(delong, chance) ** 0.5
    assert (estimate.low, estimate.high) == pytest.approx(
        (estimate.value - half, estimate.value + half), abs=2e-3
    )


def test_a_streak_on_few_rows_is_not_certain():
    estimate = auroc_estimate(np.arange(4.0), np.array([0.0, 0, 1, 1]))
    assert estimate.value == 1.0
    assert estimate.low < 0.5


def test_constant_scores_have_no_signal():
    estimate = auroc_estimate(np.ones(50), np.tile([0.0, 1.0], 25))
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_groups_widen_the_interval():
    rng = np.random.default_rng(1)
    correct = (rng.random(60) < 0.5).astype(float)
    confidence = rng.normal(size=60) + 1.5 * correct
    alone = auroc_estimate(confidence, correct)
    copied = auroc_estimate(np.repeat(confidence, 4), np.repeat(correct, 4), np.arange(240) // 4)
    assert copied.value == pytest.approx(alone.value)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.02)


def test_one_class_has_a_reason():
    estimate = auroc_estimate(np.arange(3.0), np.ones(3))
    assert estimate.value is None
    assert "requires both" in estimate.reason


def test_a_fraction_is_part_right_and_part_wrong():
    confidence = np.array([0.9, 0.5, 0.1])
    split = auroc_estimate(np.repeat(confidence, 2), np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    soft = auroc_estimate(confidence, np.array([1.0, 0.5, 0.0]))
    assert soft.value == pytest.approx(split.value)


def test_rows_that_count_unequally():
    """A group of nine wrong rows and nine of one right row, each group counting once."""
    correct = np.array([0.0] * 9 + [1.0] * 9)
    groups = np.array([0] * 9 + list(range(1, 10)))
    weights = np.array([1 / 9] * 9 + [1.0] * 9)
    estimate = proportion(correct, groups, weights=weights)
    assert estimate.value == pytest.approx(0.9)
    # As wide as of ten rows, by Student's quantile.
    ten = proportion(np.array([0.0] + [1.0] * 9))
    assert estimate.low < ten.low < ten.value
    assert estimate.low > 0.45
    assert proportion(correct, groups, weights=np.full(18, 3.0)) == proportion(correct, groups)
    with pytest.raises(DataError, match="not all above 0"):
        proportion(correct, groups, weights=np.append(weights[:-1], 0.0))


def test_unequal_weights_cover_the_share_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(600):
        sizes = rng.choice([1, 2, 20], 150, p=[0.5, 0.4, 0.1])
        groups = np.repeat(np.arange(150), sizes)
        right = np.where(sizes > 2, 0.2, 0.8)[groups]
        luck = np.where(
            rng.random(len(groups)) < 0.5, rng.random(150)[groups], rng.random(len(groups))
        )
        estimate = proportion((luck < right).astype(float), groups, weights=(1 / sizes)[groups])
        held.append(estimate.low <= 0.74 <= estimate.high)
    assert np.mean(held) >= 0.92
