"""Frequency probes of a model whose tiles can be reached for pictures of some sizes only."""

import sys
from hashlib import sha256
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "differential" / "vlm"))

from tiny_models import llava_next, picture

from sightline.core.errors import UsageError
from sightline.core.protocols import Request
from sightline.core.types import Example, ImageRef
from sightline.store.run import Manifest, RunStore
from sightline.workflow.auditing.probe_rows import PROBES, ProbeSettings, load_probes
from sightline.workflow.auditing.probing import probe_run

KNOWN, REFUSED = (61, 43), (43, 61)
PLAN = ProbeSettings(questions=3, trials=1, steps=1, sizes=(8 / 255,))


@pytest.fixture(scope="module")
def model():
    """Mirrors what it cuts from pictures of one size, which is no known way of cutting."""
    model = llava_next().observer()
    inputs = model.parts.inputs
    tensors = inputs.tensors

    def mirrored(prompts, images):
        found = tensors(prompts, images)
        if any(image.size == REFUSED for own in images for image in own):
            found["pixel_values"] = found["pixel_values"].flip(-1)
        return found

    inputs.tensors = mirrored
    return model


@pytest.fixture
def collected(model, tmp_path):
    """Collects one question about a picture of each size."""

    def collect(*sizes):
        examples, images = [], []
        for i, size in enumerate(sizes):
            image = picture(i, size)
            image.save(tmp_path / f"{i}.png")
            digest = sha256((tmp_path / f"{i}.png").read_bytes()).hexdigest()
            ref = ImageRef(f"{i}.png", digest)
            examples.append(Example(str(i), "What?", (ref,), choices=("red", "blue")))
            images.append((image,))
        manifest = Manifest(
            run_id="tiles",
            created="2026-01-01T00:00:00+00:00",
            kind="collected",
            model=dict(model.fingerprint()),
            dataset={"name": "sizes"},
            settings={"request": {"max_new_tokens": 2}},
            versions={},
            shard_size=len(sizes),
            image_root=str(tmp_path),
        )
        store = RunStore.create(tmp_path / "run", manifest, examples)
        with store.writer() as writer:
            records = model.observe(examples, images, Request(options=True, max_new_tokens=2))
            writer.commit(0, list(records))
        return store.path

    return collect


def test_a_later_picture_of_a_refused_size_is_left_out(collected, model):
    run = collected(KNOWN, REFUSED, KNOWN)
    assert probe_run(run, model, PLAN)
    rows = load_probes(run).questions
    assert [row.reason is None for row in rows] == [True, False, True]
    assert "no known way from the picture" in rows[1].reason


def test_a_stopped_probe_goes_on_at_a_refused_size(collected, model):
    run = collected(KNOWN, REFUSED)
    assert not probe_run(run, model, PLAN, should_stop=(run / PROBES).exists)
    assert len(load_probes(run).questions) == 1
    assert probe_run(run, model, PLAN)
    assert [row.reason is None for row in load_probes(run).questions] == [True, False]


def test_a_model_that_refuses_the_first_picture_cannot_be_probed(collected, model):
    run = collected(REFUSED, KNOWN)
    with pytest.raises(UsageError, match="no known way from the picture leads to"):
        probe_run(run, model, PLAN)
    assert load_probes(run) is None
