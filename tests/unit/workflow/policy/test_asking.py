"""Asking one question: what is observed, decided, explained and refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from policy_records import answer, answers, choices, labelled, right_at
from test_saved import ORIGIN

import sightline
from sightline.core.condition_names import BLANK
from sightline.core.errors import ImageError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Generation, Record
from sightline.data.images import DECODE_POLICY
from sightline.models.fake import FakeModel
from sightline.workflow.asking import ask
from sightline.workflow.explaining import CHANGES, explain
from sightline.workflow.policy.calibrating import request_json
from sightline.workflow.policy.evidence import Target
from sightline.workflow.policy.fitting import fit_policy
from sightline.workflow.policy.labelled import SetsTarget
from sightline.workflow.policy.trust import narrowed


class Watched:
    """The fake model, with the requests it was given."""

    def __init__(self):
        self.requests = []
        self.model = FakeModel()

    def fingerprint(self):
        return self.model.fingerprint()

    def observe(self, examples, images, request):
        self.requests.append(request)
        return self.model.observe(examples, images, request)


@pytest.fixture
def picture(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "picture.png"
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)
    return path


def known(policy, request=Request(max_new_tokens=6, top_k_logprobs=0)):  # noqa: B008 (frozen)
    """The policy as if it had been fitted on answers of the fake model."""
    origin = replace(
        ORIGIN,
        model=dict(FakeModel().fingerprint()),
        request=request_json(narrowed(request, policy.needs)),
        decode_policy=DECODE_POLICY,
    )
    return replace(policy, evidence=replace(policy.evidence, origin=origin))


@pytest.fixture(scope="module")
def policy():
    records = answers(600)
    data = labelled(records, right_at(records))
    return known(fit_policy(["sequence_probability"], data, Target(None, 0.9)))


def test_with_a_policy_the_answer_has_a_probability_and_a_decision(policy, picture):
    model = Watched()
    found = ask(model, [picture], "What is it?", policy=policy)
    assert model.requests == [policy.request]
    assert found.text == found.record.answer.text
    (again,) = policy.decide([found.record])
    assert found.decision == again
    assert 0 < found.decision.confidence < 1
    assert found.scores == {}
    assert found.explanation is None
    document = json.loads(json.dumps(found.to_dict()))
    assert document["confidence"] == found.decision.confidence
    assert document["accepted"] is found.decision.accepted


def test_without_a_policy_there_are_raw_scores_and_no_probability(picture):
    found = ask(FakeModel(), [picture], "What is it?")
    assert found.decision is None
    assert set(found.scores) == {"sequence_probability", "perplexity", "mean_token_entropy"}
    assert found.to_dict()["confidence"] is None
    chosen = ask(FakeModel(), [picture], "Which?", choices=["red", "blue"])
    assert {"choice_max_probability", "option_max_probability"} < set(chosen.scores)


def test_prediction_sets_name_options(picture):
    records, correct = choices(400, counts=(3,))
    data = labelled(records, correct)
    fitted = fit_policy(["sequence_probability"], data, Target(None, 0.9), sets=SetsTarget())
    found = ask(
        FakeModel(), [picture], "Which?", policy=known(fitted), choices=["red", "blue", "green"]
    )
    assert set(found.decision.prediction_set) <= {"A", "B", "C"}
    assert found.decision.prediction_set


@pytest.mark.parametrize("field", ["question_type", "difficulty"])
def test_a_category_names_the_threshold(field, picture):
    rng = np.random.default_rng(0)
    records = [
        answer(
            f"e{i}", p, **({field: value} if field == "question_type" else {"meta": {field: value}})
        )
        for i, p in enumerate(rng.uniform(0.01, 0.99, 1200))
        for value in [("easy", "hard")[i % 2]]
    ]
    data = labelled(records, right_at(records))
    policy = known(fit_policy(["sequence_probability"], data, Target(0.35, per_group=field)))
    for category in ("easy", "hard"):
        found = ask(FakeModel(), [picture], "What?", policy=policy, category=category)
        assert found.decision.category == category
        assert found.decision.threshold == policy.thresholds[category] is not None
    bare = ask(FakeModel(), [picture], "What?", policy=policy).decision
    assert (bare.accepted, bare.threshold) == (False, None)
    assert bare.reason == f"the question has no {field}, which the threshold goes by"
    unknown = ask(FakeModel(), [picture], "What?", policy=policy, category="odd").decision
    assert unknown.reason == f"{field} 'odd' was not among the labelled answers"


def test_a_category_that_no_threshold_goes_by_is_refused(policy, picture):
    for known_policy in (policy, None):
        with pytest.raises(UsageError, match="'a', and no threshold goes by one"):
            ask(FakeModel(), [picture], "What?", policy=known_policy, category="a")


def cascade_policy(undecided):
    rng = np.random.default_rng(0)
    records = [
        replace(r, samples=tuple(Generation(str(k)) for k in rng.integers(0, 3, 3)))
        for r in answers(600)
    ]
    fitted = fit_policy(
        ["sequence_probability", "sample_agreement"],
        labelled(records, right_at(records)),
        Target(None, 0.9),
    )
    first = replace(fitted.stages[0], undecided=undecided)
    request = Request(max_new_tokens=6, n_samples=3, top_k_logprobs=0)
    return known(replace(fitted, stages=(first, fitted.stages[1])), request)


def test_a_cascade_observes_samples_only_where_it_needs_them(picture):
    settled = Watched()
    found = ask(settled, [picture], "What?", policy=cascade_policy((0.0, 0.0)))
    assert [r.n_samples for r in settled.requests] == [0]
    assert found.decision.estimator == "sequence_probability"
    undecided = Watched()
    found = ask(undecided, [picture], "What?", policy=cascade_policy((0.0, 2.0)))
    assert [r.n_samples for r in undecided.requests] == [0, 3]
    assert found.decision.estimator == "sample_agreement"
    assert set(found.decision.signals) == {"sequence_probability", "sample_agreement"}


def test_another_model_decoding_of_pictures_or_recorded_answers_are_refused(policy, picture):
    def refused(match, **changes):
        origin = replace(policy.evidence.origin, **changes)
        other = replace(policy, evidence=replace(policy.evidence, origin=origin))
        with pytest.raises(UsageError, match=match) as error:
            ask(FakeModel(), [picture], "What?", policy=other)
        assert "\n" not in str(error.value)

    refused("differing in revision", model={**policy.evidence.origin.model, "revision": "2"})
    refused("another tool recorded", request=None)
    refused("decoded by '0'", decode_policy="0")


def test_no_picture_no_question_and_no_file_are_one_line(picture, tmp_path):
    with pytest.raises(UsageError, match="No picture; at least one"):
        ask(FakeModel(), [], "What?")
    with pytest.raises(UsageError, match="' ' has no visible character; a question is required"):
        ask(FakeModel(), [picture], " ")
    with pytest.raises(ImageError) as error:
        ask(FakeModel(), [tmp_path / "none.png"], "What?")
    assert "\n" not in str(error.value)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError):
        ask(FakeModel(), [tmp_path / "text.png"], "What?")


def test_pictures_and_question_are_looked_at_before_a_model_is_loaded(picture, tmp_path):
    for images, question, error in (
        (tmp_path / "none.png", "What?", ImageError),
        (picture, "", UsageError),
    ):
        with pytest.raises(error) as refused:
            sightline.ask(images, question, model="./no-such-model")
        assert "no-such-model" not in str(refused.value)


def test_an_explanation_shows_what_moves_the_answer(policy, picture):
    found = ask(FakeModel(), [picture], "What is it?", policy=policy, explained=True)
    shown = found.explanation
    assert shown.draws.n == 10
    assert shown.draws.agree + sum(n for _, n in shown.draws.others) == 10
    assert [s.condition for s in shown.shifts] == [*CHANGES, "blank"]
    assert all(0 <= s.distance <= 2 for s in shown.shifts)
    assert 0 < shown.prior.blank_probability <= 1
    assert shown.prior.probability == pytest.approx(np.exp(found.record.answer.logprobs.sum()))
    assert [t.text for t in shown.tokens] == list(found.record.answer.tokens)
    assert all(t.weak == (t.probability < 0.5) for t in shown.tokens)
    json.dumps(shown.to_dict())


class Stubborn:
    """A model that says red whatever it sees, and shows no state, sample or token."""

    def fingerprint(self):
        return {"name": "stubborn"}

    def observe(self, examples, images, request):
        (example,) = examples
        red = Generation("red")
        return [Record(example, greedy=red), Record(example, BLANK, greedy=red)]


def test_what_a_model_does_not_show_is_left_out_of_the_explanation(picture):
    record = Record(Example("e", "What?"), greedy=Generation("red"))
    with Image.open(picture) as image:
        shown = explain(Stubborn(), record, (image.convert("RGB"),), max_new_tokens=4)
    assert shown.prior.same
    assert shown.prior.probability is None
    assert shown.draws is None
    assert shown.tokens == ()
    assert [(s.same, s.distance) for s in shown.shifts] == [(True, None)] * 3


def test_a_signal_the_model_cannot_show_is_named(picture):
    records = answers(300)
    probe = fit_policy(["perplexity"], labelled(records, right_at(records)), Target(None, 0.9))
    found = ask(Stubborn(), [picture], "What?", policy=replace_model(known(probe)))
    assert found.decision.reason == "no logprobs"
    assert found.decision.confidence is None
    assert found.decision.pending == {Feature.LOGPROBS}


def replace_model(policy):
    origin = replace(policy.evidence.origin, model={"name": "stubborn"})
    return replace(policy, evidence=replace(policy.evidence, origin=origin))
