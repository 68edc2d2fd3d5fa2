"""A damaged byte in any file of a run is noticed, named, and never used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from run_plans import make_examples, make_manifest, shard_rows

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import CorruptStoreError
from sightline.core.types import Key
from sightline.data.collected import Rejected
from sightline.store.images import image_writer
from sightline.store.run import RunStore

KINDS = (
    "manifest.json",
    "examples.parquet",
    "rejected.parquet",
    "shards/000001.parquet",
    "shards/000001.*.safetensors",
    "columns/correct.x.parquet",
    "images/*.png",
)
IMAGE = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "run"
    rejected = [Rejected("line 7", "no image")]
    store = RunStore.create(path, make_manifest(), make_examples(), rejected=rejected)
    with store.writer() as writer:
        for index in range(4):
            writer.commit(index, *shard_rows(store.shard_examples(index)))
    store.write_column(Column("x", ColumnKind.CORRECT, (Key("e0", "clean"),), np.ones(1)))
    image_writer(store.path)(IMAGE, "png")
    assert store.verify() == []
    return path


@pytest.fixture
def run(fast_path: Path, pristine: Path) -> Path:
    shutil.copytree(pristine, fast_path / "run")
    return fast_path / "run"


def read_everything(path: Path) -> None:
    store = RunStore.open(path)
    list(store.records())
    store.examples()
    store.rejected()
    store.quarantined()
    for kind, name in store.columns():
        store.column(kind, name)


def flipped(data: bytes, at: int, bits: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def zeroed(data: bytes, at: int) -> bytes:
    size = min(512, len(data) - at)
    return data[:at] + b"\0" * size + data[at + size :]


DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "flip the lowest bit": lambda data, at: flipped(data, at, 1),
    "flip the highest bit": lambda data, at: flipped(data, at, 0x80),
    "zero a block": zeroed,
    "truncate": lambda data, at: data[:at],
    "delete a byte": lambda data, at: data[:at] + data[at + 1 :],
    "insert a byte": lambda data, at: data[:at] + b"\x2a" + data[at:],
    "append": lambda data, _at: data + b"\0",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_detected_and_named(run: Path, kind: str, damage: str) -> None:
    (file,) = run.glob(kind)
    name = str(file.relative_to(run))
    data = file.read_bytes()
    step = len(data) // 3
    for at in sorted({0, len(data) - 1, *range(step, len(data), step)}):
        changed = DAMAGES[damage](data, at)
        if changed == data:
            continue
        file.write_bytes(changed)
        problems = RunStore.open(run).verify() if kind != "manifest.json" else None
        if problems is not None:
            assert [p.file for p in problems] == [name], (damage, at)
            assert problems[0].what
            assert problems[0].where
        if kind.startswith("images"):
            continue
        with pytest.raises(CorruptStoreError) as caught:
            read_everything(run)
        assert caught.value.exit_code == 5
        assert file.name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[:-1])
def test_every_single_byte(run: Path, kind: str) -> None:
    (file,) = run.glob(kind)
    data = file.read_bytes()
    for at in range(len(data)):
        file.write_bytes(flipped(data, at, 1 << (at % 8)))
        with pytest.raises(CorruptStoreError, match=file.name):
            read_everything(run)


def test_a_damaged_manifest_does_not_hide_other_damage(run: Path) -> None:
    from sightline.store.inspection import verify_run

    for kind in ("manifest.json", "rejected.parquet", "columns/correct.x.parquet"):
        (file,) = run.glob(kind)
        file.write_bytes(flipped(file.read_bytes(), 30))
    assert [p.file for p in verify_run(run)] == [
        "manifest.json",
        "rejected.parquet",
        "columns/correct.x.parquet",
    ]


def test_damage_in_one_shard_leaves_the_others_readable(run: Path) -> None:
    file = run / "shards" / "000001.parquet"
    file.write_bytes(flipped(file.read_bytes(), 200))
    store = RunStore.open(run)
    for index in (0, 2, 3):
        assert len(list(store.records(shard=index))) > 0
    with pytest.raises(CorruptStoreError, match=r"000001\.parquet"):
        list(store.records(shard=1))


def test_a_removed_damaged_shard_is_collected_again_to_the_same_bytes(
    run: Path, pristine: Path
) -> None:
    file = run / "shards" / "000001.parquet"
    file.write_bytes(b"damaged")
    file.unlink()
    store = RunStore.resume(run, make_manifest(), make_examples(), rejected=[Rejected("l", "r")])
    assert store.committed() == {0, 2, 3}
    with store.writer() as writer:
        writer.commit(1, *shard_rows(store.shard_examples(1)))
    for name in ("shards/000001.parquet", "shards/000002.parquet"):
        assert (run / name).read_bytes() == (pristine / name).read_bytes()
    assert store.verify() == []


@pytest.mark.parametrize("suffix", ["parquet", "*.safetensors"])
def test_a_whole_file_in_another_place_is_detected(run: Path, suffix: str) -> None:
    (one,) = run.glob(f"shards/000001.{suffix}")
    (two,) = run.glob(f"shards/000002.{suffix}")
    one.write_bytes(two.read_bytes())
    problems = RunStore.open(run).verify()
    assert [p.file for p in problems] == [str(one.relative_to(run))]


def test_a_shard_of_another_run_is_detected(run: Path, fast_path: Path) -> None:
    other = RunStore.create(fast_path / "o", make_manifest(settings={"a": 1}), make_examples())
    with other.writer() as writer:
        writer.commit(1, *shard_rows(other.shard_examples(1)))
    for file in (fast_path / "o" / "shards").iterdir():
        shutil.copy(file, run / "shards" / file.name)
    problems = RunStore.open(run).verify()
    assert [(p.file, p.what) for p in problems] == [
        ("shards/000001.parquet", "the run of another place")
    ]


def test_examples_of_another_run_are_detected(run: Path, fast_path: Path) -> None:
    changed = [*make_examples()[:9], *make_examples(11)[10:]]
    RunStore.create(fast_path / "o", make_manifest(), changed)
    shutil.copy(fast_path / "o" / "examples.parquet", run / "examples.parquet")
    assert [p.file for p in RunStore.open(run).verify()] == ["examples.parquet"]
    with pytest.raises(CorruptStoreError, match=r"examples\.parquet"):
        RunStore.open(run).examples()


@pytest.mark.parametrize(
    "name", ["examples.parquet", "rejected.parquet", "shards/000001.*.safetensors"]
)
def test_a_missing_file_is_named(run: Path, name: str) -> None:
    (file,) = run.glob(name)
    file.unlink()
    assert [p.file for p in RunStore.open(run).verify()] == [str(file.relative_to(run))]
    with pytest.raises(CorruptStoreError, match="no file"):
        read_everything(run)


class TestGarbage:
    def test_gc_removes_what_nothing_names_and_keeps_the_rest(
        self, run: Path, pristine: Path
    ) -> None:
        store = RunStore.open(run)
        (orphan,) = run.glob("shards/000001.*.safetensors")
        other = orphan.with_name(f"000001.{'0' * 32}.safetensors")
        garbage = [
            other,
            run / "shards" / f"000009.{'f' * 32}.safetensors",
            run / f"manifest.json.tmp.12.{'a' * 32}",
            run / "shards" / f"000001.parquet.tmp.12.{'a' * 32}",
            run / "columns" / f"correct.x.parquet.tmp.12.{'a' * 32}",
            run / "images" / f"x.png.tmp.12.{'a' * 32}",
        ]
        for file in garbage:
            file.write_bytes(b"12345")
        (run / "shards" / "notes.txt").write_text("mine")
        (run / "evaluation.tmp").mkdir()
        removed = store.gc()
        assert sorted(removed.files) == sorted(str(f.relative_to(run)) for f in garbage)
        assert removed.bytes == 5 * len(garbage)
        assert (run / "shards" / "notes.txt").exists()
        assert store.verify() == []
        assert store.gc().files == ()

    def test_gc_keeps_arrays_of_a_shard_whose_rows_are_damaged(self, run: Path) -> None:
        file = run / "shards" / "000001.parquet"
        file.write_bytes(flipped(file.read_bytes(), 100))
        assert RunStore.open(run).gc().files == ()

    def test_arrays_of_a_removed_shard_are_garbage(self, run: Path) -> None:
        (run / "shards" / "000001.parquet").unlink()
        (removed,) = RunStore.open(run).gc().files
        assert removed.startswith("shards/000001.")
        assert RunStore.open(run).verify() == []
