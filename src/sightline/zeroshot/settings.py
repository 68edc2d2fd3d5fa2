"""What the numeric settings of scores may be."""

from __future__ import annotations

from sightline.core.errors import UsageError

MOST = 1e9
LEAST = 1e-6
"""Bounds of what single precision tells apart beside cosines and probabilities."""


def require_between(who: object, name: str, least: float, *, usual: float) -> None:
    """Requires that a setting of a score is a number from ``least`` to `MOST`.

    Args:
        who: The score.
        name: The setting.
        least: The smallest that is allowed.
        usual: What to suggest.

    Raises:
        UsageError: It is smaller, larger or not a number.
    """
    value = getattr(who, name)
    if not least <= value <= MOST:
        raise UsageError(
            f"{type(who).__name__}: {name} is {value:g}; a number from {least:g} to {MOST:g} is "
            f"required. Use {name}={usual:g}."
        )
