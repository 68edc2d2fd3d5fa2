"""Heat maps of an audit: families in rows, mildest level first, shaded by what is worse."""

from __future__ import annotations

from sightline.core.estimates import Estimate
from sightline.report.audit_answers import cell_of
from sightline.report.audit_tables import _heat, _severities

CONDITIONS = (
    *("jpeg:5", "jpeg:1", "translate:-8", "translate:4", "translate:8", "translate:-4"),
    *("scale:0.9", "scale_pad:black", "text:2", "answer_text:1", "wording:1", "grayscale"),
    "jpeg:3+rotate:30",
)


def test_families_go_from_mild_to_strong_and_directions_apart():
    found = _severities(CONDITIONS)
    assert {row: [name for name, _ in own] for row, own in found.items()} == {
        "jpeg": ["jpeg:1", "jpeg:5"],
        "translate −": ["translate:-4", "translate:-8"],
        "translate": ["translate:4", "translate:8"],
        "scale": ["scale:0.9"],
    }


def test_cells_are_shaded_by_size_or_by_how_far_they_fall_below_one():
    severities = _severities(("jpeg:1", "jpeg:5", "blur:1"))
    values = {"jpeg:1": Estimate(-0.004), "jpeg:5": Estimate(-4.0), "blur:1": Estimate(None)}
    grid = _heat("Margin", severities, values, 2)
    assert grid.columns == ("mildest", "strongest")
    (first, last), (blur, gap) = (row.cells for row in grid.rows)
    assert (first.text, first.detail, first.shade) == ("0.00", "1", 0)
    assert (last.text, last.detail, last.shade) == ("−4.00", "5", 60)
    assert (blur.text, gap.text) == ("—", "")
    cka = {"jpeg:1": Estimate(1.0), "jpeg:5": Estimate(0.5)}
    like = _heat("CKA", severities, cka, 2, least=True)
    assert [cell.shade for cell in like.rows[0].cells] == [0, 60]


def test_figures_have_a_true_minus_and_their_interval():
    found = cell_of(Estimate(-0.0001, -0.2, 0.1), 1.0)
    assert (found.text, found.detail, found.shade) == ("0.000", "−0.200 to 0.100", 0)
    assert cell_of(None, 1.0).text == "—"
