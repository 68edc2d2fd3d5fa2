"""A confidence that another tool recorded with the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sightline.core.errors import DataError
from sightline.core.protocols import Cost
from sightline.core.types import Feature, Record
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
        """1 − confidence, in [0, 1].

        Raises:
            DataError: A recorded confidence is not a probability.
        """
        require(records, self.needs, self)
        values = np.array(
            [float(record.array(Feature.RECORDED_CONFIDENCE)) for record in records],
            dtype=np.float64,
        )
        outside = np.flatnonzero((values < 0) | (values > 1))
        if outside.size:
            at = outside[0]
            raise DataError(
                f"Recorded confidence {values[at]:g} of record {tuple(records[at].key)}; a "
                "confidence must lie in [0, 1]. Rescale it before importing."
            )
        return 1.0 - values

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing here; what it cost the other tool is not known."""
        return FREE
