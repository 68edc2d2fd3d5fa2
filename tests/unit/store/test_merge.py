"""Merging: the union of the runs' rows and columns, or a refusal that names why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_plans import (
    assert_same_record,
    make_examples,
    make_manifest,
    make_record,
    shard_rows,
)

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import StoreError
from sightline.core.types import Example, Key
from sightline.data.collected import Rejected
from sightline.store.merge import merge_runs
from sightline.store.run import RunStore


def made(
    path: Path, examples: list[Example], conditions: tuple[str, ...] = ("clean",), **changes: object
) -> RunStore:
    manifest = make_manifest(
        **{"conditions": conditions, "image_root": "/photos", **changes}  # type: ignore[arg-type]
    )
    store = RunStore.create(
        path, manifest, examples, rejected=[Rejected("line 1", f"of {path.name}")]
    )
    with store.writer() as writer:
        for index in range(store.manifest.n_shards or 0):
            mine = store.shard_examples(index)
            writer.commit(index, [make_record(e, c) for e in mine for c in conditions])
    return store


def test_disjoint_examples_keep_the_order_of_the_runs(tmp_path: Path) -> None:
    examples = make_examples(10)
    one = made(tmp_path / "a", examples[:4], partial="--limit 4 of 10")
    two = made(tmp_path / "b", examples[4:], shard_size=2)
    merged = merge_runs([one.path, two.path], tmp_path / "out")
    expected = [*one.records(), *two.records()]
    for record, other in zip(merged.records(), expected, strict=True):
        assert_same_record(record, other)
    assert merged.examples() == examples
    assert merged.manifest.kind == "merged"
    assert merged.manifest.partial == "--limit 4 of 10"
    assert merged.manifest.image_root == "/photos"
    assert [r.reason for r in merged.rejected()] == ["of a", "of b"]
    assert merged.verify() == []


def test_the_same_examples_under_other_conditions(tmp_path: Path) -> None:
    examples = make_examples(5)
    one = made(tmp_path / "a", examples)
    two = made(tmp_path / "b", list(reversed(examples)), ("jpeg:3", "blank"))
    merged = merge_runs([one.path, two.path], tmp_path / "out")
    assert [r.key for r in merged.records()] == [
        Key(e.id, c) for e in examples for c in ("clean", "jpeg:3", "blank")
    ]
    assert merged.manifest.conditions == ("clean", "jpeg:3", "blank")


def test_runs_without_a_list_of_conditions_merge_into_one_without(tmp_path: Path) -> None:
    examples = make_examples(4)
    one = made(tmp_path / "a", examples[:2])
    two = made(tmp_path / "b", examples[2:], ())
    merged = merge_runs([one.path, two.path], tmp_path / "out")
    assert merged.manifest.conditions == ()
    assert merged.examples() == examples


def test_quarantined_rows_are_kept(tmp_path: Path) -> None:
    one = made(tmp_path / "a", make_examples(3), ("clean", "blank"))
    two = RunStore.create(tmp_path / "b", make_manifest(image_root="/photos"), make_examples(6)[3:])
    with two.writer() as writer:
        writer.commit(0, *shard_rows(two.shard_examples(0)))
    merged = merge_runs([one.path, two.path], tmp_path / "out")
    assert merged.quarantined() == two.quarantined() != []


def test_columns_are_joined(tmp_path: Path) -> None:
    examples = make_examples(4)
    runs = [made(tmp_path / "a", examples[:2]), made(tmp_path / "b", examples[2:])]
    for run, value in zip(runs, (0.25, 0.75), strict=True):
        keys = tuple(record.key for record in run.records())
        values = np.full(len(keys), value)
        run.write_column(Column("same", ColumnKind.CORRECT, keys, values, {"grader": "x"}))
        run.write_column(Column("other", ColumnKind.CORRECT, keys, values, {"from": value}))
    only = Column("only", ColumnKind.UNCERTAINTY, (Key("e0", "clean"),), np.ones(1))
    runs[0].write_column(only)
    merged = merge_runs([run.path for run in runs], tmp_path / "out")
    same = merged.column(ColumnKind.CORRECT, "same")
    assert dict(zip((k.example_id for k in same.keys), same.values, strict=True)) == {
        "e0": 0.25, "e1": 0.25, "e2": 0.75, "e3": 0.75,
    }  # fmt: skip
    assert dict(same.spec) == {"grader": "x"}
    other = merged.column(ColumnKind.CORRECT, "other")
    assert dict(other.spec) == {"merged": [{"from": 0.25}, {"from": 0.75}]}
    assert merged.column(ColumnKind.UNCERTAINTY, "only").keys == only.keys


def test_image_paths_become_absolute_where_roots_differ(tmp_path: Path) -> None:
    examples = make_examples(3)
    one = made(tmp_path / "a", examples[:2], image_root=str(tmp_path / "x"))
    two = made(tmp_path / "b", examples[2:], image_root="")
    merged = merge_runs([one.path, two.path], tmp_path / "out")
    assert merged.manifest.image_root == ""
    paths = [image.path for e in merged.examples() for image in e.images]
    assert paths == [
        str(tmp_path / "x" / "1.png"),
        str(tmp_path / "b" / "2.png"),
        str(tmp_path / "b" / "2.png"),
    ]


class TestRefusals:
    def test_other_settings_or_model(self, tmp_path: Path) -> None:
        one = made(tmp_path / "a", make_examples(2))
        two = made(tmp_path / "b", make_examples(4)[2:], settings={"seed": 1})
        with pytest.raises(StoreError, match=r"settings \(request, seed\)"):
            merge_runs([one.path, two.path], tmp_path / "out")
        three = made(tmp_path / "c", make_examples(4)[2:], model={"name": "other"})
        with pytest.raises(StoreError, match=r"model \(name, revision\)"):
            merge_runs([one.path, three.path], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_one_key_in_two_runs(self, tmp_path: Path) -> None:
        one = made(tmp_path / "a", make_examples(2))
        two = made(tmp_path / "b", make_examples(4)[1:])
        with pytest.raises(StoreError, match=r"'e1'.* is in two of"):
            merge_runs([one.path, two.path], tmp_path / "out")

    def test_one_id_for_two_examples(self, tmp_path: Path) -> None:
        examples = make_examples(3)
        one = made(tmp_path / "a", examples)
        examples[2] = replace(examples[2], question="another")
        two = made(tmp_path / "b", examples, ("blank",))
        with pytest.raises(StoreError, match=r"'e2' of .*b differs"):
            merge_runs([one.path, two.path], tmp_path / "out")

    def test_an_unfinished_run(self, tmp_path: Path) -> None:
        one = made(tmp_path / "a", make_examples(2))
        two = RunStore.create(
            tmp_path / "b", make_manifest(conditions=("clean",)), make_examples(4)[2:]
        )
        with pytest.raises(StoreError, match="lacks 1 of 1 shards"):
            merge_runs([one.path, two.path], tmp_path / "out")

    def test_too_few_or_the_same_run(self, tmp_path: Path) -> None:
        one = made(tmp_path / "a", make_examples(2))
        with pytest.raises(StoreError, match="at least two"):
            merge_runs([one.path], tmp_path / "out")
        for paths, out in (([one.path, one.path], "out"), ([one.path, tmp_path / "b"], "a")):
            with pytest.raises(StoreError, match="different runs"):
                merge_runs(paths, tmp_path / out, overwrite=True)
        assert len(list(one.records())) == 2
