"""Rates, means and correlations with intervals that know which rows share an image.

Every figure of the audit is a function of sums over rows. The sums are kept by image; a resample
draws as many images as there are, with replacement, and weighs the sums. All figures of one
`Clusters` use the same resamples, so a difference between two of them is paired.

Axes: ``s`` sums, ``j`` jackknife parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.metrics.intervals import proportion, resampled_interval, student_tail
from sightline.metrics.ranked import ratio
from sightline.metrics.resampling import drawn, left_out

NO_ROWS = "no rows"
_BLOCK = 128

Statistic = Callable[[Float[np.ndarray, "b s"]], Float[np.ndarray, " b"]]
"""From sums, one row per resample, to the figure; NaN where it is not defined."""


class Ratio(NamedTuple):
    """A sum over rows divided by another.

    Attributes:
        images: Image of each row.
        over: Summed above the line.
        under: Summed below it.
    """

    images: Int[np.ndarray, " n"]
    over: Float[np.ndarray, " n"]
    under: Float[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Resamples of images, drawn once for all figures.

    Attributes:
        images: The images, ascending.
        weights: How often each image counts in each resample.
        parts: For each jackknife part, the images that stay.
        level: Coverage of the intervals.
    """

    images: Int[np.ndarray, " g"]
    weights: UInt[np.ndarray, "b g"]
    parts: Bool[np.ndarray, "j g"]
    level: float

    @staticmethod
    def of(
        images: Int[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
        n_resamples: int = 1000,
        level: float = 0.95,
    ) -> Clusters:
        """Draws the resamples of all images that occur.

        Args:
            images: Image of each row; rows that share a number are not independent.
            rng: Draws resamples and jackknife parts.
            n_resamples: How many resamples.
            level: Coverage of the intervals, in (0, 1).

        Raises:
            DataError: There are no rows.
        """
        ids = np.unique(images)
        if not len(ids):
            raise DataError("No rows to resample; at least one is required. Check the pairs.")
        blocks = drawn(len(ids), n_resamples, _BLOCK, rng)
        return Clusters(
            images=ids,
            weights=np.concatenate([block.astype(np.uint16) for block in blocks]),
            parts=np.concatenate(list(left_out(len(ids), _BLOCK, rng))) > 0,
            level=level,
        )

    def estimate(
        self,
        images: Int[np.ndarray, " n"],
        rows: Float[np.ndarray, "s n"],
        statistic: Statistic,
        *,
        n: int,
        undefined: str = NO_ROWS,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> Estimate:
        """A function of sums over rows, with its interval.

        Args:
            images: Image of each row.
            rows: What is summed.
            statistic: From sums to the figure.
            n: Rows the figure is measured on.
            undefined: Why the figure has no value where it has none, in words.
            bounds: Smallest and largest value; the interval ends there.

        Returns:
            BCa interval with tails widened for few images, as in
            `sightline.metrics.intervals.cluster_bootstrap`; none where the resamples all agree or
            more than a tenth of them leave the figure undefined.

        Raises:
            DataError: An image that was not drawn from, or a value that is not finite.
        """
        sums, present = self._sums(images, rows)
        value = float(statistic(sums.sum(axis=0)[None])[0])
        if np.isnan(value):
            return Estimate(None, n=n, reason=undefined)
        interval = resampled_interval(
            value,
            _blockwise(self.weights, sums, statistic),
            _blockwise(self.parts, sums, statistic),
            student_tail(self.level, present),
        )
        if interval is None:
            return Estimate(value, n=n)
        low, high = np.clip(interval, *bounds)
        return Estimate(value, float(low), float(high), n=n)

    def share(
        self,
        images: Int[np.ndarray, " n"],
        hits: Bool[np.ndarray, " n"],
        among: Bool[np.ndarray, " n"] | None = None,
        *,
        undefined: str = NO_ROWS,
    ) -> Estimate:
        """Share of rows that are hits, among some or all of them.

        Returns:
            Value in [0, 1]. Where resampling gives no interval, as with no hit at all, it is
            `sightline.metrics.intervals.proportion`'s (Wilson's, at the effective size); none of
            a single image, however many rows it has.
        """
        counted = np.ones(len(hits), dtype=bool) if among is None else among
        n = int(counted.sum())
        rows = Ratio(images, (hits & counted) * 1.0, counted * 1.0)
        found = self.ratio(rows, n=n, undefined=undefined, bounds=(0.0, 1.0))
        if found.value is None or found.low is not None or len(np.unique(images[counted])) < 2:
            return found
        return proportion(hits[counted].astype(np.float64), images[counted], level=self.level)

    def mean(
        self,
        images: Int[np.ndarray, " n"],
        values: Float[np.ndarray, " n"],
        among: Bool[np.ndarray, " n"] | None = None,
    ) -> Estimate:
        """Mean over rows, in the unit of the values."""
        counted = np.ones(len(values), dtype=bool) if among is None else among
        n = int(counted.sum())
        return self.ratio(Ratio(images, np.where(counted, values, 0.0), counted * 1.0), n=n)

    def ratio(
        self,
        rows: Ratio,
        *,
        n: int,
        undefined: str = NO_ROWS,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> Estimate:
        """A ratio of two sums, with its interval.

        Raises:
            DataError: As `estimate`.
        """
        both = np.stack([rows.over, rows.under])
        return self.estimate(rows.images, both, _quotient, n=n, undefined=undefined, bounds=bounds)

    def difference(self, first: Ratio, second: Ratio, *, undefined: str = NO_ROWS) -> Estimate:
        """First ratio less the second, on the same resamples: paired where images are shared.

        Returns:
            ``n`` is the rows of both that count below the line.

        Raises:
            DataError: As `estimate`.
        """
        none = np.zeros
        rows = np.stack(
            [
                np.concatenate([first.over, none(len(second.over))]),
                np.concatenate([first.under, none(len(second.under))]),
                np.concatenate([none(len(first.over)), second.over]),
                np.concatenate([none(len(first.under)), second.under]),
            ]
        )
        return self.estimate(
            np.concatenate([first.images, second.images]),
            rows,
            lambda sums: ratio(sums[:, 0], sums[:, 1]) - ratio(sums[:, 2], sums[:, 3]),
            n=int(np.count_nonzero(first.under) + np.count_nonzero(second.under)),
            undefined=undefined,
        )

    def correlation(
        self, images: Int[np.ndarray, " n"], x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> Estimate:
        """Pearson's correlation of two columns, in [-1, 1]."""
        if len(x) < 3 or not (np.ptp(x) > 0 and np.ptp(y) > 0):
            reason = "a correlation requires 3 rows and both columns to vary"
            return Estimate(None, n=len(x), reason=reason)
        x, y = _standard(x), _standard(y)
        rows = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
        return self.estimate(
            images,
            rows,
            _pearson,
            n=len(x),
            undefined="a column does not vary",
            bounds=(-1.0, 1.0),
        )

    def _sums(
        self, images: Int[np.ndarray, " n"], rows: Float[np.ndarray, "s n"]
    ) -> tuple[Float[np.ndarray, "g s"], int]:
        """Sums by image, independent of the order of rows, and how many images have rows."""
        place = np.minimum(np.searchsorted(self.images, images), len(self.images) - 1)
        if rows.shape[1] != len(images) or np.any(self.images[place] != images):
            raise DataError(
                f"{rows.shape[1]} rows on {len(np.unique(images))} images, of which "
                f"{int(np.isin(np.unique(images), self.images).sum())} were drawn from; one known "
                "image per row is required. Draw the clusters from all rows."
            )
        if not np.isfinite(rows).all():
            raise DataError(
                f"{int((~np.isfinite(rows)).any(axis=0).sum())} rows hold NaN or infinity; finite "
                "numbers are required. Leave out rows that were not observed."
            )
        order = np.lexsort((*rows, place))
        place, rows = place[order], rows[:, order]
        sums = np.zeros((len(self.images), len(rows)))
        for column, row in enumerate(rows):
            sums[:, column] = np.bincount(place, row, minlength=len(self.images))
        return sums, len(np.unique(place))


def _blockwise(
    weights: np.ndarray, sums: Float[np.ndarray, "g s"], statistic: Statistic
) -> Float[np.ndarray, " b"]:
    parts = [
        statistic(weights[start : start + _BLOCK].astype(np.float64) @ sums)
        for start in range(0, len(weights), _BLOCK)
    ]
    return np.concatenate(parts)


def _quotient(sums: Float[np.ndarray, "b 2"]) -> Float[np.ndarray, " b"]:
    return ratio(sums[:, 0], sums[:, 1])


def _standard(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Centred and scaled, so that squares neither overflow nor cancel."""
    scaled = (values - np.sort(values).mean()) / np.ptp(values)
    return np.asarray(scaled)


def _pearson(sums: Float[np.ndarray, "b 6"]) -> Float[np.ndarray, " b"]:
    n, x, y, xx, yy, xy = sums.T
    spread = np.maximum(n * xx - x * x, 0.0) * np.maximum(n * yy - y * y, 0.0)
    # Squares cancel to about 1e-16 of n²; less spread than that is none.
    spread = np.where(spread > 1e-28 * n**4, spread, 0.0)
    return np.clip(ratio(n * xy - x * y, np.sqrt(spread)), -1.0, 1.0)
