"""Images of requests as files: from data URLs to bytes, checked by how they begin."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re

from sightline.core.errors import ImageError
from sightline.data.images import check_header, image_extension
from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits

_KINDS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/jpg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
}
"""Media types of images that are read, and how their files begin (`image_extension`)."""
_PIECE = 1 << 20
"""Characters of base64 that are decoded without letting go of the interpreter; divisible by 4."""
_DATA = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(;[a-z0-9=.-]+)*;base64", re.IGNORECASE)
LARGE = 1 << 18
"""Bytes from which a file is read and hashed beside the event loop, which it would hold up."""


def read_data_url(url: str, limits: Limits, param: str) -> bytes:
    """The bytes of a ``data:`` URL in base64.

    Raises:
        RequestError: It is none, not of an image, of another type than it says, or beyond the
            limit, which is checked first.
    """
    head, comma, content = url.partition(",")
    match = _DATA.fullmatch(head) if comma else None
    if match is None:
        raise RequestError(
            "The image is not a data URL in base64; data:image/png;base64,… is required. "
            "Encode the file so.",
            param=param,
            code="invalid_image_url",
        )
    kind = match[1].lower()
    if kind not in _KINDS:
        raise _not_read(kind, param)
    if len(content) * 3 // 4 - content.count("=", -2) > limits.max_image_bytes:
        raise RequestError(
            f"An image has more than {limits.max_image_bytes} bytes; that is the most that is "
            "read. Compress it.",
            status=413,
            param=param,
            code="image_too_large",
        )
    try:
        data = _decoded(content)
    except (binascii.Error, ValueError):
        raise RequestError(
            "The image's base64 is damaged; the standard alphabet without line breaks is "
            "required. Encode the file again.",
            param=param,
            code="invalid_base64",
        ) from None
    require_named(data, kind, param)
    return data


def _decoded(content: str) -> bytes:
    """The bytes of base64, piece by piece, so that other threads go on meanwhile.

    Raises:
        binascii.Error: It is not in the standard alphabet, or not whole.
        ValueError: It holds characters beyond ASCII.
    """
    padding = content.find("=")
    if len(content) % 4 or 0 <= padding < len(content) - 2:
        raise binascii.Error
    pieces = (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))
    return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)


def require_named(data: bytes, said: str, param: str) -> None:
    """Requires that an image file is what it is said to be; what is no image is left to others.

    Args:
        data: The file.
        said: Its media type, in lower case.
        param: The field it came from, for errors.

    Raises:
        RequestError: Files of that type are not read, or the bytes are of another one.
    """
    if said not in _KINDS:
        raise _not_read(said, param)
    found = image_extension(data)
    if found not in (None, _KINDS[said]):
        own = _media_type(found)
        raise RequestError(
            f"The image is said to be {said} and its bytes are {own}; the type of the bytes is "
            f"required. Call it {own}.",
            param=param,
            code="mislabelled_image",
        )


def _not_read(kind: str, param: str) -> RequestError:
    return RequestError(
        f"The image's type is {kind[:40]!r}; image/png, image/jpeg, image/webp or image/gif is "
        "required. Convert the file.",
        param=param,
        code="unsupported_image",
    )


async def digest_of(data: bytes) -> str:
    """SHA-256 of a file, of a large one beside the event loop."""
    if len(data) < LARGE:
        return hashlib.sha256(data).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()


def as_data_url(data: bytes) -> str:
    """An image file as a data URL."""
    return f"data:{_media_type(image_extension(data))};base64,{base64.b64encode(data).decode()}"


def _media_type(extension: str | None) -> str:
    return "image/jpeg" if extension == "jpg" else f"image/{extension or 'png'}"


def require_image(data: bytes, limits: Limits, param: str) -> int:
    """Requires an image within the limits, by its header alone; no pixel is decoded.

    Returns:
        Its pixels.

    Raises:
        RequestError: It is none that is read, or breaks a limit.
    """
    try:
        width, height = check_header(data, limits.images, name="The image")
    except ImageError as error:
        raise RequestError(str(error), param=param, code="invalid_image") from None
    return width * height


def require_pixels(total: int, limits: Limits, param: str) -> None:
    """Requires that the pixels of a request's images together are within the limit.

    Raises:
        RequestError: They are not.
    """
    if total > limits.max_request_pixels:
        raise RequestError(
            f"The images have {total} pixels together; at most {limits.max_request_pixels} are "
            "read. Scale them down.",
            param=param,
            code="image_too_large",
        )
