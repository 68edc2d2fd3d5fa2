"""Asking a model about its own answer, from the command line to the evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

import sightline
from sightline.cli import cli
from sightline.core.condition_names import CLEAN
from sightline.core.features import Feature
from sightline.store.run import RunStore
from sightline.workflow.evaluate import Settings

ASKED = ("p_true", "self_check", "confidence_word", "top_guesses")


def collected(path, said):
    return sightline.collect(
        "embedded:vlm",
        "scenes:test?n=160",
        path,
        estimators=["sequence_probability", *ASKED, "verbalised_confidence"],
        batch_size=32,
        announce=said.append,
    )


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory, said):
    path = tmp_path_factory.mktemp("asked") / "run"
    assert collected(path, said).quarantined == 0
    return path


def test_the_embedded_model_is_asked_what_it_can_read(run, said):
    assert any(line.startswith("Not asked: confidence_number. The model was") for line in said)
    store = RunStore.open(run)
    assert store.manifest.conditions == (CLEAN, *(f"asked:{name}" for name in ASKED))
    records = list(store.records())
    assert len(records) == 160 * 5
    for record in records:
        fixed = record.condition not in (CLEAN, "asked:top_guesses")
        assert record.has(Feature.REPLY_LOGPROBS) == fixed
        assert record.answer.logprobs is not None
        if fixed:
            mass = np.exp(record.array(Feature.REPLY_LOGPROBS)).sum()
            assert 0 < mass <= 1 + 1e-6
    replies = {r.answer.text for r in records if r.condition == "asked:p_true"}
    assert {"true", "false"} <= replies


def test_the_greedy_reply_is_the_likeliest_of_the_fixed_ones(run):
    words = {"asked:p_true": ("true", "false"), "asked:confidence_word": ("low", "medium", "high")}
    compared = 0
    for record in RunStore.open(run).records():
        spelled = words.get(record.condition, ())
        if record.answer.text in spelled:
            best = int(record.array(Feature.REPLY_LOGPROBS).argmax())
            assert spelled[best] == record.answer.text
            compared += 1
    assert compared > 250


def test_the_evaluation_scores_replies_and_names_what_was_not_asked(run):
    named = ("sequence_probability", *ASKED, "p_true:read=stated", "verbalised_confidence")
    found = sightline.evaluate(run, Settings(estimators=named, seeds=2, resamples=50))
    by_name = {result.name: result for result in found.estimators}
    assert set(by_name) == {*named} - {"verbalised_confidence"}
    assert all(by_name[name].scored == 160 for name in ASKED[:3])
    assert by_name["p_true"].heldout["auroc"].value is not None
    (absent,) = found.not_applicable
    assert absent.name == "verbalised_confidence"
    assert [(reason.reason, reason.n) for reason in absent.reasons] == [
        ("no confidence_number", 160)
    ]
    stated = by_name["p_true:read=stated"]
    assert stated.scored + sum(reason.n for reason in stated.skipped) == 160


def test_the_command_line_asks_by_name(tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["collect", "-m", "fake", "-d", "scenes:test?n=40", "-o", str(run), "--samples", "0"]
    asks = "p_true,confidence_number.2,guess_probabilities"
    assert cli.main([*flags, "--ask", asks], standalone_mode=False) == 0
    conditions = RunStore.open(run).manifest.conditions
    assert conditions[2:] == tuple(f"asked:{name}" for name in asks.split(","))
    with pytest.raises(sightline.SightlineError, match="'p_tru' does not exist; one of p_true, s"):
        cli.main([*flags, "--ask", "p_tru"], standalone_mode=False)
    capsys.readouterr()


def test_recorded_replies_are_scored_from_import_alone(tmp_path):
    rows = []
    for i in range(60):
        right = i % 3 > 0
        row = {"id": str(i), "question": "What is it?", "references": ["cat"], "model": "m"}
        rows.append({**row, "answer": "cat" if right else "dog"})
        stated = "I cannot say" if i == 0 else f"{60 + i % 5 + 20 * right}%"
        rows.append({**row, "condition": "asked:confidence_number", "answer": stated})
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows))
    (run,) = sightline.import_file(source, tmp_path / "runs")
    found = sightline.evaluate(
        run, Settings(estimators=("verbalised_confidence", "random"), seeds=2, resamples=50)
    )
    result = next(r for r in found.estimators if r.name == "verbalised_confidence")
    assert result.scored == 59
    assert [(s.reason, s.n) for s in result.skipped] == [
        ("no readable reply to confidence_number", 1)
    ]
    assert result.raw["auroc"].value == 1.0
