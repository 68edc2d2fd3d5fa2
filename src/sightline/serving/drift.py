"""Watching calibration while outcomes come in, with a test that may be read at any moment.

If confidences are calibrated, an outcome minus its confidence is a fair bet. A bettor who never
stakes more than it has multiplies its wealth by 1 + λ (outcome − confidence); under calibration
the wealth is a martingale, so by Ville's inequality it ever reaches 1/α with probability at most α,
however often it is looked at. Several bettors share the first unit of wealth: stakes of both signs
and four sizes, on every answer alike or by how far its confidence is from one half (an answer said
to be surely right that is wrong, one said to be surely wrong that is right). Each begins anew at
every outcome t with a share 1 / (t (t + 1)) of its wealth, so that a drift after a long quiet time
is seen too; the wealth stays a martingale.

Source: Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", 2024
(capital processes); Shin, Ramdas & Rinaldo, "E-detectors", 2023 (mixing over starting times; ours
weights them so that the sum stays an e-process). Ours bets on calibration at fixed stakes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

ALPHA = 0.01
"""Chance that calibrated confidences ever raise the alarm."""

_SIZES = (0.05, 0.1, 0.25, 0.5)
_STAKES = np.array([(sign * size, by) for by in (0, 1) for sign in (1, -1) for size in _SIZES])


@dataclass(slots=True, eq=False)
class CalibrationWatch:
    """Evidence against calibration, outcome by outcome.

    Attributes:
        alpha: Chance of a false alarm over the whole time.
        n: Outcomes seen.
        peak: Largest evidence so far; 1/alpha or more raises the alarm, which stays.
        alarmed_at: Number of the outcome that raised it, or None.
    """

    alpha: float = ALPHA
    n: int = 0
    peak: float = 1.0
    alarmed_at: int | None = None
    _outcomes: float = 0.0
    _confidences: float = 0.0
    _wealth: np.ndarray = field(default_factory=lambda: np.zeros(len(_STAKES)))
    _reserve: float = 1.0

    def add(self, confidence: float, correct: float) -> None:
        """Takes one outcome in, in the order in which outcomes become known.

        Args:
            confidence: In [0, 1], as it was stated before the outcome was known.
            correct: In [0, 1].
        """
        self.n += 1
        self._outcomes += correct
        self._confidences += confidence
        tilt = np.where(_STAKES[:, 1] == 0, 1.0, 2 * confidence - 1)
        entering = self._reserve - 1 / (self.n + 1)
        self._reserve = 1 / (self.n + 1)
        self._wealth = (self._wealth + entering) * (
            1 + _STAKES[:, 0] * tilt * (correct - confidence)
        )
        self.peak = max(self.peak, self.evidence)
        if self.alarmed_at is None and self.peak >= 1 / self.alpha:
            self.alarmed_at = self.n

    @property
    def evidence(self) -> float:
        """The e-value now: mean wealth of the bettors, 1 at the start."""
        return float(self._wealth.mean()) + self._reserve

    @property
    def recalibrate(self) -> bool:
        """Whether the alarm was raised."""
        return self.alarmed_at is not None

    def to_dict(self) -> dict[str, Any]:
        """The state in numbers and in one sentence."""
        return {
            "n": self.n,
            "mean_confidence": self._confidences / self.n if self.n else None,
            "share_correct": self._outcomes / self.n if self.n else None,
            "e_value": self.evidence,
            "largest_e_value": self.peak,
            "alarm_at": 1 / self.alpha,
            "alarmed_at_outcome": self.alarmed_at,
            "recalibrate": self.recalibrate,
            "reading": self._reading(),
        }

    def _reading(self) -> str:
        if not self.n:
            return "No outcome yet."
        if not self.recalibrate:
            outcomes = "1 outcome" if self.n == 1 else f"{self.n} outcomes"
            return f"No drift shown by {outcomes}: evidence {self.peak:.3g} of {1 / self.alpha:g}."
        stake, by = _STAKES[int(self._wealth.argmax())]
        if by:
            found = (
                "confidences lie too far from one half"
                if stake < 0
                else "confidences lie too near to one half"
            )
        else:
            found = "answers are right " + ("more" if stake > 0 else "less") + " often than stated"
        return f"Recalibrate: {found} (since outcome {self.alarmed_at} beyond doubt)."
