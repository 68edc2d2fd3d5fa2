"""The study of hidden instability, at toy size: every table follows from stored runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from sightline.cli import cli
from sightline.core.audit_results import load_audit
from sightline.core.errors import UsageError
from sightline.core.estimates import Estimate
from sightline.models import load_model
from sightline.models.embedded import EMBEDDED
from sightline.store.run import RunStore
from sightline.workflow.studies import audit as study
from sightline.workflow.studies.audit import AuditSize, parameters, study_audit
from sightline.workflow.studies.audit_tasks import HALLUCINATION, REASONING
from sightline.workflow.studies.tables import markdown

SIZE = AuditSize(
    questions=90,
    conditions=("translate:8", "rotate:30", "jpeg:3", "wording:1"),
    samples=3,
    control_items=60,
    controls=4,
    spectra=2,
    budget=2,
    bases=("sequence_probability", "sgpu"),
    seeds=2,
    resamples=100,
)
MODELS = {"vlm": "embedded:vlm", "vlm-small": "embedded:vlm-small"}


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "RUNS", MODELS)
        tables = study_audit(out, SIZE, also={}, progress=lambda _: None)
    return out, {table.key: table for table in tables}


def rows_of(table):
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_every_run_has_every_table(studied):
    _, tables = studied
    assert {"findings", "overview"} < tables.keys()
    for run in MODELS:
        for kind in (
            "rates", "levels", "drift", "unchanged", "controls", "layers", "yes-no", "spectra",
            "budget", "tasks", "value-all", "value-scored",
        ):  # fmt: skip
            assert f"{kind}-{run}" in tables
    assert "## The three findings" in markdown("Study", list(tables.values()))


def test_tables_show_the_audits_own_figures(studied):
    out, tables = studied
    audit = load_audit(out / "runs" / "vlm" / "audit" / "audit.json")
    rates = {own.name: own for own in audit.rates}
    shown = rows_of(tables["rates-vlm"])
    assert shown["rotation"]["IFR"] == rates["rotation"].ifr
    assert rows_of(tables["levels-vlm"])["jpeg:3"]["IV"] == rates["jpeg:3"].iv
    assert shown.keys() | rows_of(tables["levels-vlm"]).keys() == rates.keys()
    flagged = next(
        d
        for d in audit.drift
        if (d.channel, d.name, d.unchanged) == ("ctx_open", "rotation", True)
        and d.layer == audit.protocol.layers[-1]
    )
    assert shown["rotation"]["Drift % where the answer stays"] == flagged.percent
    assert rows_of(tables["unchanged-vlm"])["rotation"]["ctx_open"] == flagged.percent
    control = rows_of(tables["controls-vlm"])["ctx_open"]
    assert {"other_images", "other_items", "paraphrases"} <= control.keys()


def test_the_three_findings_have_verdicts_with_rules(studied):
    _, tables = studied
    found = [dict(zip(tables["findings"].columns, r, strict=True)) for r in tables["findings"].rows]
    hidden = [row for row in found if row["Finding"].startswith("Answers that stay hide")]
    assert {row["Runs"] for row in hidden} == set(MODELS)
    scale = next(row for row in found if row["Finding"].startswith("A larger model"))
    assert scale["Runs"] == "vlm, vlm-small"
    tasks = [row for row in found if " and ".join(REASONING) in row["Finding"]]
    assert {row["Runs"] for row in tasks} == set(MODELS)
    assert all(HALLUCINATION[0] in row["Finding"] for row in tasks)
    for row in found:
        assert row["Verdict"].split(" (")[0] in {"holds", "does not hold", "undecided"}
        assert "interval" in row["Rule"]
        assert row["n"] == row["Figure"].n


def test_tasks_add_up_to_all_pairs(studied):
    out, tables = studied
    audit = load_audit(out / "runs" / "vlm" / "audit" / "audit.json")
    shown = rows_of(tables["tasks-vlm"])
    assert sum(row["Pairs"] for row in shown.values()) == audit.rates[0].pairs
    flips = sum(row["Pairs"] * row["IFR"].value for row in shown.values())
    assert flips == pytest.approx(audit.rates[0].pairs * audit.rates[0].ifr.value)


def test_signs_are_measured_beside_what_they_are_added_to(studied):
    _, tables = studied
    table = tables["value-all-vlm"]
    shown = rows_of(table)
    alone, added = shown["sequence_probability"], shown["sequence_probability + all signs"]
    assert alone["Δ AUROC"] is None
    assert added["Δ AUROC"].value == pytest.approx(
        added["AUROC"].value - alone["AUROC"].value, abs=1e-9
    )
    assert isinstance(added["AUROC within type"], Estimate)
    assert shown["question_type"]["Kind"] == "control"
    assert float(shown["flip_rate"]["Passes"]) == float(added["Passes"])  # read once for all signs
    assert 2 < float(shown["flip_rate"]["Passes"]) <= len(SIZE.conditions)
    scored = rows_of(tables["value-scored-vlm"])
    assert {"margin_loss", "prior_index"} <= scored.keys()
    assert not {"margin_loss", "prior_index"} & shown.keys()


def test_a_second_run_measures_nothing_again(studied, monkeypatch):
    out, tables = studied
    monkeypatch.setattr(study, "RUNS", MODELS)
    monkeypatch.setattr(study, "audit_run", lambda *_: pytest.fail("audited again"))
    monkeypatch.setattr(study, "value_tables", lambda *_, **__: pytest.fail("measured again"))
    again = study_audit(out, SIZE, also={}, progress=lambda _: None)
    assert [table.to_dict() for table in again] == [table.to_dict() for table in tables.values()]


def test_other_settings_measure_anew(studied, monkeypatch):
    out, _ = studied
    monkeypatch.setattr(study, "RUNS", MODELS)
    asked = []
    monkeypatch.setattr(study, "audit_run", lambda path, _: asked.append(path.name) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        study_audit(out, replace(SIZE, resamples=120), also={}, progress=lambda _: None)
    assert asked == ["vlm"]


def test_a_directory_given_by_name_is_audited_like_the_others(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "RUNS", {"vlm": "embedded:vlm"})
    tiny = replace(SIZE, questions=24, conditions=("jpeg:3",), samples=0, budget=0, seeds=1)
    tiny = replace(tiny, bases=("sequence_probability",))
    also = {"twin": EMBEDDED["vlm"].path}
    tables = study_audit(tmp_path, tiny, also=also, progress=lambda _: None)
    assert any(table.key == "rates-twin" for table in tables)
    findings = next(table for table in tables if table.key == "findings")
    assert not any("larger model" in str(row[0]) for row in findings.rows)  # of one size
    with pytest.raises(UsageError, match="a name of its own is required"):
        study_audit(tmp_path, tiny, also={"vlm": tmp_path}, progress=lambda _: None)


@pytest.mark.parametrize("name", ["vlm", "vlm-small"])
def test_parameters_are_those_of_the_loaded_model(name):
    loaded = load_model(f"embedded:{name}")._model
    stored = {tensor.data_ptr(): tensor.numel() for tensor in loaded.parameters()}
    assert parameters(f"embedded:{name}") == sum(stored.values())
    assert parameters(str(EMBEDDED[name].path)) == parameters(f"embedded:{name}")


def test_signals_of_single_answers_are_in_the_run(studied):
    out, _ = studied
    store = RunStore.open(out / "runs" / "vlm")
    found = json.loads((out / "runs" / "vlm" / "manifest.json").read_text())
    assert found["model"]["name"] == "embedded:vlm"
    flips = [
        float(record.array(next(f for f in record.features if f.value == "flip_rate")))
        for record in store.records(condition="clean")
        if any(f.value == "flip_rate" for f in record.features)
    ]
    assert len(flips) > 60
    assert np.all((np.array(flips) >= 0) & (np.array(flips) <= 1))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["classifiers", "--also", "a=."], "only that of audit takes it"),
        (["audit", "--also", "a"], "NAME=PATH is required"),
        (["audit", "--also", "a=./nowhere"], "is no directory"),
        (["audit", "--also", "../a=."], "NAME=PATH is required"),
    ],
)
def test_flags_that_cannot_be(tmp_path, flags, message):
    result = CliRunner().invoke(cli, ["study", *flags, "-o", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
