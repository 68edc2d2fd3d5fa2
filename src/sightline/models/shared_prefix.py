"""Several questions about the same images: the images are read once, the questions behind them.

The prompts' common beginning, images included, is read as one row; its key-value cache is copied
for every question, and the questions' own tokens are fed behind it, padded on the left. Only causal
models give the same numbers that way, so the first batch that could use it is also read plainly,
and a model whose distributions differ is read plainly ever after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sightline.models.cache import copied_rows
from sightline.models.inputs import InputBuilder, image_positions
from sightline.models.prefill import Prefill, prefill

if TYPE_CHECKING:
    from PIL.Image import Image

_TOLERANCE_FLOAT32, _TOLERANCE_HALF = 1e-3, 0.3
"""Largest difference in log-probability that rounding explains, as when a model is loaded."""


@dataclass(frozen=True, slots=True)
class Split:
    """Prompts cut behind their common beginning.

    Attributes:
        inputs: The model's inputs of the beginning, one row of P positions.
        rest: Token ids of each prompt behind it, at least one each.
    """

    inputs: dict[str, torch.Tensor]
    rest: list[list[int]]


def split(inputs: InputBuilder, prompts: Sequence[str], images: tuple[Image, ...]) -> Split | None:
    """Cuts prompts about the same images behind what they have in common.

    Returns:
        The parts; None where the images are not all in common, or the
        processor changes the text behind them.
    """
    first = inputs.tensors(prompts[:1], [images])
    whole = first["input_ids"][0].tolist()
    raw = inputs.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    common = min(_agreed(raw), min(map(len, raw)) - 1)
    rest = [ids[common:] for ids in raw]
    kept = len(whole) - len(rest[0])
    where = image_positions(first["input_ids"], inputs.image_token_id)[0].nonzero()
    if not len(where) or kept <= int(where[-1]) or whole[kept:] != rest[0]:
        return None
    cut = {
        name: value[:, :kept] if value.shape[:2] == (1, len(whole)) else value
        for name, value in first.items()
    }
    return Split(cut, rest)


def shared_prefill(
    model: Any, parts: Split, *, image_token_id: int | None, layers: Sequence[int], pad_id: int
) -> Prefill:
    """Reads the beginning once and every rest behind a copy of it.

    Args:
        model: A causal transformers image-text-to-text model.
        parts: The prompts.
        image_token_id: The id at the images' positions.
        layers: Indices of the hidden states to keep.
        pad_id: Any token's id; what stands at padded positions is never attended to.

    Returns:
        What `sightline.models.prefill.prefill` returns for the whole prompts.
    """
    start = prefill(model, parts.inputs, image_token_id=image_token_id, layers=layers)
    device, count = start.log_probs.device, len(parts.rest)
    longest = max(map(len, parts.rest))
    padded = torch.full((count, longest), pad_id, dtype=torch.long)
    real = torch.zeros((count, longest), dtype=start.mask.dtype)
    for row, ids in enumerate(parts.rest):
        padded[row, longest - len(ids) :] = torch.as_tensor(ids)
        real[row, longest - len(ids) :] = 1
    padded, real = padded.to(device), real.to(device)
    rows = torch.zeros(count, dtype=torch.long, device=device)
    cache = copied_rows(start.cache, rows, longest)
    mask = torch.cat([start.mask.index_select(0, rows), real], 1)
    positions = start.positions.index_select(-2, rows) + real.cumsum(1)
    settings: dict[str, Any] = {"return_dict": True}
    if layers:
        settings["output_hidden_states"] = True
    if model._supports_logits_to_keep():
        settings["logits_to_keep"] = 1
    prepared = model.prepare_inputs_for_generation(
        padded,
        is_first_iteration=False,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    outputs = model(**{**prepared, **settings})
    hidden = image_hidden = None
    if layers:
        kept = [outputs.hidden_states[layer][:, -1].to(device) for layer in layers]
        hidden = torch.stack(kept, 1)
    if start.image_hidden is not None:
        image_hidden = start.image_hidden.index_select(0, rows)
    return Prefill(
        model=model,
        inputs=None,
        log_probs=torch.log_softmax(outputs.logits[:, -1].float(), -1).to(device),
        cache=outputs.past_key_values,
        mask=mask,
        positions=positions[..., -1:],
        layers=tuple(layers),
        hidden=hidden,
        image_hidden=image_hidden,
        has_image=start.has_image.index_select(0, rows),
    )


class PrefixSharing:
    """Reads batches about the same images the shared way, once that has proved exact."""

    def __init__(self) -> None:
        self._exact: bool | None = None

    def prefill(
        self,
        model: Any,
        inputs: InputBuilder,
        prompts: Sequence[str],
        images: Sequence[tuple[Image, ...]],
        layers: Sequence[int],
        plain: Callable[[], Prefill],
        require_room: Callable[[Sequence[int]], None],
    ) -> Prefill:
        """Reads prompts, the shared way where that can be done.

        Args:
            model: The model.
            inputs: Builds its inputs.
            prompts: Prompts of the batch.
            images: Their images; the same objects in every row is what makes sharing possible.
            layers: Indices of the hidden states to keep.
            plain: Reads the whole prompts, each with its own images.
            require_room: Raises where prompts of so many tokens, by row, cannot be read.
        """
        same = (
            len(prompts) > 1
            and bool(images[0])
            and all(which(own) == which(images[0]) for own in images)
        )
        if not same or self._exact is False:
            return plain()
        parts = split(inputs, prompts, images[0])
        if parts is None:
            return plain()
        shared_length = parts.inputs["input_ids"].shape[1]
        require_room([shared_length + len(ids) for ids in parts.rest])
        device, dtype = model.device, model.dtype
        moved = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in parts.inputs.items()
        }
        shared = shared_prefill(
            model,
            Split(moved, parts.rest),
            image_token_id=inputs.image_token_id,
            layers=layers,
            pad_id=inputs.tokenizer.pad_token_id,
        )
        if self._exact is None:
            expected = plain()
            tolerance = _TOLERANCE_FLOAT32 if dtype == torch.float32 else _TOLERANCE_HALF
            # Tokens that are all but impossible differ by rounding alone.
            likely = expected.log_probs > -12
            apart = (shared.log_probs - expected.log_probs).abs()[likely].max()
            self._exact = bool(apart < tolerance)
            return expected
        return shared


def which(images: tuple[Image, ...]) -> tuple[int, ...]:
    """Tells apart images that are different objects."""
    return tuple(map(id, images))


def by_images(images: Sequence[tuple[Image, ...]]) -> list[int]:
    """A number per row: rows about the same images, two or more, share one; the others share 0."""
    seen: dict[tuple[int, ...], list[int]] = {}
    for row, own in enumerate(images):
        seen.setdefault(which(own), []).append(row)
    numbers = [0] * len(images)
    for number, rows in enumerate(seen.values(), 1):
        if len(rows) > 1 and images[rows[0]]:
            for row in rows:
                numbers[row] = number
    return numbers


def _agreed(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    places = zip(*rows, strict=False)
    return next(
        (at for at, tokens in enumerate(places) if len(set(tokens)) > 1), min(map(len, rows))
    )
