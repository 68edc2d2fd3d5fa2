"""Labels and margins from the scores of options.

A score is a log-probability in nats. Rows with fewer options than others are filled up with -inf,
which is never a label and never a runner-up. Margins: positive = the option wins, and by how much.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import DataError


def per_token(
    scores: Float[np.ndarray, "n c"], lengths: Int[np.ndarray, "n c"]
) -> Float[np.ndarray, "n c"]:
    """Mean log-probability per token, in place of the sum, which long options lose by.

    Args:
        scores: Sums over tokens; -inf where a row has no such option.
        lengths: Tokens summed over, at least 1 where there is an option.

    Raises:
        DataError: An option without tokens.
    """
    there = np.isfinite(scores)
    if np.any(lengths[there] < 1):
        raise DataError(
            f"{int((lengths[there] < 1).sum())} options have no tokens; at least 1 is required. "
            "Collect the run again with --options."
        )
    out: Float[np.ndarray, "n c"] = np.where(there, scores, 0.0) / np.maximum(lengths, 1)
    return np.where(there, out, -np.inf)


def labels(scores: Float[np.ndarray, "n c"]) -> Int[np.ndarray, " n"]:
    """The option with the highest score; the first of equals.

    Raises:
        DataError: A score is NaN or +inf, or a row has fewer than two options.

    Source:
        "Same Answer, Different Representations" (arXiv 2602.06652): the sum over the option's
        tokens with the end of the turn; means per token and letters are scored the same way here.
    """
    _require_options(scores)
    return np.asarray(scores.argmax(axis=1))


def margins(
    scores: Float[np.ndarray, "n c"], against: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Score of one option less the best of the others, in nats; higher = safer.

    Against the label of the clean picture it is negative exactly where the label has flipped (0 in
    a tie); against the true option, where the answer is wrong.

    Args:
        scores: Scores of all options.
        against: The option of each row whose margin is taken.

    Raises:
        DataError: As `labels`, or an option the row does not have.

    Source:
        arXiv 2602.06652, which takes it against the predicted label only.

    Example:
        >>> margins(np.array([[-1.0, -3.0, -2.5]]), np.array([0])).tolist()
        [1.5]
    """
    _require_options(scores)
    own = _of_option(scores, against)
    others = scores.copy()
    others[np.arange(len(scores)), against] = -np.inf
    return np.asarray(own - others.max(axis=1))


def score_change(
    clean: Float[np.ndarray, "n c"],
    perturbed: Float[np.ndarray, "n c"],
    base: Int[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Score of the clean label under the perturbation less that under the clean picture, in nats.

    Negative = the perturbation speaks against the answer, whether or not another option gained.

    Raises:
        DataError: As `margins`.
    """
    return np.asarray(_of_option(perturbed, base) - _of_option(clean, base))


def yes_margins(
    yes: Float[np.ndarray, " n"], no: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Score of yes less score of no, in nats; positive = the answer is yes.

    Raises:
        DataError: A score is not finite.
    """
    difference = yes - no
    if not np.isfinite(difference).all():
        raise DataError(
            f"{int((~np.isfinite(difference)).sum())} scores of yes and no are not finite; "
            "log-probabilities are required. Leave out rows that were not scored."
        )
    return np.asarray(difference)


class MarginsByFlip(NamedTuple):
    """Mean margin over an item's perturbed answers, apart for those that flip and those that stay.

    Attributes:
        flipped_items: Items with a flip, ascending.
        flipped: Their mean margin over flips.
        kept_items: Items with an answer that stays, ascending.
        kept: Their mean margin over those.
    """

    flipped_items: Int[np.ndarray, " f"]
    flipped: Float[np.ndarray, " f"]
    kept_items: Int[np.ndarray, " s"]
    kept: Float[np.ndarray, " s"]


def margins_by_flip(
    items: Int[np.ndarray, " n"], margin: Float[np.ndarray, " n"], flipped: Bool[np.ndarray, " n"]
) -> MarginsByFlip:
    """Averages margins within items, over flips and over answers that stay.

    Source:
        arXiv 2602.06652, for yes and no.
    """
    return MarginsByFlip(
        *item_means(items[flipped], margin[flipped]), *item_means(items[~flipped], margin[~flipped])
    )


def item_means(
    items: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " i"], Float[np.ndarray, " i"]]:
    """The items that occur, ascending, and the mean value of each."""
    order = np.lexsort((values, items))  # sums in one order, whatever that of the rows
    found, place = np.unique(items[order], return_inverse=True)
    return found, np.bincount(place, values[order]) / np.bincount(place)


def _require_options(scores: Float[np.ndarray, "n c"]) -> None:
    bad = np.isnan(scores) | np.isposinf(scores)
    few = np.isfinite(scores).sum(axis=1) < 2
    if bad.any() or few.any():
        row = int(np.flatnonzero(bad.any(axis=1) | few)[0])
        raise DataError(
            f"Row {row} has the scores {scores[row].tolist()}; two options or more with finite "
            "log-probabilities (and -inf for options it lacks) are required. Leave the row out."
        )


def _of_option(
    scores: Float[np.ndarray, "n c"], option: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    inside = (option >= 0) & (option < scores.shape[1])
    own = scores[np.arange(len(scores)), np.where(inside, option, 0)]
    missing = ~inside | ~np.isfinite(own)
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise DataError(
            f"Row {row} has no score for option {int(option[row])}; one of its own options is "
            "required. Leave out rows without one, such as those whose truth is not known."
        )
    return np.asarray(own)
