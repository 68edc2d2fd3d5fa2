"""Agreement with other answers, on worked examples."""

from dataclasses import replace

import numpy as np
import pytest

from sightline.core.errors import MissingFeatureError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.records import link
from sightline.core.types import Example, Generation, Record
from sightline.estimators.agreement import (
    ConditionAgreement,
    ModelAgreement,
    NegationConsistency,
    RotationAgreement,
    SampleAgreement,
)

OPEN = Example("1", "What animal is it?")


def record(answer, condition="clean", samples=(), example=OPEN):
    greedy = None if answer is None else Generation(answer)
    return Record(example, condition, greedy, tuple(Generation(s) for s in samples))


def test_sample_agreement_counts_canonical_forms():
    one = record("A dog.", samples=("dog", "the dog", "Dog!", "a cat"))
    assert SampleAgreement().uncertainty([one])[0] == 0.25
    assert SampleAgreement().cost([one, record("x", samples=("x",))]) == Cost(generations=3)


def test_empty_answers_agree_with_one_another_only():
    assert SampleAgreement().uncertainty([record("", samples=("", "  ", "dog", "cat"))])[0] == 0.5


def test_condition_agreement_leaves_out_blank_and_negated_conditions():
    (one,) = link(
        [
            record("dog"),
            record("dog", "jpeg:3"),
            record("cat", "jpeg:3+rotate:30"),
            record(None, "wording:1", ("dog", "dog", "cow", "dog")),
            record("dog", "blank"),
            record("dog", "negated"),
            record("dog", "negated+jpeg:3"),
        ],
        condition="clean",
    )
    assert ConditionAgreement().uncertainty([one])[0] == pytest.approx(2 / 6)
    assert ConditionAgreement().cost([one]) == Cost(forward_passes=3, generations=6)
    assert NegationConsistency().uncertainty([one])[0] == 1.0
    assert NegationConsistency(with_views=True).uncertainty([one])[0] == pytest.approx(4 / 6)
    assert NegationConsistency().cost([one]) == Cost(forward_passes=2, generations=2)
    assert NegationConsistency(with_views=True).cost([one]) == Cost(5, 8)


def test_a_model_that_takes_negation_into_account_is_consistent():
    statement = Example("1", "True or False: it is a dog", choices=("True", "False"))
    (one,) = link(
        [
            record("A", example=statement),
            record(None, "negated+wording:1", ("B", "False", "(B)", "A"), example=statement),
        ],
        condition="clean",
    )
    assert NegationConsistency().uncertainty([one])[0] == 0.25


def test_a_run_with_only_a_blank_condition_shows_no_conditions():
    (one,) = link([record("dog"), record("dog", "blank")], condition="clean")
    assert not one.has(Feature.CONDITIONS)
    assert one.has(Feature.BLANK_ANSWER)
    with pytest.raises(MissingFeatureError, match="has no conditions"):
        ConditionAgreement().uncertainty([one])


def rotations(answers, texts=("cat", "dog", "cow")):
    """One question in all its rotations with the answers given, linked."""
    records = []
    for turn, answer in enumerate(answers):
        example = Example(f"1-{turn}", "Which?", choices=texts[turn:] + texts[:turn], group="1")
        records.append(record(answer, example=example))
    return link(records, condition="clean")


def test_rotation_agreement_follows_the_text_not_the_letter():
    # cat dog cow: A = cat; dog cow cat: C = cat; cow cat dog: B = cat.
    assert RotationAgreement().uncertainty(rotations("ACB")).tolist() == [0.0, 0.0, 0.0]
    # Always "A": another text every time.
    assert RotationAgreement().uncertainty(rotations("AAA")).tolist() == [1.0, 1.0, 1.0]
    assert RotationAgreement().uncertainty(rotations("ACA")).tolist() == [0.5, 0.5, 1.0]
    assert RotationAgreement().cost(rotations("ACB")) == Cost(2, 2)


def test_answers_that_name_no_option_agree_with_nothing():
    assert RotationAgreement().uncertainty(rotations("??A")).tolist() == [1.0, 1.0, 1.0]


def test_rotations_with_a_repeated_option_text():
    both = rotations("AB", texts=("three", "three", "two"))
    assert RotationAgreement().uncertainty(both)[0] == 1.0  # "three" against "two"
    same = rotations("BA", texts=("three", "three", "two"))
    assert RotationAgreement().uncertainty(same)[0] == 0.0  # both "three"


def test_model_agreement_over_runs():
    own = [record("two dogs"), record("cat", example=replace(OPEN, id="2"))]
    runs = [[record("2 dogs")], [record("three dogs"), record("cat", example=own[1].example)]]
    linked = link(own, condition="clean", other_runs=runs)
    assert ModelAgreement().uncertainty(linked).tolist() == [0.5, 0.0]
    assert ModelAgreement().cost(linked) == Cost(2, 2)


def test_related_records_without_an_answer_do_not_count():
    (one,) = link([record("x")], condition="clean", other_runs=[[record("x")], [record(None)]])
    assert ModelAgreement().uncertainty([one]).tolist() == [0.0]
    (alone,) = link([record("x")], condition="clean", other_runs=[[record(None)]])
    assert not alone.has(Feature.MODELS)


def test_shares_of_equal_counts_are_equal_to_the_bit():
    records = [record("a", samples=list(order)) for order in ("abab", "bbaa", "baab")]
    assert len(np.unique(SampleAgreement().uncertainty(records))) == 1
