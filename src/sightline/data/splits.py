"""Splitting rows into train, calibration and test without ever splitting a group.

Rows of one group (rotations of one question, several questions on one image) are not independent:
a fitted score that has seen one of them is not measured honestly on another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Int

from sightline.core.errors import DataError, LeakageError, UsageError
from sightline.core.types import Example

PARTS = ("train", "calibration", "test")


@dataclass(frozen=True, slots=True)
class Split:
    """Row indices of each part, ascending; together they are all rows, each once.

    Attributes:
        train: Rows that learned estimators are fitted on.
        calibration: Rows that calibrations and thresholds are fitted on.
        test: Rows that figures are measured on.
    """

    train: Int[np.ndarray, " a"]
    calibration: Int[np.ndarray, " b"]
    test: Int[np.ndarray, " c"]


def split_groups(
    groups: Sequence[str],
    fractions: tuple[float, float, float] = (0.3, 0.3, 0.4),
    *,
    seed: int = 0,
    given: Mapping[str, str] | None = None,
) -> Split:
    """Assigns whole groups to train, calibration and test at random.

    The groups are shuffled and the shuffled line is cut where the running number of rows passes the
    fractions, so a group's size has no say in where it lands, and every part misses its share of
    rows by less than its largest border group. The result depends on the set of groups, their sizes
    and the seed, not on the order of the rows.

    Args:
        groups: Group of each row.
        fractions: Shares of rows for train, calibration and test; a part with share 0 stays empty.
        seed: Seed of the shuffle.
        given: Part name by group; replaces the shuffle.

    Returns:
        Row indices; every part with a positive share has at least one group.

    Raises:
        UsageError: The fractions are not shares that sum to 1, or the seed is negative.
        DataError: There are fewer groups than parts, or ``given`` misses a group, names an unknown
            part or leaves the test part empty.

    Example:
        >>> split = split_groups(["a", "a", "b", "c", "c"], (0.0, 0.5, 0.5), seed=1)
        >>> sorted([*split.train, *split.calibration, *split.test]) == [0, 1, 2, 3, 4]
        True
    """
    if given is not None:
        return _gather(groups, _given_parts(groups, given))
    if any(not f >= 0 for f in fractions) or not math.isclose(sum(fractions), 1, abs_tol=1e-9):
        raise UsageError(
            f"Split fractions {fractions}; three shares of at least 0 that sum to 1 are required. "
            "For example: 0.3, 0.3, 0.4."
        )
    if seed < 0:
        raise UsageError(
            f"Split seed {seed}; a whole number from 0 on is required. For example: --seed 0."
        )
    sizes = Counter(groups)
    used = [part for part, share in enumerate(fractions) if share > 0]
    if len(sizes) < len(used):
        raise DataError(
            f"{len(groups)} rows in {len(sizes)} group(s); at least one group for each of "
            f"{', '.join(PARTS[part] for part in used)} is required. Use more data, set other "
            "fractions, or give a finer group column."
        )
    names = sorted(sizes)
    rng = np.random.default_rng(seed)
    shuffled = [names[i] for i in rng.permutation(len(names))]
    rows = np.array([sizes[name] for name in shuffled], dtype=np.int64)
    middles = np.cumsum(rows) - rows / 2
    edges = np.cumsum([fractions[part] for part in used])[:-1] * len(groups)
    cuts = np.searchsorted(middles, edges).tolist()
    for i, cut in enumerate(cuts):
        # Every used part keeps at least one group, the parts still to come included.
        least = cuts[i - 1] + 1 if i else 1
        cuts[i] = min(max(cut, least), len(names) - (len(used) - 1 - i))
    starts = [0, *cuts, len(names)]
    part_of = {
        name: part for k, part in enumerate(used) for name in shuffled[starts[k] : starts[k + 1]]
    }
    return _gather(groups, part_of)


def assert_disjoint(fitted: Iterable[str], tested: Iterable[str], *, what: str = "group") -> None:
    """Requires that nothing that was fitted on is tested on.

    Args:
        fitted: Groups (or image hashes, or ids) of the rows used for fitting.
        tested: The same of the rows used for measuring.
        what: What the strings are, for the message.

    Raises:
        LeakageError: Something is on both sides.
    """
    both = sorted(set(fitted) & set(tested))
    if both:
        raise LeakageError(
            f"{len(both)} {what}(s) on both sides of a split, {both[0]!r} among them; fitted and "
            f"tested rows must share none. Split by {what}, or give a group column that joins them."
        )


def images_across_groups(examples: Sequence[Example]) -> int:
    """Number of image contents that occur in more than one group.

    Splits keep groups together, so such an image can be fitted on and tested on.
    """
    group_of: dict[str, str] = {}
    shared = set()
    for example in examples:
        for image in example.images:
            if group_of.setdefault(image.sha256, example.group) != example.group:
                shared.add(image.sha256)
    return len(shared)


def assert_no_leakage(examples: Sequence[Example], split: Split) -> None:
    """Requires that no row, group or image content occurs in two parts of a split.

    Images are compared by the hash of their bytes, so a copy under another name is found.

    Raises:
        LeakageError: A row, group or image occurs twice.
    """
    parts = (split.train, split.calibration, split.test)
    chosen = [[examples[i] for i in part] for part in parts]
    for one, other in combinations(chosen, 2):
        assert_disjoint((e.id for e in one), (e.id for e in other), what="row")
        assert_disjoint((e.group for e in one), (e.group for e in other))
        assert_disjoint(
            (ref.sha256 for e in one for ref in e.images),
            (ref.sha256 for e in other for ref in e.images),
            what="image",
        )


def _given_parts(groups: Sequence[str], given: Mapping[str, str]) -> dict[str, int]:
    present = sorted(set(groups))
    missing = [group for group in present if group not in given]
    if missing:
        raise DataError(
            f"The given split names no part for {len(missing)} of {len(present)} groups, "
            f"{missing[0]!r} among them; every group needs one. Add them to the split."
        )
    unknown = sorted({given[group] for group in present} - set(PARTS))
    if unknown:
        raise DataError(
            f"The given split names a part {unknown[0]!r}; one of {', '.join(PARTS)} is required. "
            "Rename it."
        )
    part_of = {group: PARTS.index(given[group]) for group in present}
    if PARTS.index("test") not in part_of.values():
        raise DataError(
            f"The given split puts none of {len(present)} groups into test; at least one is "
            "required. Name the groups to measure on."
        )
    return part_of


def _gather(groups: Sequence[str], part_of: Mapping[str, int]) -> Split:
    parts = np.array([part_of[group] for group in groups], dtype=np.int64)
    train, calibration, test = (np.flatnonzero(parts == k) for k in range(len(PARTS)))
    return Split(train, calibration, test)
