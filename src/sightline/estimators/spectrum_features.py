"""What estimators that learn read off the spectrum of a question's samples.

The spectrum of m samples, divided by m, is a distribution over directions of meaning. It is rounded
to nine digits, so that questions whose samples all agree get equal features and stay tied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError, UnscorableError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.estimators.spectral import Vectors, gram_spectra, stated_layer, vector_needs

Spectrum = Literal["cumulative", "eigenvalues", "log"]
"""How a spectrum becomes features.

``cumulative``: its running sum at 16 points from the first eigenvalue to the last, interpolated, so
that questions with different numbers of samples compare. ``eigenvalues``: the shares λ/m.
``log``: log(λ/m + 0.001). The last two require one number of samples throughout.
"""

_GRID = np.arange(16) / 16
_DIGITS = 9
_LEAST_SCALE = 10.0**-_DIGITS


@dataclass(frozen=True, slots=True)
class SpectrumReader:
    """Reads spectra as features.

    Attributes:
        similarity: What stands for a sample.
        likelihood_weighted: Weigh samples by the geometric mean of their tokens' probabilities.
        spectrum: How a spectrum becomes features.
        layer: Stored layer of the hidden states, or middle.
    """

    similarity: Vectors
    likelihood_weighted: bool
    spectrum: Spectrum
    layer: str = "middle"

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what their vectors and weights are read off."""
        weights = {Feature.SAMPLE_LOGPROBS} if self.likelihood_weighted else set()
        return vector_needs(self.similarity) | weights

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The layer of the hidden states; None where it is the middle one of those stored."""
        return stated_layer(self.layer)

    def read(
        self, records: Sequence[Record], width: int | None = None
    ) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, " n"]]:
        """Features of each record's spectrum, and its von Neumann entropy in nats.

        Args:
            records: Records with `needs`.
            width: Features fitted on, None where these are the fitting rows.

        Raises:
            UnscorableError: A record lacks the layer, or its number of samples is not the fitted
                one where the features require it.
            DataError: The number of samples differs among fitting rows where the features require
                one.
        """
        spectra = gram_spectra(
            records,
            self.similarity,
            layer=self.layer,
            likelihood_weighted=self.likelihood_weighted,
        )
        counts = np.unique(spectra.lengths).tolist()
        if self.spectrum == "cumulative":
            width = len(_GRID)
        elif width is None:
            width = self._only(counts)
        else:
            _require_width(spectra.lengths, width)
        features, entropy = np.empty((len(records), width)), np.empty(len(records))
        for count in counts:
            rows = np.flatnonzero(spectra.lengths == count)
            shares = spectra.values[spectra.starts[rows][:, None] + np.arange(count)] / count
            shares = np.round(shares, _DIGITS)
            features[rows] = _features(shares, self.spectrum)
            entropy[rows] = _entropy(shares)
        return features, entropy

    def _only(self, counts: Sequence[int]) -> int:
        if len(counts) != 1:
            raise DataError(
                f"Fitting rows with {' and with '.join(map(str, counts))} samples; "
                f"spectrum={self.spectrum} requires one number of samples. "
                "Use spectrum=cumulative."
            )
        return counts[0]


@dataclass(frozen=True, slots=True, eq=False)
class Standardiser:
    """Shifts and scales features to mean 0 and standard deviation 1 over the fitting rows.

    Attributes:
        mean: Of each feature.
        scale: Standard deviation of each; 1 for one that did not vary.
    """

    mean: Float[np.ndarray, " k"]
    scale: Float[np.ndarray, " k"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n k"]) -> Standardiser:
        """Learns both from the fitting rows."""
        scale = features.std(axis=0)
        return cls(features.mean(axis=0), np.where(scale > _LEAST_SCALE, scale, 1.0))

    def apply(self, features: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """The standardised features."""
        return np.asarray((features - self.mean) / self.scale)

    def arrays(self) -> dict[str, np.ndarray]:
        """Both, by name."""
        return {"feature_mean": self.mean, "feature_scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Standardiser:
        """Rebuilds what `arrays` gave."""
        return cls(arrays["feature_mean"], arrays["feature_scale"])


def reader_from(settings: Mapping[str, Any]) -> SpectrumReader:
    """Rebuilds a reader from its fields."""
    return SpectrumReader(
        settings["similarity"],
        bool(settings["likelihood_weighted"]),
        settings["spectrum"],
        settings["layer"],
    )


def _require_width(lengths: Int[np.ndarray, " n"], width: int) -> None:
    other = np.flatnonzero(lengths != width).tolist()
    if other:
        raise UnscorableError(
            other,
            f"{lengths[other[0]]} samples; the fitted features require {width}",
            "Fit with spectrum=cumulative to score any number of samples.",
        )


def _features(shares: Float[np.ndarray, "n m"], spectrum: Spectrum) -> Float[np.ndarray, "n k"]:
    if spectrum == "eigenvalues":
        return shares
    if spectrum == "log":
        return np.asarray(np.log(shares + 1e-3))
    mass = np.cumsum(shares, axis=1)
    at = _GRID * (shares.shape[1] - 1)
    below = at.astype(np.int64)
    above = np.minimum(below + 1, shares.shape[1] - 1)
    return np.asarray(mass[:, below] + (at - below) * (mass[:, above] - mass[:, below]))


def _entropy(shares: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    terms = -shares * np.log(np.maximum(shares, np.finfo(np.float64).tiny))
    return np.asarray(np.maximum(terms.sum(axis=1), 0.0))
