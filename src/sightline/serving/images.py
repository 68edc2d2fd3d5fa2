"""Images of requests: from data URLs to bytes; decoding happens in processes of their own."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
import re
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sightline.core.errors import ImageError
from sightline.data.images import check_header, image_extension
from sightline.serving.decoder import read_shared, write_shared
from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

_KINDS = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"})
_DATA = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(;[a-z0-9=.-]+)*;base64", re.IGNORECASE)
_DIED = (OSError, ValueError)
"""What talking to a process raises that is gone: broken pipes, and answers that are none."""
_START_S = 60.0
_CACHED = 64
_CACHED_PIXELS = 32_000_000


def read_data_url(url: str, limits: Limits, param: str) -> bytes:
    """The bytes of a ``data:`` URL in base64.

    Raises:
        RequestError: It is none, not of an image, or beyond the limit, which is checked first.
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
    if match[1].lower() not in _KINDS:
        raise RequestError(
            f"The image's type is {match[1][:40]!r}; image/png, image/jpeg, image/webp or "
            "image/gif is required. Convert the file.",
            param=param,
            code="unsupported_image",
        )
    if len(content) * 3 // 4 - content.count("=", -2) > limits.max_image_bytes:
        raise RequestError(
            f"An image has more than {limits.max_image_bytes} bytes; that is the most that is "
            "read. Compress it.",
            status=413,
            param=param,
            code="image_too_large",
        )
    try:
        if len(content) % 4:
            raise binascii.Error
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            "The image's base64 is damaged; the standard alphabet without line breaks is "
            "required. Encode the file again.",
            param=param,
            code="invalid_base64",
        ) from None


def as_data_url(data: bytes) -> str:
    """An image file as a data URL."""
    found = image_extension(data)
    kind = "jpeg" if found == "jpg" else found or "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


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


@dataclass(frozen=True, slots=True, eq=False)
class _Decoder:
    """A decoding process and the file it shares."""

    process: asyncio.subprocess.Process
    shared: int

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        os.close(self.shared)


class Decoders:
    """Processes that decode images, started when first needed and replaced when they die.

    Args:
        limits: Limits on images.
        count: Processes at most.
    """

    def __init__(self, limits: Limits, count: int = 2) -> None:
        self._limits = limits
        self._free = asyncio.Semaphore(count)
        self._idle: list[_Decoder] = []
        self._known: OrderedDict[str, Image] = OrderedDict()
        self._pixels = 0
        self._coming: dict[str, asyncio.Future[Image]] = {}

    async def images(self, files: Sequence[bytes], param: str, salt: str = "") -> tuple[Image, ...]:
        """Decodes the images of one request; equal bytes give the same object while cached.

        Args:
            files: The image files.
            param: The field they came from, for errors.
            salt: Only requests with an equal one share an object; what is cached for others
                cannot be told from the time that an answer takes.

        Raises:
            RequestError: A file is no image that is read, or breaks a limit.
        """
        found = []
        for data in files:
            found.append(await self._image(data, param, salt))
            total = sum(image.width * image.height for image in found)
            require_pixels(total, self._limits, param)
        return tuple(found)

    async def start(self) -> None:
        """Starts one process, so that the first picture need not wait for it."""
        self._idle.append(await self._started())

    async def close(self) -> None:
        """Ends the processes."""
        while self._idle:
            decoder = self._idle.pop()
            decoder.end()
            await decoder.process.wait()

    async def _image(self, data: bytes, param: str, salt: str) -> Image:
        key = salt + hashlib.sha256(data).hexdigest()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        if key not in self._coming:
            task = asyncio.ensure_future(self._decoded(key, data, param))
            self._coming[key] = task
            task.add_done_callback(lambda done: self._arrived(key, done))
        # Others may wait for the same image when this client leaves.
        return await asyncio.shield(self._coming[key])

    def _arrived(self, key: str, done: asyncio.Future[Image]) -> None:
        del self._coming[key]
        if not done.cancelled():
            done.exception()  # whoever waits has it; nobody may be left

    async def _decoded(self, key: str, data: bytes, param: str) -> Image:
        async with self._free:
            image = None
            if self._idle:
                # One that died while it waited says nothing of this picture.
                with suppress(*_DIED):
                    image = await self._asked(self._idle.pop(), data, param)
            try:
                if image is None:
                    image = await self._asked(await self._started(), data, param)
            except _DIED:
                raise _undecodable(param) from None
        self._keep(key, image)
        return image

    async def _asked(self, decoder: _Decoder, data: bytes, param: str) -> Image:
        """Has a process decode a picture; it goes on waiting unless it hangs or died.

        Raises:
            RequestError: The picture is refused, or took too long.
            OSError: The process died.
            ValueError: The process died in the middle of its answer.
        """
        whole = False
        try:
            async with asyncio.timeout(self._limits.decode_s):
                image = await _ask(decoder, data, param)
            whole = True
        except RequestError:
            whole = True
            raise
        except TimeoutError:
            raise _undecodable(param) from None
        finally:
            if whole:
                self._idle.append(decoder)
            else:  # it hangs, died, or stands in the middle of an answer
                decoder.end()
        return image

    def _keep(self, key: str, image: Image) -> None:
        self._known[key] = image
        self._pixels += image.width * image.height
        while len(self._known) > _CACHED or self._pixels > _CACHED_PIXELS:
            _, old = self._known.popitem(last=False)
            self._pixels -= old.width * old.height

    async def _started(self) -> _Decoder:
        try:
            return await self._start()
        except (OSError, TimeoutError):
            raise RequestError(
                "No image can be decoded now: the process for it did not start. Try again.",
                status=503,
                code="decoder_down",
                retry_after=5,
            ) from None

    async def _start(self) -> _Decoder:
        shared = _anonymous_file()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sightline.serving.decoder",
            str(shared),
            json.dumps(asdict(self._limits.images)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(shared,),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        decoder = _Decoder(process, shared)
        try:
            # Starting takes a while on a busy machine, which is not the picture's fault.
            async with asyncio.timeout(_START_S):
                ready = process.stdout is not None and await process.stdout.readline()
        except BaseException:
            decoder.end()
            raise
        if not ready:
            decoder.end()
            raise OSError("the decoder ended before it was ready")
        return decoder


async def _ask(decoder: _Decoder, data: bytes, param: str) -> Image:
    from PIL import Image

    source, sink = decoder.process.stdin, decoder.process.stdout
    if source is None or sink is None:
        raise OSError("the decoder has no pipes")
    await asyncio.to_thread(write_shared, decoder.shared, data)
    source.write(b"%d\n" % len(data))
    await source.drain()
    said = json.loads(await sink.readline())
    if "error" in said:
        raise RequestError(said["error"], param=param, code="invalid_image")
    width, height = said["size"]
    pixels = await asyncio.to_thread(read_shared, decoder.shared, width * height * 3)
    return await asyncio.to_thread(Image.frombytes, "RGB", (width, height), pixels)


def _undecodable(param: str) -> RequestError:
    return RequestError(
        "The image cannot be decoded within the limits on time and memory; an ordinary image file "
        "is required. Convert it.",
        param=param,
        code="undecodable_image",
    )


def _anonymous_file() -> int:
    """Descriptor of a file without a name, in memory where the system has such."""
    if sys.platform == "linux":
        return os.memfd_create("sightline-image")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
