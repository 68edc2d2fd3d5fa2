"""The language prior: what is answered without the picture, and how far an answer falls towards it.

Margins are those of the clean label (`sightline.audit.labels.margins`), in nats, under the clean,
the perturbed and the blank picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.audit.resampled import Clusters, Ratio
from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.core.results import Skipped

SMALLEST_PULL = 0.1
"""Nats that the picture must be worth for the index to mean anything."""


@dataclass(frozen=True, slots=True, eq=False)
class PriorIndex:
    """Drift-to-prior of the rows that have one.

    Attributes:
        rows: Row numbers, ascending.
        values: In [-1, 2]: 0 = the clean picture's margin, 1 = the blank picture's, below 0 = the
            perturbation helps the answer, above 1 = it falls beyond the prior.
        excluded: Rows without an index, by reason.
    """

    rows: Int[np.ndarray, " r"]
    values: Float[np.ndarray, " r"]
    excluded: tuple[Skipped, ...]


def drift_to_prior(
    clean: Float[np.ndarray, " n"],
    perturbed: Float[np.ndarray, " n"],
    blank: Float[np.ndarray, " n"],
    *,
    smallest: float = SMALLEST_PULL,
) -> PriorIndex:
    """How far a margin falls from the clean picture's towards the blank picture's.

    (clean - perturbed) / (clean - blank), cut to [-1, 2].

    Args:
        clean: Margin of the clean label under the clean picture, in nats.
        perturbed: Margin of the same label under the perturbed picture.
        blank: Margin of the same label under the blank picture.
        smallest: Rows whose picture is worth no more than this have no index.

    Raises:
        DataError: A margin is not finite.

    Source:
        "Same Answer, Different Representations" (arXiv 2602.06652) names the index; the formula is
        ours.

    Example:
        >>> drift_to_prior(np.array([4.0]), np.array([3.0]), np.array([2.0])).values.tolist()
        [0.5]
    """
    margins = np.stack([clean, perturbed, blank])
    if not np.isfinite(margins).all():
        raise DataError(
            f"{int((~np.isfinite(margins)).any(axis=0).sum())} rows have a margin that is not "
            "finite; finite margins are required. Leave out rows that were not scored."
        )
    pull = clean - blank
    there = np.abs(pull) > smallest
    rows = np.flatnonzero(there)
    values = np.clip((clean - perturbed)[rows] / pull[rows], -1.0, 2.0)
    missing = int((~there).sum())
    reason = f"the picture moves the margin by no more than {smallest:g} nats"
    return PriorIndex(rows, values, (Skipped(reason, missing),) if missing else ())


@dataclass(frozen=True, slots=True)
class LanguagePrior:
    """What a model answers without the picture, one row per item.

    Attributes:
        unchanged: Share of items with the same label under the blank picture.
        unchanged_right: The same among items answered rightly with the picture.
        unchanged_wrong: The same among those answered wrongly.
        accuracy: Share right with the picture.
        accuracy_blank: Share right without it.
        accuracy_gain: The first less the second, on the same resamples.
        margin: Mean margin of the clean label under the clean picture, in nats.
        margin_blank: Mean margin of the same label under the blank picture; above 0 = the prior
            alone would give the answer.
    """

    unchanged: Estimate
    unchanged_right: Estimate
    unchanged_wrong: Estimate
    accuracy: Estimate
    accuracy_blank: Estimate
    accuracy_gain: Estimate
    margin: Estimate
    margin_blank: Estimate


def language_prior(
    images: Int[np.ndarray, " i"],
    label: Int[np.ndarray, " i"],
    blank_label: Int[np.ndarray, " i"],
    margin: Float[np.ndarray, " i"],
    blank_margin: Float[np.ndarray, " i"],
    truth: Int[np.ndarray, " i"],
    clusters: Clusters,
) -> LanguagePrior:
    """Compares the answers with and without the picture, with intervals over images.

    Args:
        images: Image of each item.
        label: Label under the clean picture.
        blank_label: Label under the blank one.
        margin: Margin of the clean label under the clean picture, in nats.
        blank_margin: Margin of the same label under the blank one.
        truth: The right label, or -1 where it is not known.
        clusters: Resamples of the images.

    Raises:
        DataError: A margin is not finite, or an image the clusters were not drawn from.

    Source:
        arXiv 2602.06652 keeps blank label and margin; the shares are ours.
    """
    known, same = truth >= 0, label == blank_label
    right, right_blank = known & (label == truth), known & (blank_label == truth)
    no_truth = "no item has a known right answer"
    graded = known * 1.0
    return LanguagePrior(
        unchanged=clusters.share(images, same),
        unchanged_right=clusters.share(images, same, right, undefined="no answer is right"),
        unchanged_wrong=clusters.share(
            images, same, known & ~right, undefined="no answer is wrong"
        ),
        accuracy=clusters.share(images, right, known, undefined=no_truth),
        accuracy_blank=clusters.share(images, right_blank, known, undefined=no_truth),
        accuracy_gain=clusters.ratio(
            Ratio(images, right * 1.0 - right_blank, graded), n=int(known.sum()), undefined=no_truth
        ),
        margin=clusters.mean(images, margin),
        margin_blank=clusters.mean(images, blank_margin),
    )
