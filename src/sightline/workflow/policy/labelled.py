"""What a policy is fitted on: labelled answers in parts, and the sets asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration.conformal import Score
from sightline.core.types import Record
from sightline.data.splits import Split
from sightline.estimators.choice import Scores


@dataclass(frozen=True, slots=True)
class SetsTarget:
    """Prediction sets to fit beside the threshold.

    Attributes:
        scores: Which probabilities of the options count.
        kind: How an option's place is scored.
        level: Share of sets that must hold the right option.
    """

    scores: Scores = "options"
    kind: Score = "aps"
    level: float = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Answers with their correctness, and the parts they are used in.

    Attributes:
        records: Linked records with an answer.
        correct: 0 or 1 per record.
        groups: Rows that share a number are not independent.
        parts: Train for estimators that learn, calibration, and test for the thresholds.
    """

    records: tuple[Record, ...]
    correct: Float[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    parts: Split
