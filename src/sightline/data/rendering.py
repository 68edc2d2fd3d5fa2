"""Small pictures of coloured shapes, handwritten digits and words, drawn by the batch.

A picture is 48×48 pixels, a 3×3 grid of cells with at most one object in each. All pictures of a
batch are drawn together: masks are prepared once, and drawing is one gather and a few blends.

Axes: ``n`` pictures, ``c`` = 9 cells in reading order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "square", "triangle", "cross", "ring")
DIGIT = len(SHAPES)  # the kind of a cell that holds a handwritten digit
EMPTY = -1
COLORS = MappingProxyType(
    {
        "red": (215, 40, 40),
        "orange": (240, 140, 30),
        "yellow": (235, 225, 50),
        "green": (40, 165, 60),
        "blue": (40, 80, 215),
        "purple": (150, 50, 180),
        "white": (246, 246, 246),
        "black": (18, 18, 18),
    }
)
SIZES = ("small", "big")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
WORDS = (*COLORS, *SHAPES)
CONFUSABLE = (1, 2, 1, 4, 5, 4, 2, 5)  # for each colour, the one it is most easily taken for

SIDE, CELL, GRID, MARGIN = 48, 16, 3, 3
CELLS = GRID * GRID
_WINDOW = CELL + 2 * MARGIN
_PIXELS = ((8, 9, 10), (13, 14, 15))  # diameters of small and of big shapes
_ANGLES_DEG = (-16, -8, 0, 8, 16)
_DIGIT_VARIANTS = 5
_SUPERSAMPLING = 8


@dataclass(frozen=True, slots=True)
class Scenes:
    """What is in a batch of pictures; every array is aligned with the pictures.

    Attributes:
        kind: Index into `SHAPES`, `DIGIT`, or `EMPTY`.
        color: Index into `COLORS`, 0 where empty.
        size: Index into `SIZES`, 0 where empty.
        digit: 0 to 9, or -1 where there is no digit.
        glyph: Index of the handwritten image, or -1.
        mixing: Share of the confusable colour that is mixed in, from 0 to 1.
        occluded: Whether a bar covers part of the object.
        word: Index into `WORDS`, or -1; a word fills `word_row`, which holds no objects.
        word_row: Index into `ROWS`, 0 where there is no word.
        difficulty: Severity of blur, noise, low contrast, mixing and occlusion, 0 to 1.
    """

    kind: Int[np.ndarray, "n c"]
    color: Int[np.ndarray, "n c"]
    size: Int[np.ndarray, "n c"]
    digit: Int[np.ndarray, "n c"]
    glyph: Int[np.ndarray, "n c"]
    mixing: Float[np.ndarray, "n c"]
    occluded: Bool[np.ndarray, "n c"]
    word: Int[np.ndarray, " n"]
    word_row: Int[np.ndarray, " n"]
    difficulty: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.kind)


@cache
def handwritten_digits() -> tuple[
    UInt8[np.ndarray, "g 8 8"], Int[np.ndarray, " g"], Int[np.ndarray, " g"]
]:
    """Returns the digit images (0 to 16), their labels, and their partition.

    The partition is 0 for training, 1 for calibration, 2 for test. Source: UCI optical
    recognition of handwritten digits, CC BY 4.0.
    """
    asset = resources.files("sightline.data") / "assets" / "digits.npz"
    with asset.open("rb") as stream, np.load(stream) as arrays:
        return (
            arrays["images"],
            arrays["labels"].astype(np.int64),
            arrays["partition"].astype(np.int64),
        )


def _polygon_mask(shape: str, pixels: int, angle_deg: float) -> np.ndarray:
    """One shape, centred in a window, 0 to 1, anti-aliased."""
    scale = _SUPERSAMPLING
    side = _WINDOW * scale
    canvas = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    low, high = (side - pixels * scale) / 2, (side + pixels * scale) / 2
    box = (low, low, high, high)
    width = high - low
    if shape == "circle":
        draw.ellipse(box, fill=255)
    elif shape == "ring":
        draw.ellipse(box, fill=255)
        inset = width * 0.27
        draw.ellipse((low + inset, low + inset, high - inset, high - inset), fill=0)
    elif shape == "square":
        inset = width * 0.06
        draw.rectangle((low + inset, low + inset, high - inset, high - inset), fill=255)
    elif shape == "triangle":
        draw.polygon([((low + high) / 2, low), (high, high), (low, high)], fill=255)
    else:
        third = width * 0.34
        draw.rectangle((low + third, low, high - third, high), fill=255)
        draw.rectangle((low, low + third, high, high - third), fill=255)
    turned = canvas.rotate(angle_deg, resample=Image.Resampling.BILINEAR)
    small = turned.resize((_WINDOW, _WINDOW), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255.0


@cache
def _shape_masks() -> np.ndarray:
    """All shape masks, flat: shape, size, diameter, angle; each a window of pixels."""
    return np.stack(
        [
            _polygon_mask(shape, pixels, angle).ravel()
            for shape in SHAPES
            for diameters in _PIXELS
            for pixels in diameters
            for angle in _ANGLES_DEG
        ]
    )


@cache
def _digit_masks() -> np.ndarray:
    """All digit masks, flat: handwritten image, variant of size and slant."""
    images, _, _ = handwritten_digits()
    rng = np.random.default_rng(0)
    masks = np.zeros((len(images), _DIGIT_VARIANTS, _WINDOW, _WINDOW), dtype=np.float32)
    for index, image in enumerate(images):
        tall = Image.fromarray((image * 15).astype(np.uint8))
        for variant in range(_DIGIT_VARIANTS):
            height = int(rng.integers(14, 17))
            width = int(rng.integers(12, 16))
            glyph = tall.resize((width, height), Image.Resampling.BICUBIC)
            turned = glyph.rotate(
                float(rng.uniform(-10, 10)), resample=Image.Resampling.BICUBIC, expand=False
            )
            top, left = (_WINDOW - height) // 2, (_WINDOW - width) // 2
            masks[index, variant, top : top + height, left : left + width] = np.asarray(turned)
    return np.clip(masks / 200.0, 0.0, 1.0).reshape(len(images) * _DIGIT_VARIANTS, -1)


@cache
def _word_masks() -> np.ndarray:
    """Every word, centred in one row of the picture, 0 to 1."""
    masks = np.zeros((len(WORDS), CELL, SIDE), dtype=np.float32)
    for index, word in enumerate(WORDS):
        size = 15
        font = ImageFont.load_default(size)
        while font.getlength(word) > SIDE - 2:
            size -= 1
            font = ImageFont.load_default(size)
        canvas = Image.new("L", (SIDE, CELL), 0)
        ImageDraw.Draw(canvas).text((SIDE / 2, CELL / 2), word, fill=255, font=font, anchor="mm")
        masks[index] = np.asarray(canvas, dtype=np.float32) / 255.0
    return masks


def _object_masks(scenes: Scenes, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Rows, cells and masks of all objects, each mask jittered within its cell."""
    rows, cells = np.nonzero(scenes.kind >= 0)
    kind, size = scenes.kind[rows, cells], scenes.size[rows, cells]
    is_digit = kind == DIGIT
    draws = len(rows)
    diameter = rng.integers(0, 3, draws)
    angle = rng.integers(0, len(_ANGLES_DEG), draws)
    shape_index = ((np.minimum(kind, DIGIT - 1) * 2 + size) * 3 + diameter) * len(
        _ANGLES_DEG
    ) + angle
    digit_index = np.maximum(scenes.glyph[rows, cells], 0) * _DIGIT_VARIANTS + rng.integers(
        0, _DIGIT_VARIANTS, draws
    )
    pixels = np.asarray(_PIXELS)[size, diameter]
    reach = np.where(is_digit, 1, np.minimum((CELL - pixels) // 2, MARGIN))
    top = MARGIN + np.rint(rng.uniform(-1, 1, draws) * reach).astype(np.int64)
    left = MARGIN + np.rint(rng.uniform(-1, 1, draws) * reach).astype(np.int64)
    steps = np.arange(CELL)
    window = (top[:, None] + steps)[:, :, None] * _WINDOW + (left[:, None] + steps)[:, None, :]
    masks = np.empty((draws, CELL, CELL), dtype=np.float32)
    for chosen, bank, index in (
        (~is_digit, _shape_masks, shape_index),
        (is_digit, _digit_masks, digit_index),
    ):
        if chosen.any():
            masks[chosen] = bank()[index[chosen, None, None], window[chosen]]
    return rows, cells, masks


def _backgrounds(n: int, shifted: bool, rng: np.random.Generator) -> np.ndarray:
    """Smooth grey-ish backgrounds, or checked ones for the shifted split."""
    base = rng.uniform(95, 165, (n, 1, 1, 1)) + rng.uniform(-12, 12, (n, 1, 1, 3))
    coarse = rng.uniform(-1, 1, (n, 4, 4)).astype(np.float32)
    places = np.linspace(0, 3, SIDE)
    low = np.minimum(places.astype(int), 2)
    weights = np.zeros((SIDE, 4), dtype=np.float32)
    weights[np.arange(SIDE), low] = 1 - (places - low)
    weights[np.arange(SIDE), low + 1] = places - low
    smooth = np.matmul(np.matmul(weights, coarse), weights.T)[..., None]
    texture = rng.uniform(5, 26, (n, 1, 1, 1)) * smooth
    if shifted:
        period = rng.integers(3, 8, (n, 1, 1))
        across = np.arange(SIDE)[None, None, :] // period
        down = np.arange(SIDE)[None, :, None] // period
        sign = np.where((across + down) % 2 == 0, 1.0, -1.0)[..., None]
        texture = texture + rng.uniform(8, 26, (n, 1, 1, 1)) * sign
        base = base + rng.uniform(-25, 25, (n, 1, 1, 3))
    return (base + texture).astype(np.float32)


def _bars(scenes: Scenes, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Rows, cells and masks of the bars that cover part of an object."""
    rows, cells = np.nonzero(scenes.occluded)
    draws = len(rows)
    width = rng.integers(3, 6, draws)[:, None]
    start = rng.integers(2, CELL - 5, draws)[:, None]
    steps = np.arange(CELL)[None, :]
    line = ((steps >= start) & (steps < start + width)).astype(np.float32)
    upright = rng.random(draws) < 0.5
    masks = np.where(upright[:, None, None], line[:, None, :], line[:, :, None])
    return rows, cells, np.broadcast_to(masks, (draws, CELL, CELL))


def _blurred(images: np.ndarray) -> np.ndarray:
    """Every pixel's mean over a 5×5 neighbourhood, edges repeated."""
    for axis in (1, 2):
        widths = [(0, 0)] * 4
        widths[axis] = (2, 2)
        padded = np.pad(images, widths, mode="edge")
        length = images.shape[axis]
        total = np.zeros_like(images)
        for step in range(5):
            total += np.take(padded, np.arange(step, step + length), axis=axis)
        images = total / np.float32(5)
    return images


def render(
    scenes: Scenes, rng: np.random.Generator, *, shifted: bool = False
) -> UInt8[np.ndarray, "n 48 48 3"]:
    """Draws the pictures of a batch.

    Args:
        scenes: What to draw.
        rng: Source of jitter, rotation, background and noise.
        shifted: Checked backgrounds and striped objects instead of the usual ones.

    Returns:
        RGB pictures.
    """
    n = len(scenes)
    difficulty = scenes.difficulty.astype(np.float32)[:, None, None, None]
    background = _backgrounds(n, shifted, rng)
    tiles = (
        background.reshape(n, GRID, CELL, GRID, CELL, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(n, CELLS, CELL, CELL, 3)
    )
    rows, cells, masks = _object_masks(scenes, rng)
    if shifted:
        steps = np.arange(CELL)
        stripes = np.where((steps[None, :] + steps[:, None]) % 4 < 2, 1.0, 0.55)
        masks = masks * stripes.astype(np.float32)
    palette = np.asarray(list(COLORS.values()), dtype=np.float32)
    color = scenes.color[rows, cells]
    share = scenes.mixing[rows, cells].astype(np.float32)[:, None]
    paint = (1 - share) * palette[color] + share * palette[np.asarray(CONFUSABLE)[color]]
    paint = paint + rng.uniform(-10, 10, paint.shape).astype(np.float32)
    cover = masks[..., None]
    ground = tiles[rows, cells]
    tiles[rows, cells] = ground + cover * (paint[:, None, None, :] - ground)
    rows, cells, masks = _bars(scenes, rng)
    shade = rng.uniform(90, 170, (len(rows), 1, 1, 1)).astype(np.float32)
    ground = tiles[rows, cells]
    tiles[rows, cells] = ground + masks[..., None] * (shade - ground)
    images = (
        tiles.reshape(n, GRID, GRID, CELL, CELL, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(n, SIDE, SIDE, 3)
    )
    _write_words(images, scenes, rng)
    weight = difficulty * rng.uniform(0.4, 1.0, (n, 1, 1, 1)).astype(np.float32)
    images = images + weight * (_blurred(images) - images)
    contrast = 1 - 0.7 * difficulty * rng.uniform(0.4, 1.0, (n, 1, 1, 1)).astype(np.float32)
    images = 128 + contrast * (images - 128)
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    images = images + (3 + 18 * difficulty + 24 * difficulty**3) * noise
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _write_words(images: np.ndarray, scenes: Scenes, rng: np.random.Generator) -> None:
    """Writes each picture's word, dark or red on white, over the row it fills."""
    written = np.flatnonzero(scenes.word >= 0)
    inks = np.asarray([(200, 30, 30), (25, 25, 25)], dtype=np.float32)
    choice = rng.integers(0, 2, len(written))
    for picture, ink in zip(written, choice, strict=True):
        mask = _word_masks()[scenes.word[picture]][..., None]
        top = int(scenes.word_row[picture]) * CELL
        images[picture, top : top + CELL] = 248 + mask * (inks[ink] - 248)
