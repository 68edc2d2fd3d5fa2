"""Flip rates and transitions, by hand and by a naive loop."""

import numpy as np
import pytest

from sightline.audit.instability import (
    TRUTH_CHANGES,
    TRUTH_UNKNOWN,
    Pairs,
    Transitions,
    instability,
    mean_visual_entropy,
    visual_entropy,
)
from sightline.core.errors import DataError
from sightline.core.results import Skipped


def by_hand():
    """Three questions about two pictures, three perturbations of each."""
    return {
        "images": np.repeat([0, 0, 1], 3),
        "items": np.repeat([10, 11, 12], 3),
        "clean": np.repeat([0, 1, 2], 3),
        "perturbed": np.array([0, 1, 0, 1, 1, 1, 0, 1, 2]),
        "truth": np.repeat([0, 0, 0], 3),
    }


def test_every_rate_by_hand(clusters_of):
    columns = by_hand()
    found = instability(Pairs.of_labels(**columns), clusters_of(columns["images"]))
    assert found.pairs == 9
    assert found.items == 3
    assert found.excluded == ()
    assert found.ifr.value == pytest.approx(3 / 9)
    assert found.iv.value == pytest.approx(2 / 3)
    assert found.transitions == Transitions(2, 1, 1, 5)
    assert found.lost.value == pytest.approx(1 / 3)
    assert found.won.value == pytest.approx(1 / 6)
    assert found.accuracy_before.value == pytest.approx(3 / 9)
    assert found.accuracy_after.value == pytest.approx(3 / 9)
    assert found.accuracy_change.value == 0


def test_identity_gives_no_flips(clusters_of):
    columns = by_hand()
    pairs = Pairs.of_labels(**{**columns, "perturbed": columns["clean"]})
    found = instability(pairs, clusters_of(columns["images"]))
    assert found.ifr.value == found.iv.value == 0
    assert found.transitions == Transitions(3, 0, 0, 6)
    assert found.accuracy_change.value == 0
    mean = mean_visual_entropy(
        pairs, columns["clean"], columns["clean"], clusters_of(columns["images"])
    )
    assert mean.value == 0


def test_excluded_pairs_are_counted_by_reason_and_nowhere_else(clusters_of):
    columns = by_hand()
    reasons = np.array(["", "", TRUTH_CHANGES, "", TRUTH_UNKNOWN, TRUTH_CHANGES, "", "", ""])
    pairs = Pairs.of_labels(**columns, excluded=reasons)
    found = instability(pairs, clusters_of(columns["images"]))
    assert found.pairs == 6
    assert found.excluded == (Skipped(TRUTH_CHANGES, 2), Skipped(TRUTH_UNKNOWN, 1))
    assert found.ifr.value == pytest.approx(3 / 6)
    kept = instability(pairs.where(reasons == ""), clusters_of(columns["images"]))
    assert kept.ifr == found.ifr
    assert kept.transitions == found.transitions


def test_unknown_truth_counts_for_flips_but_not_for_transitions(clusters_of):
    columns = by_hand()
    columns["truth"][:3] = -1
    found = instability(Pairs.of_labels(**columns), clusters_of(columns["images"]))
    assert found.ifr.n == 9
    assert found.accuracy_before.n == 6
    assert found.transitions == Transitions(0, 0, 1, 5)
    assert found.lost.value is None
    assert "right" in found.lost.reason


def test_flips_by_grade_and_by_meaning_see_different_things(clusters_of):
    images = items = np.arange(4)
    before, after = np.array([1.0, 1.0, 0.0, 0.3]), np.array([1.0, 0.2, 0.0, 0.9])
    by_grade = Pairs.of_grades(images, items, before, after)
    assert by_grade.flipped.tolist() == [False, True, False, True]
    same = np.array([True, False, False, False])
    by_meaning = Pairs.of_meaning(images, items, same, before, after)
    assert by_meaning.flipped.tolist() == [False, True, True, True]
    ungraded = instability(Pairs.of_meaning(images, items, same), clusters_of(images))
    assert ungraded.ifr.value == 0.75
    assert ungraded.accuracy_before.value is None


def test_a_threshold_decides_what_is_right():
    pairs = Pairs.of_grades(
        np.arange(2), np.arange(2), np.array([0.3, 0.6]), np.array([0.6, 0.3]), threshold=0.3
    )
    assert not pairs.flipped.any()


@pytest.mark.parametrize("mark", [np.nan, 1.5, -0.1])
def test_marks_outside_their_range_are_refused(mark):
    one, marks = np.arange(1), np.array([mark])
    with pytest.raises(DataError, match="1 marks are not in"):
        Pairs.of_grades(one, one, np.ones(1), marks)
    with pytest.raises(DataError, match="1 marks are not in"):
        Pairs.of_meaning(one, one, np.ones(1, dtype=bool), marks, np.ones(1))


def test_rates_equal_a_naive_loop(clusters_of):
    rng = np.random.default_rng(5)
    items = np.repeat(np.arange(40), 5)
    images, clean, truth = items // 2, rng.integers(0, 4, 40)[items], rng.integers(-1, 4, 40)[items]
    perturbed = np.where(rng.random(200) < 0.8, clean, rng.integers(0, 4, 200))
    excluded = np.where(rng.random(200) < 0.1, TRUTH_CHANGES, "")
    pairs = Pairs.of_labels(images, items, clean, perturbed, truth, excluded)
    found = instability(pairs, clusters_of(images))

    flips = n = right = after = graded = lost = 0
    seen, vulnerable = set(), set()
    for row in range(200):
        if excluded[row]:
            continue
        n += 1
        seen.add(items[row])
        if clean[row] != perturbed[row]:
            flips += 1
            vulnerable.add(items[row])
        if truth[row] >= 0:
            graded += 1
            right += clean[row] == truth[row]
            after += perturbed[row] == truth[row]
            lost += clean[row] == truth[row] and perturbed[row] != truth[row]
    assert found.ifr.value == pytest.approx(flips / n, abs=1e-15)
    assert found.iv.value == pytest.approx(len(vulnerable) / len(seen), abs=1e-15)
    assert found.accuracy_before.value == pytest.approx(right / graded, abs=1e-15)
    assert found.accuracy_after.value == pytest.approx(after / graded, abs=1e-15)
    assert found.lost.value == pytest.approx(lost / right, abs=1e-15)
    assert found.accuracy_change.value == pytest.approx((after - right) / graded, abs=1e-15)


def test_visual_entropy_counts_the_clean_picture():
    items, entropy = visual_entropy(
        np.array([3, 3, 3, 1]), np.array([0, 0, 0, 5]), np.array([0, 1, 2, 5])
    )
    assert items.tolist() == [1, 3]
    assert entropy[0] == 0
    assert entropy[1] == pytest.approx(-0.5 * np.log(0.5) - 2 * 0.25 * np.log(0.25))


def test_nothing_left_has_no_rate(clusters_of):
    columns = by_hand()
    pairs = Pairs.of_labels(**columns, excluded=np.full(9, TRUTH_CHANGES))
    found = instability(pairs, clusters_of(columns["images"]))
    assert found.pairs == 0
    assert found.ifr.value is None
    assert found.excluded == (Skipped(TRUTH_CHANGES, 9),)


def test_columns_that_contradict_one_another_are_refused(unchecked):
    columns = by_hand()
    with pytest.raises(DataError, match="several clean labels"):
        Pairs.of_labels(**{**columns, "clean": np.arange(9)})
    with pytest.raises(DataError, match="several images"):
        Pairs.of_labels(**{**columns, "images": np.arange(9)})
    module = unchecked("sightline.audit.instability")
    with pytest.raises(DataError, match="8, 9"):
        module.Pairs.of_meaning(np.arange(9), np.arange(9), np.ones(8, dtype=bool))
