from __future__ import annotations

import pytest

from sightline.core.estimates import Estimate
from sightline.report.numbers import (
    STYLES,
    Notes,
    cell,
    heading,
    inert,
    interval,
    number,
    plain,
    seconds,
    share,
)


@pytest.mark.parametrize(
    ("value", "metric", "signed", "text"),
    [
        (0.81249, "auroc", False, "0.812"),
        (0.1234, "aurc", False, "123.4"),
        (0.714, "accuracy", False, "71.4\xa0%"),
        (-0.02, "prr", False, "−0.020"),
        (0.02, "prr", True, "+0.020"),
        (-0.0001, "auroc", True, "0.000"),
        (0.0, "auroc", True, "0.000"),
        (-1234.5678, "prr", False, "−1,234.568"),
    ],
)
def test_number_is_rounded_scaled_and_signed(
    value: float, metric: str, signed: bool, text: str
) -> None:
    assert number(value, STYLES[metric], signed=signed) == text


def test_interval_uses_a_dash_only_between_unsigned_ends() -> None:
    style = STYLES["auroc"]
    assert interval(Estimate(0.8, 0.75, 0.85), style) == "0.750–0.850"
    assert interval(Estimate(0.0, -0.1, 0.1), style) == "−0.100 to 0.100"
    assert interval(Estimate(0.0, -0.1, 0.1), style, signed=True) == "−0.100 to +0.100"
    assert interval(Estimate(0.7, 0.6, 0.8), STYLES["accuracy"]) == "60.0–80.0\xa0%"
    assert interval(Estimate(1.0), style) is None


def test_cell_without_value_keeps_its_reason_as_a_numbered_note() -> None:
    notes = Notes()
    first = cell(Estimate(None, n=3, reason="3 rows"), "auroc", notes, row_n=3)
    second = cell(Estimate(None, n=4, reason="one class"), "auroc", notes, row_n=3)
    third = cell(Estimate(None, n=3, reason="3 rows"), "prr", notes, row_n=3)
    assert (first.text, first.note, second.note, third.note) == ("—", 1, 2, 1)
    assert notes.texts == ["3 rows", "one class"]
    assert first.n is None
    assert second.n == "4"


def test_cell_names_its_rows_only_where_they_differ_and_says_where_there_is_no_interval() -> None:
    notes = Notes()
    same = cell(Estimate(0.5, 0.4, 0.6, n=100), "auroc", notes, row_n=100)
    other = cell(Estimate(0.5, n=1234), "auroc", notes, row_n=100)
    assert (same.text, same.interval, same.n) == ("0.500", "0.400–0.600", None)
    assert (other.interval, other.n) == ("no interval", "1,234")


def test_plain_is_a_figure_with_interval_and_n() -> None:
    assert plain(Estimate(0.8, 0.7, 0.9, n=1200), "auroc", level=0.95) == (
        "0.800 (95\xa0% interval 0.700–0.900, n\xa0=\xa01,200)"
    )
    assert plain(Estimate(None, n=2, reason="2 rows"), "auroc", level=0.9) == (
        "not defined (2 rows)"
    )


def test_headings_say_which_way_is_better() -> None:
    assert heading("ece").hint == "lower is better"
    assert heading("within_type_auroc").hint == "higher is better"


def test_durations_and_shares() -> None:
    assert [seconds(s) for s in (0.0, 0.26, 61.2, 7260.0)] == [
        "< 0.1 s",
        "0.3 s",
        "1 min 1 s",
        "2 h 1 min",
    ]
    assert [share(s) for s in (0.95, 0.5, 1.0, 0.995)] == [
        "95\xa0%",
        "50\xa0%",
        "100\xa0%",
        "99.5\xa0%",
    ]


def test_inert_bounds_and_says_how_much_there_was() -> None:
    assert inert("short", 10) == "short"
    assert inert("x" * 1_000_000, 5) == "xxxxx … (1,000,000 characters in all)"
    assert inert("a\x1b[2J\u202e", 10) == r"a\x1b[2J\u202e"
