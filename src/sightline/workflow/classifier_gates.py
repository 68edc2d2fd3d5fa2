"""Whether the embedded classifiers and the image encoder are fit for the studies on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image

from sightline.data.objects import (
    CLASSES,
    DIGIT_CLASSES,
    SHAPE_CLASSES,
    TEMPLATES,
    UNSEEN_CLASSES,
    ObjectSet,
    draw_objects,
    generate_objects,
)
from sightline.workflow.gates import Gate

if TYPE_CHECKING:
    from sightline.core.protocols import ImageTextModel

_SHOTS = 16


@dataclass(frozen=True, slots=True)
class ClassifierFigures:
    """Top-1 accuracies of a zero-shot classifier, always among all classes but for the digits.

    Attributes:
        n: Pictures of the test split.
        classes: Number of classes.
        top1: Seen classes of the test split.
        unseen: Combinations of shape and colour that no training picture showed.
        digits: Held-out handwritten digits, among the ten.
        shifted: Seen classes on other backgrounds and textures.
    """

    n: int
    classes: int
    top1: float
    unseen: float
    digits: float
    shifted: float


def measure_classifier(model: ImageTextModel, *, n: int = 2500, seed: int = 0) -> ClassifierFigures:
    """Classifies generated pictures with the first prompt template."""
    texts = model.text_vectors([TEMPLATES[0].format(name) for name in CLASSES])

    def top1(batch: ObjectSet, first: int = 0) -> float:
        logits = model.scale * (model.image_vectors(_images(batch)) @ texts.T)
        return float((logits[:, first:].argmax(axis=1) + first == batch.labels).mean())

    return ClassifierFigures(
        n=n,
        classes=len(CLASSES),
        top1=top1(generate_objects("test", n, seed)),
        unseen=top1(generate_objects("test", max(n // 3, 100), seed + 1, classes=UNSEEN_CLASSES)),
        digits=top1(
            generate_objects("test", max(n // 4, 500), seed + 2, classes=DIGIT_CLASSES),
            first=len(SHAPE_CLASSES),
        ),
        shifted=top1(generate_objects("shifted", max(n // 2, 100), seed + 3)),
    )


def prototype_accuracy(
    vectors: Callable[[Sequence[Image.Image]], Float[np.ndarray, "n d"]],
    *,
    n: int = 2500,
    seed: int = 0,
) -> float:
    """Accuracy of the nearest of the seen classes' prototypes, 16 training pictures each."""
    seen = np.asarray([i for i, name in enumerate(CLASSES) if name not in UNSEEN_CLASSES])
    shots = draw_objects("train", np.repeat(seen, _SHOTS), np.random.default_rng([seed, 16]))
    support = _unit(vectors(_images(shots))).reshape(len(seen), _SHOTS, -1)
    prototypes = _unit(support.mean(axis=1))
    batch = generate_objects("test", n, seed)
    guess = (_unit(vectors(_images(batch))) @ prototypes.T).argmax(axis=1)
    return float((seen[guess] == batch.labels).mean())


def classifier_gates(figures: ClassifierFigures) -> tuple[Gate, ...]:
    """What a classifier must show."""
    return (
        Gate(
            f"top-1 among {figures.classes} classes on test",
            "between 0.55 and 0.85",
            f"{figures.top1:.3f}",
            0.55 <= figures.top1 <= 0.85,
        ),
        Gate(
            "unseen combinations", "at least 0.40", f"{figures.unseen:.3f}", figures.unseen >= 0.40
        ),
        Gate(
            "digits among the ten", "at least 0.60", f"{figures.digits:.3f}", figures.digits >= 0.6
        ),
    )


def encoder_gate(prototypes: float, classifier: ClassifierFigures) -> Gate:
    """Whether the image encoder knows more than the classifier it stands beside."""
    return Gate(
        "nearest prototype with 16 shots",
        f"above the classifier's top-1 of {classifier.top1:.3f}",
        f"{prototypes:.3f}",
        prototypes > classifier.top1,
    )


def _images(batch: ObjectSet) -> Sequence[Image.Image]:
    return [Image.fromarray(pixels) for pixels in batch.images]


def _unit(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    unit: Float[np.ndarray, "*n d"] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
