"""How long a server asks to be left alone, and what is none of that."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from sightline.models.openai.waiting import retry_after


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", 5.0),
        ("0.6", 0.6),
        ("-3", 0.0),
        ("9" * 5000, 60.0),
        ("inf", 60.0),
        ("Mon, 01 Jan 2024 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 9999 23:59:59 GMT", 60.0),
        ("nan", None),
        ("²", None),
        ("", None),
        ("soon", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", None),
        (None, None),
    ],
)
def test_numbers_and_dates_are_read_and_nothing_else(value, expected):
    assert retry_after(value, 60.0) == expected


def test_a_date_is_held_against_the_clock():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 0 < retry_after(soon, 60.0) <= 30
