"""How far representations move: drift, its controls, and what it is worth beside them.

Drift is a distance between what a model holds of the clean and of the perturbed picture; higher =
moved further. By itself it has no scale, so it is held against *controls*: the same distance
between two rows that have nothing but the question, or the picture, in common.

Axes: ``p`` drift values of a control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.audit.labels import item_means
from sightline.audit.resampled import Clusters, Statistic
from sightline.core.errors import DataError, UndefinedMetricError
from sightline.core.estimates import Estimate
from sightline.metrics.ranked import ratio

_BLOCK = 1024
TOO_FEW_ITEMS = "fewer than 2 items with both a drift and a control"


def cosine_drift(
    clean: Float[np.ndarray, "*rows d"], perturbed: Float[np.ndarray, "*rows d"]
) -> Float[np.ndarray, " *rows"]:
    """1 - cosine of two representations, in [0, 2]; exactly 0 where they are equal.

    Half the squared distance of the unit vectors, which is the same number without the rounding
    that a cosine near 1 loses.

    Args:
        clean: Representations; leading axes (rows, layers) are kept.
        perturbed: The same rows under the perturbation.

    Raises:
        DataError: A representation is all zero, or not finite.

    Source:
        "Same Answer, Different Representations" (arXiv 2602.06652), last layer; any layer here.
    """
    difference = _unit(clean) - _unit(perturbed)
    return np.asarray(np.minimum(np.sum(difference**2, axis=-1) / 2, 2.0))


def l2_drift(
    clean: Float[np.ndarray, "*rows d"], perturbed: Float[np.ndarray, "*rows d"]
) -> Float[np.ndarray, " *rows"]:
    """Euclidean distance of two representations, in their own unit, at least 0.

    Raises:
        DataError: A representation is not finite.

    Source:
        arXiv 2602.06652.
    """
    difference = _finite(clean) - _finite(perturbed)
    return np.asarray(np.sqrt(np.sum(difference**2, axis=-1)))


def linear_cka(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"], *, debiased: bool = False
) -> float:
    """Similarity of two sets of representations of the same rows; higher = more alike.

    Unchanged by rotating or scaling either space. Computed from the products of the features or of
    the rows, whichever are fewer.

    Args:
        x: Representations of n rows.
        y: Representations of the same rows, of any width.
        debiased: Take out what few rows in a wide space have in common by chance; without it two
            unrelated sets of 50 rows of width 200 reach about 0.8.

    Returns:
        In [0, 1]; debiased at most 1, about 0 for unrelated sets and possibly below.

    Raises:
        UndefinedMetricError: Too few rows (2, debiased 4), or all rows of a set are alike.
        DataError: A representation is not finite.

    Source:
        Kornblith et al. 2019; Song et al. 2012 for the debiased form.
    """
    n, least = len(x), 4 if debiased else 2
    if n < least:
        raise UndefinedMetricError(f"{n} rows; linear CKA requires at least {least}")
    x, y = _scaled_columns(x), _scaled_columns(y)
    by_rows = n < max(x.shape[1], y.shape[1])
    xy, xx, yy = (_hsic(a, b, debiased, by_rows) for a, b in ((x, y), (x, x), (y, y)))
    if not (xx > 1e-12 and yy > 1e-12):
        raise UndefinedMetricError("all representations of a set are alike")
    value = xy / np.sqrt(xx * yy)
    return float(min(value, 1.0) if debiased else np.clip(value, 0.0, 1.0))


def _hsic(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"], debiased: bool, by_rows: bool
) -> float:
    """Dependence of two centred sets, up to a factor common to all sets of n rows."""
    n = len(x)
    product = float(np.sum((x @ x.T) * (y @ y.T)) if by_rows else np.sum((x.T @ y) ** 2))
    if not debiased:
        return product
    # Kernels without their diagonal: row sums of a centred kernel are 0, so only the diagonal acts.
    own_x, own_y = np.sum(x**2, axis=1), np.sum(y**2, axis=1)
    both = float(own_x @ own_y)
    total = float(own_x.sum() * own_y.sum())
    return (product - both + total / ((n - 1) * (n - 2)) - 2 * both / (n - 2)) / (n * (n - 3))


@dataclass(frozen=True, slots=True)
class DriftSummary:
    """Drift of some items beside a control.

    Attributes:
        drift: Mean over items of the item's mean drift.
        drift_sd: Standard deviation over items (ddof = 1); None below two items.
        control: Mean over items of the item's mean control.
        control_sd: Standard deviation over items.
        percent: 100 times drift over control: 100 = as far as unrelated rows lie apart.
        percent_sd: 100 times `drift_sd` over the mean control, as the paper prints it.
        cohens_d: Drift less control in pooled standard deviations; negative = drift is smaller.
        paired_d: Mean difference within items in standard deviations of the differences.
        rows: Drift values.
        pairs: Control values.
    """

    drift: Estimate
    drift_sd: float | None
    control: Estimate
    control_sd: float | None
    percent: Estimate
    percent_sd: float | None
    cohens_d: Estimate
    paired_d: Estimate
    rows: int
    pairs: int


@dataclass(frozen=True, slots=True, eq=False)
class ControlDrift:
    """What a control found.

    Attributes:
        items: Item each value belongs to.
        values: Drift between that item's representation and a partner's.
    """

    items: Int[np.ndarray, " p"]
    values: Float[np.ndarray, " p"]


def control_drift(
    states: Float[np.ndarray, "n d"],
    items: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " p"],
    partners: Int[np.ndarray, " p"],
    *,
    measure: Literal["cosine", "l2"] = "cosine",
) -> ControlDrift:
    """Drift between rows and their partners, with memory for a block of pairs at a time.

    Args:
        states: Clean representations of all rows.
        items: Item of each row.
        rows: Row numbers, as `sightline.audit.controls` draws them.
        partners: Row numbers of the partners.
        measure: ``cosine`` as `cosine_drift`, ``l2`` as `l2_drift`; the same numbers to the bit.

    Raises:
        DataError: As these.
    """
    points = _unit(states) if measure == "cosine" else _finite(states)
    squares = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        squares[part] = np.sum((points[rows[part]] - points[partners[part]]) ** 2, axis=-1)
    values = np.minimum(squares / 2, 2.0) if measure == "cosine" else np.sqrt(squares)
    return ControlDrift(items[rows], values)


def summarise_drift(
    images: Int[np.ndarray, " n"],
    items: Int[np.ndarray, " n"],
    drift: Float[np.ndarray, " n"],
    control: ControlDrift,
    clusters: Clusters,
    *,
    among: Bool[np.ndarray, " n"] | None = None,
) -> DriftSummary:
    """Drift as per cent of a control, with effect sizes and intervals over images.

    Values are averaged within items first, as the paper does, so that an item with many
    perturbations or partners counts once. Only items with both a drift and a control count.

    Args:
        images: Image of each drift value.
        items: Item of each drift value.
        drift: Drift of each perturbed row.
        control: Drift to the partners.
        clusters: Resamples of the images.
        among: Rows that count, such as those whose label did not change; None for all.

    Returns:
        Figures without a value where fewer than two items have both.

    Raises:
        DataError: An item on two images, or an image the clusters were not drawn from.

    Source:
        arXiv 2602.06652, whose control is `other_items` alone and whose drift is never restricted
        to unchanged answers; Cohen's d with pooled ddof = 1 variance as in its code, the paired
        form is ours.
    """
    used = np.ones(len(items), dtype=bool) if among is None else among
    own, means = item_means(items[used], drift[used])
    others, control_means = item_means(control.items, control.values)
    shared, at_own, at_other = np.intersect1d(own, others, return_indices=True)
    x, y = means[at_own], control_means[at_other]
    image = _image_of(shared, images[used], items[used])
    rows = int(np.isin(items[used], shared).sum())
    pairs = int(np.isin(control.items, shared).sum())
    if len(shared) < 2:
        none = Estimate(None, n=len(shared), reason=TOO_FEW_ITEMS)
        return DriftSummary(none, None, none, None, none, None, none, none, rows, pairs)
    # Scaled by the control so that squares keep their digits, whatever the unit.
    unit = float(max(np.abs(x).max(), np.abs(y).max())) or 1.0
    u, v = x / unit, y / unit
    moments = np.stack([np.ones(len(u)), u, v, u * u, v * v, (u - v) ** 2])
    sd_x, sd_y = float(np.std(x, ddof=1)), float(np.std(y, ddof=1))
    control_mean = clusters.mean(image, y)
    above_zero = bool(control_mean.value)

    def figure(statistic: Statistic, undefined: str) -> Estimate:
        return clusters.estimate(image, moments, statistic, n=len(u), undefined=undefined)

    return DriftSummary(
        drift=clusters.mean(image, x),
        drift_sd=sd_x,
        control=control_mean,
        control_sd=sd_y,
        percent=figure(_percent, "the control does not move"),
        percent_sd=100 * sd_x / float(np.mean(y)) if above_zero else None,
        cohens_d=figure(_cohens_d, "neither drift nor control varies"),
        paired_d=figure(_paired_d, "the differences do not vary"),
        rows=rows,
        pairs=pairs,
    )


def _percent(sums: Float[np.ndarray, "b 6"]) -> Float[np.ndarray, " b"]:
    return 100 * ratio(sums[:, 1], sums[:, 2])


def _cohens_d(sums: Float[np.ndarray, "b 6"]) -> Float[np.ndarray, " b"]:
    n, x, y, xx, yy, _ = sums.T
    spread = (xx - ratio(x * x, n)) + (yy - ratio(y * y, n))
    return _standardised((x - y) / np.maximum(n, 1), ratio(spread, 2 * (n - 1)))


def _paired_d(sums: Float[np.ndarray, "b 6"]) -> Float[np.ndarray, " b"]:
    n, x, y, _, _, squares = sums.T
    mean = (x - y) / np.maximum(n, 1)
    return _standardised(mean, ratio(squares - n * mean**2, n - 1))


def _standardised(
    mean: Float[np.ndarray, " b"], variance: Float[np.ndarray, " b"]
) -> Float[np.ndarray, " b"]:
    # Squares cancel to about 1e-16 of the largest value; less spread than that is none.
    return np.asarray(mean / np.sqrt(np.where(variance > 1e-14, variance, np.nan)))


@dataclass(frozen=True, slots=True, eq=False)
class MovedFar:
    """Rows whose representation moved as far as the control's do.

    Attributes:
        threshold: Drift above which a row is flagged; None where there are too few controls.
        flags: Whether each row is flagged; False for rows that do not count.
        n_control: Control values the threshold was read off.
        rule: The rule in words.
    """

    threshold: float | None
    flags: Bool[np.ndarray, " n"]
    n_control: int
    rule: str


def moved_far(
    drift: Float[np.ndarray, " n"],
    control: Float[np.ndarray, " p"],
    *,
    among: Bool[np.ndarray, " n"] | None = None,
    quantile: float = 0.05,
) -> MovedFar:
    """Flags rows that moved as far as an unrelated picture lies away.

    A row is flagged where its drift is greater than the ``quantile`` of the control's single values
    (linear between the two nearest): at 0.05, further than the nearest twentieth of unrelated
    pictures under the same question. That takes 1 / quantile control values; with fewer nothing is
    flagged, and the rule says so.

    Args:
        drift: Drift of each row.
        control: Drift of `other_images`, not averaged within items.
        among: Rows that can be flagged, those whose label did not change; None for all.
        quantile: In (0, 1).

    Raises:
        DataError: The quantile is not in (0, 1).

    Source:
        Our reading of "moves to where unrelated images live" in arXiv 2602.06652, which gives no
        rule.
    """
    if not 0 < quantile < 1:
        raise DataError(f"quantile is {quantile}; a number between 0 and 1 is required. Use 0.05.")
    used = np.ones(len(drift), dtype=bool) if among is None else among
    least = int(np.ceil(round(1 / quantile, 9)))
    if len(control) < least:
        rule = (
            f"not decided: {len(control)} control values, and the {quantile:g} quantile requires "
            f"{least}"
        )
        return MovedFar(None, np.zeros(len(drift), dtype=bool), len(control), rule)
    threshold = float(np.quantile(control, quantile))
    rule = (
        f"drift above {threshold:.4g}, the {quantile:g} quantile of {len(control)} control values"
    )
    return MovedFar(threshold, (drift > threshold) & used, len(control), rule)


def _unit(vectors: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows d"]:
    values = _finite(vectors)
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    if np.any(largest == 0):
        raise DataError(
            f"{int((largest == 0).sum())} representations are all zero; a direction is required "
            "for cosine drift. Leave them out, or take the Euclidean drift."
        )
    values = values / largest  # neither overflow nor underflow when squared
    return np.asarray(values / np.sqrt(np.sum(values**2, axis=-1, keepdims=True)))


def _finite(vectors: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows d"]:
    values = np.asarray(vectors, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(
            f"{int((~np.isfinite(values)).any(axis=-1).sum())} representations hold NaN or "
            "infinity; finite ones are required. Collect them again with another dtype."
        )
    return values


def _scaled_columns(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Centred, in units of the largest deviation; all zero where there is none."""
    values = _finite(vectors)
    size = float(np.abs(values).max(initial=0.0))
    values = values - values.mean(axis=0)
    largest = float(np.abs(values).max(initial=0.0))
    if largest <= 1e-12 * size:
        return np.zeros_like(values)
    return np.asarray(values / largest)


def _image_of(
    wanted: Int[np.ndarray, " i"], images: Int[np.ndarray, " n"], items: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " i"]:
    """The image of each wanted item."""
    order = np.argsort(items, kind="stable")
    ordered = items[order]
    start, stop = (np.searchsorted(ordered, wanted, side=side) for side in ("left", "right"))
    low, high = images[order][start], images[order][stop - 1]
    counts = np.unique(np.stack([items, images]), axis=1).shape[1]
    if np.any(low != high) or counts != len(np.unique(items)):
        raise DataError(
            "An item lies on several images; one image per item is required. Number the items by "
            "question and picture."
        )
    return np.asarray(low)
