"""Pictures to a vision model's input, with the values of its processor in a fraction of the time.

The image processors of transformers that work without torchvision treat one picture at a time, and
each in double precision. What most of them do (scale with Pillow, crop the centre, a linear
function of every channel) comes to a table of 256 values a channel; a batch is looked up at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

Prepared = Mapping[str, torch.Tensor]

_LEVELS = 256
_CHANNELS = 3
_PROBES = ((1.0, 1.0), (2.6, 1.7), (0.7, 1.3))  # width and height over the model's own side


def picture_preparation(processor: Any) -> Callable[[Sequence[Image.Image]], Prepared]:
    """What turns RGB pictures into a model's input: the processor, or its faster equal.

    The faster one is taken only where pictures of several shapes come out the same, bit for bit.

    Args:
        processor: A processor of transformers, or its image processor alone.
    """

    def own(images: Sequence[Image.Image]) -> Prepared:
        inputs: Prepared = processor(images=list(images), return_tensors="pt")
        return inputs

    fast = _TableLookUp.of(getattr(processor, "image_processor", processor))
    return fast if fast is not None and _equal(fast, own) else own


@dataclass(frozen=True, slots=True, eq=False)
class _TableLookUp:
    """Scaling, cropping, and a table of what each level of each channel becomes.

    Attributes:
        size: Height and width that pictures are scaled to, or the shorter side alone.
        resample: Pillow's filter.
        crop: Height and width of the centre that is kept, or None.
        table: Value of each level, by channel.
    """

    size: tuple[int, int] | int
    resample: Image.Resampling
    crop: tuple[int, int] | None
    table: Float[np.ndarray, "3 256"]

    @classmethod
    def of(cls, processor: Any) -> _TableLookUp | None:
        """Reads a processor's settings; None where these ask for anything else."""
        settings = processor.to_dict()
        size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
        fixed = bool(settings.get("do_center_crop"))
        scaled: tuple[int, int] | int
        if set(size) == {"height", "width"}:
            scaled = (size["height"], size["width"])
        elif set(size) == {"shortest_edge"} and fixed:
            scaled = size["shortest_edge"]
        else:
            return None
        filter_ = settings.get("resample")
        if not settings.get("do_resize") or settings.get("do_pad") or not isinstance(filter_, int):
            return None
        if fixed and set(crop) != {"height", "width"}:
            return None
        if not settings.get("do_rescale") and not settings.get("do_normalize"):
            return None  # these hand over whole numbers
        return cls(
            scaled,
            Image.Resampling(filter_),
            (crop["height"], crop["width"]) if fixed else None,
            _table(settings),
        )

    def __call__(self, images: Sequence[Image.Image]) -> Prepared:
        """Pixel values of a batch, (n, 3, height, width)."""
        levels = np.stack([self._levels(image) for image in images])
        values = np.empty((len(levels), _CHANNELS, *levels.shape[1:3]), dtype=np.float32)
        for channel, row in enumerate(self.table):
            # No level lies outside the table; clipping spares the check that one might.
            np.take(row, levels[..., channel], out=values[:, channel], mode="clip")
        return {"pixel_values": torch.from_numpy(values)}

    def _levels(self, image: Image.Image) -> np.ndarray:
        width, height = image.size
        if isinstance(self.size, tuple):
            rows, columns = self.size
        else:
            longer = int(self.size * max(image.size) / min(image.size))
            rows, columns = (self.size, longer) if height < width else (longer, self.size)
        if (columns, rows) != image.size:
            image = image.resize((columns, rows), self.resample)
        levels = np.asarray(image)
        return levels if self.crop is None else _centre(levels, self.crop)


def _centre(levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The centre of a picture, framed in black where it is smaller than that."""
    for axis, wanted in enumerate(size):
        lacking = max(0, wanted - levels.shape[axis])
        frame = [(0, 0)] * 3
        frame[axis] = ((lacking + 1) // 2, lacking // 2)
        levels = np.pad(levels, frame) if lacking else levels
    top, left = ((have - want) // 2 for have, want in zip(levels.shape, size, strict=False))
    return levels[top : top + size[0], left : left + size[1]]


def _table(settings: Mapping[str, Any]) -> Float[np.ndarray, "3 256"]:
    """What becomes of each level, rounded where the processor rounds."""
    levels = np.arange(_LEVELS, dtype=np.float64)
    if settings.get("do_rescale"):
        levels *= settings["rescale_factor"]
    table = np.tile(levels.astype(np.float32), (_CHANNELS, 1))
    if settings.get("do_normalize"):
        mean, std = (
            np.broadcast_to(np.asarray(settings[name], dtype=np.float32), _CHANNELS)[:, None]
            for name in ("image_mean", "image_std")
        )
        table = (table - mean) / std
    return table


def _equal(fast: _TableLookUp, own: Callable[[Sequence[Image.Image]], Prepared]) -> bool:
    """Whether both make the same of pictures of noise, and nothing else is handed over."""
    rng = np.random.default_rng(0)
    rows, columns = fast.size if isinstance(fast.size, tuple) else (fast.size, fast.size)
    for wider, higher in _PROBES:
        shape = (max(1, round(rows * higher)), max(1, round(columns * wider)), _CHANNELS)
        picture = Image.fromarray(rng.integers(0, _LEVELS, shape, dtype=np.uint8))
        ours, theirs = fast([picture]), own([picture])
        if set(ours) != set(theirs):
            return False
        if not all(ours[k].dtype == theirs[k].dtype for k in ours):
            return False
        if not all(torch.equal(ours[k], theirs[k]) for k in ours):
            return False
    return True
