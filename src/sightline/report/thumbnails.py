"""Images of answers as small PNG data URIs; a file's own bytes never reach the page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from sightline.core.errors import ImageError
from sightline.core.results import Evaluation
from sightline.core.text import printable
from sightline.data.images import decode, read_image_bytes, resolve_inside, thumbnail_png
from sightline.report.view import Thumbnail

SIDE = 256

ImageBytes = Callable[[str, Evaluation], bytes | None]
"""Returns the bytes of an image file by its path in the evaluation, or None where it is gone."""


def stored_image(path: str, evaluation: Evaluation) -> bytes | None:
    """Reads an image from where the run's images lie; None where it cannot be read."""
    root = Path(evaluation.run.image_root or evaluation.run.path)
    try:
        return read_image_bytes(
            Path(path) if Path(path).is_absolute() else resolve_inside(path, root)
        )
    except ImageError:
        return None


def thumbnail(path: str, evaluation: Evaluation, image_bytes: ImageBytes, alt: str) -> Thumbnail:
    """Returns the image decoded, scaled to at most 256 pixels and encoded anew."""
    data = image_bytes(path, evaluation)
    name = printable(Path(path).name)[:80]
    if data is None:
        return Thumbnail(None, alt, f"{name} was not found")
    try:
        png = thumbnail_png(decode(data), SIDE)
    except ImageError:
        return Thumbnail(None, alt, f"{name} cannot be decoded")
    return Thumbnail(f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}", alt, None)
