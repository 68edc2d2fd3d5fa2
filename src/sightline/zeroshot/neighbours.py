"""Scores from the nearest support images, higher = worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import UsageError
from sightline.zeroshot.blocks import Block
from sightline.zeroshot.outputs import ClassTexts, Encoder, Support, check_support
from sightline.zeroshot.protocols import Scored, Traits
from sightline.zeroshot.prototypes import query_vectors


@dataclass(frozen=True, slots=True)
class NearestNeighbours:
    """How far, or of which classes, the nearest support images are.

    Attributes:
        read: distance is the Euclidean distance to the k-th nearest, in [0, 2], whatever its class;
            labels is the share of the k nearest that are not of the predicted class, each weighted
            by exp(cosine / 0.1), in [0, 1].
        k: Neighbours, >= 1; all where the support set has fewer.
        encoder: own or aux.

    Source: Sun et al. (2022) for the distance; the share of labels is a weighted nearest-neighbour
    classifier's (Wu et al. 2018, whose temperature is 0.07).
    """

    read: Literal["distance", "labels"] = "distance"
    k: int = 5
    encoder: Encoder = "own"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k is {self.k} neighbours; at least 1 is required. Use 5.")

    @property
    def traits(self) -> Traits:
        """Uses the support set."""
        source = "Sun et al. 2022" if self.read == "distance" else "Wu et al. 2018"
        return Traits(source, uses_support=True, uses_aux=self.encoder == "aux")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedNeighbours:
        """Keeps the support images.

        Raises:
            MissingFeatureError: No support set, or one without auxiliary vectors.
            DataError: The support set does not fit the classes.
        """
        known = check_support(texts, support, self)
        vectors = known.of(self.encoder, self)
        return FittedNeighbours(
            self.encoder, self.read, min(self.k, len(known)), vectors, known.labels
        )


@dataclass(frozen=True, slots=True, eq=False)
class FittedNeighbours:
    """The support images.

    Attributes:
        encoder: own or aux.
        read: distance or labels.
        k: Neighbours, at most all.
        vectors: Unit vectors of the support images.
        labels: Their classes.
    """

    encoder: Encoder
    read: Literal["distance", "labels"]
    k: int
    vectors: Float[np.ndarray, "s w"]
    labels: Int[np.ndarray, " s"]

    def score(self, block: Block) -> Scored:
        """Distance to the k-th nearest, or weighted share of other classes among the k nearest."""
        query = query_vectors(block, self.encoder, self.vectors.shape[1], self)
        nearest = block.nearest(query, self.vectors, self.k)
        cosines = np.take_along_axis(block.product(query, self.vectors), nearest, axis=1)
        if self.read == "distance":
            return Scored(block.label, _distance(cosines.min(axis=1)))
        near = cosines.astype(np.float64)
        weight = np.exp((near - near.max(axis=1, keepdims=True)) / 0.1)
        other = self.labels[nearest] != block.label[:, None]
        return Scored(block.label, (weight * other).sum(axis=1) / weight.sum(axis=1))


@dataclass(frozen=True, slots=True)
class TrustScore:
    """Distance to the predicted class over that distance and the one to the nearest other class.

    Distances are Euclidean to the nearest support image of the class. In [0, 1]; 0.5 where both are
    equal. It ranks as the inverse of the published ratio, which has no bound.

    Attributes:
        encoder: own or aux.

    Source: Jiang et al. (2018), without their filter of images in thin regions.
    """

    encoder: Encoder = "own"

    @property
    def traits(self) -> Traits:
        """Uses the support set."""
        return Traits("Jiang et al. 2018", uses_support=True, uses_aux=self.encoder == "aux")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedTrustScore:
        """Keeps the support images.

        Raises:
            MissingFeatureError: No support set, or one without auxiliary vectors.
            DataError: The support set does not fit the classes.
        """
        known = check_support(texts, support, self)
        counts = np.bincount(known.labels)
        order = np.argsort(known.labels, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place = np.minimum(np.arange(counts.max())[None, :], counts[:, None] - 1)
        return FittedTrustScore(
            self.encoder, known.of(self.encoder, self), order[starts[:, None] + place]
        )


@dataclass(frozen=True, slots=True, eq=False)
class FittedTrustScore:
    """The support images, by class.

    Attributes:
        encoder: own or aux.
        vectors: Unit vectors of the support images.
        members: Rows of each class; a class with fewer images repeats its last.
    """

    encoder: Encoder
    vectors: Float[np.ndarray, "s w"]
    members: Int[np.ndarray, "c m"]

    def score(self, block: Block) -> Scored:
        """Distance to the predicted class as a share of both."""
        query = query_vectors(block, self.encoder, self.vectors.shape[1], self)
        cosines = block.product(query, self.vectors)
        rows, columns = block.each[:, None], self.members[block.label]
        own = cosines[rows, columns]
        inside = _distance(own.max(axis=1))
        cosines[rows, columns] = -2.0  # and back, since other scores read them too
        outside = _distance(cosines.max(axis=1))
        cosines[rows, columns] = own
        both = inside + outside
        share = np.divide(inside, both, out=np.full(len(both), 0.5), where=both > 0)
        return Scored(block.label, share)


def _distance(cosine: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """Euclidean distance of unit vectors."""
    return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * cosine.astype(np.float64), 0.0)))
