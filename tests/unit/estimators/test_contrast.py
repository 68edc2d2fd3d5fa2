"""The contrast with a blank image, on worked examples."""

import numpy as np
import pytest

from sightline.core.errors import MissingFeatureError, UnscorableError
from sightline.core.features import Feature
from sightline.core.records import link
from sightline.core.types import Example, Generation, Record
from sightline.estimators.contrast import (
    BlankUnchanged,
    ChoiceVisualInformation,
    VisualInformation,
    VisualUncertainty,
)


def record(seen, blank, answer_start=0):
    return Record(
        Example("1", "?"),
        greedy=Generation("x", logprobs=np.log(seen), answer_start=answer_start),
        features={Feature.BLANK_LOGPROBS: np.log(blank)},
    )


def test_visual_information_is_the_log_ratio():
    one = record([0.8, 0.5], [0.2, 0.5])
    values = [VisualInformation(over).uncertainty([one])[0] for over in ("mean", "sum", "first")]
    np.testing.assert_allclose(values, [-np.log(2), -np.log(4), -np.log(4)], rtol=1e-13)


def test_an_answer_that_ignores_the_image_is_more_uncertain():
    prior, seeing = record([0.9], [0.9]), record([0.6], [0.1])
    for estimator in (VisualInformation(), VisualUncertainty()):
        values = estimator.uncertainty([prior, seeing])
        assert values[0] > values[1]
    assert VisualInformation().uncertainty([prior])[0] == 0.0
    assert VisualUncertainty().uncertainty([prior])[0] == 1.0


def test_visual_uncertainty_takes_the_first_answer_token():
    one = record([0.1, 0.7], [0.1, 0.2], answer_start=1)
    assert VisualUncertainty().uncertainty([one])[0] == pytest.approx(0.5)


def test_an_image_that_speaks_against_the_answer_gives_a_positive_value():
    assert VisualInformation().uncertainty([record([0.2], [0.4])])[0] == pytest.approx(np.log(2))


def choices(seen, blank, kind="letters"):
    names = {
        "letters": (Feature.LETTER_LOGPROBS, Feature.BLANK_LETTER_LOGPROBS),
        "options": (Feature.OPTION_LOGPROBS, Feature.BLANK_OPTION_LOGPROBS),
    }[kind]
    return Record(
        Example("1", "?", choices=("a", "b")),
        greedy=Generation("A"),
        features=dict(zip(names, (np.log(seen), np.log(blank)), strict=True)),
    )


def test_favourite_option_with_and_without_the_image():
    one = choices([0.08, 0.02], [0.4, 0.4])  # .8 with the image, .5 without
    assert ChoiceVisualInformation().uncertainty([one])[0] == pytest.approx(np.log(0.5 / 0.8))
    other = choices([0.08, 0.02], [0.4, 0.4], "options")
    values = ChoiceVisualInformation("options").uncertainty([other])
    assert values[0] == pytest.approx(np.log(0.5 / 0.8))


def test_of_tied_favourites_the_one_that_the_prior_prefers_counts():
    for blank in ([0.9, 0.1], [0.1, 0.9]):
        values = ChoiceVisualInformation().uncertainty([choices([0.5, 0.5], blank)])
        assert values[0] == pytest.approx(np.log(0.9 / 0.5))


def test_blank_unchanged_compares_canonical_answers():
    def pair(answer, blank):
        example = Example("1", "What is it?")
        return link(
            [
                Record(example, greedy=Generation(answer)),
                Record(example, "blank", greedy=Generation(blank)),
            ],
            condition="clean",
        )[0]

    records = [pair("a dog", "Dog."), pair("dog", "cat")]
    assert BlankUnchanged().uncertainty(records).tolist() == [1.0, 0.0]


def noised(seen, levels, answer_start=0):
    """A clean record linked to what its tokens have under noise, by level."""
    example = Example("1", "?")
    clean = Record(
        example, greedy=Generation("x", logprobs=np.log(seen), answer_start=answer_start)
    )
    others = [
        Record(
            example,
            f"noise:{level}",
            Generation("y"),
            features={Feature.CLEAN_LOGPROBS: np.log(under)},
            truth="unknown",
        )
        for level, under in levels.items()
    ]
    (linked,) = link([clean, *others], condition="clean")
    return linked


def test_the_strongest_noise_stands_for_no_image():
    one = noised([0.8, 0.5], {10: [0.1, 0.5], 2: [0.7, 0.5], 5: [0.4, 0.5]})
    assert VisualUncertainty(against="noise").uncertainty([one])[0] == pytest.approx(0.3)
    values = VisualInformation(against="noise", over="sum").uncertainty([one])
    assert values[0] == pytest.approx(np.log(0.1 / 0.8))


def test_noise_counts_answer_tokens_only():
    one = noised([0.9, 0.6], {5: [0.1, 0.2]}, answer_start=1)
    assert VisualUncertainty(against="noise").uncertainty([one])[0] == pytest.approx(0.6)


def test_noise_that_says_nothing_of_the_answer_does_not_count():
    example = Example("1", "?")
    clean = Record(example, greedy=Generation("x", logprobs=np.log([0.5])))
    others = [
        Record(example, "noise:5", Generation("y")),
        Record(
            example,
            "noise:1+jpeg:2",
            Generation("y"),
            features={Feature.CLEAN_LOGPROBS: np.log([0.5])},
        ),
    ]
    (linked,) = link([clean, *others], condition="clean")
    assert not linked.has(Feature.NOISED_LOGPROBS)
    with pytest.raises(MissingFeatureError, match=r"noised_logprobs.*--conditions"):
        VisualUncertainty(against="noise").uncertainty([linked])


def test_noise_that_read_another_answer_is_refused():
    with pytest.raises(UnscorableError, match="another answer read under noise") as error:
        VisualInformation(against="noise").uncertainty(
            [noised([0.5], {5: [0.5]}), noised([0.5, 0.5], {5: [0.5]})]
        )
    assert error.value.rows == (1,)
