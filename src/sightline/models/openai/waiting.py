"""How long a server asks to be left alone."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(value: str | None, most: float) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date, at most so many.

    Returns:
        None where it is neither.
    """
    if value is None:
        return None
    try:
        found = float(value)
    except ValueError:
        found = _until(value)
    return None if math.isnan(found) else min(max(0.0, found), most)


def _until(date: str) -> float:
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, OverflowError):  # some zones are beyond any date
        return math.nan
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - datetime.now(UTC)).total_seconds()
