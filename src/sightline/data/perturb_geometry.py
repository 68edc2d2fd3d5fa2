"""Perturbations that move, cut or resize the picture.

Each is one function of the picture that is written once and used twice: on the pixels, and, with
the nearest-neighbour filter, on a picture of labels, which tells where every pixel went
(see `sightline.data.perturb_truth`).

Source: "Same Answer, Different Representations" (arXiv 2602.06652); parameters as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from PIL import Image, ImageChops

from sightline.core.errors import UsageError

_BICUBIC = Image.Resampling.BICUBIC
_NEAREST = Image.Resampling.NEAREST

Size = tuple[int, int]


class Magnitude(NamedTuple):
    """How strong a perturbation is on a picture of a given size.

    Attributes:
        value: The family's own parameter.
        unit: What the parameter counts, such as ``px`` or ``deg``.
        pixels: Largest extent in pixels, or None where the perturbation has none.
        share: The same as a share of the picture's side, or None.
    """

    value: float
    unit: str
    pixels: float | None = None
    share: float | None = None


def resized(image: Image.Image, size: Size, *, labels: bool) -> Image.Image:
    """Resizes with the bicubic filter, or without mixing values where they are labels."""
    return image.resize(size, _NEAREST if labels else _BICUBIC)


def scaled_size(size: Size, factor: float) -> Size:
    """Both sides times a factor, rounded, at least one pixel."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _new(image: Image.Image, size: Size, fill: str, *, labels: bool) -> Image.Image:
    return Image.new(image.mode, size, 0 if labels else fill)


def _check_pixels(name: str, pixels: int) -> None:
    if pixels < 0:
        raise UsageError(f"{name} is {pixels} px; 0 or more is required. Correct the level.")


def _check_factor(name: str, factor: float) -> None:
    if not (math.isfinite(factor) and 0 < factor <= 1):
        raise UsageError(
            f"{name} is {factor:g}; a factor above 0, at most 1, is required. Correct the level."
        )


@dataclass(frozen=True, slots=True)
class Translate:
    """Cyclic horizontal shift: what leaves on one side comes back on the other.

    Attributes:
        level: Pixels; positive to the right.
    """

    level: int = 4
    levels: ClassVar[tuple[str, ...]] = ("-16", "-12", "-8", "-4", "4", "8", "12", "16")
    kind: ClassVar[str] = "translation"
    zoom: ClassVar[float] = 1.0

    def warp(self, image: Image.Image, *, labels: bool = False) -> Image.Image:
        """The picture with its columns moved."""
        return ImageChops.offset(image, self.level % image.width, 0)

    def size(self, size: Size) -> Size:
        """Size of the result."""
        return size

    def magnitude(self, size: Size) -> Magnitude:
        """Shift as asked for, and the shortest equal shift as a share of the width."""
        turn = abs(self.level) % size[0]
        pixels = min(turn, size[0] - turn)
        return Magnitude(self.level, "px", pixels, pixels / size[0])


@dataclass(frozen=True, slots=True)
class Pad:
    """A black border on all sides; the canvas grows.

    Attributes:
        level: Width of the border in pixels.
    """

    level: int = 4
    levels: ClassVar[tuple[str, ...]] = ("4", "8", "12", "16")
    kind: ClassVar[str] = "pad/crop"
    zoom: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _check_pixels("The border of pad", self.level)

    def warp(self, image: Image.Image, *, labels: bool = False) -> Image.Image:
        """The picture with its border."""
        out = _new(image, self.size(image.size), "black", labels=labels)
        out.paste(image, (self.level, self.level))
        return out

    def size(self, size: Size) -> Size:
        """Size of the result."""
        return size[0] + 2 * self.level, size[1] + 2 * self.level

    def magnitude(self, size: Size) -> Magnitude:
        """Width of the border, also as a share of the shorter side."""
        return Magnitude(self.level, "px", self.level, self.level / min(size))


@dataclass(frozen=True, slots=True)
class Crop:
    """Cuts the same number of pixels off every side; no resizing.

    A side too short for it keeps its middle pixel or two.

    Attributes:
        level: Pixels cut off each side.
    """

    level: int = 4
    levels: ClassVar[tuple[str, ...]] = ("4", "8", "12", "16")
    kind: ClassVar[str] = "pad/crop"
    zoom: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _check_pixels("The margin of crop", self.level)

    def _cut(self, size: Size) -> Size:
        return min(self.level, (size[0] - 1) // 2), min(self.level, (size[1] - 1) // 2)

    def warp(self, image: Image.Image, *, labels: bool = False) -> Image.Image:
        """The middle of the picture."""
        left, top = self._cut(image.size)
        return image.crop((left, top, image.width - left, image.height - top))

    def size(self, size: Size) -> Size:
        """Size of the result."""
        left, top = self._cut(size)
        return size[0] - 2 * left, size[1] - 2 * top

    def magnitude(self, size: Size) -> Magnitude:
        """Pixels cut off, at most what the sides allow; the larger share of a side."""
        left, top = self._cut(size)
        share = max(left / size[0], top / size[1])
        return Magnitude(self.level, "px", max(left, top), share)


@dataclass(frozen=True, slots=True)
class Scale:
    """Scales down with the bicubic filter.

    Attributes:
        level: Factor, above 0 and at most 1.
        back: Resize back to the original size. The paper says so; its published code does not,
            which is the family ``shrink``.
    """

    level: float = 0.9
    back: bool = True
    levels: ClassVar[tuple[str, ...]] = ("0.9",)
    kind: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        _check_factor("The factor of scale", self.level)

    @property
    def zoom(self) -> float:
        """Pixels of the result per pixel of the original, along a side."""
        return 1.0 if self.back else self.level

    def warp(self, image: Image.Image, *, labels: bool = False) -> Image.Image:
        """The picture with less detail, or smaller."""
        small_size = scaled_size(image.size, self.level)
        if small_size == image.size:
            return image.copy()
        small = resized(image, small_size, labels=labels)
        return resized(small, image.size, labels=labels) if self.back else small

    def size(self, size: Size) -> Size:
        """Size of the result."""
        return size if self.back else scaled_size(size, self.level)

    def magnitude(self, size: Size) -> Magnitude:
        """Factor, and the pixels the longer side loses on the way."""
        pixels = max(size) - max(scaled_size(size, self.level))
        return Magnitude(self.level, "factor", pixels, pixels / max(size))


@dataclass(frozen=True, slots=True)
class ScalePad:
    """The picture scaled to 0.9 in the middle of a canvas of the original size.

    Attributes:
        level: Colour of the canvas.
        factor: Scale of the picture.
    """

    level: Literal["black", "white"] = "black"
    factor: float = 0.9
    levels: ClassVar[tuple[str, ...]] = ("black", "white")
    kind: ClassVar[str] = "scale+pad"

    def __post_init__(self) -> None:
        _check_factor("The factor of scale_pad", self.factor)

    @property
    def zoom(self) -> float:
        """Pixels of the result per pixel of the original, along a side."""
        return self.factor

    def warp(self, image: Image.Image, *, labels: bool = False) -> Image.Image:
        """The smaller picture on its canvas."""
        inner = scaled_size(image.size, self.factor)
        if inner == image.size:
            return image.copy()
        out = _new(image, image.size, self.level, labels=labels)
        left, top = (image.width - inner[0]) // 2, (image.height - inner[1]) // 2
        out.paste(resized(image, inner, labels=labels), (left, top))
        return out

    def size(self, size: Size) -> Size:
        """Size of the result."""
        return size

    def magnitude(self, size: Size) -> Magnitude:
        """Factor, and the pixels of canvas along the longer side."""
        pixels = max(size) - max(scaled_size(size, self.factor))
        return Magnitude(self.factor, "factor", pixels, pixels / max(size))


@dataclass(frozen=True, slots=True)
class Rotate:
    """Rotation about the centre, bicubic; the canvas grows so that nothing is lost, in white.

    Attributes:
        level: Degrees, counter-clockwise.
    """

    level: float = 30.0
    levels: ClassVar[tuple[str, ...]] = ("-30", "30")
    kind: ClassVar[str] = "rotation"
    zoom: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.level):
            raise UsageError(f"The angle of rotate is {self.level}; a finite one is required.")

    def warp(self, image: Image.Image, *, labels: bool = False) -> Image.Image:
        """The turned picture."""
        return image.rotate(
            self.level,
            resample=_NEAREST if labels else _BICUBIC,
            expand=True,
            fillcolor=0 if labels else "white",
        )

    def size(self, size: Size) -> Size:
        """Size of the result, by Pillow's own rounding."""
        return Image.new("1", size).rotate(self.level, expand=True).size

    def largest(self, size: Size) -> Size:
        """Sides that the result does not exceed, without turning anything."""
        across = abs(math.cos(math.radians(self.level)))
        along = abs(math.sin(math.radians(self.level)))
        width, height = size
        return (
            math.ceil(width * across + height * along) + 2,
            math.ceil(width * along + height * across) + 2,
        )

    def magnitude(self, size: Size) -> Magnitude:
        """Angle, and how far a corner moves, also as a share of the longer side."""
        pixels = math.hypot(*size) * abs(math.sin(math.radians(self.level) / 2))
        return Magnitude(self.level, "deg", pixels, pixels / max(size))
