"""A confidence that another tool recorded with the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.signals import FREE, require


@dataclass(frozen=True, slots=True)
class RecordedConfidence:
    """One minus the confidence that was imported with the answer."""

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.RECORDED_CONFIDENCE})
    family: ClassVar[str] = "recorded"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = True

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − confidence; outside [0, 1] where no probability was recorded (a κ, a percentage).

        Such scores rank as they are; as probabilities they are not measured.
        """
        require(records, self.needs, self)
        return 1.0 - np.array(
            [float(record.array(Feature.RECORDED_CONFIDENCE)) for record in records],
            dtype=np.float64,
        )

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing here; what it cost the other tool is not known."""
        return FREE
