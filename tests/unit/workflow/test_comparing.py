"""Verdicts on several audits: figures follow from the exported rows of both."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from sightline.core.audit_results import Comparison
from sightline.core.errors import UsageError
from sightline.core.protocols import Request
from sightline.core.types import Example, ImageRef
from sightline.data.examples import Dataset
from sightline.data.images import ImageLimits, hash_image_file
from sightline.models.fake import FakeModel
from sightline.workflow.auditing.comparing import (
    compare_sizes,
    compare_tasks,
    comparison,
    unlike_pairs,
)
from sightline.workflow.auditing.running import AuditSettings, audit_run
from sightline.workflow.collect import collect

SETTINGS = AuditSettings(resamples=200, spectra=0)
REQUEST = Request(
    max_new_tokens=4, layers=(1.0,), options=True, channels=True, conditions=("jpeg:3", "rotate:30")
)


def run(folder, name: str, question: str, first: int, n: int = 24, request=REQUEST):
    """Pictures are drawn by their number: runs that share numbers share pictures."""
    examples = []
    for i in range(first, first + n):
        path = folder / f"{i}.png"
        if not path.exists():
            pixels = np.random.default_rng(i).integers(0, 255, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        image = ImageRef(str(path), hash_image_file(path, ImageLimits()))
        choices = ("red", "blue", "green") if "colour" in question else None
        references = ("A",) if choices else ("yes",)
        examples.append(Example(f"e{i}", question, (image,), choices, references))
    data = Dataset(name, tuple(examples), (), "0" * 64)
    collect(FakeModel(), data, folder / name, request=request, batch_size=4, shard_size=8)
    return audit_run(folder / name, SETTINGS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return run(folder, "colours", "What colour is it?", 0), run(
        folder, "asked", "Is there a red circle?", 8
    )


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """The first questions of `runs`, one of their conditions and another, of a larger model."""
    folder = tmp_path_factory.mktemp("turned")
    request = replace(REQUEST, conditions=("jpeg:3", "blur:1"))
    found = run(folder, "turned", "What colour is it?", 0, n=16, request=request)
    return replace(found, model={**found.model, "files_xxh3": "larger"})


def change(outcome, conditions) -> float:
    """Mean over conditions of the change of being right over the exported pairs that count."""
    found = []
    for condition in conditions:
        pairs = [p for p in outcome.pairs if p.condition == condition and not p.excluded]
        found.append(np.mean([p.right_after - p.right_before for p in pairs]))
    return float(np.mean(found))


def counted(outcome) -> set[str]:
    return {pair.condition for pair in outcome.pairs if not pair.excluded}


def test_two_tasks_differ_by_their_changes_of_accuracy(runs):
    first, second = runs
    finding = compare_tasks(first, second, SETTINGS)
    common = counted(first) & counted(second)
    assert common
    expected = change(first, common) - change(second, common)
    assert finding.estimate.value == pytest.approx(expected)
    own = finding.evidence["accuracy change, colours"]
    assert own.value == pytest.approx(change(first, common))
    assert own.n == 24 * len(common)
    assert "colours" in finding.finding
    assert "asked" in finding.finding
    other = compare_tasks(second, first, SETTINGS)
    assert other.estimate.value == pytest.approx(-finding.estimate.value)


def test_runs_of_one_dataset_go_by_their_own_names(runs):
    first, second = runs
    renamed = replace(second, audit=replace(second.audit, dataset=first.audit.dataset))
    assert "than on asked" in compare_tasks(first, renamed, SETTINGS).finding


def test_a_picture_of_both_runs_is_resampled_once(runs):
    """Pairs of one run held against themselves under another name differ by nothing at all."""
    first, _ = runs
    twin = replace(first, audit=replace(first.audit, run="twin", path="elsewhere"))
    finding = compare_tasks(first, twin, SETTINGS)
    assert finding.estimate.value == 0
    assert finding.estimate.low in {0, None}
    shared = set(runs[0].image_keys) & set(runs[1].image_keys)
    assert len(shared) == 16


def test_other_models_and_the_same_run_are_refused(runs):
    first, second = runs
    with pytest.raises(UsageError, match="compares one run, colours"):
        compare_tasks(first, first, SETTINGS)
    stranger = replace(second, model={**second.model, "files_xxh3": "other"})
    with pytest.raises(UsageError, match="two runs of one model"):
        compare_tasks(first, stranger, SETTINGS)


def rate_of(outcome, condition: str, n: int) -> float:
    own = [
        p
        for p in outcome.pairs
        if p.condition == condition and not p.excluded and int(p.example_id[1:]) < n
    ]
    assert len(own) == n
    return float(np.mean([p.flipped for p in own]))


def test_sizes_are_compared_on_the_same_questions_under_the_same_conditions(runs, turned):
    first, _ = runs
    finding = compare_sizes([first, turned], [1, 2], SETTINGS)
    expected = rate_of(turned, "jpeg:3", 16) - rate_of(first, "jpeg:3", 16)
    assert finding.estimate.value == pytest.approx(expected)
    assert finding.estimate.n == 32
    assert "on 16 pairs under 1 condition that count in every run" in finding.rule
    beside = sum(not p.excluded for p in first.pairs) - 16
    assert f"{beside} pairs of colours" in finding.rule
    assert "16 pairs of turned, with all of 1 condition" in finding.rule


def test_one_id_with_other_words_is_another_question(runs, tmp_path):
    first, _ = runs
    other = run(tmp_path, "reworded", "Which colour is it?", 0)
    other = replace(other, model={**other.model, "files_xxh3": "other"})
    assert {p.example_id for p in other.pairs} == {p.example_id for p in first.pairs}
    with pytest.raises(UsageError, match="No pair counts in each of colours, reworded"):
        compare_sizes([first, other], [1, 2], SETTINGS)


def test_one_model_has_one_size(runs):
    first, second = runs
    for other in (first, second):
        with pytest.raises(UsageError, match="Two sizes for one model"):
            compare_sizes([first, other], [1, 2], SETTINGS)


def test_unlike_pairs_are_said_and_like_ones_are_not(runs, turned):
    first, _ = runs
    assert unlike_pairs([first]) is None
    assert unlike_pairs([first, replace(first, model={})]) is None
    said = unlike_pairs([first, turned])
    n = sum(not p.excluded for p in first.pairs)
    assert "16 count in every run" in said
    assert f"{n - 16} of {n} in colours, 16 of 32 in turned" in said


def test_all_verdicts_together_read_back_as_they_were(runs, turned):
    first, second = runs
    found = comparison([first, turned], sizes=[2, 1], settings=SETTINGS)
    assert found.findings == (compare_sizes([first, turned], [2, 1], SETTINGS),)
    assert found.unlike == unlike_pairs([first, turned])
    found = comparison([first], against=second, settings=SETTINGS)
    assert found.runs == ("colours", "asked")
    assert found.findings == (compare_tasks(first, second, SETTINGS),)
    document = json.dumps(asdict(found), allow_nan=False)
    assert TypeAdapter(Comparison).validate_json(document) == found
    assert comparison([first], settings=SETTINGS).findings == ()
