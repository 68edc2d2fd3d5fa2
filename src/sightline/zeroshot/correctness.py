"""Scores fitted on whether the classifier is right on the support images, higher = worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import DataError, MissingExtraError, MissingFeatureError
from sightline.zeroshot.blocks import Block, gather, rest_of
from sightline.zeroshot.calibrating import all_logits, inverse_temperature
from sightline.zeroshot.outputs import ClassTexts, Encoder, Support, check_support
from sightline.zeroshot.protocols import Scored, Traits
from sightline.zeroshot.prototypes import (
    FOLDS,
    class_prototypes,
    deal_folds,
    query_vectors,
)
from sightline.zeroshot.scores import tail_probability

_TOP = 4  # classes whose probabilities the calibrator sees, of each version of an image
_HIDDEN = 32
_STEPS = 300
_RATE = 5e-3
_DECAY = 1e-3


@dataclass(frozen=True, slots=True)
class LogisticStack:
    """Logistic regression of being wrong on the classifier's signals and on the prototypes.

    The signals: log-odds against the predicted class, entropy of the distribution, cosine to the
    class text, cosine to the predicted class's prototype, and what that cosine lacks to the best
    other prototype. It is fitted on support images against prototypes of the other folds.

    Attributes:
        encoder: Whose image vectors the prototypes average: own or aux.

    Source: stacking (Wolpert 1992).
    """

    encoder: Encoder = "own"

    @property
    def traits(self) -> Traits:
        """Uses the support set."""
        return Traits(
            "Wolpert 1992",
            uses_support=True,
            uses_aux=self.encoder == "aux",
            is_probability=True,
        )

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedStack:
        """Returns the weights, with prototypes of all support images.

        Raises:
            MissingFeatureError: No support set, or one without auxiliary vectors.
            DataError: The support set does not fit the classes, no class has two images, or the
                classifier is right, or wrong, on all of them.
        """
        known = check_support(texts, support, self)
        vectors = known.of(self.encoder, self)
        fold = deal_folds(known.labels, FOLDS, rng)
        if fold.max() < 0:
            raise DataError(
                "No class has two support images; the stack learns on images that its prototypes "
                "have not seen. Use at least 2 shots."
            )
        features, right = [], []
        for held in range(fold.max() + 1):
            out, kept = np.flatnonzero(fold == held), fold != held
            signals = _signals(self.encoder, vectors[kept], known.labels[kept])
            rows = known.take(out)
            found = gather(rows.outputs(texts), signals.with_label)
            features.append(found[:, :-1])
            right.append(found[:, -1] == rows.labels)
        table, wrong = np.concatenate(features), ~np.concatenate(right)
        _require_both(wrong, self)
        centre, spread = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-12)
        weights = _logistic((table - centre) / spread, wrong.astype(np.float64))
        signals = _signals(self.encoder, vectors, known.labels)
        return FittedStack(signals, centre, spread, weights)


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What the stack weighs.

    Attributes:
        encoder: own or aux.
        prototypes: Unit vector of each class.
    """

    encoder: Encoder
    prototypes: Float[np.ndarray, "c w"]

    def of(self, block: Block) -> Float[np.ndarray, "b 5"]:
        """Log-odds, entropy, the two cosines, and what the second lacks to the best other."""
        gaps = np.einsum("bc,bc->b", block.rest, block.logits).astype(np.float64)
        spread = np.log1p(block.tail) - (gaps - block.top * block.tail) / (1.0 + block.tail)
        vectors = query_vectors(block, self.encoder, self.prototypes.shape[1], self)
        cosines = block.product(vectors, self.prototypes)
        held = cosines[block.each, block.label]
        others = cosines.copy()
        others[block.each, block.label] = -2.0
        lacking = others.max(axis=1) - held
        odds = np.log(np.maximum(block.tail, 1e-30))
        text = (block.top - block.texts.logit_bias) / block.texts.logit_scale
        return np.column_stack([odds, spread, text, held, lacking]).astype(np.float64)

    def with_label(self, block: Block) -> Float[np.ndarray, "b 6"]:
        """The same and the predicted class."""
        return np.column_stack([self.of(block), block.label])


def _signals(
    encoder: Encoder, vectors: Float[np.ndarray, "s w"], labels: Int[np.ndarray, " s"]
) -> Signals:
    """Signals with the mean of each class as its prototype."""
    return Signals(encoder, class_prototypes(vectors, labels).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class FittedStack:
    """Weights of standardised signals.

    Attributes:
        signals: Prototypes, and how signals are read.
        centre: Mean of each signal on the support images.
        spread: Its standard deviation.
        weights: Weight of each, and last the intercept.
    """

    signals: Signals
    centre: Float[np.ndarray, " k"]
    spread: Float[np.ndarray, " k"]
    weights: Float[np.ndarray, " k1"]

    def score(self, block: Block) -> Scored:
        """Probability of being wrong, in (0, 1)."""
        table = (self.signals.of(block) - self.centre) / self.spread
        logits = (table * self.weights[:-1]).sum(axis=1) + self.weights[-1]
        return Scored(block.label, 0.5 + 0.5 * np.tanh(0.5 * logits))


def _logistic(
    features: Float[np.ndarray, "n k"], targets: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " k1"]:
    """Weights and, last, intercept, by Newton steps; unit ridge on the weights."""
    design = np.column_stack([features, np.ones(len(features))])
    ridge = np.ones(design.shape[1])
    ridge[-1] = 0.0

    def loss(at: Float[np.ndarray, " k1"]) -> float:
        logits = design @ at
        return float(np.sum(np.logaddexp(0.0, logits) - targets * logits) + ridge @ at**2 / 2)

    weights = np.zeros(design.shape[1])
    previous, current = np.inf, loss(weights)
    while previous - current > 1e-9 * len(targets):
        p = 0.5 + 0.5 * np.tanh(0.5 * (design @ weights))
        gradient = design.T @ (p - targets) + ridge * weights
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while loss(weights - size * step) > current and size > 1e-8:
            size /= 2
        weights = weights - size * step
        previous, current = current, loss(weights)
    return weights


@dataclass(frozen=True, slots=True)
class CorrectnessAware:
    """One minus the largest softmax probability at a temperature chosen for every image.

    A small network reads the probabilities that the image and its transformed views give to the
    image's four most probable classes, and gives the temperature. It is trained on the squared
    difference of that probability and correctness, so it learns to doubt wrong predictions rather
    than to raise the true class. The label stays.

    Source: Liu et al. (arXiv 2404.13016): correctness-aware loss, transformed images, temperature
    by image. Number of classes seen (4), width (32), steps (300 of Adam on all images, rate 0.005,
    decay 0.001) and the start at the fitted common temperature are our choices.
    """

    traits: ClassVar[Traits] = Traits(
        "Liu et al. 2024", uses_support=True, uses_views=True, is_probability=True, slow=True
    )

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedCorrectnessAware:
        """Trains the network on the support images.

        Raises:
            MissingFeatureError: No support set, or one without views.
            DataError: The support set does not fit the classes, is too large, or the classifier is
                right, or wrong, on all of it.
            MissingExtraError: torch is not installed.
        """
        known = check_support(texts, support, self)
        if known.views is None:
            raise MissingFeatureError(
                "The support set shows no transformed views; correctness-aware calibration learns "
                "from them. Collect with views, or use temperature scaling."
            )
        logits = all_logits(texts, known, self)
        features = gather(known.outputs(texts), view_probabilities)
        right = logits.argmax(axis=1) == known.labels
        _require_both(~right, self)
        return _trained(features, logits, right, inverse_temperature(texts, known), rng)


@dataclass(frozen=True, slots=True, eq=False)
class FittedCorrectnessAware:
    """The trained network.

    Attributes:
        inverse: Common inverse temperature it starts from.
        hidden: Weights of the first layer, its last column the offsets.
        out: Weights of the second layer, the last one the offset.
    """

    inverse: float
    hidden: Float[np.ndarray, "h k1"]
    out: Float[np.ndarray, " h1"]

    def score(self, block: Block) -> Scored:
        """Probability of all other classes at each image's own temperature.

        Raises:
            MissingFeatureError: The outputs show no views.
            DataError: They show another number of views than the support set.
        """
        features = view_probabilities(block)
        if features.shape[1] + 1 != self.hidden.shape[1]:
            raise DataError(
                f"Outputs with {len(block.view_logits)} views for a calibration of "
                f"{(self.hidden.shape[1] - 1) * len(block.view_logits) // features.shape[1]}; the "
                "same views as of the support images are required. Collect both alike."
            )
        active = np.maximum(features @ self.hidden[:, :-1].T + self.hidden[:, -1], 0.0)
        change = (active * self.out[:-1]).sum(axis=1) + self.out[-1]
        scale = (self.inverse * np.exp(change)).astype(np.float32)
        rest = rest_of(block.logits * scale[:, None], block.label, block.top * scale)
        return Scored(block.label, tail_probability(rest.sum(axis=1).astype(np.float64)))


def view_probabilities(block: Block) -> Float[np.ndarray, "b k"]:
    """What the image and each view give to the image's most probable classes, in that order."""
    count = min(_TOP, block.logits.shape[1])
    top = np.argpartition(-block.logits, count - 1, axis=1)[:, :count]
    held = np.take_along_axis(block.logits, top, axis=1)
    # Classes of equal logits come by their number.
    order = np.lexsort((top, -held), axis=1)
    top = np.take_along_axis(top, order, axis=1)
    parts = []
    for logits in (block.logits, *block.view_logits):
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        parts.append(np.take_along_axis(p, top, axis=1) / p.sum(axis=1, keepdims=True))
    return np.concatenate(parts, axis=1)


def _trained(
    features: Float[np.ndarray, "s k"],
    logits: Float[np.ndarray, "s c"],
    right: Bool[np.ndarray, " s"],
    inverse: float,
    rng: np.random.Generator,
) -> FittedCorrectnessAware:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "models", "correctness-aware calibration") from error
    inputs = torch.from_numpy(np.column_stack([features, np.ones(len(features), np.float32)]))
    gaps = torch.from_numpy((logits - logits.max(axis=1, keepdims=True)).astype(np.float32))
    target = torch.from_numpy(right.astype(np.float32))
    width = inputs.shape[1]
    start = rng.normal(size=(_HIDDEN, width)) / np.sqrt(width)
    hidden = torch.nn.Parameter(torch.from_numpy(start.astype(np.float32)))
    out = torch.nn.Parameter(torch.zeros(_HIDDEN + 1))
    optimiser = torch.optim.AdamW([hidden, out], lr=_RATE, weight_decay=_DECAY)
    for _ in range(_STEPS):
        change = torch.relu(inputs @ hidden.T) @ out[:-1] + out[-1]
        scaled = gaps * (inverse * torch.exp(change))[:, None]
        confidence = 1.0 / torch.exp(scaled).sum(dim=1)
        loss = ((confidence - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return FittedCorrectnessAware(inverse, hidden.detach().numpy(), out.detach().numpy())


def _require_both(wrong: Bool[np.ndarray, " s"], who: object) -> None:
    if wrong.all() or not wrong.any():
        raise DataError(
            f"The classifier is {'wrong' if wrong.all() else 'right'} on all {len(wrong)} support "
            f"images that {type(who).__name__} learns on; right and wrong ones are required. Use "
            "more or harder images."
        )
