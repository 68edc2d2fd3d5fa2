"""What a scorer's start reads of an answer, and the regression on it."""

import numpy as np
import pytest

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators.token_sequence import Reading, sequences
from sightline.estimators.token_start import (
    LIMIT,
    STRENGTHS,
    StartInputs,
    soft_auroc,
    start_numbers,
    word_rows,
)
from sightline.estimators.token_text import BUCKETS, HashedText

ALL = Reading(text=True, probability=True, hidden=True, image=True, additive=False, layer=2)
NUMBERS = Reading(text=False, probability=True, hidden=False, image=False, additive=False, layer=2)


def laid_out(logprobs, tokens=None, question="Is it red?", reading=ALL):
    t = len(logprobs)
    hidden = np.arange(2 * t * 3, dtype=float).reshape(2, t, 3)
    answer = Generation("red", tokens=tokens or ("red",) * t, logprobs=np.array(logprobs))
    record = Record(
        Example("a", question),
        greedy=answer,
        features={Feature.HIDDEN: hidden, Feature.IMAGE_HIDDEN: -hidden[:, 0]},
        layers=(1, 2),
    )
    return sequences([record], reading, HashedText(), np.log([0.25, 0.5]))[0]


def test_numbers_by_hand():
    found = start_numbers(laid_out(np.log([0.5, 0.5])))
    expected = [np.log(1 / 3), -np.log1p(np.log(2)), -np.log1p(np.log(2))]
    np.testing.assert_allclose(found[:3], expected, atol=1e-12)
    np.testing.assert_allclose(found[3:6], [7.5, 8.5, 9.5])  # mean over two tokens of layer 2
    np.testing.assert_allclose(found[6:], [-6, -7, -8])  # the image's


@pytest.mark.parametrize(
    ("logprobs", "odds"), [((0.0, 0.0), LIMIT), ((-1e-300,), LIMIT), ((-1e5,) * 2000, -LIMIT)]
)
def test_log_odds_of_certain_and_impossible_answers_are_held(logprobs, odds):
    found = start_numbers(laid_out(logprobs, reading=NUMBERS))
    assert found[0] == odds
    assert np.isfinite(found).all()


def test_every_word_counts_once_and_apart_in_question_and_answer():
    answer = laid_out((-1.0, -1.0, -1.0), ("red", " red", "<end>"), "Red or red or not red?")
    rows = word_rows(answer, BUCKETS)
    asked, told = rows[rows < BUCKETS], rows[rows >= BUCKETS]
    assert len(asked) == 4  # red, or, not, ?
    assert len(told) == 2  # red, <end>
    assert set(told - BUCKETS) & set(asked) == {HashedText().positions("red")[0, 0] - 1}
    assert len(set(rows)) == len(rows)


def test_weights_are_those_of_inputs_as_they_are():
    rng = np.random.default_rng(0)
    numbers = rng.normal([5.0, -2.0], [3.0, 0.1], size=(60, 2))
    words = rng.integers(0, 2, (60, 1)).astype(float)
    correct = (numbers[:, 0] + rng.normal(size=60) > 5).astype(float)
    inputs = StartInputs(numbers, words, np.array([4]), weighted=0)
    chosen = np.arange(60) < 40
    weights, bias = inputs.fit(chosen, correct, STRENGTHS[1])
    from sightline.estimators.learning import fit_logistic

    features = np.hstack([numbers, words])[chosen]
    mean, scale = features.mean(axis=0), features.std(axis=0)
    expected, intercept = fit_logistic((features - mean) / scale, correct[chosen], STRENGTHS[1])
    np.testing.assert_allclose(
        inputs.log_odds(weights, bias, chosen),
        (features - mean) / scale @ expected + intercept,
        atol=1e-10,
    )


def test_the_penalty_hardly_touches_the_answers_probability():
    rng = np.random.default_rng(1)
    odds = rng.normal(size=(400, 1))
    correct = (rng.uniform(size=400) < 1 / (1 + np.exp(-odds[:, 0]))).astype(float)
    everything = np.ones(400, dtype=bool)

    def slope(weighted):
        inputs = StartInputs(odds, np.empty((400, 0)), np.empty(0, dtype=np.int64), weighted)
        return inputs.fit(everything, correct, 1e-3)[0][0]

    assert slope(0) < 0.15
    assert slope(1) > 0.75


def test_validated_scores_do_not_see_their_own_fold():
    rng = np.random.default_rng(2)
    numbers, fold = rng.normal(size=(60, 20)), np.arange(60) % 3
    correct = rng.integers(0, 2, 60).astype(float)
    inputs = StartInputs(numbers, np.empty((60, 0)), np.empty(0, dtype=np.int64), 0)
    found = inputs.validated(correct, fold, 1.0)
    changed = correct.copy()
    changed[0] = 1 - changed[0]
    np.testing.assert_array_equal(found[fold == 0], inputs.validated(changed, fold, 1.0)[fold == 0])
    everything = np.ones(60, dtype=bool)
    weights, bias = inputs.fit(everything, correct, 1.0)
    assert soft_auroc(inputs.log_odds(weights, bias, everything), correct) > soft_auroc(
        found, correct
    )
