"""Rows of a shard: large arrays, and sealed files that nobody but a forger could have written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from run_plans import LAYERS, assert_same_record, make_examples, make_manifest, write_run
from safetensors.numpy import load_file

from sightline.core.column import ColumnKind
from sightline.core.errors import CorruptStoreError
from sightline.core.features import Feature
from sightline.core.types import Generation, Record
from sightline.store.run import RunStore
from sightline.store.schema import COLUMN, ROWS
from sightline.store.sealed import metadata_of, open_table, write_table
from sightline.store.shards import BLOCK


def test_large_and_small_arrays_share_a_shard(tmp_path: Path) -> None:
    """Pieces below, at and above the block size, so that joining and splitting both happen."""
    widths = [3, BLOCK // 8, 5, BLOCK // 2, BLOCK + 7, 40, BLOCK // 16 - 1, BLOCK // 4]
    widths += [BLOCK // 16 - 1] * 6
    examples = make_examples(len(widths))
    rng = np.random.default_rng(0)
    records = [
        Record(
            example,
            greedy=Generation("x", logprobs=np.array([-1.0])),
            features={
                Feature.TOP_LOGPROBS: rng.standard_normal((1, width), dtype=np.float32),
                Feature.TOKEN_ENTROPY: rng.standard_normal(1),
                Feature.PROMPT_HIDDEN: rng.standard_normal((2, 30_000)).astype(np.float16),
            },
            layers=LAYERS,
        )
        for example, width in zip(examples, widths, strict=True)
    ]
    store = RunStore.create(tmp_path / "r", make_manifest(shard_size=len(widths)), examples)
    with store.writer() as writer:
        writer.commit(0, records)
    for stored, record in zip(store.records(), records, strict=True):
        assert_same_record(stored, record)
    assert store.verify() == []
    (file,) = store.path.glob("shards/*.safetensors")
    tensors = load_file(file)
    hidden = np.stack([record.features[Feature.PROMPT_HIDDEN][1] for record in records])
    assert np.array_equal(tensors["prompt_hidden.5"], hidden)


def test_long_answers_among_short_ones(tmp_path: Path) -> None:
    """Pieces of one tensor: small ones wait to be joined, until a large one comes."""
    lengths = [3, 1, BLOCK // 8, 5]
    examples = make_examples(len(lengths))
    rng = np.random.default_rng(0)
    records = [
        Record(
            example,
            greedy=Generation("x", logprobs=-rng.exponential(size=length)),
            features={Feature.TOKEN_ENTROPY: rng.random(length)},
        )
        for example, length in zip(examples, lengths, strict=True)
    ]
    store = RunStore.create(tmp_path / "r", make_manifest(shard_size=4), examples)
    with store.writer() as writer:
        writer.commit(0, records)
    for stored, record in zip(store.records(), records, strict=True):
        assert_same_record(stored, record)
    assert store.verify() == []


def test_arrays_of_another_run_are_refused(tmp_path: Path) -> None:
    store, other = write_run(tmp_path / "r", 3), write_run(tmp_path / "other", 2)
    (arrays,) = other.path.glob("shards/*.safetensors")
    shutil.copy(arrays, store.path / "shards")
    forge(store.path / "shards" / "000000.parquet", lambda rows: None, arrays=arrays.name)
    with pytest.raises(CorruptStoreError, match="the run or shard of another place"):
        list(store.records())


def forge(path: Path, change: Any, **metadata: str) -> None:
    """Rewrites a sealed table with other rows or metadata and a valid seal."""
    file = open_table(path)
    stored = {k: v for k, v in metadata_of(file.metadata, path).items() if k.startswith("sight")}
    stored.pop("sightline.seal")
    table = file.read()
    rows = table.to_pylist()
    change(rows)
    forged = pa.Table.from_pylist(rows, schema=table.schema.remove_metadata())
    more = {f"sightline.{name}": value for name, value in metadata.items()}
    write_table(path, forged.schema, [forged], lambda: {**stored, **more})


def set_place(**changes: Any) -> Any:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["arrays"][0].update(changes)

    return change


CHANGES = {
    "an unknown example": lambda rows: rows[0].update(example_id="nobody"),
    "an unknown feature": set_place(feature="nonsense"),
    "a feature that is no array": set_place(feature="answer"),
    "a part that is not there": set_place(part=99),
    "rows beyond the tensor": set_place(start=10**6),
    "rows before the tensor": set_place(start=-1),
    "another shape": set_place(shape=[1, 1]),
    "another dtype": set_place(dtype="float64"),
    "no dtype": set_place(dtype="nonsense"),
    "positive log-probabilities": lambda rows: rows[0]["greedy"].update(
        logprobs=[1.0] * len(rows[0]["greedy"]["tokens"])
    ),
    "layers that were not stored": lambda rows: rows[0].update(layers=[7, 8]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_sealed_rows_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    store = write_run(tmp_path / "r", 3)
    forge(store.path / "shards" / "000000.parquet", CHANGES[name])
    with pytest.raises(CorruptStoreError, match=r"000000\.parquet has rows that do not fit"):
        list(store.records())
    assert [p.file for p in store.verify()] == ["shards/000000.parquet"]


@pytest.mark.parametrize(
    "changes",
    [{"part": 99}, {"start": 10**6}, {"shape": [5]}, {"dtype": "float64"}, {"dtype": "nonsense"}],
)
def test_sealed_places_that_do_not_fit_are_not_stacked(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    examples = make_examples(1)
    store = RunStore.create(tmp_path / "r", make_manifest(), examples)
    with store.writer() as writer:
        vector = np.ones(4, dtype=np.float32)
        writer.commit(0, [Record(examples[0], features={Feature.IMAGE_VECTOR: vector})])
    forge(store.path / "shards" / "000000.parquet", set_place(**changes))
    for read in (store.records(), store.stacked([Feature.IMAGE_VECTOR])):
        with pytest.raises(CorruptStoreError, match=r"000000\.parquet has rows that do not fit"):
            list(read)


def test_an_array_file_that_is_gone_is_named(tmp_path: Path) -> None:
    store = write_run(tmp_path / "r", 3)
    (arrays,) = store.path.glob("shards/*.safetensors")
    arrays.unlink()
    with pytest.raises(CorruptStoreError, match=f"{arrays.name} has no file"):
        list(store.records())
    assert [problem.file for problem in store.verify()] == [f"shards/{arrays.name}"]


def test_sealed_footers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    store = write_run(tmp_path / "r", 3)
    path = store.path / "shards" / "000000.parquet"
    whole = path.read_bytes()
    for changes, found in (
        ({"format": "rows.9"}, "the format of another place"),
        ({"shard": "1"}, "the shard of another place"),
        ({"arrays": "../../etc/passwd"}, "an array file of a wrong name"),
    ):
        path.write_bytes(whole)
        forge(path, lambda rows: None, **changes)
        with pytest.raises(CorruptStoreError, match=found):
            list(store.records())
    path.write_bytes(whole)
    metadata = metadata_of(open_table(path).metadata, path)
    kept = {k: v for k, v in metadata.items() if k in (
        "sightline.run", "sightline.shard", "sightline.format", "sightline.arrays",
        "sightline.summary",
    )}  # fmt: skip
    other = ROWS.remove(ROWS.get_field_index("reason"))
    write_table(path, other, [], lambda: kept)
    with pytest.raises(CorruptStoreError, match="other columns"):
        list(store.records())


def test_a_sealed_column_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    store = write_run(tmp_path / "r", 3)
    path = store.path / "columns" / "correct.x.parquet"
    metadata = {"sightline.kind": "correct", "sightline.name": "x", "sightline.spec": "{}"}
    row = {"example_id": "e0", "condition": "clean", "value": 2.0}
    write_table(path, COLUMN, [pa.Table.from_pylist([row], schema=COLUMN)], lambda: metadata)
    with pytest.raises(CorruptStoreError, match="rows that are no column"):
        store.column(ColumnKind.CORRECT, "x")
    other = pa.schema([("value", pa.float64())])
    write_table(path, other, [], lambda: metadata)
    with pytest.raises(CorruptStoreError, match="other columns than key and value"):
        store.column(ColumnKind.CORRECT, "x")


def test_summaries_tell_what_shards_hold(tmp_path: Path) -> None:
    store = write_run(tmp_path / "r", 6)
    (first, one), (second, two) = store.summaries()
    assert (first, second) == (0, 1)
    assert (one.records, one.quarantined) == (6, 0)
    assert (two.records, two.quarantined) == (4, 1)
    assert json.dumps(sorted(two.layers)) == "[2, 5]"
    assert replace(two, records=4) == two
