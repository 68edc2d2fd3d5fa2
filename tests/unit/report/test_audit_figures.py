"""Drawings of the audit's page say what they hold drift against, and draw no line through a few."""

from __future__ import annotations

from sightline.core.audit_results import CONTROL_NAMES, Density
from sightline.report.audit_figures import _density
from sightline.report.audit_terminal import control_name


def density(*control: int) -> Density:
    return Density("ctx_open", 5, (0.0, 0.5, 1.0), (30, 2), (4, 6), control, "other_items")


def test_a_control_of_few_values_is_counted_and_not_drawn():
    few, enough = _density(density(1, 18), "few"), _density(density(1, 19), "enough")
    assert [line.label for line in few.chart.lines] == ["stays", "flips"]
    assert few.caption == (
        "n: stays 32, flips 10. Control: another question, n = 19 (too few to draw)."
    )
    assert [line.label for line in enough.chart.lines] == ["stays", "flips", "another question"]
    assert enough.chart.lines[2].y == (0.05, 0.95)
    assert enough.caption.endswith("n = 20.")


def test_controls_are_named_in_words():
    assert control_name("other_images") == "another picture, same question"
    assert control_name("") == "none"
    assert all("_" not in name for name in CONTROL_NAMES.values())
