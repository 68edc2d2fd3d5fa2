"""sightline audit RUN --against OTHER_RUN; and an identity, which must change nothing anywhere."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from sightline.cli import cli
from sightline.core.errors import UsageError
from sightline.store.sealed import dump_document, load_document

SIZES = ["--shard-size", "8", "--batch-size", "8", "--max-new-tokens", "8", "--spectra", "2"]
FLAGS = ["-m", "embedded:vlm", *SIZES, "--resamples", "200", "--json"]


def collected(path, data: str, conditions: str):
    result = CliRunner().invoke(
        cli, ["audit", *FLAGS, "-d", data, "--conditions", conditions, "-o", str(path)]
    )
    assert result.exit_code == 0, result.output
    return path, json.loads(result.stdout)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Pictures of 48 pixels, shifted by 48."""
    path = tmp_path_factory.mktemp("audits") / "still"
    return collected(path, "scenes:test?n=12", "translate:48,wording:1")


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    path = tmp_path_factory.mktemp("audits") / "turned"
    return collected(path, "scenes:shifted?n=12", "rotate:30,rotate:-30")


def test_an_identity_flips_nothing_and_moves_nothing(still):
    _, document = still
    (audit,) = document["audits"]
    (rates,) = [own for own in audit["rates"] if own["name"] == "translate:48"]
    assert rates["pairs"] > 0
    assert rates["ifr"]["value"] == rates["iv"]["value"] == 0
    assert rates["right_wrong"] == rates["wrong_right"] == 0
    # What is asked beside a picture changes the rounding of its scores, not of its vision tokens.
    assert rates["energy_change"]["value"] == 0
    for figure in ("margin_change", "score_change"):
        assert rates[figure]["value"] == pytest.approx(0, abs=1e-5), figure
    shifts = [drift for drift in audit["drift"] if drift["name"] in {"all", "translation"}]
    assert {drift["channel"] for drift in shifts} >= {"ctx_open", "ans_open", "vision_encoded"}
    for drift in shifts:
        if drift["rows"]:
            assert drift["drift"]["value"] == pytest.approx(0, abs=1e-6), drift
    assert audit["cka"]["translate:48"] == pytest.approx(1)
    assert audit["visual_entropy"]["value"] == 0
    assert audit["moved_far"]["value"] == 0


def test_other_questions_are_held_against_a_run(still, turned):
    flags = ["--resamples", "200", "--spectra", "2"]
    command = ["audit", str(still[0]), "--against", str(turned[0]), *flags]
    result = CliRunner().invoke(cli, [*command, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [audit["run"] for audit in document["audits"]] == ["still", "turned"]
    (finding,) = document["comparison"]["findings"]
    assert finding["outcome"] == "undecided"
    assert finding["reason"] == "no condition counts for both"
    assert finding["estimate"]["value"] is None
    assert "0 count in every run" in document["comparison"]["unlike"]
    shown = CliRunner().invoke(cli, command)
    said = "Perturbations act otherwise on scenes:test?n=12 than on scenes:shifted?n=12"
    assert said in " ".join(shown.stdout.split())
    assert "were not asked the same under the same conditions" in " ".join(shown.stdout.split())
    page = (still[0] / "audit" / "comparison.html").read_text(encoding="utf-8")
    assert "Side by side" in page
    assert said in page
    assert "no condition counts for both" in page
    assert "were not asked the same under the same conditions" in page


def test_a_run_is_not_held_against_itself(still):
    result = CliRunner().invoke(
        cli, ["audit", str(still[0]), "--against", str(still[0]), "--resamples", "200"]
    )
    assert isinstance(result.exception, UsageError)
    assert "a run of the same model on other questions is required" in str(result.exception)


def test_another_model_is_refused_before_it_is_asked_or_measured(still, turned, tmp_path):
    command = ["audit", "-m", "embedded:vlm-narrow", "-d", "scenes:test?n=4", "-o"]
    result = CliRunner().invoke(cli, [*command, str(tmp_path / "run"), "--against", str(turned[0])])
    assert isinstance(result.exception, UsageError)
    assert "compares runs of embedded:vlm-narrow and embedded:vlm;" in str(result.exception)
    assert not (tmp_path / "run").exists()
    other = tmp_path / "other"
    shutil.copytree(turned[0], other)
    manifest = load_document(other / "manifest.json")
    manifest["model"] |= {"name": "another", "files_xxh3": "0"}
    (other / "manifest.json").write_bytes(dump_document(manifest))
    result = CliRunner().invoke(cli, ["audit", str(still[0]), "--against", str(other)])
    assert isinstance(result.exception, UsageError)
    assert "compares runs of embedded:vlm and another;" in str(result.exception)
