"""Published benchmarks through the command line: collected by their rules, POPE audited."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sightline.cli import cli
from sightline.core.features import Feature
from sightline.store.run import RunStore

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "benchmarks"
COCO = str(FIXTURES / "aokvqa" / "coco")
QUICK = ["--samples", "0", "--no-blank", "--layers", "none", "--display", "none"]


def collected(source: str, path: Path, *flags: str):
    command = ["collect", "-m", "fake", "-d", source, "-o", str(path), *QUICK, *flags]
    return CliRunner().invoke(cli, command)


@pytest.mark.parametrize(
    ("source", "flags", "asked", "note"),
    [
        ("seedbench:{}/seedbench/SEED-Bench.json", [], 8, "3 × of the data_type 'video'"),
        ("mmbench:{}/mmbench/mmbench_dev.tsv", [], 4, "4 × a circular copy"),
        ("mmmu:{}/mmmu?images=one", [], 2, "1 × not a multiple-choice question; 1 × with several"),
        ("pope:{}/pope", [], 32, None),
        ("aokvqa:{}/aokvqa/aokvqa_v1p0_val.json", ["--images", COCO], 4, None),
        (
            "aokvqa:{}/aokvqa/aokvqa_v1p0_val.json?form=direct",
            ["--images", COCO],
            3,
            "1 × marked as difficult",
        ),
        ("vizwiz:{}/vizwiz/val.json", [], 4, None),
    ],
)
def test_every_benchmark_is_collected(tmp_path, source, flags, asked, note):
    """What its rules leave out is said and stored with the run, and is no failure."""
    result = collected(source.format(FIXTURES), tmp_path / "run", *flags)
    assert result.exit_code == 0, result.output
    store = RunStore.open(tmp_path / "run")
    assert len(store.examples()) == asked
    assert store.rejected() == []
    said = [line for line in store.manifest.notes if "by its own rules" in line]
    if note is None:
        assert said == []
    else:
        assert note in said[0]
        assert said[0] in result.stderr
    again = collected(source.format(FIXTURES), tmp_path / "run", *flags)
    assert again.exit_code == 0, again.output


@pytest.fixture(scope="module")
def pope(tmp_path_factory):
    path = tmp_path_factory.mktemp("pope") / "run"
    flags = ["--conditions", "jpeg:5,rotate:30", "--resamples", "200", "--spectra", "2"]
    command = ["audit", "-m", "embedded:vlm", "-d", f"pope:{FIXTURES}/pope", "-o", str(path)]
    result = CliRunner().invoke(cli, [*command, *flags, "--max-new-tokens", "4", "--json"])
    assert result.exit_code == 0, result.output
    (audit,) = json.loads(result.stdout)["audits"]
    return path, audit


def test_popes_figures_are_those_of_its_answers(pope):
    """Accuracy, precision, recall, F1, false-positive rate and yes rate, counted again by hand."""
    path, audit = pope
    records = [r for r in RunStore.open(path).records() if r.condition == "clean"]
    assert len(records) == audit["items"] == 32
    scores = np.stack([r.array(Feature.YES_NO_LOGPROBS) for r in records])
    says = scores[:, 0] > scores[:, 1]
    is_yes = np.array([r.example.references == ("yes",) for r in records])
    hits, false = int((says & is_yes).sum()), int((says & ~is_yes).sum())
    misses = int((~says & is_yes).sum())
    clean = audit["yes_no"][0]
    assert (clean["name"], clean["n"]) == ("clean", 32)
    expected = {
        "accuracy": np.mean(says == is_yes),
        "recall": hits / 16,
        "f1": 2 * hits / (2 * hits + false + misses),
        "false_positive_rate": false / 16,
        "yes_rate": np.mean(says),
    }
    for name, value in expected.items():
        assert clean[name]["value"] == pytest.approx(value, abs=1e-12), name
        assert clean[name]["low"] <= value <= clean[name]["high"], name
    assert clean["precision"]["value"] == pytest.approx(hits / (hits + false), abs=1e-12)


def test_popes_figures_stand_beside_those_under_perturbations(pope):
    path, audit = pope
    counts = {figures["name"]: figures["n"] for figures in audit["yes_no"]}
    assert counts == {"clean": 32, "corruption": 32, "rotation": 32}
    page = (path / "audit" / "report.html").read_text(encoding="utf-8")
    for word in ("Yes-or-no questions.", "precision", "recall", "false positives", "says yes"):
        assert word in page
    types = {e.question_type for e in RunStore.open(path).examples()}
    assert types == {"existence"}
    assert len({e.group for e in RunStore.open(path).examples()}) == 4
