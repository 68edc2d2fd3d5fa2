"""What answers show under unlike conditions, made comparable with one another.

Which conditions count for an answer depends on its question: harsh ones on "Is there a dog?", mild
ones on "What animal is this?". Plain means over an answer's own conditions would say that the first
kind of question is the less stable one, whatever the model does.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from sightline.audit.labels import item_means


def comparable_means(
    items: Int[np.ndarray, " n"],
    conditions: Shaped[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " i"], Float[np.ndarray, " i"]]:
    """Mean of each item's values, each held against the mean of its condition.

    The mean over the item's pairs of (value - mean of the condition over all pairs), plus the mean
    of all pairs: unit and direction are those of the values, and equal answers are equal whichever
    conditions they were seen under. Where every item has every condition this is its plain mean up
    to rounding; items with the same conditions always differ as their plain means do. Elsewhere the
    values may leave the range of single ones: a share may be below 0 or above 1.

    It corrects for the conditions, not for the company: a condition that is seen only of answers
    less stable than others compares these among themselves, so that differences between kinds of
    questions come out too small rather than too large.

    Args:
        items: Item of each pair.
        conditions: Condition of each pair, by name or number.
        values: What was measured of the pair.

    Returns:
        The items, ascending, and their values.

    Source:
        Ours: direct standardisation by condition.

    Example:
        >>> items, conditions = np.array([0, 0, 1]), np.array(["mild", "harsh", "mild"])
        >>> comparable_means(items, conditions, np.array([0.0, 1.0, 0.0]))[1].round(4)
        array([0.3333, 0.3333])
    """
    codes = np.unique(conditions, return_inverse=True)[1].reshape(-1).astype(np.int64)
    _, expected = item_means(codes, values)
    found, own = item_means(items, values)
    _, usual = item_means(items, expected[codes])
    # Sums in one order, whatever that of the rows.
    overall = float(np.sort(values).mean()) if len(values) else 0.0
    return found, own + (overall - usual)
