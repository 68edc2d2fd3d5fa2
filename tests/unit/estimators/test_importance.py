"""Importance-weighted log-probabilities, on worked answers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators import parse_estimator
from sightline.estimators.encoders import ContentWords
from sightline.estimators.importance import MARS, TokenSAR, token_importance


def record(tokens, logprobs, importance=None, text=None, answer_start=0):
    features = {} if importance is None else {Feature.TOKEN_IMPORTANCE: np.array(importance)}
    return Record(
        Example("1", "?"),
        greedy=Generation(
            "".join(tokens).removesuffix("</s>").strip() if text is None else text,
            tokens=tuple(tokens),
            logprobs=np.array(logprobs, dtype=float),
            answer_start=answer_start,
        ),
        features=features,
    )


def importance(*records):
    return token_importance(records, "words").values


def change(whole, without):
    one, two = ContentWords().embed([whole, without])
    return 1 - one @ two


def test_token_sar_of_worked_importance():
    one = record("abc", [-0.1, -0.5, -2.0], [0.5, 0.3, 0.2])
    assert TokenSAR("stored").uncertainty([one])[0] == pytest.approx(0.05 + 0.15 + 0.4)


def test_mars_of_worked_importance():
    """Two tokens, weights 1/(1 + e^±2) by the softmax at .1, halved with the even 1/2."""
    one = record("ab", [-1.0, -3.0], [0.5, 0.3])
    share = 1 / (1 + math.exp(-2))
    expected = 0.5 * (share * 1 + (1 - share) * 3) + 0.5 * 2
    assert MARS(importance="stored").uncertainty([one])[0] == pytest.approx(expected)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.4, 0.4, 0.4]])
def test_tokens_that_matter_alike_give_the_perplexity(values):
    """LM-Polygraph's TokenSAR is 0, fully certain, where no token matters."""
    one = record("abc", [-0.1, -0.5, -2.0], values)
    for estimator in (TokenSAR("stored"), MARS(importance="stored")):
        assert estimator.uncertainty([one])[0] == pytest.approx(2.6 / 3)


def test_content_matters_and_function_words_and_the_end_do_not():
    one = record([" It", " is", " a", " red", " dog", "</s>"], [-1.0] * 6)
    values = importance(one)
    assert values[[0, 1, 2, 5]].tolist() == [0.0] * 4
    assert values[3] == pytest.approx(change("It is a red dog", "It is a dog"))
    assert values[4] == pytest.approx(change("It is a red dog", "It is a red"))
    np.testing.assert_allclose(values[3:5], 1 - math.sqrt(1 / 2), atol=0.05)


def test_only_content_counts_in_the_scores():
    sure, unsure = (
        record([" a", " dog", "</s>"], logprobs) for logprobs in ([-5, -0.1, -5], [-0.1, -5, -0.1])
    )
    np.testing.assert_allclose(TokenSAR().uncertainty([sure, unsure]), [0.1, 5.0])
    low, high = MARS().uncertainty([sure, unsure])
    assert low > 0.1  # half of it is even over the tokens
    assert high < 5.0


def test_a_piece_of_a_word_changes_the_word():
    one = record(["▁circ", "le", "</s>"], [-1.0, -1.0, -1.0], text="circle")
    np.testing.assert_allclose(
        importance(one), [change("circle", "le"), change("circle", "circ"), 0]
    )
    assert (importance(one)[:2] > 0.9).all()


def test_pieces_the_text_does_not_show_matter_nothing():
    one = record(["<s>", "�", "dog", "�", "!"], [-1.0] * 5, text="dog!")
    values = importance(one)
    assert values[2] > 0.9
    assert values[[0, 1, 3, 4]].tolist() == [0.0] * 4


def test_reasoning_is_left_out():
    one = record(["Let", " me", " dog", "</s>"], [-9, -9, -1, -1], text="dog", answer_start=2)
    assert importance(one).shape == (2,)
    assert TokenSAR().uncertainty([one])[0] == pytest.approx(1.0)


def test_empty_answers_give_the_perplexity():
    one = record(["</s>"], [-0.7], text="")
    for estimator in (TokenSAR(), MARS()):
        assert estimator.uncertainty([one])[0] == pytest.approx(0.7)


def test_two_thousand_tokens_are_read_in_pieces():
    words = [f" w{i}x" for i in range(2000)]
    one = record(words, np.full(2000, -0.5))
    values = importance(one)
    assert values.shape == (2000,)
    piece = "".join(words[64:96])
    assert values[70] == pytest.approx(change(piece, piece.replace(" w70x", "")), abs=1e-9)
    assert TokenSAR().uncertainty([one])[0] == pytest.approx(0.5)


def test_tokens_that_were_not_observed_name_the_rows():
    bare = Record(Example("1", "?"), greedy=Generation("dog", logprobs=np.array([-1.0])))
    for estimator in (TokenSAR(), MARS()):
        with pytest.raises(UnscorableError, match="importance=stored") as error:
            estimator.uncertainty([record(["dog"], [-1.0]), bare])
        assert tuple(error.value.rows) == (1,)


@pytest.mark.parametrize("value", ["0", "-1", "inf"])
def test_a_temperature_that_cannot_be_is_refused(value):
    with pytest.raises(UsageError, match="a number above 0 is required"):
        parse_estimator(f"mars:temperature={value}")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-20, 0), st.floats(0, 2), st.sampled_from([" a", " dog", " red", "s"])),
        min_size=1,
        max_size=8,
    )
)
def test_lies_between_the_least_and_most_likely_token(drawn):
    logprobs, weights, tokens = zip(*drawn, strict=True)
    one = record(tokens, logprobs, weights)
    low, high = -max(logprobs), -min(logprobs)
    for estimator in (TokenSAR(), MARS(), TokenSAR("stored"), MARS(importance="stored")):
        assert low - 1e-9 <= estimator.uncertainty([one])[0] <= high + 1e-9
