"""Partners of a row: other items, other pictures, other wordings, drawn so that order never shows.

How far apart do two representations lie that have nothing in common? The answer depends on what
they differ in, so there are three controls. A partner is never of the row's own group.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from sightline.core.errors import DataError

PARTNERS = 25
"""Partners drawn for each row, as in the paper's logged run."""


class Partners(NamedTuple):
    """Rows beside the rows they are compared with.

    Attributes:
        rows: Row numbers, ascending; a row occurs once for each of its partners.
        partners: Row number of the partner.
        alone: Rows without any partner, ascending.
    """

    rows: Int[np.ndarray, " p"]
    partners: Int[np.ndarray, " p"]
    alone: Int[np.ndarray, " a"]


def other_items(
    keys: Shaped[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    *,
    k: int = PARTNERS,
    seed: int = 0,
) -> Partners:
    """Draws rows of other groups: another picture under another question.

    The paper's only control. Since the question differs too, it lies far away, and per cents of it
    come out small; see `other_images`.

    Args:
        keys: What identifies each row, unique; the draw depends on keys, not on the order of rows.
        groups: Rows that share a number are related and never partners.
        k: Partners of each row; all where there are fewer.
        seed: Of the draw.

    Raises:
        DataError: Keys repeat, or k is below 1.
    """
    everywhere = np.zeros(len(groups), dtype=np.int64)
    return draw_partners(keys, everywhere, groups, k=k, seed=seed)


def other_images(
    keys: Shaped[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    questions: Int[np.ndarray, " n"],
    *,
    k: int = PARTNERS,
    seed: int = 0,
) -> Partners:
    """Draws rows of other groups with the same question (and options): only the picture differs.

    Args:
        keys: As for `other_items`.
        groups: As for `other_items`.
        questions: Rows that share a number have the same prompt, word for word.
        k: Partners of each row; all where there are fewer, none where the question is asked once.
        seed: Of the draw.

    Raises:
        DataError: As for `other_items`.
    """
    return draw_partners(keys, questions, groups, k=k, seed=seed)


def paraphrases(
    keys: Shaped[np.ndarray, " n"],
    items: Int[np.ndarray, " n"],
    wordings: Int[np.ndarray, " n"],
    *,
    k: int = PARTNERS,
    seed: int = 0,
) -> Partners:
    """Draws rows of the same item in another wording: only the words differ.

    Args:
        keys: As for `other_items`.
        items: Rows that share a number ask the same thing about the same picture.
        wordings: Which wording each row has.
        k: Partners of each row; all where there are fewer.
        seed: Of the draw.

    Raises:
        DataError: As for `other_items`.
    """
    return draw_partners(keys, items, wordings, k=k, seed=seed)


def draw_partners(
    keys: Shaped[np.ndarray, " n"],
    alike: Int[np.ndarray, " n"],
    apart: Int[np.ndarray, " n"],
    *,
    k: int,
    seed: int,
) -> Partners:
    """Draws, for each row, distinct rows that share one number with it and differ in another.

    Args:
        keys: What identifies each row, unique.
        alike: A partner has the same number here.
        apart: A partner has another number here.
        k: Partners of each row; all possible ones where there are fewer.
        seed: Of the draw.

    Raises:
        DataError: Keys repeat, or k is below 1.

    Source:
        Floyd's sampling without replacement (Bentley and Floyd 1987), for all rows at once.
    """
    n = len(keys)
    if k < 1:
        raise DataError(f"k is {k} partners; at least 1 is required. Use {PARTNERS}.")
    if len(np.unique(keys)) < n:
        raise DataError(
            f"{n} rows with {len(np.unique(keys))} different keys; unique ones are required. Draw "
            "partners among the rows of one condition."
        )
    order = np.lexsort((keys, apart, alike))
    of_block = _runs(alike[order])
    of_own = _runs(np.stack([alike[order], apart[order]]))
    size_block = np.bincount(of_block)[of_block] if n else of_block
    size_own = np.bincount(of_own)[of_own] if n else of_own
    start_block = np.searchsorted(of_block, of_block)
    start_own = np.searchsorted(of_own, of_own)
    possible = size_block - size_own
    place = _distinct(possible, k, np.random.default_rng(seed))
    # Places count the block without the row's own run, which is stepped over.
    place += (start_block[:, None] + place >= start_own[:, None]) * size_own[:, None]
    drawn = np.arange(min(k, int(possible.max(initial=0)))) < possible[:, None]
    partner = order[np.where(drawn, start_block[:, None] + place, 0)] if n else place
    rows = np.broadcast_to(order[:, None], drawn.shape)[drawn]
    partners = partner[drawn]
    by_row = np.lexsort((partners, rows))
    return Partners(rows[by_row], partners[by_row], np.sort(order[possible == 0]))


def _runs(values: Int[np.ndarray, "*columns n"]) -> Int[np.ndarray, " n"]:
    """Number of the run of equal values that each place of a sorted array lies in."""
    rows = np.atleast_2d(values)
    if not rows.shape[1]:
        return np.zeros(0, dtype=np.int64)
    new = np.any(rows[:, 1:] != rows[:, :-1], axis=0)
    return np.concatenate([[0], np.cumsum(new)]).astype(np.int64)


def _distinct(
    possible: Int[np.ndarray, " n"], k: int, rng: np.random.Generator
) -> Int[np.ndarray, "n k"]:
    """Distinct places below ``possible``, k or as many as there are; 0 fills up the row."""
    width = min(k, int(possible.max(initial=0)))
    chosen = np.full((len(possible), width), -1, dtype=np.int64)
    for step in range(width):
        # Of a row with m <= k places, all are drawn: its last place is m - 1.
        last = np.where(possible > width, possible - width, 0) + step
        pick = np.floor(rng.random(len(possible)) * (last + 1)).astype(np.int64)
        taken = (chosen == pick[:, None]).any(axis=1)
        chosen[:, step] = np.where(taken, last, pick)
    return np.where(np.arange(width) < possible[:, None], chosen, 0)
