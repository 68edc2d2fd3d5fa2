"""Evaluating runs whose truth is known."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

import sightline
from sightline.calibration import load_calibration
from sightline.core.column import Column, ColumnKind
from sightline.core.errors import DataError, LeakageError, MissingFeatureError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import LearnedEstimator
from sightline.core.results import Skipped, load_evaluation
from sightline.core.types import Example, Generation, ImageRef, Key, Quarantined, Record
from sightline.estimators import ESTIMATORS
from sightline.metrics.discrimination import auroc
from sightline.store.run import Manifest, RunStore
from sightline.workflow.evaluate import Settings, evaluate, read_judged
from sightline.workflow.scoring import score, settled

FAST = Settings(resamples=100, seeds=2)


def write_run(path, records, quarantined=(), **manifest):
    store = RunStore.create(
        path,
        Manifest(
            run_id="run",
            created="2026-01-01T00:00:00+00:00",
            kind="imported",
            model={"name": "known"},
            dataset={"name": "synthetic"},
            settings={},
            versions={},
            shard_size=10_000,
            **manifest,
        ),
        [r.example for r in records] + [Example(q.key.example_id, "?") for q in quarantined],
    )
    with store.writer() as writer:
        writer.commit(0, records, quarantined)
    return path


def known_records(n=400, *, seed=0, types=("colour", "count")):
    """Answers whose probability of being right is the recorded one."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.3, 0.99, n)
    right = rng.random(n) < p
    return [
        Record(
            Example(
                f"e{i}",
                "Which?",
                references=("red",),
                group=f"g{i // 2}",
                question_type=types[i % len(types)] if types else None,
            ),
            greedy=Generation("red" if right[i] else "blue", logprobs=np.log([p[i]])),
            features={Feature.RECORDED_CONFIDENCE: np.array(p[i])},
        )
        for i in range(n)
    ]


def test_a_run_on_other_examples_is_not_set_beside_this_one(tmp_path):
    own = write_run(tmp_path / "own", known_records(60))
    same = write_run(tmp_path / "same", known_records(60, seed=1))
    moved = [
        replace(r, example=replace(r.example, id=f"o{i}")) for i, r in enumerate(known_records(9))
    ]
    other = write_run(tmp_path / "other", moved)
    with pytest.raises(UsageError, match=r"other answers none of the examples of .*own; runs of"):
        evaluate(own, FAST, other_runs=[other])
    names = {e.name for e in evaluate(own, FAST, other_runs=[same]).evaluation.estimators}
    assert "model_agreement" in names


def by_name(evaluation):
    return {e.name: e for e in evaluation.estimators}


def test_raw_figures_equal_the_metric_on_all_rows(tmp_path):
    records = known_records()
    path = write_run(tmp_path / "run", records)
    evaluation = evaluate(path, FAST).evaluation
    result = by_name(evaluation)["recorded_confidence"]
    confidence = np.array([float(r.array(Feature.RECORDED_CONFIDENCE)) for r in records])
    correct = np.array([float(r.answer.text == "red") for r in records])
    assert result.raw["auroc"].value == pytest.approx(auroc(confidence, correct), abs=1e-12)
    assert result.raw["auroc"].n == result.scored == 400
    assert result.raw["ece"].value < 0.1
    assert evaluation.accuracy.value == pytest.approx(correct.mean())


def test_heldout_figures_are_means_over_seeds_of_the_metric_on_test_rows(tmp_path):
    from sightline.data.splits import split_groups

    records = known_records()
    path = write_run(tmp_path / "run", records)
    evaluation = evaluate(path, FAST).evaluation
    confidence = np.array([float(r.array(Feature.RECORDED_CONFIDENCE)) for r in records])
    correct = np.array([float(r.answer.text == "red") for r in records])
    expected = []
    for seed in (0, 1):
        test = split_groups([r.example.group for r in records], FAST.fractions, seed=seed).test
        expected.append(auroc(confidence[test], correct[test]))
    result = by_name(evaluation)["recorded_confidence"]
    assert result.heldout["auroc"].value == pytest.approx(np.mean(expected), abs=1e-12)
    low, high = result.heldout["auroc"].low, result.heldout["auroc"].high
    assert low < result.heldout["auroc"].value < high


def test_calibration_is_honest_for_a_score_that_is_a_probability(tmp_path):
    path = write_run(tmp_path / "run", known_records(2000))
    result = by_name(evaluate(path, FAST).evaluation)["recorded_confidence"]
    assert result.calibration == "fitted"
    assert result.heldout["ece"].value < 0.06


def test_controls_stand_beside_the_estimators(tmp_path):
    path = write_run(tmp_path / "run", known_records())
    results = by_name(evaluate(path, FAST).evaluation)
    controls = {name for name, e in results.items() if e.control}
    assert controls == {"question_type", "answer_length", "random"}
    assert results["random"].calibration == "base rate"
    assert results["question_type"].within_type.value == pytest.approx(0.5)
    assert not results["question_type"].raw


def test_an_anti_informative_score_gets_no_confidence(tmp_path):
    flipped = [
        replace(
            r,
            features={
                Feature.RECORDED_CONFIDENCE: np.array(1 - r.array(Feature.RECORDED_CONFIDENCE))
            },
        )
        for r in known_records()
    ]
    path = write_run(tmp_path / "run", flipped)
    result = by_name(evaluate(path, FAST).evaluation)["recorded_confidence"]
    assert result.heldout["auroc"].value < 0.5
    assert result.heldout["ece"].value is None
    assert "ranks right answers first is required" in result.heldout["ece"].reason
    assert result.reliability == ()
    assert result.confident_wrong == ()


def test_rows_an_estimator_cannot_score_are_counted(tmp_path):
    records = known_records()
    records[:40] = [replace(r, features={}) for r in records[:40]]
    path = write_run(tmp_path / "run", records)
    result = by_name(evaluate(path, FAST).evaluation)["recorded_confidence"]
    assert result.scored == 360
    assert [(s.reason, s.n) for s in result.skipped] == [("no recorded_confidence", 40)]
    others = by_name(evaluate(path, FAST).evaluation)
    assert others["answer_length"].scored == 400
    assert result.heldout["auroc"].n < others["answer_length"].heldout["auroc"].n


def test_the_difference_to_the_baseline_is_paired(tmp_path):
    path = write_run(tmp_path / "run", known_records())
    evaluation = evaluate(path, FAST).evaluation
    results = by_name(evaluation)
    baseline = results[evaluation.protocol.baseline]
    assert baseline.vs_baseline == {}
    difference = results["random"].vs_baseline["auroc"]
    expected = results["random"].heldout["auroc"].value - baseline.heldout["auroc"].value
    assert difference.value == pytest.approx(expected)
    assert difference.high < 0


def test_quarantined_empty_and_truncated_answers_are_reported(tmp_path):
    records = known_records()
    records[0] = replace(records[0], greedy=Generation("", finish_reason="length"))
    lost = [Quarantined(Key("lost", "clean"), "the image is damaged")]
    path = write_run(tmp_path / "run", records, lost, partial="--limit 5: 5 of 10")
    run = evaluate(path, FAST).evaluation.run
    assert (run.quarantined, run.empty_answers, run.truncated_answers) == (1, 1, 1)
    assert run.quarantine_reasons[0].reason == "the image is damaged"
    assert run.partial == "--limit 5: 5 of 10"


def test_no_within_type_figure_without_types(tmp_path):
    path = write_run(tmp_path / "run", known_records(types=()))
    result = by_name(evaluate(path, FAST).evaluation)["recorded_confidence"]
    assert result.within_type.value is None
    assert "no question type" in result.within_type.reason


@pytest.mark.parametrize("answer", ["red", "blue"])
def test_one_class_gives_reasons_and_no_crash(tmp_path, answer):
    records = [replace(r, greedy=Generation(answer)) for r in known_records(60)]
    path = write_run(tmp_path / "run", records)
    evaluation = evaluate(path, FAST).evaluation
    result = by_name(evaluation)["recorded_confidence"]
    assert result.heldout["auroc"].value is None
    assert result.heldout["auroc"].reason
    assert evaluation.accuracy.value == float(answer == "red")


def test_three_examples_give_reasons_and_no_crash(tmp_path):
    path = write_run(tmp_path / "run", known_records(6))
    evaluation = evaluate(path, FAST).evaluation
    assert all(e.heldout["auroc"].value is None for e in evaluation.estimators)


def test_groups_stay_together_in_the_sample_table(tmp_path):
    path = write_run(tmp_path / "run", known_records())
    table = evaluate(path, FAST).samples
    rows = table.select(["group", "split"]).to_pylist()
    split_of = {}
    for row in rows:
        assert split_of.setdefault(row["group"], row["split"]) == row["split"]
    assert set(split_of.values()) == {"train", "calibration", "test"}
    confidences = table["confidence.recorded_confidence"].to_pylist()
    assert all(
        (value is not None) == (row["split"] == "test")
        for value, row in zip(confidences, rows, strict=True)
    )


def test_a_given_split_is_used(tmp_path):
    records = known_records()
    given = {
        r.example.group: ("train", "calibration", "test")[int(r.example.group[1:]) % 3]
        for r in records
    }
    path = write_run(tmp_path / "run", records)
    outcome = evaluate(path, FAST, given_split=given)
    assert outcome.evaluation.protocol.seeds == (0,)
    for row in outcome.samples.select(["group", "split"]).to_pylist():
        assert row["split"] == given[row["group"]]


def test_stored_labels_win_over_grading(tmp_path):
    records = known_records()
    path = write_run(tmp_path / "run", records)
    labels = Column(
        "labels", ColumnKind.CORRECT, tuple(r.key for r in records), np.ones(len(records))
    )
    RunStore.open(path).write_column(labels)
    assert evaluate(path, FAST).evaluation.accuracy.value == 1.0
    graded = evaluate(path, replace(FAST, grader="exact")).evaluation
    assert graded.accuracy.value < 1.0


def test_unknown_names_are_errors_that_list_the_known(tmp_path):
    path = write_run(tmp_path / "run", known_records())
    with pytest.raises(UsageError, match="recorded_confidence"):
        evaluate(path, replace(FAST, estimators=("recorded_confidense",)))
    with pytest.raises(UsageError, match="platt"):
        evaluate(path, replace(FAST, calibrator="plat"))
    with pytest.raises(DataError, match="labels"):
        evaluate(path, replace(FAST, grader="labels"))


def test_named_estimators_of_which_none_sees_its_signal_are_an_error(tmp_path):
    path = write_run(tmp_path / "run", known_records())
    with pytest.raises(MissingFeatureError, match=r"no samples \(400 rows\)"):
        evaluate(path, replace(FAST, estimators=("sample_agreement",)))
    with pytest.raises(MissingFeatureError, match="nor can 1 others that were named"):
        evaluate(path, replace(FAST, estimators=("sample_agreement", "choice_margin")))


def test_a_named_estimator_without_its_signal_stops_no_other(tmp_path):
    path = write_run(tmp_path / "run", known_records())
    names = ("sample_agreement", "recorded_confidence")
    evaluation = evaluate(path, replace(FAST, estimators=names)).evaluation
    assert [e.name for e in evaluation.estimators] == ["recorded_confidence"]
    assert [(e.name, e.reasons) for e in evaluation.not_applicable] == [
        ("sample_agreement", (Skipped("no samples", 400),))
    ]


def test_scoring_everything_lists_what_no_record_shows():
    scored, lacking = score(known_records(20), None)
    assert "recorded_confidence" in {item.name for item in scored}
    reasons = {item.name: item.reasons for item in lacking}
    assert reasons["sample_agreement"] == (Skipped("no samples", 20),)
    assert {item.name for item in scored} | set(reasons) == {
        name
        for name, estimator in ESTIMATORS.items()
        if not (isinstance(estimator, LearnedEstimator) and estimator.slow)
    }


def test_ungradable_answers_are_an_error_that_says_what_to_do(tmp_path):
    records = [replace(r, example=replace(r.example, references=())) for r in known_records(20)]
    path = write_run(tmp_path / "run", records)
    with pytest.raises(DataError, match="--to-label"):
        evaluate(path, FAST)


def test_results_survive_the_round_trip_to_disk(tmp_path):
    path = write_run(tmp_path / "run", known_records())
    evaluation = sightline.evaluate(path, FAST)
    assert load_evaluation(path / "evaluation" / "results.json") == evaluation
    assert pq.read_table(path / "evaluation" / "samples.parquet").num_rows == 400


def test_row_order_does_not_matter(tmp_path):
    records = known_records()
    first = evaluate(write_run(tmp_path / "a", records), FAST).evaluation
    second = evaluate(write_run(tmp_path / "b", records[::-1]), FAST).evaluation
    for name, result in by_name(first).items():
        assert by_name(second)[name].heldout["auroc"] == result.heldout["auroc"], name


def test_equal_recorded_probabilities_stay_ties(tmp_path):
    rng = np.random.default_rng(0)
    records = []
    for i in range(300):
        p = int(rng.integers(5, 10)) / 10
        rest = rng.dirichlet((1, 1, 1)) * (1 - p)
        right = rng.random() < p
        records.append(
            Record(
                Example(f"e{i}", "Which?", choices=("a", "b", "c", "d"), references=("A",)),
                greedy=Generation("A" if right else "B"),
                features={
                    Feature.LETTER_LOGPROBS: np.log([p, *rest]),
                    Feature.RECORDED_CONFIDENCE: np.array(p),
                },
            )
        )
    scored = {s.name: s for s in score(records, None)[0]}
    exact = scored["recorded_confidence"].uncertainty
    assert np.array_equal(scored["choice_max_probability"].uncertainty, exact)
    assert len(np.unique(exact)) == 5


@pytest.mark.parametrize(("value", "kept"), [(1e-9, 1e-9), (-1234.5, -1234.5), (0.1 + 0.2, 0.3)])
def test_settled_scores_keep_twelve_digits(value, kept):
    assert settled(np.array([value]))[0] == kept


def test_rows_with_too_few_tokens_are_counted_and_the_others_scored(tmp_path):
    records = [
        replace(r, features={Feature.TOP_LOGPROBS: np.log([[0.5, 0.3][: 1 if i % 4 == 0 else 2]])})
        for i, r in enumerate(known_records(200))
    ]
    evaluation = evaluate(write_run(tmp_path / "run", records), FAST).evaluation
    result = by_name(evaluation)["min_token_margin"]
    assert result.scored == 150
    assert [(s.n, "fewer than 2 tokens" in s.reason) for s in result.skipped] == [(50, True)]


def test_held_out_rows_that_a_fitted_estimator_refuses_are_counted_once(tmp_path):
    tokens = [1 if i % 4 == 0 else 2 for i in range(200)]
    records = [
        replace(
            r,
            features={**r.features, Feature.TOP_LOGPROBS: np.log([[0.5, 0.3][: tokens[i]]])},
        )
        for i, r in enumerate(known_records(200))
    ]
    path = write_run(tmp_path / "run", records)
    name = "fusion:members=recorded_confidence+min_token_margin"
    settings = replace(FAST, estimators=(name,), seeds=3)
    result = by_name(evaluate(path, settings).evaluation)[name]
    ((reason, n),) = [(s.reason, s.n) for s in result.skipped]
    assert "fewer than 2 tokens" in reason
    held_out = {
        i
        for split in read_judged(RunStore.open(path), settings, set()).rows.splits
        for i in (*split.calibration, *split.test)
    }
    assert n == sum(tokens[i] == 1 for i in held_out)


def test_an_estimator_that_refuses_every_row_is_left_out_or_named(tmp_path):
    records = [
        replace(r, features={Feature.TOP_LOGPROBS: np.log([[0.5]])}) for r in known_records(200)
    ]
    path = write_run(tmp_path / "run", records)
    evaluation = evaluate(path, FAST).evaluation
    assert "min_token_margin" not in by_name(evaluation)
    (listed,) = [e for e in evaluation.not_applicable if e.name == "min_token_margin"]
    assert [(s.n, "fewer than 2 tokens" in s.reason) for s in listed.reasons] == [(200, True)]
    with pytest.raises(MissingFeatureError, match="fewer than 2 tokens"):
        evaluate(path, replace(FAST, estimators=("min_token_margin",)))


def test_a_recorded_score_that_is_no_probability_is_ranked_only(tmp_path):
    records = [
        replace(
            r,
            features={
                Feature.RECORDED_CONFIDENCE: np.array(100 * r.features[Feature.RECORDED_CONFIDENCE])
            },
        )
        for r in known_records()
    ]
    result = by_name(evaluate(write_run(tmp_path / "run", records), FAST).evaluation)[
        "recorded_confidence"
    ]
    assert result.raw["auroc"].value > 0.6
    assert "ece" not in result.raw
    assert result.heldout["ece"].value is not None


def test_option_scores_that_some_rows_lack_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    records = [
        replace(
            r,
            example=replace(r.example, choices=("red", "blue"), references=("A",)),
            greedy=Generation("A" if r.answer.text == "red" else "B"),
            features={} if i < 12 else {Feature.OPTION_LOGPROBS: np.log(rng.dirichlet((1, 1)))},
        )
        for i, r in enumerate(known_records())
    ]
    result = by_name(evaluate(write_run(tmp_path / "run", records), FAST).evaluation)
    assert result["option_margin"].scored == 388
    assert result["option_margin"].skipped == (Skipped("no option_logprobs", 12),)


def test_a_split_of_one_class_is_left_out_of_the_mean_and_said(tmp_path):
    records = known_records(100)
    wrong = {4, 30, 31}
    records = [
        replace(r, greedy=Generation("blue" if i in wrong else "red"))
        for i, r in enumerate(records)
    ]
    path = write_run(tmp_path / "run", records)
    evaluation = evaluate(path, replace(FAST, seeds=5)).evaluation
    estimate = by_name(evaluation)["recorded_confidence"].heldout["auroc"]
    assert estimate.value is not None
    assert re.fullmatch(r"mean over [1-4] of 5 splits; the others .*", estimate.reason)


def test_a_calibrator_of_probabilities_leaves_other_scores_uncalibrated(tmp_path):
    path = write_run(tmp_path / "run", known_records())
    results = by_name(evaluate(path, replace(FAST, calibrator="temperature")).evaluation)
    assert results["recorded_confidence"].calibration == "fitted"
    other = results["negative_log_likelihood"]
    assert other.calibration == "temperature calibrates probabilities only, and this score is none"
    assert other.heldout["auroc"].value is not None
    assert "probabilities only" in other.heldout["ece"].reason


def test_calibrations_give_the_confidences_of_the_samples(tmp_path):
    outcome = evaluate(write_run(tmp_path / "run", known_records()), FAST)
    saved = outcome.calibrations["estimators"]["recorded_confidence"]
    assert [split["seed"] for split in saved["splits"]] == [0, 1]
    fit = load_calibration(saved["splits"][0]["calibration"])
    table = outcome.samples
    test = np.array(table["split"].to_pylist()) == "test"
    u = table["uncertainty.recorded_confidence"].to_numpy()[test]
    confidence = table["confidence.recorded_confidence"].to_numpy()[test]
    np.testing.assert_allclose(fit.confidence(u), confidence)


def test_an_unfinished_run_is_stamped(tmp_path):
    records = known_records(100)
    store = RunStore.open(write_run(tmp_path / "whole", records))
    cut = RunStore.create(
        tmp_path / "cut", replace(store.manifest, shard_size=40), [r.example for r in records]
    )
    with cut.writer() as writer:
        writer.commit(0, records[:40])
        writer.commit(1, records[40:80])
    partial = evaluate(cut.path, FAST).evaluation.run.partial
    assert partial.startswith("80 of 100 examples collected")
    assert evaluate(store.path, FAST).evaluation.run.partial is None


def test_part_marks_are_shown_beside_the_accuracy_they_are_cut_to(tmp_path):
    records = known_records(60)
    store = RunStore.open(write_run(tmp_path / "run", records))
    marks = np.where(np.arange(60) % 3 == 0, 0.6, 0.3)
    store.write_column(
        Column("labels", ColumnKind.CORRECT, tuple(r.key for r in records), marks, {})
    )
    at_half = evaluate(store.path, FAST).evaluation
    assert at_half.accuracy.value == pytest.approx(1 / 3)
    assert at_half.mean_correctness.value == pytest.approx(0.4)
    assert at_half.protocol.threshold == 0.5
    low = evaluate(store.path, replace(FAST, threshold=0.3)).evaluation
    assert low.accuracy.value == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": (0.5, 0.5, 0.0)}, "leave no row for test"),
        ({"fractions": (0.5, 0.0, 0.5)}, "leave no row for calibration"),
        ({"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"threshold": 0.0}, "above 0, at most 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_first(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        evaluate(tmp_path / "absent", replace(FAST, **settings))


def with_images(records, hash_of):
    return [
        replace(r, example=replace(r.example, images=(ImageRef(f"{i}.png", hash_of(i)),)))
        for i, r in enumerate(records)
    ]


def test_a_given_split_with_one_image_on_both_sides_is_refused(tmp_path):
    records = with_images(known_records(100), lambda i: f"{i % 99:064x}")
    path = write_run(tmp_path / "run", records)
    parts = {
        f"g{i}": ("train", "calibration", "test")[0 if i == 0 else 2 if i == 49 else i % 3]
        for i in range(50)
    }
    with pytest.raises(LeakageError, match="image"):
        evaluate(path, FAST, given_split=parts)


def test_images_shared_by_groups_are_named(tmp_path):
    shared = write_run(tmp_path / "a", with_images(known_records(100), lambda i: f"{i % 90:064x}"))
    (note,) = evaluate(shared, FAST).evaluation.run.notes
    assert note.startswith("10 images occur in more than one group")
    apart = write_run(tmp_path / "b", with_images(known_records(100), lambda i: f"{i // 2:064x}"))
    assert evaluate(apart, FAST).evaluation.run.notes == ()


def test_states_that_would_fill_the_memory_are_read_only_where_named(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    records = [
        replace(
            r,
            greedy=replace(r.answer, tokens=("x",)),
            features={
                **r.features,
                Feature.HIDDEN: rng.normal(size=(1, 1, 4)).astype(np.float32),
            },
            layers=(2,),
        )
        for r in known_records(200)
    ]
    path = write_run(tmp_path / "run", records)
    assert "linear_probe" in by_name(evaluate(path, FAST).evaluation)
    monkeypatch.setattr("sightline.workflow.scoring.MOST_STATES", 1000)
    evaluation = evaluate(path, FAST).evaluation
    assert "linear_probe" not in by_name(evaluation)
    reasons = {e.name: e.reasons[0].reason for e in evaluation.not_applicable}
    assert "read only where it is named" in reasons["linear_probe"]
    named = replace(FAST, estimators=("linear_probe",))
    assert "linear_probe" in by_name(evaluate(path, named).evaluation)
