"""Calibrated class probabilities: temperature, vector and Dirichlet scaling.

Each is fitted by the likelihood of the labels of a support set, which no class text has seen, and
its uncertainty is one minus the largest calibrated probability, in [0, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError, MissingExtraError
from sightline.zeroshot.blocks import Block, blocks, gather, rest_of
from sightline.zeroshot.outputs import ClassTexts, Support, check_support
from sightline.zeroshot.protocols import Scored, Traits
from sightline.zeroshot.prototypes import FOLDS, deal_folds
from sightline.zeroshot.scores import tail_probability
from sightline.zeroshot.settings import require_between

DIRICHLET_CLASSES = 200
"""Most classes that Dirichlet scaling is fitted for; its matrix has their square."""
LARGEST_TABLE = 50_000_000
"""Most logits, images times classes, that a fit holds in memory."""
STRENGTHS = (1e-3, 1e-1, 1e1, 1e3)
"""Penalties on Dirichlet scaling that the folds choose among."""

_SHARPEST, _FLATTEST = 1e3, 1e-3


@dataclass(frozen=True, slots=True)
class TemperatureScaling:
    """One minus the largest softmax probability of logits divided by a fitted temperature.

    Source: Guo et al. (2017). The inverse temperature is found by Newton's method on the
    likelihood, which is concave in it, and held in [0.001, 1000].
    """

    traits: ClassVar[Traits] = Traits("Guo et al. 2017", uses_support=True, is_probability=True)

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedTemperature:
        """Returns the temperature of the support images' labels.

        Raises:
            MissingFeatureError: No support set.
            DataError: The support set does not fit the classes.
        """
        return FittedTemperature(inverse_temperature(texts, check_support(texts, support, self)))


@dataclass(frozen=True, slots=True)
class FittedTemperature:
    """A temperature.

    Attributes:
        inverse: What logits are multiplied by.
    """

    inverse: float

    def score(self, block: Block) -> Scored:
        """Probability of all other classes."""
        scale = np.float32(self.inverse)
        rest = rest_of(block.logits * scale, block.label, block.top * scale)
        return Scored(block.label, tail_probability(rest.sum(axis=1).astype(np.float64)))


def inverse_temperature(texts: ClassTexts, support: Support) -> float:
    """Inverse temperature of largest likelihood, in [0.001, 1000]."""
    outputs = support.outputs(texts)
    inverse = 1.0
    for _ in range(50):
        slope = curvature = 0.0
        for rows, block in blocks(outputs):
            p = np.exp((block.logits - block.top[:, None]) * np.float32(inverse))
            total = p.sum(axis=1).astype(np.float64)
            mean = np.einsum("bc,bc->b", p, block.logits) / total
            square = np.einsum("bc,bc,bc->b", p, block.logits, block.logits) / total
            held = block.logits[block.each, support.labels[rows]]
            slope += float(np.sum(mean - held))
            curvature += float(np.sum(np.maximum(square - mean**2, 0.0)))
        step = slope / curvature if curvature > 0 else np.sign(slope) * np.inf
        target = float(np.clip(inverse - step, inverse / 4, inverse * 4))
        target = float(np.clip(target, _FLATTEST, _SHARPEST))
        if abs(target - inverse) <= 1e-6 * inverse:
            break
        inverse = target
    return inverse


@dataclass(frozen=True, slots=True)
class VectorScaling:
    """Softmax of every logit with its own weight and offset; may relabel.

    Attributes:
        strength: Ridge per image that holds the weights near the fitted inverse temperature and the
            offsets near 0, from 0 to 1e9.

    Source: Guo et al. (2017), who have no ridge; with few shots it keeps the fit finite.
    """

    strength: float = 1e-3

    def __post_init__(self) -> None:
        require_between(self, "strength", 0.0, usual=1e-3)

    traits: ClassVar[Traits] = Traits(
        "Guo et al. 2017", uses_support=True, may_relabel=True, is_probability=True, slow=True
    )

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedVectorScaling:
        """Returns weights and offsets.

        Raises:
            MissingFeatureError: No support set.
            DataError: The support set does not fit the classes, or is too large.
            MissingExtraError: scipy is not installed.
        """
        known = check_support(texts, support, self)
        inverse = inverse_temperature(texts, known)
        logits = all_logits(texts, known, self) * inverse
        c = len(texts.classes)

        def loss(at: Float[np.ndarray, " k"]) -> tuple[float, Float[np.ndarray, " k"]]:
            weight, offset = at[:c], at[c:]
            value, error = _cross_entropy(logits * weight + offset, known.labels)
            away = np.concatenate([weight - 1.0, offset])
            gradient = np.concatenate([np.sum(error * logits, axis=0), np.sum(error, axis=0)])
            return value + self.strength / 2 * float(away @ away), gradient + self.strength * away

        found = _minimised(loss, np.concatenate([np.ones(c), np.zeros(c)]))
        return FittedVectorScaling(found[:c] * inverse, found[c:])


@dataclass(frozen=True, slots=True, eq=False)
class FittedVectorScaling:
    """A weight and an offset for each class.

    Attributes:
        weight: What each logit is multiplied by.
        offset: What is added then.
    """

    weight: Float[np.ndarray, " c"]
    offset: Float[np.ndarray, " c"]

    def score(self, block: Block) -> Scored:
        """Largest calibrated probability's class, and the probability of all others."""
        return calibrated(block.logits * self.weight + self.offset)


@dataclass(frozen=True, slots=True)
class DirichletScaling:
    """Softmax of a matrix times the log-probabilities plus offsets; may relabel.

    The penalty on the matrix off its diagonal and on the offsets (ODIR) is chosen from `STRENGTHS`
    by the likelihood on folds of the support set; where nothing can be held out, the largest.

    Source: Kull et al. (2019), Dirichlet calibration with ODIR, both penalties equal; up to 200
    classes.
    """

    traits: ClassVar[Traits] = Traits(
        "Kull et al. 2019", uses_support=True, may_relabel=True, is_probability=True, slow=True
    )

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedDirichlet:
        """Returns matrix and offsets.

        Raises:
            MissingFeatureError: No support set.
            DataError: More than 200 classes, or the support set does not fit them.
            MissingExtraError: scipy is not installed.
        """
        known = check_support(texts, support, self)
        if len(texts.classes) > DIRICHLET_CLASSES:
            raise DataError(
                f"Dirichlet scaling of {len(texts.classes)} classes; at most {DIRICHLET_CLASSES} "
                "are supported, since its matrix has their square. Use vector scaling."
            )
        logits, labels = all_logits(texts, known, self), known.labels
        logs = logits - logits.max(axis=1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
        start = inverse_temperature(texts, known)
        fold = deal_folds(labels, FOLDS, rng)
        strength = STRENGTHS[-1]
        if fold.max() >= 0:
            held_out = [_held_out_loss(logs, labels, fold, start, s) for s in STRENGTHS]
            strength = STRENGTHS[int(np.argmin(held_out))]
        return _dirichlet(logs, labels, start, strength)


@dataclass(frozen=True, slots=True, eq=False)
class FittedDirichlet:
    """A matrix over log-probabilities.

    Attributes:
        matrix: Row of each class.
        offset: What is added.
    """

    matrix: Float[np.ndarray, "c c"]
    offset: Float[np.ndarray, " c"]

    def score(self, block: Block) -> Scored:
        """Largest calibrated probability's class, and the probability of all others."""
        logs = block.logits - (block.top + np.log1p(block.tail)).astype(np.float32)[:, None]
        return calibrated(logs @ self.matrix.T + self.offset)


def calibrated(logits: Float[np.ndarray, "b c"]) -> Scored:
    """Most probable class of calibrated logits, and the probability of all others."""
    label = logits.argmax(axis=1)
    rest = rest_of(logits, label, logits[np.arange(len(label)), label])
    return Scored(label, tail_probability(rest.sum(axis=1).astype(np.float64)))


def all_logits(texts: ClassTexts, support: Support, who: object) -> Float[np.ndarray, "s c"]:
    """Logits of every support image, float64.

    Raises:
        DataError: They do not fit in memory.
    """
    if len(support) * len(texts.classes) > LARGEST_TABLE:
        raise DataError(
            f"{type(who).__name__} of {len(support)} support images and {len(texts.classes)} "
            f"classes; at most {LARGEST_TABLE:,} logits fit in memory. Use fewer shots, or "
            "temperature scaling."
        )
    return gather(support.outputs(texts), lambda block: block.logits.astype(np.float64))


def _held_out_loss(
    logs: Float[np.ndarray, "s c"],
    labels: Int[np.ndarray, " s"],
    fold: Int[np.ndarray, " s"],
    start: float,
    strength: float,
) -> float:
    total = 0.0
    for held in range(fold.max() + 1):
        inside = fold == held
        fitted = _dirichlet(logs[~inside], labels[~inside], start, strength)
        value, _ = _cross_entropy(logs[inside] @ fitted.matrix.T + fitted.offset, labels[inside])
        total += value * int(inside.sum())
    return total


def _dirichlet(
    logs: Float[np.ndarray, "s c"], labels: Int[np.ndarray, " s"], start: float, strength: float
) -> FittedDirichlet:
    c = logs.shape[1]
    off = ~np.eye(c, dtype=bool)

    def loss(at: Float[np.ndarray, " k"]) -> tuple[float, Float[np.ndarray, " k"]]:
        matrix, offset = at[: c * c].reshape(c, c), at[c * c :]
        value, error = _cross_entropy(logs @ matrix.T + offset, labels)
        value += strength * (
            float(np.sum((matrix * off) ** 2)) / (c * (c - 1)) + float(offset @ offset) / c
        )
        by_matrix = error.T @ logs + 2 * strength / (c * (c - 1)) * (matrix * off)
        by_offset = error.sum(axis=0) + 2 * strength / c * offset
        return value, np.concatenate([by_matrix.ravel(), by_offset])

    found = _minimised(loss, np.concatenate([(start * np.eye(c)).ravel(), np.zeros(c)]))
    return FittedDirichlet(
        found[: c * c].reshape(c, c).astype(np.float32), found[c * c :].astype(np.float32)
    )


def _cross_entropy(
    logits: Float[np.ndarray, "s c"], labels: Int[np.ndarray, " s"]
) -> tuple[float, Float[np.ndarray, "s c"]]:
    """Mean minus log-likelihood in nats, and its gradient by the logits."""
    each = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    held = shifted[each, labels].copy()
    np.exp(shifted, out=shifted)
    total = shifted.sum(axis=1)
    shifted /= total[:, None]
    shifted[each, labels] -= 1.0
    return float(np.mean(np.log(total) - held)), shifted / len(labels)


def _minimised(
    loss: Callable[[Float[np.ndarray, " k"]], tuple[float, Float[np.ndarray, " k"]]],
    start: Float[np.ndarray, " k"],
) -> Float[np.ndarray, " k"]:
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise MissingExtraError("scipy", "learn", "fitting this calibration") from error
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x)
