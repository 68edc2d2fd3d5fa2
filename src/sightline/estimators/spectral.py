"""Spectra of the samples' Gram matrices: how many directions the answers spread over.

Unit vectors of m samples have a Gram matrix of trace m. Its eigenvalues λ₁ ≥ … ≥ λₘ ≥ 0 are
(m, 0, …, 0) where all samples say the same and (1, …, 1) where no two have anything in common; the
order of the samples and rotations of the encoder's space do not change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.signals import Ragged, answer_logprobs, cost_of_samples, require
from sightline.estimators.similarity import (
    Group,
    groups,
    sample_vectors,
    similarity_shape,
    unit,
)
from sightline.estimators.states import check_layer

Functional = Literal[
    "von_neumann_entropy", "mean_log_eigenvalue", "largest_eigenvalue", "participation_ratio"
]
"""What is read off a spectrum: see `GramSpectrum`."""

Vectors = Literal["words", "embeddings", "hidden"]
"""What stands for a sample: its content words, its stored sentence vector, or a hidden state."""


@dataclass(frozen=True, slots=True)
class GramSpectrum:
    """How many directions the samples spread over, as a fixed functional of their Gram spectrum.

    With shares pᵢ = λᵢ/m of the eigenvalues λᵢ of m unit vectors: von_neumann_entropy −Σ p log p,
    from 0 to log m; mean_log_eigenvalue, the mean of log(λ + alpha), at most log(1 + alpha);
    largest_eigenvalue 1 − p₁, from 0 to 1 − 1/m; participation_ratio 1/Σp², from 1 to m. Samples
    that are all the same give the least value, samples that share nothing the largest. Compare only
    records that have equally many samples.

    Attributes:
        functional: Which of the four.
        similarity: What stands for a sample: words, its stored embeddings, or its hidden state.
        layer: Stored layer of the hidden states, or middle.
        alpha: Added to the eigenvalues before their logarithm.

    Source: the spectrum of SGPU (arXiv 2512.14177), without its Gaussian process.
    """

    functional: Functional = "von_neumann_entropy"
    similarity: Vectors = "words"
    layer: str = "middle"
    alpha: float = 0.001

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layer(self.layer, "middle")
        _check_alpha(self.alpha)

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their vectors are read off."""
        return vector_needs(self.similarity)

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The layer of the hidden states; None where it is the middle one of those stored."""
        return stated_layer(self.layer)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """The functional, in nats where it is a logarithm.

        Raises:
            UnscorableError: The layer was not stored.
        """
        require(records, self.needs, self)
        values = gram_spectra(records, self.similarity, layer=self.layer)
        m = values.spread(values.lengths.astype(np.float64))
        share = Ragged(values.values / m, values.starts, values.lengths)
        if self.functional == "largest_eigenvalue":
            return np.asarray(np.maximum(1.0 - share.first(), 0.0))
        if self.functional == "participation_ratio":
            return np.asarray(1.0 / share.map(np.square).sum())
        if self.functional == "mean_log_eigenvalue":
            return values.map(lambda own: np.log(own + self.alpha)).mean()
        tiny = np.finfo(np.float64).tiny
        entropy = -share.map(lambda own: own * np.log(np.maximum(own, tiny))).sum()
        return np.asarray(np.maximum(entropy, 0.0))

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


@dataclass(frozen=True, slots=True)
class EigenScore:
    """Mean log eigenvalue of the regularised covariance of the samples' vectors.

    The vectors keep their length and are centred over their entries; say that of length z is left.
    Samples that are all the same give ((m − 1) log α + log(α + m z²))/m, the least value for their
    z; one sample gives log(α + z²). Compare only records that have equally many samples.

    Attributes:
        similarity: What stands for a sample: the hidden state at its end, its stored embeddings, or
            words.
        layer: Stored layer of the hidden states, or middle.
        alpha: Added to the eigenvalues.

    Source: INSIDE (Chen et al., ICLR 2024); equals LM-Polygraph's EigenScore, and minus
    TruthTorchLM's.
    """

    similarity: Vectors = "hidden"
    layer: str = "middle"
    alpha: float = 0.001

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layer(self.layer, "middle")
        _check_alpha(self.alpha)

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their vectors are read off."""
        return vector_needs(self.similarity)

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The layer of the hidden states; None where it is the middle one of those stored."""
        return stated_layer(self.layer)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Mean log eigenvalue, at least log(alpha).

        Raises:
            UnscorableError: The layer was not stored.
        """
        require(records, self.needs, self)
        values = np.zeros(len(records))
        for group, vectors in _vectors(records, self.similarity, self.layer):
            values[group.rows] = eigenscore(vectors, self.alpha)
        return values

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


def stated_layer(layer: str) -> tuple[int, ...] | None:
    """The layer that a setting names; None where it is the middle one of those stored."""
    return None if layer == "middle" else (int(layer),)


def vector_needs(vectors: Vectors) -> frozenset[Feature]:
    """The signals that vectors of the samples are read off."""
    stored = {"embeddings": {Feature.EMBEDDINGS}, "hidden": {Feature.SAMPLE_HIDDEN}}
    return frozenset({Feature.SAMPLES} | stored.get(vectors, set()))


def gram_spectra(
    records: Sequence[Record],
    similarity: Vectors = "words",
    *,
    layer: str = "middle",
    likelihood_weighted: bool = False,
) -> Ragged:
    """Eigenvalues of the Gram matrix of each record's samples as unit vectors, largest first.

    Args:
        records: Records that have `vector_needs`, and sample_logprobs where weighted by likelihood.
        similarity: What stands for a sample.
        layer: Stored layer of the hidden states, or middle.
        likelihood_weighted: Weigh the samples by the geometric mean of their tokens' probabilities.

    Returns:
        One array per record, as long as it has samples; never negative, summing to their number.

    Raises:
        UnscorableError: The layer was not stored.

    Source: step 4 of SGPU (arXiv 2512.14177). The weighted form, D^½ Σ D^½ with D = m · softmax of
    the length-normalised log-probabilities, is our reading of its white-box use.

    Example:
        >>> from sightline.core.types import Example, Generation
        >>> said = [Generation(text) for text in ("dog", "a dog", "cat")]
        >>> record = Record(Example("1", "What?"), samples=tuple(said))
        >>> gram_spectra([record]).values.round(1).tolist()
        [2.0, 1.0, 0.0]
    """
    per_record: list[np.ndarray] = [np.empty(0)] * len(records)
    for group, vectors in _vectors(records, similarity, layer):
        own = unit(vectors)
        if likelihood_weighted:
            own = own * np.sqrt(_likelihood_weights(group))[:, :, None]
        for row, spectrum in zip(group.rows.tolist(), spectra(own), strict=True):
            per_record[row] = spectrum
    return Ragged.of(per_record)


def spectra(vectors: Float[np.ndarray, "n m d"]) -> Float[np.ndarray, "n m"]:
    """Eigenvalues of the Gram matrices of m vectors each, largest first, never negative."""
    gram = vectors @ vectors.transpose(0, 2, 1)
    gram = (gram + gram.transpose(0, 2, 1)) / 2
    return np.asarray(np.maximum(np.linalg.eigvalsh(gram)[:, ::-1], 0.0))


def eigenscore(vectors: Float[np.ndarray, "n m d"], alpha: float) -> Float[np.ndarray, " n"]:
    """Mean of log(λ + alpha) over the eigenvalues λ of Z J Zᵀ, J centring over the d entries."""
    centred = vectors - vectors.mean(axis=2, keepdims=True)
    return np.asarray(np.log(spectra(centred) + alpha).mean(axis=1))


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < np.inf:
        raise UsageError(
            f"Setting alpha={alpha}; a number above 0 is required, as eigenvalues may be 0. "
            "Leave it out for the published 0.001."
        )


def _vectors(
    records: Sequence[Record], vectors: Vectors, layer: str
) -> Iterator[tuple[Group, Float[np.ndarray, "k m d"]]]:
    """Vectors of the samples, records with equally many at once."""
    if vectors != "hidden":
        for group in groups(records, similarity_shape(vectors)):
            yield group, sample_vectors(group, vectors)
        return
    at = _layer_positions(records, layer)
    for group in groups(records, Feature.SAMPLE_HIDDEN):
        states = [
            record.array(Feature.SAMPLE_HIDDEN)[at[row]][order]
            for row, record, order in zip(group.rows, group.records, group.order, strict=True)
        ]
        yield group, np.stack(states).astype(np.float64)


def _layer_positions(records: Sequence[Record], layer: str) -> list[int]:
    """Where the layer stands among those of each record."""
    if layer == "middle":
        return [(len(record.layers) - 1) // 2 for record in records]
    absent = [row for row, record in enumerate(records) if int(layer) not in record.layers]
    if absent:
        raise UnscorableError(
            absent,
            f"no hidden state of layer {layer}; "
            f"layers {list(records[absent[0]].layers)} are stored",
            "Collect the run with this layer, or choose one that it has.",
        )
    return [record.layers.index(int(layer)) for record in records]


def _likelihood_weights(group: Group) -> Float[np.ndarray, "k m"]:
    """Share of each sample in the probabilities per token, times m: the mean is 1."""
    drawn = zip(group.records, group.order, strict=True)
    samples = [record.samples[i] for record, order in drawn for i in order]
    scores = answer_logprobs(samples).mean().reshape(group.order.shape)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights * (weights.shape[1] / weights.sum(axis=1, keepdims=True)))
