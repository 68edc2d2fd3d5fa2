"""Images that came embedded in a data set, kept in the run under the hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from sightline.core.types import ImageRef
from sightline.store.disk import disk_errors, make_directory, write_file
from sightline.store.layout import IMAGES


def image_writer(root: Path) -> Callable[[bytes, str], ImageRef]:
    """Returns a function that writes an image once; it is durable before a row can refer to it.

    Args:
        root: The run's directory, which need not be there yet.

    Returns:
        Called with an image file's bytes and extension, it returns the reference
        ``images/<sha256>.<extension>``, relative to the root; a file of that name with other
        content is replaced. It raises `DiskError` where the folder cannot be written.
    """

    def write(data: bytes, extension: str) -> ImageRef:
        digest = hashlib.sha256(data).hexdigest()
        ref = ImageRef(f"{IMAGES}/{digest}.{extension}", digest)
        path = root / ref.path
        make_directory(path.parent)
        if not _holds(path, digest):
            write_file(path, lambda file: file.append(memoryview(data)))
        return ref

    return write


def _holds(path: Path, sha256: str) -> bool:
    with disk_errors(f"Reading {path}"):
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False
