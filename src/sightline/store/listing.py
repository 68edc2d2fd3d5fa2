"""What runs a folder holds."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.core.errors import DataError, SightlineError, StoreError
from sightline.core.features import Feature
from sightline.store.layout import is_run, looking_at
from sightline.store.run import RunStore

DEPTH = 4
"""Levels of folders below a root in which runs are looked for."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run at a glance.

    Attributes:
        path: Its directory.
        created: UTC time in ISO form.
        kind: collected, imported or merged.
        model: Name in the model's fingerprint, or ``unknown``.
        dataset: Name of the data set, or ``unknown``.
        examples: Examples of the plan.
        records: Observed records.
        quarantined: Keys that could not be observed.
        refused: Conditions that do not exist for an example, counted by example.
        changed: Records whose right answer changes under their condition; no views of the clean.
        unknown: Records whose right answer under their condition is not known; no views either.
        rejected: Rows of the data set that never became examples.
        committed: Shards stored.
        n_shards: Shards of the plan; fewer committed means the run can be resumed.
        conditions: Conditions stored, in order of appearance.
        features: Array features stored, derived ones included.
        derived: Derived signals, as ``kind (name)``.
        layers: Layers stored.
        columns: Columns stored, as ``kind.name``.
        partial: Why the run is not of the whole data set, or None.
        bytes: Size on disk.
    """

    path: Path
    created: str
    kind: str
    model: str
    dataset: str
    examples: int
    records: int
    quarantined: int
    refused: int
    changed: int
    unknown: int
    rejected: int
    committed: int
    n_shards: int
    conditions: tuple[str, ...]
    features: tuple[Feature, ...]
    derived: tuple[str, ...]
    layers: tuple[int, ...]
    columns: tuple[str, ...]
    partial: str | None
    bytes: int


@dataclass(frozen=True, slots=True)
class UnreadableRun:
    """A run that cannot be read.

    Attributes:
        path: Its directory.
        problem: The error, in one line.
    """

    path: Path
    problem: str


def describe_run(path: Path) -> StoredRun:
    """Reads a run's manifest and the footers of its shards; arrays are not read.

    Raises:
        StoreError: There is no run at the path, or it is damaged.
    """
    store = RunStore.open(path)
    manifest = store.manifest
    shards = [summary for _, summary in store.summaries()]
    features = store.available()
    return StoredRun(
        path=store.path,
        created=manifest.created,
        kind=manifest.kind,
        model=str(manifest.model.get("name", "unknown")),
        dataset=str(manifest.dataset.get("name", "unknown")),
        examples=int(manifest.dataset["n"]),
        records=sum(shard.records for shard in shards),
        quarantined=sum(shard.quarantined for shard in shards),
        refused=sum(shard.refused for shard in shards),
        changed=sum(shard.changed for shard in shards),
        unknown=sum(shard.unknown for shard in shards),
        rejected=int(manifest.dataset["rejected"]),
        committed=len(shards),
        n_shards=manifest.n_shards or 0,
        conditions=tuple(dict.fromkeys(name for shard in shards for name in shard.conditions)),
        features=tuple(feature for feature in Feature if feature in features),
        derived=tuple(
            f"{kind.value} ({found.source.get('name', 'unknown')})"
            for kind, found in store.derived().items()
        ),
        layers=tuple(sorted({layer for shard in shards for layer in shard.layers})),
        columns=tuple(f"{kind.value}.{name}" for kind, name in store.columns()),
        partial=manifest.partial,
        bytes=sum(map(_bytes, store.path.rglob("*"))),
    )


def _bytes(path: Path) -> int:
    """Size of a file; 0 for anything else, or if a writer has just renamed it away."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0


def list_runs(root: Path) -> list[StoredRun | UnreadableRun]:
    """Describes every run below a folder, or the folder itself if it is a run; sorted by path.

    Folders are searched down to `DEPTH` levels; never inside a run, a hidden folder or a link to a
    folder. A damaged run, or a folder that may not be read, is listed with its problem and hides
    no other.

    Raises:
        DataError: The folder does not exist.
        StoreError: It may not be read.
    """
    root = Path(root)
    with looking_at(root):
        if not root.is_dir():
            raise DataError(
                f"{root} is not a folder; a folder of runs is required. Collect or import a run "
                "first."
            )
        if is_run(root):
            return [_described(root)]
        entries = sorted(root.iterdir())
    return list(_found(entries, DEPTH))


def _found(entries: Sequence[Path], depth: int) -> Iterator[StoredRun | UnreadableRun]:
    for path in entries:
        try:
            with looking_at(path):
                found = is_run(path)
                search = depth > 1 and not (
                    found or path.name.startswith(".") or path.is_symlink() or not path.is_dir()
                )
                below = sorted(path.iterdir()) if search else []
        except StoreError as error:
            yield UnreadableRun(path, str(error))
            continue
        if found:
            yield _described(path)
        yield from _found(below, depth - 1)


def _described(path: Path) -> StoredRun | UnreadableRun:
    try:
        return describe_run(path)
    except SightlineError as error:
        return UnreadableRun(path, str(error))
