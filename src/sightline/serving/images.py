"""Decoding the images of requests, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import sys
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sightline.serving.decoder import write_shared
from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

_DIED = (OSError, ValueError)
"""What talking to a process raises that is gone: broken pipes, and answers that are none."""
_START_S = 60.0
_BAND = 1 << 20
"""Pixels that are copied without letting go of the interpreter."""
_CACHED = 64
_CACHED_PIXELS = 32_000_000


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
        self._alive: list[weakref.ref[Image]] = []
        self._arriving = 0
        self._coming: dict[str, asyncio.Future[Image]] = {}

    async def start(self) -> None:
        """Starts one process, so that the first picture need not wait for it."""
        self._idle.append(await self._started())

    async def close(self) -> None:
        """Ends the processes."""
        while self._idle:
            decoder = self._idle.pop()
            decoder.end()
            await decoder.process.wait()

    async def image(self, data: bytes, param: str, key: str) -> Image:
        """Decodes an image; the same object comes back for an equal key while it is cached.

        Args:
            data: The image file.
            param: The field it came from, for errors.
            key: Of these bytes, and of those who may share the object: what is cached for others
                cannot be told from the time that an answer takes.

        Raises:
            RequestError: The file is no image that is read, breaks a limit, or there is no room
                for it (503).
        """
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        if key not in self._coming:
            task = asyncio.ensure_future(self._decoded(key, data, param))
            self._coming[key] = task
            task.add_done_callback(lambda done: self._arrived(key, done))
        coming = self._coming[key]
        await asyncio.wait((coming,))  # goes on for others when this client leaves
        error = coming.exception()
        if error is not None:
            raise copy(error)  # each has its own: it remembers whose request it came through
        return coming.result()

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

    def _require_room(self, pixels: int) -> None:
        """Requires room for an image beside those that are alive, wherever they are held.

        Raises:
            RequestError: They are too many pixels together; status 503.
        """
        most = self._limits.max_held_pixels
        while (held := self._held() + pixels) > most and self._known:
            self._forget()
        if held > most:
            raise RequestError(
                f"The images of all requests would have {held} pixels; at most {most} are held at "
                "once. Try again.",
                status=503,
                code="memory_full",
                retry_after=1,
            )

    def _held(self) -> int:
        """Pixels of all images that are alive, or on their way here."""
        found = [(one, image) for one in self._alive if (image := one()) is not None]
        self._alive = [one for one, _ in found]
        return self._arriving + sum(image.width * image.height for _, image in found)

    async def _asked(self, decoder: _Decoder, data: bytes, param: str) -> Image:
        """Has a process decode a picture; it goes on waiting unless it hangs or died.

        Raises:
            RequestError: The picture is refused, or took too long.
            OSError: The process died.
            ValueError: The process died in the middle of its answer.
        """
        whole, room = False, 0

        def require_room(pixels: int) -> None:
            nonlocal room
            self._require_room(pixels)
            room = pixels  # taken at once: others ask for theirs while this one is copied
            self._arriving += pixels

        try:
            async with asyncio.timeout(self._limits.decode_s):
                image = await _ask(decoder, data, param, require_room)
            self._alive.append(weakref.ref(image))
            whole = True
        except RequestError:
            whole = True
            raise
        except TimeoutError:
            raise _undecodable(param) from None
        finally:
            self._arriving -= room
            if whole:
                self._idle.append(decoder)
            else:  # it hangs, died, or stands in the middle of an answer
                decoder.end()
        return image

    def _keep(self, key: str, image: Image) -> None:
        self._known[key] = image
        self._pixels += image.width * image.height
        while len(self._known) > _CACHED or self._pixels > _CACHED_PIXELS:
            self._forget()

    def _forget(self) -> None:
        """Drops the image that was not asked for longest from the cache."""
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


async def _ask(
    decoder: _Decoder, data: bytes, param: str, require_room: Callable[[int], None]
) -> Image:
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
    require_room(width * height)
    return await asyncio.to_thread(_shared_image, decoder.shared, width, height)


def _shared_image(shared: int, width: int, height: int) -> Image:
    """The picture in the shared file, in bands, so that other threads go on meanwhile."""
    from PIL import Image

    made = Image.new("RGB", (width, height))
    rows = max(1, _BAND // width)
    with mmap.mmap(shared, width * height * 3, prot=mmap.PROT_READ) as view:
        for top in range(0, height, rows):
            band = min(rows, height - top)
            data = view[top * width * 3 : (top + band) * width * 3]
            made.paste(Image.frombytes("RGB", (width, band), data), (0, top))
    return made


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
