"""Decoding on a device that is not the CPU: torch's meta device mixes with no other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import tiny_models
import torch
from tiny_models import Tiny, picture

from sightline.models.decoding import Sampling, _chosen, _drawn
from sightline.models.prefill import Prefill, prefill

ELSEWHERE = torch.device("meta")


def moved(start: Prefill) -> Prefill:
    """The prefill with its model, cache and tensors on the other device."""
    cache = copy.deepcopy(start.cache)
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.to(ELSEWHERE), layer.values.to(ELSEWHERE)
        layer.device = ELSEWHERE
    model = start.model.to(ELSEWHERE)
    model.set_attn_implementation("eager")  # the others look at the mask's values
    return replace(
        start,
        model=model,
        cache=cache,
        log_probs=start.log_probs.to(ELSEWHERE),
        mask=start.mask.to(ELSEWHERE),
        positions=start.positions.to(ELSEWHERE),
    )


@pytest.mark.parametrize(
    "build",
    [tiny_models.llava, tiny_models.qwen2_vl, tiny_models.paligemma, tiny_models.instructblip],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_made_while_decoding_lies_on_the_cpu(
    build: Callable[[], Tiny], dtype: torch.dtype
) -> None:
    tiny = build()
    observer = tiny.observer()
    prompt = observer._inputs.prompt("What is it?", 1, where="The question")
    tensors = observer._inputs.tensors([prompt] * 2, [(picture(1, (40, 30)),)] * 2)
    inputs = {n: v.to(dtype) if v.is_floating_point() else v for n, v in tensors.items()}
    model = copy.deepcopy(tiny.model).to(dtype)

    def ids(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.long, device=ELSEWHERE)

    with torch.inference_mode():
        start = prefill(model, inputs, image_token_id=observer._image_token_id, layers=(0, 1))
        assert start.log_probs.dtype == torch.float32
        running = moved(start).continued(ids(5), room=3)
        running.feed(ids(5, 2), states=True)
        running.keep(ids(3))
        outputs = running.feed(ids(3, 1), states=True)
        log_probs = torch.log_softmax(outputs.logits[:, -1].float(), -1)
        uniform = torch.empty(3, dtype=torch.float64, device=ELSEWHERE)
        drawn = _drawn(log_probs, uniform, Sampling(0.7, 0.9))
        chosen = _chosen(outputs.logits, ids(3, 1))
    assert outputs.hidden is not None
    assert outputs.hidden.dtype == dtype
    for tensor in (outputs.logits, outputs.hidden, drawn, chosen):
        assert tensor.device == ELSEWHERE
    assert chosen.dtype == torch.float32
