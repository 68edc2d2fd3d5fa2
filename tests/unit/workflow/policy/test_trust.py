"""What a policy decides, record by record."""

import json
from dataclasses import replace

import numpy as np
import pytest
from policy_records import answer, answers, choices, labelled, right_at, told_by_layer

from sightline.cli import policies, policy_lines
from sightline.core.errors import DataError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Generation, ImageRef, Record
from sightline.estimators import ESTIMATORS
from sightline.workflow.policy import Decision
from sightline.workflow.policy.evidence import Origin, Target
from sightline.workflow.policy.fitting import fit_policy
from sightline.workflow.policy.labelled import SetsTarget
from sightline.workflow.policy.trust import narrowed


@pytest.fixture(scope="module")
def policy():
    records = answers(3000)
    return fit_policy(
        ["sequence_probability"],
        labelled(records, right_at(records)),
        Target(risk=0.15, delta=0.1),
    )


def test_a_decision_says_score_probability_threshold_and_reason(policy):
    sure, unsure = policy.decide([answer("x", 0.98), answer("y", 0.2)])
    assert sure.accepted
    assert not unsure.accepted
    assert sure.uncertainty == pytest.approx(0.02)
    assert unsure.uncertainty == pytest.approx(0.8)
    assert sure.signals == {"sequence_probability": sure.uncertainty}
    (threshold,) = policy.thresholds.values()
    assert sure.threshold == unsure.threshold == threshold
    assert unsure.confidence < threshold <= sure.confidence
    assert sure.reason == f"confidence {sure.confidence:.4f} reaches the threshold {threshold:.4f}"
    assert "is below" in unsure.reason
    assert json.loads(json.dumps(sure.to_dict()))["accepted"] is True


def test_a_question_without_the_labelled_ones_picture_is_not_accepted(policy):
    with_one = replace(policy, evidence=replace(policy.evidence, origin=of_pictures(1, 1)))
    record = answer("x", 0.98)
    shown = ImageRef("x.png", "0")
    ones = [replace(record, example=replace(record.example, images=(shown,) * n)) for n in range(3)]
    guess, seen, two = with_one.decide(ones)
    assert seen == policy.decide(ones)[1]
    assert seen.accepted
    assert (guess.confidence, guess.accepted) == (None, False)
    assert guess.reason == ("number of pictures is 0: the policy was fitted on questions with 1")
    assert two.reason.startswith("number of pictures is 2")
    assert guess.signals == seen.signals
    wider = replace(policy, evidence=replace(policy.evidence, origin=of_pictures(0, 2)))
    assert [one.accepted for one in wider.decide(ones)] == [True] * 3
    unknown = replace(policy, evidence=replace(policy.evidence, origin=of_pictures(None)))
    assert unknown.decide(ones) == wider.decide(ones)


def of_pictures(*counts):
    """What a policy was fitted on, whose questions had so many pictures at least and at most."""
    origin = Origin("r", "0", {}, None, None, "d", {}, 0.5, "clean", {}, (), "0")
    return replace(origin, pictures=None if counts == (None,) else counts)


def test_decisions_do_not_depend_on_the_company_they_are_made_in(policy):
    records = answers(50, seed=5)
    together = policy.decide(records)
    assert together == tuple(policy.decide([record])[0] for record in records)
    assert policy.decide(records[::-1]) == together[::-1]
    assert policy.decide([]) == ()


def test_an_answer_without_its_signal_is_not_accepted_and_says_what_is_missing(policy):
    bare = Record(Example("x", "?"), greedy=Generation("red"))
    nothing = Record(Example("z", "?"))
    first, scored, last = policy.decide([bare, answer("y", 0.98), nothing])
    assert first == Decision(
        answer="red",
        uncertainty=None,
        confidence=None,
        accepted=False,
        reason="no logprobs",
        threshold=scored.threshold,
        signals={},
        pending=frozenset({Feature.LOGPROBS}),
    )
    assert scored.accepted
    assert last.answer == ""
    assert not last.accepted


def test_a_threshold_for_every_category_and_none_for_the_unknown():
    records = answers(3000)
    correct = right_at(records)
    hard = np.array([r.example.question_type == "b" for r in records])
    correct[hard] = right_at(records, low=0.1, high=0.6)[hard]
    policy = fit_policy(
        ["sequence_probability"],
        labelled(records, correct),
        Target(risk=0.12, delta=0.1, per_group="question_type"),
    )
    assert policy.thresholds["a"] is not None
    assert policy.thresholds["b"] is None
    easy, hard_one, unknown, without = policy.decide(
        [
            answer("1", 0.98, question_type="a"),
            answer("2", 0.98, question_type="b"),
            answer("3", 0.98, question_type="c"),
            answer("4", 0.98),
        ]
    )
    assert easy.accepted
    assert easy.category == "a"
    assert hard_one.reason == "no threshold is certified for question_type 'b'"
    assert unknown.reason == "question_type 'c' was not among the labelled answers"
    assert without.reason == "the question has no question_type, which the threshold goes by"
    assert [d.accepted for d in (hard_one, unknown, without)] == [False] * 3
    assert hard_one.confidence == easy.confidence


def test_categories_may_come_from_meta_data():
    records = tuple(
        replace(r, example=replace(r.example, meta={"level": i % 2}))
        for i, r in enumerate(answers(2000))
    )
    target = Target(risk=0.15, delta=0.1, per_group="level")
    policy = fit_policy(["perplexity"], labelled(records, right_at(records)), target)
    assert set(policy.thresholds) == {"0", "1"}
    with pytest.raises(UsageError, match="No answer to calibrate or certify on has 'colour'"):
        fit_policy(
            ["perplexity"],
            labelled(records, right_at(records)),
            replace(target, per_group="colour"),
        )


def test_sets_that_could_only_hold_all_options_are_refused():
    records, correct = choices(60, counts=(3,))
    data = labelled(records, correct)
    with pytest.raises(DataError, match=r"groups on which .* 99 are required.*--sets-level"):
        fit_policy(["sequence_probability"], data, Target(None, 0.9), sets=SetsTarget(level=0.99))
    free = [replace(r, example=replace(r.example, references=())) for r in records]
    with pytest.raises(DataError, match=r"^0 of \d+ groups .* 4 are required.*--options"):
        fit_policy(
            ["sequence_probability"], labelled(free, correct), Target(None, 0.9),
            sets=SetsTarget(level=0.8),
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["lac", "aps", "raps"])
def test_prediction_sets_hold_the_right_option_at_their_rate(kind):
    records, correct = choices(1200, counts=(2, 4, 6))
    policy = fit_policy(
        ["sequence_probability"],
        labelled(records, correct),
        Target(risk=0.2),
        sets=SetsTarget(kind=kind, level=0.8),
    )
    fresh, _ = choices(2000, seed=9, counts=(2, 4, 6))
    decisions = policy.decide(fresh)
    held = [
        r.example.references[0] in d.prediction_set for r, d in zip(fresh, decisions, strict=True)
    ]
    # 840 rows fit the quantile: three standard errors of both samples.
    spread = 3 * (0.16 / 840 + 0.16 / 2000) ** 0.5
    assert np.mean(held) >= 0.8 - spread
    if kind == "lac":
        assert np.mean(held) <= 0.8 + spread + 0.05
    assert all(set(d.prediction_set) <= set(r.example.letters)
               for r, d in zip(fresh, decisions, strict=True))  # fmt: skip
    assert all(d.prediction_set for d in decisions)
    (free,) = policy.decide([answer("x", 0.9)])
    assert free.prediction_set is None
    assert Feature.OPTION_LOGPROBS in policy.needs


def test_a_fusion_shows_the_scores_of_its_members():
    records = answers(900)
    policy = fit_policy(
        ["fusion:members=sequence_probability+perplexity"],
        labelled(records, right_at(records), (0.3, 0.3, 0.4)),
        Target(risk=0.2),
    )
    (decision,) = policy.decide(records[:1])
    assert set(decision.signals) == {
        "fusion:members=sequence_probability+perplexity",
        "sequence_probability",
        "perplexity",
    }
    own = ESTIMATORS["perplexity"].uncertainty(records[:1])[0]
    assert decision.signals["perplexity"] == own
    assert policy.evidence.fitted_on.rows > 0


def test_only_the_settings_that_its_signals_depend_on_count():
    asked = Request(n_samples=5, temperature=0.7, seed=3, asks=("p_true", "self_check"), blank=True)
    assert narrowed(asked, frozenset({Feature.LOGPROBS})) == Request(
        n_samples=0, top_k_logprobs=0, blank=False
    )
    sampled = narrowed(asked, frozenset({Feature.SAMPLES, Feature.P_TRUE}))
    assert (sampled.n_samples, sampled.temperature, sampled.asks) == (5, 0.7, ("p_true",))


@pytest.mark.parametrize(
    "spec", ["linear_probe", "saplma", "mahalanobis:layer=2", "harmony:inputs=prob+hidden"]
)
def test_of_the_hidden_layers_those_are_observed_that_are_read_and_confidences_stay(spec):
    pytest.importorskip("torch", reason="the models extra is not installed")
    records, correct = told_by_layer(2, 400)
    data = labelled(records, correct, fractions=(0.4, 0.3, 0.3))
    policy = fit_policy([spec], data, Target(None, 0.9))
    asked = Request(layers=(0.25, 0.5, 0.75), top_k_logprobs=0)
    assert policy.observed_by(asked, 0) == replace(asked, layers=(2,))
    narrow = [of_layer(record, 2) for record in records]
    assert policy.decide(narrow) == policy.decide(records)


def of_layer(record, layer):
    """The record as if this layer alone had been observed."""
    at = record.layers.index(layer)
    arrays = {feature: array[at : at + 1] for feature, array in record.features.items()}
    return replace(record, features=arrays, layers=(layer,))


def test_where_a_stage_goes_by_the_layers_that_are_there_all_are_observed(policy):
    first, asked = policy.stages[0], Request(layers=(0.5, 1.0), n_samples=4, top_k_logprobs=0)
    estimator = ESTIMATORS["eigenscore"]
    other = replace(first, name="eigenscore", estimator=estimator)
    cascade = replace(policy, stages=(replace(first, undecided=(0.2, 0.8)), other))
    assert cascade.observed_by(asked, 0) == Request(top_k_logprobs=0)
    assert cascade.observed_by(asked, 1) == replace(asked, sample_hidden=True)
    named = replace(other, estimator=replace(estimator, layer="7"))
    cascade = replace(policy, stages=(replace(first, undecided=(0.2, 0.8)), named))
    assert cascade.observed_by(asked, 1) == replace(asked, sample_hidden=True, layers=(7,))


def test_sets_use_every_group_that_has_a_question_with_options():
    """Groups of one free question and one of choice: the free one is no reason to lose a group."""
    chosen, correct = choices(200, counts=(4,))
    records, marks = [], []
    for record, mark in zip(chosen, correct, strict=True):
        group = record.example.id
        records += [
            replace(record, example=replace(record.example, group=group)),
            *(answer(f"{group}-{k}", 0.9, group=group) for k in range(3)),
        ]
        marks += [mark, 1.0, 1.0, 1.0]
    data = labelled(tuple(records), marks)
    policy = fit_policy(
        ["sequence_probability"], data, Target(None, 0.9), sets=SetsTarget("options", "lac", 0.9)
    )
    assert policy.sets.conformal.n == 140


def test_how_far_thin_sets_can_be_relied_on_is_kept():
    records, correct = choices(17, counts=(4,))
    data = labelled(records, correct)
    policy = fit_policy(
        ["sequence_probability"], data, Target(None, 0.9), sets=SetsTarget(kind="lac")
    )
    fit = policy.evidence.sets
    assert policy.sets.conformal.n == fit.coverage.n == 12
    assert fit.coverage.low == pytest.approx(0.025 ** (1 / 12))
    assert fit.coverage.high == pytest.approx(0.975 ** (1 / 12))
    assert 1.0 <= fit.size <= fit.options == 4.0
    document = policies._evidence(policy)["sets"]
    assert (document["conformal"]["n"], document["size"]) == (12, fit.size)
    (line, size) = policy_lines._sets_lines(policy, policy.sets.conformal, fit)
    assert "fitted on 12, one a group, this fit does in 73.5% to 99.8%" in line
    assert line.endswith("or more, as the likeliest option is in every set")
    assert "of 4 options in a set" in size


def test_a_coverage_at_which_nothing_can_be_bounded_promises_nothing():
    records = answers(40)
    policy = fit_policy(
        ["sequence_probability"], labelled(records, np.zeros(40)), Target(None, 0.5)
    )
    assert not policy.evidence.met
    (promise,) = policy.evidence.promises
    assert "28 of 28 accepted answers of 28 groups wrong at this coverage" in promise.why_not
