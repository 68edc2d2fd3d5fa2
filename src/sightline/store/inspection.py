"""Checking a run byte by byte, and removing what killed writers left behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sightline.core.errors import CorruptStoreError, SightlineError
from sightline.store.columns import list_columns, read_column
from sightline.store.derived import (
    DERIVED_FEATURES,
    Derivation,
    DerivedShard,
    derived_files,
    folder,
)
from sightline.store.disk import DamagedFileError, disk_errors, is_temporary, remove_file
from sightline.store.examples import StoredExamples, read_rejected
from sightline.store.layout import (
    COLUMNS,
    EXAMPLES_FILE,
    IMAGES,
    MANIFEST,
    PARTS,
    REJECTED_FILE,
    SHARDS,
    committed_shards,
    is_run,
    require_run,
)
from sightline.store.rows import StoredShard, rows_path
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
        for derivation, index in derived_files(path):
            file = rows_path(folder(path, derivation), index)
            check(
                file,
                lambda k=derivation, i=index: _read_derived(path, k, i, found[0]),  # type: ignore[misc]
            )
    for kind, name in list_columns(path / COLUMNS):
        file = path / COLUMNS / f"{kind.value}.{name}.parquet"
        check(file, lambda kind=kind, name=name: read_column(path / COLUMNS, kind, name))  # type: ignore[misc]
    for image in sorted((path / IMAGES).iterdir()) if (path / IMAGES).is_dir() else ():
        if not is_temporary(image.name):
            check(image, lambda image=image: _check_image(image))  # type: ignore[misc]
    for part in PARTS:
        if is_run(path / part):
            inner = verify_run(path / part)
            problems += [replace(found, file=f"{part}/{found.file}") for found in inner]
    return problems


def _read_shard(path: Path, index: int, manifest: Manifest, examples: StoredExamples) -> None:
    size = manifest.shard_size
    shard = StoredShard(path / SHARDS, index, manifest.run_hash())
    mine = {e.id: e for e in examples.between(index * size, (index + 1) * size)}
    for _ in shard.records(mine, condition=None, features=None, layers=None):
        pass
    for _ in (*shard.quarantined(), *shard.refused()):
        pass


def _read_derived(path: Path, kind: Derivation, index: int, manifest: Manifest) -> None:
    if index not in committed_shards(path):
        return
    shard = StoredShard(path / SHARDS, index, manifest.run_hash())
    derived = DerivedShard(path, kind, index, manifest.run_hash(), shard.seal)
    derived.read(DERIVED_FEATURES[kind])


def _check_image(path: Path) -> None:
    with disk_errors(f"Reading {path}"), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != path.name.partition(".")[0]:
        raise DamagedFileError(
            path, "bytes that differ from its name", "the whole file", "Restore it from a copy."
        )


def collect_garbage(path: Path) -> Removed:
    """Removes unfinished files and array files that no table beside them names.

    The caller holds the run's lock. Array files stay whose table is damaged. Derived tables of rows
    that were collected anew go, too.
    """
    manifest = manifest_from_dict(load_document(path / MANIFEST), path / MANIFEST)
    kept, damaged, stale = _named_arrays(path, manifest.run_hash())
    plain = (path, path / COLUMNS, path / IMAGES)
    removed, size = [], 0
    for file in _files(path):
        orphan = file.parent not in plain and _is_orphan(file, kept, damaged)
        if orphan or file in stale or is_temporary(file.name):
            size += file.stat().st_size
            remove_file(file)
            removed.append(str(file.relative_to(path)))
    for part in PARTS:
        if is_run(path / part):
            inner = collect_garbage(path / part)
            removed += [f"{part}/{name}" for name in inner.files]
            size += inner.bytes
    return Removed(tuple(removed), size)


def _named_arrays(path: Path, run_hash: str) -> tuple[set[Path], set[Path], set[Path]]:
    """Array files that a table names; tables that cannot be read; tables of rows that are gone."""
    kept: set[Path] = set()
    damaged: set[Path] = set()
    stale: set[Path] = set()
    seals: dict[int, str] = {}
    for index in committed_shards(path):
        try:
            shard = StoredShard(path / SHARDS, index, run_hash)
        except CorruptStoreError:
            damaged.add(rows_path(path / SHARDS, index))
        else:
            kept.add(path / SHARDS / (shard.summary.arrays or ""))
            seals[index] = shard.seal
    for kind, index in derived_files(path):
        table = rows_path(folder(path, kind), index)
        try:
            derived = DerivedShard(path, kind, index, run_hash, seals.get(index, ""))
        except CorruptStoreError:
            damaged.add(table)
            continue
        if derived.is_current or index not in seals:
            kept.add(table.parent / (derived.arrays or ""))
        else:
            stale.add(table)
    return kept, damaged, stale


def _is_orphan(file: Path, kept: set[Path], damaged: set[Path]) -> bool:
    """Whether it is an array file that no table names, nor may name where one is damaged."""
    match = FILE_NAME.fullmatch(file.name)
    if match is None or file in kept:
        return False
    return rows_path(file.parent, int(match[1])) not in damaged


def _files(path: Path) -> Iterator[Path]:
    derived = [folder(path, kind) for kind in Derivation]
    for place in (path, path / SHARDS, *derived, path / COLUMNS, path / IMAGES):
        if place.is_dir():
            yield from sorted(entry for entry in place.iterdir() if entry.is_file())
