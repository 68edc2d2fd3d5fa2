"""Scores from the answer's own token probabilities, on worked examples."""

import numpy as np
import pytest

from sightline.core.errors import UnscorableError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators import ESTIMATORS
from sightline.estimators.likelihood import TokenEntropy, TokenMargin, TokenProbability


def record(probabilities, answer_start=0, **features):
    return Record(
        Example("1", "?"),
        greedy=Generation("x", logprobs=np.log(probabilities), answer_start=answer_start),
        features={Feature(name): np.asarray(array) for name, array in features.items()},
    )


def score(name, *records):
    return ESTIMATORS[name].uncertainty(records)


# Two answers: tokens of probability 1/2 and 1/4, and one of probability 0.9.
PAIR = record([0.5, 0.25]), record([0.9])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sequence_probability", [1 - 1 / 8, 0.1]),
        ("negative_log_likelihood", [3 * np.log(2), -np.log(0.9)]),
        ("length_normalised_probability", [1 - 8**-0.5, 0.1]),
        ("perplexity", [1.5 * np.log(2), -np.log(0.9)]),
        ("first_token_probability", [0.5, 0.1]),
        ("min_token_probability", [0.75, 0.1]),
        ("mean_token_probability", [0.625, 0.1]),
    ],
)
def test_worked_values(name, expected):
    np.testing.assert_allclose(score(name, *PAIR), expected, rtol=1e-14)


def test_a_certain_answer_has_no_uncertainty():
    for name in ("sequence_probability", "perplexity", "min_token_probability"):
        assert score(name, record([1.0, 1.0]))[0] == 0.0


def test_likelihood_ranks_where_the_probability_rounds_to_zero():
    short, long = record([0.1] * 100), record([0.1] * 101)
    assert score("sequence_probability", short)[0] == score("sequence_probability", long)[0] == 1.0
    assert score("negative_log_likelihood", short)[0] < score("negative_log_likelihood", long)[0]


def test_near_certain_answers_still_differ():
    near, nearer = (
        Record(Example("1", "?"), greedy=Generation("x", logprobs=np.array([-gap])))
        for gap in (1e-18, 1e-20)
    )
    low, lower = score("sequence_probability", near, nearer)
    assert low > lower > 0


def test_reasoning_tokens_do_not_count():
    np.testing.assert_allclose(
        score("negative_log_likelihood", record([0.01, 0.5, 0.25], answer_start=1)), 3 * np.log(2)
    )


def test_reasoning_stands_in_where_no_answer_token_was_generated():
    assert score("first_token_probability", record([0.5, 0.25], answer_start=2))[0] == 0.5


def test_entropy_over_the_answers_tokens():
    one = record([0.9, 0.5, 0.25], answer_start=1, token_entropy=[9.0, 0.5, 1.5])
    values = [TokenEntropy(over).uncertainty([one])[0] for over in ("first", "mean", "max")]
    assert values == [0.5, 1.0, 1.5]


def test_margin_between_the_two_most_likely_tokens():
    top = np.log([[0.6, 0.3, 0.1], [0.5, 0.5, 0.0001]])
    one = record([0.6, 0.5], top_logprobs=top)
    values = [TokenMargin(over).uncertainty([one])[0] for over in ("first", "min", "mean")]
    np.testing.assert_allclose(values, [0.7, 1.0, 0.85], rtol=1e-14)


def test_margin_requires_two_tokens_per_position():
    two = record([0.6], top_logprobs=[[-0.5, -1.5]])
    one = record([0.6], top_logprobs=[[-0.5]])
    with pytest.raises(UnscorableError, match="2 records with fewer than 2 tokens") as error:
        TokenMargin().uncertainty([one, two, one])
    assert error.value.rows == (0, 2)


def test_a_feature_without_tokens_is_refused():
    one = Record(
        Example("1", "?"), greedy=Generation("x"), features={Feature.TOKEN_ENTROPY: np.empty(0)}
    )
    with pytest.raises(UnscorableError, match="1 records with no token in token_entropy") as error:
        TokenEntropy().uncertainty([record([0.5], token_entropy=[0.1]), one])
    assert error.value.rows == (1,)


def test_min_is_never_below_first_and_mean_lies_between():
    rng = np.random.default_rng(0)
    records = [record(rng.uniform(0.01, 1, size=n)) for n in rng.integers(1, 30, size=200)]
    first, smallest, mean = (
        TokenProbability(over).uncertainty(records) for over in ("first", "min", "mean")
    )
    assert (smallest >= first).all()
    assert (smallest >= mean).all()
