"""Kernel language entropy: von Neumann entropy of a diffusion kernel on the samples' graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.signals import cost_of_samples, require
from sightline.estimators.similarity import Similarity, score_similarities, similarity_needs

Kernel = Literal["heat", "matern"]


@dataclass(frozen=True, slots=True)
class KernelLanguageEntropy:
    """Von Neumann entropy of a heat or Matérn kernel on the graph of the samples.

    The kernel is a function of the graph's Laplacian by its eigenvalues, scaled to a diagonal of
    1/m. One sample gives 0; samples that are all the same give the least value for their number,
    which is above 0 while heat has not spread evenly. Compare only records that have equally many
    samples.

    Attributes:
        kernel: heat, exp(−tL), or matern, (2ν/κ² + L)^−ν.
        t: How long the heat spreads.
        kappa: Length scale κ of the Matérn kernel.
        nu: Smoothness ν of the Matérn kernel.
        scaled: Divide by the largest possible entropy, log m.
        similarity: What makes two samples alike: words, embeddings, entailment, contradiction, nli,
            jaccard, rouge1, rouge2 or rougeL. The published weights are nli.

    Source: Nikitin et al. (NeurIPS 2024); equals LM-Polygraph's on the same matrices of entailment.
    TruthTorchLM takes the exponential of each entry instead of the matrix's, so its "entropies" are
    negative.
    """

    kernel: Kernel = "heat"
    t: float = 0.3
    kappa: float = 1.0
    nu: float = 1.0
    scaled: bool = True
    similarity: Similarity = "words"

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("t", "kappa", "nu"):
            if not 0 < getattr(self, name) < np.inf:
                raise UsageError(
                    f"Setting {name}={getattr(self, name)} of kernel_language_entropy; "
                    f"a number above 0 is required. Leave it out for the default."
                )

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their similarity is read off."""
        return similarity_needs(self.similarity)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Entropy between 0 and 1, or between 0 and log m nats where it is not scaled."""
        require(records, self.needs, self)
        return score_similarities(records, self.similarity, self.entropy)

    def entropy(self, similarity: Float[np.ndarray, "n m m"]) -> Float[np.ndarray, " n"]:
        """The entropy of matrices of similarity, as `uncertainty` gives it.

        Args:
            similarity: Symmetric, in [0, 1]; the diagonal has no effect. A pair's edge weighs the
                sum of both directions, twice its entry.
        """
        if self.kernel == "heat":
            kernels = heat_kernel(2.0 * similarity, self.t)
        else:
            kernels = matern_kernel(2.0 * similarity, self.kappa, self.nu)
        entropy = von_neumann_entropy(unit_trace(kernels))
        m = similarity.shape[-1]
        return np.asarray(entropy / np.log(m)) if self.scaled and m > 1 else entropy

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


def heat_kernel(weights: Float[np.ndarray, "n m m"], t: float) -> Float[np.ndarray, "n m m"]:
    """exp(−tL), the matrix exponential, with the Laplacian L = D − W of symmetric weights W."""
    values, vectors = _laplacian(weights)
    return _rebuilt(np.exp(-t * values), vectors)


def matern_kernel(
    weights: Float[np.ndarray, "n m m"], kappa: float, nu: float
) -> Float[np.ndarray, "n m m"]:
    """(2ν/κ² + L)^−ν, a matrix power, with the Laplacian L = D − W of symmetric weights W."""
    values, vectors = _laplacian(weights)
    return _rebuilt((2.0 * nu / kappa**2 + values) ** -nu, vectors)


def unit_trace(kernels: Float[np.ndarray, "n m m"]) -> Float[np.ndarray, "n m m"]:
    """Scales positive definite matrices to a diagonal of 1/m."""
    root = np.sqrt(np.diagonal(kernels, axis1=1, axis2=2))
    scaled = kernels / (root[:, :, None] * root[:, None, :])
    diagonal = np.arange(kernels.shape[-1])
    scaled[:, diagonal, diagonal] = 1.0
    return np.asarray(scaled / kernels.shape[-1])


def von_neumann_entropy(kernels: Float[np.ndarray, "n m m"]) -> Float[np.ndarray, " n"]:
    """−tr(K log K) of symmetric positive semi-definite matrices of trace 1, in nats, ≥ 0."""
    return entropy_of(np.linalg.eigvalsh(kernels))


def entropy_of(shares: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """−Σ p log p of shares that sum to 1, in nats, ≥ 0; shares below 0 by rounding count as 0."""
    positive = np.maximum(shares, np.finfo(np.float64).tiny)
    return np.asarray(np.maximum(-(positive * np.log(positive)).sum(axis=1), 0.0))


def _laplacian(
    weights: Float[np.ndarray, "n m m"],
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m m"]]:
    """Eigenvalues, never negative, and eigenvectors of D − W."""
    laplacian = -weights
    diagonal = np.arange(weights.shape[-1])
    laplacian[:, diagonal, diagonal] += weights.sum(axis=2)
    values, vectors = np.linalg.eigh(laplacian)
    return np.maximum(values, 0.0), vectors


def _rebuilt(
    values: Float[np.ndarray, "n m"], vectors: Float[np.ndarray, "n m m"]
) -> Float[np.ndarray, "n m m"]:
    return np.asarray((vectors * values[:, None, :]) @ vectors.transpose(0, 2, 1))
