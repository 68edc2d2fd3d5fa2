"""Pictures of an audit: a question's picture under a condition, and energy maps, as data URIs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline.core.audit_results import Audit, ShownExample
from sightline.core.condition_names import CLEAN
from sightline.core.errors import SightlineError
from sightline.core.types import Example, ImageRef
from sightline.data.images import decode, read_image_bytes, resolve_inside
from sightline.data.perturbations import parse_condition, prepared
from sightline.report.numbers import inert

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


def map_tiles(audit: Audit, pictures: PictureSource) -> tuple[tuple[Tile, ...], ...]:
    """Energy maps over their pictures, a row per question; one scale of colours per question."""
    rows = []
    for shown in audit.sheet:
        own = [found for found in audit.maps if found.example_id == shown.example_id]
        if not own:
            continue
        top = max(max(max(line) for line in found.values) for found in own) or 1.0
        tiles = []
        for found in own:
            grid = np.asarray(found.values) / top
            under = pictures.tile(audit, shown, found.condition)
            mean = float(np.mean(found.values))
            name = inert(found.condition, 60)
            tiles.append(
                Tile(
                    _data(_coloured(grid, under)),
                    f"energy of the vision tokens under {name}",
                    name,
                    "",
                    f"mean {mean:.4g}, dark 0, light {top:.4g}",
                )
            )
        rows.append(tuple(tiles))
    return tuple(rows)


def _coloured(grid: np.ndarray, under: Tile) -> Image:
    from PIL import Image

    scale = np.linspace(0.0, 1.0, len(_COLOURS))
    colours = np.asarray(_COLOURS, dtype=np.float64)
    rgb = np.stack([np.interp(grid, scale, colours[:, c]) for c in range(3)], axis=-1)
    drawn = Image.fromarray(rgb.round().astype(np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.NEAREST
    )
    if under.src is None:
        return drawn
    data = base64.b64decode(under.src.partition(",")[2])
    with Image.open(BytesIO(data)) as opened:
        grey = opened.convert("L").convert("RGB").resize((SIDE, SIDE))
    return Image.blend(grey, drawn, 0.7)


def _small(image: Image) -> Image:
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def _data(image: Image) -> str:
    out = BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
