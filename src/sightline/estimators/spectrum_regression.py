"""Logistic regression on the spectrum that SGPU reads: what its Gaussian process must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.learning import fit_logistic, labelled, wrong_probability
from sightline.estimators.signals import cost_of_samples, require
from sightline.estimators.spectral import Vectors
from sightline.estimators.spectrum_features import (
    Spectrum,
    SpectrumReader,
    Standardiser,
    reader_from,
)
from sightline.estimators.states import check_layer


@dataclass(frozen=True, slots=True)
class SpectrumLogisticRegression:
    """Logistic regression on the eigenvalues of the samples' Gram matrix.

    Attributes:
        similarity: What stands for a sample: words, embeddings, or hidden (the state behind its
            last token).
        likelihood_weighted: Weigh samples by the geometric mean of their tokens' probabilities.
        spectrum: Features of the spectrum: cumulative, eigenvalues or log.
        strength: Weight of the data against the L2 penalty on standardised features.
        layer: Stored layer of the hidden states, or middle; read with similarity=hidden only.
    """

    similarity: Vectors = "words"
    likelihood_weighted: bool = False
    spectrum: Spectrum = "cumulative"
    strength: float = 1.0
    layer: str = "middle"

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False
    slow: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layer(self.layer, "middle")

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their vectors and weights are read off."""
        return self._reader().needs

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedSpectrumLogisticRegression:
        """Returns the fitted regression; nothing is drawn from ``rng``.

        Raises:
            DataError: All answers are right or all wrong, or records have different numbers of
                samples where the features require one.
            UnscorableError: A record lacks the layer.
            MissingExtraError: scikit-learn is not installed.
        """
        del rng
        rows = labelled(records, correct, self.needs, self)
        features, _ = self._reader().read(rows.records)
        scaling = Standardiser.of(features)
        weights, bias = fit_logistic(scaling.apply(features), rows.correct, self.strength)
        return FittedSpectrumLogisticRegression(self._reader(), scaling, weights, bias)

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)

    def _reader(self) -> SpectrumReader:
        return SpectrumReader(self.similarity, self.likelihood_weighted, self.spectrum, self.layer)


@dataclass(frozen=True, slots=True, eq=False)
class FittedSpectrumLogisticRegression:
    """A fitted regression.

    Attributes:
        reader: What is read off a record.
        scaling: Of the features.
        weights: Of the standardised features in the log-odds of being right.
        bias: Log-odds at their mean.
    """

    reader: SpectrumReader
    scaling: Standardiser
    weights: Float[np.ndarray, " k"]
    bias: float

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their vectors and weights are read off."""
        return self.reader.needs

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The layer of the hidden states; None where it is the middle one of those stored."""
        return self.reader.layers

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Probability of being wrong, in [0, 1].

        Raises:
            UnscorableError: A record lacks the layer, or has another number of samples where the
                features require the fitted one.
        """
        require(records, self.needs, self)
        features, _ = self.reader.read(records, len(self.weights))
        scaled = self.scaling.apply(features)
        return wrong_probability((scaled * self.weights).sum(axis=1) + self.bias)

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What is read, the scaling and the regression."""
        settings = {"reader": asdict(self.reader), "bias": self.bias}
        return settings, {"weights": self.weights, **self.scaling.arrays()}

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FittedSpectrumLogisticRegression:
        """Rebuilds what `state` wrote."""
        return cls(
            reader_from(settings["reader"]),
            Standardiser.from_arrays(arrays),
            arrays["weights"],
            float(settings["bias"]),
        )
