"""Decoding images safely and the same way everywhere.

What an image file holds is untrusted: its size is checked before a pixel is decoded, only four
formats are opened, and a decoder's own words never reach an error message (they can carry memory
addresses). What a file *means* is fixed by one policy, because two decoders that disagree on
transparency, rotation or bit depth would show up as model drift.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from sightline.core.errors import ImageError
from sightline.core.types import ImageRef

_T = TypeVar("_T")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""The formats that are opened, whatever the file is called."""

DECODE_POLICY = "1: first frame; EXIF rotation applied; 16 to 8 bits by high byte; on white; RGB"
"""How pixels are derived from files; the number changes whenever any pixel could."""

_AT_ONCE = 1 << 20  # bytes of a file that are hashed in one piece

_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIGNATURES = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"))

# What Pillow's readers raise on damaged files, by fuzzing and by reading them; there is no common
# base class.
_DECODER_FAILURES = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AssertionError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is refused before decoding.

    Attributes:
        max_pixels: Width times height.
        max_bytes: Size of the file.
        min_side: Shorter side, in pixels.
        max_aspect: Longer side over shorter side.
    """

    max_pixels: int = 40_000_000
    max_bytes: int = 100_000_000
    min_side: int = 1
    max_aspect: int | float = math.inf


def decode(
    source: bytes | Path,
    limits: ImageLimits = ImageLimits(),
    *,
    name: str | None = None,
) -> Image.Image:
    """Decodes an image to 8-bit RGB by `DECODE_POLICY`.

    The first frame of an animation is used, EXIF rotation is applied, 16-bit samples keep their
    high byte (scaled, not clipped), transparency is composited on white, and palette, grey and CMYK
    images are converted to RGB without colour profiles.

    Args:
        source: The file's bytes, or its path.
        limits: What to refuse.
        name: What to call the image in errors.

    Returns:
        A loaded image of mode RGB that holds no open file.

    Raises:
        ImageError: Not one of `FORMATS`, damaged, or beyond the limits.
    """
    if isinstance(source, Path):
        name = name or _shown(str(source))
        source = read_image_bytes(source, limits)
    name = name or "Image"
    with warnings.catch_warnings():
        # Pillow warns about sizes and broken metadata; sizes are errors here, the rest is harmless.
        warnings.simplefilter("ignore")
        image = _opened(source, limits, name)
        try:
            image.load()
            return to_rgb(_upright(image))
        except _DECODER_FAILURES:
            raise ImageError(
                f"{name} is damaged or cut short; a complete {image.format} file is required. "
                "Replace the file."
            ) from None


def check_header(data: bytes, limits: ImageLimits, *, name: str) -> tuple[int, int]:
    """Requires what `decode` requires, as far as the header tells; no pixel is decoded.

    Returns:
        Width and height.

    Raises:
        ImageError: Not one of `FORMATS`, or beyond the limits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _opened(data, limits, name).size


def _opened(data: bytes, limits: ImageLimits, name: str) -> Image.Image:
    """The image with its header read and its size checked."""
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(name, len(data), limits)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise ImageError(
            f"{name} has far too many pixels; at most {limits.max_pixels} are decoded. "
            "Scale it down."
        ) from None
    except _DECODER_FAILURES:
        raise ImageError(
            f"{name} is not a readable image; one of {', '.join(FORMATS)} is required. "
            "Convert or replace the file."
        ) from None
    _check_size(name, image.size, limits)
    return image


def load_image(
    ref: ImageRef,
    root: Path,
    *,
    limits: ImageLimits = ImageLimits(),
) -> Image.Image:
    """Reads, verifies and decodes the image of an example.

    Raises:
        ImageError: The file is missing, lies outside ``root`` (relative paths), is not the one
            that was hashed, or cannot be decoded.
    """
    path = ref.path
    if not os.path.isabs(path):  # noqa: PTH117 (a Path costs more than the call, a picture each)
        path = str(resolve_inside(path, root))
    data = read_image_bytes(path, limits)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise ImageError(
            f"{_shown(path)} has changed since the dataset was read (its SHA-256 differs); "
            "the same bytes are required. Restore the file, or collect into a new run."
        )
    return decode(data, limits, name=_shown(path))


def resolve_inside(path: str, root: Path) -> Path:
    """Resolves an image path and requires that it stays inside a folder.

    Args:
        path: Relative to ``root``, or absolute.
        root: The folder, itself possibly behind a symbolic link.

    Returns:
        The absolute path, free of symbolic links; the file may be missing.

    Raises:
        ImageError: The path leads out of the folder or cannot be a path.
    """
    try:
        home = root.resolve()
        resolved = (home / path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise ImageError(
            f"{_shown(path)} is not a usable path; the path of an image file is required. "
            "Correct it."
        ) from None
    if not resolved.is_relative_to(home):
        raise ImageError(
            f"{_shown(path)} leads out of the image folder {home}; images must lie inside it. "
            "Name a folder that contains it with --images."
        )
    return resolved


def read_image_bytes(path: Path | str, limits: ImageLimits = ImageLimits()) -> bytes:
    """Reads a regular file within the byte limit.

    Raises:
        ImageError: The file is missing, no regular file, unreadable or too large.
    """
    return _read(path, limits, _whole)


def hash_image_file(path: Path | str, limits: ImageLimits = ImageLimits()) -> str:
    """Returns the SHA-256 of a regular file within the byte limit, without holding it in memory.

    Raises:
        ImageError: As `read_image_bytes`.
    """
    return _read(path, limits, _digest)


def image_extension(data: bytes) -> str | None:
    """Returns jpg, png, gif or webp by the first bytes, or None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((ext for start, ext in _SIGNATURES if data.startswith(start)), None)


def thumbnail_png(image: Image.Image, side: int) -> bytes:
    """Returns the image as PNG bytes, its longer side at most ``side`` pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _read(path: Path | str, limits: ImageLimits, take: Callable[[int, int], _T]) -> _T:
    """What ``take`` makes of the file's descriptor and its size."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise ImageError(
                    f"{_shown(str(path))} is not a regular file; an image file is required. "
                    "Correct the path."
                )
            if about.st_size > limits.max_bytes:
                raise _too_many_bytes(_shown(str(path)), about.st_size, limits)
            return take(descriptor, about.st_size)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(
            f"{_shown(str(path))} does not exist; an image file is required. Correct the path."
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise ImageError(
            f"{_shown(str(path))} cannot be read ({reason}); a readable image file is required. "
            "Correct the path or its permissions."
        ) from None


def _whole(descriptor: int, size: int) -> bytes:
    """The file, and one byte more where it has grown since its size was asked."""
    data = os.read(descriptor, size + 1)
    while len(data) < size and (more := os.read(descriptor, size + 1 - len(data))):
        data += more
    return data


def _digest(descriptor: int, size: int) -> str:
    if size <= _AT_ONCE:
        return hashlib.sha256(_whole(descriptor, size)).hexdigest()
    with open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_size(name: str, size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} is {width}×{height} pixels; at most {limits.max_pixels} in all are decoded. "
            "Scale it down."
        )
    if min(size) < max(1, limits.min_side):
        raise ImageError(
            f"{name} is {width}×{height} pixels; at least {limits.min_side} a side are required. "
            "Use a larger image."
        )
    if max(size) > limits.max_aspect * min(size):
        raise ImageError(
            f"{name} is {width}×{height} pixels; sides may differ at most "
            f"{limits.max_aspect:g}-fold. Crop it."
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _DECODER_FAILURES:
        return image  # Unreadable metadata says nothing about rotation; the pixels are intact.
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB by `DECODE_POLICY`: transparency on white, 16 bits by high byte."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey16_to_rgb(image)
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, pixels).convert("RGB")
    rgb = image.convert("RGB")
    rgb.info.clear()
    return rgb


def _grey16_to_rgb(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips everything above 255 to white; for 16-bit colour it keeps the
    # high byte, and grey follows that.
    samples = np.asarray(image).astype(np.int64)
    grey = np.clip(samples, 0, 65535) >> 8
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(samples == transparent, 255, grey)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _too_many_bytes(name: str, size: int, limits: ImageLimits) -> ImageError:
    return ImageError(
        f"{name} has {size} bytes; at most {limits.max_bytes} are read. Compress the image."
    )


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else path[:199] + "…")
