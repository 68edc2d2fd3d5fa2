import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.calibration import CALIBRATORS
from sightline.core.errors import DataError, MissingFeatureError, UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators import FITTED
from sightline.estimators.saved import Saved, load_fitted, save_fitted
from sightline.estimators.sgpu import SGPU, FittedSGPU
from sightline.estimators.spectral import GramSpectrum, gram_spectra
from sightline.estimators.spectrum_features import SpectrumReader, Standardiser
from sightline.estimators.spectrum_regression import SpectrumLogisticRegression
from sightline.metrics.calibration_error import ece
from sightline.metrics.discrimination import auroc


@cache
def generation(text, logprob):
    return Generation(text, logprobs=np.array([logprob]))


def said(name, *texts, logprobs=None):
    logprobs = [-0.5] * len(texts) if logprobs is None else logprobs
    samples = tuple(generation(text, lp) for text, lp in zip(texts, logprobs, strict=True))
    return Record(Example(name, "What?"), samples=samples)


def with_vectors(name, vectors, *, states=False):
    """A record whose samples have the given embeddings, and on request also these states."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    features = {Feature.EMBEDDINGS: np.vstack([unit[:1], unit])}
    if states:
        features[Feature.SAMPLE_HIDDEN] = np.stack([np.ones_like(vectors), vectors])
    samples = tuple(generation(f"{i:02d}", -0.5) for i in range(len(vectors)))
    layers = (3, 7) if states else ()
    return Record(Example(name, "What?"), samples=samples, features=features, layers=layers)


def drawn(n, rng, *, noise=0.3, meanings=8, samples=10, width=32, states=False):
    """Samples of latent meanings; the more mass on the top meaning, the likelier the answer."""
    centres = rng.normal(size=(n, meanings, width))
    centres /= np.linalg.norm(centres, axis=2, keepdims=True)
    mass = rng.dirichlet(np.full(meanings, 0.3), n)
    meant = (rng.random((n, samples, 1)) > np.cumsum(mass, axis=1)[:, None, :]).sum(axis=2)
    vectors = centres[np.arange(n)[:, None], np.minimum(meant, meanings - 1)]
    vectors = vectors + noise * rng.normal(size=vectors.shape) / np.sqrt(width)
    correct = rng.random(n) < 1 / (1 + np.exp(-7 * (mass.max(axis=1) - 0.6)))
    records = [with_vectors(f"{i:05d}", own, states=states) for i, own in enumerate(vectors)]
    return records, correct.astype(float)


def spectrum(vectors):
    return gram_spectra([with_vectors("1", vectors)], "embeddings").values


@st.composite
def any_vectors(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    return rng.normal(size=(draw(st.integers(1, 12)), draw(st.integers(2, 20))))


@settings(max_examples=60, deadline=None)
@given(any_vectors(), st.integers(0, 2**20))
def test_facts_of_the_spectrum(vectors, seed):
    rng = np.random.default_rng(seed)
    own = spectrum(vectors)
    m, d = vectors.shape
    assert own.sum() == pytest.approx(m, abs=1e-9)
    assert (own >= 0).all()
    assert (np.diff(own) <= 0).all()
    np.testing.assert_allclose(spectrum(vectors[rng.permutation(m)]), own, atol=1e-9)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    np.testing.assert_allclose(spectrum(vectors @ rotation), own, atol=1e-9)
    same = np.tile(vectors[:1], (m, 1))
    np.testing.assert_allclose(spectrum(same), [m, *[0] * (m - 1)], atol=1e-9)
    if m <= d:
        np.testing.assert_allclose(spectrum(rotation[:m]), np.ones(m), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(any_vectors(), st.floats(0, 1), st.integers(0, 2**20))
def test_a_paraphrase_moves_the_spectrum_no_more_than_the_gram_matrix(vectors, size, seed):
    moved = vectors + size * np.random.default_rng(seed).normal(size=vectors.shape)

    def gram(rows):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit @ unit.T

    change = np.linalg.norm(gram(moved) - gram(vectors), ord=2)
    assert np.abs(spectrum(moved) - spectrum(vectors)).max() <= change + 1e-9


def test_features_by_hand():
    # Two of one meaning and one of another: eigenvalues 2, 1, 0, shares 2/3, 1/3, 0.
    record = said("1", "dog", "a dog", "cat")
    features, entropy = SpectrumReader("words", False, "cumulative").read([record])
    at = np.arange(16) / 16 * 2
    np.testing.assert_allclose(features[0], np.interp(at, [0, 1, 2], [2 / 3, 1, 1]), atol=0.02)
    shares = gram_spectra([record]).values / 3
    positive = shares[shares > 0]
    assert entropy[0] == pytest.approx(-(positive * np.log(positive)).sum(), abs=1e-7)
    plain, _ = SpectrumReader("words", False, "eigenvalues").read([record])
    np.testing.assert_allclose(plain[0], shares, atol=1e-9)
    logs, _ = SpectrumReader("words", False, "log").read([record])
    np.testing.assert_allclose(logs[0], np.log(shares + 1e-3), atol=1e-6)


def test_agreement_looks_the_same_whatever_the_number_of_samples():
    records = [said(str(m), *["a dog"] * m) for m in (1, 2, 5, 10, 20)]
    features, entropy = SpectrumReader("words", False, "cumulative").read(records)
    np.testing.assert_array_equal(features, np.ones((5, 16)))
    np.testing.assert_array_equal(entropy, np.zeros(5))
    answers = SGPU(restarts=1).fit(
        [*records, said("x", "dog", "cat"), said("y", "dog", "bird")],
        np.array([1.0, 1, 1, 1, 1, 0, 0]),
        rng=np.random.default_rng(0),
    )
    assert len(set(answers.uncertainty(records))) == 1


def test_the_likelihood_weighs_samples():
    even = said("1", "dog", "cat", logprobs=[-1.0, -1.0])
    sure = said("2", "dog", "cat", logprobs=[-0.1, -30.0])
    reader = SpectrumReader("words", True, "eigenvalues")
    features, _ = reader.read([even, sure])
    plain, _ = SpectrumReader("words", False, "eigenvalues").read([even])
    np.testing.assert_allclose(features[0], plain[0], atol=1e-9)
    np.testing.assert_allclose(features[1], [1.0, 0.0], atol=1e-6)


def test_a_feature_that_does_not_vary_is_left_alone():
    scaling = Standardiser.of(np.array([[1.0, 0.3], [1.0, 0.5]]))
    np.testing.assert_allclose(scaling.apply(np.array([[2.0, 0.4]])), [[1.0, 0.0]], atol=1e-12)


@pytest.mark.parametrize("mean", ["entropy", "constant", "zero"])
@pytest.mark.parametrize("spectrum", ["cumulative", "eigenvalues", "log"])
def test_learns_that_disagreement_is_wrong(mean, spectrum):
    rng = np.random.default_rng(0)
    records, correct = drawn(150, rng)
    new, truth = drawn(300, rng)
    fitted = SGPU("embeddings", mean=mean, spectrum=spectrum, restarts=2).fit(
        records, correct, rng=np.random.default_rng(0)
    )
    assert auroc(1 - fitted.uncertainty(new), truth) > 0.6


def test_the_layer_of_the_likeliest_labels_is_chosen():
    records, correct = drawn(80, np.random.default_rng(0), states=True)
    hidden = SGPU("hidden", restarts=1)
    fitted = hidden.fit(records, correct, rng=np.random.default_rng(0))
    assert fitted.reader.layer == "7"  # layer 3 holds the same state for all
    fixed = replace(hidden, layer="7").fit(records, correct, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(fixed.uncertainty(records), fitted.uncertainty(records))
    assert hidden.slow
    assert not replace(hidden, layer="7").slow
    with pytest.raises(UnscorableError, match="80 records with no hidden state of layer 4"):
        replace(hidden, layer="4").fit(records, correct, rng=np.random.default_rng(0))


def test_what_lies_outside_the_labels_is_flagged():
    rng = np.random.default_rng(0)
    records, correct = drawn(300, rng)
    fitted = SGPU("embeddings", restarts=1).fit(records, correct, rng=np.random.default_rng(0))
    new, _ = drawn(1000, rng)
    inside = fitted.support(new)
    assert inside.outside.mean() < 0.05
    np.testing.assert_array_equal(inside.outside, inside.latent_variance > inside.threshold)
    # No labelled question had ten samples that share nothing.
    strange = [with_vectors("strange", np.eye(10, 32))]
    assert fitted.support(strange).outside.all()


@pytest.mark.parametrize(
    "estimator",
    [SGPU("embeddings", restarts=1), SpectrumLogisticRegression("embeddings")],
    ids=["sgpu", "regression"],
)
def test_saved_and_read_back_it_scores_alike_to_the_bit(estimator, tmp_path):
    rng = np.random.default_rng(0)
    records, correct = drawn(60, rng)
    new, _ = drawn(40, rng)
    fitted = estimator.fit(records, correct, rng=np.random.default_rng(0))
    assert FITTED[type(fitted).__name__] is type(fitted)
    json.dumps(fitted.state()[0], allow_nan=False)
    save_fitted(tmp_path / "fitted", Saved(fitted, {}, {}))
    again = load_fitted(tmp_path / "fitted").estimator
    np.testing.assert_array_equal(again.uncertainty(new), fitted.uncertainty(new))
    if isinstance(again, FittedSGPU):
        assert again.support(new).threshold == fitted.support(new).threshold


def test_rows_to_fit_on_are_summed_up_where_they_agree():
    records = [said(str(i), *["a dog"] * 5) for i in range(100)]
    records += [said(f"x{i}", "dog", "cat", "cow", "owl", "bee") for i in range(100)]
    correct = np.concatenate([np.arange(100) < 90, np.arange(100) < 30]).astype(float)
    fitted = SGPU().fit(records, correct, rng=np.random.default_rng(0))
    assert len(fitted.process.points) == 2
    wrong = fitted.uncertainty([records[0], records[100]])
    np.testing.assert_allclose(wrong, [0.1, 0.7], atol=0.03)


def test_part_right_counts_in_parts():
    records = [said(str(i), "dog", "cat", "cow") for i in range(60)]
    part = SGPU().fit(records, np.full(60, 0.7), rng=np.random.default_rng(0))
    assert part.uncertainty(records[:1])[0] == pytest.approx(0.3, abs=0.02)


def test_twenty_labels_are_enough_and_one_class_is_not():
    records, _ = drawn(20, np.random.default_rng(0))
    correct = (np.arange(20) % 3 > 0).astype(float)
    estimator = SGPU("embeddings")
    values = estimator.fit(records, correct, rng=np.random.default_rng(0)).uncertainty(records)
    assert ((values > 0) & (values < 1)).all()
    for kind in (estimator, SpectrumLogisticRegression("embeddings")):
        with pytest.raises(DataError, match=r"20 labelled answers .* right and wrong ones"):
            kind.fit(records, np.ones(20), rng=np.random.default_rng(0))


def test_unequal_numbers_of_samples_need_the_cumulative_form():
    mixed = [said("1", "a", "b"), said("2", "a", "b", "c"), said("3", "a", "a")]
    correct = np.array([1.0, 0.0, 1.0])
    for kind in (SGPU(spectrum="log"), SpectrumLogisticRegression(spectrum="log")):
        with pytest.raises(DataError, match="Fitting rows with 2 and with 3 samples"):
            kind.fit(mixed, correct, rng=np.random.default_rng(0))
        fitted = kind.fit(mixed[::2] * 1, np.array([0.0, 1.0]), rng=np.random.default_rng(0))
        assert fitted.uncertainty([]).shape == (0,)
        with pytest.raises(UnscorableError, match="1 records with 3 samples") as caught:
            fitted.uncertainty(mixed)
        assert caught.value.rows == (1,)


def test_bad_settings_and_missing_signals_are_named():
    with pytest.raises(UsageError, match="0 restarts of SGPU"):
        SGPU(restarts=0)
    with pytest.raises(UsageError, match="Layer 'top'"):
        SGPU(layer="top")
    bare = said("bare", "dog")
    with pytest.raises(MissingFeatureError, match=r"'bare'.* no embeddings"):
        SGPU("embeddings").fit([bare], np.ones(1), rng=np.random.default_rng(0))


def compared(labels, seeds, noise):
    """Mean ECE and AUROC over seeds of SGPU and of von Neumann entropy, calibrated."""
    figures = {"sgpu": [], "isotonic": []}
    entropy = GramSpectrum(similarity="embeddings")
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        new, truth = drawn(2000, rng, noise=noise)
        records, correct = drawn(labels, rng, noise=noise)
        fitted = SGPU("embeddings").fit(records, correct, rng=np.random.default_rng(0))
        isotonic = CALIBRATORS["isotonic"].fit(entropy.uncertainty(records), correct)
        raw = entropy.uncertainty(new)
        ours = 1 - fitted.uncertainty(new)
        figures["sgpu"].append((ece(ours, truth), auroc(ours, truth)))
        figures["isotonic"].append((ece(isotonic.confidence(raw), truth), auroc(-raw, truth)))
    return {name: np.mean(values, axis=0) for name, values in figures.items()}


@pytest.mark.parametrize(
    ("labels", "noise"),
    [
        (200, 1.0),
        pytest.param(200, 0.3, marks=pytest.mark.slow),
        pytest.param(1000, 0.3, marks=pytest.mark.slow),
        pytest.param(1000, 1.0, marks=pytest.mark.slow),
    ],
)
def test_better_calibrated_than_isotonic_entropy(labels, noise):
    mean = compared(labels, seeds=6, noise=noise)
    assert mean["sgpu"][0] < mean["isotonic"][0]
    assert mean["sgpu"][1] > mean["isotonic"][1] - 0.01
