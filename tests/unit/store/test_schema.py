"""Manifest and migrations."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from run_plans import make_examples, make_manifest, write_run

from sightline.core.errors import CorruptStoreError, DataError, StoreError
from sightline.store import schema
from sightline.store.run import RunStore
from sightline.store.schema import (
    EXAMPLES,
    canonical_json,
    decode_examples,
    encode_example,
    manifest_from_dict,
    storable,
)
from sightline.store.sealed import dump_document, load_document


def test_a_manifest_round_trips() -> None:
    manifest = make_manifest(notes=("é",), partial="--limit 3 of 10", settings={"a": (1, 2)})
    again = manifest_from_dict(manifest.to_dict(), "m")
    assert again.to_dict() == manifest.to_dict()
    assert again.run_hash() == manifest.run_hash()
    assert again.settings == {"a": [1, 2]}


def test_the_run_hash_ignores_what_does_not_decide_results() -> None:
    one = make_manifest()
    same = make_manifest(created="x", notes=("n",), versions={}, dataset={"name": "moved"})
    assert one.run_hash() == same.run_hash()
    assert one.run_hash() != make_manifest(settings={}).run_hash()


@pytest.mark.parametrize("version", [0, 2, 99, None, "1", 1.5])
def test_another_version_is_a_usage_error(tmp_path: Path, version: object) -> None:
    store = write_run(tmp_path / "r", 2)
    path = store.path / "manifest.json"
    path.write_bytes(dump_document({**load_document(path), "schema_version": version}))
    with pytest.raises(StoreError, match="schema version") as caught:
        RunStore.open(store.path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"kind": "invented"}, "kind"),
        ({"shard_size": "many"}, "shard_size"),
        ({"unknown": 1}, "unknown"),
        ({"versions": {"a": []}}, "versions.a"),
    ],
)
def test_a_wrong_entry_is_named(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(CorruptStoreError, match=where):
        manifest_from_dict({**make_manifest().to_dict(), **changes}, "m")


@pytest.mark.parametrize(
    "images",
    [None, [None], [{"path": None, "sha256": "0"}], [{"path": "a", "sha256": None}]],
)
def test_a_null_among_the_images_is_refused(images: Any) -> None:
    examples = make_examples()
    rows = [encode_example(example) for example in examples]
    fields = pa.schema([field.with_nullable(True) for field in EXAMPLES])
    fields = fields.set(2, pa.field("images", pa.list_(IMAGE_OR_NULL)))
    assert decode_examples(pa.Table.from_pylist(rows, schema=fields)) == examples
    rows[4]["images"] = images
    table = pa.Table.from_pylist(rows, schema=fields)
    with pytest.raises(CorruptStoreError, match="a null among its images"):
        decode_examples(table)
    assert decode_examples(table.slice(5)) == examples[5:]


IMAGE_OR_NULL = pa.struct([("path", pa.string()), ("sha256", pa.string())])


def test_migrations_run_one_version_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_minus_one(document: dict[str, Any]) -> dict[str, Any]:
        renamed = {"shard_size" if key == "size" else key: document[key] for key in document}
        return {**renamed, "schema_version": 0}

    def from_zero(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "schema_version": 1, "notes": ["migrated"]}

    monkeypatch.setattr(schema, "MIGRATIONS", {-1: from_minus_one, 0: from_zero})
    old = make_manifest().to_dict()
    old["size"] = old.pop("shard_size")
    manifest = manifest_from_dict({**old, "schema_version": -1}, "m")
    assert (manifest.shard_size, manifest.notes) == (3, ("migrated",))


def test_canonical_json_is_one_text_for_equal_values() -> None:
    one = {
        "b": np.float64(0.1),
        "a": (np.int64(3), MappingProxyType({"x": frozenset({"q", "p"})})),
        "c": True,
    }
    two = {"c": True, "a": [3, {"x": ["p", "q"]}], "b": 0.1}
    assert (
        canonical_json(one) == canonical_json(two) == '{"a":[3,{"x":["p","q"]}],"b":0.1,"c":true}'
    )
    assert json.loads(canonical_json({"é": "\ud800"})) == {"é": "\ud800"}
    for bad in (float("inf"), object(), {1, "a"}):
        with pytest.raises(DataError, match="cannot be stored"):
            canonical_json({"x": bad})


def test_storable_changes_only_what_is_not_unicode() -> None:
    assert storable("é🍎\x00\n") == "é🍎\x00\n"
    assert storable("a\udc80b") == "a\\udc80b"
