"""A process that decodes images, so that a hostile file can harm nothing but it.

File and pixels cross in one anonymous file that both processes hold; lines on standard input and
output say how long they are. No pickle, no shared state, a limit on the address space.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

ADDRESS_SPACE = 2 << 30


def serve(
    requests: Iterable[bytes],
    answer: Callable[[dict[str, Any]], None],
    shared: int,
    limits: dict[str, float],
) -> None:
    """Says that it is ready, then decodes a file for every line that gives its length.

    Args:
        requests: Lines with the length of the file that lies in the shared file.
        answer: Takes that it is ready, then the size of the RGB picture that lies there now, or
            an error's text.
        shared: Descriptor of the shared file.
        limits: Fields of `sightline.data.images.ImageLimits`.
    """
    from sightline.core.errors import ImageError
    from sightline.data.images import ImageLimits, decode

    checked = ImageLimits(
        max_pixels=int(limits["max_pixels"]),
        max_bytes=int(limits["max_bytes"]),
        min_side=int(limits["min_side"]),
        max_aspect=limits["max_aspect"],
    )
    answer({"ready": True})
    for line in requests:
        try:
            image = decode(read_shared(shared, int(line)), checked, name="The image")
        except ImageError as error:
            answer({"error": str(error)})
            continue
        write_shared(shared, image.tobytes())
        answer({"size": image.size})


def read_shared(shared: int, length: int) -> bytes:
    """The first bytes of the shared file."""
    if length == 0:
        return b""
    with mmap.mmap(shared, length, prot=mmap.PROT_READ) as view:
        return view[:]


def write_shared(shared: int, data: bytes) -> None:
    """Puts bytes at the start of the shared file, which becomes just as long."""
    os.ftruncate(shared, 0)
    rest = memoryview(data)
    while rest:
        rest = rest[os.pwrite(shared, rest, len(data) - len(rest)) :]


def main() -> None:
    """Limits this process and serves standard input."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but answers reaches the pipe

    def answer(said: dict[str, Any]) -> None:
        sink.write(json.dumps(said).encode() + b"\n")
        sink.flush()

    serve(sys.stdin.buffer, answer, int(sys.argv[1]), json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
