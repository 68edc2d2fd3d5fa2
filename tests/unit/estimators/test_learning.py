"""What estimators that learn share."""

import sys

import numpy as np
import pytest
from hidden_records import planted, record
from hypothesis import given
from hypothesis import strategies as st

from sightline.core.errors import DataError, MissingExtraError, MissingFeatureError
from sightline.core.features import Feature
from sightline.estimators.learning import (
    by_row,
    common_layers,
    fit_logistic,
    grouped_folds,
    labelled,
    log_loss,
    standardiser,
    wrong_probability,
)

HIDDEN = frozenset({Feature.HIDDEN})


def rows_of(correct, groups):
    records = [record(f"r{i:03d}", [[[0.0]]], group=g) for i, g in enumerate(groups)]
    return labelled(records, np.array(correct, dtype=float), HIDDEN, "who")


def test_rows_come_in_the_order_of_their_keys_whatever_order_they_were_given_in():
    records, correct = planted(30)
    order = np.random.default_rng(0).permutation(30)
    straight = labelled(records, correct, HIDDEN, "who")
    shuffled = labelled([records[i] for i in order], correct[order], HIDDEN, "who")
    assert [r.key for r in shuffled.records] == [r.key for r in straight.records]
    np.testing.assert_array_equal(shuffled.correct, straight.correct)
    np.testing.assert_array_equal(shuffled.groups, straight.groups)
    assert [records[order[i]].key for i in shuffled.order] == [r.key for r in shuffled.records]


@pytest.mark.parametrize(
    ("correct", "found"),
    [
        ([1, 1, 1], "3 labelled answers to fit str on, 3 of them right"),
        ([0, 0, 0], "0 of them right"),
        ([1, 0], "3 records and correctness of shape"),
        ([1, 0, np.nan], "one value in \\[0, 1\\]"),
        ([1, 0, 2], "one value in \\[0, 1\\]"),
    ],
)
def test_labels_that_nothing_can_be_fitted_on_are_one_line(correct, found):
    records, _ = planted(3)
    with pytest.raises(DataError, match=found):
        labelled(records, np.array(correct, dtype=float), HIDDEN, "who")


def test_a_missing_signal_is_named():
    records, correct = planted(4)
    with pytest.raises(MissingFeatureError, match="image_hidden"):
        labelled(records, correct, frozenset({Feature.IMAGE_HIDDEN}), "who")


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=4, max_size=60),
    st.integers(2, 6),
    st.integers(0, 5),
)
def test_folds_keep_groups_together_and_both_classes_outside_each(rows, count, seed):
    correct = [float(right) for right, _ in rows]
    groups = [str(group) for _, group in rows]
    with_right = {g for c, g in zip(correct, groups, strict=True) if c == 1}
    with_wrong = {g for c, g in zip(correct, groups, strict=True) if c == 0}
    if not with_right or not with_wrong:
        return
    labels = rows_of(correct, groups)
    rng = np.random.default_rng(seed)
    if min(len(with_right), len(with_wrong)) < 2:
        with pytest.raises(DataError, match="2 are required"):
            grouped_folds(labels, count, rng, "who")
        return
    fold = grouped_folds(labels, count, rng, "who")
    for group in set(labels.groups):
        assert len(set(fold[labels.groups == group])) == 1
    assert set(fold) == set(range(min(count, len(set(groups)))))
    sizes = [len(set(labels.groups[fold == k])) for k in range(fold.max() + 1)]
    assert max(sizes) - min(sizes) <= 1


def test_folds_have_about_the_same_accuracy():
    correct = np.array([0.0] * 20 + [1.0] * 80)
    labels = rows_of(correct, [str(i) for i in range(100)])
    fold = grouped_folds(labels, 5, np.random.default_rng(0), "who")
    assert [labels.correct[fold == k].mean() for k in range(5)] == [0.8] * 5


def test_twenty_labels_with_one_wrong_answer_say_what_is_lacking():
    labels = rows_of([0] + [1] * 19, [str(i) for i in range(20)])
    with pytest.raises(DataError, match=r"20 groups.*only 1 with a wrong one; 2 are required"):
        grouped_folds(labels, 3, np.random.default_rng(0), "who")


def test_logistic_regression_finds_the_log_odds_of_two_groups():
    """Half of 0s and nine tenths of 1s are right: log-odds 0 and log 9 (almost no penalty)."""
    features = np.repeat([[0.0], [1.0]], 100, axis=0)
    correct = np.concatenate([np.repeat([0, 1], 50), np.repeat([0, 1], [10, 90])]).astype(float)
    weights, bias = fit_logistic(features, correct, 1e8)
    assert bias == pytest.approx(0.0, abs=1e-3)
    assert weights[0] == pytest.approx(np.log(9), abs=1e-3)


def test_part_right_counts_as_right_and_wrong_with_these_weights():
    features = np.array([[0.0], [1.0]])
    soft = fit_logistic(features, np.array([0.5, 0.9]), 1e8)
    assert soft[1] == pytest.approx(0.0, abs=1e-3)
    assert soft[0][0] == pytest.approx(np.log(9), abs=1e-3)


def test_a_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn is not installed.*\[learn\]"):
        fit_logistic(np.eye(2), np.array([0.0, 1.0]), 1.0)


def test_log_loss_and_probability_at_known_odds():
    odds = np.log([1.0, 9.0, 1 / 9])
    np.testing.assert_allclose(wrong_probability(odds), [0.5, 0.1, 0.9])
    np.testing.assert_allclose(
        log_loss(odds, np.array([1.0, 1.0, 0.5])),
        [-np.log(0.5), -np.log(0.9), -0.5 * np.log(0.9) - 0.5 * np.log(0.1)],
    )
    extreme = wrong_probability(np.array([-1e9, 1e9]))
    np.testing.assert_array_equal(extreme, [1.0, 0.0])


def test_a_feature_that_does_not_vary_is_left_at_its_scale():
    mean, scale = standardiser(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(mean, [2.0, 5.0])
    np.testing.assert_array_equal(scale, [1.0, 1.0])


@pytest.mark.parametrize(("width", "out"), [(3, 1), (128, 256), (700, 64), (1, 1)])
def test_a_product_by_row_is_the_same_to_the_bit_alone_and_among_others(width, out):
    rng = np.random.default_rng(0)
    features, matrix = rng.normal(size=(37, width)), rng.normal(size=(width, out))
    together = by_row(features, matrix)
    np.testing.assert_allclose(together, features @ matrix)
    for row in range(37):
        np.testing.assert_array_equal(by_row(features[row : row + 1], matrix)[0], together[row])


def test_records_of_different_layers_cannot_be_fitted_on_together():
    same = [record("a", np.zeros((2, 1, 3))), record("b", np.zeros((2, 1, 3)))]
    assert common_layers(same, "who") == (1, 2)
    with pytest.raises(DataError, match=r"layers \[1, 2\] and of layers \[4, 8\]"):
        common_layers([*same, record("c", np.zeros((2, 1, 3)), layers=(4, 8))], "who")
