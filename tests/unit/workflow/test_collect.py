"""Collecting with a model that has no weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.core.condition_names import BLANK, CLEAN
from sightline.core.errors import ModelError, OutOfMemoryError, StoreError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.data.examples import load_dataset
from sightline.data.prompts import PromptStyle
from sightline.models.fake import FakeModel
from sightline.store.run import RunStore
from sightline.workflow.collect import collect
from sightline.workflow.observing import observe_shard
from sightline.workflow.requests import answerable, no_letters, request_for

REQUEST = Request(max_new_tokens=4, n_samples=2, layers=(0.5, 1.0), options=True, blank=True)


@pytest.fixture
def dataset(tmp_path):
    return _dataset(tmp_path / "data", 11)


def _dataset(folder: Path, n: int):
    folder.mkdir()
    rows = ["id,image,question,answers"]
    for i in range(n):
        pixels = np.full((12, 16, 3), i * 20, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(f"q{i},{i}.png,What colour is number {i}?,red")
    (folder / "data.csv").write_text("\n".join(rows))
    return load_dataset(folder / "data.csv")


def _rows(path: Path) -> list[tuple[str, str, str]]:
    return [(r.example.id, r.condition, r.answer.text) for r in RunStore.open(path).records()]


def test_every_example_is_observed_clean_and_blank(dataset, tmp_path):
    result = collect(FakeModel(), dataset, tmp_path / "run", request=REQUEST, shard_size=4)
    assert (result.total, result.quarantined, result.interrupted) == (11, 0, False)
    records = list(RunStore.open(tmp_path / "run").records())
    assert [r.condition for r in records] == [CLEAN, BLANK] * 11
    assert [r.example.id for r in records[::2]] == [f"q{i}" for i in range(11)]
    assert all(len(r.samples) == 2 and r.has(Feature.HIDDEN) for r in records[::2])


def test_states_of_samples_are_stored_on_request(dataset, tmp_path):
    request = replace(REQUEST, sample_hidden=True)
    collect(FakeModel(), dataset, tmp_path / "run", request=request, shard_size=4)
    store = RunStore.open(tmp_path / "run")
    for record in store.records(condition=CLEAN, layers=(4,)):
        states = record.array(Feature.SAMPLE_HIDDEN)
        assert states.shape == (1, 2, 8)
        same = record.samples[0].text == record.samples[1].text
        assert np.array_equal(states[:, 0], states[:, 1]) == same
    assert not any(r.has(Feature.SAMPLE_HIDDEN) for r in store.records(condition=BLANK))
    assert store.verify() == []


def test_a_stopped_collect_goes_on_to_the_same_bytes(dataset, tmp_path):
    collect(FakeModel(), dataset, tmp_path / "whole", request=REQUEST, shard_size=2)
    asked = []

    def stop_after_two() -> bool:
        asked.append(1)
        return len(asked) > 2

    stopped = collect(
        FakeModel(),
        dataset,
        tmp_path / "stopped",
        request=REQUEST,
        shard_size=2,
        should_stop=stop_after_two,
    )
    assert stopped.interrupted
    assert RunStore.open(tmp_path / "stopped").committed() == {0, 1}
    collect(FakeModel(), dataset, tmp_path / "stopped", request=REQUEST, shard_size=2)
    assert _shard_bytes(tmp_path / "stopped") == _shard_bytes(tmp_path / "whole")


def _shard_bytes(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "shards").iterdir())}


def test_other_settings_do_not_resume_and_name_the_field(dataset, tmp_path):
    collect(FakeModel(), dataset, tmp_path / "run", request=REQUEST)
    with pytest.raises(StoreError, match=r"temperature = 1\.0 .* asked for with 0\.5.*--overwrite"):
        collect(FakeModel(), dataset, tmp_path / "run", request=replace(REQUEST, temperature=0.5))


def test_overwrite_starts_again(dataset, tmp_path):
    collect(FakeModel(), dataset, tmp_path / "run", request=REQUEST)
    asked = replace(REQUEST, n_samples=0)
    collect(FakeModel(), dataset, tmp_path / "run", request=asked, overwrite=True)
    assert all(not r.samples for r in RunStore.open(tmp_path / "run").records())


def test_overwrite_never_removes_what_is_not_a_run(dataset, tmp_path):
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match=r"thesis\.txt"):
        collect(FakeModel(), dataset, folder, request=REQUEST, overwrite=True)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_one_bad_example_is_quarantined_alone(dataset, tmp_path):
    model = FakeModel(fails_on=frozenset({"q5"}))
    result = collect(model, dataset, tmp_path / "run", request=REQUEST, batch_size=8)
    store = RunStore.open(tmp_path / "run")
    assert result.quarantined == 1
    assert [q.key.example_id for q in store.quarantined()] == ["q5"]
    assert "set to fail" in result.reasons[0][0]
    assert {r.example.id for r in store.records()} == {f"q{i}" for i in range(11)} - {"q5"}


def test_an_image_that_changed_is_quarantined(tmp_path):
    dataset = _dataset(tmp_path / "data", 3)
    (tmp_path / "data" / "1.png").write_bytes((tmp_path / "data" / "2.png").read_bytes())
    result = collect(FakeModel(), dataset, tmp_path / "run", request=REQUEST)
    assert result.quarantined == 1
    assert "has changed since the dataset was read" in result.reasons[0][0]


class SmallMemory:
    """A model that only takes batches up to a size, and remembers those it was given."""

    def __init__(self, most: int) -> None:
        self._model = FakeModel()
        self._most = most
        self.sizes: list[int] = []

    def fingerprint(self):
        return self._model.fingerprint()

    def observe(self, examples, images, request):
        self.sizes.append(len(examples))
        if len(examples) > self._most:
            raise OutOfMemoryError("the batch did not fit; a smaller one is required. Halve it.")
        return self._model.observe(examples, images, request)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(dataset, tmp_path):
    model = SmallMemory(most=2)
    result = observe_shard(model, dataset.examples[:8], REQUEST, root=tmp_path, batch_size=8)
    assert model.sizes == [8, 4, 2, 2, 4, 2, 2]
    assert result.log["halvings"] == 3
    assert not result.quarantined
    alone = observe_shard(FakeModel(), dataset.examples[:8], REQUEST, root=tmp_path, batch_size=1)
    assert [r.key for r in result.records] == [r.key for r in alone.records]
    assert [r.answer.text for r in result.records] == [r.answer.text for r in alone.records]


def test_an_example_that_never_fits_is_quarantined(dataset, tmp_path):
    result = observe_shard(
        SmallMemory(most=0), dataset.examples[:2], REQUEST, root=tmp_path, batch_size=2
    )
    assert len(result.quarantined) == 2
    assert not result.records


def test_a_bug_in_the_model_is_not_swallowed(dataset, tmp_path):
    class Broken(SmallMemory):
        def observe(self, examples, images, request):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(Broken(1), dataset, tmp_path / "run", request=REQUEST)


def test_sizes_must_be_positive(dataset, tmp_path):
    with pytest.raises(UsageError, match="both must be at least 1"):
        collect(FakeModel(), dataset, tmp_path / "run", batch_size=0)


def test_progress_counts_what_is_committed(dataset, tmp_path):
    seen = []
    collect(
        FakeModel(), dataset, tmp_path / "run", request=REQUEST, shard_size=4, progress=seen.append
    )
    assert [p.done for p in seen] == [0, 4, 8, 11]
    assert seen[0].remaining_s is None
    assert seen[-1].remaining_s == 0


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("sequence_probability", Request(n_samples=0, top_k_logprobs=0)),
        ("sample_agreement", Request(n_samples=5, top_k_logprobs=0)),
        ("first_token_margin", Request(n_samples=0, top_k_logprobs=20)),
        ("visual_information", Request(n_samples=0, top_k_logprobs=0, blank=True)),
        ("choice_margin", Request(n_samples=0, top_k_logprobs=0, options=True)),
    ],
)
def test_only_what_the_estimators_need_is_asked_for(estimator, expected):
    everything = Request(n_samples=5, layers=(0.5,), options=True, blank=True)
    assert request_for([estimator], everything) == expected


def test_why_there_are_no_letters_is_said_where_they_were_asked_for():
    by_text = FakeModel(PromptStyle(choice_instruction="Answer with the option's text."))
    said = no_letters(["choice_margin", "sequence_probability"], by_text)
    assert said is not None
    assert said.startswith("No letter probabilities for choice_margin: the prompt asks for no let")
    assert len(said.splitlines()) == 1
    assert no_letters(["choice_margin:scores=options"], by_text) is None
    assert no_letters(["sequence_probability"], by_text) is None
    assert no_letters(["choice_margin"], FakeModel()) is None


ASKS = ("p_true", "confidence_number.2")


def test_follow_ups_are_stored_beside_the_answer_and_resumed_to_the_same_bytes(dataset, tmp_path):
    request = replace(REQUEST, asks=ASKS)
    collect(FakeModel(), dataset, tmp_path / "whole", request=request, shard_size=4)
    store = RunStore.open(tmp_path / "whole")
    assert store.manifest.conditions == (
        CLEAN,
        BLANK,
        "asked:p_true",
        "asked:confidence_number.2",
    )
    records = list(store.records())
    assert [r.condition for r in records[:4]] == [
        CLEAN,
        "asked:confidence_number.2",
        "asked:p_true",
        BLANK,
    ]
    assert len(records) == 4 * 11
    assert records[2].array(Feature.REPLY_LOGPROBS).shape == (2,)
    for _ in range(2):
        collect(
            FakeModel(),
            dataset,
            tmp_path / "parts",
            request=request,
            shard_size=4,
            should_stop=_after(1),
        )
    collect(FakeModel(), dataset, tmp_path / "parts", request=request, shard_size=4)
    assert _shard_bytes(tmp_path / "parts") == _shard_bytes(tmp_path / "whole")
    with pytest.raises(StoreError, match="asks"):
        collect(FakeModel(), dataset, tmp_path / "parts", request=REQUEST, shard_size=4)


def test_follow_ups_do_not_depend_on_the_batch(dataset, tmp_path):
    request = replace(REQUEST, asks=ASKS)
    one, many = (
        observe_shard(FakeModel(), dataset.examples, request, root=tmp_path, batch_size=size)
        for size in (1, 8)
    )
    shown = [(r.key, r.answer.text, len(r.features)) for r in one.records]
    assert shown == [(r.key, r.answer.text, len(r.features)) for r in many.records]


def test_what_the_estimators_need_is_asked_on_top_of_what_was_named():
    asked = request_for(
        ["p_true", "verbalised_confidence", "p_true:read=stated"], Request(asks=("p_true.2",))
    ).asks
    assert asked == ("p_true.2", "p_true", "confidence_number")
    assert request_for(["sequence_probability"], Request(asks=("p_true.2",))).asks == ("p_true.2",)


def test_questions_the_model_cannot_read_are_left_out_and_named():
    some = FakeModel(PromptStyle(asks=("p_true",)))
    request, said = answerable(Request(asks=("self_check", "p_true", "p_true.2")), some)
    assert request.asks == ("p_true",)
    assert said == (
        "Not asked: self_check, p_true.2. The model was trained to read p_true of the follow-up "
        "questions only."
    )
    assert answerable(Request(asks=ASKS), FakeModel()) == (Request(asks=ASKS), None)
    with pytest.raises(UsageError, match="'p_tru' does not exist"):
        answerable(Request(asks=("p_tru",)), FakeModel())


def test_slow_decoding_is_announced(dataset, tmp_path):
    class Slow(FakeModel):
        def fingerprint(self):
            return {**super().fingerprint(), "decoding": "everything read again for every token"}

    said = []
    collect(Slow(), dataset, tmp_path / "slow", request=REQUEST, announce=said.append)
    assert "everything read again for every token. That is slower, with the same" in said[0]
    said.clear()
    collect(FakeModel(), dataset, tmp_path / "fast", request=REQUEST, announce=said.append)
    assert not said


def test_a_short_collect_is_not_forecast_to_take_a_minute(dataset, tmp_path):
    said = []
    collect(
        FakeModel(),
        dataset,
        tmp_path / "run",
        request=REQUEST,
        batch_size=1,
        shard_size=1,
        announce=said.append,
    )
    assert len(dataset.examples) > 4
    assert re.search(r"examples: about \d s and less than 1 MB on disk", said[0])


def test_what_is_asked_for_is_enough(dataset, tmp_path):
    from sightline.estimators import parse_estimator

    for name in ("sequence_probability", "sample_agreement", "first_token_margin"):
        request = request_for([name], Request(n_samples=3, layers=(0.5,)))
        shard = observe_shard(
            FakeModel(), dataset.examples[:2], request, root=tmp_path, batch_size=2
        )
        assert not shard.records[0].missing(parse_estimator(name).needs)


def test_model_errors_are_the_only_ones_that_quarantine():
    assert issubclass(OutOfMemoryError, ModelError)


def test_a_first_try_that_kept_nothing_does_not_block_the_corrected_one(dataset, tmp_path):
    class Refusing(FakeModel):
        def observe(self, examples, images, request):
            raise UsageError("layer 99 is outside the model")

    wrong = replace(REQUEST, layers=(99,))
    with pytest.raises(UsageError, match="layer 99"):
        collect(Refusing(), dataset, tmp_path / "run", request=wrong)
    result = collect(FakeModel(), dataset, tmp_path / "run", request=REQUEST)
    assert (result.total, result.quarantined) == (11, 0)


def test_answers_that_are_there_are_never_replaced_by_other_settings(dataset, tmp_path):
    collect(
        FakeModel(), dataset, tmp_path / "run", request=REQUEST, shard_size=4, should_stop=_after(1)
    )
    before = _rows(tmp_path / "run")
    assert before
    with pytest.raises(StoreError, match="was made with settings"):
        collect(
            FakeModel(),
            dataset,
            tmp_path / "run",
            request=replace(REQUEST, n_samples=3),
            shard_size=4,
        )
    assert _rows(tmp_path / "run") == before


def test_moved_images_are_named(dataset, tmp_path):
    collect(
        FakeModel(), dataset, tmp_path / "run", request=REQUEST, shard_size=4, should_stop=_after(1)
    )
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = load_dataset(tmp_path / "elsewhere" / "data.csv")
    with pytest.raises(StoreError, match=r"data/0\.png, which is now .*elsewhere/0\.png"):
        collect(FakeModel(), moved, tmp_path / "run", request=REQUEST, shard_size=4)


def _after(shards):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > shards

    return stop
