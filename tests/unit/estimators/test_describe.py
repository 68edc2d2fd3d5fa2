"""The committed page of estimators equals the one written from the table."""

from pathlib import Path

from sightline.estimators import ESTIMATORS
from sightline.estimators.describe import estimators_page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "estimators.md"


def test_the_committed_page_is_not_stale():
    assert PAGE.read_text(encoding="utf-8") == estimators_page(), "run: make docs"


def test_every_estimator_has_one_row():
    page = estimators_page()
    for name in ESTIMATORS:
        assert page.count(f"\n| `{name}` |") == 1
    assert "| `random` |" in page.partition("## Control")[2]


def test_every_family_has_one_section():
    titles = [line for line in estimators_page().splitlines() if line.startswith("## ")]
    assert len(titles) == len({estimator.family for estimator in ESTIMATORS.values()})


def test_costs_are_in_words():
    rows = {
        cells[1].strip(" `"): cells[-2].strip()
        for line in estimators_page().splitlines()
        if line.startswith("| `")
        for cells in [line.split("|")]
    }
    assert rows["sequence_probability"] == "nothing"
    assert rows["sample_agreement"] == "the samples"
    assert rows["visual_information"] == "a prefill with a blank image"
    assert rows["noise_visual_uncertainty"] == "a prefill with a noised image"
    assert rows["vl_uncertainty"] == "a prefill and the answers per condition"
    assert rows["flip_rate"] == "a prefill and the answers per perturbed picture"
    assert rows["rotation_agreement"] == "a prefill and the answers per rotation"
