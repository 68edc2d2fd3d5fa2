"""The control that every data set has: collected like a condition, counted like none."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from PIL import Image

from sightline.core.condition_names import CLEAN
from sightline.core.errors import DataError, UsageError
from sightline.core.features import CHANNELS, VISION_CHANNELS, Feature
from sightline.core.protocols import Request
from sightline.core.records import link
from sightline.core.types import Example, ImageRef
from sightline.data.examples import Dataset
from sightline.data.images import ImageLimits, hash_image_file
from sightline.data.perturbations import parse_condition
from sightline.data.unrelated import unrelated_pictures
from sightline.models.fake import FakeModel
from sightline.store.run import RunStore
from sightline.workflow.auditing.drifts import FEWEST, main_control, measure_drifts
from sightline.workflow.auditing.pairs import read_pairs
from sightline.workflow.auditing.running import AuditSettings, audit_run
from sightline.workflow.collect import collect
from sightline.workflow.conditions import views_of

PERTURBED = ("jpeg:3", "translate:8", "scale:0.9", "wording:1", "answer_text:1")
SETTINGS = AuditSettings(resamples=100, spectra=3, budget=2)
REQUEST = Request(
    max_new_tokens=4, layers=(0.5, 1.0), options=True, blank=True, channels=True, energy_maps=2
)


def dataset(folder, n: int = 48, *, pictures: int | None = None) -> Dataset:
    """Questions that are all asked once, a third of them multiple choice."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = []
    for i in range(pictures or n):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
        images.append(ImageRef(str(path), hash_image_file(path, ImageLimits())))
    examples = tuple(
        Example(
            id=f"e{i:02d}",
            question=(f"What colour is part {i}?", f"Is part {i} red?", f"Which is part {i}?")[
                i % 3
            ],
            images=(images[i % len(images)],),
            choices=("red", "blue", f"green{i}") if i % 3 == 2 else None,
            references=(("red",), ("yes",), ("A",))[i % 3],
        )
        for i in range(n)
    )
    return Dataset("made", examples, (), "0" * 64)


def collected(folder, data, conditions, **settings):
    request = replace(REQUEST, conditions=conditions)
    sizes = {"batch_size": 4, "shard_size": 8, **settings}
    collect(FakeModel(), data, folder, request=request, **sizes)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unrelated")
    data = dataset(folder / "images")
    without = collected(folder / "without", data, PERTURBED)
    beside = collected(folder / "beside", data, (*PERTURBED, "unrelated:1"))
    return data, without, beside


@pytest.fixture(scope="module")
def outcomes(runs):
    _, without, beside = runs
    return audit_run(without, SETTINGS), audit_run(beside, SETTINGS)


def test_the_question_is_asked_unchanged_about_the_drawn_picture(runs):
    data, _, beside = runs
    drawn = unrelated_pictures(data.examples, 1)
    shown = {r.example.id: r for r in RunStore.open(beside).records(condition="unrelated:1")}
    assert shown.keys() == {example.id for example in data.examples}
    for example in data.examples[:6]:
        record = shown[example.id]
        assert record.example == example
        assert record.truth == "unknown"
        (pictures,) = drawn[example.id]
        moved = replace(example, images=pictures)
        image = Image.open(pictures[0].path).convert("RGB")
        (alone, *_) = FakeModel().observe([moved], [(image,)], REQUEST)
        for channel in (Feature.CTX_OPEN, *VISION_CHANNELS, Feature.CTX_MCQ):
            assert record.has(channel) == alone.has(channel)
            if record.has(channel):
                np.testing.assert_array_equal(record.array(channel), alone.array(channel))


def test_questions_that_are_asked_once_have_the_control(runs):
    data, without, beside = runs
    for folder, n in ((without, 0), (beside, len(data.examples))):
        rows = read_pairs(RunStore.open(folder))
        drifts = measure_drifts(rows, control_items=100, k=5, seed=0)
        last = {place.channel: place for place in reversed(drifts.places)}
        choice = sum(example.choices is not None for example in data.examples)
        for channel, place in last.items():
            own = drifts.controls[place]["other_images"]
            mcq_only = {Feature.CTX_MCQ, Feature.ANS_MCQ, Feature.ANS_MCQ_FREE}
            assert len(own.items) == (min(n, choice) if channel in mcq_only else n)
            assert np.all(own.values > 0)
            assert main_control(drifts.controls[place]) == (
                "other_images" if len(own.items) >= FEWEST else "other_items"
            )
        assert {Feature.CTX_MCQ, Feature.ANS_MCQ, Feature.ANS_MCQ_FREE} <= last.keys()


def test_natural_and_drawn_partners_are_one_control(tmp_path):
    data = dataset(tmp_path / "images", 12)
    same = tuple(replace(e, question="What is it?", choices=None) for e in data.examples)
    data = replace(data, examples=same)
    for conditions, more in (
        (PERTURBED[:1], 0),
        ((*PERTURBED[:1], "unrelated:1", "unrelated:2"), 24),
    ):
        folder = collected(tmp_path / str(more), data, conditions)
        rows = read_pairs(RunStore.open(folder))
        drifts = measure_drifts(rows, control_items=12, k=5, seed=0)
        own = drifts.controls[drifts.places[0]]["other_images"]
        assert len(own.values) == 12 * 5 + more
        assert Counter(own.items.tolist()) == dict.fromkeys(range(12), 5 + more // 12)


def test_the_fixed_text_is_held_against_the_same_text_alone(tmp_path):
    data = dataset(tmp_path / "images", 30)
    same = tuple(replace(e, question="What is it?", choices=None) for e in data.examples)
    folder = collected(
        tmp_path / "run", replace(data, examples=same), (*PERTURBED[:1], "unrelated:1")
    )
    drifts = measure_drifts(read_pairs(RunStore.open(folder)), control_items=30, k=5, seed=0)
    counts = {
        place.channel: len(drifts.controls[place]["other_images"].values) for place in drifts.places
    }
    assert counts[Feature.ANS_FIXED] == 30
    assert counts[Feature.ANS_OPEN] == counts[Feature.CTX_OPEN] == 30 * 5 + 30


SAME = (
    "items", "images", "quarantined", "refused", "rates", "visual_entropy", "variants", "cka",
    "densities", "energy_correlations", "yes_no", "prior", "spectra", "meaning", "budgets", "sheet",
    "unstable", "maps",
)  # fmt: skip


def without_flags(document):
    """Everything but what the control itself decides: how far is far."""
    if isinstance(document, dict):
        return {k: without_flags(v) for k, v in document.items() if k != "moved_far"}
    if isinstance(document, (list, tuple)):
        return [without_flags(own) for own in document]
    return document


def test_no_figure_of_answers_knows_of_the_control(outcomes):
    first, second = (asdict(outcome.audit) for outcome in outcomes)
    for name in SAME:
        if name == "densities":
            continue
        assert without_flags(first[name]) == without_flags(second[name]), name
    for before, after in zip(first["densities"], second["densities"], strict=True):
        assert sum(before["unchanged"]) == sum(after["unchanged"])
        assert sum(before["flipped"]) == sum(after["flipped"])
    assert first["protocol"]["conditions"] == second["protocol"]["conditions"]
    assert (first["protocol"]["unrelated"], second["protocol"]["unrelated"]) == (0, 48)
    pairs = [[without_flags(asdict(pair)) for pair in outcome.pairs] for outcome in outcomes]
    assert pairs[0] == pairs[1]
    assert not any("unrelated" in pair["condition"] for pair in pairs[1])
    for example_id, own in outcomes[0].signals.items():
        after = dict(outcomes[1].signals[example_id])
        assert {**own, Feature.DRIFT_SHARE: 0.0} == {**after, Feature.DRIFT_SHARE: 0.0}
    for field in fields(outcomes[0].columns):  # of which runs are compared
        first_, second_ = (getattr(outcome.columns, field.name) for outcome in outcomes)
        np.testing.assert_array_equal(first_, second_)
    by_task = [
        [f for f in document["findings"] if "hide" not in f["finding"]]
        for document in (first, second)
    ]
    assert by_task[0] == by_task[1]


def test_drift_itself_stays_and_rows_of_multiple_choice_have_a_control(outcomes):
    without, beside = ({}, {})
    for found, outcome in ((without, outcomes[0]), (beside, outcomes[1])):
        for own in outcome.audit.drift:
            if own.name == "all" and own.control == "other_images" and not own.unchanged:
                found[own.channel, own.layer] = own
    for place, own in beside.items():
        channel = Feature(place[0])
        assert own.percent.value is not None, channel
        if place in without:
            assert without[place].l2 == own.l2
            assert without[place].percent.value is None


def test_injection_rows_have_drift_beside_the_control(runs):
    named = replace(SETTINGS, preserving=("answer_text:1",), budget=0, spectra=0)
    kind = parse_condition("answer_text:1").kind
    for folder, there in ((runs[1], False), (runs[2], True)):
        found = [own for own in audit_run(folder, named).audit.drift if own.name == kind]
        beside = [own for own in found if own.control == "other_images" and own.rows > 1]
        assert {Feature.CTX_OPEN, Feature.CTX_MCQ} <= {own.channel for own in beside}
        for own in beside:
            assert (own.percent.value is not None) == there
            assert (own.partners >= own.rows) == there


def test_it_is_no_view_of_an_answer(runs):
    _, _, beside = runs
    clean = link(list(RunStore.open(beside).records()), condition=CLEAN)[0]
    assert "unrelated:1" in {c.condition for c in clean.related.conditions}
    assert "unrelated:1" not in {c.condition for c in clean.related.views}
    assert "unrelated:1" not in {c.condition for c in clean.related.left_out}


def rows_by_key(folder):
    found = {}
    for record in RunStore.open(folder).records():
        kept = record.features.keys() - {Feature.ENERGY_MAP}  # of the first questions of a plan
        arrays = {f.value: record.array(f).tolist() for f in kept}
        found[record.key] = (record.greedy.text if record.greedy else None, arrays)
    return found


def test_neither_batches_shards_nor_a_killed_collection_change_it(runs, tmp_path):
    data, _, beside = runs
    conditions = (*PERTURBED, "unrelated:1")
    stops = iter([False, False, True])
    request = replace(REQUEST, conditions=conditions)
    killed = tmp_path / "killed"
    first = collect(
        FakeModel(), data, killed, request=request, batch_size=4, shard_size=8,
        should_stop=lambda: next(stops),
    )  # fmt: skip
    assert first.interrupted
    collect(FakeModel(), data, killed, request=request, batch_size=4, shard_size=8)
    for path in sorted((beside / "shards").iterdir()):
        assert (killed / "shards" / path.name).read_bytes() == path.read_bytes()
    whole = rows_by_key(beside)
    other = collected(tmp_path / "other", data, conditions, batch_size=7, shard_size=19)
    assert rows_by_key(other) == whole
    turned = replace(data, examples=data.examples[::-1])
    assert rows_by_key(collected(tmp_path / "turned", turned, conditions)) == whole


def test_without_another_picture_it_is_refused_and_counted(tmp_path):
    data = dataset(tmp_path / "images", 5, pictures=1)
    request = replace(REQUEST, conditions=("jpeg:3", "unrelated:1"))
    found = collect(FakeModel(), data, tmp_path / "run", request=request)
    reason = "the data set has 0 unrelated pictures for the question"
    assert dict(found.refused) == {reason: 5}
    audit = audit_run(tmp_path / "run", SETTINGS).audit
    assert [(row.reason, row.n) for row in audit.refused] == [(reason, 5)]
    assert audit.protocol.unrelated == 0
    clean = next(iter(RunStore.open(tmp_path / "run").records(condition=CLEAN)))
    bare = replace(clean, example=replace(clean.example, images=()))
    _, (refused,) = views_of(bare, [parse_condition("unrelated:1")])
    assert refused.reason == "the question has no picture"


def test_a_drawn_picture_that_cannot_be_read_fails_its_own_row_alone(runs, tmp_path):
    data = dataset(tmp_path / "images", 8)
    gone = data.examples[0].images[0]
    drawn = unrelated_pictures(data.examples, 1)
    hit = {name for name, own in drawn.items() if own[0] == (gone,)}
    shutil.move(gone.path, tmp_path / "away.png")
    request = replace(REQUEST, conditions=("unrelated:1",))
    collect(FakeModel(), data, tmp_path / "run", request=request)
    failed = {row.key for row in RunStore.open(tmp_path / "run").quarantined()}
    own = {(data.examples[0].id, name) for name in (CLEAN, "unrelated:1")}
    expected = own | {(name, "unrelated:1") for name in hit}
    assert {(key.example_id, key.condition) for key in failed} == expected


def test_a_run_of_the_control_alone_has_nothing_to_audit(tmp_path):
    folder = collected(tmp_path / "run", dataset(tmp_path / "images", 4), ("unrelated:1",))
    with pytest.raises(DataError, match="no answer under a perturbation"):
        audit_run(folder, SETTINGS)


def test_it_cannot_be_said_to_keep_the_answer(runs):
    with pytest.raises(UsageError, match="which is a control"):
        audit_run(runs[2], replace(SETTINGS, preserving=("unrelated:1",)))


def test_every_channel_that_was_collected_is_of_the_control_too(runs):
    _, _, beside = runs
    store = RunStore.open(beside)
    clean = {r.example.id: r for r in store.records(condition=CLEAN)}
    for record in store.records(condition="unrelated:1"):
        own = {f for f in clean[record.example.id].features if f in CHANNELS}
        assert own <= record.features.keys()
