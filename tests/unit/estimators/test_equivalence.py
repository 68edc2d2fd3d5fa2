"""VL-Uncertainty on worked examples."""

import numpy as np
import pytest

from sightline.core.errors import MissingFeatureError, UnscorableError
from sightline.core.protocols import Cost, Request
from sightline.core.records import link
from sightline.core.types import Example, Generation, Record
from sightline.data.perturbations import parse_condition
from sightline.estimators.equivalence import EQUIVALENT, VLUncertainty
from sightline.workflow.requests import request_for

QUESTION = Example("1", "What is it?", references=("cat",))


def record(answers, *, clean="cat", samples=(), truths=None, conditions=EQUIVALENT):
    """A clean record with one greedy answer per condition."""
    truths = truths or ["same"] * len(answers)
    others = [
        Record(
            QUESTION,
            condition,
            None if answer is None else Generation(answer),
            tuple(Generation(text) for text in samples),
            truth=truth,
        )
        for condition, answer, truth in zip(conditions, answers, truths, strict=False)
    ]
    (linked,) = link([Record(QUESTION, greedy=Generation(clean)), *others], condition="clean")
    return linked


def entropy(*shares):
    return -sum(p * np.log(p) for p in shares)


def test_the_entropy_of_the_meanings():
    one = record(["cat", "Cat.", "a cat", "dog", "the dog"])
    assert VLUncertainty().uncertainty([one])[0] == pytest.approx(entropy(0.6, 0.4))
    with_clean = VLUncertainty(with_clean=True).uncertainty([one])[0]
    assert with_clean == pytest.approx(entropy(4 / 6, 2 / 6))


def test_one_meaning_is_certain_and_all_different_is_the_logarithm():
    same, apart = record(["cat"] * 5), record(["a1", "b2", "c3", "d4", "e5"])
    np.testing.assert_allclose(
        VLUncertainty().uncertainty([same, apart]), [0.0, np.log(5)], atol=1e-12
    )


def test_the_judged_answer_does_not_count_by_itself():
    """All views agree on another answer: certain, as published."""
    assert VLUncertainty().uncertainty([record(["dog"] * 5)])[0] == 0.0
    assert VLUncertainty(with_clean=True).uncertainty([record(["dog"] * 5)])[0] > 0.4


def test_views_whose_truth_changes_or_is_unknown_do_not_count():
    one = record(
        ["cat", "cat", "dog", "bird", "cat"],
        truths=["same", "same", "changed", "unknown", "same"],
    )
    assert VLUncertainty().uncertainty([one])[0] == 0.0
    assert VLUncertainty().cost([one]) == Cost(forward_passes=3, generations=3)


def test_other_families_count_only_where_all_views_do():
    names = ("blur:2", "wording:1", "jpeg:3", "blur:1+jpeg:1", "noise:5")
    one = record(["cat", "cat", "dog", "dog", "dog"], conditions=names)
    assert VLUncertainty().uncertainty([one])[0] == 0.0
    assert VLUncertainty(over="all").uncertainty([one])[0] == pytest.approx(entropy(0.4, 0.6))


def test_samples_under_the_views():
    one = record(["cat", "cat"], samples=("cat", "dog"))
    assert VLUncertainty(answers="samples").uncertainty([one])[0] == pytest.approx(np.log(2))
    with pytest.raises(UnscorableError, match="no sample under blur or another wording") as error:
        VLUncertainty(answers="samples").uncertainty([one, record(["cat"])])
    assert error.value.rows == (1,)


def test_a_record_without_views_is_refused_by_name():
    with pytest.raises(MissingFeatureError, match=r"no conditions.*--conditions"):
        VLUncertainty().uncertainty([record(["cat"], truths=["changed"])])


def test_its_conditions_are_asked_for_unless_others_are_named():
    assert [parse_condition(name).name for name in EQUIVALENT] == list(EQUIVALENT)
    assert request_for(["vl_uncertainty"], Request()).conditions == EQUIVALENT
    assert request_for(["condition_agreement"], Request()).conditions == EQUIVALENT
    named = Request(conditions=("jpeg:1",), condition_samples=3)
    assert request_for(["vl_uncertainty"], named).conditions == ("jpeg:1",)
    assert request_for(["vl_uncertainty"], named).condition_samples == 3
    assert request_for(["sequence_probability"], Request()).conditions == ()


def test_noise_is_asked_for_on_top():
    both = ["vl_uncertainty", "noise_visual_uncertainty"]
    assert request_for(both, Request()).conditions == (*EQUIVALENT, "noise:5")
    weaker = Request(conditions=("noise:2",))
    assert request_for(["noise_visual_information"], weaker).conditions == ("noise:2",)
    mixed = Request(conditions=("noise:2+blur:1",))
    assert request_for(both, mixed).conditions == ("noise:2+blur:1", "noise:5")
