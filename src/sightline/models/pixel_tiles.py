"""Pictures that a processor cuts into tiles: from the picture's own pixels to what it hands over.

Every tile is cut from one picture, scaled to one or more sizes, so only the picture itself is a
space that all tiles share. The way there is known where it leads, for a picture of noise of
the same size, to the values that the processor hands over.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Resampling, fromarray

from sightline.models.pixel_scaling import Scale, Scaling, Size, across_first, as_pillow, can_scale

if TYPE_CHECKING:
    from PIL.Image import Image

ROUNDED_LEVELS = 1.5
"""How far, in levels of 255, rounding may move a value in each scaling of a picture."""

Order = Callable[[Size, Size, Resampling], Scaling]

_LARGEST_SIDE = 4096
"""Idefics3 scales no picture beyond this."""


@dataclass(frozen=True, slots=True)
class View:
    """The picture scaled to one size after another, framed in black, and cut into square tiles.

    Attributes:
        scalings: How it is scaled.
        frame: Height and width it is centred in.
        side: Side of a tile.
    """

    scalings: tuple[Scaling, ...]
    frame: Size
    side: int

    def cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Tiles of (n, h, w, 3), row by row: (n, tiles, 3, side, side)."""
        for scaling in self.scalings:
            pixels = scaling.of(pixels)
        n, height, width, channels = pixels.shape
        top, left = (self.frame[0] - height) // 2, (self.frame[1] - width) // 2
        around = (left, self.frame[1] - width - left, top, self.frame[0] - height - top)
        framed = torch.nn.functional.pad(pixels.permute(0, 3, 1, 2), around)
        rows, columns = self.frame[0] // self.side, self.frame[1] // self.side
        tiles = framed.reshape(n, channels, rows, self.side, columns, self.side)
        return tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Tiles of one picture, in its own pixels.

    What rounding did to the clean picture's tiles is kept, so that the clean picture is handed over
    as the processor does it, and a change of it is carried on without being rounded.

    Attributes:
        clean: The picture itself, in [0, 1].
        views: What tiles are cut from, in their order.
        scale: Mean and deviation of the model's input.
        by_picture: Whether tiles are handed over by picture, not all in one list.
        rounded: What the processor's tiles of the clean picture have beyond ours, (tiles, 3, …).
    """

    clean: Float[np.ndarray, "h w 3"]
    views: tuple[View, ...]
    scale: Scale
    by_picture: bool
    rounded: torch.Tensor

    def handed_over(self, pixels: torch.Tensor, repeats: int) -> torch.Tensor:
        """As `sightline.models.pixel_layouts.PixelLayout.handed_over`."""
        tiles = cut_tiles(pixels, self.views) + self.rounded.to(pixels)
        normal = self.scale.normalised(tiles.movedim(2, -1)).movedim(-1, 2)
        repeated = normal.repeat_interleave(repeats, 0)
        return repeated if self.by_picture else repeated.flatten(0, 1)


def tiled_layout(
    processor: Any,
    hand_over: Callable[[Image], torch.Tensor],
    image: Image,
    values: torch.Tensor,
    scale: Scale,
) -> Tiles | None:
    """Finds how a processor cuts a picture into tiles; None where no known way leads there.

    Args:
        processor: The image processor.
        hand_over: Pixel values that it makes of a picture.
        image: The picture.
        values: Those it made of it, (1, tiles, 3, side, side) or (tiles, 3, side, side).
        scale: Mean and deviation of the model's input.
    """
    resample: Any = getattr(processor, "resample", None)
    if values.dim() not in (4, 5) or values.shape[-3] != 3 or not can_scale(resample):
        return None
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 2, (image.height, image.width, 3), dtype=np.uint8) * 255
    noise = hand_over(fromarray(levels))
    clean = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    for views in _possible(processor, values, Resampling(resample), (image.height, image.width)):
        if _beyond(noise, levels / 255, views, scale) is None:
            continue
        rounded = _beyond(values, clean, views, scale)
        if rounded is not None:
            return Tiles(clean, views, scale, values.dim() == 5, rounded)
    return None


def cut_tiles(pixels: torch.Tensor, views: tuple[View, ...]) -> torch.Tensor:
    """Tiles of all views, (n, tiles, 3, side, side) in [0, 1], from (n, h, w, 3)."""
    return torch.cat([view.cut(pixels) for view in views], 1)


def _beyond(
    values: torch.Tensor, pixels: Float[np.ndarray, "h w 3"], views: tuple[View, ...], scale: Scale
) -> torch.Tensor | None:
    """What handed over tiles have beyond ours; None where that is more than rounding does."""
    with torch.inference_mode():
        ours = cut_tiles(torch.from_numpy(pixels)[None], views)[0]
    theirs = values.reshape(-1, *values.shape[-3:])
    if theirs.shape != ours.shape:
        return None
    beyond = scale.taken_back(theirs.movedim(1, -1)).movedim(-1, 1) - ours
    scalings = max(len(view.scalings) for view in views)
    return beyond if float(beyond.abs().max()) <= ROUNDED_LEVELS * scalings / 255 else None


def _possible(
    processor: Any, values: torch.Tensor, resample: Resampling, have: Size
) -> Iterator[tuple[View, ...]]:
    """Ways to cut tiles that the processor's settings and their number allow."""
    side, count = int(values.shape[-1]), math.prod(values.shape[:-3]) - 1
    frames = [(count // n * side, n * side) for n in range(1, count + 1) if count % n == 0]
    pinpoints = [tuple(own) for own in getattr(processor, "image_grid_pinpoints", None) or ()]
    edge = (getattr(processor, "size", None) or {}).get("longest_edge")
    whole = (side, side)
    orders: tuple[Order, ...] = (as_pillow, across_first)
    for order, frame in itertools.product(orders, frames):
        view = partial(_view, side, have, order, resample)
        if pinpoints:  # LLaVA-NeXT, LLaVA-OneVision
            if frame in pinpoints:
                yield view(whole, whole), view(frame, _fitted(have, frame))
        elif getattr(processor, "max_image_size", None):  # Idefics3, SmolVLM
            before = (_to_longest_edge(have, int(edge)),) if edge else ()
            yield view(frame, *before, frame), view(whole, *before, frame, whole)
        else:  # InternVL
            yield view(frame, frame), view(whole, whole)


def _view(
    side: int, have: Size, order: Order, resample: Resampling, frame: Size, *sizes: Size
) -> View:
    steps = zip((have, *sizes), sizes, strict=False)
    return View(tuple(order(*step, resample) for step in steps), frame, side)


def _fitted(have: Size, frame: Size) -> Size:
    """The largest size of the picture's shape that fits a frame."""
    height, width = have
    down, across = frame[0] / height, frame[1] / width
    if across < down:
        return min(math.ceil(height * across), frame[0]), frame[1]
    return frame[0], min(math.ceil(width * down), frame[1])


def _to_longest_edge(have: Size, edge: int) -> Size:
    """The size whose longer side is ``edge`` and whose other is even, both within bounds."""
    height, width = have
    wide, shape = width >= height, width / height
    other = int(edge / shape) if wide else int(edge * shape)
    other += other % 2
    if edge > _LARGEST_SIDE:
        edge, other = _LARGEST_SIDE, int(_LARGEST_SIDE * other / edge)
    other = max(other, 1)
    return (other, edge) if wide else (edge, other)
