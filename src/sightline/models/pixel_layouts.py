"""How an image processor hands over one picture, and the way back to its pixels.

A layout turns pictures with values in [0, 1] into the tensor that the processor hands over,
differentiably. Where the model reads one picture, they have the model's own input size, and the
clean one is what the processor made of the given one. Where it reads tiles of one, they have the
size of the given one, see `sightline.models.pixel_tiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from sightline.core.errors import UsageError
from sightline.models.pixel_scaling import Scale
from sightline.models.pixel_tiles import tiled_layout

if TYPE_CHECKING:
    from PIL.Image import Image

_TOLERANCE = 1e-3


class PixelLayout(Protocol):
    """One picture in the form a model reads."""

    @property
    def clean(self) -> Float[np.ndarray, "h w 3"]:
        """The picture in the space that probes change it in, in [0, 1]."""
        ...

    def handed_over(self, pixels: torch.Tensor, repeats: int) -> torch.Tensor:
        """What the processor would hand over for (n, h, w, 3), each picture several times."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """One picture of three channels, (1, 3, h, w) or (1, 1, 3, h, w)."""

    clean: Float[np.ndarray, "h w 3"]
    shape: tuple[int, ...]
    scale: Scale

    def handed_over(self, pixels: torch.Tensor, repeats: int) -> torch.Tensor:
        """As `PixelLayout.handed_over`."""
        normal = self.scale.normalised(pixels).permute(0, 3, 1, 2)
        return normal.reshape(len(pixels), *self.shape).repeat_interleave(repeats, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Square patches, one row each, neighbours that become one token behind one another (Qwen)."""

    clean: Float[np.ndarray, "h w 3"]
    side: int
    merge: int
    frames: int
    scale: Scale

    def handed_over(self, pixels: torch.Tensor, repeats: int) -> torch.Tensor:
        """As `PixelLayout.handed_over`; all pictures' patches in one list."""
        rows = _to_patches(self.scale.normalised(pixels), self.side, self.merge, self.frames)
        return rows.repeat_interleave(repeats, 0).flatten(0, 1)


def pixel_layout(
    processor: Any,
    hand_over: Callable[[Image], Mapping[str, torch.Tensor]],
    image: Image,
    tensors: Mapping[str, torch.Tensor],
    kind: str,
) -> PixelLayout:
    """Finds how the processor hands one picture over.

    Args:
        processor: The image processor.
        hand_over: The inputs it makes of the prompt with a picture.
        image: The picture.
        tensors: Those it made of this one.
        kind: Type of the model, for errors.

    Raises:
        UsageError: The model reads a form that is not known, or tiles that no known way of cutting
            the picture leads to; or its pixels do not lie in [0, 1] without their normalisation.
    """
    values, scale = tensors["pixel_values"], Scale.of(processor)
    shape = tuple(values.shape)
    if shape[:-2] in ((1, 3), (1, 1, 3)):
        picture = values.reshape(shape[-3:]).permute(1, 2, 0)
        return Plain(_within(scale.taken_back(picture), kind), shape[1:], scale)
    grid, cut = tensors.get("image_grid_thw"), _cut_of(processor)
    if grid is not None and cut is not None and len(grid) == 1 and int(grid[0, 0]) == 1:
        picture = _from_patches(values, (int(grid[0, 1]), int(grid[0, 2])), *cut)
        if torch.equal(_to_patches(picture[None], *cut)[0], values):
            return Patches(_within(scale.taken_back(picture), kind), *cut, scale)
    tiles = tiled_layout(
        processor, lambda other: hand_over(other)["pixel_values"], image, values, scale
    )
    if tiles is not None:
        return tiles
    raise UsageError(
        f"The processor of {kind} hands over pixels of shape {shape}, which no known way from the "
        "picture leads to; one picture of three channels, its patches in a known order, or tiles "
        "cut as LLaVA-NeXT, Idefics3 or InternVL cut them are required to reach its pixels. Choose "
        "such a model, or leave out --probe."
    )


def _within(pixels: torch.Tensor, kind: str) -> Float[np.ndarray, "h w 3"]:
    """Pixels that lie in [0, 1] but for rounding."""
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise UsageError(
            f"Pixels of {kind} run from {low:.3g} to {high:.3g} without their normalisation; "
            "values in [0, 1] are required. Choose a model whose processor divides by 255 and "
            "takes off mean and deviation alone."
        )
    return np.asarray(pixels.clamp(0, 1).numpy())


def _cut_of(processor: Any) -> tuple[int, int, int] | None:
    """Side of a patch, patches along a token's side, and frames of a patch (Qwen's names)."""
    names = ("patch_size", "merge_size", "temporal_patch_size")
    side, merge, frames = (getattr(processor, name, None) for name in names)
    if isinstance(side, int) and isinstance(merge, int) and isinstance(frames, int):
        return side, merge, frames
    return None


def _to_patches(pictures: torch.Tensor, side: int, merge: int, frames: int) -> torch.Tensor:
    """(n, h, w, 3) to (n, patches, values), as Qwen's processors order them."""
    n, h, w, channels = pictures.shape
    down, across = h // side // merge, w // side // merge
    cut = pictures.reshape(n, down, merge, side, across, merge, side, channels)
    placed = cut.permute(0, 1, 4, 2, 5, 7, 3, 6)  # place, place in the token, channel, pixel
    repeated = placed.unsqueeze(6).expand(*placed.shape[:6], frames, *placed.shape[6:])
    return repeated.reshape(n, down * across * merge * merge, channels * frames * side * side)


def _from_patches(
    rows: torch.Tensor, grid: tuple[int, int], side: int, merge: int, frames: int
) -> torch.Tensor:
    """(patches, values) back to (h, w, 3)."""
    down, across = grid[0] // merge, grid[1] // merge
    cut = rows.reshape(down, across, merge, merge, 3, frames, side, side)[..., 0, :, :]
    placed = cut.permute(0, 2, 5, 1, 3, 6, 4)
    return placed.reshape(grid[0] * side, grid[1] * side, 3)
