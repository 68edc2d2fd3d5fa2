"""The commands over runs and imports, on what no example shows: full disks, damage, odd files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = [
    {"id": str(i), "question": "q?", "answer": f"a{i}", "model": model}
    for model in ("a", "b")
    for i in range(3)
]


def sightline(*arguments: object, stdout: int = subprocess.PIPE) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "sightline", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    return done.returncode, done.stdout or "", done.stderr


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    lines = [*map(json.dumps, ROWS), "{not json}", json.dumps({"id": "9", "model": "b"})]
    (folder / "x.jsonl").write_text("\n".join(lines))
    code, out, errors = sightline("import", folder / "x.jsonl", "-o", folder / "runs")
    assert code == 4
    assert out.splitlines() == [str(folder / "runs" / "x.a"), str(folder / "runs" / "x.b")]
    assert errors.splitlines() == [
        "  1 × not JSON: Expecting property name enclosed in double quotes at character 1 "
        "(first: line 7)",
        "  1 × no question (first: line 8)",
        "sightline: 2 rows were not imported.",
    ]
    return folder / "runs"


def test_one_rejected_row_is_one(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(ROWS[0])}\n{{not json}}")
    code, _, errors = sightline("import", tmp_path / "x.jsonl", "-o", tmp_path / "runs")
    assert code == 4
    assert errors.splitlines()[-1] == "sightline: 1 row was not imported."


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("target", ["file", "standard output"])
def test_an_export_to_a_full_disk_is_one_line(imported: Path, target: str) -> None:
    with Path("/dev/full").open("w") as full:
        if target == "file":
            code, _, errors = sightline("runs", "export", imported / "x.a", "-o", "/dev/full")
        else:
            code, _, errors = sightline("runs", "export", imported / "x.a", stdout=full.fileno())
    assert code == 1
    assert "No space left on device" in errors
    assert len(errors.splitlines()) == 1


def test_verify_names_the_damage_of_every_run(imported: Path, tmp_path: Path) -> None:
    for name in ("x.a", "x.b"):
        shutil.copytree(imported / name, tmp_path / name)
    (tmp_path / "x.a" / "manifest.json").write_text("{}")
    rows = tmp_path / "x.b" / "shards" / "000000.parquet"
    rows.write_bytes(rows.read_bytes()[:-1])
    code, _, errors = sightline("runs", "verify", tmp_path / "x.a", tmp_path / "x.b")
    assert code == 5
    assert "x.a: manifest.json" in errors
    assert "x.b: shards/000000.parquet" in errors
    assert "Traceback" not in errors


def test_a_path_too_long_is_one_line(tmp_path: Path) -> None:
    name = "x" * 300
    for command in (["runs", "show", name], ["import", f"{name}.jsonl"], ["import", "-o", name]):
        path = tmp_path / "one.jsonl"
        path.write_text(json.dumps(ROWS[0]))
        code, _, errors = sightline(*command, *([path] if command[-2:-1] == ["-o"] else []))
        assert code in (1, 2)
        assert "File name too long" in errors
        assert len(errors.splitlines()) == 1


def test_an_unknown_format_names_the_known(tmp_path: Path) -> None:
    code, _, errors = sightline("import", tmp_path / "x.jsonl", "--format", "lm-eval")
    assert code == 2
    assert "vlmevalkit" in errors


def test_an_export_never_lands_inside_a_run(imported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(imported / "x.a", tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (tmp_path / "link").symlink_to(run)
    for output in (run / "manifest.json", run / "shards" / "new.csv", tmp_path / "link" / "x.csv"):
        code, _, errors = sightline("runs", "export", imported / "x.b", "-o", output)
        assert code == 2
        assert f"lies inside the run {run}" in errors
        assert len(errors.splitlines()) == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_an_export_replaces_a_file_only_when_told_to(imported: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("weeks of labelling")
    command = ["runs", "export", imported / "x.a", "--to-label", "-o", sheet]
    code, _, errors = sightline(*command)
    assert (code, sheet.read_text()) == (2, "weeks of labelling")
    assert "exists already" in errors
    assert sightline(*command, "--overwrite")[0] == 0
    assert sheet.read_text().startswith("id,condition,")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", [["doctor"], ["models"], ["--help"], ["runs", "show"]])
def test_printing_to_a_full_disk_is_one_line(imported: Path, command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        run = [imported / "x.a"] if command[-1] == "show" else []
        code, _, errors = sightline(*command, *run, stdout=full.fileno())
    assert code == 1
    assert "Writing standard output failed: No space left on device" in errors
    assert len(errors.splitlines()) == 1


def test_runs_further_down_are_listed_but_not_what_lies_inside_them(
    imported: Path, tmp_path: Path
) -> None:
    for place in ("a/b/c/deep", "a/near", "a/.hidden/run", "a/b/c/d/too-deep", "a/near/images/in"):
        shutil.copytree(imported / "x.a", tmp_path / place)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    code, out, _ = sightline("runs", "ls", tmp_path)
    assert code == 0
    paths = [line.partition("  ")[0] for line in out.splitlines()]
    assert paths == [str(tmp_path / "a/b/c/deep"), str(tmp_path / "a/near")]
    (tmp_path / "none").mkdir()
    assert sightline("runs", "ls", tmp_path / "none")[2].startswith("No runs below ")


@pytest.mark.parametrize("command", [[], ["runs"]])
def test_a_group_without_a_command_prints_its_help(command: list[str]) -> None:
    code, out, errors = sightline(*command)
    assert (code, out) == (2, "")
    assert errors == sightline(*command, "--help")[1]
    assert len(errors.splitlines()) > 8
