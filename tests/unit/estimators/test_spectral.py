"""Gram spectra, their functionals and EigenScore, on vectors whose spectrum is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators import parse_estimator
from sightline.estimators.spectral import (
    EigenScore,
    GramSpectrum,
    eigenscore,
    gram_spectra,
    spectra,
)

FUNCTIONALS = (
    "von_neumann_entropy",
    "mean_log_eigenvalue",
    "largest_eigenvalue",
    "participation_ratio",
)


def record(vectors, hidden=None, texts=None, logprobs=None, layers=(1,)):
    """Samples with these stored vectors; the judged answer has the first one's."""
    vectors = np.array(vectors, dtype=float)
    m = len(vectors)
    texts = texts or [f"t{i:02}" for i in range(m)]
    features = {Feature.EMBEDDINGS: np.concatenate([vectors[:1], vectors])}
    if hidden is not None:
        features[Feature.SAMPLE_HIDDEN] = np.asarray(hidden)
    return Record(
        Example("1", "?"),
        greedy=Generation("x"),
        samples=tuple(
            Generation(t, logprobs=None if logprobs is None else np.array([lp]))
            for t, lp in zip(texts, logprobs or [None] * m, strict=True)
        ),
        features=features,
        layers=layers if hidden is not None else (),
    )


def test_spectrum_of_worked_vectors():
    """Cosine c between two: 1 ± c; a third at right angles: 1."""
    one = record([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 2.0]])  # lengths do not count
    np.testing.assert_allclose(gram_spectra([one], "embeddings").values, [1.6, 1.0, 0.4])


@pytest.mark.parametrize("m", [1, 2, 7])
def test_the_documented_limits(m):
    same, apart = record(np.ones((m, 3))), record(np.eye(m, m + 1))
    values = gram_spectra([same, apart], "embeddings")
    np.testing.assert_allclose(values.values, [m] + [0.0] * (m - 1) + [1.0] * m, atol=1e-12)
    assert (values.values >= 0).all()
    alpha = 0.001
    expected = {
        "von_neumann_entropy": (0.0, math.log(m)),
        "mean_log_eigenvalue": (
            (math.log(m + alpha) + (m - 1) * math.log(alpha)) / m,
            math.log(1 + alpha),
        ),
        "largest_eigenvalue": (0.0, 1 - 1 / m),
        "participation_ratio": (1.0, m),
    }
    for functional in FUNCTIONALS:
        own = GramSpectrum(functional, "embeddings").uncertainty([same, apart])
        np.testing.assert_allclose(own, expected[functional], atol=1e-10)


def test_functionals_of_a_worked_spectrum():
    one = [record([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])]
    shares = np.array([1.6, 1.0, 0.4]) / 3
    expected = (
        -np.sum(shares * np.log(shares)),
        np.mean(np.log(np.array([1.6, 1.0, 0.4]) + 0.001)),
        1 - shares[0],
        1 / np.sum(shares**2),
    )
    for functional, value in zip(FUNCTIONALS, expected, strict=True):
        assert GramSpectrum(functional, "embeddings").uncertainty(one)[0] == pytest.approx(value)


def test_likelihood_weighs_the_gram_matrix():
    """Of two apart with probabilities 3/4 and 1/4 the spectrum is 2 · (3/4, 1/4)."""
    one = record(np.eye(2), logprobs=[math.log(0.6), math.log(0.2)])
    np.testing.assert_allclose(
        gram_spectra([one], "embeddings", likelihood_weighted=True).values, [1.5, 0.5]
    )
    vanishing = record(np.eye(2), logprobs=[-1.0, -1e6])
    np.testing.assert_allclose(
        gram_spectra([vanishing], "embeddings", likelihood_weighted=True).values, [2.0, 0.0]
    )


def test_hidden_states_are_read_at_the_layer():
    hidden = np.stack([np.eye(3), np.ones((3, 3)), np.diag([1.0, 2.0, 3.0]) + 0.0])
    one = record(np.eye(3), hidden, layers=(4, 8, 12))
    np.testing.assert_allclose(gram_spectra([one], "hidden").values, [3, 0, 0], atol=1e-12)
    np.testing.assert_allclose(gram_spectra([one], "hidden", layer="4").values, [1, 1, 1])
    scores = [EigenScore(layer=layer).uncertainty([one])[0] for layer in ("4", "8", "12", "middle")]
    assert scores[1] == scores[3] == pytest.approx(math.log(0.001))
    assert scores[2] > scores[0]  # EigenScore keeps the lengths


def test_a_layer_that_was_not_stored_names_the_rows():
    one, two = (record(np.eye(2), np.ones((1, 2, 2)), layers=(layer,)) for layer in (1, 2))
    with pytest.raises(UnscorableError, match=r"no hidden state of layer 2; layers \[1\]") as error:
        gram_spectra([two, one, two], "hidden", layer="2")
    assert tuple(error.value.rows) == (1,)


@pytest.mark.parametrize(
    "spec", ["eigenscore:layer=last", "eigenscore:alpha=0", "von_neumann_entropy:alpha=-1"]
)
def test_a_setting_that_cannot_be_is_refused(spec):
    with pytest.raises(UsageError):
        parse_estimator(spec)


def test_eigenscore_of_a_worked_covariance():
    """(1, −1) and (2, −2) have mean 0 over their entries: Gram eigenvalues 10 and 0."""
    one = np.array([[[1.0, -1.0], [2.0, -2.0]]])
    expected = (math.log(10 + 0.5) + math.log(0.5)) / 2
    assert eigenscore(one, 0.5)[0] == pytest.approx(expected)
    shifted = one + np.array([3.0, -7.0])[:, None]  # one shift per sample
    assert eigenscore(shifted, 0.5)[0] == pytest.approx(expected)


@pytest.mark.parametrize("m", [1, 2, 6])
def test_the_documented_limit_of_eigenscore(m):
    """All samples (3, −1), centred (2, −2): z² = 8, one eigenvalue 8m and m − 1 of 0."""
    same = np.tile([3.0, -1.0], (1, m, 1))
    expected = ((m - 1) * math.log(0.001) + math.log(0.001 + 8 * m)) / m
    assert eigenscore(same, 0.001)[0] == pytest.approx(expected, rel=1e-9)


def test_half_precision_states_are_read_in_double():
    hidden = np.random.default_rng(0).normal(size=(1, 5, 64)).astype(np.float16)
    one = record(np.eye(5), hidden)
    wide = record(np.eye(5), hidden.astype(np.float64))
    assert EigenScore().uncertainty([one])[0] == EigenScore().uncertainty([wide])[0]


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_rotations_and_the_order_change_nothing_and_paraphrase_little(m, d, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(1, m, d))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    own = spectra(vectors)
    assert own.sum() == pytest.approx(m)
    assert (np.diff(own) <= 1e-12).all()
    rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
    np.testing.assert_allclose(spectra(vectors @ rotation), own, atol=1e-10)
    np.testing.assert_allclose(spectra(vectors[:, rng.permutation(m)]), own, atol=1e-10)
    moved = vectors + 0.01 * rng.normal(size=vectors.shape)
    gram = moved[0] @ moved[0].T - vectors[0] @ vectors[0].T
    assert np.abs(spectra(moved) - own).max() <= np.linalg.norm(gram, 2) + 1e-12


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a dog", "dog", "red dog", "cat", ""]), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
def test_the_order_of_the_samples_changes_no_bit(texts, random):
    order = list(range(len(texts)))
    random.shuffle(order)
    vector = {text: np.random.default_rng(len(text)).normal(size=3) for text in texts}
    logprobs = [-0.1 * i for i in range(len(texts))]
    drawn = [
        record(
            [vector[texts[i]] for i in own],
            None,
            [texts[i] for i in own],
            [logprobs[i] for i in own],
        )
        for own in (range(len(texts)), order)
    ]
    for similarity in ("words", "embeddings"):
        for weighted in (False, True):
            values = gram_spectra(drawn, similarity, likelihood_weighted=weighted)
            first, second = np.split(values.values, 2)
            np.testing.assert_array_equal(first, second)
