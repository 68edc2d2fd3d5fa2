"""Checking a run byte by byte, and removing what killed writers left behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sightline.core.errors import CorruptStoreError, SightlineError
from sightline.store.columns import list_columns, read_column
from sightline.store.disk import DamagedFileError, disk_errors, is_temporary, remove_file
from sightline.store.examples import StoredExamples, read_rejected
from sightline.store.layout import (
    COLUMNS,
    EXAMPLES_FILE,
    IMAGES,
    MANIFEST,
    REJECTED_FILE,
    SHARDS,
    committed_shards,
    require_run,
)
from sightline.store.rows import StoredShard
from sightline.store.schema import Manifest, manifest_from_dict
from sightline.store.sealed import load_document
from sightline.store.shards import FILE_NAME


@dataclass(frozen=True, slots=True)
class Problem:
    """Damage found in a run.

    Attributes:
        file: Path within the run.
        what: What is wrong.
        where: Which part of the file.
    """

    file: str
    what: str
    where: str


@dataclass(frozen=True, slots=True)
class Removed:
    """What garbage collection removed.

    Attributes:
        files: Paths within the run.
        bytes: Their total size.
    """

    files: tuple[str, ...]
    bytes: int


def verify_run(path: Path) -> list[Problem]:
    """Reads every byte of a run and compares it with its checksum.

    Files are checked one by one, so that one damaged file does not hide another. Shards that were
    never committed are not damage.

    Raises:
        StoreError: There is no run at the path.
    """
    require_run(path)
    problems: list[Problem] = []

    def check(file: Path, read: Callable[[], object]) -> bool:
        try:
            read()
        except DamagedFileError as error:
            name = str(error.path.relative_to(path))
            problems.append(Problem(name, error.found, error.where))
            return False
        except SightlineError as error:
            problems.append(Problem(str(file.relative_to(path)), str(error), "content"))
            return False
        return True

    found: list[Manifest] = []
    manifest = path / MANIFEST
    check(manifest, lambda: found.append(manifest_from_dict(load_document(manifest), manifest)))
    check(path / REJECTED_FILE, lambda: read_rejected(path / REJECTED_FILE))
    stored: list[StoredExamples] = []
    examples = path / EXAMPLES_FILE
    sha256 = found[0].dataset.get("examples_sha256") if found else None
    intact = check(examples, lambda: stored.append(StoredExamples(examples, sha256)))
    intact = intact and check(examples, lambda: stored[0].between(0, len(stored[0])))
    if found and intact:
        for index in sorted(committed_shards(path)):
            rows = path / SHARDS / f"{index:06d}.parquet"
            check(rows, lambda index=index: _read_shard(path, index, found[0], stored[0]))  # type: ignore[misc]
    for kind, name in list_columns(path / COLUMNS):
        file = path / COLUMNS / f"{kind.value}.{name}.parquet"
        check(file, lambda kind=kind, name=name: read_column(path / COLUMNS, kind, name))  # type: ignore[misc]
    for image in sorted((path / IMAGES).iterdir()) if (path / IMAGES).is_dir() else ():
        if not is_temporary(image.name):
            check(image, lambda image=image: _check_image(image))  # type: ignore[misc]
    return problems


def _read_shard(path: Path, index: int, manifest: Manifest, examples: StoredExamples) -> None:
    size = manifest.shard_size
    shard = StoredShard(path / SHARDS, index, manifest.run_hash())
    mine = {e.id: e for e in examples.between(index * size, (index + 1) * size)}
    for _ in shard.records(mine, condition=None, features=None, layers=None):
        pass
    for _ in shard.quarantined():
        pass


def _check_image(path: Path) -> None:
    with disk_errors(f"Reading {path}"), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != path.name.partition(".")[0]:
        raise DamagedFileError(
            path, "bytes that differ from its name", "the whole file", "Restore it from a copy."
        )


def collect_garbage(path: Path) -> Removed:
    """Removes unfinished files and array files that no committed shard names.

    The caller holds the run's lock. Array files of a shard whose rows are damaged stay.
    """
    manifest = manifest_from_dict(load_document(path / MANIFEST), path / MANIFEST)
    kept: set[str] = set()
    damaged: set[int] = set()
    for index in committed_shards(path):
        try:
            shard = StoredShard(path / SHARDS, index, manifest.run_hash())
        except CorruptStoreError:
            damaged.add(index)
        else:
            kept.add(shard.summary.arrays or "")
    removed, size = [], 0
    for file in _files(path):
        match = FILE_NAME.fullmatch(file.name) if file.parent.name == SHARDS else None
        orphan = match is not None and file.name not in kept and int(match[1]) not in damaged
        if orphan or is_temporary(file.name):
            size += file.stat().st_size
            remove_file(file)
            removed.append(str(file.relative_to(path)))
    return Removed(tuple(removed), size)


def _files(path: Path) -> Iterator[Path]:
    for folder in (path, path / SHARDS, path / COLUMNS, path / IMAGES):
        if folder.is_dir():
            yield from sorted(entry for entry in folder.iterdir() if entry.is_file())
