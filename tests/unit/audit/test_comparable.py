"""Means over unlike conditions: equal answers are equal, and nothing else is changed."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.audit.comparable import comparable_means
from sightline.audit.labels import item_means

HARM = np.array([0.1, 0.2, 0.7, 0.9])


def test_a_case_worked_by_hand():
    """Conditions cost 1/2 and 1; the second item is worse where both are seen."""
    items = np.array([0, 0, 1])
    conditions = np.array(["mild", "harsh", "mild"])
    found, values = comparable_means(items, conditions, np.array([0.0, 1.0, 1.0]))
    # mild 1/2, harsh 1, all 2/3: ((0 - 1/2) + (1 - 1)) / 2 + 2/3, and (1 - 1/2) + 2/3
    assert found.tolist() == [0, 1]
    assert values == pytest.approx([5 / 12, 7 / 6])


def test_equal_answers_under_unlike_conditions_are_equal():
    """Answers that every condition harms alike, seen under some of the conditions each."""
    seen = [(0, 1, 2, 3), (0, 1), (2, 3), (0,), (1, 3)]
    items = np.repeat(np.arange(len(seen)), [len(own) for own in seen])
    conditions = np.concatenate(seen)
    values = HARM[conditions]
    raw = item_means(items, values)[1]
    assert np.ptp(raw) > 0.5
    assert comparable_means(items, conditions, values)[1] == pytest.approx(values.mean(), abs=1e-12)


def test_with_every_condition_of_every_answer_it_is_the_plain_mean():
    rng = np.random.default_rng(0)
    items, conditions = (a.ravel() for a in np.indices((20, 7)))
    values = rng.normal(size=140)
    found, own = comparable_means(items, conditions, values)
    assert np.array_equal(found, np.arange(20))
    assert own == pytest.approx(item_means(items, values)[1], abs=1e-12)


def test_answers_with_the_same_conditions_differ_as_their_plain_means_do():
    rng = np.random.default_rng(1)
    seen = rng.random((40, 6)) < 0.6
    seen[:, 0] = True
    seen[20:] = seen[:20]  # every set of conditions twice
    items, conditions = np.nonzero(seen)
    flips = (rng.random(len(items)) < 0.3) * 1.0
    raw, own = item_means(items, flips)[1], comparable_means(items, conditions, flips)[1]
    assert own[:20] - own[20:] == pytest.approx(raw[:20] - raw[20:], abs=1e-12)
    tied = raw[:20] == raw[20:]
    assert tied.any()
    assert np.array_equal(own[:20][tied], own[20:][tied])


def test_two_wordings_of_the_same_questions_are_told_apart_no_longer():
    """The same answers, half of them counted under all conditions, half under the mild ones."""
    rng = np.random.default_rng(2)
    stability = rng.normal(scale=0.05, size=300)
    items, conditions = (a.ravel() for a in np.indices((600, 4)))
    values = HARM[conditions] + np.tile(stability, 2)[items]
    kept = (items < 300) | (conditions < 2)
    items, conditions, values = items[kept], conditions[kept], values[kept]
    raw, own = item_means(items, values)[1], comparable_means(items, conditions, values)[1]
    assert raw[:300].mean() - raw[300:].mean() > 0.3
    assert abs(own[:300].mean() - own[300:].mean()) < 1e-9
    assert np.corrcoef(own[:300], stability)[0, 1] > 0.999
    assert np.corrcoef(own[300:], stability)[0, 1] > 0.999


def test_the_order_of_rows_and_names_of_conditions_change_nothing():
    rng = np.random.default_rng(3)
    items, conditions = rng.integers(0, 9, 80), rng.integers(0, 5, 80)
    values, order = rng.normal(size=80), rng.permutation(80)
    first = comparable_means(items, conditions, values)
    second = comparable_means(items[order], conditions[order], values[order])
    assert np.array_equal(first[1], second[1])
    names = np.array([f"rotate:{c}" for c in conditions], dtype=object)
    assert np.array_equal(comparable_means(items, names, values)[1], first[1])


def test_a_condition_seen_once_says_nothing_and_no_pairs_are_no_items():
    found, own = comparable_means(np.array([3, 4]), np.array(["a", "b"]), np.array([1.0, 5.0]))
    assert found.tolist() == [3, 4]
    assert own.tolist() == [3.0, 3.0]
    none = np.zeros(0, dtype=np.int64)
    assert comparable_means(none, none, np.zeros(0))[1].shape == (0,)
