"""Images of answers as small PNG data URIs; a file's own bytes never reach the page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

from sightline.core.errors import ImageError
from sightline.core.results import Evaluation
from sightline.data.images import decode, read_image_bytes, resolve_inside, thumbnail_png
from sightline.report.numbers import inert
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


def thumbnail(
    path: str,
    evaluation: Evaluation,
    image_bytes: ImageBytes,
    *,
    alt: str,
    sha256: str | None = None,
) -> Thumbnail:
    """Returns the image decoded, scaled to at most 256 pixels and encoded anew.

    Args:
        path: As the evaluation names it.
        evaluation: What the image belongs to.
        image_bytes: Reads it.
        alt: Inert text for those who do not see it.
        sha256: What the file held when the model saw it; None where that is not known.
    """
    data = image_bytes(path, evaluation)
    name = inert(Path(path).name, 80)
    if data is None:
        return Thumbnail(None, alt, f"{name} was not found")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        return Thumbnail(None, alt, f"{name} has changed since the model saw it")
    try:
        png = thumbnail_png(decode(data), SIDE)
    except ImageError:
        return Thumbnail(None, alt, f"{name} cannot be decoded")
    return Thumbnail(f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}", alt, None)
