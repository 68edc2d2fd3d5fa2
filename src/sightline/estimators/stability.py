"""How far an answer holds when its picture changes: what `sightline audit` found of each answer.

The audit measures every perturbed version of an answer beside its clean one and stores the means;
perturbations that change the right answer, or may, do not count. Since these differ between
questions, a mean is held against what others show under the same perturbations
(`sightline.audit.comparable`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.agreement import cost_of_observed
from sightline.estimators.signals import require

Sign = Literal["flip_rate", "margin_loss", "drift_share", "delta_energy", "prior_index"]

_FEATURES: Mapping[Sign, Feature] = MappingProxyType(
    {
        "flip_rate": Feature.FLIP_RATE,
        "margin_loss": Feature.MARGIN_LOSS,
        "drift_share": Feature.DRIFT_SHARE,
        "delta_energy": Feature.DELTA_ENERGY,
        "prior_index": Feature.PRIOR_INDEX,
    }
)


@dataclass(frozen=True, slots=True)
class Instability:
    """How much an answer, or what the model holds of its picture, gives way to perturbations.

    Attributes:
        sign: What gives way. ``flip_rate``: the share of perturbed pictures that change the label;
            ``margin_loss``: the mean fall of the label's lead over the next, in nats;
            ``drift_share``: how far the model's state moves, as per cent of the distance between
            unrelated pictures; ``delta_energy``: how much rougher or smoother the grid of vision
            tokens becomes; ``prior_index``: how far the lead falls towards what it is without a
            picture. Each is a mean of an answer's perturbed pictures, every one held against the
            mean of all answers under its perturbation, plus the mean of all: answers are comparable
            though not the same perturbations count for them, and a share may be below 0 or above 1.

    Source: "Same Answer, Different Representations" (arXiv 2602.06652) for what is measured; that a
    single answer's values serve as its uncertainty is ours.
    """

    sign: Sign = "flip_rate"

    family: ClassVar[str] = "stability"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The one value of the audit that is read."""
        return frozenset({_FEATURES[self.sign]})

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """The audit's value of each answer: in shares, nats, per cent, or an index of the prior."""
        require(records, self.needs, self)
        feature = _FEATURES[self.sign]
        return np.array([float(record.array(feature)) for record in records], dtype=np.float64)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill per perturbed picture, and the answer to it."""
        return cost_of_observed([record.related.views for record in records])
