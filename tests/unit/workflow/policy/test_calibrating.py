"""Calibrating on a run and applying to another: what is written, measured and refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from policy_records import answer, answers, right_at

from sightline.calibration.risk_control import smallest_accepted
from sightline.cli import policy_lines
from sightline.core.errors import (
    AntiInformativeError,
    DataError,
    DiskError,
    LeakageError,
    MissingFeatureError,
    UsageError,
)
from sightline.core.types import Generation
from sightline.store.run import Manifest, RunStore
from sightline.workflow.evaluate import Settings
from sightline.workflow.policy import load_policy
from sightline.workflow.policy.applying import apply_policy, check_run, write_decisions
from sightline.workflow.policy.calibrating import Plan, calibrate, request_of_run
from sightline.workflow.policy.certifying import _planned
from sightline.workflow.policy.evidence import Target

SETTINGS = {"request": {"max_new_tokens": 8, "n_samples": 0}, "decode_policy": "1"}
LIKELIHOOD = ["sequence_probability"]


def write_run(path, records, *, settings=SETTINGS, **model):
    store = RunStore.create(
        path,
        Manifest(
            run_id="run",
            created="2026-01-01T00:00:00+00:00",
            kind="imported",
            model={"name": "known", "revision": "1", **model},
            dataset={"name": "synthetic"},
            settings=settings,
            versions={},
            shard_size=10_000,
        ),
        [r.example for r in records],
    )
    with store.writer() as writer:
        writer.commit(0, records, ())
    return path


def graded(n=900, *, per_group=3, seed=0, prefix="e", low=0.45, high=0.98):
    """Answers that say red where they are right and blue where they are wrong."""
    records = answers(n, per_group=per_group, seed=seed, prefix=prefix)
    right = right_at(records, low=low, high=high, seed=seed + 100)
    return marked(records, right)


def marked(records, right):
    return [
        replace(r, greedy=replace(r.greedy, text="red" if ok else "blue"))
        for r, ok in zip(records, right, strict=True)
    ]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", graded())


def test_the_policy_knows_where_it_comes_from_and_what_it_achieved(run, tmp_path):
    said = []
    policy = calibrate(
        run,
        LIKELIHOOD,
        tmp_path / "p",
        Target(risk=0.25),
        Plan(hold_out=0.2),
        announce=said.append,
    )
    evidence = load_policy(tmp_path / "p").evidence
    assert evidence == policy.evidence
    sizes = [evidence.fitted_on, evidence.calibrated_on, evidence.certified_on]
    assert [part.groups for part in sizes] == [0, 72, 168]
    assert evidence.tested.groups == 60
    assert evidence.origin.model["name"] == "known"
    assert evidence.origin.request["max_new_tokens"] == 8
    assert evidence.origin.split == {"seed": 0, "fractions": [0.0, 0.3, 0.7], "hold_out": 0.2}
    (promise,) = evidence.promises
    assert promise.guarantee.threshold is not None
    assert promise.units == 168
    assert promise.smallest == 11
    assert evidence.tested.risk.low < 0.25
    assert sum(b.n for b in evidence.reliability) == 504
    # The smallest number that could pass is said before anything is fitted.
    assert "at least 11 accepted answers" in said[0]
    assert "to certify on: 504 (168 groups)" in said[1]


def test_it_is_applied_to_another_run_of_the_same_model_and_measured(run, tmp_path):
    calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.25))
    policy = load_policy(tmp_path / "p")
    fresh = graded(600, seed=7, prefix="f")
    other = write_run(tmp_path / "other", fresh)
    result = apply_policy(other, policy)
    accepted = np.array([d.accepted for d in result.decisions])
    wrong = np.array([r.answer.text == "blue" for r in result.records])
    assert len(result.decisions) == 600
    assert result.achieved.coverage.value == pytest.approx(accepted.mean())
    assert result.achieved.risk.value == pytest.approx(wrong[accepted].mean())
    assert result.achieved.risk.low < 0.25
    assert result.left_out == 0
    write_decisions(tmp_path / "d.jsonl", result)
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [line["accepted"] for line in lines] == accepted.tolist()
    assert [line["correct"] for line in lines] == (1.0 - wrong).tolist()
    assert lines[0]["id"] == result.records[0].example.id
    ungraded = apply_policy(other, policy, graded=False)
    assert ungraded.achieved is None
    assert ungraded.decisions == result.decisions


def test_groups_it_was_fitted_on_are_refused_or_left_out(run, tmp_path):
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.25), Plan(hold_out=0.2))
    with pytest.raises(LeakageError, match=r"fitted on 240 group\(s\)") as error:
        apply_policy(run, policy)
    assert "--unseen" in str(error.value)
    result = apply_policy(run, policy, unseen=True)
    assert result.left_out == 720
    assert result.achieved == policy.evidence.tested
    everything = calibrate(run, LIKELIHOOD, tmp_path / "all", Target(risk=0.25))
    with pytest.raises(DataError, match="all of them in groups"):
        apply_policy(run, everything, unseen=True)


def test_another_model_and_other_decoding_are_refused_in_one_line(run, tmp_path):
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.25))
    records = graded(30, prefix="x")

    def refused(match, **changes):
        path = write_run(tmp_path / match.replace(" ", ""), records, **changes)
        with pytest.raises(UsageError, match=match) as error:
            apply_policy(path, policy)
        assert "\n" not in str(error.value)

    refused("differing in revision", revision="2")
    refused("differing in dtype", dtype="bfloat16")
    asked = {**SETTINGS, "request": {"max_new_tokens": 64}}
    refused("max_new_tokens 64 for 8", settings=asked)
    refused("answers recorded by another tool", settings={"import": "jsonl"})
    refused("pictures decoded by '2'", settings={**SETTINGS, "decode_policy": "2"})
    # More samples change nothing for a policy that reads none.
    sampled = {**SETTINGS, "request": {"max_new_tokens": 8, "n_samples": 20, "seed": 9}}
    check_run(policy, RunStore.open(write_run(tmp_path / "s", records, settings=sampled)))


def test_files_decide_not_the_name_of_the_directory(tmp_path):
    run = write_run(tmp_path / "run", graded(), files_xxh3="abc")
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.25))
    moved = {**RunStore.open(run).manifest.model, "name": "/elsewhere"}
    policy.check_model(moved)
    with pytest.raises(UsageError, match="files_xxh3"):
        policy.check_model({**moved, "files_xxh3": "abd"})


def test_whether_seeds_are_heeded_makes_no_other_model(tmp_path):
    can = {"seed": True, "n": True}
    seen = {"capabilities": can, "samples": "8 a request, seeded"}
    policy = calibrate(
        write_run(tmp_path / "run", graded(), **seen), LIKELIHOOD, tmp_path / "p", Target(risk=0.25)
    )
    found = {**RunStore.open(tmp_path / "run").manifest.model}
    without = {"capabilities": {**can, "seed": False}, "samples": "8 a request, without a seed"}
    policy.check_model({**found, **without})
    with pytest.raises(UsageError, match="capabilities n False for True"):
        policy.check_model({**found, "capabilities": {**can, "n": False}})


def test_recorded_answers_have_no_request(tmp_path):
    run = write_run(tmp_path / "run", graded(), settings={"import": "jsonl"})
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.25))
    assert policy.request is None
    assert request_of_run(RunStore.open(run)) is None
    policy.check_request(None)


def test_other_correctness_is_announced(run, tmp_path):
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.25))
    other = write_run(tmp_path / "other", graded(300, seed=3, prefix="o"))
    said = []
    apply_policy(other, policy, Settings(grader="token_f1"), announce=said.append)
    assert "its promise is about the latter" in said[0]


def not_met(run, output, target=Target(), **more):  # noqa: B008 (frozen)
    policy = calibrate(run, LIKELIHOOD, output, target, **more)
    assert not policy.evidence.met
    (promise,) = policy.evidence.promises
    assert not any(d.accepted for d in policy.decide(answers(20, seed=8)))
    assert load_policy(output).evidence.promises == (promise,)
    return promise.why_not


def test_what_cannot_be_certified_says_so_and_gives_the_closest(run, tmp_path):
    why = not_met(run, tmp_path / "p", Target(risk=0.02))
    assert why.startswith("the closest of")
    assert "of at most" in why
    assert "alone a risk" in why


def test_twenty_labels_are_too_few(tmp_path):
    run = write_run(tmp_path / "run", graded(20, per_group=1))
    said = []
    why = not_met(run, tmp_path / "p", announce=said.append)
    assert why == (
        "14 independent answers to test on; at least 59, all accepted and right, are needed to "
        "certify a risk of 5.0%"
    )
    assert "14 groups to certify on are too few for this risk whatever is fitted." in said


def test_all_wrong_is_never_accepted(tmp_path):
    records = answers(300)
    run = write_run(tmp_path / "run", marked(records, np.zeros(300)))
    assert "wrong (100.0%)" in not_met(run, tmp_path / "p")


def test_all_right_is_accepted_whole_on_the_base_rate(tmp_path):
    records = answers(300)
    run = write_run(tmp_path / "run", marked(records, np.ones(300)))
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target())
    assert policy.evidence.calibration == "base rate"
    (promise,) = policy.evidence.promises
    assert promise.achieved.coverage.value == 1.0
    assert policy.evidence.auroc.value is None
    few = write_run(tmp_path / "few", marked(records[:60], np.ones(60)))
    assert not_met(few, tmp_path / "q").startswith("42 independent")


def test_one_group_and_no_group_are_one_line(tmp_path):
    records = graded(30, per_group=30)
    run = write_run(tmp_path / "run", records)
    with pytest.raises(DataError, match=r"30 rows in 1 group") as error:
        calibrate(run, LIKELIHOOD, tmp_path / "p", Target())
    assert "\n" not in str(error.value)
    # Without a group column every answer is its own group.
    single = [answer(f"s{i}", 0.5 + i / 100) for i in range(40)]
    policy = calibrate(
        write_run(tmp_path / "single", marked(single, np.arange(40) % 2)),
        LIKELIHOOD,
        tmp_path / "q",
        Target(),
    )
    assert policy.evidence.certified_on.groups == policy.evidence.certified_on.rows == 28


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, 1.5])
def test_risks_and_deltas_that_nobody_can_promise_are_refused(wrong):
    for settings in ({"risk": wrong}, {"delta": wrong}):
        with pytest.raises(UsageError, match="above 0 and below 1"):
            Target(**settings)


def test_a_target_is_a_risk_or_a_coverage():
    with pytest.raises(UsageError, match="exactly one"):
        Target(risk=0.1, coverage=0.5)
    with pytest.raises(UsageError, match="exactly one"):
        Target(risk=None)
    for coverage in (0.0, 1.1):
        with pytest.raises(UsageError, match="Coverage"):
            Target(risk=None, coverage=coverage)


def test_missing_signals_name_what_is_missing_and_what_to_do(run, tmp_path):
    with pytest.raises(MissingFeatureError, match="no samples") as error:
        calibrate(run, ["sample_agreement"], tmp_path / "p", Target())
    assert "Collect or import" in str(error.value)
    bare = [replace(r, greedy=Generation(r.answer.text)) for r in graded(90)]
    with pytest.raises(MissingFeatureError, match="no logprobs"):
        calibrate(write_run(tmp_path / "bare", bare), LIKELIHOOD, tmp_path / "p", Target())


def test_answers_without_the_signal_count_as_not_accepted(tmp_path):
    records = graded(900)
    bare = [replace(r, greedy=Generation(r.answer.text)) if i % 3 == 0 else r
            for i, r in enumerate(records)]  # fmt: skip
    run = write_run(tmp_path / "run", bare)
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=None, coverage=1.0))
    (promise,) = policy.evidence.promises
    assert promise.achieved.coverage.value == pytest.approx(2 / 3)
    assert policy.evidence.skipped[0].reason == "no logprobs"


def test_a_score_that_ranks_the_wrong_way_is_an_error(tmp_path):
    run = write_run(tmp_path / "run", graded(900, low=0.95, high=0.2))
    with pytest.raises(AntiInformativeError, match="AUROC"):
        calibrate(run, LIKELIHOOD, tmp_path / "p", Target())
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("plan", "match"),
    [
        (Plan(calibrator="magic"), "Calibrator 'magic' is unknown"),
        (Plan(hold_out=1.0), "Hold-out 1"),
        (Plan(fractions=(0.5, 0.5, 0.0)), "no row for test"),
        (Plan(budget=3.0), "only a cascade"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(run, tmp_path, plan, match):
    with pytest.raises(UsageError, match=match) as error:
        calibrate(run, LIKELIHOOD, tmp_path / "p", Target(), plan)
    assert "\n" not in str(error.value)


def test_a_given_split_decides_the_parts(run, tmp_path):
    groups = sorted({r.example.group for r in graded()})
    given = {g: ("calibration" if i < 100 else "test") for i, g in enumerate(groups)}
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.3), given_split=given)
    assert policy.evidence.calibrated_on.groups == 100
    assert policy.evidence.certified_on.groups == 200
    assert policy.evidence.origin.split == {"given": True}
    with pytest.raises(UsageError, match="--hold-out with --split"):
        calibrate(run, LIKELIHOOD, tmp_path / "q", Target(), Plan(hold_out=0.2), given_split=given)


def test_a_place_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not empty"):
        calibrate(run, LIKELIHOOD, tmp_path / "file", Target())
    with pytest.raises(DiskError) as error:
        calibrate(run, LIKELIHOOD, tmp_path / "file" / "p", Target(risk=0.25))
    assert "\n" not in str(error.value)


def test_what_could_ever_pass_is_said_of_the_unit_and_the_method_asked_for(run, tmp_path):
    def said(name, target):
        lines = []
        policy = calibrate(run, LIKELIHOOD, tmp_path / name, target, announce=lines.append)
        return lines, policy.evidence.promises[0]

    lines, promise = said("groups", Target(risk=0.05, unit="groups"))
    assert "at least 80 groups to test on" in lines[0]
    assert promise.smallest == 80
    lines, promise = said("bonferroni", Target(risk=0.1, method="bonferroni"))
    assert "at least 29 accepted answers" in lines[0]
    assert "and 57 where 20 thresholds share the 0.05" in lines[0]
    assert promise.smallest == 57
    lines, _ = said("tiny", Target(risk=0.0001))
    assert lines[0].startswith("A risk of 0.01% with 95% certainty takes at least 29,956")


def test_categories_with_too_few_groups_are_named_before_anything_is_fitted(tmp_path):
    records = graded(900, per_group=1)
    rare = [
        replace(r, example=replace(r.example, question_type="rare" if i % 30 == 0 else "often"))
        for i, r in enumerate(records)
    ]
    run = write_run(tmp_path / "run", rare)
    said = []
    target = Target(risk=0.1, per_group="question_type")
    calibrate(run, LIKELIHOOD, tmp_path / "p", target, announce=said.append)
    (line,) = [line for line in said if "too few groups" in line]
    assert line.startswith("1 of 2 values of question_type have too few groups to certify on")
    assert "rare (" in line
    assert "often" not in line


def test_few_groups_to_fit_on_are_said_and_kept(tmp_path):
    run = write_run(tmp_path / "run", graded(240, per_group=8))
    said = []
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(None, 0.9), announce=said.append)
    part = load_policy(tmp_path / "p").evidence.calibrated_on
    assert part == policy.evidence.calibrated_on
    assert part.groups == 9
    assert part.few == f"only {min(part.right_groups, part.wrong_groups)} groups with " + (
        "wrong answers" if part.wrong_groups <= part.right_groups else "right answers"
    )
    assert any(part.few in line and "loose" in line for line in said)
    right = write_run(tmp_path / "right", marked(answers(240, per_group=8), np.ones(240)))
    sure = calibrate(right, LIKELIHOOD, tmp_path / "sure", Target(None, 0.9))
    assert sure.evidence.calibrated_on.few == "no groups with wrong answers"
    many = []
    other = write_run(tmp_path / "many", graded(900, per_group=1))
    enough = calibrate(other, LIKELIHOOD, tmp_path / "q", Target(None, 0.9), announce=many.append)
    assert enough.evidence.calibrated_on.few is None
    assert not any("loose" in line for line in many)


def test_a_promise_about_groups_is_held_against_groups(run, tmp_path):
    """One group of 300 wrong answers among 150 of a right one: the promise is about groups."""
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.25))
    sure = [answer(f"s{i}", 0.97, group=f"s{i}") for i in range(150)]
    large = [answer(f"l{i}", 0.97, group="large") for i in range(300)]
    other = write_run(tmp_path / "other", marked([*sure, *large], [1.0] * 150 + [0.0] * 300))
    result = apply_policy(other, policy)
    assert result.achieved.risk.value == pytest.approx(300 / 450)
    assert result.achieved.group_risk.value == pytest.approx(1 / 151)
    assert result.kept == {None: True}
    (_, verdict) = policy_lines.application_lines(policy, result)
    assert verdict == "That agrees with the promise of at most 25.0% wrong."
    turned = marked([*sure, *large], [0.0] * 150 + [1.0] * 300)
    result = apply_policy(write_run(tmp_path / "turned", turned), policy)
    assert result.kept == {None: False}


def test_too_few_answers_tell_nothing_of_a_promise(run, tmp_path):
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.25))
    few = marked([answer(f"s{i}", 0.97) for i in range(6)], [1.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    result = apply_policy(write_run(tmp_path / "few", few), policy)
    assert result.kept == {None: None}
    *_, verdict = policy_lines.application_lines(policy, result)
    assert "cannot be told" in verdict


def test_the_bound_at_a_coverage_is_held_against_what_is_measured(run, tmp_path):
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(None, 0.5))
    records = [answer(f"s{i}", 0.97) for i in range(200)]
    for name, right, kept in (("good", 1.0, True), ("bad", 0.0, False)):
        path = write_run(tmp_path / name, marked(records, [right] * 200))
        assert apply_policy(path, policy).kept == {None: kept}


def test_every_category_is_held_against_its_own_promise(tmp_path):
    run = write_run(tmp_path / "run", graded(2400, per_group=1, low=0.7))
    policy = calibrate(run, LIKELIHOOD, tmp_path / "p", Target(risk=0.2, per_group="question_type"))
    records = [answer(f"s{i}", 0.97, question_type="ab"[i % 2]) for i in range(400)]
    path = write_run(tmp_path / "other", marked(records, [1.0, 0.0] * 200))
    result = apply_policy(path, policy)
    assert result.kept == {"a": True, "b": False}
    text = "\n".join(policy_lines.application_lines(policy, result))
    assert "breaks the promise of at most 20.0% wrong for question_type b" in text


def test_groups_as_units_begin_where_so_many_groups_can_pass():
    """Right above a confidence of .65, so that the surest thresholds begin at few answers."""
    starts = {}
    for unit in ("one_per_group", "groups"):
        found = []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            confidence = rng.random(240)
            correct = (rng.random(240) < np.clip(0.6 + 0.6 * confidence, 0.0, 1.0)).astype(float)
            found.append(_planned(confidence, correct, Target(0.05, unit=unit), 187)[0])
        starts[unit] = 187 * (1.0 - np.mean(found))
    smallest = smallest_accepted(0.05, 0.05, "groups")
    assert starts["one_per_group"] < smallest < starts["groups"]
