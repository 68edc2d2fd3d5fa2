"""Policies on derived signals: new answers get them from what computed them in the policy's run."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sightline
from sightline import api
from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, ImageRef, Record
from sightline.models.fake import FakeModel
from sightline.serving.judging import read_policy, saved_judge
from sightline.store.derived import Derivation
from sightline.workflow.policy import load_policy
from sightline.workflow.policy.deriving import load_deriver

WORDS = {"name": "words", "fingerprint": {"name": "words"}, "with_question": False}
SPECS = ("eccentricity:similarity=embeddings", "token_sar:importance=stored")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("derived") / "run"
    sightline.collect("fake", "scenes:test?n=200", path, samples=4, blank=False, options=False)
    api.derive(path, embeddings="words", importance="words")
    return path


@pytest.fixture(scope="module")
def policies(run):
    found = {}
    for index, spec in enumerate(SPECS):
        found[spec] = run.parent / f"policy-{index}"
        sightline.calibrate(run, spec, found[spec], coverage=0.5)
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_a_question_asked_anew_gets_the_confidence_it_had_in_the_run(run, policies, spec):
    policy = load_policy(policies[spec])
    assert list(policy.evidence.origin.derived.values()) == [WORDS]
    store = sightline.RunStore.open(run)
    stored = [r for r in store.records(features=(*policy.needs,)) if r.condition == "clean"][7]
    (expected,) = policy.decide([stored])
    picture = run / stored.example.images[0].path
    deriver = load_deriver(policy.needs, policy.evidence.origin.derived)
    bare = replace(stored, features={})
    (again,) = policy.decide(deriver([bare]))
    assert again.confidence == pytest.approx(expected.confidence, abs=1e-6)
    found = sightline.ask(picture, stored.example.question, model="fake", policy=policies[spec])
    assert found.decision.confidence is not None
    assert found.decision.reason.startswith("confidence")


@pytest.mark.parametrize("spec", SPECS)
def test_a_server_judges_by_it(policies, spec):
    judge = saved_judge(policies[spec])
    judge.policy.check_model(FakeModel().fingerprint(), where="the model to serve")
    request = judge.requests[-1]
    example = Example("x", "What is it?", images=(ImageRef("x.png", "0"),))
    seen = FakeModel().observe([example], [(Image.new("RGB", (8, 8)),)], request)
    (judgement,) = judge.judge([record for record in seen if record.condition == "clean"])
    assert judgement.confidence is not None
    assert judgement.warnings == ()


def test_what_cannot_have_the_signal_stays_as_it_is():
    deriver = load_deriver(
        frozenset({Feature.EMBEDDINGS, Feature.TOKEN_IMPORTANCE}),
        {"embeddings": WORDS, "importance": WORDS},
    )
    bare = Record(Example("a", "?"), greedy=Generation("red"))
    sampled = replace(bare, samples=(Generation("red"), Generation("blue car")))
    spelled = Record(
        Example("b", "?"),
        greedy=Generation("red car", tokens=("red", " car"), logprobs=-np.ones(2)),
    )
    found = deriver([bare, sampled, spelled])
    assert found[0] is bare
    vectors = found[1].array(Feature.EMBEDDINGS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[1] == pytest.approx(1)
    assert vectors[0] @ vectors[2] < 0.5
    assert not found[1].has(Feature.TOKEN_IMPORTANCE)
    assert found[2].array(Feature.TOKEN_IMPORTANCE).shape == (2,)
    assert load_deriver(frozenset({Feature.LOGPROBS}), {}) is None


def test_a_policy_that_does_not_say_what_computed_them_is_refused():
    with pytest.raises(UsageError, match="reads embeddings and does not say what computed them"):
        load_deriver(frozenset({Feature.EMBEDDINGS}), {})


def test_an_encoder_whose_files_changed_is_refused(tmp_path):
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "differential" / "vlm"))
    from tiny_texts import save_encoder

    from sightline.models import load_text_encoder
    from sightline.workflow.derive import source_of

    name = str(save_encoder(tmp_path / "encoder"))
    source = source_of(load_text_encoder(name), False)
    needs = frozenset({Feature.EMBEDDINGS})
    deriver = load_deriver(needs, {"embeddings": source}, tmp_path)
    assert set(deriver.models) == {Derivation.EMBEDDINGS}
    other = {**source, "fingerprint": {**source["fingerprint"], "files_xxh3": "0"}}
    with pytest.raises(UsageError, match="whose files have changed since"):
        load_deriver(needs, {"embeddings": other}, tmp_path)
    with pytest.raises(UsageError, match=r"local model 'encoder'.*--text-models"):
        load_deriver(needs, {"embeddings": source})


def test_a_run_with_another_derivation_is_refused(run, policies, tmp_path):
    other = tmp_path / "run"
    sightline.collect("fake", "scenes:calibration?n=20", other, samples=4, blank=False)
    api.derive(other, embeddings="words", with_question=True)
    with pytest.raises(UsageError, match="has embeddings by words and the policy was fitted on"):
        sightline.apply_policy(other, policies[SPECS[0]])


def test_what_one_request_does_not_show_is_still_refused(policies, monkeypatch):
    path = policies[SPECS[0]]
    needs = frozenset({Feature.CONDITIONS, Feature.VIEW_EMBEDDINGS})
    monkeypatch.setattr("sightline.workflow.policy.trust.TrustPolicy.needs", needs)
    with pytest.raises(UsageError, match="reads conditions, view_embeddings; signals that one req"):
        read_policy(path)
