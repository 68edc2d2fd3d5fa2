"""Collecting under perturbations on the embedded model, as an engineer would."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import sightline
from sightline.core.condition_names import BLANK, CLEAN
from sightline.core.features import Feature
from sightline.core.records import link
from sightline.store.run import RunStore
from sightline.workflow.evaluate import Settings

N = 60
TURN = "translate:48"  # a picture of a scene is 48 pixels wide: a whole turn
NAMES = (TURN, "jpeg:2", "noise:5", "wording:1", "blur:1+wording:2", "crop:16", "answer_text:1")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("conditions") / "run"
    result = sightline.collect(
        "embedded:vlm",
        f"scenes:test?n={N}",
        path,
        samples=2,
        layers=(0.5, 1.0),
        conditions=",".join(NAMES),
        condition_samples=2,
        max_new_tokens=24,
        batch_size=16,
    )
    assert result.quarantined == 0
    return path


@pytest.fixture(scope="module")
def by_condition(run):
    found: dict[str, dict] = {}
    for record in RunStore.open(run).records():
        found.setdefault(record.condition, {})[record.example.id] = record
    return found


def test_every_pair_is_a_record_or_a_counted_refusal(run, by_condition):
    store = RunStore.open(run)
    rows = Counter(name for name, records in by_condition.items() for _ in records)
    rows.update(row.key.condition for row in store.refused())
    assert rows == dict.fromkeys((CLEAN, BLANK, *NAMES), N)
    assert store.verify() == []


def test_a_picture_turned_once_around_shows_what_the_clean_one_shows(by_condition):
    """The same pixels: answers, probabilities and states agree to rounding."""
    for name, clean in by_condition[CLEAN].items():
        turned = by_condition[TURN][name]
        assert turned.answer.text == clean.answer.text
        np.testing.assert_allclose(turned.answer.logprobs, clean.answer.logprobs, atol=1e-4)
        read = turned.array(Feature.CLEAN_LOGPROBS)
        np.testing.assert_allclose(read, clean.answer.logprobs, atol=1e-4)
        for feature in (Feature.HIDDEN, Feature.PROMPT_HIDDEN, Feature.IMAGE_HIDDEN):
            one, other = (r.array(feature).astype(np.float32) for r in (turned, clean))
            assert np.linalg.norm(one - other) <= 5e-3 * np.linalg.norm(other)
        if clean.has(Feature.OPTION_LOGPROBS):
            one, other = (r.array(Feature.OPTION_LOGPROBS) for r in (turned, clean))
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_samples_of_the_same_picture_under_two_names_are_other_draws(by_condition):
    """Their log-probabilities, summed over all answers, would be equal for equal draws."""
    draws = [
        [s.text for record in by_condition[name].values() for s in record.samples]
        for name in (CLEAN, TURN)
    ]
    assert len(draws[0]) == len(draws[1]) == 2 * N
    assert draws[0] != draws[1]


def test_strong_noise_takes_more_from_the_answer_than_compression(by_condition):
    def gained(condition: str) -> float:
        return float(
            np.mean(
                [
                    record.array(Feature.CLEAN_LOGPROBS).sum()
                    for record in by_condition[condition].values()
                ]
            )
        )

    clean = np.mean([r.answer.logprobs.sum() for r in by_condition[CLEAN].values()])
    assert gained("noise:5") < gained("jpeg:2") < clean + 1e-6


def test_views_are_only_those_whose_answer_stays(by_condition):
    records = [r for records in by_condition.values() for r in records.values()]
    linked = link(records, condition=CLEAN)
    views = Counter(v.condition for record in linked for v in record.related.views)
    left_out = Counter(v.condition for record in linked for v in record.related.left_out)
    assert views[TURN] == N
    assert views["answer_text:1"] == 0
    assert 0 < views["crop:16"] < N
    assert views["crop:16"] + left_out["crop:16"] == N
    assert BLANK not in views


def test_one_command_collects_and_scores_what_the_estimators_need(tmp_path):
    names = ("vl_uncertainty", "condition_agreement", "noise_visual_uncertainty")
    sightline.collect(
        "embedded:vlm", "scenes:test?n=80", tmp_path / "run", estimators=names, batch_size=16
    )
    settings = Settings(
        estimators=(*names, "sequence_probability", "question_type"), seeds=2, resamples=100
    )
    evaluation = sightline.evaluate(tmp_path / "run", settings)
    found = {result.name: result for result in evaluation.estimators}
    for name in names:
        assert found[name].scored >= 70
        assert found[name].forward_passes >= 1
    assert found["noise_visual_uncertainty"].generations == 0
