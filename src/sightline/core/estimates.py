"""A measured figure with its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured figure with its interval.

    Attributes:
        value: The figure, or None where it is not defined.
        low: Lower end of the interval, or None where there is none.
        high: Upper end of the interval.
        n: Rows it was measured on.
        reason: Why ``value`` is None, or which splits it leaves out, in words; None otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None

    def __str__(self) -> str:
        """The figure as people read it, such as ``0.812 [0.780, 0.840]``, or why there is none."""
        if self.value is None:
            return f"— ({self.reason})"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
