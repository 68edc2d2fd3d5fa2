"""SGPU: a Gaussian process from the spectrum of the sampled answers to the chance of being right.

An implementation that follows the published description (arXiv 2512.14177); kernel, features, mean
function, white-box forms and the search for hyperparameters are not given there and are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float

from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.gaussian_process import (
    GaussianProcess,
    average_logistic,
    fit_gaussian_process,
)
from sightline.estimators.laplace import Hyperparameters, Kernel, Points
from sightline.estimators.learning import Labelled, common_layers, labelled
from sightline.estimators.signals import cost_of_samples, require
from sightline.estimators.spectral import Vectors
from sightline.estimators.spectrum_features import (
    Spectrum,
    SpectrumReader,
    Standardiser,
    reader_from,
)
from sightline.estimators.states import check_layer

MeanFunction = Literal["entropy", "constant", "zero"]
"""Log-odds far from all labels: linear in the von Neumann entropy, the base rate's, or 0."""


@dataclass(frozen=True, slots=True)
class SGPU:
    """Gaussian-process classifier on the eigenvalues of the samples' Gram matrix.

    Its probability averages over what the labels leave open. A latent variance that grows away from
    the labelled answers says where that is most (see `FittedSGPU.support`).

    Attributes:
        similarity: What stands for a sample: words, embeddings, or hidden (the state behind its
            last token).
        likelihood_weighted: Weigh samples by the geometric mean of their tokens' probabilities.
        spectrum: Features of the spectrum: cumulative, eigenvalues or log.
        mean: Mean function of the process: entropy, constant or zero.
        kernel: rbf or matern32.
        ard: One length scale per feature; overfits below some hundred labels.
        restarts: Starts of the search for hyperparameters.
        layer: Stored layer of the hidden states, or auto for the one whose labels are most likely
            under the process; read with similarity=hidden only.

    Source: SGPU (arXiv 2512.14177). It does not give the features, the kernel and the mean
    function; falling back on the entropy where labels are few, the 16-point grid for unequal
    numbers of samples, and both white-box forms are ours.
    """

    similarity: Vectors = "words"
    likelihood_weighted: bool = False
    spectrum: Spectrum = "cumulative"
    mean: MeanFunction = "entropy"
    kernel: Kernel = "rbf"
    ard: bool = False
    restarts: int = 5
    layer: str = "auto"

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layer(self.layer, "auto")
        if not 1 <= self.restarts <= 100:
            raise UsageError(
                f"{self.restarts} restarts of SGPU; between 1 and 100 are required. Use 5."
            )

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their vectors and weights are read off."""
        return self._reader("middle").needs

    @property
    def slow(self) -> bool:
        """Whether one process is fitted per layer."""
        return self.similarity == "hidden" and self.layer == "auto"

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedSGPU:
        """Returns the fitted process; ``rng`` draws starts, and rows where there are many.

        Raises:
            DataError: All answers are right or all wrong, records have different layers, or
                different numbers of samples where the features require one.
            UnscorableError: A record lacks the layer.
            MissingExtraError: scipy is not installed.
        """
        rows = labelled(records, correct, self.needs, self)
        layers = ["middle"]
        if self.similarity == "hidden":
            every = self.layer == "auto"
            layers = [str(i) for i in common_layers(rows.records, self)] if every else [self.layer]
        seed = int(rng.integers(2**63))
        fits = [self._fit_layer(rows, layer, np.random.default_rng(seed)) for layer in layers]
        return max(fits, key=lambda fitted: fitted.process.log_evidence)

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)

    def _reader(self, layer: str) -> SpectrumReader:
        return SpectrumReader(self.similarity, self.likelihood_weighted, self.spectrum, layer)

    def _fit_layer(self, rows: Labelled, layer: str, rng: np.random.Generator) -> FittedSGPU:
        reader = self._reader(layer)
        features, entropy = reader.read(rows.records)
        scaling, entropy_scaling = Standardiser.of(features), Standardiser.of(entropy[:, None])
        basis = _basis(self.mean, entropy_scaling.apply(entropy[:, None]))
        process = fit_gaussian_process(
            Points.of(scaling.apply(features), basis, rows.correct),
            kernel=self.kernel,
            ard=self.ard,
            restarts=self.restarts,
            rng=rng,
        )
        shift, scale = float(entropy_scaling.mean[0]), float(entropy_scaling.scale[0])
        return FittedSGPU(reader, scaling, self.mean, shift, scale, process)


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """Where answers lie relative to the labelled ones.

    Attributes:
        latent_variance: Posterior variance of the log-odds of being right.
        threshold: What 1 in 100 fitting answers exceeds, each as if left out.
        outside: Whether the variance is above the threshold: the labels say little here.
    """

    latent_variance: Float[np.ndarray, " n"]
    threshold: float
    outside: Bool[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class FittedSGPU:
    """A fitted process.

    Attributes:
        reader: What is read off a record.
        scaling: Of the features.
        mean: Mean function of the process.
        entropy_mean: Of the von Neumann entropy over the fitting rows, in nats.
        entropy_scale: Standard deviation of the same.
        process: The posterior.
    """

    reader: SpectrumReader
    scaling: Standardiser
    mean: MeanFunction
    entropy_mean: float
    entropy_scale: float
    process: GaussianProcess

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
        """Predictive probability of being wrong, in [0, 1].

        Raises:
            UnscorableError: A record lacks the layer, or has another number of samples where the
                features require the fitted one.
        """
        latent, variance = self.latent(records)
        return average_logistic(-latent, variance)

    def latent(
        self, records: Sequence[Record]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Posterior mean and variance of the log-odds of being right."""
        require(records, self.needs, self)
        features, entropy = self.reader.read(records, len(self.scaling.mean))
        scaled = (entropy - self.entropy_mean) / self.entropy_scale
        return self.process.latent(self.scaling.apply(features), _basis(self.mean, scaled[:, None]))

    def support(self, records: Sequence[Record]) -> Support:
        """Which answers lie outside the support of the calibration, by their latent variance."""
        _, variance = self.latent(records)
        threshold = self.process.threshold
        return Support(variance, threshold, variance > threshold)

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What is read, the scaling and the posterior."""
        process, hyper = self.process, self.process.hyper
        settings = {
            "reader": asdict(self.reader),
            "mean": self.mean,
            "entropy_mean": self.entropy_mean,
            "entropy_scale": self.entropy_scale,
            "kernel": hyper.kernel,
            "variance": hyper.variance,
            "threshold": process.threshold,
            "log_evidence": process.log_evidence,
        }
        arrays = {
            "length_scales": hyper.length_scales,
            "mean_coefficients": hyper.mean,
            "points": process.points,
            "dual": process.dual,
            "root": process.root,
        }
        return settings, arrays | self.scaling.arrays()

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FittedSGPU:
        """Rebuilds what `state` wrote."""
        hyper = Hyperparameters(
            settings["kernel"],
            float(settings["variance"]),
            arrays["length_scales"],
            arrays["mean_coefficients"],
        )
        return cls(
            reader_from(settings["reader"]),
            Standardiser.from_arrays(arrays),
            settings["mean"],
            float(settings["entropy_mean"]),
            float(settings["entropy_scale"]),
            GaussianProcess(
                hyper,
                arrays["points"],
                arrays["dual"],
                arrays["root"],
                float(settings["threshold"]),
                float(settings["log_evidence"]),
            ),
        )


def _basis(mean: MeanFunction, entropy: Float[np.ndarray, "n 1"]) -> Float[np.ndarray, "n b"]:
    """Columns that the mean function is linear in.

    Their coefficients have priors of standard deviation 1: log-odds of ±3 for the base rate, ±1 for
    a standard deviation of the entropy.
    """
    columns = {"entropy": 2, "constant": 1, "zero": 0}[mean]
    return np.hstack([np.full_like(entropy, 3.0), entropy])[:, :columns]
