"""RunStore: one run's directory, written once and read many times.

The rename of a shard's Parquet file is its commit; docs/store-format.md has the protocol.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import DataError, StoreError
from sightline.core.features import ARRAY_AXES, Feature
from sightline.core.types import Example, Key, Quarantined, Record, Refused
from sightline.data.collected import Rejected
from sightline.store import columns as column_files
from sightline.store.derived import (
    DERIVED_FEATURES,
    Derivation,
    Derived,
    DerivedWriter,
    derived_arrays,
    derived_sources,
)
from sightline.store.disk import RunLock, append_line, make_directory, write_file
from sightline.store.examples import (
    StoredExamples,
    digest_examples,
    read_rejected,
    write_examples,
    write_rejected,
)
from sightline.store.inspection import Problem, Removed, collect_garbage, verify_run
from sightline.store.layout import (
    COLUMNS,
    EXAMPLES_FILE,
    LOCK,
    LOG,
    MANIFEST,
    REJECTED_FILE,
    SHARDS,
    committed_shards,
    is_run,
    remove_run,
    require_free,
    require_run,
)
from sightline.store.resuming import require_same
from sightline.store.rows import ShardSummary, StoredShard, write_shard
from sightline.store.schema import (
    Manifest,
    canonical_json,
    manifest_from_dict,
    storable,
)
from sightline.store.sealed import dump_document, load_document

__all__ = ["Manifest", "RunStore", "RunWriter"]


class RunStore:
    """One run: a manifest, examples, shards of records, and columns.

    Attributes:
        path: The run's directory.
        manifest: What the run is.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._run_hash = manifest.run_hash()
        self._stored_examples: StoredExamples | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        manifest: Manifest,
        examples: Iterable[Example],
        *,
        rejected: Iterable[Rejected] = (),
        overwrite: bool = False,
    ) -> RunStore:
        """Makes a new run; the manifest is written last, so that a run is whole or not there.

        Args:
            path: A directory that does not exist, is empty, or was left by a killed `create`.
            manifest: Its ``dataset`` and ``n_shards`` are completed with what is stored.
            examples: In the plan's order; consumed once, in bounded memory.
            rejected: Rows of the data set that never became examples.
            overwrite: Remove the run that is there.

        Raises:
            StoreError: The directory holds a run or other files, or another process writes it.
            DataError: An example's id comes twice or cannot be stored.
            DiskError: The operating system refused.
        """
        path = Path(path)
        require_free(path, overwrite=overwrite)
        make_directory(path)
        with RunLock(path / LOCK):
            require_free(path, overwrite=overwrite)
            if is_run(path):
                remove_run(path)
            for name in (SHARDS, COLUMNS):
                make_directory(path / name)
            digest = write_examples(path / EXAMPLES_FILE, examples)
            count = write_rejected(path / REJECTED_FILE, rejected)
            manifest = _completed(manifest, digest.n, digest.hexdigest(), count)
            document = dump_document(manifest.to_dict())
            write_file(path / MANIFEST, lambda file: file.append(memoryview(document)))
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> RunStore:
        """Opens a run for reading.

        Raises:
            StoreError: There is no run at the path, or it has another format version.
            CorruptStoreError: Its manifest is damaged.
        """
        path = Path(path)
        require_run(path)
        return cls(path, manifest_from_dict(load_document(path / MANIFEST), path / MANIFEST))

    @classmethod
    def resume(
        cls,
        path: Path,
        manifest: Manifest,
        examples: Iterable[Example],
        *,
        rejected: Iterable[Rejected] = (),
    ) -> RunStore:
        """Creates the run, or opens it if it is there and has the same settings and examples.

        Raises:
            SettingsDifferError: A field that decides results differs; the message names it.
        """
        path = Path(path)
        if not is_run(path):
            return cls.create(path, manifest, examples, rejected=rejected)
        store = cls.open(path)
        digest = digest_examples(examples)
        count = sum(1 for _ in rejected)
        asked = _completed(manifest, digest.n, digest.hexdigest(), count)
        require_same(path, store.manifest, asked)
        return store

    def writer(self) -> RunWriter:
        """The exclusive right to add shards; use it in a ``with`` statement."""
        return RunWriter(self)

    def committed(self) -> frozenset[int]:
        """Indices of the shards that are stored."""
        return frozenset(committed_shards(self.path))

    def examples(self) -> list[Example]:
        """All examples, in the plan's order."""
        stored = self._open_examples()
        return stored.between(0, len(stored))

    def rejected(self) -> list[Rejected]:
        """Rows of the data set that never became examples."""
        return read_rejected(self.path / REJECTED_FILE)

    def records(
        self,
        *,
        condition: str | None = None,
        features: Collection[Feature] | None = None,
        layers: Collection[int] | None = None,
        shard: int | None = None,
    ) -> Iterator[Record]:
        """Observed records in the plan's order; every byte behind them has been checked.

        Memory holds one shard's wanted arrays at a time, plus those of the records kept alive.

        Args:
            condition: Only records of this condition.
            features: Array features to read, others are left out; None reads all. Features that
                are not arrays may be named and always come.
            layers: Layers of layered features to read; None reads all.
            shard: Only this shard of the plan; None reads all that are committed.

        Raises:
            CorruptStoreError: Stored bytes are damaged; the message names the file.
            MissingFeatureError: A layer asked for was not stored.
        """
        for index in sorted(self.committed()) if shard is None else (shard,):
            stored = self._shard(index)
            wanted = ARRAY_AXES if features is None else features
            yield from stored.records(
                {example.id: example for example in self.shard_examples(index)},
                condition=condition,
                features=features,
                layers=layers,
                derived=derived_arrays(self.path, index, stored, self._run_hash, wanted),
            )

    def stacked(
        self, features: Collection[Feature], *, shards: Collection[int] | None = None
    ) -> Iterator[dict[Feature, np.ndarray]]:
        """Arrays of a shard's records at once, shard by shard, in the order of `records`.

        Memory holds one shard's wanted arrays at a time; every byte behind them has been checked.

        Args:
            features: Unlayered features of which every record has an array of the same shape; of
                several dtypes they become the one that holds them all.
            shards: Only these shards of the plan, in this order; None reads all that are committed.

        Raises:
            DataError: A record lacks a feature, or they differ in shape.
            CorruptStoreError: Stored bytes are damaged; the message names the file.
        """
        for index in sorted(self.committed()) if shards is None else shards:
            yield self._shard(index).stacked(features)

    def quarantined(self, *, shard: int | None = None) -> list[Quarantined]:
        """Examples that could not be observed, in the plan's order; of one shard or of all."""
        indices = sorted(self.committed()) if shard is None else [shard]
        return [row for index in indices for row in self._shard(index).quarantined()]

    def refused(self, *, shard: int | None = None) -> list[Refused]:
        """Conditions that do not exist for an example, in the plan's order; of one shard or all."""
        indices = sorted(self.committed()) if shard is None else [shard]
        return [row for index in indices for row in self._shard(index).refused()]

    def summaries(self) -> list[tuple[int, ShardSummary]]:
        """What each committed shard holds, by index, without reading rows or arrays."""
        return [(index, self._shard(index).summary) for index in sorted(self.committed())]

    def available(self) -> frozenset[Feature]:
        """Array features that at least one record has, derived ones included."""
        recorded = frozenset(f for _, summary in self.summaries() for f in summary.features)
        return recorded.union(*(DERIVED_FEATURES[kind] for kind in self.derived()))

    def layers(self) -> tuple[int, ...]:
        """Layers that at least one layered array has, ascending."""
        return tuple(sorted({n for _, summary in self.summaries() for n in summary.layers}))

    def derived(self) -> dict[Derivation, Derived]:
        """What was derived from the stored answers, and by what."""
        return derived_sources(self.path, self._run_hash)

    def deriver(
        self, kind: Derivation, source: Mapping[str, Any], *, replace: bool = False
    ) -> DerivedWriter:
        """The exclusive right to add one derivation; use it in a ``with`` statement.

        Args:
            kind: What is derived.
            source: What computes it: name, fingerprint and settings, JSON values.
            replace: Remove arrays of another source, when entered.

        Raises:
            StoreError: When entered: the run has it from another source and ``replace`` is not
                set, or it was recorded with the run.
        """
        return DerivedWriter(self.path, self._run_hash, kind, source, replace)

    def shard_examples(self, index: int) -> list[Example]:
        """The examples of one shard of the plan."""
        size = self.manifest.shard_size
        return self._open_examples().between(index * size, (index + 1) * size)

    def write_column(self, column: Column, *, replace: bool = False) -> None:
        """Stores a column; durable on return.

        Raises:
            StoreError: A column of this kind and name is stored and ``replace`` is not set.
        """
        make_directory(self.path / COLUMNS)
        column_files.write_column(self.path / COLUMNS, column, replace_stored=replace)

    def column(self, kind: ColumnKind, name: str) -> Column:
        """Reads a column.

        Raises:
            StoreError: No such column is stored.
            CorruptStoreError: Its file is damaged.
        """
        return column_files.read_column(self.path / COLUMNS, kind, name)

    def columns(self) -> list[tuple[ColumnKind, str]]:
        """Kinds and names of the stored columns, sorted."""
        return column_files.list_columns(self.path / COLUMNS)

    def log(self) -> list[dict[str, Any]]:
        """Timings and attempts, one entry a try; torn lines of killed writers are left out."""
        path = self.path / LOG
        entries = []
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                entries.append(entry)
        return entries

    def verify(self) -> list[Problem]:
        """Checks every byte of the run; see `sightline.store.inspection.verify_run`."""
        return verify_run(self.path)

    def gc(self) -> Removed:
        """Removes unfinished files and array files that no shard names."""
        with RunLock(self.path / LOCK):
            return collect_garbage(self.path)

    def _shard(self, index: int) -> StoredShard:
        return StoredShard(self.path / SHARDS, index, self._run_hash)

    def _open_examples(self) -> StoredExamples:
        if self._stored_examples is None:
            self._stored_examples = StoredExamples(
                self.path / EXAMPLES_FILE, self.manifest.dataset.get("examples_sha256")
            )
        return self._stored_examples


class RunWriter:
    """Adds shards to a run while it holds the run's lock."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._lock = RunLock(store.path / LOCK)
        self._committed: set[int] = set()

    def __enter__(self) -> RunWriter:
        self._lock.__enter__()
        self._committed = set(self._store.committed())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def commit(
        self,
        index: int,
        records: Sequence[Record],
        quarantined: Sequence[Quarantined] = (),
        log: Mapping[str, Any] | None = None,
        *,
        refused: Sequence[Refused] = (),
    ) -> None:
        """Stores one shard; it is durable and complete on return, absent if this raises.

        Args:
            index: Position in the plan; the shard's examples are those of `shard_examples`.
            records: In the order in which they will be read.
            quarantined: Keys that could not be observed, with reasons.
            log: Timings and attempts, stored outside the compared bytes.
            refused: Conditions that do not exist for an example, with reasons.

        Raises:
            StoreError: The shard is already committed, or is not in the plan.
            DataError: A key does not belong to this shard, comes twice, or cannot be stored.
            DiskError: The operating system refused.
        """
        store = self._store
        if not 0 <= index < (store.manifest.n_shards or 0) or index in self._committed:
            state = "already committed" if index in self._committed else "not in the plan"
            raise StoreError(
                f"Shard {index} of {store.path} is {state}; each of the {store.manifest.n_shards} "
                "shards is committed once. Ask committed() first."
            )
        make_directory(store.path / SHARDS)
        keys = [row.key for rows in (records, quarantined, refused) for row in rows]
        self._check_keys(index, keys)
        if log is not None:
            line = canonical_json({"shard": index, **log}).encode("ascii")
            append_line(store.path / LOG, line)
        run_hash = store.manifest.run_hash()
        write_shard(store.path / SHARDS, index, run_hash, records, quarantined, refused)
        self._committed.add(index)

    def _check_keys(self, index: int, keys: Sequence[Key]) -> None:
        examples = {example.id for example in self._store.shard_examples(index)}
        allowed = self._store.manifest.conditions
        seen: set[Key] = set()
        for key in keys:
            if key.example_id not in examples:
                problem = f"no example of shard {index}"
            elif allowed and key.condition not in allowed:
                problem = f"none of the run's conditions {allowed}"
            elif storable(key.condition) != key.condition:
                problem = "not valid Unicode"
            elif key in seen:
                problem = "there twice"
            else:
                seen.add(key)
                continue
            raise DataError(
                f"Key {key} is {problem}; one row per example and condition is required. "
                "Commit each shard's own rows once."
            )


def _completed(manifest: Manifest, n: int, sha256: str, rejected: int) -> Manifest:
    dataset = {
        "sha256": sha256,
        **manifest.dataset,
        "examples_sha256": sha256,
        "n": n,
        "rejected": rejected,
    }
    return replace(manifest, dataset=dataset, n_shards=-(-n // manifest.shard_size))
