"""Numbers that flags take: finite, and within bounds."""

from __future__ import annotations

import math
from typing import Any

import click


class Number(click.FloatRange):
    """A finite number within bounds; those of click let ``nan`` pass, and ``inf`` without a bound.

    Args:
        low: Least value.
        high: Largest value; None for no bound.
        low_open: Whether the least value itself is too small.
        high_open: Whether the largest value itself is too large.
    """

    def __init__(
        self,
        low: float,
        high: float | None = None,
        *,
        low_open: bool = False,
        high_open: bool = False,
    ) -> None:
        super().__init__(low, high, min_open=low_open, max_open=high_open)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Reads a number.

        Raises:
            click.BadParameter: It is none, not finite, or out of bounds.
        """
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


def share(*, low_open: bool = False, high_open: bool = False) -> Number:
    """The type of a flag that takes a share from 0 to 1."""
    return Number(0, 1, low_open=low_open, high_open=high_open)
