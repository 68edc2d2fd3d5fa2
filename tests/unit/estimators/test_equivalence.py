"""VL-Uncertainty on worked examples."""

from dataclasses import replace

import numpy as np
import pytest

from sightline.core.errors import MissingFeatureError, UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost, Request
from sightline.core.records import link
from sightline.core.types import Example, Generation, Record
from sightline.data.perturbations import parse_condition
from sightline.estimators.equivalence import EQUIVALENT, VLUncertainty, equivalent_texts
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


def test_words_in_common_make_one_meaning_from_the_threshold_on():
    one = record(["red dog", "dog red", "red dog cat", "cow", "cow"])
    # cosines: 1 of the same words, 2/sqrt(6) = 0.82 of two words and three, 0 of none in common
    for threshold, shares in ((0.99, (2, 1, 2)), (0.7, (3, 2))):
        found = VLUncertainty(clusters="words", threshold=threshold).uncertainty([one])[0]
        assert found == pytest.approx(entropy(*(share / 5 for share in shares)), abs=1e-6)
    with pytest.raises(UsageError, match="threshold=2"):
        VLUncertainty(clusters="words", threshold=2.0)


def derived(one, same):
    """The record with vectors and judgements by which just these pairs of texts mean the same."""
    texts = equivalent_texts(one)
    alike = np.array([[a == b or {a, b} in same for b in texts] for a in texts], dtype=float)
    values, vectors = np.linalg.eigh(alike)
    features = {
        Feature.VIEW_EMBEDDINGS: vectors * np.sqrt(np.maximum(values, 0)),
        Feature.VIEW_ENTAILMENT: alike,
        Feature.VIEW_CONTRADICTION: 1 - alike,
    }
    return replace(one, features=features)


@pytest.mark.parametrize("clusters", ["embeddings", "entailment"])
def test_what_is_stored_of_the_texts_says_which_mean_the_same(clusters):
    one = record(["sofa", "table", "couch", "couch", "stool"], clean="settee", samples=("bed",))
    one = derived(one, [{"couch", "sofa"}, {"settee", "stool"}])
    estimator = VLUncertainty(clusters=clusters)
    assert estimator.uncertainty([one])[0] == pytest.approx(entropy(0.6, 0.2, 0.2))
    with_clean = replace(estimator, with_clean=True).uncertainty([one])[0]
    assert with_clean == pytest.approx(entropy(3 / 6, 1 / 6, 2 / 6))
    assert replace(estimator, answers="samples").uncertainty([one])[0] == 0.0
    turned = one.with_related(replace(one.related, conditions=one.related.conditions[::-1]))
    np.testing.assert_array_equal(estimator.uncertainty([turned]), estimator.uncertainty([one]))


@pytest.mark.parametrize("clusters", ["embeddings", "entailment"])
def test_only_the_published_views_count_whatever_else_is_stored(clusters):
    one = record(["cat", "cow", "dog"], conditions=("blur:1", "wording:1", "jpeg:3"))
    one = derived(one, [{"cow", "dog"}])
    assert VLUncertainty(clusters=clusters).uncertainty([one])[0] == pytest.approx(np.log(2))
    every = VLUncertainty(clusters=clusters, over="all").uncertainty([one])[0]
    assert every == pytest.approx(entropy(1 / 3, 2 / 3))


@pytest.mark.parametrize(
    ("clusters", "lacks"), [("embeddings", "view_embeddings"), ("entailment", "view_entailment")]
)
def test_what_is_not_stored_or_is_of_other_answers_is_said(clusters, lacks):
    one = record(["cat", "dog"])
    with pytest.raises(MissingFeatureError, match=rf"no {lacks}.*Run sightline derive"):
        VLUncertainty(clusters=clusters).uncertainty([one])
    whole = derived(one, [])
    changed = replace(derived(record(["cat", "dog", "cow"]), []), related=one.related)
    with pytest.raises(UnscorableError, match=r"of other answers.*--replace") as error:
        VLUncertainty(clusters=clusters).uncertainty([whole, changed])
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
