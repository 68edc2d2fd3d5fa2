"""A model chooses among the classifier's first classes; what changes is counted and evaluated."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sightline.api import evaluate
from sightline.cli import cli
from sightline.core.column import ColumnKind
from sightline.core.errors import DataError, ModelError, UsageError
from sightline.core.features import Feature
from sightline.core.types import Generation, Record
from sightline.data.prompt_forms import PROMPT_FORMS, filled
from sightline.data.prompts import PromptStyle, user_text
from sightline.store.run import RunStore
from sightline.workflow.classifying.reranking import chosen_class, paired_change, rerank
from sightline.workflow.evaluate import Settings

from .conftest import COLOURS, colour_run, write_pictures


class CornerModel:
    """Answers with the colour of the corner, whatever it is offered; now and then with none."""

    def __init__(self, lost=0):
        self.lost, self.shown = lost, set()

    def fingerprint(self):
        return {"name": "corners"}

    def observe(self, examples, images, request, *, given=None):
        out = []
        for example, pictures in zip(examples, images, strict=True):
            self.shown.add(len(pictures))
            corner = np.asarray(pictures[0], dtype=float)[:2, :2].mean(axis=(0, 1)) / 255
            distance = {n: np.abs(corner - c).sum() for n, c in COLOURS.items()}
            said = min(distance, key=distance.get)
            if self.lost and example.id.endswith(f"{self.lost:03d}.png"):
                said = "no idea"
            logprobs = np.array([-distance.get(said, 3.0)])
            out.append(Record(example, greedy=Generation(f"It is {said}.", logprobs=logprobs)))
        return out


@pytest.fixture(scope="module")
def reranked(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("reranked") / "run"
    return rerank(run, CornerModel(), path, top=3), path


def test_the_prompt_is_the_form_that_models_are_trained_on(reranked):
    example = RunStore.open(reranked[1]).examples()[0]
    lines = example.question.split("\n")
    assert lines[0] == "What does the picture show?"
    shares = [int(part.split()[-1].rstrip("%.")) for part in lines[1].split(",")]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) in (99, 100, 101)
    form = filled(
        PROMPT_FORMS["rerank"],
        question=lines[0],
        candidates=lines[1].removeprefix("A classifier suggests: ").rstrip("."),
    )
    assert user_text(example, PromptStyle()) == form


def test_what_changed_is_counted(run, reranked):
    result, path = reranked
    store = RunStore.open(path)
    first = list(RunStore.open(run).records())
    before = np.mean([r.answer.text == r.example.references[0] for r in first])
    named = [chosen_class(r.answer.text, tuple(COLOURS)) for r in store.records()]
    right = [r.example.references[0] for r in store.records()]
    after = np.mean([a == b for a, b in zip(named, right, strict=True)])
    assert result.before.value == pytest.approx(before)
    assert result.after.value == pytest.approx(after)
    assert result.change.value == pytest.approx(after - before)
    assert result.change.low < result.change.value < result.change.high
    assert result.changed > 0
    assert result.unnamed == 0
    column = store.column(ColumnKind.CORRECT, "recorded")
    assert column.values.mean() == pytest.approx(after)


def test_the_choice_is_evaluated_like_any_answer(reranked):
    _, path = reranked
    names = ("sequence_probability", "recorded_confidence")
    found = evaluate(path, Settings(estimators=names, resamples=100, seeds=2))
    assert {e.name for e in found.estimators} == set(names)
    assert found.accuracy.value == pytest.approx(reranked[0].after.value)
    assert any("which was right on" in note for note in found.run.notes)


def test_the_classifiers_probability_stands_beside_the_answer(reranked):
    for record in RunStore.open(reranked[1]).records():
        assert 1 / 3 <= float(record.array(Feature.RECORDED_CONFIDENCE)) <= 1


def test_replies_that_name_no_class_keep_the_classifiers(run, tmp_path):
    result = rerank(run, CornerModel(lost=7), tmp_path / "r")
    assert result.unnamed == 3
    assert result.after.n == 180


def test_example_pictures_come_behind_the_picture(run, tmp_path):
    model = CornerModel()
    rerank(run, model, tmp_path / "r", top=2, shown=True, limit=5)
    assert model.shown == {3}
    example = RunStore.open(tmp_path / "r").examples()[0]
    assert "The others show: " in example.question
    assert RunStore.open(tmp_path / "r").manifest.partial == "--limit 5: the first 5"


def test_example_pictures_need_support(tmp_path, tested):
    colour_run(tmp_path / "plain", tested)
    with pytest.raises(UsageError, match="has no support pictures to show"):
        rerank(tmp_path / "plain", CornerModel(), tmp_path / "r", shown=True)


CUT = b"\x89PNG\r\n\x1a\nnothing"


def test_only_readable_pictures_are_shown(tmp_path, tested):
    pool = write_pictures(tmp_path / "pool", dict.fromkeys(COLOURS, 4), seed=5)
    for name in ("000", "001"):
        (pool / "red" / f"{name}.png").write_bytes(CUT)
    colour_run(tmp_path / "clip", tested, pool)
    result = rerank(tmp_path / "clip", CornerModel(), tmp_path / "r", shown=True, limit=30)
    assert result.collected.quarantined == 0
    assert result.after.n == 30
    shown = {i.path for e in RunStore.open(tmp_path / "r").examples() for i in e.images[1:]}
    assert {Path(p).parent.name: Path(p).name for p in shown}["red"] in ("002.png", "003.png")


def test_a_class_without_a_readable_picture_to_show_is_named(tmp_path, tested):
    pool = write_pictures(tmp_path / "pool", dict.fromkeys(COLOURS, 2), seed=5)
    for file in (pool / "red").iterdir():
        file.write_bytes(CUT)
    colour_run(tmp_path / "clip", tested, pool)
    with pytest.raises(DataError, match=r"1 of 3 classes have no readable support .* 'red'"):
        rerank(tmp_path / "clip", CornerModel(), tmp_path / "r", shown=True)


def test_what_is_left_out_is_said_with_its_reason(tmp_path, monkeypatch, run):
    class Refusing(CornerModel):
        def observe(self, examples, images, request, *, given=None):
            if any(e.id.endswith("007.png") for e in examples):
                raise ModelError("The model gave nothing.")
            return super().observe(examples, images, request, given=given)

    monkeypatch.setattr("sightline.models.load_model", lambda *a, **k: Refusing())
    asked = [str(run), "-m", "any", "-o", str(tmp_path / "r"), "--display", "none"]
    done = CliRunner().invoke(cli, ["rerank", *asked], standalone_mode=False)
    assert done.return_value == 4
    assert "3 × " in done.stderr
    assert "The model gave nothing." in done.stderr
    assert "3 of 180 pictures left out of both accuracies" in done.stderr


@pytest.mark.parametrize("place", ["", "support", "other"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_the_classifiers_own_run_is_no_output(tmp_path, tested, place, overwrite):
    colour_run(tmp_path / "clip", tested)
    before = sorted((tmp_path / "clip").rglob("*"))
    (tmp_path / "link").symlink_to(tmp_path / "clip")
    with pytest.raises(UsageError, match="is the classifier's run or lies in it"):
        rerank(tmp_path / "clip", CornerModel(), tmp_path / "link" / place, overwrite=overwrite)
    assert sorted((tmp_path / "clip").rglob("*")) == before


class TestPairedChange:
    def test_where_nothing_changed_there_is_no_interval(self):
        same = np.array([1.0, 0.0, 1.0])
        found = paired_change(same, same)
        assert (found.value, found.low, found.high, found.n) == (0.0, None, None, 3)
        assert paired_change(same[:1], 1 - same[:1]).low is None
        assert paired_change(same[:0], same[:0]).value is None

    def test_many_pictures_agree_with_the_normal_interval(self):
        rng = np.random.default_rng(0)
        before = (rng.random(2000) < 0.7) * 1.0
        after = np.where(rng.random(2000) < 0.2, (rng.random(2000) < 0.8) * 1.0, before)
        difference = after - before
        around = 1.96 * difference.std(ddof=1) / 2000**0.5
        found = paired_change(before, after)
        assert found.value == pytest.approx(difference.mean())
        assert found.low == pytest.approx(found.value - around, abs=0.15 * around)
        assert found.high == pytest.approx(found.value + around, abs=0.15 * around)

    def test_copies_of_a_picture_add_no_certainty(self):
        rng = np.random.default_rng(1)
        before, after = ((rng.random(100) < p) * 1.0 for p in (0.5, 0.6))
        once = paired_change(before, after)
        groups = np.repeat(np.arange(100), 5)
        copied = paired_change(before[groups], after[groups], groups)
        assert (copied.value, copied.low, copied.high) == (once.value, once.low, once.high)
        assert copied.n == 500


@pytest.mark.parametrize("top", [1, 4])
def test_as_many_classes_as_there_are(run, tmp_path, top):
    with pytest.raises(UsageError, match=f"--top-k {top}; 2 to 3"):
        rerank(run, CornerModel(), tmp_path / "r", top=top)


@pytest.mark.parametrize(
    ("reply", "candidates", "named"),
    [
        ("Dog.", ["cat", "dog"], "dog"),
        ("a dog", ["cat", "dog"], "dog"),
        ("I think it is a sea lion", ["sea lion", "lion"], "sea lion"),
        ("lion", ["sea lion", "lion"], "lion"),
        ("3", ["digit 3", "digit 8"], "digit 3"),
        ("big", ["big cat", "big dog"], None),
        ("neither", ["cat", "dog"], None),
        ("", ["cat", "dog"], None),
        ("Cat", ["cat", "Cat"], "Cat"),
        ("cat.", ["cat", "Cat"], "cat"),
        ("CAT", ["cat", "Cat"], None),
        ("a cat", ["cat", "Cat"], None),
        ("C++", ["C", "C++"], "C++"),
        ("C", ["C++", "C"], "C"),
        ("It is C", ["C++", "C"], None),
    ],
)
def test_which_class_a_reply_names(reply, candidates, named):
    assert chosen_class(reply, candidates) == named
