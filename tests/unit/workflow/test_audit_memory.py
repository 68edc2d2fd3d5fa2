"""Collecting for an audit holds no more the longer it lasts: allocations counted, no timing."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
import torch

from sightline.core.protocols import Request
from sightline.data.examples import load_dataset
from sightline.models import load_model
from sightline.models.fake import FakeModel
from sightline.store.images import image_writer
from sightline.workflow.collect import collect

SHARD = 6
PICTURE = 48 * 48 * 3  # bytes of one, as the model reads it
REQUEST = Request(
    max_new_tokens=4,
    layers=(0.5, 1.0),
    options=True,
    blank=True,
    channels=True,
    conditions=("jpeg:3", "rotate:30"),
)


def held_by_tensors() -> int:
    """Bytes of all tensors that are alive, which Python's own counting does not see."""
    storages = {
        found.untyped_storage().data_ptr(): found.untyped_storage().nbytes()
        for found in gc.get_objects()
        if issubclass(type(found), torch.Tensor) and found.device.type == "cpu"
    }
    return sum(storages.values())


def growth(model, dataset, folder, run, leak=None) -> tuple[float, float]:
    """Bytes that each question leaves behind in Python and in tensors, once all is warm."""
    traced, tensors = [], []

    def count(progress) -> None:
        if leak is not None:
            leak()
        gc.collect()
        traced.append(tracemalloc.get_traced_memory()[0])
        tensors.append(held_by_tensors())

    tracemalloc.start()
    try:
        collect(
            model,
            dataset,
            run,
            image_root=folder,
            request=REQUEST,
            batch_size=SHARD,
            shard_size=SHARD,
            progress=count,
        )
    finally:
        tracemalloc.stop()
    warm = len(traced) // 3
    questions = (len(traced) - 1 - warm) * SHARD
    return tuple((own[-1] - own[warm]) / questions for own in (traced, tensors))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return load_dataset("scenes:test", limit=36, store_image=image_writer(folder)), folder


def test_memory_does_not_grow_with_the_number_of_pictures(scenes, tmp_path):
    """Less than half a picture, or a state of the model, stays of a question."""
    in_python, in_tensors = growth(load_model("embedded:vlm-small"), *scenes, tmp_path / "run")
    assert in_python < PICTURE / 2
    assert in_tensors < PICTURE / 2


def test_what_is_kept_of_every_question_is_seen(scenes, tmp_path):
    """The counting itself: a picture and a state a question, held in a list, are found."""
    kept = []

    def leak() -> None:
        kept.append(np.zeros((SHARD, PICTURE), dtype=np.uint8))
        kept.append(torch.zeros(SHARD, 4096))

    in_python, in_tensors = growth(FakeModel(), *scenes, tmp_path / "run", leak)
    assert in_python > PICTURE
    assert in_tensors >= 4096 * 4
