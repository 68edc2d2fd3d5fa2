"""The README's code runs as it stands, on the model that ships with the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_python_block_runs_and_prints_a_leaderboard(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    result = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"accuracy 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", lines[0])
    assert len(lines) == 4
    for line in lines[1:]:
        assert re.search(r"^\w+ AUROC 0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\] ECE ", line)
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_every_command_of_the_readme_exists():
    from click import Context

    from sightline.cli import cli

    text = README.read_text(encoding="utf-8")
    commands = set(re.findall(r"^sightline (\w+)", text, re.MULTILINE))
    assert {"doctor", "collect", "evaluate", "report", "import"} <= commands
    assert commands <= set(cli.list_commands(Context(cli)))


def test_the_extras_of_the_readme_are_those_of_the_package():
    import tomllib

    text = README.read_text(encoding="utf-8")
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))
    named = set(re.findall(r"sightline\[(\w+)\]", text))
    assert named <= set(project["project"]["optional-dependencies"])
