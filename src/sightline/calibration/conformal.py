"""Conformal prediction sets over options: sets that hold the right option at a stated rate.

Fitted on rows whose right option is known; the set of a new row, drawn like them, holds its right
option with probability at least ``level`` (on average over rows, not for every row). Rows of one
group are not exchangeable with the others: fit on one row per group.

Source:
    LAC: Sadinle et al. 2019. APS: Romano et al. 2020. RAPS: Angelopoulos et al. 2021. Ours draw
    nothing at random (equal rows get equal sets), and the likeliest option is in every set: both
    cover more than they must, by much where that option is often nearly certain (APS, RAPS).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.calibration.risk_control import error_bound
from sightline.core.errors import DataError, UsageError
from sightline.core.estimates import Estimate

Score = Literal["lac", "aps", "raps"]

PENALTY = 0.01
FREE = 1
"""Of RAPS, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class ConformalSets:
    """Fitted prediction sets.

    Attributes:
        score: ``lac``: 1 - p of the option; ``aps``: the mass of all options at least as likely;
            ``raps``: the same and ``penalty`` for each of those beyond ``free``.
        level: Share of sets that hold the right option.
        quantile: Largest score of an option in a set; None where the rows were too few for the
            level, so that every set holds all options.
        n: Rows it was fitted on.
        penalty: Of RAPS, at least 0.
        free: Of RAPS, at least 0.
    """

    score: Score
    level: float
    quantile: float | None
    n: int
    penalty: float = 0.0
    free: int = 0

    @property
    def coverage(self) -> Estimate:
        """How often these sets hold the right option, with its 95 % interval over fits like this.

        The level is a mean over draws of the rows fitted on. The coverage that one fit has follows
        a beta distribution whose spread only more rows narrow; it is higher where scores tie, and
        where the likeliest option is in the set although its own score is beyond the quantile.

        Source:
            Vovk 2012, Conditional validity of inductive conformal predictors.

        Example:
            >>> estimate = ConformalSets("lac", 0.9, 0.8, n=12).coverage
            >>> round(estimate.low, 3), round(estimate.high, 3)
            (0.735, 0.998)
        """
        rank = _rank(self.n, self.level)
        if self.quantile is None or rank > self.n:
            return Estimate(1.0, 1.0, 1.0, n=self.n)
        # Beta(rank, n + 1 - rank), whose quantiles are those of Clopper and Pearson.
        low = 1.0 - error_bound(self.n - rank, self.n, 0.025)
        high = error_bound(rank - 1, self.n, 0.025)
        return Estimate(rank / (self.n + 1), low, high, n=self.n)

    def sets(self, probabilities: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, "n c"]:
        """Which options are in each row's set, the likeliest (and its ties) among them.

        Raises:
            DataError: A row is no distribution over options.
        """
        scores = _scores(probabilities, self.score, self.penalty, self.free)
        if self.quantile is None:
            return np.ones(scores.shape, dtype=bool)
        top = probabilities == probabilities.max(axis=1, keepdims=True)
        return np.asarray((scores <= self.quantile) | top)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form; see `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> ConformalSets:
        """Rebuilds what `to_dict` wrote.

        Raises:
            ValueError: These are no settings of prediction sets.
        """
        found = cls(**settings)
        numbers = [found.level, found.penalty, found.free, found.n]
        numbers += [] if found.quantile is None else [found.quantile]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
            raise ValueError("settings of prediction sets that are no numbers")
        if found.n < 1 or found.score not in get_args(Score):
            raise ValueError(f"prediction sets of score {found.score!r} fitted on {found.n} rows")
        _check_settings(found.level, found.penalty, found.free)
        return found


def fit_conformal_sets(
    probabilities: Float[np.ndarray, "n c"],
    right: Int[np.ndarray, " n_right"],
    *,
    level: float = 0.9,
    score: Score = "aps",
    penalty: float = PENALTY,
    free: int = FREE,
) -> ConformalSets:
    """Fits prediction sets on independent rows.

    Args:
        probabilities: Of the options; rows sum to 1.
        right: Index of each row's right option.
        level: Share of sets that must hold the right option, in (0, 1).
        score: See `ConformalSets`.
        penalty: Of RAPS; ignored by the others.
        free: Of RAPS; ignored by the others.

    Raises:
        DataError: A row is no distribution, a right option does not exist, or there are no rows.
        UsageError: A level outside (0, 1), a negative penalty or a negative number of options.
    """
    _check_settings(level, penalty, free)
    own = right_scores(probabilities, right, score=score, penalty=penalty, free=free)
    return sets_from_scores(own, level=level, score=score, penalty=penalty, free=free)


def right_scores(
    probabilities: Float[np.ndarray, "n c"],
    right: Int[np.ndarray, " n_right"],
    *,
    score: Score,
    penalty: float = PENALTY,
    free: int = FREE,
) -> Float[np.ndarray, " n"]:
    """Score of each row's right option: all that `sets_from_scores` needs to know of a row.

    Raises:
        DataError: A row is no distribution, a right option does not exist, or there are no rows.
    """
    scores = _scores(probabilities, score, *_penalties(score, penalty, free))
    n, options = scores.shape
    if not n or len(right) != n or np.any((right < 0) | (right >= options)):
        raise DataError(
            f"{n} rows of {options} options with {len(right)} right options; an existing option "
            "for each of at least 1 row is required. Leave out rows without one."
        )
    return scores[np.arange(n), right]


def sets_from_scores(
    own: Float[np.ndarray, " n"],
    *,
    level: float,
    score: Score,
    penalty: float = PENALTY,
    free: int = FREE,
) -> ConformalSets:
    """Prediction sets from the scores of independent rows' right options; see `right_scores`."""
    _check_settings(level, penalty, free)
    rank, n = _rank(len(own), level), len(own)
    quantile = float(np.sort(own)[rank - 1]) if rank <= n else None
    return ConformalSets(score, level, quantile, n, *_penalties(score, penalty, free))


def fewest_rows(level: float) -> int:
    """Rows from which sets at this level need not hold all options."""
    return math.ceil(level / (1 - level) - 1e-9) if 0 < level < 1 else 1


def _penalties(score: Score, penalty: float, free: int) -> tuple[float, int]:
    return (penalty, free) if score == "raps" else (0.0, 0)


def _check_settings(level: float, penalty: float, free: int) -> None:
    if not 0 < level < 1 or penalty < 0 or free < 0:
        raise UsageError(
            f"Level {level:g}, penalty {penalty:g}, {free} free options; a level between 0 and 1 "
            "and no negative number are required. For example 0.9, 0.01 and 1."
        )


def _rank(n: int, level: float) -> int:
    """Place of the quantile among the n scores of right options, from 1; beyond n for none."""
    return math.ceil((n + 1) * level - 1e-9)


def _scores(
    probabilities: Float[np.ndarray, "n c"], score: Score, penalty: float, free: int
) -> Float[np.ndarray, "n c"]:
    """Score of every option, higher = less likely right; equal options score alike.

    Rounded, since the last bits of a probability depend on how many options it was normalised with.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not np.all(np.isfinite(p) & (p >= 0)) or np.any(np.abs(p.sum(axis=1) - 1) > 1e-6):
        raise DataError(
            "Options whose probabilities are not finite, negative or do not sum to 1; a "
            "distribution per row is required. Normalise them first."
        )
    if score == "lac":
        return np.round(1.0 - p, 12)
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    mass = np.cumsum(ranked, axis=1)
    last = _last_of_ties(ranked)
    inclusive = np.take_along_axis(mass, last, axis=1)
    inclusive += penalty * np.maximum(last + 1 - free, 0)
    out = np.empty_like(p)
    np.put_along_axis(out, order, np.round(inclusive, 12), axis=1)
    return out


def _last_of_ties(ranked: Float[np.ndarray, "n c"]) -> Int[np.ndarray, "n c"]:
    """Position of the last of the entries equal to each, in rows sorted in descending order."""
    n, options = ranked.shape
    last = np.full((n, options), options - 1)
    for at in range(options - 2, -1, -1):
        tied = ranked[:, at] == ranked[:, at + 1]
        last[:, at] = np.where(tied, last[:, at + 1], at)
    return last
