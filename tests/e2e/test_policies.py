"""From a collected run to an answer with a probability, through the command line."""

from __future__ import annotations

import json

import pytest
from commands import done, refused

import sightline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of the grounded model on two sets of scenes, and a policy calibrated on the first."""
    folder = tmp_path_factory.mktemp("policies")
    for name, data in (("a", "scenes:calibration?n=160"), ("b", "scenes:test?n=60")):
        sightline.collect(
            "embedded:vlm", data, folder / name, samples=3, options=False, blank=False,
            layers=(), batch_size=32,
        )  # fmt: skip
    done("calibrate", folder / "a", "-e", "sequence_probability", "--risk", 0.35, "-o",
         folder / "policy")  # fmt: skip
    return folder


def test_the_policy_decides_another_run_and_measures_itself_there(folder):
    text = done("apply", folder / "b", "-p", folder / "policy", "-o", folder / "d.jsonl")
    assert "accepted" in text
    lines = [json.loads(line) for line in (folder / "d.jsonl").read_text().splitlines()]
    assert len(lines) == len(sightline.RunStore.open(folder / "b").examples())
    document = json.loads(done("apply", folder / "b", "-p", folder / "policy", "--json"))
    assert document["accepted"] == sum(line["accepted"] for line in lines)
    assert document["achieved"]["risk"]["low"] <= 0.35
    assert "--unseen" in refused(2, "apply", folder / "a", "-p", folder / "policy")


def test_asking_as_a_command_and_as_a_function_agree(folder):
    example = sightline.RunStore.open(folder / "b").examples()[0]
    picture = folder / "b" / example.images[0].path
    flags = ["-m", "embedded:vlm", "-p", folder / "policy"]
    document = json.loads(done("ask", picture, example.question, *flags, "--json"))
    found = sightline.ask(picture, example.question, model="embedded:vlm", policy=folder / "policy")
    assert document["answer"] == found.text
    assert document["confidence"] == pytest.approx(found.decision.confidence, abs=1e-6)
    assert document["accepted"] == found.decision.accepted
    # The same answer and score as when the run was collected.
    decided = {line["id"]: line for line in map(json.loads, _decisions(folder))}
    assert decided[example.id]["answer"] == found.text
    assert decided[example.id]["uncertainty"] == pytest.approx(found.decision.uncertainty, abs=1e-4)


def _decisions(folder):
    path = folder / "again.jsonl"
    if not path.exists():
        done("apply", folder / "b", "-p", folder / "policy", "--ungraded", "-o", path)
    return path.read_text().splitlines()


def test_an_explanation_is_one_readable_block(folder):
    example = sightline.RunStore.open(folder / "b").examples()[0]
    picture = folder / "b" / example.images[0].path
    text = done("ask", picture, example.question, "-m", "embedded:vlm", "--explain")
    labels = [line[:12].strip() for line in text.splitlines()]
    for label in ("answer", "confidence", "signals", "no picture", "samples", "tokens", "drift"):
        assert label in labels
    assert "no probabilities" in text
    assert "states move by" in text


def test_a_cascade_and_what_cannot_be_certified(folder):
    text = done(
        "calibrate", folder / "a", "--cascade", "sequence_probability -> sample_agreement",
        "--budget", 2, "--risk", 0.4, "-o", folder / "cascade",
    )  # fmt: skip
    assert "settles" in text
    assert "passes and generations per answer" in text
    line = refused(3, "calibrate", folder / "a", "-e", "sequence_probability", "--risk", 0.001,
                   "-o", folder / "hopeless")  # fmt: skip
    assert "abstains from every answer" in line
    text = done("apply", folder / "b", "-p", folder / "hopeless")
    assert "0.0% [" in text
    assert "holds a policy" in refused(
        2, "calibrate", folder / "a", "-e", "perplexity", "-o", folder / "policy"
    )
    settings = json.loads(done("calibrate", "r", "-e", "mind", "-o", "x", "--show-config"))
    assert settings["delta"] == {"value": 0.05, "source": "default"}
