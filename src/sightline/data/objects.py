"""One object a picture, with its class: what the zero-shot classifiers are trained and tested on.

The classes are every size, colour and shape together, and the ten handwritten digits. No training
picture shows the unseen combinations, so that composing a class from its words can be tested.

Example:
    >>> batch = generate_objects("test", 3, seed=1)
    >>> batch.images.shape, len(CLASSES)
    ((3, 48, 48, 3), 90)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from sightline.core.errors import UsageError
from sightline.data.question_writers import COLOR_NAMES
from sightline.data.questions import UNSEEN
from sightline.data.rendering import (
    CELLS,
    DIGIT,
    EMPTY,
    SHAPES,
    SIZES,
    Scenes,
    handwritten_digits,
    render,
)
from sightline.data.scenes import SPLITS

SHAPE_CLASSES = tuple(
    f"{size} {color} {shape}" for shape in SHAPES for color in COLOR_NAMES for size in SIZES
)
DIGIT_CLASSES = tuple(f"digit {digit}" for digit in range(10))
CLASSES = (*SHAPE_CLASSES, *DIGIT_CLASSES)
UNSEEN_CLASSES = tuple(f"{size} {color} {shape}" for shape, color in UNSEEN for size in SIZES)
TEMPLATES = ("a picture of a {}", "a {}", "there is a {} in the picture", "{}")


@dataclass(frozen=True, slots=True)
class ObjectSet:
    """Pictures with one object each.

    Attributes:
        images: RGB pictures.
        labels: Index into `CLASSES`.
        difficulty: Severity of each picture, 0 to 1.
    """

    images: UInt8[np.ndarray, "n 48 48 3"]
    labels: Int[np.ndarray, " n"]
    difficulty: np.ndarray


def draw_objects(
    split: str,
    labels: Int[np.ndarray, " n"],
    rng: np.random.Generator,
    *,
    hardest: float = 1.0,
) -> ObjectSet:
    """Draws one picture for each label.

    Args:
        split: One of `SPLITS`; decides the handwriting and the backgrounds.
        labels: Index into `CLASSES` for each picture.
        rng: Source of all other choices.
        hardest: Largest difficulty; difficulties are uniform below it.

    Raises:
        UsageError: An unknown split.
    """
    if split not in SPLITS:
        raise UsageError(
            f"Scene split is {split!r}; one of {', '.join(SPLITS)} is required. Choose one of them."
        )
    law = SPLITS[split]
    n = len(labels)
    difficulty = rng.uniform(0, hardest, n)
    cell = rng.integers(0, CELLS, n)
    rows = np.arange(n)
    is_digit = labels >= len(SHAPE_CLASSES)
    shape_label = np.where(is_digit, 0, labels)
    size = np.where(is_digit, 1, shape_label % 2)
    named_color = shape_label // 2 % len(COLOR_NAMES)
    color = np.where(is_digit, rng.integers(0, len(COLOR_NAMES), n), named_color)
    kind = np.where(is_digit, DIGIT, shape_label // (2 * len(COLOR_NAMES)))
    digit = np.where(is_digit, labels - len(SHAPE_CLASSES), -1)
    _, written, partition = handwritten_digits()
    glyph = np.full(n, -1)
    for value in range(10):
        wanted = digit == value
        pool = np.flatnonzero((written == value) & (partition == law.partition))
        glyph[wanted] = rng.choice(pool, int(wanted.sum()))
    mixing = rng.uniform(0, 0.55, n) * difficulty * (rng.random(n) < 0.6)
    occluded = rng.random(n) < 0.45 * difficulty

    def placed(values: np.ndarray, empty: float) -> np.ndarray:
        grid = np.full((n, CELLS), empty, dtype=np.asarray(values).dtype)
        grid[rows, cell] = values
        return grid

    scenes = Scenes(
        kind=placed(kind, EMPTY),
        color=placed(color, 0),
        size=placed(size, 0),
        digit=placed(digit, -1),
        glyph=placed(glyph, -1),
        mixing=placed(mixing, 0.0),
        occluded=placed(occluded, False),
        word=np.full(n, -1),
        word_row=np.zeros(n, dtype=np.int64),
        difficulty=difficulty,
    )
    return ObjectSet(render(scenes, rng, shifted=law.shifted), labels, difficulty)


def generate_objects(
    split: str, n: int, seed: int = 0, *, classes: Sequence[str] | None = None
) -> ObjectSet:
    """Draws pictures of classes drawn at random.

    Args:
        split: One of `SPLITS`.
        n: Number of pictures.
        seed: The same seed gives the same pixels.
        classes: Classes to draw from; by default all but the unseen ones.

    Raises:
        UsageError: An unknown split or class.
    """
    chosen = [name for name in CLASSES if name not in UNSEEN_CLASSES]
    if classes is not None:
        chosen = list(classes)
    unknown = [name for name in chosen if name not in CLASSES]
    if unknown or n < 1:
        raise UsageError(
            f"{n} pictures of classes like {(unknown or chosen)[0]!r} were asked for; at least 1 "
            "picture of classes named in sightline.data.objects.CLASSES is required. Correct it."
        )
    number = SPLITS[split].number if split in SPLITS else 0
    rng = np.random.default_rng([77, number, seed])
    indices = np.asarray([CLASSES.index(name) for name in chosen])
    return draw_objects(split, rng.choice(indices, n), rng)
