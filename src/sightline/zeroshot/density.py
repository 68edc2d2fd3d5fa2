"""Scores from the spread of the support images: Mahalanobis distances and ViM, higher = worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import DataError
from sightline.zeroshot.blocks import Block, gather
from sightline.zeroshot.outputs import ClassTexts, Encoder, Support, check_support
from sightline.zeroshot.protocols import Scored, Traits
from sightline.zeroshot.prototypes import query_vectors
from sightline.zeroshot.scores import log_sum

Distance = Literal["predicted", "nearest", "relative"]


@dataclass(frozen=True, slots=True)
class Mahalanobis:
    """Squared Mahalanobis distance to class means that share one covariance.

    The covariance is shrunk toward a multiple of the identity, since there may be fewer support
    images than entries of a vector.

    Attributes:
        to: predicted is the mean of the predicted class; nearest is the smallest over the classes;
            relative is that less the distance to the mean of all images by their covariance.
        encoder: own or aux.

    Source: Lee et al. (2018), nearest class with tied covariance; Ren et al. (2021), relative;
    shrinkage: Ledoit and Wolf (2004).
    """

    to: Distance = "predicted"
    encoder: Encoder = "own"

    @property
    def traits(self) -> Traits:
        """Uses the support set."""
        source = "Ren et al. 2021" if self.to == "relative" else "Lee et al. 2018"
        return Traits(source, uses_support=True, uses_aux=self.encoder == "aux")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedMahalanobis:
        """Returns class means in coordinates in which the covariance is the identity.

        Raises:
            MissingFeatureError: No support set, or one without auxiliary vectors.
            DataError: The support set does not fit the classes, or its classes have no spread.
        """
        known = check_support(texts, support, self)
        vectors = known.of(self.encoder, self).astype(np.float64)
        counts = np.bincount(known.labels)
        sums = np.zeros((len(counts), vectors.shape[1]))
        np.add.at(sums, known.labels, vectors)
        means = sums / counts[:, None]
        centre = vectors.mean(axis=0)
        whitener = _whitener(vectors - means[known.labels], self)
        fitted_all = None
        if self.to == "relative":
            all_images = _whitener(vectors - centre, self)
            fitted_all = (
                all_images.astype(np.float32),
                (all_images @ centre).astype(np.float32),
            )
        return FittedMahalanobis(
            self.encoder,
            self.to,
            whitener.astype(np.float32),
            (whitener @ centre).astype(np.float32),
            ((means - centre) @ whitener.T).astype(np.float32),
            fitted_all,
        )


@dataclass(frozen=True, slots=True, eq=False)
class FittedMahalanobis:
    """Class means in whitened coordinates.

    Attributes:
        encoder: own or aux.
        to: Which distance is taken.
        whitener: Maps vectors to whitened coordinates.
        centre: Mean of all support images there.
        means: Class means there, from the centre.
        everything: Whitener and mean for all images together; relative only.
    """

    encoder: Encoder
    to: Distance
    whitener: Float[np.ndarray, "w w"]
    centre: Float[np.ndarray, " w"]
    means: Float[np.ndarray, "c w"]
    everything: tuple[Float[np.ndarray, "w w"], Float[np.ndarray, " w"]] | None

    def score(self, block: Block) -> Scored:
        """Squared distance of each row; relative ones may be below 0."""
        vectors = query_vectors(block, self.encoder, len(self.whitener), self)
        whitened = block.product(vectors, self.whitener)
        placed = whitened - self.centre
        if self.to == "predicted":
            return Scored(block.label, _squared(placed - self.means[block.label]))
        # (whitened - centre) · mean, with the product of what other scores have in common.
        products = block.product(whitened, self.means) - self.means @ self.centre
        nearest = (_squared(self.means) - 2.0 * products).min(axis=1)
        distance = nearest + _squared(placed)
        if self.everything is not None:
            whitener, centre = self.everything
            distance = distance - _squared(block.product(vectors, whitener) - centre)
        return Scored(block.label, distance)


def _squared(rows: Float[np.ndarray, "n w"]) -> Float[np.ndarray, " n"]:
    return np.einsum("nw,nw->n", rows, rows).astype(np.float64)


def _whitener(centred: Float[np.ndarray, "s w"], who: object) -> Float[np.ndarray, "w w"]:
    """Inverse root of the shrunk covariance of centred rows."""
    values, directions = np.linalg.eigh(shrunk_covariance(centred))
    if values[0] <= 0:
        raise DataError(
            f"{type(who).__name__} found no spread among {len(centred)} support images; a class "
            "with different images is required. Use at least 2 shots."
        )
    return np.asarray((directions / np.sqrt(values)).T)


def shrunk_covariance(centred: Float[np.ndarray, "s w"]) -> Float[np.ndarray, "w w"]:
    """Covariance of centred rows, shrunk toward a multiple of the identity.

    Source: Ledoit and Wolf (2004), as scikit-learn's ``ledoit_wolf`` with centred data.
    """
    s, w = centred.shape
    covariance = centred.T @ centred / s
    mean = np.trace(covariance) / w
    spread = float(np.sum(covariance**2)) / w - mean**2
    noise = (float(np.sum(np.sum(centred**2, axis=1) ** 2)) / s - float(np.sum(covariance**2))) / (
        s * w
    )
    weight = 1.0 if spread <= 0 else min(max(noise / spread, 0.0), 1.0)
    shrunk: Float[np.ndarray, "w w"] = (1.0 - weight) * covariance
    shrunk[np.diag_indices(w)] += weight * mean
    return shrunk


@dataclass(frozen=True, slots=True)
class VirtualLogit:
    """How large the part of an image vector outside the support images' main directions is.

    That part's length, scaled to the size of the logits, stands as the logit of one more class; the
    uncertainty is its log-odds against the real classes.

    Attributes:
        encoder: own or aux.

    Source: Wang et al. (2022), ViM. The head has no offset, so vectors are not centred; the main
    directions are half the width, as in the paper for wide layers, and fewer than the images.
    """

    encoder: Encoder = "own"

    @property
    def traits(self) -> Traits:
        """Uses the support set."""
        return Traits("Wang et al. 2022 (ViM)", uses_support=True, uses_aux=self.encoder == "aux")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedVirtualLogit:
        """Returns the other directions, and the scale that makes both kinds of logits alike.

        Raises:
            MissingFeatureError: No support set, or one without auxiliary vectors.
            DataError: The support set does not fit the classes, or lies in its main directions.
        """
        known = check_support(texts, support, self)
        vectors = known.of(self.encoder, self).astype(np.float64)
        s, w = vectors.shape
        main = max(1, min(w // 2, s - 1))
        _, directions = np.linalg.eigh(vectors.T @ vectors)
        outside = np.ascontiguousarray(directions[:, : w - main].T.astype(np.float32))
        top = gather(known.outputs(texts), lambda block: block.top.astype(np.float64))
        length = np.linalg.norm(vectors @ outside.T, axis=1)
        if not length.mean() > 1e-6:
            raise DataError(
                f"{s} support images lie in {main} main directions; some must reach beyond. Add "
                "different images."
            )
        return FittedVirtualLogit(self.encoder, outside, float(top.mean() / length.mean()))


@dataclass(frozen=True, slots=True, eq=False)
class FittedVirtualLogit:
    """Directions outside the main ones.

    Attributes:
        encoder: own or aux.
        outside: Orthonormal rows.
        scale: Logits per unit of length.
    """

    encoder: Encoder
    outside: Float[np.ndarray, "r w"]
    scale: float

    def score(self, block: Block) -> Scored:
        """Virtual logit less the log of the summed exponentials of the real ones."""
        vectors = query_vectors(block, self.encoder, self.outside.shape[1], self)
        length = np.sqrt(_squared(block.product(vectors, self.outside)))
        return Scored(block.label, self.scale * length - log_sum(block))
