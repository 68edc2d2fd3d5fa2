"""The study of hidden instability, at toy size: every table follows from stored runs."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from click.testing import CliRunner

from sightline.audit.verdicts import FEWEST_PICTURES
from sightline.cli import cli
from sightline.core.audit_results import CONTROL_NAMES, load_audit
from sightline.core.errors import UsageError
from sightline.core.estimates import Estimate
from sightline.core.features import Feature
from sightline.data.perturbations import parse_condition
from sightline.models import load_model
from sightline.models.embedded import EMBEDDED
from sightline.store.run import RunStore
from sightline.workflow.studies import audit as study
from sightline.workflow.studies.audit import AuditSize, parameters, study_audit
from sightline.workflow.studies.audit_tasks import HALLUCINATION, REASONING
from sightline.workflow.studies.tables import markdown

SIZE = AuditSize(
    questions=90,
    conditions=("translate:8", "rotate:30", "jpeg:3", "wording:1", "answer_text:1", "unrelated:1"),
    samples=3,
    control_items=60,
    controls=4,
    spectra=2,
    probed=2,
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
            "rates", "levels", "margins", "drift", "unchanged", "l2", "controls", "layers", "cka",
            "yes-no", "yes-no-flips", "spectra", "thresholds", "filters", "noise", "attacks",
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
    for name in CONTROL_NAMES.values():
        assert {f"1 − cosine: {name}", f"% of: {name}", f"d to: {name}"} <= control.keys()


def test_a_third_of_the_questions_is_multiple_choice_and_has_every_control(studied):
    out, tables = studied
    examples = RunStore.open(out / "runs" / "vlm").examples()
    assert 0.25 < sum(e.choices is not None for e in examples) / len(examples) < 0.45
    assert len({e.question_type for e in examples}) == 9
    shown = rows_of(tables["controls-vlm"])
    assert {"ctx_open", "ctx_mcq", "ans_mcq", "ans_mcq_free", "ans_fixed"} < shown.keys()
    for row in shown.values():
        assert row["% of: another picture, same question"].value is not None
    injected = parse_condition("answer_text:1").kind
    assert rows_of(tables["drift-vlm"])[injected]["ctx_mcq"] != "—"


def test_tables_of_margins_length_and_geometry_are_the_audits(studied):
    out, tables = studied
    audit = load_audit(out / "runs" / "vlm" / "audit" / "audit.json")
    rates = {own.name: own for own in audit.rates}
    margins = rows_of(tables["margins-vlm"])
    assert margins["rotation"]["Margin, flips"] == rates["rotation"].margin_flipped
    assert margins["rotation"]["Margin, stays"] == rates["rotation"].margin_stays
    assert margins.keys() == rows_of(tables["rates-vlm"]).keys()
    yes_no = {own.name: own for own in audit.yes_no}
    flips = rows_of(tables["yes-no-flips-vlm"])
    assert flips["rotation"]["Margin"] == yes_no["rotation"].margin
    assert flips["rotation"]["Hits"] == yes_no["rotation"].hit
    assert flips["rotation"]["n of hits"] == yes_no["rotation"].hit.n
    last = audit.protocol.layers[-1]
    l2 = next(
        d.l2 for d in audit.drift if (d.channel, d.layer, d.name) == ("ctx_mcq", last, "rotation")
    )
    assert rows_of(tables["l2-vlm"])["rotation"]["ctx_mcq"] == l2
    cka = rows_of(tables["cka-vlm"])
    assert {f"ctx_open, layer {layer}" for layer in audit.protocol.layers} < cka.keys()
    (own,) = (
        s
        for s in audit.similarities
        if (s.channel, s.layer, s.name) == ("ctx_open", last, "rotation")
    )
    assert cka[f"ctx_open, layer {last}"]["rotation"] == f"{own.value:.3f}"
    assert "unrelated picture" not in tables["cka-vlm"].columns


def test_tables_of_probes_are_the_audits(studied):
    out, tables = studied
    probes = load_audit(out / "runs" / "vlm" / "audit" / "audit.json").probes
    assert probes.questions == probes.images == SIZE.probed  # each about a picture of its own
    low, high = tables["thresholds-vlm"].rows
    assert (low[0], high[0]) == ("low-pass", "high-pass")
    for row, own in zip((low, high), probes.filters, strict=True):
        assert row[2:] == (own.kept[-1], own.flipped, own.threshold)
        assert own.kept[-1].value == 1 - own.flipped / probes.questions
    filters = rows_of(tables["filters-vlm"])
    assert len(filters) == sum(len(own.cutoffs) for own in probes.filters)
    noise = rows_of(tables["noise-vlm"])
    assert noise["low"]["8/255"] == next(
        own.flips for own in probes.noise if own.band == "low" and own.size == 8 / 255
    )
    attacks = rows_of(tables["attacks-vlm"])
    assert attacks["high"]["Leakage"] == probes.attacks[1].leakage
    assert attacks["high"]["Flips"] == probes.attacks[1].flips
    assert attacks["low"]["coherence, high"] == f"{probes.attacks[0].coherence[2]:.3f}"


def test_the_three_findings_have_verdicts_with_rules(studied):
    _, tables = studied
    found = [dict(zip(tables["findings"].columns, r, strict=True)) for r in tables["findings"].rows]
    hidden = [row for row in found if row["Finding"].startswith("Answers that stay hide")]
    assert {row["Runs"] for row in hidden} == set(MODELS)
    scale = next(row for row in found if row["Finding"].startswith("A larger model"))
    small, large = sorted(MODELS, key=lambda run: parameters(MODELS[run]))
    assert scale["Runs"] == f"{small}, {large}"
    assert "left out: none" in scale["Rule"]
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


def test_types_are_compared_under_the_conditions_that_count_for_all(studied):
    """Recomputed from the exported rows: every condition weighs alike."""
    out, tables = studied
    types = {e.id: e.question_type for e in RunStore.open(out / "runs" / "vlm").examples()}
    with (out / "runs" / "vlm" / "audit" / "audit.csv").open(encoding="utf-8", newline="") as file:
        exported = [
            row
            for row in csv.DictReader(file)
            if row["part"] == "picture" and not row["excluded"] and row["right_after"]
        ]
    changes, pictures = defaultdict(list), defaultdict(set)
    for row in exported:
        key = types[row["example_id"]], row["condition"]
        changes[key].append((row["right_after"] == "True") - (row["right_before"] == "True"))
        pictures[key].add(row["image"])
    table = tables["tasks-vlm"]
    names = set(types.values())
    common = [
        condition
        for condition in SIZE.conditions
        if all(len(pictures[name, condition]) >= FEWEST_PICTURES for name in names)
    ]
    assert f"mean over the {len(common)} that count" in table.note
    for name, row in rows_of(table).items():
        assert row["Conditions"] == len(
            {c for own, c in changes if own == name and changes[own, c]}
        )
        shown = row["Δ accuracy, same conditions"]
        if common:
            means = [np.mean(changes[name, condition]) for condition in common]
            assert shown.value == pytest.approx(np.mean(means))
        else:
            assert shown.value is None
            assert shown.reason == "no condition counts for every type"


def test_the_overview_says_what_is_right_without_the_picture(studied):
    out, tables = studied
    prior = load_audit(out / "runs" / "vlm" / "audit" / "audit.json").prior
    row = rows_of(tables["overview"])["vlm"]
    assert row["Accuracy without the picture"] == prior.accuracy_blank
    assert row["Accuracy, gain by the picture"] == prior.accuracy_gain
    bands = [row[name] for name in row if name.endswith("band")]
    assert bands
    for figure in bands:  # of the pictures of two questions
        assert figure.value is None
        assert "of at least 10 pictures" in figure.reason


def test_no_control_goes_by_its_name_in_the_code(studied):
    _, tables = studied
    text = markdown("Study", list(tables.values()))
    for name in CONTROL_NAMES:
        assert name not in text


def test_every_two_sizes_are_compared_once(monkeypatch, tmp_path):
    runs = {name: f"embedded:{name}" for name in ("vlm", "vlm-prior", "vlm-small", "vlm-narrow")}
    asked = []
    monkeypatch.setattr(
        study, "compare_sizes", lambda outcomes, sizes, _: asked.append((*outcomes, *sizes))
    )
    measured = study._Study(tmp_path, SIZE, runs, lambda _: None)
    monkeypatch.setattr(study._Study, "_outcome", lambda _self, run: run)
    found = measured._by_size()
    sizes = {run: parameters(model) for run, model in runs.items()}
    ordered = sorted((run for run in runs if run != "vlm-prior"), key=lambda run: sizes[run])
    expected = [(s, t, sizes[s], sizes[t]) for s, t in combinations(ordered, 2)]
    assert asked == expected
    assert [names for names, _ in found] == [f"{s}, {t}" for s, t, *_ in expected]


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
    tiny = replace(
        SIZE, questions=24, conditions=("jpeg:3",), samples=0, probed=0, budget=0, seeds=1
    )
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
    """Measured against each condition's mean, so that they average to the rate of all pairs."""
    out, _ = studied
    store = RunStore.open(out / "runs" / "vlm")
    found = json.loads((out / "runs" / "vlm" / "manifest.json").read_text())
    assert found["model"]["name"] == "embedded:vlm"
    flips = {
        record.example.id: float(record.array(Feature.FLIP_RATE))
        for record in store.records(condition="clean")
        if record.has(Feature.FLIP_RATE)
    }
    with (out / "runs" / "vlm" / "audit" / "audit.csv").open(encoding="utf-8", newline="") as file:
        own = [r for r in csv.DictReader(file) if r["part"] == "picture" and not r["excluded"]]
    assert len(flips) > 60
    assert flips.keys() == {row["example_id"] for row in own}
    mean = np.mean([flips[row["example_id"]] for row in own])
    assert mean == pytest.approx(np.mean([row["flipped"] == "True" for row in own]), abs=1e-4)


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
