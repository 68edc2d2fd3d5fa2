"""The command line as a user meets it: output, exit codes, resume, precedence."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from sightline.cli import cli

QUICK = ["--samples", "2", "--layers", "0.5", "--display", "none"]
COLLECT = ["collect", "-m", "fake", "-d", "scenes:test?n=2", "-o", "r"]


def sightline(*args: object, env: dict[str, str] | None = None, cwd: Path | None = None):
    return subprocess.run(
        [sys.executable, "-m", "sightline", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=300,
        check=False,
    )


def fails(result, code: int, *words: str) -> None:
    """One clear line on stderr, nothing on stdout, the exit code, no traceback."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("sightline: ")
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "runs" / "a"
    result = sightline("collect", "-m", "fake", "-d", "scenes:test?n=120", "-o", path, *QUICK)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(path)
    return path


@pytest.fixture(scope="module")
def evaluated(run):
    result = sightline("evaluate", run, "--resamples", 100, "--seeds", 2, "--display", "none")
    assert result.returncode == 0, result.stderr
    return run, result


def test_help_names_every_command_and_every_command_has_help():
    text = sightline("--help").stdout
    commands = re.findall(r"^  (\w+)  ", text.split("Commands:")[1], re.MULTILINE)
    assert commands == cli.list_commands(click.Context(cli))
    assert {"collect", "perturbations", "doctor"} <= {*commands}
    for command in commands:
        result = sightline(command, "--help")
        assert result.returncode == 0
        assert result.stdout.startswith("Usage: sightline")


@pytest.mark.parametrize("arguments", [["--help"], ["runs", "--help"], ["models", "--help"]])
def test_help_names_every_command_once_and_cuts_none_short(arguments):
    text = sightline(*arguments).stdout
    assert "..." not in text.split("Commands:")[1]
    if arguments == ["--help"]:
        names = cli.list_commands(click.Context(cli))
        assert all(len(re.findall(f"^  {name} ", text, re.MULTILINE)) == 1 for name in names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["colect"], "No such command 'colect'. Did you mean 'collect'?"),
        (["runs", "verfy"], "No such command 'verfy'. Did you mean 'verify'?"),
        (["runs", "x"], "No such command 'x'. There are export, gc, ls, merge, show, verify."),
    ],
)
def test_a_command_that_does_not_exist_names_the_one_that_was_meant(arguments, said):
    result = sightline(*arguments)
    assert (result.returncode, result.stderr) == (2, f"sightline: {said}\n")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from sightline.cli import cli; cli.main(['--help'], standalone_mode=False);"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow', 'matplotlib', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == "[]"


def test_the_same_command_resumes_and_changes_nothing(run):
    before = {p.name: p.read_bytes() for p in (run / "shards").iterdir()}
    result = sightline("collect", "-m", "fake", "-d", "scenes:test?n=120", "-o", run, *QUICK)
    assert result.returncode == 0
    assert {p.name: p.read_bytes() for p in (run / "shards").iterdir()} == before


def test_a_changed_setting_is_an_error_that_names_it(run):
    result = sightline(
        "collect", "-m", "fake", "-d", "scenes:test?n=120", "-o", run, *QUICK, "--seed", 1
    )
    fails(result, 2, "seed", "--overwrite")


def test_the_leaderboard_shows_controls_intervals_and_n(evaluated):
    _, result = evaluated
    for word in ("question_type", "answer_length", "random", "AUROC", "n"):
        assert word in result.stdout
    assert "\x1b" not in result.stdout


def test_json_is_exactly_one_document(evaluated):
    run, _ = evaluated
    result = sightline(
        "evaluate", run, "--resamples", 100, "--seeds", 1, "--json", "--display", "none"
    )
    document = json.loads(result.stdout)
    assert document["protocol"]["resamples"] == 100
    assert document == json.loads((run / "evaluation" / "results.json").read_text())


def test_gates_exit_3(evaluated):
    run, _ = evaluated
    quick = ("--resamples", 100, "--seeds", 1, "--display", "none")
    result = sightline("evaluate", run, *quick, "--json", "--min-auroc", 1)
    assert result.returncode == 3
    assert "--min-auroc 1" in result.stderr
    assert sightline("evaluate", run, *quick, "--min-auroc", 0).returncode == 0


def test_one_run_is_not_evaluated_together(run):
    fails(sightline("evaluate", run, "--together"), 2, "--together with one run")


def test_report_writes_one_file_and_prints_its_path(evaluated, tmp_path):
    run, _ = evaluated
    result = sightline("report", run, "-o", tmp_path / "r.html")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().startswith("<!")


def test_a_limited_run_is_stamped_partial(tmp_path):
    out = tmp_path / "run"
    result = sightline(
        "collect", "-m", "fake", "-d", _csv(tmp_path, 12), "-o", out, "--limit", 0.5, *QUICK
    )
    assert result.returncode == 0, result.stderr
    assert "partial" in sightline("runs", "ls", tmp_path).stdout
    document = json.loads(sightline("runs", "show", out, "--json").stdout)
    assert document["examples"] == 6
    assert "6" in document["partial"]


def _csv(folder: Path, n: int, rows: list[str] | None = None) -> Path:
    from PIL import Image

    Image.new("RGB", (16, 16), "red").save(folder / "a.png")
    lines = ["id,image,question,answers"]
    lines += [f"q{i},a.png,Question {i}?,red" for i in range(n)]
    path = folder / "data.csv"
    path.write_text("\n".join(lines + (rows or [])))
    return path


def test_bad_rows_exit_4_and_are_named(tmp_path):
    data = _csv(tmp_path, 40, ["q40,missing.png,Where?,red"])
    result = sightline("collect", "-m", "fake", "-d", data, "-o", tmp_path / "run", *QUICK)
    assert result.returncode == 4
    assert "missing.png" in result.stderr
    assert "1 dataset rows rejected" in result.stderr


def test_too_many_bad_rows_exit_1_and_keep_the_others(tmp_path):
    data = _csv(tmp_path, 4, ["x,missing.png,Where?,red", "y,missing.png,Where?,red"])
    result = sightline("collect", "-m", "fake", "-d", data, "-o", tmp_path / "run", *QUICK)
    assert result.returncode == 1
    assert "--fail-on-error" in result.stderr
    document = json.loads(sightline("runs", "show", tmp_path / "run", "--json").stdout)
    assert document["examples"] == 4
    assert len(document["rejections"]) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["collect", "-m", "fake", "-d", "nowhere.jsonl", "-o", "r"], ["nowhere.jsonl"]),
        (["collect", "-m", "./no-model", "-d", "scenes:test?n=2", "-o", "r"], ["no-model"]),
        (["collect", "-m", "fake", "-d", "scenes:nosuch", "-o", "r"], ["nosuch"]),
        (["collect", "-m", "fake", "-d", "scenes:test", "-o", "r", "--limit", "0"], ["--limit"]),
        (["collect", "-m", "fake", "-d", "scenes:test", "-o", "r", "--layers", "x"], ["--layers"]),
        (["collect", "-m", "fake"], ["--data"]),
        ([*COLLECT, "--conditions", "jpg:3"], ["jpg", "jpeg"]),
        ([*COLLECT, "--conditions", "none.yaml"], ["none.yaml", "--conditions"]),
        ([*COLLECT, "--conditions", "jpeg:3,,rotate:x"], ["rotate"]),
        (["evaluate", "nowhere"], ["nowhere", "not a run"]),
        (["report", "nowhere"], ["nowhere"]),
        (["runs", "verify", "nowhere"], ["nowhere"]),
        (["import", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["import"], ["--labels"]),
        (["collect", "-m", "fake", "-d", "x", "-o", "r", "--column", "bad"], ["question=prompt"]),
        (["collect", "-m", "fake", "-d", "x", "-o", "r", "--model-args", "b"], ["revision=main"]),
        (["nonsense"], ["nonsense"]),
        (["evaluate", "x", "--fractions", "1,2"], ["--fractions"]),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(args, words, tmp_path):
    fails(sightline(*args, cwd=tmp_path), 2, *words)


def test_a_flipped_byte_is_named_and_exits_5(tmp_path):
    out = tmp_path / "run"
    sightline("collect", "-m", "fake", "-d", "scenes:test?n=8", "-o", out, *QUICK)
    shard = next((out / "shards").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    result = sightline("runs", "verify", out)
    assert result.returncode == 5
    assert shard.name in result.stderr
    assert sightline("evaluate", out, "--display", "none").returncode in (0, 5)


def test_flag_beats_environment_beats_file_beats_default(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("samples: 3\nmax-new-tokens: 7\ntemperature: 0.5\n")
    result = sightline(
        "collect", "-m", "fake", "-d", "x", "-o", "y", "--config", config, "--show-config",
        "--samples", 5, env={"SIGHTLINE_SAMPLES": "4", "SIGHTLINE_MAX_NEW_TOKENS": "8"},
    )  # fmt: skip
    settings = json.loads(result.stdout)
    assert settings["samples"] == {"value": 5, "source": "flag"}
    assert settings["max_new_tokens"] == {"value": 8, "source": "environment"}
    assert settings["temperature"] == {"value": 0.5, "source": "config file"}
    assert settings["top_k"] == {"value": 20, "source": "default"}
    assert not (tmp_path / "y").exists()


def test_lists_in_a_config_file_are_what_the_flags_say(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("layers: [0.5, 1.0]\nestimator: perplexity\nsample-id: [a, b]\nlimit: 1.0\n")
    command = ("collect", "-m", "fake", "-d", "x", "-o", "y", "--config", config, "--show-config")
    settings = json.loads(sightline(*command).stdout)
    assert settings["layers"]["value"] == "0.5,1.0"
    assert settings["estimators"]["value"] == ["perplexity"]
    assert settings["sample_ids"]["value"] == ["a", "b"]
    assert settings["limit"]["value"] == "1.0"
    assert json.loads(sightline(*command, "-e", "random").stdout)["estimators"]["value"] == [
        "random"
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [("nosuch: 1\n", "nosuch"), ("- a\n", "mapping"), ("a: [\n", "YAML"), ("\xff", "YAML")],
)
def test_a_bad_config_file_is_one_line(tmp_path, text, word):
    config = tmp_path / "c.yaml"
    config.write_bytes(text.encode("latin-1"))
    result = sightline("collect", "--config", config, "-m", "fake", "-d", "x", "-o", "y")
    fails(result, 2, word)


def test_labels_round_trip(tmp_path):
    out = tmp_path / "run"
    sightline("collect", "-m", "fake", "-d", "scenes:test?n=12", "-o", out, *QUICK)
    sheet = tmp_path / "sheet.csv"
    assert sightline("runs", "export", out, "--to-label", "-o", sheet).returncode == 0
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for i, row in enumerate(rows):
        row["correct"] = str(i % 2)
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    result = sightline("import", "--labels", sheet, "--run", out)
    assert result.returncode == 0, result.stderr
    assert "12 labels" in result.stdout
    document = json.loads(
        sightline("evaluate", out, "--json", "--display", "none", "--resamples", 100).stdout
    )
    assert document["accuracy"]["value"] == 0.5


def test_export_writes_every_row(run, tmp_path):
    result = sightline("runs", "export", run, "--format", "jsonl")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 240
    result = sightline("runs", "export", run, "--format", "csv", "-o", tmp_path / "rows.csv")
    assert result.returncode == 0
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 240


def test_gc_and_merge_work_from_the_command_line(tmp_path):
    for name, rows in (("a", range(3)), ("b", range(3, 6))):
        (tmp_path / name).mkdir()
        data = _csv(tmp_path / name, 0, [f"q{i},a.png,Question {i}?,red" for i in rows])
        out = tmp_path / f"run-{name}"
        assert sightline("collect", "-m", "fake", "-d", data, "-o", out, *QUICK).returncode == 0
    merged = sightline(
        "runs", "merge", tmp_path / "run-a", tmp_path / "run-b", "-o", tmp_path / "both"
    )
    assert merged.returncode == 0, merged.stderr
    assert (
        json.loads(sightline("runs", "show", tmp_path / "both", "--json").stdout)["examples"] == 6
    )
    assert "removed 0 files" in sightline("runs", "gc", tmp_path / "both").stdout


def test_doctor_says_what_a_model_shows():
    document = json.loads(sightline("doctor", "--model", "fake", "--json").stdout)
    observed = {s["name"] for s in document["signals"] if s["observed"]}
    assert {"logprobs", "samples", "hidden", "letter_logprobs", "blank_logprobs"} <= observed
    missing = {e["name"] for e in document["estimators"] if e["missing"]}
    assert "recorded_confidence" in missing
    assert "sequence_probability" not in missing
    told = sightline("doctor", "--model", "fake").stdout.splitlines()
    able = sum(not e["missing"] for e in document["estimators"])
    assert told[-1].startswith(f"estimators: {able} of {len(document['estimators'])} can run; ")
    assert told[-2].startswith("signals: ")
    assert "letter_logprobs" in told[-2]
    text = sightline("doctor").stdout
    assert len(told) == len(text.splitlines()) + 2
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"]
    assert re.findall(r"^extra (\S+) ", text, re.MULTILINE) == [
        extra for extra in extras if extra not in ("all", "dev")
    ]


def test_version():
    from sightline import __version__

    assert __version__ in sightline("--version").stdout
