"""An audit of a run: its figures follow from its exported rows and stored vectors."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sightline.core.audit_results import load_audit
from sightline.core.errors import DataError, MissingFeatureError, UsageError
from sightline.core.features import CHANNELS, Feature
from sightline.core.protocols import Request
from sightline.core.records import link
from sightline.core.types import Example, ImageRef
from sightline.data.examples import Dataset
from sightline.data.images import ImageLimits, hash_image_file
from sightline.estimators import ESTIMATORS
from sightline.models.fake import FakeModel
from sightline.store.derived import Derivation
from sightline.store.run import RunStore
from sightline.workflow.auditing.comparing import compare_sizes
from sightline.workflow.auditing.pairs import read_pairs, right_option
from sightline.workflow.auditing.running import AuditSettings, audit_run
from sightline.workflow.auditing.writing import RESULTS, ROWS, write_audit
from sightline.workflow.collect import collect

CONDITIONS = ("jpeg:3", "rotate:30", "translate:8", "translate:12", "wording:1")
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


def dataset(folder, n: int = 30) -> Dataset:
    rng = np.random.default_rng(0)
    examples = []
    for i in range(n):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (16, 20, 3), dtype=np.uint8)).save(path)
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
    (run / "broken.json").write_text(json.dumps({"format_version": 2}))
    with pytest.raises(DataError, match="format version 1 is required"):
        load_audit(run / "broken.json")


def test_rates_recomputed_from_the_exported_rows(outcome, exported):
    """Every rate follows from audit.csv alone."""
    for rates in outcome.audit.rates:
        rows = [
            r
            for r in exported
            if not r["excluded"]
            and (
                rates.name in (r["kind"], r["condition"])
                or (rates.name == "all" and r["kind"] != "wording")
            )
        ]
        assert rates.pairs == len(rows)
        if not rows:
            continue
        flips = [r["flipped"] == "True" for r in rows]
        assert rates.ifr.value == pytest.approx(np.mean(flips))
        per_item = {r["example_id"]: False for r in rows}
        for row, flip in zip(rows, flips, strict=True):
            per_item[row["example_id"]] |= flip
        assert rates.iv.value == pytest.approx(np.mean(list(per_item.values())))
        moves = Counter(
            (r["right_before"], r["right_after"])
            for r in rows
            if r["right_before"] and r["right_after"]
        )
        assert rates.right_wrong == moves["True", "False"]
        assert rates.wrong_right == moves["False", "True"]
        if sum(moves.values()):
            after = (moves["True", "True"] + moves["False", "True"]) / sum(moves.values())
            assert rates.accuracy_after.value == pytest.approx(after)
        losses = [float(r["margin"]) - float(r["margin_before"]) for r in rows if r["margin"]]
        if losses:
            assert rates.margin_change.value == pytest.approx(np.mean(losses))
        index = [float(r["prior_index"]) for r in rows if r["prior_index"]]
        if index:
            assert rates.prior_index.value == pytest.approx(np.mean(index))


def test_labels_agree_with_margins(exported):
    """Below 0 exactly where a scored label flips."""
    scored = [row for row in exported if row["margin"]]
    assert {row["form"] for row in scored} == {"choice", "yes_no"}
    for row in scored:
        assert (float(row["margin"]) < 0) == (row["flipped"] == "True")
        assert float(row["margin_before"]) > 0


def test_pairs_whose_truth_is_not_kept_are_counted_and_left_out(outcome, exported):
    excluded = Counter(
        row["excluded"] for row in exported if row["excluded"] and row["kind"] != "wording"
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
        if r["flipped"] == "False" and not r["excluded"] and r["kind"] != "wording"
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


def test_two_sizes_of_one_run_flip_alike(outcome):
    finding = compare_sizes([outcome, outcome], [1, 2], SETTINGS)
    assert finding.estimate.value == 0
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
    rows = [r for r in exported if not r["excluded"] and r["kind"] != "wording"]
    for example_id, record in records.items():
        own = [r for r in rows if r["example_id"] == example_id]
        assert record.has(Feature.FLIP_RATE) == bool(own)
        if not own:
            continue
        (flips,) = ESTIMATORS["flip_rate"].uncertainty([record])
        assert flips == pytest.approx(np.mean([r["flipped"] == "True" for r in own]))
        scored = [float(r["margin_before"]) - float(r["margin"]) for r in own if r["margin"]]
        assert record.has(Feature.MARGIN_LOSS) == bool(scored)
        if scored:
            (loss,) = ESTIMATORS["margin_loss"].uncertainty([record])
            assert loss == pytest.approx(np.mean(scored))
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
