"""Calibrators: frozen settings whose ``fit`` returns a calibration.

All take raw uncertainty (any real number, higher = worse) unless they say that they need a
probability. Scores that are themselves confidences enter negated, or as 1 - p where a probability
is needed; they are never flipped silently. The rule for scores without signal is the same for all:
see `without_signal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration.fitted import (
    BaseRate,
    BetaCalibration,
    HistogramCalibration,
    IsotonicCalibration,
    PlattCalibration,
    TemperatureCalibration,
    log_odds_parts,
    vector,
)
from sightline.core.errors import AntiInformativeError, UsageError
from sightline.core.protocols import Calibrator
from sightline.metrics.intervals import auroc_estimate
from sightline.metrics.ranked import rank, rows_of

COLDEST, HOTTEST = 0.01, 100.0
_RIDGE = 1e-9


def without_signal(
    uncertainty: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None,
) -> BaseRate | None:
    """The base rate where the score shows no signal on these rows, else None.

    There is signal where the 95 % interval of AUROC (allowing for groups) lies above .5. It cannot
    where all answers are right, or all wrong.

    Raises:
        AntiInformativeError: The interval lies below .5.
        DataError: A value is not finite, or correctness leaves [0, 1].
        UndefinedMetricError: No rows.
    """
    _, checked = rows_of(-vector(uncertainty), correct)
    seen = auroc_estimate(-vector(uncertainty), checked, groups)
    if seen.value is not None and seen.low is not None and seen.high is not None:
        if seen.high < 0.5 - _ROUNDING:
            raise AntiInformativeError(
                f"AUROC is {seen.value:.3f} [{seen.low:.3f}, {seen.high:.3f}] on {seen.n} "
                "calibration rows; a score that ranks right answers first is required. Leave the "
                "estimator out, or negate a score that is a confidence."
            )
        if seen.low > 0.5 + _ROUNDING:
            return None
    return _base_rate(_levels(uncertainty, checked))


_ROUNDING = 1e-9
"""By how much sums over rows may miss an AUROC of .5: where all scores are equal, and answers
right in part, its interval has no width."""


def _inside(values: Float[np.ndarray, " k"], n: int) -> list[float]:
    """Values held at least 1 / (n + 2) from 0 and 1: no n rows show that an answer is certain."""
    clipped: list[float] = np.clip(values, 1 / (n + 2), 1 - 1 / (n + 2)).tolist()
    return clipped


@dataclass(frozen=True, slots=True)
class Temperature:
    """One temperature on the log-odds; keeps a probability of .5 where it is.

    Needs uncertainty = 1 - p with p a probability. Minimises the likelihood over temperatures
    between 0.01 and 100.

    Source:
        Guo et al. 2017, on the probability of being right. Scaling the logits of all classes with
        one temperature (torch-uncertainty) is another model when there are more than two.
    """

    needs_probability: ClassVar[bool] = True

    def fit(
        self,
        uncertainty: Float[np.ndarray, " n"],
        correct: Float[np.ndarray, " n"],
        *,
        groups: Int[np.ndarray, " n"] | None = None,
    ) -> TemperatureCalibration | BaseRate:
        """Fits the temperature.

        Raises:
            AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
            UsageError: The uncertainty is not 1 - a probability.
            DataError: A value is not finite, or correctness leaves [0, 1].
        """
        log_right, log_wrong = log_odds_parts(uncertainty, "temperature")
        base = without_signal(uncertainty, correct, groups)
        if base is not None:
            return base
        levels = _levels(log_wrong - log_right, correct)
        log_odds = -levels.uncertainty
        low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
        # The likelihood is convex in 1/T: halve to where its slope changes sign.
        for _ in range(60):
            middle = (low + high) / 2
            expected = levels.rows * _probability(log_odds * np.exp(middle))
            slope = np.sum((expected - levels.right) * log_odds)
            low, high = (low, middle) if slope > 0 else (middle, high)
        return TemperatureCalibration(temperature=float(np.exp(-(low + high) / 2)), n=levels.n)


@dataclass(frozen=True, slots=True)
class Platt:
    """Logistic regression on the uncertainty; takes any real score.

    Attributes:
        smooth_targets: Replace 1 and 0 by (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), which keeps the
            slope finite where the classes do not overlap and matters only on few rows.

    Source:
        Platt 1999. netcal's LogisticCalibration is this on logit(p) without smoothed targets.
    """

    needs_probability: ClassVar[bool] = False

    smooth_targets: bool = True

    def fit(
        self,
        uncertainty: Float[np.ndarray, " n"],
        correct: Float[np.ndarray, " n"],
        *,
        groups: Int[np.ndarray, " n"] | None = None,
    ) -> PlattCalibration | BaseRate:
        """Fits slope and intercept.

        Where the likelihood would make confidence rise with uncertainty (a few extreme scores can
        do that although the ranks carry signal), the best slope that may be is 0, the base rate.

        Raises:
            AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
            UsageError: Scores are too large or too close together to be told apart.
            DataError: A value is not finite, or correctness leaves [0, 1].
        """
        base = without_signal(uncertainty, correct, groups)
        if base is not None:
            return base
        levels = _levels(uncertainty, correct)
        with np.errstate(over="ignore", invalid="ignore"):
            center = float(np.sum(levels.rows * levels.uncertainty)) / levels.n
            away = center - levels.uncertainty
            spread = float(np.sum(levels.rows * away**2) / levels.n) ** 0.5
        if not 1e-150 < spread < 1e150:
            raise UsageError(
                f"Uncertainty has a standard deviation of {spread}; one between 1e-150 and 1e150 "
                "is required. Rescale the score, or use isotonic."
            )
        targets = levels.right
        if self.smooth_targets:
            right = float(np.sum(levels.right))
            high, low = (right + 1) / (right + 2), 1 / (levels.n - right + 2)
            targets = low * levels.rows + (high - low) * levels.right
        slope, intercept = _logistic((away / spread)[:, None], levels.rows, targets)
        if slope <= 0:
            return _base_rate(levels)
        return PlattCalibration(
            center=center, slope=slope / spread, intercept=intercept, n=levels.n
        )


@dataclass(frozen=True, slots=True)
class Beta:
    """Beta calibration: separate weights for ln p and -ln(1 - p).

    Needs uncertainty = 1 - p with p a probability. A weight that the likelihood would make
    negative is held at 0, so that confidence never rises with uncertainty; where both would be,
    the base rate is left.

    Source:
        Kull, Silva Filho and Flach 2017.
    """

    needs_probability: ClassVar[bool] = True

    def fit(
        self,
        uncertainty: Float[np.ndarray, " n"],
        correct: Float[np.ndarray, " n"],
        *,
        groups: Int[np.ndarray, " n"] | None = None,
    ) -> BetaCalibration | BaseRate:
        """Fits the weights and the intercept.

        Raises:
            AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
            UsageError: The uncertainty is not 1 - a probability.
            DataError: A value is not finite, or correctness leaves [0, 1].
        """
        log_odds_parts(uncertainty, "beta")
        base = without_signal(uncertainty, correct, groups)
        if base is not None:
            return base
        levels = _levels(uncertainty, correct)
        log_right, log_wrong = log_odds_parts(levels.uncertainty, "beta")
        features = np.stack([log_right, -log_wrong], axis=1)
        a, b, c = _logistic(features, levels.rows, levels.right)
        if a < 0:
            a, (b, c) = 0.0, _logistic(features[:, 1:], levels.rows, levels.right)
        elif b < 0:
            b, (a, c) = 0.0, _logistic(features[:, :1], levels.rows, levels.right)
        if min(a, b) < 0 or max(a, b) == 0:
            return _base_rate(levels)
        return BetaCalibration(a=a, b=b, c=c, n=levels.n)


@dataclass(frozen=True, slots=True)
class Isotonic:
    """The best never-rising map, interpolated between its steps; takes any real score.

    Values are held 1 / (n + 2) from 0 and 1: the bare fit (scikit-learn, netcal) says 0 and 1 at
    its ends, which one wrong answer turns into an infinite likelihood loss.

    Source:
        Zadrozny and Elkan 2002; interpolation as scikit-learn ``IsotonicRegression``.
    """

    needs_probability: ClassVar[bool] = False

    def fit(
        self,
        uncertainty: Float[np.ndarray, " n"],
        correct: Float[np.ndarray, " n"],
        *,
        groups: Int[np.ndarray, " n"] | None = None,
    ) -> IsotonicCalibration | BaseRate:
        """Fits the steps by pooling adjacent violators.

        Raises:
            AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
            DataError: A value is not finite, or correctness leaves [0, 1].
        """
        base = without_signal(uncertainty, correct, groups)
        if base is not None:
            return base
        levels = _levels(uncertainty, correct)
        starts, values = _pool(levels.rows, levels.right)
        last = np.append(starts[1:], len(levels.rows)) - 1
        ends = np.unique(np.concatenate([starts, last]))
        step_of = np.searchsorted(starts, ends, side="right") - 1
        return IsotonicCalibration(
            knots=tuple(levels.uncertainty[ends].tolist()),
            values=tuple(_inside(values[step_of], levels.n)),
            n=levels.n,
        )


@dataclass(frozen=True, slots=True)
class Histogram:
    """Mean correctness in bins of equal mass, pooled until it never rises; takes any real score.

    For reference. Ties stay in one bin. Values are held 1 / (n + 2) from 0 and 1.

    Attributes:
        n_bins: Bins before pooling.

    Source:
        Zadrozny and Elkan 2001, with violators pooled. netcal's HistogramBinning has bins of equal
        width and may rise with uncertainty.
    """

    needs_probability: ClassVar[bool] = False

    n_bins: int = 10

    def __post_init__(self) -> None:
        if self.n_bins < 1:
            raise UsageError(f"n_bins is {self.n_bins}; at least 1 is required. Use 10.")

    def fit(
        self,
        uncertainty: Float[np.ndarray, " n"],
        correct: Float[np.ndarray, " n"],
        *,
        groups: Int[np.ndarray, " n"] | None = None,
    ) -> HistogramCalibration | BaseRate:
        """Fits the bins.

        Raises:
            AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
            DataError: A value is not finite, or correctness leaves [0, 1].
        """
        base = without_signal(uncertainty, correct, groups)
        if base is not None:
            return base
        levels = _levels(uncertainty, correct)
        middle_row = np.cumsum(levels.rows) - levels.rows / 2
        bin_of = (middle_row * self.n_bins / levels.n).astype(np.intp)
        starts = np.flatnonzero(np.diff(bin_of, prepend=-1))
        pooled, values = _pool(
            np.add.reduceat(levels.rows, starts), np.add.reduceat(levels.right, starts)
        )
        above = levels.uncertainty[starts[pooled[1:]]]
        below = levels.uncertainty[starts[pooled[1:]] - 1]
        middle = below / 2 + above / 2
        return HistogramCalibration(
            edges=tuple(np.where(middle > below, middle, above).tolist()),
            values=tuple(_inside(values, levels.n)),
            n=levels.n,
        )


@dataclass(frozen=True)
class _Levels:
    """Distinct uncertainties, ascending, with the rows and the right answers at each."""

    uncertainty: Float[np.ndarray, " g"]
    rows: Float[np.ndarray, " g"]
    right: Float[np.ndarray, " g"]

    @property
    def n(self) -> int:
        return round(float(np.sum(self.rows)))


def _levels(uncertainty: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> _Levels:
    """Merges equal uncertainties, so that the order of the rows cannot show in a fit."""
    ranked = rank(-vector(uncertainty), np.asarray(correct, dtype=np.float64)).ranked()
    return _Levels(-ranked.confidence, ranked.rows[0], ranked.right[0])


def _base_rate(levels: _Levels) -> BaseRate:
    rate = np.array([np.sum(levels.right) / levels.n])
    return BaseRate(rate=_inside(rate, levels.n)[0], n=levels.n)


def _pool(
    rows: Float[np.ndarray, " g"], right: Float[np.ndarray, " g"]
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Starts and means of the steps of the best never-rising fit (pool adjacent violators)."""
    starts: list[int] = []
    totals: list[float] = []
    rights: list[float] = []
    for start, (total, hits) in enumerate(zip(rows.tolist(), right.tolist(), strict=True)):
        begin = start
        # Cross-multiplied, so that equal means of 0/1 counts pool exactly.
        while starts and rights[-1] * total <= hits * totals[-1]:
            begin = starts.pop()
            total += totals.pop()  # noqa: PLW2901
            hits += rights.pop()  # noqa: PLW2901
        starts.append(begin)
        totals.append(total)
        rights.append(hits)
    return np.array(starts, dtype=np.intp), np.array(rights) / np.array(totals)


def _probability(logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    half: Float[np.ndarray, " n"] = 0.5 * np.tanh(0.5 * logits)
    return 0.5 + half


def _logistic(
    features: Float[np.ndarray, "g d"],
    rows: Float[np.ndarray, " g"],
    targets: Float[np.ndarray, " g"],
) -> list[float]:
    """Weights and, last, intercept of a logistic regression, by Newton steps on the likelihood.

    A ridge of 1e-9 per row keeps the weights finite where the classes do not overlap; elsewhere it
    moves them by less than 1e-6 of their size.

    Args:
        features: One row per level.
        rows: Rows at each level.
        targets: Sum of the targets of those rows.
    """
    design = np.column_stack([features, np.ones(len(features))])
    n = float(np.sum(rows))
    weights = np.zeros(design.shape[1])

    def loss(at: Float[np.ndarray, " w"]) -> float:
        logits = design @ at
        fit = np.sum(rows * np.logaddexp(0.0, logits) - targets * logits) / n
        return float(fit + _RIDGE / 2 * (at @ at))

    previous, current = np.inf, loss(weights)
    while previous - current > 1e-15:
        p = _probability(design @ weights)
        gradient = design.T @ (rows * p - targets) / n + _RIDGE * weights
        curvature = (design * (rows * p * (1 - p))[:, None]).T @ design / n
        step = np.linalg.solve(curvature + _RIDGE * np.eye(len(weights)), gradient)
        size = 1.0
        while loss(weights - size * step) > current and size > 1e-8:
            size /= 2
        weights = weights - size * step
        previous, current = current, loss(weights)
    fitted: list[float] = weights.tolist()
    return fitted


CALIBRATORS: Mapping[str, Calibrator] = MappingProxyType(
    {
        "temperature": Temperature(),
        "platt": Platt(),
        "beta": Beta(),
        "isotonic": Isotonic(),
        "histogram": Histogram(),
    }
)
"""Every calibrator by name, with its default settings."""
