"""Derived arrays: shown as features of their records, of one source, bound to their rows."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_plans import (
    compared_bytes,
    make_examples,
    make_manifest,
    make_record,
)

from sightline.core.errors import CorruptStoreError, StoreError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.store.derived import DERIVED_FEATURES, Derivation
from sightline.store.listing import describe_run
from sightline.store.merge import merge_runs
from sightline.store.run import RunStore

SOURCE = {"name": "one", "fingerprint": {"files_xxh3": "ab"}}
OTHER = {"name": "two", "fingerprint": {"files_xxh3": "cd"}}
N = 4
EXTRA = frozenset().union(*DERIVED_FEATURES.values())


def bare(record: Record, keep: frozenset[Feature] = frozenset()) -> Record:
    kept = {f: a for f, a in record.features.items() if f not in EXTRA or f in keep}
    return replace(record, features=kept)


def made(path: Path, examples: list[Any] | None = None, first: int = 0) -> RunStore:
    mine = make_examples(N)[first:] if examples is None else examples
    store = RunStore.create(path, make_manifest(shard_size=2, conditions=("clean",)), mine)
    with store.writer() as writer:
        for index in range(store.manifest.n_shards or 0):
            records = [bare(make_record(e, "clean")) for e in store.shard_examples(index)]
            writer.commit(index, records)
    return store


def signal(record: Record, kind: Derivation) -> Record:
    """The arrays that `make_record` gives this record, as if an encoder had computed them."""
    whole = make_record(record.example, record.condition)
    features = {f: whole.features[f] for f in DERIVED_FEATURES[kind]}
    return replace(record, features=features, layers=())


def derive(
    store: RunStore,
    kind: Derivation = Derivation.EMBEDDINGS,
    source: dict[str, Any] = SOURCE,
    *,
    replacing: bool = False,
    only: int | None = None,
) -> list[int]:
    done = []
    with store.deriver(kind, source, replace=replacing) as writer:
        for index in writer.pending[:only]:
            rows = store.records(shard=index, features=())
            writer.commit(index, [signal(record, kind) for record in rows], {"calls": 1})
            done.append(index)
    return done


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return made(tmp_path / "run")


def test_they_are_features_of_their_records(store: RunStore) -> None:
    before = compared_bytes(store.path)
    assert [derive(store, kind) for kind in Derivation] == [[0, 1]] * len(Derivation)
    for record in store.records():
        expected = make_record(record.example, "clean")
        assert record.features.keys() == expected.features.keys()
        for feature in EXTRA:
            assert record.array(feature).tobytes() == expected.array(feature).tobytes()
            assert not record.array(feature).flags.writeable
    (one, *_) = store.records(features={Feature.CONTRADICTION, Feature.HIDDEN})
    assert one.features.keys() == {Feature.CONTRADICTION, Feature.HIDDEN}
    assert not next(iter(store.records(features=()))).features
    assert store.available() >= EXTRA
    assert store.verify() == []
    assert compared_bytes(store.path).items() >= before.items(), "the originals keep their bytes"
    assert store.log()[-1] == {"shard": 1, "derived": "audit", "calls": 1}


def test_only_what_is_pending_is_computed(store: RunStore) -> None:
    assert derive(store, only=1) == [0]
    assert store.derived()[Derivation.EMBEDDINGS].shards == {0}
    assert [r.has(Feature.EMBEDDINGS) for r in store.records()] == [True, True, False, False]
    assert derive(store) == [1]
    assert derive(store) == []
    with (
        store.deriver(Derivation.EMBEDDINGS, SOURCE) as writer,
        pytest.raises(StoreError, match="a pending shard is required"),
    ):
        writer.commit(0, [])


def test_another_source_is_refused_or_replaces_on_request(store: RunStore) -> None:
    derive(store)
    with pytest.raises(StoreError, match=r"embeddings from .*one.*, not from .*two.*--replace"):
        derive(store, source=OTHER)
    assert derive(store, source=OTHER, replacing=True, only=1) == [0]
    found = store.derived()[Derivation.EMBEDDINGS]
    assert (dict(found.source), found.shards) == (OTHER, {0})
    assert derive(store, source=OTHER) == [1]
    assert derive(store, source=OTHER, replacing=True) == [], "nothing to replace"
    assert derive(store, Derivation.ENTAILMENT) == [0, 1], "each derivation has its own source"
    assert store.verify() == []


def test_a_lock_is_held_and_released(store: RunStore) -> None:
    with store.deriver(Derivation.IMPORTANCE, SOURCE), pytest.raises(StoreError, match="process"):
        derive(store)
    derive(store)
    with pytest.raises(StoreError, match="--replace"):
        derive(store, source=OTHER)
    with store.writer():
        pass


def test_what_was_recorded_is_not_derived(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", make_manifest(), make_examples(2))
    with store.writer() as writer:
        writer.commit(0, [make_record(make_examples(2)[0], "clean")])
    with pytest.raises(StoreError, match="was recorded with embeddings"):
        derive(store)


def test_arrays_of_other_rows_are_never_shown(store: RunStore) -> None:
    derive(store)
    shard = store.path / "shards" / "000001.parquet"
    shard.unlink()
    assert [r.example.id for r in store.records()] == ["e0", "e1"]
    assert store.verify() == []
    with store.writer() as writer:
        rows = [bare(make_record(e, "clean")) for e in store.shard_examples(1)]
        writer.commit(1, [replace(r, greedy=replace(r.answer, text="another")) for r in rows])
    with pytest.raises(CorruptStoreError, match=r"derived from other rows.*derive this signal"):
        list(store.records())
    (problem,) = store.verify()
    assert problem.file == "derived/embeddings/000001.parquet"
    list(store.records(features={Feature.HIDDEN}))
    assert "derived/embeddings/000001.parquet" in store.gc().files
    assert store.verify() == []
    assert [r.has(Feature.EMBEDDINGS) for r in store.records()] == [True, True, False, False]


def test_a_shard_collected_anew_is_derived_anew(store: RunStore) -> None:
    derive(store)
    (store.path / "shards" / "000001.parquet").unlink()
    with store.writer() as writer:
        rows = [bare(make_record(e, "clean")) for e in store.shard_examples(1)]
        writer.commit(1, rows[:1])
    assert derive(store) == [1]
    assert [r.has(Feature.EMBEDDINGS) for r in store.records()] == [True, True, True]


def test_every_single_byte_matters(store: RunStore) -> None:
    derive(store, Derivation.IMPORTANCE)
    files = [f for f in (store.path / "derived").rglob("*") if f.is_file()]
    assert len(files) == 4
    for file in files:
        data = file.read_bytes()
        for at in range(0, len(data), 7):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(CorruptStoreError, match="derive this signal again"):
                list(store.records(features={Feature.TOKEN_IMPORTANCE}))
        file.unlink()
        if file.suffix == ".safetensors":
            assert [p.what for p in store.verify()] == ["no file"]
        file.write_bytes(data)
    assert store.verify() == []


def test_files_of_another_place_are_refused(store: RunStore, tmp_path: Path) -> None:
    derive(store)
    folder = store.path / "derived" / "embeddings"
    shutil.copy(folder / "000000.parquet", folder / "000001.parquet")
    with pytest.raises(CorruptStoreError, match="the shard of another place"):
        list(store.records())
    shutil.rmtree(folder.parent / "importance", ignore_errors=True)
    shutil.copytree(folder, folder.parent / "importance")
    with pytest.raises(CorruptStoreError, match="the kind of another place"):
        list(store.records(features={Feature.TOKEN_IMPORTANCE}))


def test_two_sources_side_by_side_are_named(store: RunStore, tmp_path: Path) -> None:
    derive(store)
    other = made(tmp_path / "other")
    derive(other, source=OTHER)
    for file in (other.path / "derived" / "embeddings").glob("000001*"):
        shutil.copy(file, store.path / "derived" / "embeddings")
    with pytest.raises(StoreError, match="from 2 sources"):
        store.derived()
    assert derive(store, replacing=True) == [1]
    assert store.derived()[Derivation.EMBEDDINGS].shards == {0, 1}


def test_what_killed_writers_left_is_removed(store: RunStore) -> None:
    derive(store)
    folder = store.path / "derived" / "embeddings"
    orphan = folder / f"000001.{'0' * 32}.safetensors"
    orphan.write_bytes(b"x")
    unfinished = folder / f"000001.safetensors.tmp.7.{'0' * 32}"
    unfinished.write_bytes(b"xy")
    removed = store.gc()
    assert set(removed.files) == {str(f.relative_to(store.path)) for f in (orphan, unfinished)}
    assert removed.bytes == 3
    (folder / "000001.parquet").write_bytes(b"damaged")
    orphan.write_bytes(b"x")
    assert store.gc().files == (), "arrays of a damaged table stay"


def test_overwriting_a_run_removes_them(store: RunStore) -> None:
    derive(store)
    again = RunStore.create(store.path, make_manifest(), make_examples(2), overwrite=True)
    assert again.derived() == {}
    assert not (store.path / "derived").exists()


def test_a_listing_names_what_is_derived_and_by_what(store: RunStore) -> None:
    assert describe_run(store.path).derived == ()
    derive(store)
    described = describe_run(store.path)
    assert described.derived == ("embeddings (one)",)
    assert Feature.EMBEDDINGS in described.features


class TestMerging:
    def test_what_all_runs_have_from_one_source_is_kept(self, tmp_path: Path) -> None:
        runs = [made(tmp_path / "a", make_examples(3)), made(tmp_path / "b", first=3)]
        for run in runs:
            derive(run)
            derive(run, Derivation.ENTAILMENT)
        merged = merge_runs([run.path for run in runs], tmp_path / "out")
        assert dict(merged.derived()[Derivation.EMBEDDINGS].source) == SOURCE
        assert merged.derived()[Derivation.EMBEDDINGS].shards == merged.committed()
        for record in merged.records():
            expected = make_record(record.example, "clean")
            for feature in (Feature.EMBEDDINGS, Feature.ENTAILMENT, Feature.HIDDEN):
                np.testing.assert_array_equal(record.array(feature), expected.array(feature))
        assert not any(summary.features & EXTRA for _, summary in merged.summaries()), (
            "what was derived stays derived, so that another encoder may replace it"
        )
        assert merged.verify() == []
        assert derive(merged) == []

    @pytest.mark.parametrize("second", ["nothing", "another source", "a part"])
    def test_anything_else_is_left_out_and_noted(self, tmp_path: Path, second: str) -> None:
        runs = [made(tmp_path / "a", make_examples(1)), made(tmp_path / "b", first=1)]
        derive(runs[0])
        if second != "nothing":
            only, source = (None, OTHER) if second == "another source" else (1, SOURCE)
            derive(runs[1], source=source, only=only)
        merged = merge_runs([run.path for run in runs], tmp_path / "out")
        assert merged.derived() == {}
        assert not any(record.has(Feature.EMBEDDINGS) for record in merged.records())
        assert "Derived embeddings were left out" in merged.manifest.notes[-1]
        assert derive(merged) == [0, 1]


def test_the_footer_says_what_made_them(store: RunStore) -> None:
    """Readable without this library."""
    import pyarrow.parquet as pq

    derive(store)
    path = store.path / "derived" / "embeddings" / "000000.parquet"
    footer = pq.read_metadata(path).metadata
    assert json.loads(footer[b"sightline.source"]) == SOURCE
    rows = pq.read_metadata(store.path / "shards" / "000000.parquet").metadata
    assert footer[b"sightline.rows"] == rows[b"sightline.seal"]
