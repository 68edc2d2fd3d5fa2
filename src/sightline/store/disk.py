"""Every system call that changes a run, in one place, so that a test can fail any one of them.

A file appears under its final name whole or not at all: it is written as
``<name>.tmp.<pid>.<uuid>``, synced, renamed, and its directory synced.
"""

# ruff: noqa: PTH102, PTH104, PTH106, PTH108
# (one `os` call each, so that a test can count and fail it)
from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import xxhash

from sightline.core.errors import CorruptStoreError, DiskError, StoreError

CHUNK = 1 << 22
_TEMPORARY = re.compile(r"\.tmp\.\d+\.[0-9a-f]{32}$")


class DamagedFileError(CorruptStoreError):
    """A file whose bytes are not those that were written.

    Attributes:
        path: The file.
        found: What is wrong with it.
        where: Which part of it.
    """

    def __init__(self, path: Path, found: str, where: str, remedy: str) -> None:
        super().__init__(
            f"{path} has {found} ({where}); stored bytes must be those that were written. {remedy}"
        )
        self.path = path
        self.found = found
        self.where = where


Buffer = bytes | bytearray | memoryview


class PendingFile:
    """A file being written under a temporary name; also what Parquet writers write to.

    Attributes:
        digest: Running xxh3-128 of the bytes written so far.
        size: Bytes written so far.
        closed: Whether it was committed or given up. What is written then is dropped: a Parquet
            writer that failed writes its footer when it is freed, and the descriptor's number may
            be another file's by then.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.digest = xxhash.xxh3_128()
        self.size = 0
        self.closed = False

    def write(self, data: Buffer) -> int:
        """Appends all of the bytes."""
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self.append(view)
        return len(view)

    def append(self, view: memoryview) -> None:
        """Appends all of the bytes without adding them to the digest."""
        if self.closed:
            return
        self.size += len(view)
        while len(view):
            view = view[os.write(self._descriptor, view) :]

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrites bytes already written; the digest keeps what was there before."""
        if os.pwrite(self._descriptor, data, offset) != len(data):
            raise OSError(f"short write at byte {offset}")

    def tail(self, offset: int) -> bytes:
        """Reads back what was written from the offset on."""
        return os.pread(self._descriptor, self.size - offset, offset)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """Called by Parquet writers; the file itself stays open until it is committed."""


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turns a failing system call into one line that names the file.

    Raises:
        DiskError: The operating system refused.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{doing} failed: {error.strerror or error}; a writable disk with free space is "
            "required. What was committed is intact: mend the disk and run the same command "
            "again, or choose another folder."
        ) from error


def write_file(path: Path, fill: Callable[[PendingFile], None]) -> None:
    """Writes a file whole or not at all; durable on return.

    Raises:
        DiskError: The operating system refused; nothing lies under the final name.
    """
    rename_file(path, fill, lambda: path)


def rename_file(
    beside: Path, fill: Callable[[PendingFile], None], final_path: Callable[[], Path]
) -> Path:
    """Like `write_file`, for a file whose name depends on what was written.

    Args:
        beside: Path of which the temporary name is made, in the final directory.
        fill: Writes the content.
        final_path: Called after `fill`; gives the final path.
    """
    temporary = beside.with_name(f"{beside.name}.tmp.{os.getpid()}.{uuid.uuid4().hex}")
    with disk_errors(f"Writing {beside}"), ExitStack() as undo:
        undo.callback(_remove_unfinished, temporary)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        file = PendingFile(descriptor)
        try:
            fill(file)
            os.fsync(descriptor)
        finally:
            file.closed = True
            os.close(descriptor)
        path = final_path()
        os.rename(temporary, path)
        undo.pop_all()
        sync_directory(path.parent)
    return path


def _remove_unfinished(path: Path) -> None:
    with suppress(OSError):
        os.unlink(path)


def sync_directory(path: Path) -> None:
    """Makes the directory's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Creates a directory and its parents where missing; durable on return."""
    with disk_errors(f"Creating {path}"):
        if path.is_dir():
            return
    make_directory(path.parent)
    with disk_errors(f"Creating {path}"):
        with suppress(FileExistsError):
            os.mkdir(path)
        sync_directory(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Appends one line to a log; a torn last line of an earlier process is closed first."""
    with disk_errors(f"Writing {path}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            view = memoryview(line + b"\n")
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)


def remove_file(path: Path) -> None:
    """Removes a file."""
    with disk_errors(f"Removing {path}"):
        os.unlink(path)


def remove_tree(path: Path) -> None:
    """Removes a file, a link, or a directory with all it holds; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            remove_tree(entry)
        with disk_errors(f"Removing {path}"):
            os.rmdir(path)
    elif path.exists() or path.is_symlink():
        remove_file(path)


def is_temporary(name: str) -> bool:
    """Whether the name is one that `write_file` gives to an unfinished file."""
    return _TEMPORARY.search(name) is not None


class RunLock:
    """Exclusive right to change a run, held by one process; the kernel frees it on any death."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> RunLock:
        with disk_errors(f"Locking {self._path}"), ExitStack() as undo:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            undo.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                raise StoreError(
                    f"{self._path.parent} is being written by process {holder or 'unknown'}; one "
                    "writer at a time is required. Wait for it to end, or stop it."
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            undo.pop_all()
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
