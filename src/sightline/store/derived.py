"""Derived arrays: signals computed from stored texts, beside the shards they were computed from.

``derived/<kind>/NNNNNN.parquet`` says which records have arrays and where they lie in the array
file beside it; its rename is the commit, as for shards. Its footer names the rows it was computed
from by their checksum, and what computed it: arrays of two encoders are never read together.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from sightline.core.errors import StoreError
from sightline.core.features import AUDITED, Feature
from sightline.core.types import Key, Record
from sightline.store.disk import RunLock, append_line, make_directory, remove_file
from sightline.store.layout import DERIVED, LOCK, LOG, SHARDS, committed_shards
from sightline.store.rows import (
    StoredShard,
    decode_place,
    encode_place,
    named_parts,
    placed_array,
    rows_path,
)
from sightline.store.schema import DERIVED as DERIVED_ROWS
from sightline.store.schema import canonical_json
from sightline.store.sealed import corrupt_file, metadata_of, open_table, unreadable, write_table
from sightline.store.shards import plan_arrays, write_arrays


class Derivation(StrEnum):
    """Kinds of derived signals; each has its own folder and comes from one source."""

    EMBEDDINGS = "embeddings"
    ENTAILMENT = "entailment"
    IMPORTANCE = "importance"
    AUDIT = "audit"


DERIVED_FEATURES: Mapping[Derivation, frozenset[Feature]] = MappingProxyType(
    {
        Derivation.EMBEDDINGS: frozenset({Feature.EMBEDDINGS, Feature.VIEW_EMBEDDINGS}),
        Derivation.ENTAILMENT: frozenset(
            {
                *(Feature.ENTAILMENT, Feature.CONTRADICTION),
                *(Feature.VIEW_ENTAILMENT, Feature.VIEW_CONTRADICTION),
            }
        ),
        Derivation.IMPORTANCE: frozenset({Feature.TOKEN_IMPORTANCE}),
        Derivation.AUDIT: AUDITED,
    }
)
"""The array features that each kind of derivation computes."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What a run holds of one derivation.

    Attributes:
        source: What computed it: name, fingerprint and settings.
        shards: Shards it was computed for.
    """

    source: Mapping[str, Any]
    shards: frozenset[int]


class DerivedShard:
    """The derived arrays of one shard, their table's checksum verified.

    Attributes:
        source: What computed them.
        arrays: Name of the array file, or None.
    """

    def __init__(self, run: Path, kind: Derivation, index: int, run_hash: str, seal: str) -> None:
        self._path = rows_path(folder(run, kind), index)
        self._owner = run_hash, index
        self._file = open_table(self._path)
        metadata = metadata_of(self._file.metadata, self._path)
        expected = {"format": "derived.1", "run": run_hash, "shard": str(index), "kind": kind.value}
        for name, want in expected.items():
            if metadata.get(f"sightline.{name}") != want:
                raise corrupt_file(self._path, f"the {name} of another place", "footer")
        if not self._file.schema_arrow.equals(DERIVED_ROWS):
            raise corrupt_file(self._path, "other columns than derived arrays have", "schema")
        self.source: dict[str, Any] = json.loads(metadata["sightline.source"])
        self.arrays = metadata["sightline.arrays"] or None
        self.is_current = metadata["sightline.rows"] == seal

    def read(self, features: Collection[Feature]) -> dict[Key, dict[Feature, np.ndarray]]:
        """The wanted arrays by key, each checked.

        Raises:
            DamagedFileError: Bytes are not as written, or the rows have been collected anew.
        """
        if not self.is_current:
            raise corrupt_file(self._path, "arrays derived from other rows", "footer")
        with unreadable(self._path):
            rows = self._file.read(use_threads=False).to_pylist()
        try:
            places = [
                [p for p in map(decode_place, row["arrays"]) if p.feature in features]
                for row in rows
            ]
            wanted = {(p.feature, p.part) for mine in places for p in mine}
            parts = named_parts(self._path, self.arrays, self._owner, wanted, None)
            return {
                Key(row["example_id"], row["condition"]): {
                    place.feature: placed_array(place, parts, ()) for place in mine
                }
                for row, mine in zip(rows, places, strict=True)
            }
        except (ValueError, KeyError, TypeError) as error:
            raise corrupt_file(self._path, f"rows that do not fit ({error})", "rows") from error


class DerivedWriter:
    """Adds one derivation to a run, shard by shard, while it holds the run's lock."""

    def __init__(
        self, run: Path, run_hash: str, kind: Derivation, source: Mapping[str, Any], replace: bool
    ) -> None:
        self._run, self._run_hash, self._kind = run, run_hash, kind
        self._source = json.loads(canonical_json(dict(source)))
        self._replace = replace
        self._lock = RunLock(run / LOCK)
        self._seals: dict[int, str] = {}
        self.pending: tuple[int, ...] = ()
        """Committed shards that lack it, ascending; all of them where another is replaced."""

    def __enter__(self) -> DerivedWriter:
        self._lock.__enter__()
        try:
            self.pending = self._prepared()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def commit(
        self, index: int, records: Sequence[Record], log: Mapping[str, Any] | None = None
    ) -> None:
        """Stores the derived arrays of one shard; durable and complete on return.

        Args:
            index: The shard.
            records: The shard's records that have the signal, holding nothing but its arrays.
            log: Timings and counts, stored outside the compared bytes.

        Raises:
            StoreError: The shard is not pending.
            DiskError: The operating system refused.
        """
        if index not in self.pending:
            raise StoreError(
                f"Shard {index} of {self._run} has its {self._kind.value}, or no rows; a pending "
                "shard is required. Ask for them first."
            )
        directory = folder(self._run, self._kind)
        make_directory(directory)
        if log is not None:
            entry = {"shard": index, "derived": self._kind.value, **log}
            append_line(self._run / LOG, canonical_json(entry).encode("ascii"))
        tensors, places = plan_arrays(records)
        arrays = write_arrays(directory, index, self._run_hash, tensors)
        rows = [
            {
                "example_id": record.example.id,
                "condition": record.condition,
                "arrays": [encode_place(place) for place in mine],
            }
            for record, mine in zip(records, places, strict=True)
        ]
        metadata = {
            "sightline.format": "derived.1",
            "sightline.run": self._run_hash,
            "sightline.shard": str(index),
            "sightline.kind": self._kind.value,
            "sightline.rows": self._seals[index],
            "sightline.source": canonical_json(self._source),
            "sightline.arrays": "" if arrays is None else arrays.name,
        }
        table = pa.Table.from_pylist(rows, schema=DERIVED_ROWS)
        write_table(rows_path(directory, index), DERIVED_ROWS, [table], lambda: metadata)
        self.pending = tuple(other for other in self.pending if other != index)

    def _prepared(self) -> tuple[int, ...]:
        """Removes what is to be replaced, and returns the shards to compute."""
        pending, replaced = [], []
        for index in sorted(committed_shards(self._run)):
            shard = StoredShard(self._run / SHARDS, index, self._run_hash)
            self._seals[index] = shard.seal
            recorded = shard.summary.features & DERIVED_FEATURES[self._kind]
            if recorded:
                raise StoreError(
                    f"{self._run} was recorded with {', '.join(sorted(recorded))}; what was "
                    "recorded is never derived anew. Use what it holds."
                )
            if not _is_derived(self._run, self._kind, index):
                pending.append(index)
                continue
            there = DerivedShard(self._run, self._kind, index, self._run_hash, shard.seal)
            if there.source != self._source:
                self._require_replace(there.source)
                replaced.append(index)
            if there.source != self._source or not there.is_current:
                pending.append(index)
        # Gone before the first new one is there: no moment has arrays of two encoders.
        for index in replaced:
            remove_file(rows_path(folder(self._run, self._kind), index))
        return tuple(pending)

    def _require_replace(self, stored: Mapping[str, Any]) -> None:
        if not self._replace:
            raise StoreError(
                f"{self._run} has its {self._kind.value} from {canonical_json(dict(stored))}, not "
                f"from {canonical_json(self._source)}; a run keeps those of one source. Derive "
                "with the same again, or pass --replace."
            )


def folder(run: Path, kind: Derivation) -> Path:
    """Where a run keeps the arrays of one derivation."""
    return run / DERIVED / kind.value


def derived_files(run: Path) -> Iterator[tuple[Derivation, int]]:
    """Kinds and shards of every derived table of a run."""
    for kind in Derivation:
        for index in sorted(committed_shards(run, f"{DERIVED}/{kind.value}")):
            yield kind, index


def derived_arrays(
    run: Path, index: int, shard: StoredShard, run_hash: str, features: Collection[Feature]
) -> dict[Key, dict[Feature, np.ndarray]]:
    """The wanted derived arrays of one shard's records, by key."""
    found: dict[Key, dict[Feature, np.ndarray]] = {}
    for kind, provided in DERIVED_FEATURES.items():
        wanted = provided & set(features)
        if wanted and _is_derived(run, kind, index):
            arrays = DerivedShard(run, kind, index, run_hash, shard.seal).read(wanted)
            for key, mine in arrays.items():
                found.setdefault(key, {}).update(mine)
    return found


def derived_sources(run: Path, run_hash: str) -> dict[Derivation, Derived]:
    """What a run holds of each derivation.

    Raises:
        StoreError: Shards of one derivation come from two sources.
    """
    committed = frozenset(committed_shards(run))
    found: dict[Derivation, dict[int, dict[str, Any]]] = {}
    for kind, index in derived_files(run):
        if index in committed:
            shard = DerivedShard(run, kind, index, run_hash, "")
            found.setdefault(kind, {})[index] = shard.source
    for kind, sources in found.items():
        distinct = {canonical_json(source) for source in sources.values()}
        if len(distinct) > 1:
            raise StoreError(
                f"{run} has its {kind.value} from {len(distinct)} sources "
                f"({', '.join(sorted(distinct))}); one is required. Derive them again with "
                "--replace."
            )
    return {
        kind: Derived(MappingProxyType(next(iter(sources.values()))), frozenset(sources))
        for kind, sources in found.items()
    }


def _is_derived(run: Path, kind: Derivation, index: int) -> bool:
    return rows_path(folder(run, kind), index).is_file()
