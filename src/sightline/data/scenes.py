"""Generated pictures with questions, in splits that each test one thing.

Everything is drawn from a seed: the same call gives the same pixels and the same questions. The
handwritten digits of the training splits, of calibration and of the test splits are different
images.

Example:
    >>> batch = generate("test", 2, seed=7, questions_per_image=3)
    >>> batch.images.shape, len(batch.items) <= 6
    ((2, 48, 48, 3), True)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from sightline.core.errors import UsageError
from sightline.core.types import Example, ImageRef
from sightline.data.question_writers import COLOR_NAMES
from sightline.data.questions import (
    QUESTION_TYPES,
    RARE,
    UNSEEN,
    USUAL_COLOR,
    Item,
    ask,
    pictures,
)
from sightline.data.rendering import (
    CELLS,
    COLUMNS,
    DIGIT,
    EMPTY,
    ROWS,
    SHAPES,
    WORDS,
    Scenes,
    handwritten_digits,
    render,
)

_SHAPE_COUNTS = (0.15, 0.3, 0.3, 0.25)  # probability of 1, 2, 3, 4 shapes
_WORD_SHARE = 0.1
BATCH = 128  # pictures drawn together by demo_examples, so that fewer questions are a prefix
BENCHMARK_TYPES = (
    "color",
    "shape",
    "count",
    "position",
    "digit",
    "existence",
    "comparison",
    "multiple_choice",
    "description",
)


@dataclass(frozen=True, slots=True)
class Split:
    """How a split's pictures and questions are drawn.

    Attributes:
        number: Keeps the random streams of the splits apart.
        partition: Which handwritten digits: 0 training, 1 calibration, 2 test.
        prior: Probability that a shape takes its usual colour.
        yes_share: How often the truth of a yes-or-no question is yes.
        rare: Weight of the rare shape-colour combinations; 1 is as common as any other.
        unseen: Weight of the combinations that no other split contains.
        shifted: Checked backgrounds and striped objects.
        hardness: First parameter of the Beta(·, 1) law of the difficulty.
    """

    number: int
    partition: int
    prior: float = 0.0
    yes_share: float = 0.5
    rare: float = 1.0
    unseen: float = 0.0
    shifted: bool = False
    hardness: float = 1.5


SPLITS: Mapping[str, Split] = MappingProxyType(
    {
        "train": Split(1, partition=0, rare=0.1, hardness=1.0),
        "train-prior": Split(2, partition=0, prior=0.85, yes_share=0.8, rare=0.1, hardness=1.0),
        "calibration": Split(3, partition=1, prior=0.25, yes_share=0.55),
        "test": Split(4, partition=2, prior=0.25, yes_share=0.55),
        "prior-removed": Split(5, partition=2),
        "rare": Split(6, partition=2, rare=12.0),
        "unseen": Split(7, partition=2, unseen=12.0),
        "shifted": Split(8, partition=2, prior=0.25, yes_share=0.55, shifted=True),
    }
)


@dataclass(frozen=True, slots=True)
class SceneSet:
    """A batch of pictures and the questions about them.

    Attributes:
        images: RGB pictures.
        scenes: What is in them.
        items: Questions in picture order.
    """

    images: UInt8[np.ndarray, "n 48 48 3"]
    scenes: Scenes
    items: tuple[Item, ...]


def weighted_types(text: str) -> tuple[str, ...]:
    """Reads ``TYPE,TYPE*WEIGHT,…`` as question types, each as often as its weight says.

    Raises:
        UsageError: An unknown type, none at all, or a weight that is none.

    Example:
        >>> weighted_types("color,multiple_choice*3")
        ('color', 'multiple_choice', 'multiple_choice', 'multiple_choice')
    """
    found: list[str] = []
    for part in text.split(","):
        name, star, weight = part.strip().partition("*")
        times = int(weight) if weight.isdecimal() and len(weight) <= 2 else 0
        if name not in QUESTION_TYPES or (star and not times):
            raise UsageError(
                f"Question type is {part.strip()[:40]!r}; one of {', '.join(QUESTION_TYPES)} is "
                "required, after it * and a weight of 1 to 99 where it has one. Write for example "
                "color,multiple_choice*3."
            )
        found += [name] * (times or 1)
    return tuple(found)


def _split(name: str) -> Split:
    if name not in SPLITS:
        raise UsageError(
            f"Scene split is {name!r}; one of {', '.join(SPLITS)} is required. Choose one of them."
        )
    return SPLITS[name]


def _color_law(split: Split) -> Float[np.ndarray, "kinds colors"]:
    """Probability of each colour for each kind of object."""
    law = np.ones((len(SHAPES) + 1, len(COLOR_NAMES)))
    for pairs, weight in ((RARE, split.rare), (UNSEEN, split.unseen)):
        for shape, color in pairs:
            law[SHAPES.index(shape), COLOR_NAMES.index(color)] = weight
    law /= law.sum(axis=1, keepdims=True)
    for shape, color in USUAL_COLOR.items():
        row = law[SHAPES.index(shape)]
        row *= 1 - split.prior
        row[COLOR_NAMES.index(color)] += split.prior
    return law


def draw_scenes(
    split: str,
    n: int,
    rng: np.random.Generator,
    *,
    difficulty: Float[np.ndarray, " n"] | None = None,
) -> Scenes:
    """Draws what is in the pictures, all at once.

    Args:
        split: One of `SPLITS`.
        n: Number of pictures.
        rng: Source of all choices.
        difficulty: Severity of each picture, 0 to 1, in place of the split's own law.
    """
    law = _split(split)
    if difficulty is None:
        difficulty = rng.beta(law.hardness, 1.0, n)
    word = np.where(rng.random(n) < _WORD_SHARE, rng.integers(0, len(WORDS), n), -1)
    word_row = np.where(word >= 0, rng.integers(0, len(ROWS), n), 0)
    shapes = rng.choice(np.arange(1, 5), size=n, p=_SHAPE_COUNTS)
    with_digit = rng.random(n) < 0.5
    order = rng.random((n, CELLS))
    hidden = (word >= 0)[:, None] & (np.arange(CELLS) // len(COLUMNS) == word_row[:, None])
    rank = np.argsort(np.argsort(order + 2.0 * hidden, axis=1), axis=1)
    kind = np.where(rank < shapes[:, None], rng.integers(0, len(SHAPES), (n, CELLS)), EMPTY)
    kind = np.where(with_digit[:, None] & (rank == shapes[:, None]), DIGIT, kind)
    there = kind != EMPTY
    cumulative = np.cumsum(_color_law(law), axis=1)
    color = (rng.random((n, CELLS))[..., None] > cumulative[np.maximum(kind, 0)]).sum(axis=-1)
    color = np.where(there, np.minimum(color, len(COLOR_NAMES) - 1), 0)
    size = np.where(kind == DIGIT, 1, rng.integers(0, 2, (n, CELLS))) * there
    _, labels, partition = handwritten_digits()
    glyph = rng.choice(np.flatnonzero(partition == law.partition), (n, CELLS))
    glyph = np.where(kind == DIGIT, glyph, -1)
    severity = difficulty[:, None]
    mixing = rng.uniform(0, 0.55, (n, CELLS)) * severity * (rng.random((n, CELLS)) < 0.6)
    occluded = there & (rng.random((n, CELLS)) < 0.45 * severity)
    return Scenes(
        kind=kind,
        color=color,
        size=size,
        digit=np.where(kind == DIGIT, labels[glyph], -1),
        glyph=glyph,
        mixing=mixing * there,
        occluded=occluded,
        word=word,
        word_row=word_row,
        difficulty=difficulty,
    )


def generate(
    split: str,
    n_images: int,
    seed: int = 0,
    questions_per_image: int = 1,
    *,
    types: Sequence[str] = BENCHMARK_TYPES,
) -> SceneSet:
    """Draws pictures and asks questions about each.

    Args:
        split: One of `SPLITS`.
        n_images: Number of pictures.
        seed: The same seed gives the same pixels and questions.
        questions_per_image: Questions asked about each picture, of different types where possible;
            fewer where a picture allows fewer.
        types: Question types to draw from; one that stands there more often is drawn more often.

    Raises:
        UsageError: An unknown split or question type, or a count below 1.
    """
    law = _split(split)
    unknown = [name for name in types if name not in QUESTION_TYPES]
    if unknown or not types:
        raise UsageError(
            f"Question types are {list(types)!r}; at least one of {', '.join(QUESTION_TYPES)} is "
            "required. Correct the list."
        )
    if n_images < 1 or questions_per_image < 1:
        raise UsageError(
            f"{n_images} images with {questions_per_image} questions each were asked for; at least "
            "1 of both is required. Raise the count."
        )
    rng = np.random.default_rng([law.number, seed])
    scenes = draw_scenes(split, n_images, rng)
    images = render(scenes, rng, shifted=law.shifted)
    random = Random(int(rng.integers(0, 2**62)))  # noqa: S311
    items: list[Item] = []
    for picture in pictures(scenes):
        asked: set[str] = set()
        order = random.sample(list(types), len(types))
        for question_type in order * 3:
            if len(asked) == questions_per_image:
                break
            item = ask(picture, question_type, random, yes_share=law.yes_share)
            if item is not None and item.question not in asked:
                asked.add(item.question)
                items.append(item)
    return SceneSet(images=images, scenes=scenes, items=tuple(items))


def _batch_seed(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def demo_scenes(split: str, seed: int, number: int) -> Scenes:
    """What is in the pictures of one batch of `demo_examples`, without drawing them.

    Args:
        split: One of `SPLITS`.
        seed: The seed of the examples.
        number: Which batch; part of the examples' group.
    """
    rng = np.random.default_rng([_split(split).number, _batch_seed(seed, number)])
    return draw_scenes(split, BATCH, rng)


def png_bytes(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encodes a picture as PNG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def demo_examples(
    split: str,
    n_questions: int,
    seed: int = 0,
    images_dir: str | Path = "scenes",
    *,
    questions_per_image: int = 3,
    types: Sequence[str] = BENCHMARK_TYPES,
) -> list[Example]:
    """Writes the pictures as PNG files and returns exactly ``n_questions`` examples about them.

    Questions on one picture share a group. Difficulty, causes, answer form and the type of a
    multiple-choice item's content are in each example's ``meta``.

    Args:
        split: One of `SPLITS`.
        n_questions: Number of examples.
        seed: The same seed gives the same files and examples.
        images_dir: Directory for the pictures; created if missing.
        questions_per_image: At most this many questions about one picture.
        types: As for `generate`.

    Raises:
        UsageError: An unknown split or question type, or a count below 1.
    """
    if n_questions < 1:
        raise UsageError(
            f"{n_questions} questions were asked for; at least 1 is required. Raise the count."
        )
    folder = Path(images_dir)
    folder.mkdir(parents=True, exist_ok=True)
    examples: list[Example] = []
    batch_number = 0
    while len(examples) < n_questions:
        missing = n_questions - len(examples)
        batch = generate(
            split,
            BATCH,
            _batch_seed(seed, batch_number),
            questions_per_image,
            types=types,
        )
        refs: dict[int, ImageRef] = {}
        counts: dict[int, int] = {}
        for item in batch.items[:missing]:
            group = f"{split}-{seed}-{batch_number:03d}-{item.picture:04d}"
            if item.picture not in refs:
                content = png_bytes(batch.images[item.picture])
                path = folder / f"{group}.png"
                path.write_bytes(content)
                refs[item.picture] = ImageRef(str(path), hashlib.sha256(content).hexdigest())
            number = counts.get(item.picture, 0)
            counts[item.picture] = number + 1
            examples.append(
                Example(
                    id=f"{group}-{number}",
                    question=item.question,
                    images=(refs[item.picture],),
                    choices=item.choices,
                    references=item.references,
                    group=group,
                    question_type=item.question_type,
                    meta=MappingProxyType(
                        {
                            "difficulty": item.difficulty,
                            "causes": ",".join(item.causes),
                            "answer_form": item.answer_form,
                            "about": item.about,
                            "split": split,
                        }
                    ),
                )
            )
        batch_number += 1
    return examples
