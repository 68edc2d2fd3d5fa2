"""Fitting on one run and scoring others: what is stored, what is refused, what is equal."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sightline.core.column import ColumnKind
from sightline.core.errors import (
    DataError,
    DiskError,
    LeakageError,
    MissingFeatureError,
    UsageError,
)
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, ImageRef, Record
from sightline.estimators import ESTIMATORS
from sightline.estimators.saved import SETTINGS, load_fitted
from sightline.store.run import Manifest, RunStore
from sightline.workflow.evaluate import Settings, evaluate
from sightline.workflow.fitted import content, load_all
from sightline.workflow.fitting import fit

FAST = Settings(resamples=100, seeds=1, estimators=("perplexity", "linear_probe"))


def write_run(path, records, **model):
    store = RunStore.create(
        path,
        Manifest(
            run_id="run",
            created="2026-01-01T00:00:00+00:00",
            kind="imported",
            model={"name": "known", "revision": "1", **model},
            dataset={"name": "synthetic"},
            settings={"request": {"n_samples": 0}},
            versions={},
            shard_size=10_000,
        ),
        [r.example for r in records],
    )
    with store.writer() as writer:
        writer.commit(0, records, ())
    return path


def told_records(n=240, *, seed=0, prefix="g", width=6, question="Which?"):
    """Answers whose hidden state tells whether they are right; three in a group."""
    rng = np.random.default_rng(seed)
    right = rng.random(n) < 0.7
    hidden = rng.normal(size=(n, 2, 1, width)).astype(np.float32)
    hidden[:, 1, 0, 0] += 2.0 * right - 1.0
    return [
        Record(
            Example(
                f"{prefix}{i}",
                f"{question} {i}",
                references=("red",),
                group=f"{prefix}{i // 3}",
                question_type="colour",
            ),
            greedy=Generation("red" if right[i] else "blue", logprobs=np.array([-0.1 - i % 7])),
            features={Feature.HIDDEN: hidden[i]},
            layers=(4, 8),
        )
        for i in range(n)
    ]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", told_records())


def by_name(evaluation):
    return {e.name: e for e in evaluation.estimators}


def fitted_on(run, output, spec="linear_probe", settings=FAST, **more):
    return fit(run, spec, output, settings, **more)


def test_what_is_fitted_here_scores_as_what_evaluate_fits(run, tmp_path):
    """Fitted on the first split's train rows, and joined to that split, it gives equal figures."""
    fitted_on(run, tmp_path / "probe")
    settings = replace(FAST, fitted=(str(tmp_path / "probe"),))
    results = by_name(evaluate(run, settings).evaluation)
    own, joined = results["linear_probe"], results["linear_probe[probe]"]
    assert joined.heldout == own.heldout
    assert joined.within_type == own.within_type
    assert joined.heldout["auroc"].value > 0.8
    assert joined.calibration == "fitted"


def test_rows_it_was_fitted_on_are_not_scored_and_are_counted(run, tmp_path):
    result = fitted_on(run, tmp_path / "probe")
    n = result.saved.origin["n"]
    settings = replace(FAST, fitted=(str(tmp_path / "probe"),))
    joined = by_name(evaluate(run, settings).evaluation)["linear_probe[probe]"]
    assert joined.scored == 240 - n
    assert [(s.reason, s.n) for s in joined.skipped] == [("it was fitted on their group", n)]
    assert joined.raw["auroc"].n == 240 - n
    column = RunStore.open(run).column(ColumnKind.UNCERTAINTY, "linear_probe[probe]")
    assert len(column) == 240 - n
    assert column.spec["fitted_on"]["run"] == "run"
    assert joined.spec["fitted_on"]["n"] == n
    json.dumps(joined.spec)


def test_the_origin_says_what_it_was_fitted_on(run, tmp_path):
    fitted_on(run, tmp_path / "probe", "linear_probe:layer=8")
    saved = load_fitted(tmp_path / "probe")
    origin = saved.origin
    assert saved.spec == {"name": "linear_probe", "at": "answer_mean", "layer": "8"}
    assert origin["model"] == {"name": "known", "revision": "1"}
    assert origin["decoding"] == {"request": {"n_samples": 0}}
    assert (origin["run"], origin["dataset"]) == ("run", "synthetic")
    assert origin["part"] == {"rows": "train", "seed": 0, "fractions": [0.4, 0.2, 0.4]}
    assert origin["grader"]["name"]
    assert origin["n"] == pytest.approx(96, abs=3)
    assert 0.5 < origin["accuracy"] < 0.9
    assert len(origin["content"]) == origin["n"]
    text = (tmp_path / "probe" / SETTINGS).read_text()
    assert "Which?" not in text
    assert "g17" not in text


def test_all_rows_are_fitted_on_where_asked_for_and_score_another_run(run, tmp_path):
    result = fitted_on(run, tmp_path / "probe", all_rows=True)
    assert result.saved.origin["n"] == 240
    other = write_run(tmp_path / "other", told_records(150, seed=1, prefix="h"))
    settings = Settings(
        resamples=100,
        seeds=3,
        fractions=(0.0, 0.4, 0.6),
        estimators=("perplexity",),
        fitted=(str(tmp_path / "probe"),),
    )
    joined = by_name(evaluate(other, settings).evaluation)["linear_probe[probe]"]
    assert joined.scored == 150
    assert joined.skipped == ()
    assert joined.heldout["auroc"].value > 0.85


def test_rows_it_has_seen_outside_train_are_refused_by_name(run, tmp_path):
    fitted_on(run, tmp_path / "probe")
    joined = replace(FAST, fitted=(str(tmp_path / "probe"),))
    with pytest.raises(LeakageError, match=r"linear_probe\[probe\] was fitted on \d+ group") as e:
        evaluate(run, replace(joined, seeds=2))
    assert "--seeds 1 --seed 0 --fractions 0.4,0.2,0.4" in str(e.value)
    with pytest.raises(LeakageError):
        evaluate(run, replace(joined, seed=1))
    fitted_on(run, tmp_path / "whole", all_rows=True)
    with pytest.raises(LeakageError, match=r"\d+ group.*--split, or fit on other rows"):
        evaluate(run, replace(FAST, fitted=(str(tmp_path / "whole"),)))


def test_a_given_split_that_puts_seen_rows_into_train_is_allowed(tmp_path):
    seen, fresh = told_records(120), told_records(120, seed=1, prefix="h")
    small = write_run(tmp_path / "small", seen)
    large = write_run(tmp_path / "large", [*seen, *fresh])
    fitted_on(small, tmp_path / "probe", all_rows=True)
    split = {r.example.group: "train" for r in seen}
    split |= {r.example.group: "calibration" if i < 45 else "test" for i, r in enumerate(fresh)}
    settings = replace(FAST, fitted=(str(tmp_path / "probe"),))
    joined = by_name(evaluate(large, settings, given_split=split).evaluation)["linear_probe[probe]"]
    assert joined.scored == 120
    assert joined.heldout["auroc"].n == 75


def test_a_group_is_known_again_by_one_question_or_image_of_it():
    image, other = ImageRef("a.png", "a" * 64), ImageRef("b.png", "b" * 64)
    one = Example("1", "How many?", (image,), group="g")
    assert not set(content(one)).isdisjoint(content(Example("2", "Colour?", (image,), group="h")))
    assert not set(content(one)).isdisjoint(content(Example("9", "How many?", (other,), group="g")))
    assert set(content(one)).isdisjoint(content(Example("1", "Why?", (other,), group="g")))
    assert set(content(one)).isdisjoint(content(Example("1", "How many?", (other,), group="h")))


def test_equal_ids_of_other_questions_are_not_taken_for_the_same(run, tmp_path):
    """Benchmarks number their rows from 0; that alone is no leak."""
    fitted_on(run, tmp_path / "probe", all_rows=True)
    other = write_run(tmp_path / "other", told_records(seed=2, question="What colour?"))
    settings = replace(FAST, fitted=(str(tmp_path / "probe"),))
    assert by_name(evaluate(other, settings).evaluation)["linear_probe[probe]"].scored == 240


def test_another_model_is_refused_unless_it_is_a_transfer(run, tmp_path):
    fitted_on(run, tmp_path / "probe", all_rows=True)
    other = write_run(tmp_path / "other", told_records(seed=1, prefix="h"), revision="2")
    settings = replace(FAST, fitted=(str(tmp_path / "probe"),))
    with pytest.raises(UsageError, match=r"fitted on known.*is of known.*revision.*--transfer"):
        evaluate(other, settings)
    results = by_name(evaluate(other, replace(settings, transfer=True)).evaluation)
    assert results["linear_probe[probe]"].heldout["auroc"].value > 0.8


def test_a_model_of_other_width_scores_nothing_and_says_why(run, tmp_path):
    fitted_on(run, tmp_path / "probe", all_rows=True)
    other = write_run(tmp_path / "other", told_records(seed=1, prefix="h", width=7), size="large")
    settings = replace(FAST, fitted=(str(tmp_path / "probe"),), transfer=True)
    (lacking,) = evaluate(other, settings).evaluation.not_applicable
    assert lacking.name == "linear_probe[probe]"
    assert [(r.reason, r.n) for r in lacking.reasons] == [
        ("hidden states 7 wide; 6 are required here", 240)
    ]


def test_two_fitted_estimators_join_under_names_of_their_own(run, tmp_path):
    fitted_on(run, tmp_path / "a")
    fitted_on(run, tmp_path / "b c", "mahalanobis")
    settings = replace(FAST, fitted=(str(tmp_path / "a"), str(tmp_path / "b c")))
    names = set(by_name(evaluate(run, settings).evaluation))
    assert {"linear_probe[a]", "mahalanobis[b-c]"} <= names
    with pytest.raises(UsageError, match=r"Two fitted estimators are called linear_probe\[a\]"):
        load_all([tmp_path / "a", tmp_path / "a"])


@pytest.mark.parametrize(
    "name",
    ["linear_probe", "mind", "mahalanobis", "relative_mahalanobis", "question_type"],
)
def test_what_was_fitted_and_stored_gives_the_same_scores(run, tmp_path, name):
    result = fitted_on(run, tmp_path / "one", name)
    records = told_records(30, seed=5, prefix="x")
    read = load_fitted(tmp_path / "one").estimator
    np.testing.assert_array_equal(
        read.uncertainty(records), result.saved.estimator.uncertainty(records)
    )


def test_an_estimator_that_does_not_learn_cannot_be_fitted(run, tmp_path):
    with pytest.raises(UsageError, match=r"'perplexity' is not fitted on labels.*linear_probe"):
        fitted_on(run, tmp_path / "x", "perplexity")
    with pytest.raises(UsageError, match="does not exist"):
        fitted_on(run, tmp_path / "x", "linear_prob")
    assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten_and_it_is_said_before_the_work(run, tmp_path):
    fitted_on(run, tmp_path / "x")
    with pytest.raises(DataError, match="holds a fitted estimator"):
        fitted_on(run, tmp_path / "x", "mahalanobis")
    assert load_fitted(tmp_path / "x").spec["name"] == "linear_probe"


def test_a_place_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError, match="Writing the fitted estimator"):
        fitted_on(run, tmp_path / "file" / "x")


def test_a_run_without_the_signal_or_the_layer_is_one_line(tmp_path):
    bare = [replace(r, features={}, layers=()) for r in told_records(60)]
    bare_run = write_run(tmp_path / "bare", bare)
    with pytest.raises(MissingFeatureError, match=r"fitted on none of \d+ rows.*no hidden"):
        fitted_on(bare_run, tmp_path / "x")
    whole = write_run(tmp_path / "run", told_records(60))
    with pytest.raises(DataError, match=r"no hidden state of layer 5; layers \[4, 8\] are stored"):
        fitted_on(whole, tmp_path / "x", "linear_probe:layer=5")


def test_rows_without_the_signal_are_left_out_and_counted(tmp_path):
    records = told_records()
    records[::4] = [replace(r, features={}, layers=()) for r in records[::4]]
    result = fitted_on(write_run(tmp_path / "run", records), tmp_path / "x", all_rows=True)
    assert result.saved.origin["n"] == 180
    assert [(s.reason, s.n) for s in result.skipped] == [("no hidden", 60)]


def test_one_class_only_cannot_be_fitted_on(tmp_path):
    right = [
        replace(r, greedy=Generation("red", logprobs=np.array([-0.1]))) for r in told_records(60)
    ]
    with pytest.raises(DataError, match="right and wrong ones are required"):
        fitted_on(write_run(tmp_path / "run", right), tmp_path / "x")


def test_evaluate_lists_an_estimator_that_cannot_be_fitted_and_goes_on(tmp_path):
    right = [
        replace(r, greedy=Generation("red", logprobs=np.array([-0.1]))) for r in told_records(60)
    ]
    run = write_run(tmp_path / "run", right)
    evaluation = evaluate(run, FAST).evaluation
    assert set(by_name(evaluation)) == {"perplexity"}
    (lacking,) = evaluation.not_applicable
    assert lacking.name == "linear_probe"
    assert "right and wrong ones are required" in lacking.reasons[0].reason
    with pytest.raises(DataError, match=r"'linear_probe' could not be fitted: .* labelled answers"):
        evaluate(run, replace(FAST, estimators=("linear_probe",)))


def test_evaluate_without_scikit_learn_lists_what_needs_it(run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    evaluation = evaluate(run, FAST).evaluation
    assert set(by_name(evaluation)) == {"perplexity"}
    assert "sightline[learn]" in evaluation.not_applicable[0].reasons[0].reason


def test_a_directory_that_holds_no_fitted_estimator_of_ours_is_refused(run, tmp_path):
    with pytest.raises(DataError, match=r"has no fitted\.json"):
        evaluate(run, replace(FAST, fitted=(str(tmp_path),)))
    fitted_on(run, tmp_path / "x")
    document = json.loads((tmp_path / "x" / SETTINGS).read_text())
    del document["origin"]["content"]
    (tmp_path / "x" / SETTINGS).write_text(json.dumps(document))
    with pytest.raises(DataError, match="does not say its content"):
        evaluate(run, replace(FAST, fitted=(str(tmp_path / "x"),)))


def test_every_estimator_that_learns_is_named_where_one_is_asked_for(run, tmp_path):
    learned = [name for name, e in ESTIMATORS.items() if hasattr(e, "fit")]
    with pytest.raises(UsageError) as error:
        fitted_on(run, tmp_path / "x", "random")
    assert all(name in str(error.value) for name in learned)
