"""A run under random use, death and damage behaves like a dictionary of shards.

Acknowledged means readable; readable means unchanged; damaged means refused and named.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from failing_disk import Died, FailingDisk
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from run_plans import assert_same_record, compared_bytes, make_examples, make_manifest, make_record

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import CorruptStoreError, StoreError
from sightline.core.features import Feature
from sightline.core.types import Quarantined, Record
from sightline.store import disk
from sightline.store.run import RunStore

EXAMPLES = make_examples(6)
SHARDS = 3
FEW = (Feature.TOKEN_ENTROPY, Feature.PROMPT_HIDDEN)
INDICES = st.integers(0, SHARDS - 1)


def rows(index: int) -> tuple[list[Record], list[Quarantined]]:
    whole = [make_record(e, "clean") for e in EXAMPLES[2 * index : 2 * index + 2]]
    records = [replace(r, features={f: r.features[f] for f in FEW}) for r in whole]
    if index == 2:
        return records[:1], [Quarantined(records[1].key, "no image")]
    return records, []


ROWS = [rows(index) for index in range(SHARDS)]


class StoreMachine(RuleBasedStateMachine):
    """Shards committed, shards damaged, and columns, beside the real run."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.committed: set[int] = set()
        self.damaged: set[int] = set()
        self.column: list[float] | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def create(self) -> None:
        self.store = RunStore.create(self.folder / "run", make_manifest(shard_size=2), EXAMPLES)

    @rule(index=INDICES)
    def commit(self, index: int) -> None:
        with self.store.writer() as writer:
            if index in self.committed:
                with pytest.raises(StoreError, match="already committed"):
                    writer.commit(index, *ROWS[index])
            else:
                writer.commit(index, *ROWS[index])
                self.committed.add(index)

    @rule(index=INDICES, k=st.integers(1, 45))
    def die_while_committing(self, index: int, k: int) -> None:
        if index in self.committed:
            return
        disk.os = FailingDisk(k, dies=True)  # type: ignore[attr-defined]
        try:
            with self.store.writer() as writer:
                writer.commit(index, *ROWS[index], {"attempt": k})
            acknowledged = True
        except Died:
            acknowledged = False
        finally:
            disk.os = os  # type: ignore[attr-defined]
        found = self.store.committed()
        assert found - {index} == self.committed
        assert index in found or not acknowledged
        self.committed = set(found)

    @rule()
    def resume(self) -> None:
        self.store = RunStore.resume(self.store.path, make_manifest(shard_size=2), EXAMPLES)

    @rule(index=INDICES, arrays=st.booleans(), at=st.floats(0, 1, exclude_max=True))
    def damage(self, index: int, arrays: bool, at: float) -> None:
        if index not in self.committed - self.damaged:
            return
        folder = self.store.path / "shards"
        file = folder / f"{index:06d}.parquet"
        if arrays:
            named = pq.read_metadata(file).metadata[b"sightline.arrays"].decode()
            file = folder / named
        data = bytearray(file.read_bytes())
        data[int(at * len(data))] ^= 0x40
        file.write_bytes(data)
        self.damaged.add(index)

    @precondition(lambda self: self.damaged)
    @rule()
    def remove_damaged_shards(self) -> None:
        for index in self.damaged:
            for file in (self.store.path / "shards").glob(f"{index:06d}.*"):
                file.unlink()
        self.committed -= self.damaged
        self.damaged = set()

    @rule()
    def collect_garbage(self) -> None:
        self.store.gc()
        names = [f.name for f in self.store.path.rglob("*") if ".tmp." in f.name]
        assert names == []

    @rule(values=st.lists(st.floats(0, 1), min_size=6, max_size=6), again=st.booleans())
    def write_column(self, values: list[float], again: bool) -> None:
        keys = tuple(make_record(e, "clean").key for e in EXAMPLES)
        column = Column("c", ColumnKind.CORRECT, keys, np.array(values))
        if self.column is not None and not again:
            with pytest.raises(StoreError, match="already stored"):
                self.store.write_column(column)
        else:
            self.store.write_column(column, replace=again)
            self.column = values

    @rule(index=INDICES)
    def read_beside_a_commit(self, index: int) -> None:
        before = set(self.committed)
        if index in before or before & self.damaged:
            return
        reader = RunStore.open(self.store.path).records()
        first = next(reader, None)
        self.commit(index)
        read = ([] if first is None else [first]) + list(reader)
        assert [r.key for r in read] == [r.key for i in sorted(before) for r in ROWS[i][0]]

    @invariant()
    def shards_are_as_acknowledged(self) -> None:
        if not hasattr(self, "store"):
            return
        store = RunStore.open(self.store.path)
        assert store.committed() == self.committed
        for index in self.committed:
            if index in self.damaged:
                with pytest.raises(CorruptStoreError, match=f"{index:06d}"):
                    list(store.records(shard=index))
            else:
                stored = list(store.records(shard=index))
                for one, two in zip(stored, ROWS[index][0], strict=True):
                    assert_same_record(one, two)
                assert store.quarantined(shard=index) == ROWS[index][1]
        assert {int(Path(p.file).name[:6]) for p in store.verify()} == self.damaged
        if self.column is not None:
            assert store.column(ColumnKind.CORRECT, "c").values.tolist() == self.column

    @precondition(lambda self: len(self.committed) == SHARDS and not self.damaged)
    @rule()
    def a_finished_run_has_the_bytes_of_an_undisturbed_one(self) -> None:
        self.store.gc()
        for file in (self.store.path / "columns").iterdir():
            file.unlink()
        self.column = None
        undisturbed = self.folder / "undisturbed"
        shutil.rmtree(undisturbed, ignore_errors=True)
        store = RunStore.create(undisturbed, make_manifest(shard_size=2), EXAMPLES)
        with store.writer() as writer:
            for index in range(SHARDS):
                writer.commit(index, *ROWS[index])
        assert compared_bytes(undisturbed) == compared_bytes(self.store.path)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.slow
class TestStoreMachineForLong(StoreMachine.TestCase):
    settings = settings(
        max_examples=300,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
