"""From pictures to a policy over a classifier's labels and its use, by the command line."""

from __future__ import annotations

import json

import pytest
from commands import command, done, refused
from scipy.stats import betabinom

pytest.importorskip("torch", reason="the models extra is not installed")
pytest.importorskip("transformers", reason="the models extra is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """CLIP on two sets of digits, SigLIP on scenes, a policy of each."""
    folder = tmp_path_factory.mktemp("policies")
    clip = ["-m", "embedded:clip", "--encoder", "embedded:encoder", "--display", "none"]
    done("classify", *clip, "-d", "digits:test?n=500", "--support", "train", "--shots", 4,
         "--draws", 2, "-o", folder / "a")  # fmt: skip
    done("classify", *clip, "-d", "digits:train?n=300", "--classes", folder / "a", "-o",
         folder / "b")  # fmt: skip
    done("classify", "-m", "embedded:siglip", "-d", "scenes-classes:test?n=400", "--views", "none",
         "--display", "none", "-o", folder / "scenes")  # fmt: skip
    done("calibrate", folder / "a", "-e", "trustvlm_aux", "--shots", 2, "--risk", 0.25, "--sets",
         "aps", "-o", folder / "policy")  # fmt: skip
    return folder


def test_a_policy_decides_another_run_and_measures_itself_there(folder):
    text = done("apply", folder / "b", "-p", folder / "policy", "--unseen", "-o",
                folder / "d.jsonl")  # fmt: skip
    assert "of sets hold the right class" in text
    lines = [json.loads(line) for line in (folder / "d.jsonl").read_text().splitlines()]
    document = json.loads(
        done("apply", folder / "b", "-p", folder / "policy", "--unseen", "--json")
    )
    assert document["answers"] == len(lines) == 300 - document["left_out"]
    assert document["accepted"] == sum(line["accepted"] for line in lines) > 0
    assert document["achieved"]["risk"]["low"] <= 0.25
    inside = sum(len(line["prediction_set"]) for line in lines) / len(lines)
    assert document["achieved"]["set_size"] == pytest.approx(inside)
    assert {line["answer"] for line in lines} <= {f"digit {i}" for i in range(10)}
    assert "--unseen" in refused(2, "apply", folder / "a", "-p", folder / "policy")


@pytest.mark.parametrize(("run", "kind"), [("a", "lac"), ("a", "aps"), ("scenes", "raps")])
def test_sets_hold_the_right_class_on_held_out_pictures_as_often_as_they_say(folder, run, kind):
    out = folder / f"{run}-{kind}"
    result = command("calibrate", folder / run, "-e", "msp", "--coverage", 0.5, "--sets", kind,
                     "--sets-level", 0.8, "--hold-out", 0.4, "-o", out, "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    n, tested = document["sets"]["conformal"]["n"], document["tested"]
    held = round(tested["set_coverage"]["value"] * tested["rows"])
    # Held-out pictures and those fitted on are exchangeable: an exact law where no scores tie.
    rank = -(-(n + 1) * 4 // 5)
    low, high = betabinom.interval(0.9999, tested["rows"], rank, n + 1 - rank)
    assert low <= held
    if kind == "lac":
        assert held <= high
    assert 1 <= tested["set_size"] < document["sets"]["options"]


def test_siglip_on_scenes_and_what_cannot_be_certified(folder):
    text = done("calibrate", folder / "scenes", "-e", "energy", "--risk", 0.6, "-o",
                folder / "energy")  # fmt: skip
    assert "energy, calibrated on 120 answers" in text
    line = refused(3, "calibrate", folder / "scenes", "-e", "msp", "--risk", 0.001, "-o",
                   folder / "hopeless")  # fmt: skip
    assert "abstains from every answer" in line
    assert "differ in" in refused(2, "apply", folder / "b", "-p", folder / "energy")
    line = refused(2, "ask", "x.png", "What?", "-m", "embedded:vlm", "-p", folder / "energy")
    assert "sightline apply" in line
    line = refused(2, "serve", "-m", "embedded:vlm", "--policy", folder / "energy")
    assert "'sightline serve' answers questions" in line
    line = refused(2, "calibrate", folder / "a", "--cascade", "msp -> trustvlm", "-o",
                   folder / "c")  # fmt: skip
    assert "one score is required" in line
