"""Stands in for `os` in `sightline.store.disk`: counts system calls, fails or remembers them."""

# ruff: noqa: PTH102, PTH104, PTH108

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHANGING = ("open", "write", "pwrite", "fsync", "rename", "mkdir", "unlink", "rmdir", "ftruncate")


class Died(BaseException):
    """The process is gone: nothing of it runs any more, clean-up included."""


class FailingDisk:
    """Fails the k-th changing call; with ``dies``, every later one too.

    Attributes:
        calls: Names of the changing calls so far.
    """

    def __init__(self, k: int, code: int = errno.ENOSPC, *, dies: bool = False) -> None:
        self.calls: list[str] = []
        self._k = k
        self._code = code
        self._dies = dies

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._wrapped(name, real) if name in CHANGING else real

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self._k and name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if len(self.calls) == self._k or (self._dies and len(self.calls) > self._k):
                if self._dies:
                    raise Died
                raise OSError(self._code, os.strerror(self._code))
            return real(*arguments)

        return call


class ShortWrites:
    """Writes one to seven bytes at a time, as a slow disk may."""

    def __init__(self) -> None:
        self._turn = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, data: memoryview) -> int:
        self._turn += 1
        return os.write(descriptor, data[: 1 + self._turn % 7])


@dataclass
class _File:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass
class _Folder:
    entries: dict[str, _File | _Folder] = field(default_factory=dict)
    synced: dict[str, _File | _Folder] = field(default_factory=dict)
    unsynced: list[tuple[str, _File | _Folder | None]] = field(default_factory=list)

    def put(self, name: str, node: _File | _Folder | None) -> None:
        self.unsynced.append((name, node))
        if node is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = node

    def sync(self) -> None:
        self.synced = dict(self.entries)
        self.unsynced = []


class PowerLoss:
    """Remembers what a disk is bound to keep when the power fails: only what was synced.

    Real calls go through; beside them a model holds the synced bytes of every file and the synced
    entries of every directory below ``root``. `survivors` writes out what may be left.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps = 0
        self.step: Callable[[], None] = lambda: None
        self._top = _Folder()
        self._open: dict[int, _File | _Folder] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _place(self, path: str | Path) -> tuple[_Folder, str]:
        *folders, name = Path(path).relative_to(self.root).parts
        folder = self._top
        for part in folders:
            found = folder.entries[part]
            assert isinstance(found, _Folder)
            folder = found
        return folder, name

    def _done(self) -> None:
        self.steps += 1
        self.step()

    def open(self, path: str | Path, flags: int, mode: int = 0o777) -> int:
        descriptor = os.open(path, flags, mode)
        if Path(path) == self.root:
            self._open[descriptor] = self._top
            return descriptor
        folder, name = self._place(path)
        if name not in folder.entries and flags & os.O_CREAT:
            folder.put(name, _File())
        self._open[descriptor] = folder.entries[name]
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        os.close(descriptor)

    def write(self, descriptor: int, data: memoryview) -> int:
        count = os.write(descriptor, data)
        node = self._open[descriptor]
        assert isinstance(node, _File)
        node.data += data[:count]
        self._done()
        return count

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        count = os.pwrite(descriptor, data, offset)
        node = self._open[descriptor]
        assert isinstance(node, _File)
        node.data[offset : offset + count] = data[:count]
        return count

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        node = self._open[descriptor]
        if isinstance(node, _Folder):
            node.sync()
        else:
            node.synced = bytes(node.data)
        self._done()

    def rename(self, old: str | Path, new: str | Path) -> None:
        os.rename(old, new)
        folder, name = self._place(old)
        target, new_name = self._place(new)
        node = folder.entries[name]
        folder.put(name, None)
        target.put(new_name, node)
        self._done()

    def mkdir(self, path: str | Path) -> None:
        os.mkdir(path)
        folder, name = self._place(path)
        folder.put(name, _Folder())
        self._done()

    def unlink(self, path: str | Path) -> None:
        os.unlink(path)
        folder, name = self._place(path)
        folder.put(name, None)

    def survivors(self, target: Path, keep: str) -> None:
        """Writes one possible state after a power loss.

        Args:
            target: An empty directory.
            keep: Which unsynced directory entries survive: ``all``, ``none`` or only the ``last``
                of each directory. Unsynced bytes of files never do.
        """
        _survive(self._top, target, keep)


def _survive(folder: _Folder, target: Path, keep: str) -> None:
    entries = dict(folder.entries if keep == "all" else folder.synced)
    if keep == "last" and folder.unsynced:
        name, node = folder.unsynced[-1]
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node
    for name, node in entries.items():
        if isinstance(node, _Folder):
            (target / name).mkdir()
            _survive(node, target / name, keep)
        else:
            (target / name).write_bytes(node.synced)
