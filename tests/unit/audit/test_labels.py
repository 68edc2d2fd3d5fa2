"""Labels and margins by hand."""

import numpy as np
import pytest

from sightline.audit.labels import (
    item_means,
    labels,
    margins,
    margins_by_flip,
    per_token,
    score_change,
    yes_margins,
)
from sightline.core.errors import DataError

SCORES = np.array([[-2.0, -6.0, -3.0], [-4.0, -1.0, -np.inf], [-5.0, -5.0, -9.0]])


def test_labels_are_the_best_option_and_the_first_of_equals():
    assert labels(SCORES).tolist() == [0, 1, 0]


def test_margins_against_the_label_and_against_the_truth():
    assert margins(SCORES, labels(SCORES)).tolist() == [1.0, 3.0, 0.0]
    assert margins(SCORES, np.array([2, 0, 2])).tolist() == [-1.0, -3.0, -4.0]


def test_means_per_token_can_change_the_label():
    lengths = np.array([[1, 6, 3], [2, 1, 0], [1, 5, 3]])
    means = per_token(SCORES, lengths)
    assert means[0].tolist() == [-2.0, -1.0, -1.0]
    assert means[1, 2] == -np.inf
    assert labels(means).tolist() == [1, 1, 1]


def test_the_change_of_the_clean_labels_score():
    clean, perturbed = SCORES, SCORES - np.array([[1.0], [0.0], [-2.0]])
    assert score_change(clean, perturbed, labels(clean)).tolist() == [-1.0, 0.0, 2.0]


def test_yes_margins_change_sign_with_the_answer():
    assert yes_margins(np.array([-1.0, -3.0]), np.array([-2.0, -1.0])).tolist() == [1.0, -2.0]


def test_margins_are_averaged_within_items_apart_for_flips():
    found = margins_by_flip(
        np.array([5, 5, 5, 2]),
        np.array([-1.0, -3.0, 4.0, 6.0]),
        np.array([True, True, False, False]),
    )
    assert found.flipped_items.tolist() == [5]
    assert found.flipped.tolist() == [-2.0]
    assert found.kept_items.tolist() == [2, 5]
    assert found.kept.tolist() == [6.0, 4.0]


def test_item_means_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    items, values = rng.integers(0, 5, 40), rng.normal(size=40)
    order = rng.permutation(40)
    first, second = item_means(items, values), item_means(items[order], values[order])
    assert np.array_equal(first[1], second[1])
    assert first[1][2] == pytest.approx(values[items == 2].mean())


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([[np.nan, -1.0]], "nan"),
        ([[np.inf, -1.0]], "inf"),
        ([[-1.0, -np.inf]], "two options"),
    ],
)
def test_scores_that_say_nothing_are_refused(scores, text):
    with pytest.raises(DataError, match=text):
        labels(np.array(scores))


@pytest.mark.parametrize("option", [-1, 2, 3])
def test_an_option_the_row_lacks_is_refused(option):
    with pytest.raises(DataError, match=f"option {option}"):
        margins(SCORES[1:2], np.array([option]))


def test_options_without_tokens_and_missing_yes_are_refused():
    with pytest.raises(DataError, match="no tokens"):
        per_token(SCORES[:1], np.array([[1, 0, 2]]))
    with pytest.raises(DataError, match="not finite"):
        yes_margins(np.array([-np.inf]), np.array([-1.0]))
