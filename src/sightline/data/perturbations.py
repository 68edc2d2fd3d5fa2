"""The perturbation bank: conditions by name, applied to a picture or its question.

A condition is ``clean``, a family with its level (``translate:-8``), a family without levels
(``blank``), or several joined by ``+`` and applied from left to right (``jpeg:3+rotate:30``).
One family is no perturbation but a control, ``unrelated``: another question's picture.
Nothing depends on the order of calls: chance is seeded by the picture's hash, and, where the
perturbation depends on the question, by the example's id.

Example:
    >>> [condition.name for condition in parse_conditions("clean, pad:4, jpeg:03+rotate:30.0")]
    ['clean', 'pad:4', 'jpeg:3+rotate:30']
    >>> parse_condition("translate:4").apply(Image.new("L", (48, 48))).size
    (48, 48)
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from PIL import Image

from sightline.core.condition_names import CLEAN, UNRELATED
from sightline.core.errors import UsageError
from sightline.core.specs import parse
from sightline.core.types import Example
from sightline.data.images import ImageLimits, to_rgb
from sightline.data.perturb_geometry import (
    Crop,
    Magnitude,
    Pad,
    Rotate,
    Scale,
    ScalePad,
    Size,
    Translate,
)
from sightline.data.perturb_pixels import (
    Blank,
    Blur,
    Brightness,
    Contrast,
    Grayscale,
    Jpeg,
    Noise,
)
from sightline.data.perturb_text import Overlay
from sightline.data.unrelated import Unrelated
from sightline.data.wordings import Rewording

Geometry = Translate | Pad | Crop | Scale | ScalePad | Rotate
Pixels = Jpeg | Blur | Noise | Brightness | Contrast | Grayscale | Blank
Perturbation = Geometry | Pixels | Overlay | Rewording | Unrelated

LONGEST_SIDE = 1024

PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {
        "translate": Translate(),
        "pad": Pad(),
        "crop": Crop(),
        "scale": Scale(),
        "shrink": Scale(back=False),
        "scale_pad": ScalePad(),
        "rotate": Rotate(),
        "text": Overlay(),
        "text_random": Overlay(content="random"),
        "text_box": Overlay(content="empty"),
        "answer_text": Overlay(names_options=True),
        "answer_random": Overlay(content="random", names_options=True),
        "answer_box": Overlay(content="empty", names_options=True),
        "blank": Blank(),
        "jpeg": Jpeg(),
        "blur": Blur(),
        "noise": Noise(),
        "brightness": Brightness(),
        "darkness": Brightness(darker=True),
        "contrast": Contrast(),
        "grayscale": Grayscale(),
        "wording": Rewording(),
    }
)
"""Every family by its name; a condition is an entry at a level."""

CONTROLS: Mapping[str, Perturbation] = MappingProxyType({UNRELATED: Unrelated()})
"""What drift is held against, asked for by the same names; no perturbations."""

BANK: Mapping[str, Perturbation] = MappingProxyType({**PERTURBATIONS, **CONTROLS})
"""All that a condition may name."""

_MOVED = ("translate", "pad", "crop", "scale", "scale_pad", "rotate")
BANKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "geometry": _MOVED,
        "overlays": ("text", "text_random", "text_box"),
        "corruptions": ("jpeg", "blur", "noise", "brightness", "contrast"),
        "published": (*_MOVED, "answer_text", "answer_random", "answer_box"),
        "default": (
            *(*_MOVED, "text", "text_random", "text_box"),
            *("jpeg", "blur", "noise", "brightness", "contrast"),
            "unrelated:1",
        ),
    }
)
"""Families, or single conditions, that are asked for together.

``published`` are the paper's 30 perturbations; ``default`` holds the control once.
"""


class Step(NamedTuple):
    """One perturbation of a condition, with the name of its family."""

    family: str
    perturbation: Perturbation

    @property
    def name(self) -> str:
        """``family:level``, or the family alone where it has no levels."""
        if isinstance(self.perturbation, Grayscale | Blank):
            return self.family
        level = self.perturbation.level
        whole = isinstance(level, float) and level.is_integer()
        return f"{self.family}:{int(level) if whole else level}"


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to a picture and its question before the model sees them.

    Attributes:
        steps: Perturbations in the order they are applied; none for the clean condition.

    Raises:
        UsageError: Pictures would grow beyond what is decoded, or a control is joined with
            something.
    """

    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if self.is_control and len(self.steps) > 1:
            raise UsageError(
                f"Condition {self.name} joins a control with other steps; "
                f"{', '.join(CONTROLS)} stands alone. Name them apart."
            )
        size, most = (LONGEST_SIDE, LONGEST_SIDE), ImageLimits().max_pixels
        for _, perturbation in self.steps:
            if isinstance(perturbation, Rotate):
                size = perturbation.largest(size)
            elif isinstance(perturbation, Geometry):
                size = perturbation.size(size)
            if size[0] * size[1] > most:
                raise UsageError(
                    f"Condition {self.name} makes pictures of up to {size[0]} x {size[1]} pixels; "
                    f"at most {most} in all may be made. Choose a lower level, or fewer steps."
                )

    @property
    def name(self) -> str:
        """The condition as records carry it."""
        return "+".join(step.name for step in self.steps) or CLEAN

    @property
    def needs_answer(self) -> bool:
        """Whether it depends on the model's answer under the clean condition."""
        return any(isinstance(p, Overlay) and p.names_options for _, p in self.steps)

    @property
    def is_control(self) -> bool:
        """Whether it shows another question's picture, which drift is held against."""
        return any(isinstance(p, Unrelated) for _, p in self.steps)

    @property
    def changes_image(self) -> bool:
        """Whether it does anything to the picture."""
        return any(not isinstance(p, Rewording) for _, p in self.steps)

    @property
    def kind(self) -> str:
        """The type that rates are reported by, such as ``pad/crop``; ``clean`` without steps."""
        return " + ".join(p.kind for _, p in self.steps) or CLEAN

    def refusal(self, example: Example) -> str | None:
        """Why the condition does not exist for an example, in words, or None where it does."""
        for _, perturbation in self.steps:
            if isinstance(perturbation, Rewording):
                reason = perturbation.refusal(example)
                if reason is not None:
                    return reason
            if isinstance(perturbation, Overlay) and perturbation.names_options:
                if example.choices is None:
                    return "the question has no options that a text could name"
                others = len(example.choices) - 1
                if others < perturbation.level:
                    return f"the question has {max(others, 0)} options besides the answer"
        return None

    def apply(
        self,
        image: Image.Image,
        example: Example | None = None,
        *,
        answer: str | None = None,
        index: int = 0,
    ) -> Image.Image:
        """Applies the perturbations of the picture, from left to right.

        Args:
            image: In any mode; converted to RGB with transparency on white.
            example: What is asked; chance is seeded by its picture's hash, else by the pixels.
            answer: The option the model chose under the clean condition, by letter or text.
            index: Which of the example's pictures this is.

        Returns:
            An RGB picture; the given one is left as it is.

        Raises:
            DataError: A text is to name an option other than the answer, and there is none.
            UsageError: The condition is a control, whose picture is another question's.
        """
        if self.is_control:
            raise UsageError(
                f"Condition {self.name} shows another question's picture; it is made when a data "
                "set is collected. Collect under it."
            )
        out = image if image.mode == "RGB" else to_rgb(image)
        for number, (family, perturbation) in enumerate(self.steps):
            if isinstance(perturbation, Geometry):
                out = perturbation.warp(out)
            elif isinstance(perturbation, Overlay):
                sentence = perturbation.sentence(example, answer)
                own = example if perturbation.names_options else None
                seed = _seed(family, perturbation, number, image, example, own, index)
                out = perturbation.draw(out, sentence, seed)
            elif isinstance(perturbation, Pixels):
                seed = b""
                if isinstance(perturbation, Noise):
                    seed = _seed(family, perturbation, number, image, example, None, index)
                out = perturbation.paint(out, seed)
        return out.copy() if out is image else out

    def reword(self, example: Example) -> Example:
        """The example with its question in other words, where the condition asks for it.

        Raises:
            DataError: The question has no such wording.
        """
        for _, perturbation in self.steps:
            if isinstance(perturbation, Rewording):
                example = perturbation.reword(example)
        return example

    def size(self, size: Size) -> Size:
        """Width and height of what `apply` returns for a picture of this size."""
        for _, perturbation in self.steps:
            if isinstance(perturbation, Geometry):
                size = perturbation.size(size)
        return size

    def magnitudes(self, size: Size) -> dict[str, Magnitude]:
        """How strong each step is on a picture of this size, in order, by the step's name."""
        found = {}
        for step in self.steps:
            found[step.name] = step.perturbation.magnitude(size)
            if isinstance(step.perturbation, Geometry):
                size = step.perturbation.size(size)
        return found


def _seed(
    family: str,
    perturbation: Perturbation,
    number: int,
    image: Image.Image,
    example: Example | None,
    own: Example | None,
    index: int,
) -> bytes:
    """32 bytes that depend on the step, the picture and, if given, the example it belongs to."""
    if example is not None and index < len(example.images):
        picture = example.images[index].sha256
    else:
        rgb = image if image.mode == "RGB" else to_rgb(image)
        picture = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()
    parts = (str(number), Step(family, perturbation).name, picture, own.id if own else "")
    return hashlib.sha256("\0".join(parts).encode()).digest()


def prepared(image: Image.Image, longest_side: int = LONGEST_SIDE) -> Image.Image:
    """The picture as RGB, scaled down with the bicubic filter where its longer side is too long."""
    rgb = image if image.mode == "RGB" else to_rgb(image)
    factor = longest_side / max(rgb.size)
    if factor >= 1:
        return rgb
    size = (max(1, round(rgb.width * factor)), max(1, round(rgb.height * factor)))
    return rgb.resize(size, Image.Resampling.BICUBIC)


def parse_condition(name: str) -> Condition:
    """Reads one condition, such as ``clean``, ``blank`` or ``jpeg:3+rotate:30``.

    Raises:
        UsageError: A family or level that does not exist, or a family without its level.
    """
    if name.strip() == CLEAN:
        return Condition()
    return Condition(tuple(_step(part) for part in name.split("+")))


def parse_conditions(names: str | Sequence[str]) -> tuple[Condition, ...]:
    """Reads a list of conditions, as the command line or YAML gives it.

    Args:
        names: Names, or one text with commas between them. A family without its level stands for
            all of its levels; a name of `BANKS` for all of its families.

    Returns:
        Each condition once, in the order first named.

    Raises:
        UsageError: A name that does not exist, or none at all.

    Example:
        >>> [condition.name for condition in parse_conditions(["scale_pad", "blank"])]
        ['scale_pad:black', 'scale_pad:white', 'blank']
    """
    listed = names.split(",") if isinstance(names, str) else names
    asked = [text for name in listed if (text := name.strip())]
    if not asked:
        raise UsageError(
            "The list of conditions is empty; at least one is required. Name for example "
            f"rotate:30, jpeg or {next(iter(BANKS))}."
        )
    conditions = [condition for name in asked for condition in _expanded(name)]
    return tuple({condition.name: condition for condition in conditions}.values())


def _expanded(name: str) -> Iterable[Condition]:
    if name == CLEAN:
        return [Condition()]
    if name in BANKS:
        return [condition for family in BANKS[name] for condition in _expanded(family)]
    parts = [_levels(part) for part in name.split("+")]
    return [Condition(tuple(map(_step, steps))) for steps in itertools.product(*parts)]


def _levels(part: str) -> list[str]:
    """A part of a condition with every level of its bank, where it names none."""
    family = part.strip()
    levels = BANK[family].levels if family in BANK else ()
    return [f"{family}:{level}" for level in levels] or [part]


def _step(part: str) -> Step:
    family, colon, level = part.strip().partition(":")
    if family in BANK and BANK[family].levels and not level:
        raise UsageError(
            f"Condition {part.strip()!r} has no level; family:level is required. Write for example "
            f"{family}:{BANK[family].levels[0]}."
        )
    spec = f"{family}:level={level}" if colon else family
    return Step(family, parse(spec, BANK, "perturbation"))
