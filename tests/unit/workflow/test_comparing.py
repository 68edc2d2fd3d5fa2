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
from sightline.workflow.auditing.comparing import compare_sizes, compare_tasks, comparison
from sightline.workflow.auditing.running import AuditSettings, audit_run
from sightline.workflow.collect import collect

SETTINGS = AuditSettings(resamples=200, spectra=0)
REQUEST = Request(
    max_new_tokens=4, layers=(1.0,), options=True, channels=True, conditions=("jpeg:3", "rotate:30")
)


def run(folder, name: str, question: str, first: int, n: int = 16):
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
    collect(FakeModel(), data, folder / name, request=REQUEST, batch_size=4, shard_size=8)
    return audit_run(folder / name, SETTINGS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return run(folder, "colours", "What colour is it?", 0), run(
        folder, "asked", "Is there a red circle?", 8
    )


def change(outcome) -> float:
    """Mean change of being right over the exported pairs that count."""
    pairs = [p for p in outcome.pairs if not p.excluded and p.right_after is not None]
    return float(np.mean([p.right_after - p.right_before for p in pairs]))


def test_two_tasks_differ_by_their_changes_of_accuracy(runs):
    first, second = runs
    finding = compare_tasks(first, second, SETTINGS)
    assert finding.estimate.value == pytest.approx(change(first) - change(second))
    assert finding.evidence["accuracy change, colours"].value == pytest.approx(change(first))
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
    assert len(shared) == 8


def test_other_models_and_the_same_run_are_refused(runs):
    first, second = runs
    with pytest.raises(UsageError, match="compares one run, colours"):
        compare_tasks(first, first, SETTINGS)
    stranger = replace(second, model={**second.model, "files_xxh3": "other"})
    with pytest.raises(UsageError, match="two runs of one model"):
        compare_tasks(first, stranger, SETTINGS)


def test_all_verdicts_together_read_back_as_they_were(runs):
    first, second = runs
    found = comparison([first, second], sizes=[2, 1], settings=SETTINGS)
    assert found.findings == (compare_sizes([first, second], [2, 1], SETTINGS),)
    found = comparison([first], against=second, settings=SETTINGS)
    assert found.runs == ("colours", "asked")
    assert found.findings == (compare_tasks(first, second, SETTINGS),)
    document = json.dumps(asdict(found), allow_nan=False)
    assert TypeAdapter(Comparison).validate_json(document) == found
    assert comparison([first], settings=SETTINGS).findings == ()
