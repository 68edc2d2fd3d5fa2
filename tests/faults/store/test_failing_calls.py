"""Whatever call fails, at whatever moment: nothing acknowledged is lost, and resume completes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from failing_disk import Died, FailingDisk, PowerLoss, ShortWrites
from run_plans import (
    assert_same_record,
    compared_bytes,
    make_examples,
    make_manifest,
    make_record,
    write_run,
)

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import DiskError
from sightline.store import disk
from sightline.store.run import RunStore

N = 4
RECORDS = [make_record(e, "clean") for e in make_examples(N)]


def write(path: Path, acknowledged: set[int]) -> RunStore:
    """A small run of two shards; resumes what is there."""
    store = RunStore.resume(path, make_manifest(shard_size=2), make_examples(N))
    with store.writer() as writer:
        for index in sorted({0, 1} - store.committed()):
            writer.commit(index, RECORDS[2 * index : 2 * index + 2], log={"seconds": 1})
            acknowledged.add(index)
    return store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return compared_bytes(write(tmp_path_factory.mktemp("whole") / "run", set()).path)


def calls_of_a_whole_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    counter = FailingDisk(-1)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "os", counter)
        write(path, set())
    shutil.rmtree(path)
    return len(counter.calls)


def check_survivor(path: Path, acknowledged: set[int], whole: dict[str, bytes]) -> None:
    if acknowledged:
        store = RunStore.open(path)
        assert store.committed() >= acknowledged
    if (path / "manifest.json").exists():
        store = RunStore.open(path)
        assert store.verify() == []
        for index in store.committed():
            pairs = zip(store.records(shard=index), RECORDS[2 * index :], strict=False)
            for one, two in pairs:
                assert_same_record(one, two)
    resumed = write(path, set())
    resumed.gc()
    assert compared_bytes(path) == whole


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_every_kth_call_fails(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], code: int
) -> None:
    total = calls_of_a_whole_run(fast_path / "run", monkeypatch)
    assert total > 60
    stride = {errno.ENOSPC: 1, errno.EIO: 9, errno.EROFS: 17}[code]
    for k in range(1, total + 1, stride):
        acknowledged: set[int] = set()
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", FailingDisk(k, code))
            with pytest.raises(DiskError) as caught:
                write(fast_path / "run", acknowledged)
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
        leftovers = [f for f in (fast_path / "run").rglob("*") if ".tmp." in f.name]
        assert leftovers == []
        check_survivor(fast_path / "run", acknowledged, whole)
        shutil.rmtree(fast_path / "run")


def test_death_at_every_kth_call(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    total = calls_of_a_whole_run(fast_path / "run", monkeypatch)
    left_behind = 0
    for k in range(1, total + 1):
        acknowledged: set[int] = set()
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", FailingDisk(k, dies=True))
            with pytest.raises(Died):
                write(fast_path / "run", acknowledged)
        left_behind += sum(".tmp." in f.name for f in (fast_path / "run").rglob("*"))
        check_survivor(fast_path / "run", acknowledged, whole)
        shutil.rmtree(fast_path / "run", ignore_errors=True)
    assert left_behind > 0


@pytest.mark.parametrize("keep", ["none", "all", "last"])
def test_power_loss_after_every_write_sync_and_rename(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], keep: str
) -> None:
    """Keeps only what was synced; catches a missing or misplaced fsync, which kill -9 cannot."""
    (fast_path / "disk").mkdir()
    power = PowerLoss(fast_path / "disk")
    acknowledged: set[int] = set()
    lost = fast_path / "lost"

    def cut() -> None:
        lost.mkdir()
        power.survivors(lost, keep)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", __import__("os"))
            check_survivor(lost / "run", set(acknowledged), whole)
        shutil.rmtree(lost)

    power.step = cut
    with monkeypatch.context() as patch:
        patch.setattr(disk, "os", power)
        write(fast_path / "disk" / "run", acknowledged)
    cut()
    assert power.steps > 40
    assert acknowledged == {0, 1}


def test_short_writes_give_the_same_bytes(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    monkeypatch.setattr(disk, "os", ShortWrites())
    write(fast_path / "run", set())
    assert compared_bytes(fast_path / "run") == whole


def test_a_failing_column_leaves_the_old_one(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(fast_path / "run", set())
    keys = tuple(record.key for record in RECORDS)
    old = Column("x", ColumnKind.CORRECT, keys, np.array([0.0, 1.0, 0.0, 1.0]))
    new = Column("x", ColumnKind.CORRECT, keys, np.ones(4))
    store.write_column(old)
    for k in range(1, 100):
        failing = FailingDisk(k)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", failing)
            try:
                store.write_column(new, replace=True)
            except DiskError:
                pass
            else:
                break
        stored = store.column(ColumnKind.CORRECT, "x").values.tolist()
        renamed = "rename" in failing.calls[: k - 1]
        assert stored == (new if renamed else old).values.tolist()
    assert k > 4
    assert store.column(ColumnKind.CORRECT, "x").values.tolist() == new.values.tolist()


def test_a_failing_overwrite_never_mixes_two_runs(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fast_path / "run"
    new = make_manifest(settings={"new": 1})
    for k in range(1, 200):
        shutil.rmtree(path, ignore_errors=True)
        write_run(path, 3)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", FailingDisk(k))
            try:
                RunStore.create(path, new, make_examples(2), overwrite=True)
            except DiskError:
                pass
            else:
                break
        if (path / "manifest.json").exists():
            store = RunStore.open(path)
            assert store.verify() == []
            stored = len(list(store.records()))
            assert stored in ((0,) if "new" in store.manifest.settings else (0, 6))
        again = RunStore.create(path, new, make_examples(2), overwrite=True)
        assert again.committed() == frozenset()
        assert again.verify() == []
    assert k > 20


def test_a_seal_written_short_is_a_disk_error(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seal is written over a finished file; half a seal would be none."""

    class ShortPatch(ShortWrites):
        def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
            return os.pwrite(descriptor, data[: len(data) // 2], offset)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "os", ShortPatch())
        with pytest.raises(DiskError, match="short write at byte"):
            write(fast_path / "run", set())
    assert [file for file in (fast_path / "run").rglob("*") if file.suffix] == []
    assert len(write(fast_path / "run", set()).committed()) == 2
