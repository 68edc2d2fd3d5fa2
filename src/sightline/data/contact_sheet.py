"""A picture and its perturbations side by side, each under its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont

from sightline.core.condition_names import CLEAN
from sightline.core.errors import UsageError
from sightline.core.types import Example
from sightline.data.perturbations import Condition

_GAP = 8
_FONT_SIZE = 12
_LINE = 16
_INK = (20, 20, 20)
_GROUND = (255, 255, 255)
_FRAME = (170, 170, 170)


def contact_sheet(
    image: Image.Image,
    conditions: Sequence[Condition],
    example: Example | None = None,
    *,
    answer: str | None = None,
    captions: Mapping[str, str] = MappingProxyType({}),
    tile: int = 144,
    columns: int = 6,
) -> Image.Image:
    """Lays out the clean picture and its perturbations, in reading order, each under its name.

    Args:
        image: The picture, in any mode.
        conditions: What to show after the clean picture; clean itself is shown once.
        example: What is asked about it.
        answer: The option the model chose, where a condition names another one.
        captions: A second line by condition, such as the answer under it.
        tile: Longest side of each picture on the sheet, in pixels; small ones are enlarged.
        columns: Pictures in a row.

    Returns:
        One RGB picture.

    Raises:
        UsageError: A tile or a row of no size.
        DataError: A text is to name an option other than the answer, and there is none.
    """
    if tile < 1 or columns < 1:
        raise UsageError(
            f"Tiles of {tile} px in {columns} columns; at least 1 of both is required. Raise them."
        )
    shown = [Condition(), *(c for c in conditions if c.name != CLEAN)]
    width = min(columns, len(shown))
    rows = -(-len(shown) // width)
    cell = (tile + _GAP, tile + _LINE * (2 if captions else 1) + _GAP)
    sheet = Image.new("RGB", (cell[0] * width + _GAP, cell[1] * rows + _GAP), _GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, condition in enumerate(shown):
        row, column = divmod(number, width)
        left, top = _GAP + column * cell[0], _GAP + row * cell[1]
        small = _fitted(condition.apply(image, example, answer=answer), tile)
        at = (left + (tile - small.width) // 2, top + (tile - small.height) // 2)
        sheet.paste(small, at)
        corner = (at[0] + small.width, at[1] + small.height)
        draw.rectangle((at[0] - 1, at[1] - 1, *corner), outline=_FRAME)
        _write(draw, condition.name, left, top + tile, tile)
        _write(draw, captions.get(condition.name, ""), left, top + tile + _LINE, tile)
    return sheet


def _fitted(image: Image.Image, tile: int) -> Image.Image:
    """The picture with its longer side as long as the tile; enlarged pixels stay sharp."""
    factor = tile / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    method = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    return image.resize(size, method)


def _write(draw: ImageDraw.ImageDraw, text: str, left: int, top: int, room: int) -> None:
    """Writes one line, cut off where it does not fit."""
    font = ImageFont.load_default(_FONT_SIZE)
    line = " ".join(text.split())
    if font.getlength(line) > room:
        while line and font.getlength(f"{line}…") > room:
            line = line[:-1]
        line += "…"
    draw.text((left, top + 1), line, fill=_INK, font=font)
