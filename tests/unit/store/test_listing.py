"""Listing a folder of runs, and names that must not lead out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from run_plans import N, make_examples, make_manifest, shard_rows, write_run

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import DataError, StoreError
from sightline.core.features import ARRAY_AXES
from sightline.core.types import Key
from sightline.store.inspection import verify_run
from sightline.store.layout import remove_run, run_path
from sightline.store.listing import StoredRun, UnreadableRun, list_runs
from sightline.store.run import RunStore
from sightline.store.sealed import dump_document, load_document


def test_lists_whole_partial_and_damaged_runs(tmp_path: Path) -> None:
    store = write_run(tmp_path / "a")
    store.write_column(Column("x", ColumnKind.CORRECT, (Key("e0", "clean"),), np.ones(1)))
    begun = RunStore.create(
        tmp_path / "b", make_manifest(partial="--limit 10 of 99", model={}), make_examples()
    )
    with begun.writer() as writer:
        writer.commit(1, *shard_rows(begun.shard_examples(1)))
    write_run(tmp_path / "c")
    (tmp_path / "c" / "manifest.json").write_text("{}")
    (tmp_path / "no-run").mkdir()
    whole, partial, damaged = list_runs(tmp_path)
    assert isinstance(whole, StoredRun)
    assert isinstance(partial, StoredRun)
    assert isinstance(damaged, UnreadableRun)
    assert (whole.examples, whole.records, whole.quarantined) == (N, 2 * (N - 1), 1)
    assert (whole.committed, whole.n_shards) == (4, 4)
    assert whole.conditions == ("clean", "blank")
    assert (set(whole.features), whole.layers) == (set(ARRAY_AXES), (2, 5))
    assert whole.columns == ("correct.x",)
    assert whole.bytes == sum(f.stat().st_size for f in store.path.rglob("*") if f.is_file())
    assert (partial.committed, partial.records, partial.quarantined) == (1, 4, 1)
    assert (partial.model, partial.partial) == ("unknown", "--limit 10 of 99")
    assert "manifest.json has no seal" in damaged.problem
    assert list_runs(tmp_path / "a") == [whole]


def test_a_folder_is_required(tmp_path: Path) -> None:
    assert list_runs(tmp_path) == []
    with pytest.raises(DataError, match="not a folder"):
        list_runs(tmp_path / "absent")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        ".",
        "",
        "/etc",
        "a/b",
        "a\\b",
        "%2e%2e",
        "a..b",
        "x" * 300,
        "CON",
        "nul.txt",
        "COM1",
        "a\x00b",
        "a\nb",
        ".hidden",
        "-rf",
        "é",
    ],
)
def test_run_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="Run name") as caught:
        run_path(tmp_path, name)
    assert caught.value.exit_code == 2


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="leads out"):
        run_path(tmp_path / "runs", "link")
    assert run_path(tmp_path / "runs", "a-1.b_c") == tmp_path / "runs" / "a-1.b_c"


@pytest.mark.parametrize("read", [list_runs, RunStore.open, verify_run], ids=lambda f: f.__name__)
def test_a_path_too_long_to_look_at_is_one_line(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    with pytest.raises(StoreError, match=r"cannot be looked at \(File name too long\)[^\n]*$"):
        read(tmp_path / ("x" * 300))


def test_verifying_names_what_is_whole_but_cannot_be_read(tmp_path: Path) -> None:
    store = write_run(tmp_path / "a", 2)
    path = store.path / "manifest.json"
    path.write_bytes(dump_document({**load_document(path), "schema_version": 99}))
    (problem,) = verify_run(store.path)
    assert (problem.file, problem.where) == ("manifest.json", "content")
    assert "schema version 99" in problem.what


def test_an_image_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    store = write_run(tmp_path / "a", 2)
    (store.path / "images").mkdir()
    unfinished = store.path / "images" / f"{'0' * 64}.png.tmp.1.{'0' * 32}"
    unfinished.write_bytes(b"half")
    assert verify_run(store.path) == []
    assert store.gc().files == (f"images/{unfinished.name}",)


def test_what_is_no_run_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a run"):
        verify_run(tmp_path)


def test_a_file_that_a_writer_renames_meanwhile_does_not_end_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "a")
    (before,) = list_runs(tmp_path)
    assert isinstance(before, StoredRun)
    found = Path.rglob

    def gone_since(path: Path, pattern: str) -> Iterator[Path]:
        yield path / "shards" / "000009.parquet.tmp.1.00"
        yield from found(path, pattern)

    monkeypatch.setattr(Path, "rglob", gone_since)
    assert list_runs(tmp_path) == [before]


def test_other_files_among_the_columns_are_none(tmp_path: Path) -> None:
    store = write_run(tmp_path / "a")
    store.write_column(Column("x", ColumnKind.CORRECT, (Key("e0", "clean"),), np.ones(1)))
    for name in ("notes.txt", "correct.parquet", "other.y.parquet", ".x.parquet.tmp.1.ab"):
        (store.path / "columns" / name).write_text("no column")
    assert store.columns() == [(ColumnKind.CORRECT, "x")]


def test_only_a_run_is_removed(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with pytest.raises(StoreError, match="only runs are removed"):
        remove_run(tmp_path)
    assert (tmp_path / "shards").is_dir()
