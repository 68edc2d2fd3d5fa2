"""A batch's prompts read in parts of equal length, and put together again.

On a processor, a batch gains a large model nothing where it is only read: every row is work enough.
It costs where lengths differ, since padding needs a mask that the fast causal attention does
without. So rows of one length are read together, and the caches are joined for decoding, where a
batch does gain: every weight is read once for all rows.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from sightline.models.cache import JoinedLayer
from sightline.models.prefill import Prefill

_LEAST_POSITIONS, _LEAST_FLOPS = 512, 2e10
"""Of a part that is read by itself: enough to fill the processor, many times a call's own cost."""

_GRIDS, _PATCHES = "image_grid_thw", "pixel_values"


def can_join(model: Any) -> bool:
    """Whether a model's cache holds plain rows, and its device gains nothing by larger batches."""
    layers = DynamicCache(config=model.config.get_text_config()).layers
    plain = all(type(layer) is DynamicLayer for layer in layers)
    return bool(layers) and plain and model.device.type == "cpu"


def parts_of(lengths: Sequence[int], parameters: int) -> list[list[int]]:
    """Rows to read together: those of one length where that is work enough, and all the others.

    Args:
        lengths: Positions of every row.
        parameters: Of the model.

    Returns:
        Row numbers; a single part where nothing is gained.

    Example:
        >>> parts_of([600, 601, 600], 30_000_000)
        [[0, 2], [1]]
        >>> parts_of([60, 61, 60], 30_000_000)
        [[0, 1, 2]]
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        by_length[length].append(row)
    parts, rest = [], []
    for length, rows in by_length.items():
        positions = length * len(rows)
        if positions < _LEAST_POSITIONS or 2.0 * parameters * positions < _LEAST_FLOPS:
            rest += rows
            continue
        parts.append(rows)
    return [*parts, sorted(rest)] if rest else parts


def rows_of(
    inputs: dict[str, torch.Tensor], rows: Sequence[int], images: int
) -> dict[str, torch.Tensor] | None:
    """A model's inputs of some rows, without the padding that they have in common.

    Args:
        inputs: Of all rows, left-padded.
        rows: Row numbers.
        images: Pictures of every row.

    Returns:
        The inputs; None where it cannot be told whose a tensor's entries are.
    """
    mask = inputs["attention_mask"]
    index = torch.as_tensor(rows, device=mask.device)
    own = (index[:, None] * images + torch.arange(images, device=mask.device)).flatten()
    first = int(mask.index_select(0, index).any(0).long().argmax())
    found = {}
    for name, value in inputs.items():
        if name == _PATCHES and _GRIDS in inputs:
            of_picture = torch.split(value, inputs[_GRIDS].prod(-1).tolist())
            found[name] = torch.cat([of_picture[i] for i in own.tolist()])
        elif value.shape[:2] == mask.shape:
            found[name] = value.index_select(0, index)[:, first:]
        elif len(value) == len(mask) * images:
            found[name] = value.index_select(0, own)
        elif len(value) == len(mask):
            found[name] = value.index_select(0, index)
        else:
            return None
    return found


def joined(parts: Sequence[Prefill], rows: Sequence[Sequence[int]]) -> Prefill:
    """One prefill of all rows, left-padded, in the rows' order.

    Args:
        parts: What was read; all with pictures, or all without.
        rows: Row numbers of each part.
    """
    first = parts[0]
    order = torch.as_tensor([row for own in rows for row in own]).argsort()
    places = [(part, row) for part, own in enumerate(rows) for row in range(len(own))]
    place = [places[at] for at in order.tolist()]
    cache = copy.copy(first.cache)
    by_layer = zip(*(part.cache.layers for part in parts), strict=True)
    cache.layers = [JoinedLayer(own, place) for own in by_layer]
    longest = max(part.mask.shape[1] for part in parts)
    masks = [torch.nn.functional.pad(p.mask, (longest - p.mask.shape[1], 0)) for p in parts]

    def together(values: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        present = [value for value in values if value is not None]
        return torch.cat(present).index_select(0, order) if present else None

    return Prefill(
        model=first.model,
        inputs=None,
        log_probs=torch.cat([part.log_probs for part in parts]).index_select(0, order),
        cache=cache,
        mask=torch.cat(masks).index_select(0, order),
        positions=torch.cat([part.positions for part in parts], -2).index_select(-2, order),
        layers=first.layers,
        hidden=together([part.hidden for part in parts]),
        image_hidden=together([part.image_hidden for part in parts]),
        has_image=torch.cat([part.has_image for part in parts]).index_select(0, order),
    )
