"""An audit on a budget: the few perturbations that tell most, chosen on labelled rows.

Each perturbation costs a pass over every picture. A logistic model predicts a target (is the answer
wrong? does it flip more often than others under the whole bank?) from what the chosen perturbations
show; the next one is always that which lowers the cross-validated loss most. A target that is
measured with the chosen perturbations too, as the second is, contains their own part: how well they
predict it is how well a few stand for all, not what they say of perturbations outside the bank.

Axes: ``p`` perturbations, ``f`` features of one, ``a`` features known without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import DataError, UsageError

RIDGE = 1.0
"""Penalty on squared coefficients of features in units of their standard deviation."""

_TIE = 1e-9
_ROUNDS = 50


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What the perturbations show of labelled answers.

    Attributes:
        shown: Features of each row under each perturbation, such as flip, margin loss and drift.
        target: What is to be predicted.
        groups: Rows that share a number are never on both sides of a split.
        known: Features known without any perturbation, such as the margin; of width 0 if none.
    """

    shown: Float[np.ndarray, "n p f"]
    target: Bool[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    known: Float[np.ndarray, "n a"]

    def __post_init__(self) -> None:
        rows = {len(self.shown), len(self.target), len(self.groups), len(self.known)}
        if len(rows) > 1 or not self.shown.shape[1]:
            raise DataError(
                f"Labelled rows of lengths {sorted(rows)} under {self.shown.shape[1]} "
                "perturbations; one row each and at least one perturbation are required. Align "
                "them by key first."
            )
        if not (np.isfinite(self.shown).all() and np.isfinite(self.known).all()):
            raise DataError(
                "Labelled rows hold NaN or infinity; finite features are required. Leave out rows "
                "that lack a perturbation."
            )

    def columns(self, chosen: Sequence[int]) -> Float[np.ndarray, "n columns"]:
        """Features known anyway and those of the chosen perturbations."""
        seen = self.shown[:, list(chosen)].reshape(len(self.shown), -1)
        return np.concatenate([self.known, seen], axis=1)

    def where(self, rows: Bool[np.ndarray, " n"]) -> Labelled:
        """Some of the rows."""
        return Labelled(self.shown[rows], self.target[rows], self.groups[rows], self.known[rows])


@dataclass(frozen=True, slots=True)
class Chosen:
    """One perturbation of a budget.

    Attributes:
        perturbation: Its number.
        loss: Cross-validated loss with it and those before it, nats per row.
        gain: By how much it lowers the loss; below 0 it tells nothing.
    """

    perturbation: int
    loss: float
    gain: float


@dataclass(frozen=True, slots=True)
class Budget:
    """Perturbations in the order they were chosen.

    Attributes:
        chosen: At most as many as were asked for. Gains are those of the best of many on the rows
            they were chosen on, and too high; `cross_fitted` measures them on others.
        loss: Cross-validated loss without any, nats per row.
    """

    chosen: tuple[Chosen, ...]
    loss: float

    def useful(self) -> tuple[int, ...]:
        """Perturbations up to the last one that lowered the loss."""
        helpful = [i for i, one in enumerate(self.chosen) if one.gain > 0]
        end = helpful[-1] + 1 if helpful else 0
        return tuple(one.perturbation for one in self.chosen[:end])


def choose_perturbations(
    rows: Labelled, *, k: int, folds: int = 5, seed: int = 0, ridge: float = RIDGE
) -> Budget:
    """Chooses perturbations one by one, each time the one that lowers the loss most.

    Deterministic, and independent of the order of rows up to rounding; of perturbations that do
    equally well the first is taken.

    Args:
        rows: Labelled rows.
        k: How many to choose; all where there are fewer.
        folds: Parts of the groups for cross-validation.
        seed: Of the parts.
        ridge: Penalty of the logistic model.

    Raises:
        UsageError: ``k`` is below 1, ``folds`` below 2, or the penalty not positive.
        DataError: Fewer groups than folds, or a part without which a class is missing.

    Source:
        Ours. Forward selection as in Hastie, Tibshirani and Friedman 2009, section 3.3.
    """
    if k < 1 or folds < 2 or not ridge > 0:
        raise UsageError(
            f"Budget of {k} perturbations with {folds} folds and penalty {ridge}; at least 1, 2 "
            "and a positive penalty are required. Use 3, 5 and 1."
        )
    fold = _folds(rows, folds, seed)
    start = _cross_validated(rows.columns(()), rows.target, fold, ridge)
    chosen: list[Chosen] = []
    left, loss = list(range(rows.shown.shape[1])), start
    while left and len(chosen) < k:
        before = [one.perturbation for one in chosen]
        losses = np.array(
            [_cross_validated(rows.columns([*before, p]), rows.target, fold, ridge) for p in left]
        )
        best = int(np.flatnonzero(losses <= losses.min() + _TIE)[0])
        chosen.append(Chosen(left.pop(best), float(losses[best]), loss - float(losses[best])))
        loss = float(losses[best])
    return Budget(tuple(chosen), start)


@dataclass(frozen=True, slots=True, eq=False)
class CrossFitted:
    """What a budget is worth on rows that did not choose it.

    Attributes:
        chosen: For each part of the groups, the perturbations the other parts chose.
        gains: For each number of chosen perturbations from 1, and last for all perturbations, how
            much lower the loss of each row is than without any, nats; above 0 = they help.
    """

    chosen: tuple[tuple[int, ...], ...]
    gains: Float[np.ndarray, "k_and_one n"]


def cross_fitted(
    rows: Labelled, *, k: int, parts: int = 5, folds: int = 5, seed: int = 0, ridge: float = RIDGE
) -> CrossFitted:
    """Chooses on all parts of the groups but one, measures on that one, part by part.

    Args:
        rows: Labelled rows.
        k: How many to choose.
        parts: Parts of the groups.
        folds: Parts of the others, for cross-validation within the choice.
        seed: Of both.
        ridge: Penalty of the logistic model.

    Raises:
        UsageError: As `choose_perturbations`.
        DataError: As `choose_perturbations`, of the rows outside a part.

    Source:
        Ours: nested cross-validation (Varma and Simon 2006) of the choice.
    """
    part = _folds(rows, parts, seed)
    many = rows.shown.shape[1]
    gains, chosen = np.zeros((min(k, many) + 1, len(rows.target))), []
    for out in range(parts):
        train, test = rows.where(part != out), rows.where(part == out)
        found = choose_perturbations(train, k=k, folds=folds, seed=seed, ridge=ridge)
        order = tuple(one.perturbation for one in found.chosen)
        chosen.append(order)
        losses = [
            _losses(test.columns(u), test.target, _fit(train.columns(u), train.target, ridge))
            for u in ((), *(order[: i + 1] for i in range(len(order))), tuple(range(many)))
        ]
        gains[:, part == out] = losses[0] - np.stack(losses[1:])
    return CrossFitted(tuple(chosen), gains)


def _folds(rows: Labelled, folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """Part of each row; groups stay whole."""
    groups, place = np.unique(rows.groups, return_inverse=True)
    if len(groups) < folds:
        raise DataError(
            f"{len(groups)} groups for {folds} parts of a cross-validation; at least as many "
            "groups are required. Label more answers."
        )
    part = np.random.default_rng(seed).permutation(len(groups)) % folds
    for out in range(folds):
        _require_both(rows.target[part[place] != out], f" outside part {out + 1} of {folds}")
    return np.asarray(part[place])


def _require_both(target: Bool[np.ndarray, " n"], where: str) -> None:
    if target.all() or not target.any():
        raise DataError(
            f"The {len(target)} answers{where} all have the same outcome; both outcomes are "
            "required to predict it. Label more answers."
        )


def _cross_validated(
    x: Float[np.ndarray, "n columns"],
    target: Bool[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
    ridge: float,
) -> float:
    total = 0.0
    for out in np.unique(fold):
        inside, outside = fold != out, fold == out
        fitted = _fit(x[inside], target[inside], ridge)
        total += float(np.sort(_losses(x[outside], target[outside], fitted)).sum())
    return total / len(target)


@dataclass(frozen=True, slots=True, eq=False)
class _Logistic:
    """Intercept and coefficients of features in standard units."""

    mean: Float[np.ndarray, " columns"]
    scale: Float[np.ndarray, " columns"]
    coefficients: Float[np.ndarray, " columns_and_one"]


def _fit(
    x: Float[np.ndarray, "n columns"], target: Bool[np.ndarray, " n"], ridge: float
) -> _Logistic:
    """Ridge-penalised logistic regression by Newton's method with halved steps."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-12 * (1 + np.abs(mean)), scale, np.inf)  # a constant tells nothing
    rows = np.concatenate([np.ones((len(x), 1)), (x - mean) / scale], axis=1)
    penalty = np.full(rows.shape[1], ridge)
    penalty[0] = 0.0
    sign = np.where(target, 1.0, -1.0)

    def objective(weights: np.ndarray) -> float:
        fit = np.logaddexp(0.0, -sign * (rows @ weights)).sum()
        return float(fit + 0.5 * penalty @ weights**2)

    weights = np.zeros(rows.shape[1])
    value = objective(weights)
    for _ in range(_ROUNDS):
        p = 0.5 * (1 + np.tanh(0.5 * (rows @ weights)))
        slope = rows.T @ (p - target) + penalty * weights
        curve = (rows * (p * (1 - p))[:, None]).T @ rows + np.diag(penalty)
        curve[0, 0] += 1e-9
        step = np.linalg.solve(curve, slope)
        length = 1.0
        while objective(weights - length * step) > value and length > 1e-6:
            length /= 2
        weights = weights - length * step
        before, value = value, objective(weights)
        if before - value <= 1e-10 * (1 + abs(value)):
            break
    return _Logistic(mean, scale, weights)


def _losses(
    x: Float[np.ndarray, "n columns"], target: Bool[np.ndarray, " n"], fitted: _Logistic
) -> Float[np.ndarray, " n"]:
    """Negative log-likelihood of each row, in nats."""
    logits = fitted.coefficients[0] + ((x - fitted.mean) / fitted.scale) @ fitted.coefficients[1:]
    return np.logaddexp(0.0, np.where(target, -logits, logits))
