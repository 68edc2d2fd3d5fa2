"""Splits: whole groups, right shares, no say for row order, and errors for what cannot be split."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest

from sightline.core.errors import DataError, LeakageError, UsageError
from sightline.core.types import Example, ImageRef
from sightline.data.splits import Split, assert_disjoint, assert_no_leakage, split_groups


def parts(split: Split) -> list[list[int]]:
    return [part.tolist() for part in (split.train, split.calibration, split.test)]


def test_rows_of_one_group_stay_together_and_every_row_is_used_once():
    groups = [f"g{i % 37}" for i in range(400)]
    split = split_groups(groups, (0.3, 0.3, 0.4), seed=3)
    assert sorted(chain.from_iterable(parts(split))) == list(range(400))
    names = [{groups[i] for i in part} for part in parts(split)]
    assert sum(map(len, names)) == len(set(groups))
    assert all(part == sorted(part) for part in parts(split))


def test_equal_groups_give_the_exact_shares():
    split = split_groups([str(i) for i in range(1_000)], (0.2, 0.3, 0.5))
    assert [len(part) for part in parts(split)] == [200, 300, 500]


def test_shares_miss_by_less_than_the_largest_group():
    rng = np.random.default_rng(0)
    for seed in range(20):
        sizes = rng.integers(1, 12, size=60)
        groups = [f"g{g}" for g, size in enumerate(sizes) for _ in range(size)]
        split = split_groups(groups, (0.3, 0.3, 0.4), seed=seed)
        for part, share in zip(parts(split), (0.3, 0.3, 0.4), strict=True):
            assert abs(len(part) - share * len(groups)) < 12


def test_row_order_does_not_change_which_group_goes_where():
    groups = [f"g{i % 11}" for i in range(60)]
    order = np.random.default_rng(1).permutation(60)
    shuffled = [groups[i] for i in order]
    one, other = split_groups(groups, seed=5), split_groups(shuffled, seed=5)
    for here, there in zip(parts(one), parts(other), strict=True):
        assert {groups[i] for i in here} == {shuffled[i] for i in there}


def test_seeds_differ_and_repeat():
    groups = [str(i) for i in range(100)]
    assert parts(split_groups(groups, seed=1)) == parts(split_groups(groups, seed=1))
    assert parts(split_groups(groups, seed=1)) != parts(split_groups(groups, seed=2))


def test_a_groups_size_has_no_say_in_where_it_lands():
    # One group of 20 rows among 80 single rows must land in test about as often as test is large.
    groups = ["big"] * 20 + [str(i) for i in range(80)]
    landed = Counter(
        next(k for k, part in enumerate(parts(split_groups(groups, seed=s))) if 0 in part)
        for s in range(400)
    )
    assert 0.2 < landed[0] / 400 < 0.4
    assert 0.2 < landed[1] / 400 < 0.4
    assert 0.3 < landed[2] / 400 < 0.5


@pytest.mark.parametrize("seed", range(10))
def test_every_used_part_gets_a_group_however_uneven_the_sizes(seed):
    groups = ["big"] * 1_000 + ["a", "b"]
    assert all(parts(split_groups(groups, (0.3, 0.3, 0.4), seed=seed)))


def test_a_part_with_no_share_stays_empty():
    split = split_groups([str(i) for i in range(10)], (0.0, 0.5, 0.5))
    assert [len(part) for part in parts(split)] == [0, 5, 5]
    split = split_groups(["only", "only"], (0.0, 0.0, 1.0))
    assert [len(part) for part in parts(split)] == [0, 0, 2]


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5, 0.5), (-0.1, 0.6, 0.5), (float("nan"), 0.5, 0.5), (0.0, 0.0, 0.0)]
)
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(UsageError, match="sum to 1"):
        split_groups(["a", "b", "c"], fractions)


def test_too_few_groups_are_refused():
    with pytest.raises(DataError, match=r"40 rows in 2 group\(s\).*train, calibration, test"):
        split_groups(["a", "b"] * 20)
    with pytest.raises(DataError, match=r"0 rows in 0 group"):
        split_groups([])


def test_names_that_differ_only_in_a_trailing_nul_are_two_groups():
    split = split_groups(["a", "a\0", "b"], (0.3, 0.3, 0.4))
    assert sorted(map(len, parts(split))) == [1, 1, 1]


def test_a_given_split_is_followed():
    given = {"a": "test", "b": "train", "c": "calibration", "unused": "train"}
    assert parts(split_groups(["a", "b", "c", "a"], given=given)) == [[1], [2], [0, 3]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": "test"}, "no part for 1 of 2 groups, 'b'"),
        ({"a": "test", "b": "val"}, "'val'"),
        ({"a": "train", "b": "train"}, "none of 2 groups into test"),
    ],
)
def test_a_given_split_that_cannot_be_followed_is_refused(given, message):
    with pytest.raises(DataError, match=message):
        split_groups(["a", "b"], given=given)


def example(name: str, group: str, *images: str) -> Example:
    return Example(name, "?", tuple(ImageRef(f"{name}-{i}", i) for i in images), group=group)


def as_split(train: list[int], calibration: list[int], test: list[int]) -> Split:
    return Split(*(np.array(part, dtype=np.int64) for part in (train, calibration, test)))


def test_leakage_is_found_by_row_group_and_image_content():
    clean = [example("1", "a", "x"), example("2", "a", "x"), example("3", "b", "y")]
    assert_no_leakage(clean, as_split([0, 1], [], [2]))
    with pytest.raises(LeakageError, match=r"group.*'a'"):
        assert_no_leakage(clean, as_split([0], [1], [2]))
    with pytest.raises(LeakageError, match="row"):
        assert_no_leakage(clean, as_split([0], [2], [2]))
    copied = [example("1", "a", "x"), example("2", "b", "y", "x")]
    with pytest.raises(LeakageError, match=r"image.*'x'"):
        assert_no_leakage(copied, as_split([0], [], [1]))


def test_disjoint_sets_pass_and_shared_ones_name_one_member():
    assert_disjoint(["a", "b"], ["c"])
    with pytest.raises(LeakageError, match=r"2 group\(s\).*'b'"):
        assert_disjoint(["c", "b", "a"], ["c", "b"])
