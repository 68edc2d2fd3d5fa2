"""Few-hot codes, words as numbers, and how an answer is laid out."""

import numpy as np
import pytest

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators.token_codes import BINS, bin_of, few_hot, interior_quantiles
from sightline.estimators.token_sequence import (
    ANSWER,
    ANSWER_TOKENS,
    FRAME,
    IMAGE,
    PROBABILITY,
    QUESTION,
    QUESTION_WORDS,
    STATE,
    Reading,
    sequences,
)
from sightline.estimators.token_text import BUCKETS, FEATURES, HashedText, words

ALL = Reading(text=True, probability=True, hidden=True, image=True, additive=False, layer=2)
EDGES = np.log([0.25, 0.5])


def record(tokens=("red", "<end>"), logprobs=(-1.0, -0.01), **more):
    t = len(logprobs)
    hidden = np.arange(2 * t * 3, dtype=float).reshape(2, t, 3)
    features = {Feature.HIDDEN: hidden, Feature.IMAGE_HIDDEN: -hidden[:, 0]}
    answer = Generation("red", tokens=tokens, logprobs=np.array(logprobs), **more)
    return Record(Example("a", "Is it red?"), greedy=answer, features=features, layers=(1, 2))


def laid_out(one, reading=ALL):
    return sequences([one], reading, HashedText(), EDGES)[0]


def test_every_bin_is_used_and_about_equally():
    logprobs = -np.random.default_rng(0).exponential(size=4000)
    edges = interior_quantiles(logprobs)
    assert len(edges) == BINS - 1
    counts = np.bincount(bin_of(logprobs, edges), minlength=BINS)
    np.testing.assert_allclose(counts / 4000, 1 / BINS, atol=0.001)


def test_bins_are_the_same_for_probabilities_and_logarithms():
    logprobs = -np.random.default_rng(1).exponential(size=101)
    in_nats = bin_of(logprobs, interior_quantiles(logprobs))
    as_share = bin_of(np.exp(logprobs), interior_quantiles(np.exp(logprobs)))
    np.testing.assert_array_equal(in_nats, as_share)


def test_equal_probabilities_fall_into_one_bin():
    logprobs = np.full(20, -0.5)
    assert set(bin_of(logprobs, interior_quantiles(logprobs))) == {BINS - 1}


def test_codes_have_one_block_each_and_do_not_overlap():
    codes = few_hot(768, 0.02)
    assert codes.shape == (8, 768)
    assert (np.count_nonzero(codes, axis=1) == 96).all()
    np.testing.assert_allclose(codes[codes != 0], 0.16)
    np.testing.assert_allclose(codes @ codes.T, np.diag([96 * 0.16**2] * 8))


def test_a_text_is_its_lower_case_form_and_its_groups_of_letters():
    code = HashedText()
    np.testing.assert_array_equal(code.positions(" Red"), code.positions("red"))
    assert np.count_nonzero(code.positions("red")) == 4  # <red>, <re, red, ed>
    assert np.count_nonzero(code.positions("")) == 1
    shared = set(code.positions("circles")[0]) & set(code.positions("circle")[0]) - {0}
    assert len(shared) == 5
    assert not set(code.positions("circle")[0]) & set(code.positions("two")[0]) - {0}


def test_any_text_fits_the_table():
    for text in ("", " ", "\x00", "红色的狗", "🐕", "x" * 9999):
        row = HashedText().positions(text)
        assert row.shape == (1, FEATURES)
        assert ((row >= 0) & (row < BUCKETS)).all()
        assert row[0, 0] > 2


def test_interleaved_gives_each_signal_its_position():
    found = laid_out(record())
    token = [ANSWER, PROBABILITY, STATE]
    assert found.kind.tolist() == [FRAME, IMAGE, *[QUESTION] * 4, FRAME, *token, *token, FRAME]
    assert found.probability[found.kind == PROBABILITY].tolist() == [2, 3]
    assert found.state[found.kind == STATE].tolist() == [1, 2]
    assert (found.probability > 0).sum() == (found.state > 0).sum() == 2
    first = found.number[7:10]
    assert set(first) == {first[0]}
    assert set(found.number[10:13]) == {first[0] + 1}
    np.testing.assert_array_equal(found.states, [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(found.image, [-6, -7, -8])


def test_additive_puts_all_of_a_token_on_one_position():
    reading = Reading(text=True, probability=True, hidden=True, image=False, additive=True, layer=1)
    found = laid_out(record(), reading)
    here = found.kind == ANSWER
    assert here.sum() == 2
    assert found.probability[here].tolist() == [2, 3]
    assert found.state[here].tolist() == [1, 2]
    assert (found.text[here][:, 0] > 2).all()


def test_what_does_not_take_part_has_no_position():
    reading = Reading(
        text=False, probability=True, hidden=False, image=False, additive=False, layer=None
    )
    found = laid_out(record(), reading)
    assert found.kind.tolist() == [FRAME, PROBABILITY, PROBABILITY, FRAME]
    assert found.states.size == found.image.size == 0


def test_tokens_that_were_not_recorded_are_replaced_by_the_words():
    found = laid_out(record(tokens=None))
    assert (found.kind == ANSWER).sum() == 1
    np.testing.assert_array_equal(found.text[found.kind == ANSWER], HashedText().positions("red"))
    assert (found.kind == STATE).sum() == 2


def test_reasoning_is_left_out():
    found = laid_out(record(("so", "red", "."), (-3.0, -1.0, -0.01), answer_start=1))
    np.testing.assert_array_equal(found.states, [[12, 13, 14], [15, 16, 17]])
    assert found.logprobs.tolist() == [-1.0, -0.01]


def test_long_answers_and_questions_keep_their_ends():
    count = 2000
    tokens = tuple(f"t{i}" for i in range(count))
    one = record(tokens, np.linspace(-9, 0, count))
    asked = Example("a", " ".join(f"w{i}" for i in range(300)))
    found = laid_out(Record(asked, greedy=one.greedy, features=one.features, layers=(1, 2)))
    assert (found.kind == STATE).sum() == ANSWER_TOKENS
    assert (found.kind == QUESTION).sum() == QUESTION_WORDS
    np.testing.assert_array_equal(found.states[0], one.array(Feature.HIDDEN)[1, 0])
    np.testing.assert_array_equal(found.states[-1], one.array(Feature.HIDDEN)[1, -1])
    last = found.text[found.kind == ANSWER][-1]
    np.testing.assert_array_equal(last, HashedText().positions("t1999")[0])
    assert len(found.logprobs) == count


@pytest.mark.parametrize(
    ("text", "expected"), [("", []), ("  \n", []), ("a-b 12", ["a", "-", "b", "12"])]
)
def test_words(text, expected):
    assert words(text) == expected
