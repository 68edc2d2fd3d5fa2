"""Collecting under perturbations: every pair has a row, and only kept truths are views."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.core.condition_names import BLANK, CLEAN
from sightline.core.errors import OutOfMemoryError, SettingsDifferError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.records import link
from sightline.core.text import parse_choice
from sightline.core.types import Example, Generation, Key, Record
from sightline.data.examples import Dataset, load_dataset
from sightline.data.label_preservation import decide
from sightline.data.perturbations import parse_condition, parse_conditions, prepared
from sightline.data.wordings import FRAMES
from sightline.models.fake import FakeModel
from sightline.store.images import image_writer
from sightline.store.merge import merge_runs
from sightline.store.run import RunStore
from sightline.workflow.collect import collect
from sightline.workflow.conditions import decision, views_of, with_own_truth
from sightline.workflow.evaluate import Settings, evaluate
from sightline.workflow.observing import observe_shard

CONDITIONS = ("jpeg:3", "crop:16", "wording:2", "wording:5", "answer_text:1", "pad:4+noise:2")
REQUEST = Request(
    max_new_tokens=4,
    n_samples=2,
    layers=(0.5,),
    options=True,
    blank=True,
    asks=("p_true",),
    conditions=CONDITIONS,
    condition_samples=1,
)


class Watched:
    """A model that keeps what it was asked."""

    def __init__(self, fails_on: frozenset[str] = frozenset()) -> None:
        self._model = FakeModel(fails_on=fails_on)
        self.asked: list[tuple[Example, tuple[Image.Image, ...], Request, object]] = []
        self.sizes: list[int] = []

    def fingerprint(self):
        return self._model.fingerprint()

    def observe(self, examples, images, request, *, given=None):
        self.sizes.append(len(examples))
        read = given or [None] * len(examples)
        self.asked += [(e, i, request, g) for e, i, g in zip(examples, images, read, strict=True)]
        return self._model.observe(examples, images, request, given=given)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> tuple[Dataset, Path]:
    root = tmp_path_factory.mktemp("scenes")
    return load_dataset("scenes:test?n=24", store_image=image_writer(root / "run")), root / "run"


def photos(folder: Path, n: int, *, choices: bool = True, size=(64, 48)) -> Dataset:
    folder.mkdir()
    rows = ["id,image,question,answers,choices"]
    for i in range(n):
        noise = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
        options = '"[""red"", ""blue"", ""green""]"' if choices else ""
        rows.append(
            f"q{i},{i}.png,What colour is number {i}?,{'A' if choices else 'red'},{options}"
        )
    (folder / "data.csv").write_text("\n".join(rows))
    return load_dataset(folder / "data.csv")


def shard_bytes(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "shards").iterdir())}


def test_every_pair_of_example_and_condition_has_one_row(scenes):
    dataset, run = scenes
    result = collect(FakeModel(), dataset, run, request=REQUEST, shard_size=5, batch_size=4)
    store = RunStore.open(run)
    rows = [r.key for r in store.records(features=())]
    refused = store.refused()
    own = {(e.id, c) for e in dataset.examples for c in (CLEAN, BLANK, "asked:p_true", *CONDITIONS)}
    assert not store.quarantined()
    assert set(rows) | {row.key for row in refused} == own
    assert len(rows) + len(refused) == len(own)
    assert store.manifest.conditions == (CLEAN, BLANK, "asked:p_true", *CONDITIONS)
    assert dict(result.refused) == Counter(row.reason for row in refused)
    assert {row.key.condition for row in refused} >= {"wording:5", "answer_text:1"}
    assert store.verify() == []


def test_a_record_under_a_condition_holds_all_that_was_asked_for(scenes):
    dataset, run = scenes
    result = observe_shard(FakeModel(), dataset.examples[:6], REQUEST, root=run, batch_size=4)
    clean = {r.example.id: r for r in result.records if r.condition == CLEAN}
    under = [r for r in result.records if r.condition in CONDITIONS]
    assert under
    for record in under:
        answer = clean[record.example.id].answer
        assert record.answer.logprobs is not None
        assert len(record.samples) == 1
        assert record.has(Feature.HIDDEN)
        assert record.has(Feature.OPTION_LOGPROBS) == (record.example.choices is not None)
        assert record.array(Feature.CLEAN_LOGPROBS).shape == (answer.n_tokens,)
        assert not record.has(Feature.BLANK_LOGPROBS)
        assert record.example == clean[record.example.id].example
    assert "rendering_seconds" in result.log


def test_the_model_sees_the_perturbed_picture_and_the_reworded_question(tmp_path):
    dataset = photos(tmp_path / "data", 2)
    model = Watched()
    names = ("rotate:30", "wording:2", "jpeg:3+wording:1")
    request = replace(REQUEST, conditions=names)
    observe_shard(model, dataset.examples, request, root=tmp_path, batch_size=2)
    clean = {e.id: i for e, i, r, _ in model.asked if r.blank}
    for example in dataset.examples:
        for name in names:
            asked = next(a for a in model.asked if a[0].id == f"{example.id} under {name}")
            condition = parse_condition(name)
            picture = condition.apply(clean[example.id][0], example)
            assert asked[1][0].tobytes() == picture.tobytes()
            assert asked[0].question == condition.reword(example).question
            assert asked[2].n_samples == 1
            assert asked[2].asks == ()
            assert not asked[2].blank
            assert asked[3] is not None
    assert FRAMES[1].format(question=dataset.examples[0].question) in {
        e.question for e, *_ in model.asked
    }


def test_a_picture_too_small_for_a_text_goes_without_this_condition_alone(tmp_path):
    small = photos(tmp_path / "small", 1, size=(20, 16)).examples[0]
    large = replace(photos(tmp_path / "large", 1).examples[0], id="large")
    examples = [small, large]
    request = replace(REQUEST, conditions=("text:1", "rotate:30"))
    found = observe_shard(FakeModel(), examples, request, root=tmp_path, batch_size=8)
    assert [row.key for row in found.refused] == [Key(small.id, "text:1")]
    assert "the picture has 20 x 16" in found.refused[0].reason
    kept = {tuple(record.key) for record in found.records}
    asked = {(e.id, name) for e in examples for name in request.conditions}
    assert asked - kept == {(small.id, "text:1")}
    assert not found.quarantined


def test_what_names_an_option_names_none_that_the_clean_answer_chose(tmp_path):
    dataset = photos(tmp_path / "data", 12)
    request = replace(REQUEST, max_new_tokens=2, conditions=("answer_text:1", "answer_text:2"))
    model = Watched()
    result = observe_shard(model, dataset.examples, request, root=tmp_path, batch_size=5)
    refused = {row.key.example_id for row in result.refused}
    observed = {r.example.id for r in result.records if r.condition == "answer_text:1"}
    assert observed | refused == {e.id for e in dataset.examples}
    assert {row.reason for row in result.refused} <= {"the clean answer names none of the options"}
    clean = {r.example.id: r for r in result.records if r.condition == CLEAN}
    for name in observed:
        sees = {a[1][0].tobytes() for a in model.asked if a[0].id.startswith(f"{name} under ")}
        picture = next(a[1][0] for a in model.asked if a[0].id == name)
        letter = parse_choice(clean[name].answer.text, ("red", "blue", "green"))
        want = {
            parse_condition(c).apply(picture, clean[name].example, answer=letter).tobytes()
            for c in request.conditions
        }
        assert sees == want


def test_samples_under_two_conditions_are_independent_draws(tmp_path):
    """The same picture twice under names that change nothing of it gives other samples."""
    dataset = photos(tmp_path / "data", 1, choices=False)
    model = Watched()
    request = replace(REQUEST, conditions=("translate:64", "translate:-64"))
    observe_shard(model, dataset.examples, request, root=tmp_path, batch_size=4)
    first, second = (a for a in model.asked if " under " in a[0].id)
    assert first[1][0].tobytes() == second[1][0].tobytes()
    assert first[0].id != second[0].id


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_records_do_not_depend_on_the_batch(scenes, batch_size):
    dataset, run = scenes
    whole = observe_shard(FakeModel(), dataset.examples[:5], REQUEST, root=run, batch_size=5)
    parts = observe_shard(
        FakeModel(), dataset.examples[:5], REQUEST, root=run, batch_size=batch_size
    )
    assert [r.key for r in whole.records] == [r.key for r in parts.records]
    assert whole.refused == parts.refused
    for one, other in zip(whole.records, parts.records, strict=True):
        assert (one.truth, one.answer.text) == (other.truth, other.answer.text)
        assert all((one.features[f] == other.features[f]).all() for f in one.features)


def test_no_batch_is_larger_than_asked(scenes):
    dataset, run = scenes
    model = Watched()
    observe_shard(model, dataset.examples[:7], REQUEST, root=run, batch_size=3)
    assert max(model.sizes) == 3


def test_one_failing_view_is_quarantined_alone(scenes):
    dataset, run = scenes
    example = dataset.examples[2].id
    model = FakeModel(fails_on=frozenset({f"{example} under jpeg:3"}))
    result = observe_shard(model, dataset.examples[:4], REQUEST, root=run, batch_size=4)
    assert [q.key for q in result.quarantined] == [Key(example, "jpeg:3")]
    assert "set to fail" in result.quarantined[0].reason
    whole = observe_shard(FakeModel(), dataset.examples[:4], REQUEST, root=run, batch_size=4)
    assert len(result.records) == len(whole.records) - 1


def test_an_example_that_fails_counts_once_and_is_in_error_under_every_condition(tmp_path):
    dataset = photos(tmp_path / "data", 5)
    (tmp_path / "data" / "1.png").write_bytes(b"no picture")
    model = FakeModel(fails_on=frozenset({"q3"}))
    result = collect(model, dataset, tmp_path / "run", request=REQUEST)
    assert result.quarantined == 2
    assert sum(count for _, count in result.reasons) == 2
    store = RunStore.open(tmp_path / "run")
    failed = Counter(q.key.example_id for q in store.quarantined())
    assert failed == {"q1": 1 + len(CONDITIONS), "q3": 1 + len(CONDITIONS)}
    assert not {"q1", "q3"} & {r.example.id for r in store.records(features=())}


def test_a_batch_of_views_that_does_not_fit_is_halved(scenes):
    dataset, run = scenes

    class Small(Watched):
        def observe(self, examples, images, request, *, given=None):
            if len(examples) > 2:
                self.sizes.append(len(examples))
                raise OutOfMemoryError("it did not fit; a smaller batch is required. Halve it.")
            return super().observe(examples, images, request, given=given)

    result = observe_shard(Small(), dataset.examples[:4], REQUEST, root=run, batch_size=4)
    whole = observe_shard(FakeModel(), dataset.examples[:4], REQUEST, root=run, batch_size=4)
    assert [r.key for r in result.records] == [r.key for r in whole.records]
    assert result.log["halvings"] > 1
    assert not result.quarantined


def test_a_question_without_a_picture_has_no_condition_that_changes_one():
    example = Example("text", "What is two plus two?", references=("4",))
    found, refused = views_of(
        Record(example, greedy=Generation("4")), parse_conditions("jpeg:1, wording:1")
    )
    assert [v.condition.name for v in found] == ["wording:1"]
    assert [(row.key, row.reason) for row in refused] == [
        (Key("text", "jpeg:1"), "the question has no picture")
    ]
    assert found[0].answer is None


def test_large_pictures_are_scaled_down_before_anything_is_asked(tmp_path):
    dataset = photos(tmp_path / "data", 1, choices=False, size=(1500, 500))
    for conditions, longest in (((), 1500), (("translate:4",), 1024)):
        model = Watched()
        request = replace(REQUEST, conditions=conditions)
        observe_shard(model, dataset.examples, request, root=tmp_path, batch_size=1)
        assert {max(images[0].size) for _, images, *_ in model.asked} == {longest}
    assert model.asked[0][1][0].size == prepared(Image.new("RGB", (1500, 500))).size


def test_a_stopped_collect_goes_on_to_the_same_bytes(scenes, tmp_path):
    dataset, _ = scenes
    stores = {}
    for name, stops in (("whole", [9]), ("parts", [1, 1, 9])):
        own = load_dataset("scenes:test?n=24", store_image=image_writer(tmp_path / name))
        for most in stops:
            asked: list[int] = []

            def enough(most=most, asked=asked) -> bool:
                asked.append(1)
                return len(asked) > most

            collect(
                FakeModel(),
                own,
                tmp_path / name,
                request=REQUEST,
                shard_size=7,
                should_stop=enough,
            )
        stores[name] = shard_bytes(tmp_path / name)
    assert stores["whole"] == stores["parts"]
    assert len(dataset.examples) == 24


def test_other_conditions_do_not_resume(tmp_path):
    dataset = photos(tmp_path / "data", 3)
    collect(FakeModel(), dataset, tmp_path / "run", request=REQUEST)
    for change in ({"conditions": ("jpeg:3",)}, {"conditions": ()}, {"condition_samples": 2}):
        with pytest.raises(SettingsDifferError, match="condition"):
            collect(FakeModel(), dataset, tmp_path / "run", request=replace(REQUEST, **change))


def test_what_differs_between_long_lists_is_named_in_a_short_line(tmp_path):
    dataset = photos(tmp_path / "data", 1)
    names = tuple(c.name for c in parse_conditions("default"))
    collect(FakeModel(), dataset, tmp_path / "run", request=replace(REQUEST, conditions=names))
    with pytest.raises(SettingsDifferError) as error:
        collect(
            FakeModel(),
            dataset,
            tmp_path / "run",
            request=replace(REQUEST, conditions=(*names[:-1], "grayscale")),
        )
    said = str(error.value)
    assert 'conditions (those that differ) = ["unrelated:1"]' in said
    assert 'asked for with ["grayscale"]' in said
    one = replace(REQUEST, conditions=("jpeg:1",))
    with pytest.raises(SettingsDifferError, match=r"and 47 more and is now asked for with nothing"):
        collect(FakeModel(), dataset, tmp_path / "run", request=one)


def test_without_conditions_a_run_is_described_as_before(tmp_path):
    """A run begun before conditions existed can be gone on with."""
    dataset = photos(tmp_path / "data", 2)
    plain = replace(REQUEST, conditions=(), condition_samples=0)
    collect(FakeModel(), dataset, tmp_path / "run", request=plain)
    manifest = RunStore.open(tmp_path / "run").manifest
    assert not any("condition" in name for name in manifest.settings)
    assert not any("condition" in name for name in manifest.settings["request"])
    assert "longest_side" not in manifest.settings


def test_the_truth_of_every_record_is_the_decision_made_for_its_pair(scenes):
    dataset, run = scenes
    result = observe_shard(FakeModel(), dataset.examples, REQUEST, root=run, batch_size=8)
    clean = {r.example.id: r for r in result.records if r.condition == CLEAN}
    truths = Counter()
    for record in result.records:
        if record.condition not in CONDITIONS:
            assert record.truth == "same"
            continue
        own = decision(record, clean[record.example.id])
        assert record.truth == own.truth
        truths[record.truth] += 1
    assert truths["same"] > 0
    assert truths["unknown"] > 0


def moved(scenes) -> tuple[Example, str]:
    """A generated example whose right answer changes when the picture turns."""
    dataset, _ = scenes
    for example in dataset.examples:
        for condition in parse_conditions("rotate, crop, translate, blur, contrast, scale_pad"):
            if decide(condition, example).truth == "changed":
                return example, condition.name
    pytest.fail("no example changes its answer")


def test_a_changed_truth_is_no_view_and_is_graded_by_its_own_references(scenes):
    example, name = moved(scenes)
    own = decide(parse_condition(name), example).references
    assert own is not None
    assert own != example.references
    clean = Record(example, greedy=Generation(example.references[0]))
    other = Record(example, name, greedy=Generation(own[0]), truth="changed")
    same = Record(example, "jpeg:1", greedy=Generation("x"))
    (linked,) = link([clean, other, same], condition=CLEAN)
    assert linked.related.views == (same,)
    assert linked.related.left_out == (other,)
    (judged,) = link([clean, other, same], condition=name)
    assert judged.related.views == ()
    assert {c.condition for c in judged.related.left_out} == {CLEAN, "jpeg:1"}
    kept, without = with_own_truth([judged])
    assert kept[0].example.references == own
    assert kept[0].key == other.key
    assert not without


def test_an_unknown_truth_is_not_graded_and_is_counted():
    example = Example("a", "What is it?", references=("cat",))
    record = Record(example, "crop:16", greedy=Generation("cat"), truth="unknown")
    kept, without = with_own_truth([record, Record(example, greedy=Generation("cat"))])
    assert [r.condition for r in kept] == [CLEAN]
    assert without == {"the right answer under crop:16 is not known": 1}


def test_injected_answers_are_never_views():
    example = Example("a", "What is it?", choices=("cat", "dog"), references=("A",))
    clean = Record(example, greedy=Generation("A"))
    others = [
        Record(example, name, greedy=Generation("B"))
        for name in ("answer_text:1", "jpeg:1+answer_text:1", "answer_box:1", "blank")
    ]
    (linked,) = link([clean, *others], condition=CLEAN)
    assert [c.condition for c in linked.related.views] == ["answer_box:1"]


@pytest.fixture(scope="module")
def judged_run(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("judged") / "run"
    dataset = load_dataset("scenes:test?n=60", store_image=image_writer(run))
    request = replace(REQUEST, asks=(), conditions=("jpeg:1", "rotate:30", "crop:16", "noise:5"))
    collect(FakeModel(), dataset, run, request=request)
    return run


def test_an_evaluation_says_how_many_answers_are_no_views(judged_run):
    records = list(RunStore.open(judged_run).records(features=()))
    truths = Counter(r.truth for r in records)
    settings = Settings(
        estimators=("condition_agreement", "noise_visual_uncertainty", "sequence_probability"),
        seeds=1,
        resamples=100,
    )
    outcome = evaluate(judged_run, settings)
    (note,) = (n for n in outcome.evaluation.run.notes if "under perturbations" in n)
    assert f"{truths['changed']:,} the right answer is another" in note
    assert f"under {truths['unknown']:,} it is not known" in note
    found = {r.name: r for r in outcome.evaluation.estimators}
    assert found["noise_visual_uncertainty"].scored == 60
    views = [r for r in link(records, condition=CLEAN) if r.related.views]
    agreement = found["condition_agreement"]
    assert agreement.scored == len(views)
    lengths = [
        generation.n_tokens
        for record in views
        for view in record.related.views
        for generation in (view.answer, *view.samples)
    ]
    assert agreement.generations == math.ceil(len(lengths) / len(views))
    assert agreement.generated_tokens == pytest.approx(agreement.generations * np.mean(lengths))
    assert found["noise_visual_uncertainty"].generated_tokens == 0.0


def test_answers_under_a_condition_are_judged_by_its_own_truth(judged_run):
    store = RunStore.open(judged_run)
    known = [r for r in store.records(condition="crop:16", features=()) if r.truth != "unknown"]
    settings = Settings(
        estimators=("sequence_probability",), condition="crop:16", seeds=1, resamples=100
    )
    protocol = evaluate(judged_run, settings).evaluation.protocol
    assert protocol.graded == len(known)
    reasons = {s.reason: s.n for s in protocol.ungraded}
    assert reasons == {"the right answer under crop:16 is not known": 60 - len(known)}


def test_merged_runs_keep_refusals_and_truths(tmp_path):
    request = replace(REQUEST, asks=())
    for name, split in (("one", "test"), ("two", "shifted")):
        dataset = load_dataset(f"scenes:{split}?n=6", store_image=image_writer(tmp_path / name))
        collect(FakeModel(), dataset, tmp_path / name, request=request)
    parts = [RunStore.open(tmp_path / name) for name in ("one", "two")]
    merged = merge_runs([p.path for p in parts], tmp_path / "both")
    assert {(r.key, r.reason) for r in merged.refused()} == {
        (r.key, r.reason) for part in parts for r in part.refused()
    }
    truths = {r.key: r.truth for part in parts for r in part.records(features=())}
    assert {r.key: r.truth for r in merged.records(features=())} == truths


def test_a_bug_in_the_model_is_not_swallowed_under_a_condition(scenes):
    dataset, run = scenes

    class Broken(Watched):
        def observe(self, examples, images, request, *, given=None):
            if given is not None:
                raise ZeroDivisionError
            return super().observe(examples, images, request)

    with pytest.raises(ZeroDivisionError):
        observe_shard(Broken(), dataset.examples[:1], REQUEST, root=run, batch_size=1)
