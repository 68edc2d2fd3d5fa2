"""Mahalanobis distances of hidden states to those of right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.learning import (
    FOLDS,
    Labelled,
    by_row,
    common_layers,
    fit_logistic,
    grouped_folds,
    labelled,
    standardiser,
    wrong_probability,
)
from sightline.estimators.signals import FREE, require
from sightline.estimators.states import Position, check_layer, state_needs, states

RIGHT = 0.5
"""Correctness from which an answer counts as right."""


@dataclass(frozen=True, slots=True)
class Mahalanobis:
    """Distance of a hidden state to those of right answers, by their covariance.

    The covariance is shrunk toward a multiple of the identity (Ledoit and Wolf 2004), so there may
    be fewer answers than entries. The distances of several layers are joined by a logistic
    regression on distances of answers that the Gaussians of three inner folds have not seen, and
    the score is a probability; that of one layer is the distance itself.

    Attributes:
        relative: Take off the distance to all answers, right or wrong.
        at: Which state stands for the answer: answer_end, answer_mean, answer_end_and_mean or
            prompt_end.
        layer: Index of a stored layer, or ensemble for all.

    Source: Lee et al. (NeurIPS 2018), with right answers as the one class; relative: Ren et al.
    (ICLR 2023). As LM-Polygraph the distance is the root of the quadratic form; LM-Polygraph
    shrinks no covariance and joins no layers.
    """

    relative: bool = False
    at: Position = "answer_mean"
    layer: str = "ensemble"

    family: ClassVar[str] = "density"
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False
    slow: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layer(self.layer, "ensemble")

    @property
    def needs(self) -> frozenset[Feature]:
        """Hidden states of the answer or of the prompt."""
        return state_needs(self.at)

    @property
    def is_probability(self) -> bool:
        """True for the ensemble of layers."""
        return self.layer == "ensemble"

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedMahalanobis:
        """Returns the fitted Gaussians; ``rng`` deals groups to the folds of the ensemble.

        Raises:
            DataError: All answers are right or all wrong, right or wrong ones are in one group
                only, fewer than 2 are right, or the records have different layers.
            UnscorableError: A record has no state of a layer, or one of another width.
            MissingExtraError: scikit-learn is not installed, which the ensemble requires.
        """
        rows = labelled(records, correct, self.needs, self)
        ensemble = self.layer == "ensemble"
        layers = common_layers(records, self) if ensemble else (int(self.layer),)
        features = [states(records, self.at, layer)[rows.order] for layer in layers]
        right = rows.correct >= RIGHT
        gaussians = tuple(_gaussians(f, right, relative=self.relative) for f in features)
        weights, bias = None, 0.0
        if ensemble:
            fold = grouped_folds(rows, FOLDS, rng, self)
            weights, bias = _joined(features, rows, fold, relative=self.relative)
        return FittedMahalanobis(self.at, layers, gaussians, weights, bias)

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """A mean and a covariance: spread along some directions, and one spread along all others.

    Attributes:
        mean: The mean.
        directions: Orthonormal columns.
        variances: Variance along each direction.
        rest: Variance along everything at right angles to them.
    """

    mean: Float[np.ndarray, " d"]
    directions: Float[np.ndarray, "d r"]
    variances: Float[np.ndarray, " r"]
    rest: float

    def distance(self, vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Root of (x − μ)ᵀ Σ⁻¹ (x − μ), ≥ 0."""
        centred = vectors - self.mean
        along = by_row(centred, self.directions)
        squared = (along**2 / self.variances).sum(axis=1)
        if self.directions.shape[1] < len(self.mean):
            beside = (centred**2).sum(axis=1) - (along**2).sum(axis=1)
            squared = squared + np.maximum(beside, 0.0) / self.rest
        return np.asarray(np.sqrt(squared))


def fit_gaussian(vectors: Float[np.ndarray, "n d"], shrinkage: float | None = None) -> Gaussian:
    """Mean and shrunk covariance of the rows.

    Args:
        vectors: At least 2 rows that are not all equal.
        shrinkage: Weight of the identity, in [0, 1]; None estimates it as Ledoit and Wolf do. 0
            needs rows that span the space. Rows that differ in sign only, for which the estimate
            is 0, are given 1.

    Source: Ledoit and Wolf (2004), as scikit-learn ``ledoit_wolf`` up to dividing by n − 1, from
    the smaller of the two products of the centred rows.
    """
    n, d = vectors.shape
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    few = n < d
    values, directions = np.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
    kept = values > values.max() * max(n, d) * np.finfo(np.float64).eps
    values, directions = values[kept], directions[:, kept]
    if few:
        directions = (centred.T @ directions) / np.sqrt(values)
    average = values.sum() / d
    if shrinkage is None:
        fourth = ((centred**2).sum(axis=1) ** 2).sum()
        spread = (values**2).sum()
        noise = (fourth / n - spread / n**2) / n
        apart = (spread - values.sum() ** 2 / d) / n**2
        # Centring far from the origin costs digits, which must not pass for noise.
        far = float(np.abs(vectors).max() * np.sqrt(d * n / values.sum()))
        alike = noise <= fourth / n * 16 * np.finfo(np.float64).eps * (1.0 + far)
        shrinkage = 1.0 if noise >= apart or alike else float(noise / apart)
    covariance = (1.0 - shrinkage) * values / (n - 1)
    identity = shrinkage * average / (n - 1)
    return Gaussian(mean, np.ascontiguousarray(directions), covariance + identity, float(identity))


@dataclass(frozen=True, slots=True, eq=False)
class FittedMahalanobis:
    """Gaussians of right answers by layer, and how their distances are joined.

    Attributes:
        at: Which state is read.
        layers: Indices of the layers that are read.
        gaussians: For each layer that of right answers, then that of all where it is relative.
        weights: Of each layer's distance in the log-odds of being right; None for one layer.
        bias: Their intercept.
    """

    at: Position
    layers: tuple[int, ...]
    gaussians: tuple[tuple[Gaussian, ...], ...]
    weights: Float[np.ndarray, " l"] | None
    bias: float

    family: ClassVar[str] = "density"
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """Hidden states of the answer or of the prompt."""
        return state_needs(self.at)

    @property
    def is_probability(self) -> bool:
        """True for the ensemble of layers."""
        return self.weights is not None

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Probability of being wrong; of one layer the distance, or the difference of two.

        Raises:
            UnscorableError: A record lacks a layer, or its states have another width.
        """
        require(records, self.needs, self)
        distances = [
            _distance(own, states(records, self.at, layer, len(own[0].mean)))
            for layer, own in zip(self.layers, self.gaussians, strict=True)
        ]
        if self.weights is None:
            return distances[0]
        joined = sum(d * w for d, w in zip(distances, self.weights, strict=True))
        return wrong_probability(np.asarray(joined + self.bias))

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Position, layers and intercept; the Gaussians by layer, and the weights."""
        arrays = {} if self.weights is None else {"weights": self.weights}
        for layer, own in zip(self.layers, self.gaussians, strict=True):
            for which, gaussian in enumerate(own):
                name = f"{layer}.{which}"
                arrays |= {
                    f"{name}.mean": gaussian.mean,
                    f"{name}.directions": gaussian.directions,
                    f"{name}.variances": gaussian.variances,
                    f"{name}.rest": np.array([gaussian.rest]),
                }
        settings = {
            "at": self.at,
            "layers": list(self.layers),
            "relative": len(self.gaussians[0]) == 2,
            "bias": self.bias,
        }
        return settings, arrays

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FittedMahalanobis:
        """Rebuilds what `state` wrote."""

        def gaussian(name: str) -> Gaussian:
            mean, directions, variances, rest = (
                arrays[f"{name}.{part}"] for part in ("mean", "directions", "variances", "rest")
            )
            return Gaussian(mean, directions, variances, float(rest[0]))

        count = 2 if settings["relative"] else 1
        return cls(
            settings["at"],
            tuple(settings["layers"]),
            tuple(
                tuple(gaussian(f"{layer}.{which}") for which in range(count))
                for layer in settings["layers"]
            ),
            arrays.get("weights"),
            float(settings["bias"]),
        )


def _gaussians(
    vectors: Float[np.ndarray, "n d"], right: np.ndarray, *, relative: bool
) -> tuple[Gaussian, ...]:
    """The Gaussian of right answers, and that of all where it is relative."""
    chosen = vectors[right]
    if len(chosen) < 2 or not np.ptp(chosen, axis=0).any():
        raise DataError(
            f"{len(chosen)} right answers with {len(np.unique(chosen, axis=0))} different hidden "
            "states to fit a covariance on; 2 different ones are required. Label more answers."
        )
    return (fit_gaussian(chosen), fit_gaussian(vectors)) if relative else (fit_gaussian(chosen),)


def _distance(
    gaussians: Sequence[Gaussian], vectors: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """Distance to right answers, less that to all where there is one."""
    distance = gaussians[0].distance(vectors)
    return distance if len(gaussians) == 1 else distance - gaussians[1].distance(vectors)


def _joined(
    features: Sequence[Float[np.ndarray, "n d"]],
    rows: Labelled,
    fold: Int[np.ndarray, " n"],
    *,
    relative: bool,
) -> tuple[Float[np.ndarray, " l"], float]:
    """Weights and intercept of the layers' distances, each row's from Gaussians without its fold.

    A layer's weight has no required sign.
    """
    right = rows.correct >= RIGHT
    distances = np.empty((len(rows.records), len(features)))
    for column, vectors in enumerate(features):
        for held in range(fold.max() + 1):
            inside = fold == held
            own = _gaussians(vectors[~inside], right[~inside], relative=relative)
            distances[inside, column] = _distance(own, vectors[inside])
    mean, scale = standardiser(distances)
    weights, bias = fit_logistic((distances - mean) / scale, rows.correct, 1.0)
    weights = weights / scale
    return weights, float(bias - mean @ weights)
