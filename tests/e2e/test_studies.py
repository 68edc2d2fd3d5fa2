"""The committed studies repeat by their command, small: every table, its control, and resuming."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the models extra is not installed")

CONTROL = "question_type (control)"
BUDGET_S = 3000


def study(name: str, out: Path) -> None:
    command = [sys.executable, "-m", "sightline", "study", name, "-o", str(out), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUDGET_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def tables(name: str, out: Path) -> list[dict]:
    return json.loads((out / f"{name}.json").read_text(encoding="utf-8"))["tables"]


@pytest.mark.slow
def test_the_study_of_estimators_shows_the_control_in_every_table_of_figures(tmp_path):
    study("estimators", tmp_path)
    found = {table["key"]: table for table in tables("estimators", tmp_path)}
    assert {key.partition("-")[0] for key in found} == {
        *("targets", "all", "signals", "harmony", "network", "labels", "transfer")
    }
    for key, table in found.items():
        if key == "targets":
            continue
        names = [str(row[0]).rpartition(": ")[2] for row in table["rows"]]
        assert CONTROL in names, key
        within = [i for i, title in enumerate(table["columns"]) if "within type" in title]
        pooled = [
            i
            for i, title in enumerate(table["columns"])
            if title == "AUROC" or (title.startswith("on ") and "within" not in title)
        ]
        assert within, key
        assert pooled, key
        for row in table["rows"]:
            if str(row[0]).endswith(CONTROL) and row[within[0]] is not None:
                assert row[within[0]]["value"] == pytest.approx(0.5), key
    page = (tmp_path / "estimators.md").read_text(encoding="utf-8")
    before = (tmp_path / "tables" / "transfer.json").stat().st_mtime_ns
    study("estimators", tmp_path)  # nothing is measured again
    assert (tmp_path / "estimators.md").read_text(encoding="utf-8") == page
    assert (tmp_path / "tables" / "transfer.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classifiers", "audit"])
def test_the_other_studies_run_and_go_on_where_they_stood(tmp_path, name):
    study(name, tmp_path)
    first = tables(name, tmp_path)
    assert len(first) > 3
    assert all(table["rows"] and table["note"] for table in first)
    study(name, tmp_path)
    assert tables(name, tmp_path) == first
