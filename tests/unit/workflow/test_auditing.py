"""An audit of a run: its figures follow from its exported rows and stored vectors."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter, defaultdict
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from sightline.audit.drift import linear_cka
from sightline.audit.frequency import band_edges, band_means
from sightline.core.audit_results import Comparison, load_audit
from sightline.core.errors import DataError, MissingFeatureError, UsageError
from sightline.core.estimates import Estimate
from sightline.core.features import CHANNELS, Feature
from sightline.core.protocols import Request
from sightline.core.records import link
from sightline.core.types import Example, ImageRef
from sightline.data.examples import Dataset
from sightline.data.images import ImageLimits, hash_image_file
from sightline.data.perturbations import parse_condition
from sightline.estimators import ESTIMATORS
from sightline.models.fake import FakeModel
from sightline.report.audit_answers import cell_of, signed
from sightline.report.audit_comparison import comparison_tables
from sightline.report.audit_drift import drift_tables
from sightline.report.audit_page import audit_page
from sightline.report.audit_pictures import PictureSource
from sightline.report.audit_tables import rate_tables
from sightline.report.audit_terminal import print_audit, print_comparison, row_name
from sightline.store.derived import Derivation
from sightline.store.run import RunStore
from sightline.workflow.auditing.columns import columns_of
from sightline.workflow.auditing.comparing import compare_sizes
from sightline.workflow.auditing.pairs import read_pairs, right_option
from sightline.workflow.auditing.running import AuditSettings, audit_run
from sightline.workflow.auditing.spectra import measure_spectra
from sightline.workflow.auditing.writing import RESULTS, ROWS, write_audit
from sightline.workflow.collect import collect

CONDITIONS = (
    *("jpeg:3", "rotate:30", "translate:8", "translate:12", "wording:1"),
    *("wording:1+rotate:30", "answer_text:1", "answer_box:1"),
)
NAMED = ("answer_text", "answer_box", "translate:8")
SETTINGS = AuditSettings(resamples=200, spectra=4)
REQUEST = Request(
    max_new_tokens=4,
    layers=(0.5, 1.0),
    options=True,
    blank=True,
    channels=True,
    energy_maps=3,
    conditions=CONDITIONS,
)


def dataset(folder, n: int = 30, each: int = 1) -> Dataset:
    rng = np.random.default_rng(0)
    examples = []
    for i in range(n):
        path = folder / f"{i // each}.png"
        if i % each == 0:
            Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
        image = ImageRef(str(path), hash_image_file(path, ImageLimits()))
        form = i % 3
        examples.append(
            Example(
                id=f"e{i:02d}",
                question=("What colour is it?", "Is it red?", "What colour is the thing?")[form],
                images=(image,),
                choices=("red", "blue", "green") if form == 0 else None,
                references=(("A",), ("yes",), ("red",))[form],
            )
        )
    return Dataset("made", tuple(examples), (), "0" * 64)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    collect(
        FakeModel(), dataset(folder), folder / "run", request=REQUEST, batch_size=4, shard_size=8
    )
    return folder / "run"


@pytest.fixture(scope="module")
def outcome(run):
    found = audit_run(run, SETTINGS)
    write_audit(found, run)
    return found


@pytest.fixture(scope="module")
def exported(run, outcome):
    with (run / ROWS).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_document_reads_back_as_it_was(run, outcome):
    assert load_audit(run / RESULTS) == outcome.audit
    (run / "broken.json").write_text(json.dumps({"format_version": 1}))
    with pytest.raises(DataError, match="format version 2 is required"):
        load_audit(run / "broken.json")


@pytest.fixture(scope="module")
def named(run, tmp_path_factory):
    """The same run, with conditions that its owner says keep the answers; and its rows."""
    found = audit_run(run, replace(SETTINGS, preserving=NAMED))
    copy = tmp_path_factory.mktemp("named") / "run"
    shutil.copytree(run, copy)
    write_audit(found, copy)
    with (copy / ROWS).open(encoding="utf-8", newline="") as file:
        return found, list(csv.DictReader(file))


@pytest.fixture(params=["as decided", "named"])
def told(request, outcome, exported, named):
    return (outcome, exported) if request.param == "as decided" else named


def counted_pictures(rows):
    """What the figures of all pairs together are of, by the columns of audit.csv alone."""
    return [
        r
        for r in rows
        if not r["excluded"] and "wording" not in r["condition"] and "answer_" not in r["condition"]
    ]


def rows_of(rates, rows):
    if rates.name == "all":
        return counted_pictures(rows)
    return [r for r in rows if not r["excluded"] and rates.name in (r["kind"], r["condition"])]


def numbers(rows, name, before=None):
    """A column, or its change."""
    return [float(r[name]) - (float(r[before]) if before else 0.0) for r in rows if r[name] != ""]


def share(rows, hit, among=lambda r: True):
    own = [hit(r) for r in rows if among(r)]
    return np.mean(own) if own else None


def held_to_conditions(own, rows, value):
    """Mean of an answer's values, each less the mean of its condition, plus the mean of all."""
    usual = defaultdict(list)
    for row in rows:
        usual[row["condition"]].append(value(row))
    apart = np.mean([value(row) - np.mean(usual[row["condition"]]) for row in own])
    return apart + np.mean([value(row) for row in rows])


def mean_by_question(rows, name):
    found = defaultdict(list)
    for row in rows:
        if row[name] != "":
            found[row["example_id"]].append(float(row[name]))
    return np.mean([np.mean(own) for own in found.values()]) if found else None


def same(estimate, value):
    assert (estimate.value is None) == (value is None)
    if value is not None:
        assert estimate.value == pytest.approx(value)


def flips(row):
    return row["flipped"] == "True"


def was(row):
    return row["right_before"] == "True"


def now(row):
    return row["right_after"] == "True"


def test_rates_recomputed_from_the_exported_rows(told):
    """Every rate follows from audit.csv alone."""
    outcome, exported = told
    for rates in outcome.audit.rates:
        rows = rows_of(rates, exported)
        assert rates.pairs == len(rows)
        assert rates.items == len({r["example_id"] for r in rows})
        if not rows:
            assert rates.ifr.value is None
            continue
        same(rates.ifr, share(rows, flips))
        flipped = {r["example_id"] for r in rows if flips(r)}
        same(rates.iv, len(flipped) / rates.items)
        graded = [r for r in rows if r["right_before"] and r["right_after"]]
        moves = Counter((r["right_before"], r["right_after"]) for r in graded)
        assert rates.right_right == moves["True", "True"]
        assert rates.right_wrong == moves["True", "False"]
        assert rates.wrong_right == moves["False", "True"]
        assert rates.wrong_wrong == moves["False", "False"]
        same(rates.lost, share(graded, lambda r: not now(r), was))
        same(rates.won, share(graded, now, lambda r: not was(r)))
        same(rates.accuracy_before, share(graded, was))
        same(rates.accuracy_after, share(graded, now))
        same(rates.accuracy_change, share(graded, lambda r: now(r) * 1.0 - was(r)))
        for estimate, values in (
            (rates.margin_change, numbers(rows, "margin", "margin_before")),
            (rates.margin_true_change, numbers(rows, "margin_true", "margin_true_before")),
            (rates.score_change, numbers(rows, "score_change")),
            (rates.energy_change, numbers(rows, "energy_change")),
            (rates.prior_index, numbers(rows, "prior_index")),
        ):
            same(estimate, np.mean(values) if values else None)
        same(rates.margin_flipped, mean_by_question([r for r in rows if flips(r)], "margin"))
        same(rates.margin_stays, mean_by_question([r for r in rows if not flips(r)], "margin"))


def test_undecided_pairs_are_counted_apart(told):
    outcome, exported = told
    for rates in outcome.audit.rates:
        rows = [
            r
            for r in exported
            if r["truth"] == "unknown"
            and (
                rates.name in (r["kind"], r["condition"])
                or (rates.name == "all" and r["part"] == "picture")
            )
        ]
        assert rates.undecided.n == len(rows)
        same(rates.undecided, share(rows, flips))


def test_other_ways_of_reading_labels_recomputed(told):
    outcome, exported = told
    rows = counted_pictures(exported)
    found = outcome.audit.variants
    for name, column in (
        ("options, mean per token", "flipped_per_token"),
        ("letters", "flipped_letters"),
    ):
        own = [r for r in rows if r[column] != ""]
        assert own
        assert found[name].n == len(own)
        same(found[name], share(own, lambda r, c=column: r[c] == "True"))
    forms = {"multiple choice": "choice", "yes or no": "yes_no", "free answers": "text"}
    for name, form in forms.items():
        same(found[f"{name} only"], share(rows, flips, lambda r, f=form: r["form"] == f))


def test_visual_entropy_recomputed(told):
    """Over the clean picture and the changed ones: no wording, no option on the picture."""
    outcome, exported = told
    own = {}
    for row in counted_pictures(exported):
        own.setdefault(row["example_id"], [row["clean_label"]]).append(row["label"])
    entropies = []
    for labels in own.values():
        p = np.array(list(Counter(labels).values())) / len(labels)
        entropies.append(-(p * np.log(p)).sum())
    same(outcome.audit.visual_entropy, np.mean(entropies))


def test_yes_or_no_figures_recomputed(told):
    outcome, exported = told
    every = [r for r in exported if r["form"] == "yes_no"]
    kinds = dict.fromkeys(r["kind"] for r in every if not r["excluded"])
    assert [own.name for own in outcome.audit.yes_no] == ["clean", *kinds]
    for own in outcome.audit.yes_no[1:]:
        rows = [r for r in every if r["kind"] == own.name and not r["excluded"]]
        assert own.n == len(rows)
        says, said = (lambda r, c=c: r[c] == "yes" for c in ("label", "clean_label"))

        def true(r):  # yes is right where a right answer says yes, or a wrong one no
            return now(r) == (r["label"] == "yes")

        same(own.accuracy, share(rows, now))
        same(own.precision, share(rows, true, says))
        same(own.recall, share(rows, says, true))
        same(own.false_positive_rate, share(rows, says, lambda r: not true(r)))
        same(own.yes_rate, share(rows, says))
        both = sum(says(r) and true(r) for r in rows)
        under = sum(map(says, rows)) + sum(map(true, rows))
        same(own.f1, 2 * both / under if under else None)
        for name, yes, right in (
            ("hit", True, True), ("false_alarm", True, False),
            ("miss", False, True), ("rejection", False, False),
        ):  # fmt: skip
            cell = [r for r in rows if said(r) is yes and true(r) is right]
            same(getattr(own, name), share(cell, flips))
        for r in rows:  # the margin of the clean label, with the sign of that label
            r["yes"] = str(float(r["margin"]) * (1 if said(r) else -1))
        same(own.margin, np.mean(numbers(rows, "yes")))
        same(own.margin_flipped, mean_by_question([r for r in rows if flips(r)], "yes"))
        same(own.margin_stays, mean_by_question([r for r in rows if not flips(r)], "yes"))


def test_drift_of_the_flagged_channel_and_what_energy_goes_with_recomputed(told):
    outcome, exported = told
    audit = outcome.audit
    for rates in audit.rates:
        for unchanged in (False, True):
            rows = [r for r in rows_of(rates, exported) if not (unchanged and flips(r))]
            drift = next(
                (d for d in audit.drift
                 if (d.channel, d.layer, d.name, d.control, d.unchanged)
                 == ("ctx_open", 4, rates.name, audit.protocol.flag_control, unchanged)),
                None,
            )  # fmt: skip
            if drift is None:
                assert not rows
                continue
            assert drift.rows == len(rows)
            same(drift.drift, mean_by_question(rows, "drift"))
            same(drift.l2, np.mean(numbers(rows, "drift_l2")) if rows else None)
    rows = [r for r in counted_pictures(exported) if r["energy_change"] != ""]
    for name, column in (
        ("L2 drift of ctx_open", "drift_l2"),
        ("change of the clean answer's log-probability", "score_change"),
    ):
        found = audit.energy_correlations[name]
        own = [r for r in rows if r[column] != ""]
        assert found.n == len(own)
        same(found, np.corrcoef(numbers(own, "energy_change"), numbers(own, column))[0, 1])


def test_cka_is_of_the_stored_vectors_of_pairs_that_count(run, named):
    outcome, exported = named
    records = {r.key: r for r in RunStore.open(run).records(features={Feature.CTX_OPEN})}
    counted = defaultdict(list)
    for row in exported:
        if not row["excluded"]:
            counted[row["condition"]].append(row["example_id"])
    assert outcome.audit.cka.keys() == {c for c, own in counted.items() if len(own) >= 4}
    for condition, value in outcome.audit.cka.items():
        clean, perturbed = (
            np.stack([records[i, c].array(Feature.CTX_OPEN)[-1] for i in counted[condition]])
            for c in ("clean", condition)
        )
        expected = linear_cka(clean.astype(float), perturbed.astype(float), debiased=True)
        assert value == pytest.approx(expected, abs=1e-5), condition


def test_cka_of_every_channel_and_layer_is_a_mean_over_a_types_conditions(run, named):
    outcome, exported = named
    assert outcome.audit.similarities == ()
    audit = audit_run(run, replace(SETTINGS, preserving=NAMED, geometry=True)).audit
    found = {(own.channel, own.layer, own.name): own for own in audit.similarities}
    kinds = {row["condition"]: row["kind"] for row in exported}
    by_kind = defaultdict(list)
    for condition, value in audit.cka.items():
        by_kind[kinds[condition]].append(value)
    flagged = {k[2]: own for k, own in found.items() if k[:2] == (audit.protocol.channel, 4)}
    assert flagged.keys() == by_kind.keys()
    for kind, values in by_kind.items():
        assert flagged[kind].conditions == len(values)
        assert flagged[kind].value == pytest.approx(np.mean(values), abs=1e-6)
    assert {(channel, layer) for channel, layer, _ in found} >= {("ctx_open", 2), ("ctx_mcq", 4)}
    assert any(layer is None for _, layer, _ in found)
    records = {r.key: r for r in RunStore.open(run).records(features={Feature.CTX_OPEN})}
    counted = [
        r["example_id"] for r in exported if r["condition"] == "jpeg:3" and not r["excluded"]
    ]
    clean, after = (
        np.stack([records[i, c].array(Feature.CTX_OPEN)[0] for i in counted]).astype(float)
        for c in ("clean", "jpeg:3")
    )
    own = found["ctx_open", 2, kinds["jpeg:3"]]
    assert own.conditions == 1
    assert own.value == pytest.approx(linear_cka(clean, after, debiased=True), abs=1e-5)
    few = audit_run(run, replace(SETTINGS, control_items=9, geometry=True)).audit.similarities
    assert {own.name for own in few} <= set(kinds.values())


def test_injection_and_wording_have_rows_of_their_own(named):
    """A condition with an option on the picture, or with other words, is in no figure of all."""
    outcome, exported = named
    audit = outcome.audit
    parts = {r["condition"]: r["part"] for r in exported}
    assert parts["wording:1+rotate:30"] == parts["wording:1"] == "wording"
    assert parts["answer_text:1"] == parts["answer_box:1"] == "injection"
    assert parts["rotate:30"] == "picture"
    by_name = {rates.name: rates for rates in audit.rates}
    for name in ("answer_text:1", "text overlay naming an option", "wording:1+rotate:30"):
        assert by_name[name].pairs > 0
        assert by_name[name].part == parts.get(name, "injection")
    flagged = [r for r in exported if r["moved_far"] == "True"]
    assert all(r["part"] == "picture" for r in flagged)
    pictures = counted_pictures(exported)
    assert audit.rates[0].pairs == len(pictures)
    assert outcome.columns.counted.sum() == len(pictures)
    everywhere = [s for s in audit.unstable for s in s.pairs]
    assert all(pair.part == "picture" and not pair.excluded for pair in everywhere)
    per_answer = Counter(r["example_id"] for r in pictures)
    for example_id, signals in outcome.signals.items():
        own = [r for r in pictures if r["example_id"] == example_id]
        expected = held_to_conditions(own, pictures, flips)
        assert signals[Feature.FLIP_RATE] == pytest.approx(expected)
        assert per_answer[example_id] == len(own)
    assert sum(density_total(d) for d in audit.densities if d.channel == "ctx_open") == len(
        pictures
    )


def density_total(density):
    return sum(density.unchanged) + sum(density.flipped)


def test_spectra_are_of_pairs_that_count(named):
    outcome, exported = named
    shown = {s.name: s for s in outcome.audit.spectra}
    assert "wording" not in shown
    first = list(dict.fromkeys(r["example_id"] for r in exported))[: SETTINGS.spectra]
    for name, spectrum in shown.items():
        rows = [
            r
            for r in exported
            if r["kind"] == name and not r["excluded"] and r["example_id"] in first
        ]
        assert spectrum.pictures == len(rows)
        assert (spectrum.shares_of_flips is not None) == any(map(flips, rows))


def test_spectra_are_of_as_many_pictures_as_questions_while_there_are_so_many(tmp_path):
    data = dataset(tmp_path, n=12, each=3)
    collect(FakeModel(), data, tmp_path / "run", request=REQUEST, batch_size=4, shard_size=8)
    rows = read_pairs(RunStore.open(tmp_path / "run"))
    for questions, pictures in ((2, 2), (4, 4), (6, 4)):
        seen = measure_spectra(rows, columns_of(rows), tmp_path, pictures=questions)
        assert seen.pictures == questions
        items = {rows.pairs[n].item for n in seen.rows}
        assert len(items) == questions
        assert len({rows.items[item].image for item in items}) == pictures


def test_labels_agree_with_margins(exported):
    """Below 0 exactly where a scored label flips."""
    scored = [row for row in exported if row["margin"]]
    assert {row["form"] for row in scored} == {"choice", "yes_no"}
    for row in scored:
        assert (float(row["margin"]) < 0) == (row["flipped"] == "True")
        assert float(row["margin_before"]) > 0


def test_pairs_whose_truth_is_not_kept_are_counted_and_left_out(outcome, exported):
    excluded = Counter(
        row["excluded"] for row in exported if row["excluded"] and row["part"] == "picture"
    )
    assert excluded
    assert {s.reason: s.n for s in outcome.audit.rates[0].excluded} == dict(excluded)


def test_drift_is_the_distance_of_stored_vectors(run, exported):
    records = {r.key: r for r in RunStore.open(run).records(features={Feature.CTX_OPEN})}
    for row in exported[:20]:
        before, after = (
            records[row["example_id"], c].array(Feature.CTX_OPEN)[-1].astype(float)
            for c in ("clean", row["condition"])
        )
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        assert float(row["drift"]) == pytest.approx(1 - cosine, abs=1e-6)
        assert float(row["drift_l2"]) == pytest.approx(np.linalg.norm(before - after), rel=1e-6)


def test_every_channel_layer_and_control_is_in_the_table(outcome):
    audit = outcome.audit
    assert {d.channel for d in audit.drift} == {
        "ctx_open", "ctx_mcq", "ans_open", "ans_mcq", "ans_mcq_free", "ans_fixed",
        "vision_encoded", "vision_projected",
    }  # fmt: skip
    assert {d.layer for d in audit.drift} == {2, 4, None}
    assert {d.control for d in audit.drift} == {"other_images", "other_items", "paraphrases"}
    for drift in audit.drift:
        if drift.percent.value is not None:
            ratio = 100 * drift.drift.value / drift.control_drift.value
            assert drift.percent.value == pytest.approx(ratio, rel=1e-6)


def test_energy_maps_of_the_first_examples_only(run, outcome):
    with_map = {r.example.id for r in RunStore.open(run).records() if r.has(Feature.ENERGY_MAP)}
    assert with_map == {"e00", "e01", "e02"}
    assert {shown.example_id for shown in outcome.audit.maps} == with_map


def test_flags_are_only_for_labels_that_stay(exported, outcome):
    flagged = [row for row in exported if row["moved_far"] == "True"]
    assert flagged
    assert all(row["flipped"] == "False" and not row["excluded"] for row in flagged)
    stays = [
        r
        for r in exported
        if r["flipped"] == "False" and not r["excluded"] and r["part"] == "picture"
    ]
    assert outcome.audit.moved_far.value == pytest.approx(len(flagged) / len(stays))


def test_right_options():
    choice = Example(id="1", question="q", choices=("a", "b"), references=("B", "B", "A"))
    assert right_option(choice, "choice") == 1
    assert right_option(replace(choice, choices=None, references=("no",)), "yes_no") == 0
    assert right_option(replace(choice, references=("C",)), "choice") == -1
    assert right_option(choice, "text") == -1


def test_the_control_is_the_same_question_where_it_is_asked_often(outcome):
    assert outcome.audit.protocol.flag_control == "other_images"
    assert "control values" in outcome.audit.protocol.flag_rule


def test_two_models_that_answer_alike_flip_alike(outcome):
    twin = replace(outcome, model={**outcome.model, "files_xxh3": "another"})
    finding = compare_sizes([outcome, twin], [1, 2], SETTINGS)
    assert finding.estimate.value == 0
    with pytest.raises(UsageError, match="Two sizes for one model"):
        compare_sizes([outcome, outcome], [1, 2], SETTINGS)
    with pytest.raises(UsageError, match="one size a run is required"):
        compare_sizes([outcome], [1, 2], SETTINGS)


def test_a_run_without_perturbations_or_channels(tmp_path):
    data = dataset(tmp_path, 6)
    plain = replace(REQUEST, conditions=(), channels=False, energy_maps=0)
    collect(FakeModel(), data, tmp_path / "clean", request=plain, batch_size=2, shard_size=4)
    with pytest.raises(DataError, match="requires some"):
        audit_run(tmp_path / "clean")
    collect(
        FakeModel(), data, tmp_path / "flips", request=replace(plain, conditions=CONDITIONS),
        batch_size=2, shard_size=4,
    )  # fmt: skip
    audit = audit_run(tmp_path / "flips", SETTINGS).audit
    assert audit.drift == ()
    assert audit.no_energy is not None
    assert audit.moved_far.value is None
    assert audit.moved_far.reason == "no channel was observed"
    assert audit.rates[0].ifr.value is not None
    records = RunStore.open(tmp_path / "flips").records()
    assert not any(CHANNELS & record.features.keys() for record in records)


def test_a_channel_the_run_lacks(run):
    with pytest.raises(UsageError, match="'nothing'; one of ctx_open"):
        audit_run(run, replace(SETTINGS, channel="nothing"))


def test_rows_are_read_shard_by_shard_in_the_plans_order(run):
    rows = read_pairs(RunStore.open(run))
    assert [item.record.example.id for item in rows.items] == [f"e{i:02d}" for i in range(30)]
    assert len(rows.pairs) + len(RunStore.open(run).refused()) == 30 * len(CONDITIONS)


def test_what_is_known_of_each_answer_becomes_its_uncertainty(run, outcome, exported):
    records = {r.example.id: r for r in link(list(RunStore.open(run).records()), condition="clean")}
    rows = [r for r in exported if not r["excluded"] and r["part"] == "picture"]
    for example_id, record in records.items():
        own = [r for r in rows if r["example_id"] == example_id]
        assert record.has(Feature.FLIP_RATE) == bool(own)
        if not own:
            continue
        (flips,) = ESTIMATORS["flip_rate"].uncertainty([record])
        assert flips == pytest.approx(
            held_to_conditions(own, rows, lambda r: r["flipped"] == "True")
        )
        scored = [r for r in own if r["margin"]]
        assert record.has(Feature.MARGIN_LOSS) == bool(scored)
        if scored:
            (loss,) = ESTIMATORS["margin_loss"].uncertainty([record])
            fall = lambda r: float(r["margin_before"]) - float(r["margin"])  # noqa: E731
            every = [r for r in rows if r["margin"]]
            assert loss == pytest.approx(held_to_conditions(scored, every, fall))
        (share,) = ESTIMATORS["drift_share"].uncertainty([record])
        control = next(
            d for d in outcome.audit.drift
            if d.channel == "ctx_open" and d.control == outcome.audit.protocol.flag_control
        )  # fmt: skip
        assert share > 0
        assert control.control_drift.value > 0
    with pytest.raises(MissingFeatureError, match="Run sightline audit"):
        ESTIMATORS["flip_rate"].uncertainty([replace(next(iter(records.values())), features={})])


def test_another_audit_replaces_the_signals(run, outcome):
    before = RunStore.open(run).derived()[Derivation.AUDIT].source
    write_audit(audit_run(run, replace(SETTINGS, channel="vision_projected")), run)
    after = RunStore.open(run).derived()[Derivation.AUDIT].source
    assert before["channel"] == "ctx_open"
    assert after["channel"] == "vision_projected"
    write_audit(outcome, run)


def estimates_of(result):
    own = result.values() if isinstance(result, dict) else vars_of(result).values()
    return [value for value in own if isinstance(value, Estimate) and value.value is not None]


def vars_of(result):
    return {field.name: getattr(result, field.name) for field in fields(result)}


def test_every_figure_of_answers_is_in_a_table_of_the_page(named):
    """Transitions, margins, readings of labels, yes and no, and what is said without a picture."""
    audit = named[0].audit
    cells = {cell.text for grid in rate_tables(audit) for row in grid.rows for cell in row.cells}
    kinds = [rates for rates in audit.rates if rates.name not in audit.protocol.conditions]
    for result in (*kinds, *audit.yes_no, audit.prior, audit.variants):
        for value in estimates_of(result):
            text = cell_of(value, None).text
            assert any(cell.partition(" (")[0] == text for cell in cells), (result, value)
    rows = {row.name: row for grid in rate_tables(audit) for row in grid.rows}
    for rates in kinds:
        moves = (rates.right_right, rates.right_wrong, rates.wrong_right, rates.wrong_wrong)
        (transitions,) = [grid for grid in rate_tables(audit) if grid.columns[0] == "R→R"]
        found = [r for r in transitions.rows if r.name.startswith(row_name(rates))]
        assert bool(sum(moves)) == bool(found)
        if found:
            assert tuple(cell.text for cell in found[0].cells[:4]) == tuple(map(str, moves))
    assert any("text overlay naming an option (injection test)" in name for name in rows)
    l2 = [d.l2 for d in audit.drift if d.name == "all" and not d.unchanged and d.layer in (4, None)]
    shown = {cell.text for grid in drift_tables(audit) for row in grid.rows for cell in row.cells}
    assert {cell_of(value, None).text for value in l2} <= shown
    (by_type,) = [g for g in drift_tables(audit) if g.caption.startswith("Euclidean drift")]
    last = [d for d in audit.drift if d.layer in (4, None) and not d.unchanged]
    for row in by_type.rows:
        own = {d.channel: d.l2 for d in last if row.name.startswith(f"{d.name} (")}
        assert [cell.text for cell in row.cells] == [
            cell_of(own.get(channel), None).text for channel in by_type.columns
        ]
    assert {row.name.partition(" (")[0] for row in by_type.rows} == {
        rates.name for rates in kinds if rates.pairs
    }


def test_flips_of_yes_and_no_are_counted(named):
    audit, exported = named[0].audit, named[1]
    moves = [grid for grid in rate_tables(audit) if "yes, right: flips" in grid.columns]
    (shown,) = moves
    at = shown.columns.index("yes, right: flips")
    lines = io.StringIO()
    print_audit(audit, file=lines)
    said = " ".join(lines.getvalue().split())
    cells = (("yes", True), ("yes", False), ("no", False), ("no", True))
    found = 0
    for own in audit.yes_no[1:]:
        (row,) = [r for r in shown.rows if r.name.startswith(f"{own.name} (")]
        rows = [
            r for r in exported
            if r["kind"] == own.name and r["form"] == "yes_no" and not r["excluded"]
        ]  # fmt: skip
        for i, (label, right) in enumerate(cells):
            asked = [r for r in rows if r["clean_label"] == label and was(r) == right]
            text = row.cells[at + i].text
            if not asked:
                assert text == "—"
                continue
            hits = sum(map(flips, asked))
            assert text.endswith(f" ({hits} of {len(asked)})")
            name = f"{'right' if right else 'wrong'} {label}"
            assert f"{hits} of {len(asked)} {name}" in said
            found += 1
    assert found


def test_band_means_are_of_the_rendered_pictures_and_stand_beside_the_spectra(run, named):
    audit = named[0].audit
    (shown,) = [g for g in rate_tables(audit) if g.caption.startswith("Mean power")]
    assert [row.name.partition(" (")[0] for row in shown.rows] == [s.name for s in audit.spectra]
    for own, row in zip(audit.spectra, shown.rows, strict=True):
        changes = tuple(
            (b - a) / a for a, b in zip(own.means.clean, own.means.perturbed, strict=True)
        )
        assert own.means.changes == pytest.approx(changes)
        assert [cell.text for cell in row.cells[:3]] == [f"{v:.3g}" for v in own.means.clean]
        assert row.cells[6].text == signed(changes[0], 3)
        assert (own.means_of_flips is None) == (row.cells[9].text == "—")
    (blurred,) = [s for s in audit.spectra if s.name == "corruption"]
    store = RunStore.open(run)
    counted = [r for r in named[1] if r["condition"] == "jpeg:3" and not r["excluded"]]
    rendered = [
        e for e in store.examples()[: SETTINGS.spectra]
        if e.id in {r["example_id"] for r in counted}
    ]  # fmt: skip
    clean, changed = [], []
    for example in rendered:
        image = Image.open(example.images[0].path).convert("RGB")
        edges = band_edges(3, height=image.height, width=image.width)
        after = parse_condition("jpeg:3").apply(image, example)
        for values, found in ((image, clean), (after, changed)):
            found.append(band_means(np.asarray(values) / 255.0, edges))
    assert blurred.pictures == len(rendered)
    assert blurred.means.clean == pytest.approx(np.mean(clean, axis=0))
    assert blurred.means.perturbed == pytest.approx(np.mean(changed, axis=0))


def test_the_page_says_which_pairs_are_not_in_its_figures(outcome, named):
    for found, says in ((outcome, "none beyond the table"), (named[0], "answer_text:1, answer_")):
        page = audit_page([found.audit], PictureSource())
        (run,) = page.runs
        undecided = found.audit.rates[0].undecided
        assert undecided.n
        (line,) = [line for line in run.summary if "is not known" in line]
        assert line.startswith(f"Not counted: {undecided.n} pairs; whether the right answer stays")
        assert line.endswith("of them flip.")
        assert any("Visual entropy" in line for line in run.summary)
        facts = {fact.name: fact.text for fact in run.facts}
        assert facts["Said to keep the answer"].startswith(says)
    out = io.StringIO()
    print_audit(named[0].audit, file=out)
    assert "(injection test)" in out.getvalue()
    assert "R→R" in out.getvalue()
    assert "visual entropy" in out.getvalue()


def test_injection_tests_are_marked_beside_other_runs_too(named, outcome):
    audits = [named[0].audit, outcome.audit]
    marked = "text overlay naming an option (injection test)"
    for grid in comparison_tables(audits, ("a", "b"))[1:]:
        assert marked in {row.name for row in grid.rows}
    out = io.StringIO()
    print_comparison(audits, Comparison(("a", "b"), ()), file=out)
    assert marked in " ".join(out.getvalue().split())
    (run,) = audit_page([named[0].audit], PictureSource()).runs
    tiles = [tile for example in run.sheet for tile in example.tiles]
    for tile in tiles:
        assert ("injection test" in tile.detail) == tile.name.startswith("answer_")
    assert any(tile.name == "answer_text:1" for tile in tiles)
