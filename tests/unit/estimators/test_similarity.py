"""Similarity of samples, on worked matrices and against direct loops."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators.density import SemanticDensity, SentenceSAR
from sightline.estimators.encoders import ContentWords
from sightline.estimators.graph import Degree, Eccentricity, LaplacianEigenvalues
from sightline.estimators.kernel import KernelLanguageEntropy
from sightline.estimators.similarity import (
    groups,
    score_similarities,
    similarities,
    similarity_needs,
    similarity_to_answer,
)

EVERY = (
    "words",
    "embeddings",
    "entailment",
    "contradiction",
    "nli",
    "jaccard",
    "rouge1",
    "rouge2",
    "rougeL",
)
VECTORS = {"dog": (1.0, 0.0), "cat": (0.6, 0.8), "cow": (-1.0, 0.0), "": (0.0, 1.0)}
ENTAILS = {("dog", "cat"): 0.3, ("cat", "dog"): 0.5}
CONTRADICTS = {("dog", "cat"): 0.4, ("cat", "dog"): 0.2}


def record(*samples, answer="dog"):
    """A record whose stored vectors and entailment depend on the texts alone."""
    texts = [answer, *samples]

    def pairs(known, same, other):
        return [[same if a == b else known.get((a, b), other) for b in texts] for a in texts]

    return Record(
        Example("1", "What is it?"),
        greedy=Generation(answer),
        samples=tuple(Generation(text) for text in samples),
        features={
            Feature.EMBEDDINGS: np.array([VECTORS.get(text, (0.8, 0.6)) for text in texts]),
            Feature.ENTAILMENT: np.array(pairs(ENTAILS, 1.0, 0.1)),
            Feature.CONTRADICTION: np.array(pairs(CONTRADICTS, 0.0, 0.7)),
        },
    )


def matrix(one, similarity):
    ((_, matrices),) = similarities([one], similarity)
    return matrices[0]


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        ("embeddings", 0.6),
        ("entailment", (0.3 + 0.5) / 2),
        ("contradiction", 1 - (0.4 + 0.2) / 2),
        ("nli", ((0.3 + 0.15) + (0.5 + 0.15)) / 2),  # neutral: .3 in both directions
        ("jaccard", 0.0),
        ("rougeL", 0.0),
    ],
)
def test_two_samples_of_worked_similarity(similarity, expected):
    np.testing.assert_allclose(
        matrix(record("dog", "cat"), similarity), [[1, expected], [expected, 1]], rtol=1e-14
    )


def test_words_are_the_cosine_of_content_words():
    said = ("a red dog", "red cat", "no")
    vectors = ContentWords().embed(sorted(said))
    cosine = np.clip(vectors @ vectors.T, 0, 1)
    np.testing.assert_allclose(matrix(record(*said), "words"), cosine, rtol=0, atol=1e-12)
    assert cosine[0, 2] == pytest.approx(0.5, abs=0.1)


def test_a_negative_cosine_counts_as_none():
    assert matrix(record("dog", "cow"), "embeddings")[0, 1] == 0.0


def test_samples_stand_in_the_order_of_their_texts():
    (group,) = groups([record("dog", "cat", "dog")])
    assert group.texts == [["cat", "dog", "dog"]]
    assert group.order.tolist() == [[1, 0, 2]]
    assert group.same[0].tolist() == [
        [True, False, False],
        [False, True, True],
        [False, True, True],
    ]


def test_equal_texts_are_alike_whatever_was_stored():
    one = record("dog", "dog")
    features = {**one.features, Feature.ENTAILMENT: np.full((3, 3), 0.98)}
    stored = Record(one.example, greedy=one.greedy, samples=one.samples, features=features)
    assert matrix(stored, "entailment").tolist() == [[1, 1], [1, 1]]


def test_entailment_of_the_answer_is_read_in_one_direction():
    (group,) = groups([record("cat", "dog", "cow")])
    assert group.texts == [["cat", "cow", "dog"]]
    assert similarity_to_answer(group, "entailment").tolist() == [[0.3, 0.1, 1.0]]
    np.testing.assert_allclose(similarity_to_answer(group, "nli"), [[0.45, 0.2, 1.0]])
    np.testing.assert_allclose(similarity_to_answer(group, "embeddings"), [[0.6, 0.0, 1.0]])
    assert similarity_to_answer(group, "jaccard").tolist() == [[0.0, 0.0, 1.0]]


def test_needs_name_what_is_read():
    assert similarity_needs("words") == similarity_needs("rougeL") == {Feature.SAMPLES}
    assert similarity_needs("nli") == {Feature.SAMPLES, Feature.ENTAILMENT, Feature.CONTRADICTION}


def test_many_records_of_different_numbers_keep_their_rows():
    said = [["dog"] * m + ["cat"] for m in (1, 4, 2, 1, 4)]
    records = [record(*texts) for texts in said] * 300
    ones = score_similarities(records, "jaccard", lambda matrices: matrices.sum(axis=(1, 2)))
    expected = [m * m + 1 for m in (1, 4, 2, 1, 4)] * 300
    assert ones.tolist() == expected


def test_vectors_of_another_width_are_other_records_matter():
    wide = Record(
        Example("2", "?"),
        greedy=Generation("dog"),
        samples=(Generation("dog"), Generation("cat")),
        features={Feature.EMBEDDINGS: np.eye(3)},
    )
    pairs = score_similarities([record("dog", "cat"), wide], "embeddings", lambda s: s[:, 0, 1])
    np.testing.assert_allclose(pairs, [0.6, 0.0])


texts = st.lists(
    st.sampled_from(["dog", "cat", "cow", "a dog", "red dog", "the red dog", "", "?"]),
    min_size=1,
    max_size=7,
)


@settings(deadline=None)
@given(texts, st.randoms(use_true_random=False), st.sampled_from(EVERY))
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
def test_symmetric_bounded_and_the_same_in_any_order(said, shuffler: random.Random, similarity):
    shuffled = list(said)
    shuffler.shuffle(shuffled)
    own = matrix(record(*said), similarity)
    assert (own == own.T).all()
    assert (own >= 0).all()
    assert (own <= 1).all()
    for (i, a), (j, b) in itertools.product(enumerate(sorted(said)), repeat=2):
        assert a != b or own[i, j] == 1.0
    np.testing.assert_array_equal(own, matrix(record(*shuffled), similarity))


def observed(*samples, answer="dog"):
    """As `record`, with log-probabilities that differ between the samples."""
    one = record(*samples, answer=answer)
    drawn = tuple(
        Generation(sample.text, logprobs=np.array([-0.3 * (i + 1), -0.1]))
        for i, sample in enumerate(one.samples)
    )
    own = Generation(answer, logprobs=np.array([-0.2]))
    return Record(one.example, greedy=own, samples=drawn, features=one.features)


LIMITS = (
    observed("dog"),
    observed(*["dog"] * 6),
    observed("", "", answer=""),
    observed("dog", "cat", "cow", "", "?", answer="?"),
    observed(*["cat", "dog"] * 12),
    observed(*[" ".join(f"w{i % n}" for i in range(2000)) for n in (690, 700)]),
)


@pytest.mark.parametrize("similarity", EVERY)
@pytest.mark.parametrize(
    "kind",
    [
        Degree,
        Eccentricity,
        LaplacianEigenvalues,
        KernelLanguageEntropy,
        SemanticDensity,
        SentenceSAR,
    ],
)
def test_every_estimator_keeps_the_laws_under_every_similarity(kind, similarity):
    estimator = kind(similarity=similarity)
    values = estimator.uncertainty(LIMITS)
    assert np.isfinite(values).all()
    alone = [estimator.uncertainty([one])[0] for one in LIMITS]
    np.testing.assert_array_equal(values, alone)
    np.testing.assert_array_equal(estimator.uncertainty(LIMITS[::-1]), values[::-1])
    assert similarity_needs(similarity) <= estimator.needs
    assert estimator.uncertainty([]).shape == (0,)
