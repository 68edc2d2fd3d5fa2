"""Partners: never of the own group, never by position."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.audit.controls import draw_partners, other_images, other_items, paraphrases
from sightline.core.errors import DataError


def keys(n):
    return np.array([f"item-{i:03d}" for i in range(n)])


def test_another_item_is_of_another_group_and_drawn_once():
    groups = np.arange(60) // 3
    found = other_items(keys(60), groups, k=25)
    assert len(found.rows) == 60 * 25
    assert (groups[found.rows] != groups[found.partners]).all()
    assert len(np.unique(np.stack([found.rows, found.partners]), axis=1).T) == len(found.rows)
    assert not len(found.alone)


def test_another_image_has_the_same_question():
    groups, questions = np.arange(40) // 2, np.arange(40) % 7
    found = other_images(keys(40), groups, questions, k=3)
    assert (questions[found.rows] == questions[found.partners]).all()
    assert (groups[found.rows] != groups[found.partners]).all()


def test_a_question_asked_once_is_alone():
    found = other_images(keys(4), np.arange(4), np.array([0, 0, 1, 2]))
    assert found.rows.tolist() == [0, 1]
    assert found.partners.tolist() == [1, 0]
    assert found.alone.tolist() == [2, 3]


def test_a_paraphrase_is_of_the_same_item_in_other_words():
    items, wordings = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 0])
    found = paraphrases(keys(5), items, wordings)
    assert list(zip(found.rows.tolist(), found.partners.tolist(), strict=True)) == [
        *((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))
    ]
    assert found.alone.tolist() == [3, 4]


def test_every_possible_partner_is_drawn_about_as_often():
    groups = np.arange(12) // 2
    counts = np.zeros((12, 12), dtype=int)
    for seed in range(600):
        found = other_items(keys(12), groups, k=3, seed=seed)
        np.add.at(counts, (found.rows, found.partners), 1)
    allowed = groups[:, None] != groups[None, :]
    assert (counts[~allowed] == 0).all()
    # 600 draws of 3 out of 10: 180 each, with a standard deviation of 11.
    assert abs(counts[allowed] - 180).max() < 5 * 11.3


def naive_possible(alike, apart, row):
    return {j for j in range(len(alike)) if alike[j] == alike[row] and apart[j] != apart[row]}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_partners_are_possible_distinct_as_many_as_there_are_and_independent_of_order(data):
    n = data.draw(st.integers(0, 14))
    numbers = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    alike, apart = (np.array(data.draw(numbers), dtype=np.int64) for _ in range(2))
    k, seed = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 5))
    found = draw_partners(keys(n), alike, apart, k=k, seed=seed)
    by_row = {i: [] for i in range(n)}
    for row, partner in zip(found.rows.tolist(), found.partners.tolist(), strict=True):
        by_row[row].append(partner)
    for row, partners in by_row.items():
        possible = naive_possible(alike, apart, row)
        assert len(partners) == len(set(partners)) == min(k, len(possible))
        assert set(partners) <= possible
        assert (row in found.alone.tolist()) == (not possible)

    order = np.array(data.draw(st.permutations(range(n))), dtype=np.int64)
    shuffled = draw_partners(keys(n)[order], alike[order], apart[order], k=k, seed=seed)
    back = {(int(order[i]), int(order[j])) for i, j in zip(*shuffled[:2], strict=True)}
    assert back == {(i, j) for i, partners in by_row.items() for j in partners}


def test_repeated_keys_and_no_partners_are_refused():
    with pytest.raises(DataError, match="unique"):
        other_items(np.array(["a", "a"]), np.arange(2))
    with pytest.raises(DataError, match="at least 1"):
        other_items(keys(2), np.arange(2), k=0)
