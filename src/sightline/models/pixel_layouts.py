"""How an image processor hands over one picture, and the way back to its pixels.

A layout turns pictures with values in [0, 1] at the model's own input size into the tensor that the
processor hands over, differentiably; its clean picture is what the processor made of the given one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from sightline.core.errors import UsageError

_TOLERANCE = 1e-3


class PixelLayout(Protocol):
    """One picture in the form a model reads."""

    @property
    def clean(self) -> Float[np.ndarray, "h w 3"]:
        """The picture in the model's own pixel space, in [0, 1]."""
        ...

    def handed_over(self, pixels: torch.Tensor, repeats: int) -> torch.Tensor:
        """What the processor would hand over for (n, h, w, 3), each picture several times."""
        ...


@dataclass(frozen=True, slots=True)
class _Scale:
    """Mean and deviation the processor normalises with."""

    mean: torch.Tensor
    std: torch.Tensor

    @staticmethod
    def of(processor: Any) -> _Scale:
        if not getattr(processor, "do_normalize", False):
            return _Scale(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
        mean, std = (
            torch.as_tensor(getattr(processor, name), dtype=torch.float64).expand(3)
            for name in ("image_mean", "image_std")
        )
        return _Scale(mean, std)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - self.mean.to(pixels)) / self.std.to(pixels)

    def undone(self, normal: torch.Tensor, kind: str) -> Float[np.ndarray, "h w 3"]:
        own = normal.double() * self.std + self.mean
        low, high = float(own.min()), float(own.max())
        if low < -_TOLERANCE or high > 1 + _TOLERANCE:
            raise UsageError(
                f"Pixels of {kind} run from {low:.3g} to {high:.3g} without their normalisation; "
                "values in [0, 1] are required. Choose a model whose processor divides by 255 and "
                "takes off mean and deviation alone."
            )
        return np.asarray(own.clamp(0, 1).numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """One picture of three channels, (1, 3, h, w) or (1, 1, 3, h, w)."""

    clean: Float[np.ndarray, "h w 3"]
    shape: tuple[int, ...]
    scale: _Scale

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
    scale: _Scale

    def handed_over(self, pixels: torch.Tensor, repeats: int) -> torch.Tensor:
        """As `PixelLayout.handed_over`; all pictures' patches in one list."""
        rows = _to_patches(self.scale.normalised(pixels), self.side, self.merge, self.frames)
        return rows.repeat_interleave(repeats, 0).flatten(0, 1)


def pixel_layout(processor: Any, tensors: Mapping[str, torch.Tensor], kind: str) -> PixelLayout:
    """Reads off how the processor handed one picture over.

    Args:
        processor: The image processor.
        tensors: The inputs it made of one prompt with one picture.
        kind: Type of the model, for errors.

    Raises:
        UsageError: The model reads tiles, or a form that is not known; or its pixels do not lie in
            [0, 1] without their normalisation.
    """
    values, scale = tensors["pixel_values"], _Scale.of(processor)
    shape = tuple(values.shape)
    if shape[:-2] in ((1, 3), (1, 1, 3)):
        picture = values.reshape(shape[-3:]).permute(1, 2, 0)
        return Plain(scale.undone(picture, kind), shape[1:], scale)
    grid, cut = tensors.get("image_grid_thw"), _cut_of(processor)
    if grid is not None and cut is not None and len(grid) == 1 and int(grid[0, 0]) == 1:
        picture = _from_patches(values, (int(grid[0, 1]), int(grid[0, 2])), *cut)
        if torch.equal(_to_patches(picture[None], *cut)[0], values):
            return Patches(scale.undone(picture, kind), *cut, scale)
    raise UsageError(
        f"The processor of {kind} hands over pixels of shape {shape}; one picture of three "
        "channels, or its patches in a known order, is required to reach its pixels. Choose a "
        "model that does not cut pictures into tiles."
    )


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
