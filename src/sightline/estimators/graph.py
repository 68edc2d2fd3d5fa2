"""Scores of the graph whose nodes are the samples and whose edges weigh how alike they are.

Each estimator is an array function of the similarity matrices and a dataclass that reads them off
records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.signals import cost_of_samples, require
from sightline.estimators.similarity import Similarity, score_similarities, similarity_needs


@dataclass(frozen=True, slots=True)
class Degree:
    """Mean distance between the samples, each pair in both directions and each sample to itself.

    One sample, or samples that are all the same, give 0; m samples that share nothing 1 − 1/m.

    Attributes:
        similarity: What makes two samples alike: words, embeddings, entailment, contradiction, nli,
            jaccard, rouge1, rouge2 or rougeL.

    Source: the degree matrix of Lin et al. (TMLR 2024); equals LM-Polygraph's DegMat and
    TruthTorchLM's degree uncertainty on the same matrix.
    """

    similarity: Similarity = "words"

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their similarity is read off."""
        return similarity_needs(self.similarity)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − mean similarity, in [0, 1]."""
        require(records, self.needs, self)
        return score_similarities(records, self.similarity, mean_distance)

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


@dataclass(frozen=True, slots=True)
class LaplacianEigenvalues:
    """Sum of the eigenvalues of the similarity graph below 1: a continuous number of meanings.

    One sample, or samples that are all the same, give 1; m samples that share nothing m. Compare
    only records that have equally many samples.

    Attributes:
        similarity: What makes two samples alike: words, embeddings, entailment, contradiction, nli,
            jaccard, rouge1, rouge2 or rougeL.

    Source: "sum of eigenvalues of the graph Laplacian", Σ max(0, 1 − λ), of Lin et al. (TMLR 2024);
    equals LM-Polygraph's EigValLaplacian and TruthTorchLM's on the same matrix.
    """

    similarity: Similarity = "words"

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their similarity is read off."""
        return similarity_needs(self.similarity)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Sum, between 1 and m where the similarity is positive semi-definite."""
        require(records, self.needs, self)
        return score_similarities(records, self.similarity, eigenvalue_sum)

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


@dataclass(frozen=True, slots=True)
class Eccentricity:
    """Spread of the samples in the coordinates that the graph's smooth eigenvectors give them.

    One sample, or samples that are all the same, give 0; m samples that share nothing √(m − 1).
    Compare only records that have equally many samples.

    Attributes:
        threshold: Eigenvectors whose eigenvalue of the Laplacian lies below it count.
        similarity: What makes two samples alike: words, embeddings, entailment, contradiction, nli,
            jaccard, rouge1, rouge2 or rougeL.

    Source: Lin et al. (TMLR 2024); equals LM-Polygraph's on the same matrix, the root of all
    squares. TruthTorchLM adds up the lengths of the samples' coordinates instead.
    """

    threshold: float = 0.9
    similarity: Similarity = "words"

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their similarity is read off."""
        return similarity_needs(self.similarity)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Root of the summed squares, ≥ 0."""
        require(records, self.needs, self)
        return score_similarities(
            records, self.similarity, lambda matrices: eccentricity(matrices, self.threshold)
        )

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


def mean_distance(similarity: Float[np.ndarray, "n m m"]) -> Float[np.ndarray, " n"]:
    """One minus the mean entry of each matrix."""
    n, m, _ = similarity.shape
    return np.asarray(1.0 - similarity.reshape(n, m * m).sum(axis=1) / (m * m))


def eigenvalue_sum(similarity: Float[np.ndarray, "n m m"]) -> Float[np.ndarray, " n"]:
    """Σ max(0, 1 − λ) over the eigenvalues λ of each symmetric normalised Laplacian.

    Args:
        similarity: Symmetric, not negative, no row without an entry above 0.
    """
    adjacency = np.linalg.eigvalsh(_normalised(similarity))
    return np.asarray(np.maximum(adjacency, 0.0).sum(axis=1))


def eccentricity(
    similarity: Float[np.ndarray, "n m m"], threshold: float
) -> Float[np.ndarray, " n"]:
    """Length of all centred eigenvectors of each Laplacian whose eigenvalue is below a threshold.

    Args:
        similarity: Symmetric, not negative, no row without an entry above 0.
        threshold: Of the symmetric normalised Laplacian's eigenvalues.
    """
    adjacency, vectors = np.linalg.eigh(_normalised(similarity))
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.square(centred).sum(axis=1)
    return np.asarray(np.sqrt(np.where(1.0 - adjacency < threshold, length, 0.0).sum(axis=1)))


def _normalised(similarity: Float[np.ndarray, "n m m"]) -> Float[np.ndarray, "n m m"]:
    """D^-½ W D^-½, whose eigenvalues are one minus those of the normalised Laplacian."""
    root = np.sqrt(similarity.sum(axis=2))
    return np.asarray(similarity / (root[:, :, None] * root[:, None, :]))
