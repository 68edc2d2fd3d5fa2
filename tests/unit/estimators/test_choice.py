"""Scores from option probabilities, on worked examples."""

import numpy as np
import pytest

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators.choice import (
    ChoiceAnswerProbability,
    ChoiceEntropy,
    ChoiceMargin,
    ChoiceMaxProbability,
)


def record(answer="B", letters=None, options=None, lengths=None, choices=("cat", "dog", "cow")):
    arrays = {
        Feature.LETTER_LOGPROBS: letters,
        Feature.OPTION_LOGPROBS: options,
        Feature.OPTION_LENGTHS: lengths,
    }
    return Record(
        Example("1", "?", choices=choices),
        greedy=Generation(answer),
        features={f: np.asarray(a) for f, a in arrays.items() if a is not None},
    )


# Unnormalised letter scores in the ratio 1 : 2 : 1.
ONE_TWO_ONE = record(letters=np.log([0.1, 0.2, 0.1]))


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (ChoiceMaxProbability(), 0.5),
        (ChoiceAnswerProbability(), 0.5),
        (ChoiceMargin(), 0.75),
        (ChoiceEntropy(), 1.5 * np.log(2)),
    ],
)
def test_worked_values(estimator, expected):
    np.testing.assert_allclose(estimator.uncertainty([ONE_TWO_ONE]), expected, rtol=1e-14)


def test_per_token_does_not_punish_a_long_option():
    # "cow" is four tokens of p = e^-1, the others one of p = e^-2: the sum prefers the short ones.
    one = record(options=[-2.0, -2.0, -4.0], lengths=[1, 1, 4])
    summed = ChoiceMaxProbability("options").uncertainty([one])[0]
    per_token = ChoiceMaxProbability("options_per_token").uncertainty([one])[0]
    np.testing.assert_allclose(1 - summed, 1 / (2 + np.exp(-2.0)), rtol=1e-14)
    np.testing.assert_allclose(1 - per_token, 1 / (1 + 2 * np.exp(-1.0)), rtol=1e-14)


def test_the_answer_need_not_be_the_favourite():
    one = record("the answer is A", letters=np.log([0.25, 0.75, 1e-300]))
    assert ChoiceMaxProbability().uncertainty([one])[0] == pytest.approx(0.25)
    assert ChoiceAnswerProbability().uncertainty([one])[0] == pytest.approx(0.75)


def test_an_answer_that_names_no_option_has_probability_zero():
    one = record("neither", letters=[-1.0, -1.0, -1.0])
    assert ChoiceAnswerProbability().uncertainty([one])[0] == 1.0


def test_limits_of_certainty_and_indifference():
    certain = record(letters=[0.0, -800.0, -800.0])
    even = record(letters=[-3.0, -3.0, -3.0])
    for estimator in (ChoiceMaxProbability(), ChoiceMargin(), ChoiceEntropy()):
        assert estimator.uncertainty([certain])[0] == 0.0
    assert ChoiceMaxProbability().uncertainty([even])[0] == pytest.approx(2 / 3)
    assert ChoiceMargin().uncertainty([even])[0] == 1.0
    assert ChoiceEntropy().uncertainty([even])[0] == pytest.approx(np.log(3))


def test_a_constant_added_to_all_scores_changes_nothing():
    letters = np.array([-1.0, -0.5, -2.0])
    for estimator in (ChoiceMaxProbability(), ChoiceMargin(), ChoiceEntropy()):
        np.testing.assert_allclose(
            estimator.uncertainty([record(letters=letters - 100.0)]),
            estimator.uncertainty([record(letters=letters)]),
            rtol=1e-12,
        )


def test_near_certain_choices_still_differ():
    near, nearer = record(letters=[0.0, -50.0, -90.0]), record(letters=[0.0, -60.0, -90.0])
    low, lower = ChoiceMaxProbability().uncertainty([near, nearer])
    np.testing.assert_allclose([low, lower], np.exp([-50.0, -60.0]), rtol=1e-12)


def test_rows_with_different_numbers_of_options():
    two = record(letters=np.log([0.2, 0.6]), choices=("yes", "no"))
    values = ChoiceMaxProbability().uncertainty([ONE_TWO_ONE, two, ONE_TWO_ONE])
    np.testing.assert_allclose(values, [0.5, 0.25, 0.5], rtol=1e-14)
