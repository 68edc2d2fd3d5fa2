"""Embedded images: written once, under their hash, durable before a row refers to them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from failing_disk import FailingDisk, PowerLoss
from run_plans import write_run

from sightline.core.errors import DiskError
from sightline.store import disk
from sightline.store.images import image_writer
from sightline.store.run import RunStore

PNG = b"\x89PNG stands for an embedded image"
NAME = f"images/{hashlib.sha256(PNG).hexdigest()}.png"


def test_an_image_is_written_once_under_its_hash(tmp_path: Path) -> None:
    write = image_writer(tmp_path / "run")
    ref = write(PNG, "png")
    assert (ref.path, ref.sha256) == (NAME, hashlib.sha256(PNG).hexdigest())
    path = tmp_path / "run" / NAME
    before = path.stat().st_ino
    assert write(PNG, "png") == ref
    assert path.stat().st_ino == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("found", [PNG[:10], b"", b"x" * len(PNG)], ids=["torn", "empty", "other"])
def test_a_damaged_image_is_written_again(tmp_path: Path, found: bytes) -> None:
    write = image_writer(tmp_path)
    ref = write(PNG, "png")
    (tmp_path / ref.path).write_bytes(found)
    assert write(PNG, "png") == ref
    assert (tmp_path / ref.path).read_bytes() == PNG


def test_a_run_says_which_image_is_damaged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 2)
    image_writer(run.path)(PNG, "png")
    assert run.verify() == []
    (run.path / NAME).write_bytes(PNG + b"!")
    assert [(problem.file, problem.where) for problem in run.verify()] == [(NAME, "the whole file")]


def test_a_run_is_created_around_its_images(tmp_path: Path) -> None:
    image_writer(tmp_path / "run")(PNG, "png")
    run = write_run(tmp_path / "run", 2)
    assert RunStore.open(run.path).verify() == []
    assert (run.path / NAME).read_bytes() == PNG


@pytest.mark.parametrize("keep", ["none", "all", "last"])
def test_no_power_loss_takes_an_image_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    (tmp_path / "disk").mkdir()
    power = PowerLoss(tmp_path / "disk")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "os", power)
        image_writer(tmp_path / "disk" / "runs" / "a")(PNG, "png")
    (tmp_path / "left").mkdir()
    power.survivors(tmp_path / "left", keep)
    assert (tmp_path / "left" / "runs" / "a" / NAME).read_bytes() == PNG


def test_no_failing_call_leaves_part_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(1, 100):
        failing = FailingDisk(k, errno.ENOSPC)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", failing)
            try:
                image_writer(tmp_path / "run")(PNG, "png")
            except DiskError:
                pass
            else:
                break
        stored = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        assert stored == ([tmp_path / "run" / NAME] if "rename" in failing.calls[: k - 1] else [])
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert k > 5
    assert (tmp_path / "run" / NAME).read_bytes() == PNG


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file in the way")
    with pytest.raises(DiskError, match=r"failed: Not a directory[^\n]*$"):
        image_writer(tmp_path)(PNG, "png")


def test_an_unreadable_image_is_one_line(tmp_path: Path) -> None:
    os.makedirs(tmp_path / NAME)  # noqa: PTH103
    with pytest.raises(DiskError, match=r"Reading .*: Is a directory"):
        image_writer(tmp_path)(PNG, "png")
