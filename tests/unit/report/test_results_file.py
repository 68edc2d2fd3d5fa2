from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from evaluations import bare, evaluation

from sightline.core.errors import DataError
from sightline.core.results import Curve, Histogram, evaluation_json, load_evaluation


@pytest.mark.parametrize("run", [evaluation(), bare()], ids=["full", "bare"])
def test_an_evaluation_is_read_back_as_it_was_written(run, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(evaluation_json(run), encoding="utf-8")
    assert load_evaluation(path) == run


def test_a_run_that_was_not_evaluated_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Run 'sightline evaluate' first"):
        load_evaluation(tmp_path / "results.json")


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "1e999"])
def test_figures_that_are_not_finite_are_refused(figure: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    document = asdict(bare()) | {"accuracy": {"value": "HERE", "n": 3}}
    path.write_text(json.dumps(document).replace('"HERE"', figure), encoding="utf-8")
    with pytest.raises(DataError, match="NaN or infinite"):
        load_evaluation(path)


def test_another_version_and_unknown_fields_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for change in ({"format_version": 2}, {"surprise": 1}):
        path.write_text(json.dumps(asdict(bare()) | change), encoding="utf-8")
        with pytest.raises(DataError, match="format version 1 is required"):
            load_evaluation(path)


def test_curves_and_histograms_of_unequal_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="as many of both"):
        Curve((0.0, 1.0), (0.5,))
    with pytest.raises(DataError, match="one count less than edges"):
        Histogram((0.0, 1.0), (1, 2), (3, 4))
    path = tmp_path / "results.json"
    run = replace(bare(), oracle_rejection=Curve((0.0,), (1.0,)))
    document = asdict(run) | {"oracle_rejection": {"x": [0.0], "y": []}}
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match="as many of both"):
        load_evaluation(path)
