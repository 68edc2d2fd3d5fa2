"""Whatever call fails while signals are derived: the run stays whole, and resume completes."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from failing_disk import Died, FailingDisk, PowerLoss
from run_plans import assert_same_record, compared_bytes, make_examples, make_manifest, make_record

from sightline.core.errors import DiskError
from sightline.core.features import Feature
from sightline.store import disk
from sightline.store.derived import DERIVED_FEATURES, Derivation
from sightline.store.run import RunStore

N = 4
WHOLE = [make_record(e, "clean") for e in make_examples(N)]
ADDED = DERIVED_FEATURES[Derivation.ENTAILMENT]
OLD, NEW = {"name": "old"}, {"name": "new"}


def collected(path: Path) -> RunStore:
    store = RunStore.create(path, make_manifest(shard_size=2), make_examples(N))
    with store.writer() as writer:
        for index in (0, 1):
            rows = WHOLE[2 * index : 2 * index + 2]
            kept = [{f: a for f, a in r.features.items() if f not in ADDED} for r in rows]
            records = [replace(r, features=f) for r, f in zip(rows, kept, strict=True)]
            writer.commit(index, records)
    return store


def derive(
    store: RunStore,
    acknowledged: set[int],
    source: dict[str, str] = NEW,
    *,
    replacing: bool = False,
) -> None:
    with store.deriver(Derivation.ENTAILMENT, source, replace=replacing) as writer:
        for index in writer.pending:
            rows = WHOLE[2 * index : 2 * index + 2]
            records = [
                replace(r, features={f: r.features[f] for f in ADDED}, layers=()) for r in rows
            ]
            writer.commit(index, records, {"seconds": 1})
            acknowledged.add(index)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    store = collected(tmp_path_factory.mktemp("whole") / "run")
    derive(store, set())
    return compared_bytes(store.path)


def check_survivor(
    path: Path, acknowledged: set[int], whole: dict[str, bytes], *, replacing: bool = False
) -> None:
    store = RunStore.open(path)
    assert store.verify() == []
    held = store.derived().get(Derivation.ENTAILMENT)
    if acknowledged:
        assert held is not None
        assert held.shards >= acknowledged
        assert dict(held.source) == NEW
    for record, expected in zip(store.records(), WHOLE, strict=True):
        if record.has(Feature.ENTAILMENT):
            assert_same_record(record, expected)
    derive(store, set(), replacing=replacing)
    store.gc()
    assert compared_bytes(path) == whole


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("dies", [False, True])
def test_every_kth_call_fails(
    fast_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, bytes],
    dies: bool,
    replacing: bool,
) -> None:
    path = fast_path / "run"
    for k in range(1, 500):
        store = collected(path)
        if replacing:
            derive(store, set(), OLD)
        acknowledged: set[int] = set()
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", FailingDisk(k, errno.ENOSPC, dies=dies))
            try:
                derive(store, acknowledged, replacing=replacing)
            except (DiskError, Died):
                pass
            else:
                break
        check_survivor(path, acknowledged, whole, replacing=replacing)
        shutil.rmtree(path)
    assert k > 30
    assert acknowledged == {0, 1}


@pytest.mark.parametrize("keep", ["none", "all", "last"])
def test_power_loss_after_every_write_sync_and_rename(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], keep: str
) -> None:
    (fast_path / "disk").mkdir()
    power = PowerLoss(fast_path / "disk")
    acknowledged: set[int] = set()
    lost = fast_path / "lost"
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        lost.mkdir()
        power.survivors(lost, keep)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", __import__("os"))
            check_survivor(lost / "run", set(acknowledged), whole)
        shutil.rmtree(lost)
        cuts += 1

    with monkeypatch.context() as patch:
        patch.setattr(disk, "os", power)
        store = collected(fast_path / "disk" / "run")
        power.step = cut
        derive(store, acknowledged)
    cut()
    assert cuts > 20
    assert acknowledged == {0, 1}
