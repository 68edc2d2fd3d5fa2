"""Where things lie: the names inside a run's directory, and runs inside a folder of runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sightline.core.errors import StoreError
from sightline.store.disk import (
    disk_errors,
    is_temporary,
    remove_file,
    remove_tree,
    sync_directory,
)

MANIFEST = "manifest.json"
EXAMPLES_FILE = "examples.parquet"
REJECTED_FILE = "rejected.parquet"
SHARDS = "shards"
COLUMNS = "columns"
DERIVED = "derived"
IMAGES = "images"
CLASSES = "classes"
SUPPORT = "support"
PARTS = (CLASSES, SUPPORT)
"""Runs of their own within the run of a zero-shot classifier: its class texts, labelled images."""
EVALUATION = "evaluation"
LOG = "log.jsonl"
LOCK = "lock"

_EMBEDDED_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")

_ROWS_NAME = re.compile(r"([0-9]{6,})\.parquet")
_RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def is_run(path: Path) -> bool:
    """Whether a run was created at the path.

    Raises:
        StoreError: The path cannot be looked at.
    """
    with looking_at(path):
        return (path / MANIFEST).is_file()


def require_run(path: Path) -> None:
    """Raises a StoreError unless there is a run at the path."""
    if not is_run(path):
        raise StoreError(
            f"{path} is not a run; a directory with a {MANIFEST} is required. "
            "See 'sightline runs ls'."
        )


@contextmanager
def looking_at(path: Path) -> Iterator[None]:
    """Turns the system's refusal to look at a path into one line.

    Raises:
        StoreError: The path is too long, or forbidden.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be looked at ({error.strerror or error}); a path that may be read is "
            "required. Correct it or its permissions."
        ) from None


def run_path(root: Path, name: str) -> Path:
    """Path of the named run in a folder of runs.

    Raises:
        StoreError: The name could lead out of the folder, or is none.
    """
    if _RUN_NAME.fullmatch(name) is None or _RESERVED.fullmatch(name) or ".." in name:
        raise StoreError(
            f"Run name {name[:80]!r}; 1 to 128 letters, digits, '.', '_' and '-' are required. "
            "See 'sightline runs ls' for the names there are."
        )
    path = root / name
    if path.resolve().parent != root.resolve():
        raise StoreError(
            f"Run {name!r} leads out of {root}; a run must lie in the folder itself. "
            "Give the path of the directory that it links to."
        )
    return path


def committed_shards(path: Path, folder: str = SHARDS) -> list[int]:
    """Indices of the shards whose Parquet file is in place.

    Args:
        path: The run.
        folder: Where in the run to look: the rows, or one derived signal.
    """
    if not (path / folder).is_dir():
        return []
    with disk_errors(f"Reading {path / folder}"):
        names = [entry.name for entry in (path / folder).iterdir()]
    found = [int(match[1]) for name in names if (match := _ROWS_NAME.fullmatch(name))]
    return [index for index in found if f"{index:06d}.parquet" in names]


def require_free(path: Path, *, overwrite: bool) -> None:
    """Raises a StoreError unless a run may be created at the path."""
    if is_run(path):
        if overwrite:
            return
        raise StoreError(
            f"{path} already holds a run; a new run requires a directory of its own. "
            "Choose another folder, resume it, or start again with --overwrite."
        )
    if not path.exists():
        return
    if not path.is_dir():
        raise StoreError(f"{path} is a file; a run requires a directory. Choose another path.")
    foreign = _foreign(path)
    if foreign is not None:
        raise StoreError(
            f"{path} holds {foreign}, which is no part of a new run; an empty directory is "
            "required. Choose another folder."
        )


def _foreign(path: Path) -> str | None:
    """The first entry of a directory that a run which was just begun would not have written."""
    own = {EXAMPLES_FILE, REJECTED_FILE, LOCK}
    for entry in path.iterdir():
        empty = entry.name in (SHARDS, COLUMNS) and not any(entry.iterdir())
        # Embedded images are written while the data set is read, which is before the run exists.
        embedded = entry.name == IMAGES and all(
            _EMBEDDED_NAME.fullmatch(image.name) or is_temporary(image.name)
            for image in entry.iterdir()
        )
        begun = entry.name in PARTS and entry.is_dir() and _foreign(entry) is None
        part = begun or (entry.name in PARTS and is_run(entry))
        if not (entry.name in own or empty or embedded or part or is_temporary(entry.name)):
            return entry.name
    return None


def remove_run(path: Path) -> None:
    """Removes a run's own files, and the evaluation made from them.

    The manifest goes last: until then the directory is a run with fewer shards, after that an
    empty one. The caller holds the lock. Files that are no part of a run stay, and so do embedded
    images: they are named by their content, and the next run's may be among them already.

    Raises:
        StoreError: There is no run at the path.
    """
    if not is_run(path):
        raise StoreError(f"{path} is not a run; only runs are removed. Check the path.")
    for index in committed_shards(path):
        remove_file(path / SHARDS / f"{index:06d}.parquet")
    for name in PARTS:
        if is_run(path / name):
            remove_run(path / name)
        remove_tree(path / name)
    for name in (EVALUATION, COLUMNS, DERIVED, SHARDS, LOG):
        remove_tree(path / name)
    with disk_errors(f"Removing {path}"):
        sync_directory(path)
    remove_file(path / MANIFEST)
    with disk_errors(f"Removing {path}"):
        sync_directory(path)
    for name in (EXAMPLES_FILE, REJECTED_FILE):
        remove_tree(path / name)
