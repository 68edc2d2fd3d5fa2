"""What a trust policy says of one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sightline.core.features import Feature


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says of one answer.

    Attributes:
        answer: The greedy answer's text, as the model gave it: untrusted.
        uncertainty: Raw score of the estimator that settled the answer, higher = worse; None where
            no estimator of the policy could score it.
        confidence: Calibrated probability that the answer is right, in (0, 1); None likewise, and
            where the question has another number of pictures than the labelled ones.
        accepted: Whether the answer may be used under the policy's promise; else abstain.
        reason: Why, in one line.
        threshold: Least confidence that is accepted; None where none was certified.
        signals: Uncertainty by estimator, every one that was computed; of a fusion also its
            members.
        estimator: Name of the estimator that settled the answer; None where none could.
        prediction_set: Letters of the options, or names of the classes, that hold the right one
            at the policy's stated rate; None for a free answer, or where the policy has no sets.
        category: Whose threshold was used; None where the policy has one threshold for all.
        pending: Signals which a later stage of a cascade needs and the record does not show;
            observe these and decide again. Until then the answer is not accepted.
    """

    answer: str
    uncertainty: float | None
    confidence: float | None
    accepted: bool
    reason: str
    threshold: float | None
    signals: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    estimator: str | None = None
    prediction_set: tuple[str, ...] | None = None
    category: str | None = None
    pending: frozenset[Feature] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        sets = self.prediction_set
        return {
            "answer": self.answer,
            "confidence": self.confidence,
            "accepted": self.accepted,
            "reason": self.reason,
            "threshold": self.threshold,
            "uncertainty": self.uncertainty,
            "estimator": self.estimator,
            "signals": dict(self.signals),
            "prediction_set": None if sets is None else list(sets),
            "category": self.category,
            "pending": sorted(feature.value for feature in self.pending),
        }
