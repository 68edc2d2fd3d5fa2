"""Fitting on a run of the embedded model and scoring others, through the command line."""

from __future__ import annotations

import json

import pytest
from commands import done, refused

import sightline
from sightline.core.results import load_evaluation

FAST = ["--resamples", 100, "--seeds", 1, "--display", "none"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of the grounded model on two sets of scenes, and of the one with a prior on the second."""
    folder = tmp_path_factory.mktemp("fitting")
    for name, model, data in (
        ("a", "embedded:vlm", "scenes:test?n=240"),
        ("b", "embedded:vlm", "scenes:calibration?n=160"),
        ("prior", "embedded:vlm-prior", "scenes:calibration?n=160"),
    ):
        sightline.collect(
            model, data, folder / name, samples=3, options=False, blank=False, batch_size=32
        )
    return folder


@pytest.fixture(scope="module")
def fitted(runs):
    folder = runs / "fitted"
    for name in ("linear_probe", "relative_mahalanobis", "fusion"):
        text = done("fit", runs / "a", "-e", name, "--all-rows", "-o", folder / name)
        assert f"{name} fitted on 240 answers" in text
    return folder


def results(run):
    return {e.name: e for e in load_evaluation(run / "evaluation" / "results.json").estimators}


def test_fitted_on_one_run_they_score_another_of_the_same_model(runs, fitted):
    flags = [part for path in sorted(fitted.iterdir()) for part in ("--fitted", path)]
    done("evaluate", runs / "b", *flags, "-e", "sequence_probability", *FAST, "--fractions",
         "0,0.4,0.6")  # fmt: skip
    found = results(runs / "b")
    for name in ("linear_probe", "relative_mahalanobis", "fusion"):
        one = found[f"{name}[{name}]"]
        assert one.scored == 160
        assert one.spec["fitted_on"]["model"]["name"] == "embedded:vlm"
        assert one.spec["fitted_on"]["n"] == 240
    assert found["fusion[fusion]"].heldout["auroc"].value > 0.65


def test_fitted_on_the_train_rows_of_a_run_it_gives_what_evaluate_gives(runs):
    done("fit", runs / "a", "-e", "linear_probe", "-o", runs / "train")
    done("evaluate", runs / "a", "--fitted", runs / "train", "-e", "linear_probe,perplexity", *FAST)
    found = results(runs / "a")
    assert found["linear_probe[train]"].heldout == found["linear_probe"].heldout


def test_rows_it_was_fitted_on_and_other_models_are_refused(runs, fitted):
    probe = fitted / "linear_probe"
    line = refused(2, "evaluate", runs / "a", "--fitted", probe, "-e", "perplexity", *FAST)
    assert "linear_probe[linear_probe] was fitted on" in line
    line = refused(2, "evaluate", runs / "prior", "--fitted", probe, "-e", "perplexity", *FAST)
    assert "embedded:vlm-prior" in line
    assert "--transfer" in line
    done("evaluate", runs / "prior", "--fitted", probe, "--transfer", "-e", "perplexity", *FAST)
    assert results(runs / "prior")["linear_probe[linear_probe]"].scored == 160


def test_json_says_where_it_comes_from_and_bad_flags_are_one_line(runs, tmp_path):
    text = done("fit", runs / "a", "-e", "mahalanobis:layer=4", "-o", tmp_path / "m", "--json")
    document = json.loads(text)
    assert document["spec"]["layer"] == "4"
    assert document["origin"]["part"]["rows"] == "train"
    assert "content" not in document["origin"]
    assert "learns" in refused(2, "fit", runs / "a", "-e", "perplexity", "-o", tmp_path / "x")
    assert "holds a fitted" in refused(
        2, "fit", runs / "a", "-e", "linear_probe", "-o", tmp_path / "m"
    )
    assert "layer 3" in refused(
        2, "fit", runs / "a", "-e", "linear_probe:layer=3", "-o", tmp_path / "x"
    )
    settings = json.loads(done("fit", "r", "-e", "mind", "-o", "x", "--show-config"))
    assert settings["all_rows"] == {"value": False, "source": "default"}
