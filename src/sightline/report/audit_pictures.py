"""Pictures of an audit: a question's picture under a condition, and energy maps, as data URIs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline.core.audit_results import Audit, ShownExample, ShownMap
from sightline.core.condition_names import CLEAN
from sightline.core.errors import SightlineError
from sightline.core.types import Example, ImageRef
from sightline.data.images import decode, read_image_bytes, resolve_inside
from sightline.data.perturbations import parse_condition, prepared
from sightline.report.numbers import MINUS, inert

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 160
_COLOURS = ((22, 23, 60), (68, 60, 140), (190, 70, 90), (250, 190, 80), (255, 250, 210))


@dataclass(frozen=True, slots=True)
class Tile:
    """One small picture with what belongs to it; ``src`` is None where it cannot be shown."""

    src: str | None
    alt: str
    name: str = ""
    answer: str = ""
    detail: str = ""
    mark: str = ""


@dataclass(slots=True)
class PictureSource:
    """Renders pictures of audits anew from the files the runs name; each file is read once."""

    roots: dict[str, Path] = field(default_factory=dict)
    _read: dict[str, Image | None] = field(default_factory=dict)

    def tile(self, audit: Audit, shown: ShownExample, condition: str) -> Tile:
        """A question's picture under a condition; without a source where it is gone or changed."""
        name = inert(condition, 60)
        image = self._picture(audit, shown)
        if image is None:
            return Tile(None, "picture not found, or changed", name)
        step = parse_condition(condition) if condition != CLEAN else None
        try:
            example = Example(
                id=shown.example_id,
                question=shown.question,
                images=(ImageRef(shown.image, shown.image_sha256),),
            )
            changed = image if step is None else step.apply(image, example)
        except SightlineError:
            return Tile(None, "depends on the clean answer", name)
        return Tile(_data(_small(changed)), f"the picture under {name}", name)

    def _picture(self, audit: Audit, shown: ShownExample) -> Image | None:
        key = f"{audit.path}\x1f{shown.image}"
        if key not in self._read:
            self._read[key] = self._opened(audit, shown)
        return self._read[key]

    def _opened(self, audit: Audit, shown: ShownExample) -> Image | None:
        if not shown.image:
            return None
        root = self.roots.get(audit.path, Path(audit.path))
        try:
            given = Path(shown.image)
            path = given if given.is_absolute() else resolve_inside(shown.image, root)
            data = read_image_bytes(path)
            if hashlib.sha256(data).hexdigest() != shown.image_sha256:
                return None
            return prepared(decode(data))
        except SightlineError:
            return None


@dataclass(frozen=True, slots=True)
class MapRow:
    """Energy maps of one question's pictures, the clean one first."""

    question: str
    scale: str
    tiles: tuple[Tile, ...]


def map_rows(audit: Audit, pictures: PictureSource) -> tuple[MapRow, ...]:
    """Energy maps over their pictures, a row per question; one scale of colours per question."""
    known = {shown.example_id: shown for shown in (*audit.sheet, *audit.hidden, *audit.unstable)}
    rows = []
    for example_id in dict.fromkeys(found.example_id for found in audit.maps):
        shown = known.get(example_id)
        if shown is None:
            continue
        own = [found for found in audit.maps if found.example_id == example_id]
        said = {pair.condition: pair for pair in shown.pairs}
        clean = next((_mean(found) for found in own if found.condition == CLEAN), None)
        top = max(max(max(line) for line in found.values) for found in own) or 1.0
        tiles = []
        for found in own:
            under = pictures.tile(audit, shown, found.condition)
            name = inert(found.condition, 60)
            pair = said.get(found.condition)
            answer = shown.clean_answer if pair is None else pair.answer
            change = "" if clean is None or pair is None else f", Δ {_size(_mean(found) - clean)}"
            tiles.append(
                Tile(
                    _data(_coloured(np.asarray(found.values) / top, under)),
                    f"energy of the vision tokens under {name}",
                    name,
                    inert(answer, 60),
                    f"mean {_size(_mean(found))}{change}",
                    "flipped" if pair is not None and pair.flipped else "",
                )
            )
        scale = f"dark: 0, light: {_size(top)}, squared units of the tokens"
        rows.append(MapRow(inert(shown.question, 200), scale, tuple(tiles)))
    return tuple(rows)


def _size(value: float) -> str:
    """Three digits, or a whole number where it is large."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", MINUS)


def _mean(found: ShownMap) -> float:
    return float(np.mean(found.values))


def _coloured(grid: np.ndarray, under: Tile) -> Image:
    """The map, stretched over its picture, half transparent."""
    from PIL import Image

    scale = np.linspace(0.0, 1.0, len(_COLOURS))
    colours = np.asarray(_COLOURS, dtype=np.float64)
    rgb = np.stack([np.interp(grid, scale, colours[:, c]) for c in range(3)], axis=-1)
    drawn = Image.fromarray(rgb.round().astype(np.uint8))
    if under.src is None:
        return drawn.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    data = base64.b64decode(under.src.partition(",")[2])
    with Image.open(BytesIO(data)) as opened:
        grey = opened.convert("L").convert("RGB")
    grey = grey.resize([round(side * SIDE / max(grey.size)) for side in grey.size])
    return Image.blend(grey, drawn.resize(grey.size, Image.Resampling.NEAREST), 0.6)


def _small(image: Image) -> Image:
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def _data(image: Image) -> str:
    out = BytesIO()
    image.save(out, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
