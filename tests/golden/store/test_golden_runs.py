"""Runs written by every released format version open forever, with every value they had."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from sightline.store.layout import MANIFEST
from sightline.store.run import RunStore

sys.path.insert(0, str(Path(__file__).parent))

from golden_run import describe

GOLDEN = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in GOLDEN.glob(f"run-v*/{MANIFEST}"))


def test_there_is_one_of_every_version() -> None:
    assert [path.name for path in RUNS] == ["run-v1"]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_golden_run_opens_with_every_value(path: Path) -> None:
    store = RunStore.open(path)
    assert store.verify() == []
    expected = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    found = describe(store)
    for part, value in expected.items():
        assert found[part] == value, part
    assert found.keys() == expected.keys()


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_its_records_written_again_give_the_same_array_bytes(path: Path, tmp_path: Path) -> None:
    """Array files hold no library's version, so they never change."""
    golden = RunStore.open(path)
    store = RunStore.create(
        tmp_path / "again", golden.manifest, golden.examples(), rejected=golden.rejected()
    )
    assert store.manifest == golden.manifest
    with store.writer() as writer:
        for index in range(store.manifest.n_shards or 0):
            records = list(golden.records(shard=index))
            writer.commit(index, records, golden.quarantined(shard=index))
    for file in sorted(path.glob("shards/*.safetensors")):
        assert (tmp_path / "again" / "shards" / file.name).read_bytes() == file.read_bytes()
    assert (store.path / MANIFEST).read_bytes() == (path / MANIFEST).read_bytes()


def test_a_golden_run_is_resumed_by_this_version(tmp_path: Path) -> None:
    golden = RunStore.open(GOLDEN / "run-v1")
    shutil.copytree(golden.path, tmp_path / "run")
    for file in (tmp_path / "run" / "shards").glob("000001.*"):
        file.unlink()
    store = RunStore.resume(
        tmp_path / "run", golden.manifest, golden.examples(), rejected=golden.rejected()
    )
    assert store.committed() == {0}
    with store.writer() as writer:
        writer.commit(1, list(golden.records(shard=1)), golden.quarantined(shard=1))
    assert store.verify() == []
    assert describe(store)["records"] == describe(golden)["records"]
