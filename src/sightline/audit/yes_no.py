"""Yes-or-no questions about objects (POPE): how right, and how ready to say yes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.audit.resampled import Clusters
from sightline.core.estimates import Estimate
from sightline.metrics.ranked import ratio


@dataclass(frozen=True, slots=True)
class YesNoRates:
    """Figures of yes-or-no answers; positive = yes. All in [0, 1].

    Attributes:
        accuracy: Share right.
        precision: Of the answers yes, the share that is right.
        recall: Of the questions whose truth is yes, the share answered so.
        f1: Harmonic mean of precision and recall.
        false_positive_rate: Of the questions whose truth is no, the share answered yes: objects
            that are not there.
        yes_rate: Share answered yes.
    """

    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    false_positive_rate: Estimate
    yes_rate: Estimate


def yes_no_rates(
    images: Int[np.ndarray, " n"],
    says_yes: Bool[np.ndarray, " n"],
    is_yes: Bool[np.ndarray, " n"],
    clusters: Clusters,
) -> YesNoRates:
    """Measures yes-or-no answers, with intervals over images.

    Args:
        images: Image of each answer.
        says_yes: Whether the answer is yes.
        is_yes: Whether yes is right.
        clusters: Resamples of the images.

    Raises:
        DataError: An image the clusters were not drawn from.

    Source:
        Li et al. 2023 (POPE); arXiv 2602.06652 adds the false-positive rate.
    """
    hit = says_yes & is_yes
    rows = np.stack([hit, says_yes, is_yes]).astype(np.float64)
    return YesNoRates(
        accuracy=clusters.share(images, says_yes == is_yes),
        precision=clusters.share(images, hit, says_yes, undefined="no answer is yes"),
        recall=clusters.share(images, hit, is_yes, undefined="no right answer is yes"),
        f1=clusters.estimate(
            images,
            rows,
            _f1,
            n=len(images),
            undefined="no answer and no right answer is yes",
            bounds=(0.0, 1.0),
        ),
        false_positive_rate=clusters.share(
            images, says_yes, ~is_yes, undefined="no right answer is no"
        ),
        yes_rate=clusters.share(images, says_yes),
    )


@dataclass(frozen=True, slots=True)
class YesNoFlips:
    """Share of answers that flip, by what was said and what is right.

    Attributes:
        hit: Of clean answers yes where yes is right: objects lost.
        false_alarm: Of clean answers yes where no is right: hallucinations given up.
        miss: Of clean answers no where yes is right: objects found.
        rejection: Of clean answers no where no is right: hallucinations gained.
    """

    hit: Estimate
    false_alarm: Estimate
    miss: Estimate
    rejection: Estimate


def yes_no_flips(
    images: Int[np.ndarray, " n"],
    said_yes: Bool[np.ndarray, " n"],
    says_yes: Bool[np.ndarray, " n"],
    is_yes: Bool[np.ndarray, " n"],
    clusters: Clusters,
) -> YesNoFlips:
    """Flip rates of pairs, by the clean answer and the truth.

    Args:
        images: Image of each pair.
        said_yes: Whether the clean answer is yes.
        says_yes: Whether the perturbed answer is yes.
        is_yes: Whether yes is right.
        clusters: Resamples of the images.

    Raises:
        DataError: An image the clusters were not drawn from.
    """
    flipped = said_yes != says_yes

    def among(rows: Bool[np.ndarray, " n"]) -> Estimate:
        return clusters.share(images, flipped, rows, undefined="no such clean answer")

    return YesNoFlips(
        hit=among(said_yes & is_yes),
        false_alarm=among(said_yes & ~is_yes),
        miss=among(~said_yes & is_yes),
        rejection=among(~said_yes & ~is_yes),
    )


def _f1(sums: Float[np.ndarray, "b 3"]) -> Float[np.ndarray, " b"]:
    return ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])
