"""What processors do to the values of a picture, differentiably: scaling and normalising.

Pictures are scaled as Pillow does it, but for its rounding to whole levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Resampling, fromarray

Size = tuple[int, int]

_ROUNDING = 1e-9
"""How far a value may leave [0, 1] by rounding alone and still pass its gradient on."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and deviation a processor normalises with, by channel.

    Attributes:
        mean: Taken off values in [0, 1].
        std: What the rest is divided by.
    """

    mean: torch.Tensor
    std: torch.Tensor

    @staticmethod
    def of(processor: Any) -> Scale:
        """Reads them off an image processor; 0 and 1 where it does not normalise."""
        if not getattr(processor, "do_normalize", False):
            return Scale(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
        mean, std = (
            torch.as_tensor(getattr(processor, name), dtype=torch.float64).expand(3)
            for name in ("image_mean", "image_std")
        )
        return Scale(mean, std)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Values as the model reads them, (…, 3)."""
        return (pixels - self.mean.to(pixels)) / self.std.to(pixels)

    def taken_back(self, normal: torch.Tensor) -> torch.Tensor:
        """Values in [0, 1] from what the model reads, (…, 3), in double precision."""
        return normal.double() * self.std + self.mean


@dataclass(frozen=True, slots=True)
class Scaling:
    """A picture scaled in one direction, then in the other.

    Attributes:
        size: Height and width.
        resample: One of `can_scale`.
        down_first: Whether columns are scaled before rows, which cutting off makes a difference to.
    """

    size: Size
    resample: Resampling
    down_first: bool

    def of(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scaled pictures, cut off at 0 and 1 after each direction, as in whole levels.

        Args:
            pixels: (n, h, w, 3) in [0, 1]; gradients flow back to them.

        Returns:
            (n, height, width, 3) in [0, 1]. Pillow rounds to whole levels of 255 after each
            direction; nothing is rounded here.
        """
        for axis in (1, 2) if self.down_first else (2, 1):
            have, want = pixels.shape[axis], self.size[axis - 1]
            if have != want:
                weights = torch.as_tensor(_weights(have, want, self.resample)).to(pixels)
                moved = torch.tensordot(pixels, weights, dims=([axis], [1]))
                pixels = moved.movedim(-1, axis).clamp(-_ROUNDING, 1 + _ROUNDING)
        return pixels


@lru_cache(maxsize=256)
def as_pillow(have: Size, want: Size, resample: Resampling) -> Scaling:
    """Scaling from one size to another in the order that this version of Pillow takes.

    The order is not documented and depends on the sizes, so Pillow is asked with black and white
    noise, most of which is cut off.
    """
    levels = np.random.default_rng(0).integers(0, 2, have, dtype=np.uint8) * 255
    found = np.asarray(fromarray(levels).resize(want[::-1], resample))
    noise = torch.from_numpy(levels / 255.0)[None, :, :, None]
    ways = [Scaling(want, resample, down_first) for down_first in (False, True)]
    apart = [float(np.abs(way.of(noise)[0, :, :, 0].numpy() * 255 - found).max()) for way in ways]
    return ways[int(np.argmin(apart))]


def across_first(_have: Size, want: Size, resample: Resampling) -> Scaling:
    """Scaling in the order that torchvision takes, rows first."""
    return Scaling(want, resample, down_first=False)


def can_scale(resample: object) -> bool:
    """Whether pictures can be scaled with one of Pillow's filters, given by its number."""
    return resample in _FILTERS


def _box(x: np.ndarray) -> np.ndarray:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0.0)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _windowed_sinc(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_FILTERS: dict[int, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    Resampling.BOX: (_box, 0.5),
    Resampling.BILINEAR: (_triangle, 1.0),
    Resampling.BICUBIC: (_cubic, 2.0),
    Resampling.LANCZOS: (_windowed_sinc, 3.0),
}
"""Each filter and how far from its centre it reaches."""


@lru_cache(maxsize=64)
def _weights(have: int, want: int, resample: int) -> Float[np.ndarray, "want have"]:
    """What each pixel of a line gives to each of the scaled line; rows sum to 1.

    A line that shrinks is smoothed: the filter then reaches as much farther.
    """
    shape, reach = _FILTERS[resample]
    step = have / want
    wider = max(step, 1.0)
    centres = (np.arange(want) + 0.5) * step
    first = np.maximum(np.floor(centres - reach * wider + 0.5), 0)
    last = np.minimum(np.floor(centres + reach * wider + 0.5), have)
    at = np.arange(have)
    weights = shape((at + 0.5 - centres[:, None]) / wider)
    weights *= (at >= first[:, None]) & (at < last[:, None])
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
