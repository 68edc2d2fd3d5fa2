"""Which frequencies an answer hangs on: filters until it flips, noise of one band.

Pictures are asked about through a function of the caller's, many at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.audit.frequency import NOISE_SIZES, Band, band_noise, high_pass, low_pass
from sightline.core.errors import DataError, UsageError

Pictures = Sequence[Float[np.ndarray, "h w c"]]
LabelOf = Callable[[Pictures, Int[np.ndarray, " m"]], Int[np.ndarray, " m"]]
"""Labels of pictures with values in [0, 1], given which rows they are made from."""

LOW_PASS_CUTOFFS = tuple(round(0.1 * i, 1) for i in range(10, 0, -1))
"""Ten even cut-offs from the whole picture down, as published."""

HIGH_PASS_CUTOFFS = tuple(round(0.1 * i, 1) for i in range(10))
"""Ten even cut-offs from the whole picture up."""

_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class FlipThresholds:
    """The mildest cut-off at which each row's label flips.

    Attributes:
        rows: Rows that flip at some cut-off, ascending.
        cutoffs: The first cut-off that flips them, from mild to strong.
        tried: Cut-offs from mild to strong.
        kept: For each of `tried`, the share of all rows that have not flipped by then.
        asked: Pictures that were asked about.
    """

    rows: Int[np.ndarray, " f"]
    cutoffs: Float[np.ndarray, " f"]
    tried: tuple[float, ...]
    kept: Float[np.ndarray, " tried"]
    asked: int


def flip_thresholds(
    images: Pictures,
    clean: Int[np.ndarray, " n"],
    label_of: LabelOf,
    *,
    filtering: Literal["low", "high"],
    cutoffs: Sequence[float] | None = None,
    batch: int = _BATCH,
) -> FlipThresholds:
    """Filters each picture ever more strongly until its label flips.

    The search goes from mild to strong and leaves a row at its first flip. It does not halve the
    range: labels may come back at stronger filters, and halving would then find another flip than
    the first.

    Args:
        images: Clean pictures, of any sizes.
        clean: Their labels.
        label_of: Labels of filtered pictures, which are clipped to [0, 1].
        filtering: ``low`` keeps low frequencies, ``high`` high ones and the mean colour.
        cutoffs: Radii from mild to strong: falling for ``low``, rising for ``high``. None = ten
            even ones.
        batch: Pictures asked about at once.

    Raises:
        UsageError: Cut-offs in another order, or outside [0, 1].
        DataError: ``label_of`` returns another number of labels than it was given pictures.

    Source:
        arXiv 2602.06652; whether its high pass keeps the mean colour is not known.
    """
    default = LOW_PASS_CUTOFFS if filtering == "low" else HIGH_PASS_CUTOFFS
    tried = tuple(default if cutoffs is None else cutoffs)
    steps = np.diff(tried) * (-1 if filtering == "low" else 1)
    if not tried or np.any(steps <= 0):
        raise UsageError(
            f"Cut-offs {list(tried)} of a {filtering} pass; they are required from mild to strong. "
            f"{'Falling' if filtering == 'low' else 'Rising'} numbers are."
        )
    keep = low_pass if filtering == "low" else high_pass
    first = np.full(len(images), -1)
    kept, asked = np.zeros(len(tried)), 0
    for step, cutoff in enumerate(tried):
        left = np.flatnonzero(first < 0)
        for rows in _batches(left, batch):
            found = _ask(label_of, [np.clip(keep(images[i], cutoff), 0, 1) for i in rows], rows)
            first[rows[found != clean[rows]]] = step
            asked += len(rows)
        kept[step] = np.mean(first < 0) if len(images) else 0.0
    rows = np.flatnonzero(first >= 0)
    return FlipThresholds(
        rows, np.asarray(tried, dtype=np.float64)[first[rows]], tried, kept, asked
    )


def noise_flips(
    images: Pictures,
    clean: Int[np.ndarray, " n"],
    label_of: LabelOf,
    *,
    keys: Int[np.ndarray, " n"],
    bands: Sequence[Band],
    sizes: Sequence[float] = NOISE_SIZES,
    trials: int = 5,
    norm: Literal["linf", "l2"] = "linf",
    seed: int = 0,
    batch: int = _BATCH,
) -> Bool[np.ndarray, "bands sizes trials n"]:
    """Whether each label flips under band-limited Gaussian noise.

    A trial's noise is the same at all sizes but for its strength, so sizes are compared on the same
    noise; it depends on the row's key, the band and the trial alone. Noisy pictures are clipped to
    [0, 1], which can carry some power out of the band.

    Args:
        images: Clean pictures, of any sizes.
        clean: Their labels.
        label_of: Labels of noisy pictures.
        keys: What identifies each row, at least 0.
        bands: Where the noise has its power.
        sizes: Its size in ``norm``.
        trials: Draws for each band.
        norm: ``linf`` or ``l2``, as for `band_noise`.
        seed: Of all draws.
        batch: Pictures asked about at once.

    Raises:
        UsageError: As `band_noise`.
        DataError: As `flip_thresholds`.

    Source:
        arXiv 2602.06652: five sizes, five trials.
    """
    flips = np.zeros((len(bands), len(sizes), trials, len(images)), dtype=bool)
    everyone = np.arange(len(images))
    for b, band in enumerate(bands):
        for trial in range(trials):
            for rows in _batches(everyone, batch):
                noise = [
                    band_noise(
                        images[i].shape,
                        band,
                        1.0,
                        norm=norm,
                        rng=np.random.default_rng([seed, int(keys[i]), b, trial]),
                    )
                    for i in rows
                ]
                for s, size in enumerate(sizes):
                    noisy = [
                        np.clip(images[i] + size * own, 0, 1)
                        for i, own in zip(rows, noise, strict=True)
                    ]
                    flips[b, s, trial, rows] = _ask(label_of, noisy, rows) != clean[rows]
    return flips


def _batches(rows: Int[np.ndarray, " m"], size: int) -> Iterator[Int[np.ndarray, " some"]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _ask(label_of: LabelOf, pictures: Pictures, rows: Int[np.ndarray, " m"]) -> np.ndarray:
    found = np.asarray(label_of(pictures, rows))
    if found.shape != rows.shape:
        raise DataError(
            f"The label function returned {found.shape} labels for {len(rows)} pictures; one each "
            "is required. Return them in the order of the pictures."
        )
    return found
