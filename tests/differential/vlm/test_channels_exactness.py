"""The audit's channels equal the model asked the plain way, one prompt and answer at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_transformers_exactness import (
    EXAMPLES,
    IMAGES,
    LAYERS,
    REQUEST,
    chosen,
    continued,
    image_id,
    plain_inputs,
)
from tiny_models import Tiny

from sightline.audit.structure import square_grid, token_energy
from sightline.core.condition_names import CLEAN
from sightline.core.features import CHANNELS, STATE_CHANNELS, Feature
from sightline.core.types import Record
from sightline.models.channels import POOLED_TOKENS
from sightline.models.vision import VisionTap, no_grid_reason

TOLERANCE = 4e-3  # states are kept in half precision
ASKED = replace(REQUEST, n_samples=0, sample_hidden=False, blank=False, channels=True)
GIVEN = [[50, 51, 52, 4], None, [60, 4], [70, 71, 4]]


@pytest.fixture(scope="module")
def records(tiny: Tiny) -> list[Record]:
    return tiny.observer().observe(EXAMPLES, IMAGES, ASKED, given=GIVEN)


def states(tiny: Tiny, inputs: dict[str, Any], answer: list[int]) -> torch.Tensor:
    """Hidden states (l, T, d) of one pass over prompt and answer, without a cache."""
    with torch.inference_mode():
        outputs = tiny.model(
            **continued(inputs, answer), use_cache=False, output_hidden_states=True
        )
    found = outputs.language_model_outputs if tiny.name == "instructblip" else outputs
    return torch.stack([found.hidden_states[layer][0] for layer in LAYERS])


def expected(tiny: Tiny, inputs: dict[str, Any], answer: list[int]) -> tuple[Any, Any]:
    found = states(tiny, inputs, answer)
    counted = found[:, found.shape[1] - len(answer) :][:, :POOLED_TOKENS]
    return found[:, -len(answer) - 1].numpy(), counted.mean(1).numpy()


def close(actual: np.ndarray, wanted: np.ndarray) -> None:
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(actual / scale, wanted / scale, atol=TOLERANCE)


def test_the_prompt_that_was_asked(tiny, records):
    for record, images, given in zip(records, IMAGES, GIVEN, strict=True):
        inputs = plain_inputs(tiny, record.example, images)
        free = record.example.choices is None
        answer = record.answer.token_ids.tolist()
        if image_id(tiny) not in answer:
            context, mean = expected(tiny, inputs, answer)
            close(record.array(Feature.CTX_OPEN if free else Feature.CTX_MCQ), context)
            close(record.array(Feature.ANS_OPEN if free else Feature.ANS_MCQ_FREE), mean)
        assert record.has(Feature.ANS_FIXED) == (given is not None)
        if given is not None:
            close(record.array(Feature.ANS_FIXED), expected(tiny, inputs, given)[1])
            np.testing.assert_allclose(
                record.array(Feature.CLEAN_LOGPROBS), chosen(tiny, inputs, given), atol=1e-4
            )


def test_the_most_probable_option(tiny, records):
    for record, images in zip(records, IMAGES, strict=True):
        assert record.has(Feature.ANS_MCQ) == (record.example.choices is not None)
        if record.example.choices is None:
            continue
        inputs = plain_inputs(tiny, record.example, images)
        best = record.example.choices[int(record.array(Feature.OPTION_LOGPROBS).argmax())]
        ids = tiny.processor.tokenizer(best, add_special_tokens=False)["input_ids"]
        lead = tiny.processor.tokenizer(f" {best}", add_special_tokens=False)["input_ids"]
        found = record.array(Feature.ANS_MCQ)
        wanted = [expected(tiny, inputs, [*own, 4])[1] for own in (ids, lead)]
        assert min(np.abs(found - w).max() / np.abs(w).max() for w in wanted) < TOLERANCE


def test_the_open_prompt_asks_the_same_question_without_options(tiny, records):
    for record, images in zip(records, IMAGES, strict=True):
        if record.example.choices is None:
            continue
        opened = replace(record.example, choices=None)
        (alone,) = tiny.observer().observe([opened], [images], ASKED)
        close(record.array(Feature.CTX_OPEN), alone.array(Feature.CTX_OPEN).astype(float))
        if alone.answer.is_truncated:
            continue
        close(record.array(Feature.ANS_OPEN), alone.array(Feature.ANS_OPEN).astype(float))


def test_a_batch_changes_nothing(tiny, records):
    for record, images, given in zip(records, IMAGES, GIVEN, strict=True):
        (alone,) = tiny.observer().observe([record.example], [images], ASKED, given=[given])
        own = {f for f in alone.features if f in CHANNELS}
        assert own == {f for f in record.features if f in CHANNELS}
        for feature in own:
            close(record.array(feature).astype(float), alone.array(feature).astype(float))


def test_vision_tokens_are_computed_once_for_both_prompts(tiny, monkeypatch):
    observer = tiny.observer()
    owner = VisionTap(tiny.model)._owner
    calls = []
    encode = owner.get_image_features
    monkeypatch.setattr(
        owner, "get_image_features", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )
    observer.observe(EXAMPLES[2:], IMAGES[2:], ASKED)
    # InstructBLIP's vision tokens depend on the question, so they are not shared.
    assert len(calls) == (2 if tiny.name == "instructblip" else 1)
    assert "get_image_features" in vars(owner)  # what was there before is there again


def test_a_picture_is_prepared_once_for_all_prompts_about_it(tiny, monkeypatch):
    """Both prompts and the follow-up question hold the same tensors, bit for bit."""
    worker = type(tiny.processor.image_processor)
    prepare, calls = worker.__call__, []
    monkeypatch.setattr(
        worker, "__call__", lambda self, *a, **k: calls.append(1) or prepare(self, *a, **k)
    )
    asked = replace(ASKED, asks=("self_check",))
    observer = tiny.observer()
    calls.clear()
    once = observer.observe(EXAMPLES[2:3], IMAGES[2:3], asked)
    assert len(calls) == 1
    assert type(tiny.processor.image_processor) is worker
    monkeypatch.setattr("sightline.models.pictures._same", lambda *_: False)
    calls.clear()
    again = observer.observe(EXAMPLES[2:3], IMAGES[2:3], asked)
    assert len(calls) == 3
    for first, second in zip(once, again, strict=True):
        assert first.answer.text == second.answer.text
        np.testing.assert_array_equal(first.answer.logprobs, second.answer.logprobs)
        assert first.features.keys() == second.features.keys()
        for feature in first.features:
            np.testing.assert_array_equal(first.array(feature), second.array(feature))


def test_pooled_vision_tokens_and_their_energy(tiny, records):
    for record, images in zip(records, IMAGES, strict=True):
        inputs = plain_inputs(tiny, record.example, images)
        with VisionTap(tiny.model) as tap, torch.inference_mode():
            tiny.model(**inputs, use_cache=False)
        tokens = torch.cat([t.reshape(-1, t.shape[-1]) for t in tap._tokens.pooler_output])
        close(record.array(Feature.VISION_PROJECTED), tokens.mean(0).numpy())
        assert record.array(Feature.VISION_ENCODED).ndim == 1
        described = no_grid_reason(tiny.model.config.model_type)
        assert record.has(Feature.VISION_ENERGY) == (described is None)
        if described is not None:
            assert not record.has(Feature.ENERGY_MAP)
            continue
        if tiny.name in ("llava", "paligemma"):
            layout = square_grid(16)
            plain = token_energy(tokens.numpy(), layout)
            close(record.array(Feature.VISION_ENERGY), plain)
        grid = record.array(Feature.ENERGY_MAP)
        assert grid.ndim == 2
        if tiny.name.startswith("qwen"):
            _, down, across = inputs["image_grid_thw"][0].tolist()
            assert grid.shape == (down // 2, across // 2)
        # Every edge counts for both of its ends.
        h, w = grid.shape
        ends = np.full((h, w), 4.0)
        ends[[0, -1]] -= 1
        ends[:, [0, -1]] -= 1
        edges = h * (w - 1) + (h - 1) * w
        energy = float((grid * ends).sum() / 2 / edges) if min(h, w) > 1 else None
        if energy is not None:
            assert float(record.array(Feature.VISION_ENERGY)) == pytest.approx(energy, rel=1e-3)


PLACES = {
    "llava": (0, 4),
    "paligemma": (0, 4),
    "llava_next": (0, 4),
    "llava_onevision": (0, 4),
    "idefics3": (-4, 2),
}
"""First token of the grid and its side; Qwen's grid follows the picture."""


def vision_energy(tiny: Tiny, inputs: dict[str, Any]) -> tuple[np.ndarray, float | None]:
    """Vision tokens of one picture, and the energy that is kept of them."""
    with VisionTap(tiny.model) as tap, torch.inference_mode():
        tiny.model(**inputs, use_cache=False)
    tokens = torch.cat([t.reshape(-1, t.shape[-1]) for t in tap._tokens.pooler_output])
    found = tap.features(1, 1)[0].get(Feature.VISION_ENERGY)
    return tokens.double().numpy(), None if found is None else float(found)


def test_the_grid_of_every_architecture(tiny):
    """Square, dynamic and base-tile grids, neighbour by neighbour; queries have none."""
    question, images = next((e, i) for e, i in zip(EXAMPLES, IMAGES, strict=True) if len(i) == 1)
    inputs = plain_inputs(tiny, question, images)
    tokens, energy = vision_energy(tiny, inputs)
    if tiny.name == "instructblip":
        assert energy is None
        assert "learned queries" in str(no_grid_reason(tiny.model.config.model_type))
        return
    if tiny.name in PLACES:
        start, side = PLACES[tiny.name]
        down = across = side
    else:
        start, (_, down, across) = (
            0,
            (inputs["image_grid_thw"][0] // torch.tensor([1, 2, 2])).tolist(),
        )
        assert down * across == len(tokens)
    start %= len(tokens)
    grid = {(y, x): tokens[start + y * across + x] for y in range(down) for x in range(across)}
    edges = [
        float(np.sum((grid[place] - grid[other]) ** 2))
        for place in grid
        for other in ((place[0] + 1, place[1]), (place[0], place[1] + 1))
        if other in grid
    ]
    assert energy == pytest.approx(sum(edges) / len(edges), rel=1e-4)


def test_only_the_tile_of_the_whole_picture_counts(tiny):
    if tiny.name not in ("llava_next", "llava_onevision", "idefics3"):
        pytest.skip("the model has no tiles")
    question, images = next((e, i) for e, i in zip(EXAMPLES, IMAGES, strict=True) if len(i) == 1)
    inputs = plain_inputs(tiny, question, images)
    _, before = vision_energy(tiny, inputs)
    pixels = inputs["pixel_values"]
    assert pixels.shape[1] > 1
    base = pixels.shape[1] - 1 if tiny.name == "idefics3" else 0
    for changed, same in ((base, False), ((base + 1) % pixels.shape[1], True)):
        other = pixels.clone()
        other[:, changed] = other[:, changed].flip(-1) * 0.7
        _, after = vision_energy(tiny, {**inputs, "pixel_values": other})
        assert (after == pytest.approx(before, rel=1e-5)) == same


def test_records_without_a_request_for_them_have_none(tiny):
    (record, *_) = tiny.observer().observe(
        EXAMPLES[2:3], IMAGES[2:3], replace(ASKED, channels=False)
    )
    assert record.condition == CLEAN
    assert not CHANNELS & record.features.keys()
    assert set(STATE_CHANNELS) <= CHANNELS
