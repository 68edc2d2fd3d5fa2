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
        if seen.high < 0.5:
            raise AntiInformativeError(
                f"AUROC is {seen.value:.3f} [{seen.low:.3f}, {seen.high:.3f}] on {seen.n} "
                "calibration rows; a score that ranks right answers first is required. Leave the "
                "estimator out, or negate a score that is a confidence."
            )
        if seen.low > 0.5:
            return None
    n = len(checked)
    return BaseRate(rate=_inside(np.array([np.mean(np.sort(checked))]), n)[0], n=n)


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
        log_odds = log_right - log_wrong
        correct = np.asarray(correct, dtype=np.float64)
        low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
        # The likelihood is convex in 1/T: halve to where its slope changes sign.
        for _ in range(60):
            middle = (low + high) / 2
            logits = log_odds * np.exp(middle)
            slope = np.sum((_probability(logits) - correct) * log_odds)
            low, high = (low, middle) if slope > 0 else (middle, high)
        return TemperatureCalibration(temperature=float(np.exp(-(low + high) / 2)), n=len(correct))


@dataclass(frozen=True, slots=True)
class Platt:
    """Logistic regression on the uncertainty; takes any real score.

    Attributes:
        smooth_targets: Replace 1 and 0 by (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), which keeps the
            slope finite where the classes do not overlap and matters only on few rows.

    Source:
        Platt 1999. netcal's LogisticCalibration is this on logit(p) without smoothed targets.
    """

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
        values = vector(uncertainty)
        correct = np.asarray(correct, dtype=np.float64)
        n = len(values)
        with np.errstate(over="ignore"):
            center, spread = float(np.mean(np.sort(values))), float(np.std(np.sort(values)))
        if not 1e-150 < spread < 1e150:
            raise UsageError(
                f"Uncertainty has a standard deviation of {spread}; one between 1e-150 and 1e150 "
                "is required. Rescale the score, or use isotonic."
            )
        targets = correct
        if self.smooth_targets:
            right = float(np.sum(np.sort(correct)))
            high, low = (right + 1) / (right + 2), 1 / (n - right + 2)
            targets = low + correct * (high - low)
        standard = ((center - values) / spread)[:, None]
        slope, intercept = _logistic(standard, targets)
        if slope <= 0:
            return BaseRate(rate=_inside(np.array([np.mean(np.sort(correct))]), n)[0], n=n)
        return PlattCalibration(center=center, slope=slope / spread, intercept=intercept, n=n)


@dataclass(frozen=True, slots=True)
class Beta:
    """Beta calibration: separate weights for ln p and -ln(1 - p).

    Needs uncertainty = 1 - p with p a probability. A weight that the likelihood would make
    negative is held at 0, so that confidence never rises with uncertainty.

    Source:
        Kull, Silva Filho and Flach 2017.
    """

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
        log_right, log_wrong = log_odds_parts(uncertainty, "beta")
        base = without_signal(uncertainty, correct, groups)
        if base is not None:
            return base
        correct = np.asarray(correct, dtype=np.float64)
        features = np.stack([log_right, -log_wrong], axis=1)
        a, b, c = _logistic(features, correct)
        if a < 0:
            a, (b, c) = 0.0, _logistic(features[:, 1:], correct)
        elif b < 0:
            b, (a, c) = 0.0, _logistic(features[:, :1], correct)
        return BetaCalibration(a=max(a, 0.0), b=max(b, 0.0), c=c, n=len(correct))


@dataclass(frozen=True, slots=True)
class Isotonic:
    """The best never-rising map, interpolated between its steps; takes any real score.

    Values are held 1 / (n + 2) from 0 and 1: the bare fit (scikit-learn, netcal) says 0 and 1 at
    its ends, which one wrong answer turns into an infinite likelihood loss.

    Source:
        Zadrozny and Elkan 2002; interpolation as scikit-learn ``IsotonicRegression``.
    """

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
        levels, rows, right = _levels(uncertainty, correct)
        starts, values = _pool(rows, right)
        last = np.append(starts[1:], len(levels)) - 1
        ends = np.unique(np.concatenate([starts, last]))
        step_of = np.searchsorted(starts, ends, side="right") - 1
        n = len(np.asarray(correct))
        return IsotonicCalibration(
            knots=tuple(levels[ends].tolist()), values=tuple(_inside(values[step_of], n)), n=n
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
        levels, rows, right = _levels(uncertainty, correct)
        n = len(np.asarray(correct))
        bin_of = ((np.cumsum(rows) - rows / 2) * self.n_bins / n).astype(np.intp)
        starts = np.flatnonzero(np.diff(bin_of, prepend=-1))
        pooled, values = _pool(np.add.reduceat(rows, starts), np.add.reduceat(right, starts))
        first = starts[pooled[1:]]
        middle = levels[first - 1] / 2 + levels[first] / 2
        edges = np.where(middle > levels[first - 1], middle, levels[first])
        return HistogramCalibration(
            edges=tuple(edges.tolist()), values=tuple(_inside(values, n)), n=n
        )


def _levels(
    uncertainty: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"], Float[np.ndarray, " g"]]:
    """Distinct uncertainties, ascending, with the rows and the right answers at each."""
    ranked = rank(-vector(uncertainty), np.asarray(correct, dtype=np.float64)).ranked()
    return -ranked.confidence, ranked.rows[0], ranked.right[0]


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


def _logistic(features: Float[np.ndarray, "n d"], targets: Float[np.ndarray, " n"]) -> list[float]:
    """Weights and, last, intercept of a logistic regression, by Newton steps on the likelihood.

    A ridge of 1e-9 per row keeps the weights finite where the classes do not overlap; elsewhere it
    is below rounding of the data.
    """
    design = np.column_stack([features, np.ones(len(features))])
    n = len(targets)
    penalty = _RIDGE * np.eye(design.shape[1])
    weights = np.zeros(design.shape[1])

    def loss(at: Float[np.ndarray, " d"]) -> float:
        logits = design @ at
        fit = np.mean(np.logaddexp(0.0, logits) - targets * logits)
        return float(fit + _RIDGE / 2 * (at @ at))

    current = loss(weights)
    for _ in range(200):
        p = _probability(design @ weights)
        gradient = design.T @ (p - targets) / n + _RIDGE * weights
        curvature = (design * (p * (1 - p))[:, None]).T @ design / n + penalty
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-8 and loss(weights - size * step) > current:
            size /= 2
        weights = weights - size * step
        previous, current = current, loss(weights)
        if previous - current <= 1e-15 and size == 1.0:
            break
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
