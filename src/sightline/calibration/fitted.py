"""Fitted calibrations: maps from uncertainty to the probability of being right, kept as JSON.

Every ``confidence`` never rises with uncertainty and lies strictly between 0 and 1, so that no
single answer makes the likelihood infinite: the logistic forms stop at a logit of ±30, the
step-wise ones at 1 / (n + 2) from either end for n calibration rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sightline.core.errors import DataError, UsageError

FORMAT_VERSION: Literal[1] = 1
PROBABILITY_MARGIN = 1e-6
"""How near to 0 or 1 a probability is believed; float32 softmax outputs are not exact nearer."""
LARGEST_LOGIT = 30.0
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Open01 = Annotated[float, Field(gt=0, lt=1)]
Rows = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]


def vector(uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The uncertainties as float64, checked to be finite.

    Raises:
        DataError: Not a vector, or a value is not finite.
    """
    values = np.asarray(uncertainty, dtype=np.float64)
    if values.ndim != 1:
        raise DataError(
            f"Uncertainty of shape {values.shape}; one value per row is required. Flatten it."
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataError(
            f"Uncertainty is {values[bad[0]]} at row {bad[0]}; values must be finite. "
            "Skip and count rows without a score."
        )
    return values


def log_odds_parts(
    uncertainty: Float[np.ndarray, " n"], calibrator: str
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(ln p, ln(1 - p)) of p = 1 - uncertainty, no nearer than `PROBABILITY_MARGIN` to 0 and 1.

    Raises:
        UsageError: The uncertainty is not 1 - a probability.
        DataError: A value is not finite.
    """
    values = vector(uncertainty)
    outside = np.flatnonzero((values < 0) | (values > 1))
    if outside.size:
        raise UsageError(
            f"Uncertainty is {values[outside[0]]} at row {outside[0]}; {calibrator} calibration "
            "requires 1 - probability, in [0, 1]. Use platt or isotonic for other scores."
        )
    values = np.clip(values, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return np.log1p(-values), np.log(values)


def sigmoid(logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Logistic function of logits held within ±`LARGEST_LOGIT`."""
    inside = np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)
    probability: Float[np.ndarray, " n"] = 1.0 / (1.0 + np.exp(-inside))
    return probability


@dataclass(frozen=True, config=_STRICT)
class BaseRate:
    """The same confidence for every answer: the score carried no signal.

    Attributes:
        rate: Mean correctness of the calibration rows, at least 1 / (n + 2) from 0 and 1.
        n: Calibration rows.
    """

    rate: Open01
    n: Rows
    kind: Literal["base_rate"] = "base_rate"
    format_version: Literal[1] = FORMAT_VERSION

    @property
    def informative(self) -> bool:
        """False."""
        return False

    def confidence(self, uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The base rate, whatever the uncertainty."""
        return np.full(len(vector(uncertainty)), self.rate)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return _as_json(self)


@dataclass(frozen=True, config=_STRICT)
class TemperatureCalibration:
    """Confidence = sigmoid(logit(1 - uncertainty) / temperature).

    Attributes:
        temperature: Above 1 softens, below 1 sharpens.
        n: Calibration rows.
    """

    temperature: Annotated[float, Field(gt=0)]
    n: Rows
    kind: Literal["temperature"] = "temperature"
    format_version: Literal[1] = FORMAT_VERSION

    @property
    def informative(self) -> bool:
        """True."""
        return True

    def confidence(self, uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Probability of being right; ``uncertainty`` is 1 - a probability."""
        log_right, log_wrong = log_odds_parts(uncertainty, "temperature")
        return sigmoid((log_right - log_wrong) / self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return _as_json(self)


@dataclass(frozen=True, config=_STRICT)
class PlattCalibration:
    """Confidence = sigmoid(intercept + slope (center - uncertainty)).

    Attributes:
        center: Mean uncertainty of the calibration rows.
        slope: At least 0, per unit of uncertainty.
        intercept: Logit of the confidence at the center.
        n: Calibration rows.
    """

    center: float
    slope: NotNegative
    intercept: float
    n: Rows
    kind: Literal["platt"] = "platt"
    format_version: Literal[1] = FORMAT_VERSION

    @property
    def informative(self) -> bool:
        """True."""
        return True

    def confidence(self, uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Probability of being right, for any real uncertainty."""
        return sigmoid(self.intercept + self.slope * (self.center - vector(uncertainty)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return _as_json(self)


@dataclass(frozen=True, config=_STRICT)
class BetaCalibration:
    """Confidence = sigmoid(a ln p - b ln(1 - p) + c) with p = 1 - uncertainty.

    Attributes:
        a: At least 0; weight of ln p.
        b: At least 0; weight of -ln(1 - p).
        c: Intercept.
        n: Calibration rows.
    """

    a: NotNegative
    b: NotNegative
    c: float
    n: Rows
    kind: Literal["beta"] = "beta"
    format_version: Literal[1] = FORMAT_VERSION

    @property
    def informative(self) -> bool:
        """True."""
        return True

    def confidence(self, uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Probability of being right; ``uncertainty`` is 1 - a probability."""
        log_right, log_wrong = log_odds_parts(uncertainty, "beta")
        return sigmoid(self.a * log_right - self.b * log_wrong + self.c)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return _as_json(self)


@dataclass(frozen=True, config=_STRICT)
class IsotonicCalibration:
    """Confidence interpolated between knots, constant beyond the first and last.

    Attributes:
        knots: Uncertainties, ascending.
        values: Confidence at each knot, never rising.
        n: Calibration rows.
    """

    knots: tuple[float, ...]
    values: tuple[Open01, ...]
    n: Rows
    kind: Literal["isotonic"] = "isotonic"
    format_version: Literal[1] = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check_steps("knots", self.knots, "values", self.values, extra=0)

    @property
    def informative(self) -> bool:
        """True."""
        return True

    def confidence(self, uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Probability of being right, for any real uncertainty."""
        return np.interp(vector(uncertainty), self.knots, self.values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return _as_json(self)


@dataclass(frozen=True, config=_STRICT)
class HistogramCalibration:
    """One confidence per bin of uncertainty.

    Attributes:
        edges: Uncertainties between the bins, ascending; an edge belongs to the bin above it.
        values: Confidence in each bin, never rising; one more than edges.
        n: Calibration rows.
    """

    edges: tuple[float, ...]
    values: tuple[Open01, ...]
    n: Rows
    kind: Literal["histogram"] = "histogram"
    format_version: Literal[1] = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check_steps("edges", self.edges, "values", self.values, extra=1)

    @property
    def informative(self) -> bool:
        """True."""
        return True

    def confidence(self, uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Probability of being right, for any real uncertainty."""
        bin_of = np.searchsorted(self.edges, vector(uncertainty), side="right")
        return np.asarray(np.array(self.values)[bin_of])

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return _as_json(self)


def _check_steps(
    where: str, places: tuple[float, ...], what: str, values: tuple[float, ...], *, extra: int
) -> None:
    if not values or len(values) != len(places) + extra:
        raise DataError(
            f"Calibration has {len(places)} {where} and {len(values)} {what}; {extra} more {what} "
            f"than {where} and at least one are required. Fit the calibration again."
        )
    if np.any(np.diff(places) <= 0) or np.any(np.diff(values) > 0):
        raise DataError(
            f"Calibration {where} do not ascend or {what} rise; confidence must never rise with "
            "uncertainty. Fit the calibration again."
        )


Fitted = (
    BaseRate
    | TemperatureCalibration
    | PlattCalibration
    | BetaCalibration
    | IsotonicCalibration
    | HistogramCalibration
)
_ADAPTER: TypeAdapter[Fitted] = TypeAdapter(Annotated[Fitted, Field(discriminator="kind")])


def _as_json(calibration: Fitted) -> dict[str, Any]:
    data: dict[str, Any] = _ADAPTER.dump_python(calibration, mode="json")
    return data


def load_calibration(data: Mapping[str, Any]) -> Fitted:
    """Rebuilds a calibration from its `to_dict` form.

    Args:
        data: The parsed JSON object.

    Raises:
        DataError: It is not a calibration of this format version: a field is missing, unknown, of
            another type, not finite or out of range.
    """
    version = data.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise DataError(
            f"Calibration has format version {version!r}; {FORMAT_VERSION} is required. "
            "Fit the calibration again."
        )
    try:
        return _ADAPTER.validate_json(json.dumps(dict(data)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise DataError(
            f"Calibration: {first['msg']} at {place}; a calibration saved by this library is "
            "required. Fit the calibration again."
        ) from None
    except TypeError as error:
        raise DataError(
            f"Calibration holds a value that is not JSON ({error}); numbers and lists are "
            "required. Fit the calibration again."
        ) from None
