"""Reading prompt and images once, and feeding further tokens behind them.

The key-value cache of the prefill is never modified; every use continues a copy of its rows.
Positions and masks come from the model's own generation methods, so that M-RoPE, 1-based positions
and left padding are what ``generate`` would use; models in front of a separate language model
(BLIP) continue with that one. Where a model cannot continue a copied cache, the whole sequence is
read again for every further token, which is slow and exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sightline.core.errors import ModelError
from sightline.models.cache import copied_rows
from sightline.models.inputs import image_positions

_SEPARATE_LANGUAGE_MODEL = frozenset({"blip-2", "instructblip", "instructblipvideo"})


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a pass showed at the positions that were fed, (r, n, …).

    Attributes:
        logits: (r, n, v), raw.
        hidden: (r, l, d) states of the asked layers at the last position, or None.
        pooled: (r, l, d) mean states of the asked layers over marked positions, or None.
    """

    logits: torch.Tensor
    hidden: torch.Tensor | None
    pooled: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Prefill:
    """What one pass over prompts and images left behind; b prompts, T positions.

    Attributes:
        model: The model that made the pass.
        inputs: Its inputs, where they are needed to read everything again; else None.
        log_probs: Float32 (b, v), distribution of the first answer token.
        cache: Keys and values, one row per prompt, or None; never modified.
        mask: (b, T) attention mask.
        positions: Last position of every row, (b, 1) or (axes, b, 1).
        layers: Indices of the kept hidden states (0 = embeddings).
        hidden: (b, l, d) states at the last prompt position, or None.
        image_hidden: (b, l, d) mean states over the image's positions, or None.
        has_image: (b,) whether the row has image positions.
    """

    model: Any
    inputs: dict[str, torch.Tensor] | None
    log_probs: torch.Tensor
    cache: Any
    mask: torch.Tensor
    positions: torch.Tensor
    layers: tuple[int, ...]
    hidden: torch.Tensor | None
    image_hidden: torch.Tensor | None
    has_image: torch.Tensor

    def continued(self, rows: torch.Tensor, *, room: int) -> Continuation | Recomputation:
        """Returns these rows, to be fed at most ``room`` tokens; a row may be repeated."""
        if self.inputs is None:
            return Continuation(self, rows, room)
        return Recomputation(self.model, self.inputs, rows, self.layers)


def prefill(
    model: Any,
    inputs: dict[str, torch.Tensor],
    *,
    image_token_id: int | None,
    layers: Sequence[int] = (),
    recompute: bool = False,
) -> Prefill:
    """Reads prompts and images once.

    Args:
        model: A transformers image-text-to-text model.
        inputs: Its processor's tensors, left-padded.
        image_token_id: The id at the image's positions.
        layers: Indices into the returned hidden states (0 = embeddings) to keep.
        recompute: Keep the inputs of one unpadded prompt instead of the cache.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    settings: dict[str, Any] = {"return_dict": True}
    if layers:
        settings["output_hidden_states"] = True
    positions = torch.zeros_like(ids)
    if recompute:
        outputs = model(**inputs, use_cache=False, **settings)
    elif is_separate(model):
        positions = (mask.long().cumsum(-1) - 1).clamp_min(0)
        outputs = model(
            **inputs, position_ids=positions, use_cache=True, logits_to_keep=1, **settings
        )
    else:
        others = {name: value for name, value in inputs.items() if name != "input_ids"}
        positions = model._prepare_position_ids_for_generation(ids, dict(others))
        prepared = model.prepare_inputs_for_generation(
            ids, position_ids=positions, is_first_iteration=True, use_cache=True, **others
        )
        if model._supports_logits_to_keep():
            settings["logits_to_keep"] = 1
        outputs = model(**{**prepared, **settings})
    states = _language_model_outputs(model, outputs)
    hidden = image_hidden = None
    where = image_positions(ids, image_token_id)
    has_image = where.any(-1)
    if layers:
        kept = [states.hidden_states[layer] for layer in layers]
        hidden = torch.stack([state[:, -1].to(ids.device) for state in kept], 1)
        if bool(has_image.any()):
            image_hidden = torch.stack([_mean_over(state, where) for state in kept], 1)
    return Prefill(
        model=model,
        inputs=inputs if recompute else None,
        log_probs=torch.log_softmax(outputs.logits[:, -1].float(), -1).to(ids.device),
        cache=None if recompute else states.past_key_values,
        mask=mask,
        positions=positions[..., -1:],
        layers=tuple(layers),
        hidden=hidden,
        image_hidden=image_hidden,
        has_image=has_image,
    )


class Continuation:
    """A copy of some prefill rows that can be fed further tokens."""

    def __init__(self, start: Prefill, rows: torch.Tensor, room: int) -> None:
        self._model, self._layers = start.model, start.layers
        self._cache = copied_rows(start.cache, rows, room)
        self._mask = start.mask.index_select(0, rows)
        self._positions = start.positions.index_select(-2, rows)

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps these rows, in this order."""
        self._cache.reorder_cache(rows)
        self._mask = self._mask.index_select(0, rows)
        self._positions = self._positions.index_select(-2, rows)

    def feed(
        self, ids: torch.Tensor, *, states: bool = False, pool: torch.Tensor | None = None
    ) -> Outputs:
        """Feeds tokens, (r, n); keeps the states of the last one if asked.

        Args:
            ids: The tokens.
            states: Keep the states at the last position.
            pool: (r, n) bool, positions over which states are averaged; None for none.
        """
        positions = self._positions + torch.arange(1, ids.shape[1] + 1, device=ids.device)
        self._positions = positions[..., -1:]
        self._mask = torch.cat([self._mask, self._mask.new_ones(ids.shape)], 1)
        common: dict[str, Any] = {
            "attention_mask": self._mask,
            "position_ids": positions,
            "past_key_values": self._cache,
            "use_cache": True,
        }
        settings: dict[str, Any] = {"return_dict": True}
        if states or pool is not None:
            settings["output_hidden_states"] = True
        if is_separate(self._model):
            outputs = self._model.language_model(input_ids=ids, **common, **settings)
        else:
            prepared = self._model.prepare_inputs_for_generation(
                ids, is_first_iteration=False, **common
            )
            outputs = self._model(**{**prepared, **settings})
        hidden = _last_states(outputs, self._layers, ids.device) if states else None
        pooled = None if pool is None else _pooled_states(outputs, self._layers, pool)
        return Outputs(outputs.logits.to(ids.device), hidden, pooled)


class Recomputation:
    """Rows of one prompt whose whole sequence is read again whenever tokens are fed."""

    def __init__(
        self, model: Any, inputs: dict[str, torch.Tensor], rows: torch.Tensor, layers: Sequence[int]
    ) -> None:
        self._model, self._layers, self._inputs = model, layers, inputs
        self._ids = inputs["input_ids"].index_select(0, rows)

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps these rows, in this order."""
        self._ids = self._ids.index_select(0, rows)

    def feed(
        self, ids: torch.Tensor, *, states: bool = False, pool: torch.Tensor | None = None
    ) -> Outputs:
        """Feeds tokens, as `Continuation.feed`."""
        self._ids = torch.cat([self._ids, ids], 1)
        added = self._ids.shape[1] - self._inputs["input_ids"].shape[1]
        logits, hidden, pooled = [], [], []
        # Masks and token types grow as they do when the model generates.
        grown = self._model._update_model_kwargs_for_generation(
            {}, dict(self._inputs), num_new_tokens=added
        )
        wanted = states or pool is not None
        for at, row in enumerate(self._ids):
            inputs = {**grown, "input_ids": row[None]}
            try:
                outputs = self._model(
                    **inputs, use_cache=False, return_dict=True, output_hidden_states=wanted
                )
            except ValueError as error:
                raise ModelError(
                    f"The model refused its own answer ({' '.join(str(error).split())[:120]}); an "
                    "answer without image tokens is required. Try another question."
                ) from error
            logits.append(outputs.logits[:, -ids.shape[1] :].to(ids.device))
            kept = _language_model_outputs(self._model, outputs)
            if states:
                hidden.append(_last_states(kept, self._layers, ids.device))
            if pool is not None:
                pooled.append(_pooled_states(kept, self._layers, pool[at : at + 1]))
        return Outputs(
            torch.cat(logits),
            torch.cat(hidden) if states else None,
            torch.cat(pooled) if pooled else None,
        )


def is_separate(model: Any) -> bool:
    """Whether the language model stands by itself behind the rest, as in BLIP."""
    return model.config.model_type in _SEPARATE_LANGUAGE_MODEL


def _language_model_outputs(model: Any, outputs: Any) -> Any:
    return outputs.language_model_outputs if is_separate(model) else outputs


def _last_states(outputs: Any, layers: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.stack([outputs.hidden_states[layer][:, -1].to(device) for layer in layers], 1)


def _pooled_states(outputs: Any, layers: Sequence[int], pool: torch.Tensor) -> torch.Tensor:
    """Mean states over marked positions; ``pool`` covers the last positions of the sequence."""
    n = pool.shape[1]
    kept = (outputs.hidden_states[layer][:, -n:] for layer in layers)
    return torch.stack([_mean_over(state, pool) for state in kept], 1)


def _mean_over(state: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    weights = where.to(device=state.device, dtype=torch.float32)
    total = torch.einsum("btd,bt->bd", state.float(), weights)
    return (total / weights.sum(-1, keepdim=True).clamp_min(1)).to(where.device)
