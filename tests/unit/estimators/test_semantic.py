"""Entropies over sampled answers, on worked examples and against direct loops."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.text import canonical_answer
from sightline.core.types import Example, Generation, Record
from sightline.estimators import parse_estimator
from sightline.estimators.semantic import (
    DiscreteSemanticEntropy,
    DistinctAnswers,
    PredictiveEntropy,
    SemanticEntropy,
)

LOG2 = math.log(2)


def record(*samples, question="What is it?"):
    """Samples are texts, or texts with their token log-probabilities."""
    drawn = [
        Generation(s) if isinstance(s, str) else Generation(s[0], logprobs=np.array(s[1]))
        for s in samples
    ]
    return Record(Example("1", question), greedy=Generation("x"), samples=tuple(drawn))


def test_discrete_entropy_of_worked_counts():
    records = [
        record("dog", "a dog", "Dog.", "cat"),
        record("a1", "b1", "c1", "d1"),
        record("dog", "dog"),
        record("dog"),
    ]
    expected = [math.log(4) - 0.75 * math.log(3), math.log(4), 0.0, 0.0]
    np.testing.assert_allclose(DiscreteSemanticEntropy().uncertainty(records), expected, rtol=1e-14)
    assert DistinctAnswers().uncertainty(records).tolist() == [2.0, 4.0, 1.0, 1.0]


def test_predictive_entropy_of_worked_log_probabilities():
    one = record(("dog", [-1.0, -2.0]), ("cat", [-0.5]))
    assert PredictiveEntropy().uncertainty([one])[0] == pytest.approx(1.75)
    assert PredictiveEntropy(length_normalised=True).uncertainty([one])[0] == pytest.approx(1.0)


def test_the_end_token_counts_in_probability_and_length():
    """LM-Polygraph divides by the length without the end token: -2/1 instead of -2/2 here."""
    assert PredictiveEntropy(length_normalised=True).uncertainty([record(("dog", [-1.5, -0.5]))])[
        0
    ] == pytest.approx(1.0)


def test_semantic_entropy_weighs_different_texts_of_one_meaning():
    # dog .2 + a dog .1 against cat .1: shares 3/4 and 1/4.
    one = record(("dog", [math.log(0.2)]), ("a dog", [math.log(0.1)]), ("cat", [math.log(0.1)]))
    expected = math.log(4) - 0.75 * math.log(3)
    for normalised in (False, True):
        values = SemanticEntropy(normalised).uncertainty([one])
        np.testing.assert_allclose(values, expected, rtol=1e-13)


def test_a_text_drawn_often_counts_once():
    once = record(("dog", [-1.0]), ("cat", [-1.0]))
    often = record(*[("dog", [-1.0])] * 7, ("cat", [-1.0]))
    assert SemanticEntropy().uncertainty([once, often]).tolist() == pytest.approx([LOG2, LOG2])


def test_a_text_drawn_with_different_tokens_counts_with_its_highest_probability():
    one = record(("dog", [-1.0]), ("dog", [-9.0, -9.0]), ("cat", [-1.0]))
    assert SemanticEntropy().uncertainty([one])[0] == pytest.approx(LOG2)


def test_length_normalisation_lifts_long_answers():
    one = record(("dog", [-1.0]), ("very large dog", [-1.0, -1.0, -1.0]))
    assert SemanticEntropy(length_normalised=True).uncertainty([one])[0] == pytest.approx(LOG2)
    share = 1 / (1 + math.exp(-2))
    expected = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert SemanticEntropy(length_normalised=False).uncertainty([one])[0] == pytest.approx(expected)


def test_agreement_of_all_samples_is_exactly_zero():
    one = record(*[("dog", [-0.3, -0.1])] * 10, ("a dog", [-7.0]))
    for estimator in (DiscreteSemanticEntropy(), SemanticEntropy()):
        assert estimator.uncertainty([one])[0] == 0.0


def test_vanishing_probabilities_stay_finite():
    one = record(("dog", [-1e6]), ("cat", [0.0]), ("cow", [-2e6]))
    for normalised in (False, True):
        assert SemanticEntropy(normalised).uncertainty([one])[0] == 0.0


@pytest.mark.parametrize(("threshold", "sizes"), [(0.99, (2, 1, 1)), (0.7, (3, 1))])
def test_words_in_common_make_one_meaning_from_the_threshold_on(threshold, sizes):
    """Cosines: 1 of the same words, 2/sqrt(6) = 0.82 of two words and three, 0 of none."""
    one = record("red dog", "dog red", "red dog cat", "cow")
    shares = np.array(sizes) / 4
    found = DiscreteSemanticEntropy(clusters="words", threshold=threshold).uncertainty([one])[0]
    assert found == pytest.approx(-np.sum(shares * np.log(shares)), abs=1e-6)


def test_numbers_are_clustered_by_value():
    one = record("2", "two", "There are two.", "3", question="How many dogs are there?")
    assert DistinctAnswers().uncertainty([one])[0] == 2.0


samples = st.lists(
    st.tuples(
        st.sampled_from(["dog", "a dog", "cat", "Cat.", "cow", ""]),
        st.lists(st.floats(-20, 0), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(samples)
def test_equals_the_direct_formulas(drawn):
    one = record(*drawn)
    form = [canonical_answer(one.example, text) for text, _ in drawn]
    shares = np.array(list(Counter(form).values())) / len(form)
    np.testing.assert_allclose(
        DiscreteSemanticEntropy().uncertainty([one])[0],
        -np.sum(shares * np.log(shares)),
        atol=1e-12,
    )
    for normalised in (False, True):
        reduce = np.mean if normalised else np.sum
        best: dict[str, float] = {}
        for text, logprobs in drawn:
            best[text] = max(best.get(text, -math.inf), float(reduce(logprobs)))
        weight = {text: math.exp(s - max(best.values())) for text, s in best.items()}
        mass: Counter[str] = Counter()
        for text, w in weight.items():
            mass[canonical_answer(one.example, text)] += w / sum(weight.values())
        entropy = -sum(p * math.log(p) for p in mass.values() if p > 0)
        np.testing.assert_allclose(
            SemanticEntropy(normalised).uncertainty([one])[0], entropy, atol=1e-9
        )
        np.testing.assert_allclose(
            PredictiveEntropy(normalised).uncertainty([one])[0],
            -np.mean([reduce(logprobs) for _, logprobs in drawn]),
            atol=1e-12,
        )


@settings(deadline=None)
@given(samples, st.randoms(use_true_random=False))
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
def test_the_order_of_the_samples_changes_no_bit(drawn, random):
    shuffled = list(drawn)
    random.shuffle(shuffled)
    estimators = (
        DiscreteSemanticEntropy(),
        DistinctAnswers(),
        PredictiveEntropy(),
        SemanticEntropy(),
        SemanticEntropy(length_normalised=False),
    )
    for estimator in estimators:
        first, second = estimator.uncertainty([record(*drawn), record(*shuffled)])
        assert first == second


def stored(texts, entails=(), neutral=(), vectors=None, order=None):
    """Samples with pairwise entailment; pairs that are neither entailed nor neutral contradict."""
    order = list(range(len(texts))) if order is None else order
    answers = ["", *(texts[i] for i in order)]
    entailment = [[0.9 if a == b or (a, b) in entails else 0.05 for b in answers] for a in answers]
    contradiction = [
        [0.05 if a == b or (a, b) in {*entails, *neutral} else 0.9 for b in answers]
        for a in answers
    ]
    features = {
        Feature.ENTAILMENT: np.array(entailment),
        Feature.CONTRADICTION: np.array(contradiction),
    }
    if vectors is not None:
        vectors = np.array(vectors, dtype=float)[order]
        features[Feature.EMBEDDINGS] = np.concatenate([vectors[:1], vectors])
    one = record(*((answers[1 + i], [-1.0 - order[i]]) for i in range(len(order))))
    return Record(one.example, greedy=one.greedy, samples=one.samples, features=features)


BOTH_WAYS = {("p", "q"), ("q", "p"), ("q", "r"), ("r", "q")}


def test_entailment_clusters_need_both_directions():
    """Clusters {p, q}, {r}: q entails r, but r does not entail q and is not compared with it."""
    one = stored(["p", "q", "r"], {("p", "q"), ("q", "p"), ("q", "r")})
    expected = math.log(3) - 2 / 3 * LOG2
    assert DiscreteSemanticEntropy("entailment").uncertainty([one])[0] == pytest.approx(expected)
    only_one_way = stored(["p", "q", "r"], {("p", "q"), ("q", "r")})
    own = DiscreteSemanticEntropy("entailment").uncertainty([only_one_way])[0]
    assert own == pytest.approx(math.log(3))


def test_a_sample_is_compared_with_the_first_member_alone():
    """P ~ q ~ r but not p ~ r: q joins p, and r, unlike p, is a cluster of its own."""
    one = stored(["p", "q", "r"], BOTH_WAYS)
    expected = math.log(3) - 2 / 3 * LOG2
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]):
        shuffled = stored(["p", "q", "r"], BOTH_WAYS, order=order)
        first, second = DiscreteSemanticEntropy("entailment").uncertainty([one, shuffled])
        assert first == second == pytest.approx(expected)


def test_what_is_likeliest_neutral_is_not_entailed():
    pairs = {("p", "q"), ("q", "p")}
    one = stored(["p", "q"], (), pairs)  # entailed .05, contradicted .05, neutral .9
    assert DiscreteSemanticEntropy("entailment").uncertainty([one])[0] == pytest.approx(LOG2)


def test_equal_texts_are_one_cluster_whatever_was_stored():
    one = stored(["p", "p", "p"])
    odd = Record(
        one.example,
        greedy=one.greedy,
        samples=one.samples,
        features={
            Feature.ENTAILMENT: np.full((4, 4), 0.2),
            Feature.CONTRADICTION: np.full((4, 4), 0.5),
            Feature.EMBEDDINGS: np.eye(4),
        },
    )
    for clusters in ("entailment", "embeddings"):
        assert DiscreteSemanticEntropy(clusters).uncertainty([odd])[0] == 0.0
        assert SemanticEntropy(clusters=clusters).uncertainty([odd])[0] == 0.0


def test_embeddings_cluster_by_their_cosine():
    one = stored(["p", "q", "r"], vectors=[[1, 0], [0.8, 0.6], [0, 1]])
    thresholds = {0.9: math.log(3), 0.7: math.log(3) - 2 / 3 * LOG2, -1.0: 0.0}
    for threshold, expected in thresholds.items():
        own = DiscreteSemanticEntropy("embeddings", threshold).uncertainty([one])[0]
        assert own == pytest.approx(expected, abs=1e-12)
    # Probabilities e^-1 : e^-2 : e^-3 with {p, q} together.
    p = np.exp([-1.0, -2.0, -3.0])
    shares = np.array([p[0] + p[1], p[2]]) / p.sum()
    own = SemanticEntropy(clusters="embeddings", threshold=0.7).uncertainty([one])[0]
    assert own == pytest.approx(-np.sum(shares * np.log(shares)))


@pytest.mark.parametrize("value", ["1.5", "-2", "nan"])
def test_a_threshold_that_is_no_cosine_is_refused(value):
    for name in ("semantic_entropy", "discrete_semantic_entropy"):
        with pytest.raises(UsageError, match="a cosine between -1 and 1 is required"):
            parse_estimator(f"{name}:threshold={value}")
