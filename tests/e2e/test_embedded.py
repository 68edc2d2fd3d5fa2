"""The main job on the embedded model: the same path that loads a large one."""

from __future__ import annotations

import json

import numpy as np
import pytest

import sightline
from sightline.core.condition_names import CLEAN
from sightline.core.features import Feature
from sightline.store.run import RunStore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("embedded") / "run"
    result = sightline.collect(
        "embedded:vlm", "scenes:test?n=160", path, samples=4, batch_size=16, max_new_tokens=24
    )
    assert result.quarantined == 0
    return path


@pytest.fixture(scope="module")
def records(run):
    return [r for r in RunStore.open(run).records() if r.condition == CLEAN]


def test_every_signal_is_stored(records):
    for record in records:
        answer = record.answer
        assert answer.logprobs is not None
        assert not answer.is_empty
        assert len(record.samples) == 4
        assert record.array(Feature.HIDDEN).shape[:2] == (4, answer.n_tokens)
        assert record.has(Feature.BLANK_LOGPROBS)
        assert record.has(Feature.TOP_LOGPROBS)
        if record.example.choices is not None:
            # Its prompt asks for the option's text, so letters say nothing and are not scored.
            assert not record.has(Feature.LETTER_LOGPROBS)
            assert not record.has(Feature.BLANK_LETTER_LOGPROBS)
            assert record.array(Feature.OPTION_LOGPROBS).shape == (len(record.example.choices),)


def test_greedy_is_the_argmax_of_the_recorded_distribution(records):
    for record in records:
        ids = record.array(Feature.TOP_TOKEN_IDS)[:, 0]
        best = record.array(Feature.TOP_LOGPROBS)[:, 0]
        assert (ids == record.answer.token_ids).all()
        np.testing.assert_allclose(best, record.answer.logprobs, atol=1e-5)


def test_the_model_looks_at_its_picture(records):
    """The answer is likelier with the picture than with a blank one."""
    gained = [
        record.answer.logprobs.sum() - record.array(Feature.BLANK_LOGPROBS).sum()
        for record in records
    ]
    assert np.mean(gained) > 0.5


def test_the_run_says_which_checkpoint_it_is(run):
    (note,) = RunStore.open(run).manifest.notes
    assert "embedded" in note


def test_evaluate_and_report(run):
    evaluation = sightline.evaluate(run, sightline.Settings(resamples=200, seeds=3))
    assert 0.3 < evaluation.accuracy.value < 0.95
    names = {e.name for e in evaluation.estimators}
    assert {"sequence_probability", "sample_agreement", "visual_information", "random"} <= names
    assert {"question_type", "answer_length"} <= names
    by_letter = {"choice_max_probability", "choice_margin", "choice_entropy"}
    assert names.isdisjoint(by_letter | {"choice_visual_information"})
    best = next(e for e in evaluation.estimators if not e.control)
    assert best.heldout["auroc"].value > 0.6
    page = sightline.write_report(str(run)).read_text(encoding="utf-8")
    assert "embedded" in page
    assert "data:image/png" in page


def test_batch_size_changes_nothing_but_rounding(run, records, tmp_path):
    sightline.collect(
        "embedded:vlm", "scenes:test?n=160", tmp_path / "one", samples=4, batch_size=1,
        max_new_tokens=24, limit=24,
    )  # fmt: skip
    alone = [r for r in RunStore.open(tmp_path / "one").records() if r.condition == CLEAN]
    assert len(alone) == 24
    together = {r.example.id: r for r in records}
    for record in alone:
        other = together[record.example.id]
        assert record.answer.text == other.answer.text
        np.testing.assert_allclose(record.answer.logprobs, other.answer.logprobs, atol=1e-4)
        same = [a.text == b.text for a, b in zip(record.samples, other.samples, strict=True)]
        assert all(same)


def test_models_card_and_list():
    from click.testing import CliRunner

    from sightline.cli import cli

    runner = CliRunner()
    listed = json.loads(runner.invoke(cli, ["models", "--json"]).stdout)
    assert listed[0]["name"] == "vlm"
    card = runner.invoke(cli, ["models", "card", "vlm"]).stdout
    assert "accuracy" in card
    assert "blank" in card
