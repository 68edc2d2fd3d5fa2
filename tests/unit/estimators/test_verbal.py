"""Estimators over what the model replies when it is asked about its answer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sightline.core.condition_names import asked_condition
from sightline.core.errors import MissingFeatureError, UnscorableError, UsageError
from sightline.core.features import FIXED_REPLIES, Feature
from sightline.core.protocols import Cost
from sightline.core.records import link
from sightline.core.types import Example, Generation, Record, Related
from sightline.estimators import parse_estimator
from sightline.estimators.verbal import MEANING, StatedGuesses

COUNT = Example("count", "How many dogs are there?")
COLOUR = Example("colour", "What colour is it?")
CHOICE = Example("choice", "Which?", choices=("a cat", "a dog", "a cow"))


def judged(answer: str, *replies: tuple[str, str], example: Example = COLOUR, **scores) -> Record:
    """A record and what was replied about it, with the probabilities of fixed replies by name."""
    asked = []
    for name, reply in replies:
        features = {}
        if name in scores:
            features[Feature.REPLY_LOGPROBS] = np.log(np.array(scores[name]))
        asked.append(Record(example, asked_condition(name), Generation(reply), features=features))
    return Record(example, greedy=Generation(answer), related=Related(follow_ups=tuple(asked)))


def scored(spec: str, *records: Record) -> list[float]:
    return parse_estimator(spec).uncertainty(records).tolist()


@pytest.mark.parametrize(("name", "said"), [("p_true", "true"), ("self_check", "yes")])
def test_p_true_is_the_mass_normalised_over_the_two_replies(name: str, said: str) -> None:
    record = judged("red", (name, said), **{name: (0.6, 0.2)})
    assert scored(name, record) == pytest.approx([0.25])
    assert scored(f"{name}:read=stated", record) == [0.0]


def test_p_true_has_its_limits_without_rounding_to_them() -> None:
    certain = judged("red", ("p_true", "true"), p_true=(1.0, 1e-300))
    denied = judged("red", ("p_true", "false"), p_true=(1e-300, 1.0))
    assert scored("p_true", certain, denied) == pytest.approx([1e-300, 1.0], abs=0, rel=1e-9)
    same = judged("red", ("p_true", "?"), p_true=(1e-9, 1e-9))
    assert scored("p_true", same) == [0.5]


def test_wordings_are_averaged_or_chosen() -> None:
    record = judged(
        "red",
        ("p_true", "true"),
        ("p_true.2", "false"),
        **{"p_true": (0.9, 0.1), "p_true.2": (0.3, 0.7)},
    )
    assert scored("p_true", record) == pytest.approx([0.4])
    assert scored("p_true:wording=1", record) == pytest.approx([0.1])
    assert scored("p_true:wording=2", record) == pytest.approx([0.7])
    assert scored("p_true:read=stated", record) == [0.5]
    with pytest.raises(UnscorableError, match="no readable reply to p_true"):
        scored("p_true:wording=3", record)


def test_words_stand_for_what_is_declared() -> None:
    for question, meaning in MEANING.items():
        assert len(meaning) == len(FIXED_REPLIES[question])
        for phrase, value in zip(FIXED_REPLIES[question], meaning, strict=True):
            record = judged("red", (question.value, f"{phrase.capitalize()}."))
            assert scored(f"{question.value}:read=stated", record) == pytest.approx([1 - value])


def test_the_expected_word_is_the_mean_over_the_replies() -> None:
    record = judged("red", ("confidence_word", "low"), confidence_word=(0.5, 0.1, 0.2))
    expected = 1 - (5 * 1 / 6 + 1 * 3 / 6 + 2 * 5 / 6) / 8
    assert scored("confidence_word", record) == pytest.approx([expected])
    assert scored("confidence_word:read=stated", record) == pytest.approx([5 / 6])
    assert not parse_estimator("confidence_word").is_probability
    assert parse_estimator("confidence_scale").is_probability


def test_a_stated_number_is_one_minus_itself_and_wordings_combine() -> None:
    record = judged(
        "red",
        ("confidence_number", "90%"),
        ("confidence_number.2", "I cannot say"),
        ("confidence_number.3", "0.5"),
        ("confidence_reasoned", "It looks red to me, in 2 places.\nConfidence: 75%"),
    )
    assert scored("verbalised_confidence", record) == pytest.approx([0.3])
    assert scored("verbalised_confidence:aggregation=min", record) == pytest.approx([0.5])
    assert scored("verbalised_confidence:aggregation=median", record) == pytest.approx([0.3])
    assert scored("verbalised_confidence:wording=1", record) == pytest.approx([0.1])
    assert scored("verbalised_confidence_reasoned", record) == pytest.approx([0.25])


def test_guesses_are_compared_as_answers_are() -> None:
    first = judged("2", ("top_guesses", "two, three, four"), example=COUNT)
    second = judged("a dog", ("top_guesses", "A, B, C"), example=CHOICE)
    last = judged("Green.", ("top_guesses", "red, red, blue, green"))
    absent = judged("green", ("top_guesses", "red"))
    records = (first, second, last, absent)
    assert scored("top_guesses", *records) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert scored("top_guesses:read=agreement", *records) == [0, 0, 0, 1]


def test_the_probability_stated_for_the_answer_counts() -> None:
    record = judged("red", ("guess_probabilities", "blue: 60%\nRed: 30%\nred: 10%"))
    other = judged("grey", ("guess_probabilities", "blue: 60%\nred: 30%"))
    assert scored("guess_probabilities", record, other) == pytest.approx([0.7, 1.0])
    share = "guess_probabilities:read=share"
    assert scored(share, record, other) == pytest.approx([2 / 3, 1.0])
    assert scored("guess_probabilities:read=rank", record) == pytest.approx([0.5])


def test_average_confidence_is_weighted_over_all_wordings() -> None:
    record = judged(
        "red",
        ("answer_confidence", "Answer: red\nConfidence: 90%"),
        ("answer_confidence.2", "Answer: blue\nConfidence: 30%"),
        ("answer_confidence_reasoned", "It is bright.\nAnswer: red\nConfidence: 60%"),
    )
    assert scored("answer_confidence:read=share", record) == pytest.approx([30 / 120])
    assert scored("answer_confidence", record) == pytest.approx([(0.1 + 1.0) / 2])
    assert scored("answer_confidence:wording=2", record) == [1.0]
    assert scored("answer_confidence_reasoned", record) == pytest.approx([0.4])


@pytest.mark.parametrize(
    ("spec", "reply"),
    [
        ("p_true", "true"),  # no log-probabilities
        ("p_true:read=stated", "maybe"),
        ("self_check:read=stated", ""),
        ("confidence_word", "low"),
        ("confidence_word:read=stated", "low or medium"),
        ("confidence_scale:read=stated", "not likely"),
        ("verbalised_confidence", "very"),
        ("verbalised_confidence", "70-90%"),
        ("verbalised_confidence_reasoned", "I think it is cut off before"),
        ("answer_confidence", "Answer: red"),
        ("answer_confidence:read=share", "Answer: red\nConfidence: 0%"),
        ("top_guesses", " "),
        ("guess_probabilities", "red\nblue"),
        ("guess_probabilities:read=share", "red: 0%"),
    ],
)
def test_what_cannot_be_read_is_left_out_and_never_guessed(spec: str, reply: str) -> None:
    estimator = parse_estimator(spec)
    (question,) = estimator.needs - {Feature.ANSWER}
    bad = judged("red", (question.value, reply))
    with pytest.raises(UnscorableError, match=f"no readable reply to {question}") as caught:
        estimator.uncertainty([bad, bad])
    assert caught.value.rows == (0, 1)


def test_a_question_that_was_not_asked_is_named() -> None:
    record = judged("red", ("self_check", "yes"), self_check=(0.5, 0.5))
    assert record.has(Feature.SELF_CHECK)
    assert not record.has(Feature.P_TRUE)
    with pytest.raises(MissingFeatureError, match="no p_true"):
        scored("p_true", record)


def test_guesses_without_probabilities_have_none_to_read() -> None:
    for read in ("stated", "share"):
        with pytest.raises(UsageError, match="whose replies state no probability"):
            parse_estimator(f"top_guesses:read={read}")
    assert not StatedGuesses().is_probability


def test_costs_count_the_wordings_and_the_replies_that_are_read() -> None:
    record = judged("red", ("p_true", "true"), ("p_true.2", "true"), ("top_guesses", "red"))
    for spec, cost in (
        ("p_true", Cost(forward_passes=2)),
        ("p_true:wording=2", Cost(forward_passes=1)),
        ("p_true:read=stated", Cost(forward_passes=2, generations=2)),
        ("top_guesses", Cost(forward_passes=1, generations=1)),
    ):
        assert parse_estimator(spec).cost([record]) == cost


def test_replies_belong_to_the_answer_they_are_about() -> None:
    clean = Record(COLOUR, greedy=Generation("red"))
    blank = replace(clean, condition="blank")
    about_clean = Record(COLOUR, "asked:p_true", Generation("true"))
    about_blank = Record(COLOUR, asked_condition("p_true.2", "blank"), Generation("false"))
    records = [clean, blank, about_clean, about_blank, replace(clean, condition="jpeg:3")]
    (linked,) = link(records, condition="clean")
    assert linked.related.follow_ups == (about_clean,)
    assert [r.condition for r in linked.related.conditions] == ["blank", "jpeg:3"]
    assert [r.condition for r in linked.related.views] == ["jpeg:3"]
    (under_blank,) = link(records, condition="blank")
    assert under_blank.related.follow_ups == (about_blank,)
    assert math.isclose(parse_estimator("p_true:read=stated").uncertainty([under_blank])[0], 1.0)


def test_replies_are_no_views_of_the_question() -> None:
    record = Record(COLOUR, greedy=Generation("red"))
    asked = Record(COLOUR, "jpeg:3+asked:p_true", Generation("true"))
    assert record.with_related(Related(conditions=(asked,))).related.views == ()


def test_a_fusion_pays_for_every_question_once() -> None:
    names = ("p_true", "self_check", "top_guesses")
    record = judged("red", *((name, "red") for name in names))
    members = "fusion:members=p_true+p_true@wording=1+self_check+top_guesses"
    assert parse_estimator(members).cost([record]) == Cost(forward_passes=3, generations=1)
