"""What a model makes of pictures before the language model, computed once for several prompts.

Models of transformers turn pixels into vision tokens in ``get_image_features``. While `VisionTap`
is open, a second call with the same pixels is answered with the tokens of the first, so that
several prompts about the same pictures share one pass of the vision encoder; a model whose vision
tokens depend on the question (InstructBLIP) gets new ones, because its arguments differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch

from sightline.audit.structure import (
    NoGrid,
    TokenLayout,
    base_tile,
    dirichlet_energy,
    energy_map,
    merged_grid,
    query_tokens,
    square_grid,
)
from sightline.core.errors import DataError, UndefinedMetricError
from sightline.core.features import Feature

_ENCODER = "get_image_features"
_PROJECTORS = ("multi_modal_projector", "connector", "merger", "language_projection")
_QUERIES = frozenset({"blip-2", "instructblip", "instructblipvideo"})
_SQUARE = frozenset({"llava", "vipllava", "paligemma", "gemma3"})
_BASE_FIRST = frozenset({"llava_next", "llava_onevision"})
_BASE_LAST = frozenset({"idefics3", "smolvlm"})
_MERGED = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl"})


def no_grid_reason(model_type: str) -> str | None:
    """Why a model's vision tokens have no energy, in words; None where they lie in a grid.

    Example:
        >>> no_grid_reason("llava") is None
        True
        >>> no_grid_reason("instructblip")
        'the vision tokens of instructblip are learned queries, not places in the picture'
    """
    if model_type in _QUERIES:
        return f"the vision tokens of {model_type} are learned queries, not places in the picture"
    if model_type in _SQUARE | _BASE_FIRST | _BASE_LAST | _MERGED:
        return None
    return f"how the vision tokens of {model_type} lie in the picture is not known"


class VisionTap:
    """Shares vision tokens between prompts and keeps those of the first, in a ``with`` statement.

    Args:
        model: A transformers image-text-to-text model.
    """

    def __init__(self, model: Any) -> None:
        inner = getattr(model, "model", None)
        self._owner = inner if hasattr(inner, _ENCODER) else model
        self._config = model.config
        self._projector = _projector(self._owner)
        self._before: Any = None
        self._hook: Any = None
        self._arguments: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
        self._tokens: Any = None
        self._encoded: torch.Tensor | None = None

    def __enter__(self) -> VisionTap:
        if hasattr(self._owner, _ENCODER):
            original = getattr(self._owner, _ENCODER)
            self._before = vars(self._owner).get(_ENCODER)

            def shared(*args: Any, **kwargs: Any) -> Any:
                if self._arguments is None:
                    self._tokens = original(*args, **kwargs)
                    self._arguments = args, kwargs
                elif not _equal(self._arguments, (args, kwargs)):
                    return original(*args, **kwargs)
                return self._tokens

            setattr(self._owner, _ENCODER, shared)
        if self._projector is not None:
            self._hook = self._projector.register_forward_pre_hook(self._keep)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            setattr(self._owner, _ENCODER, self._before)
        elif _ENCODER in vars(self._owner):
            delattr(self._owner, _ENCODER)
        if self._hook is not None:
            self._hook.remove()

    def features(self, rows: int, images: int) -> list[dict[Feature, np.ndarray]]:
        """Pooled vision tokens and their energy, of each row of the first prompt's batch.

        Args:
            rows: Prompts of the batch.
            images: Pictures of each.

        Returns:
            Mean vision tokens before and after the projector; for a single picture whose tokens lie
            in a grid, also their energy and its map. What the model does not show is left out.
        """
        found: list[dict[Feature, np.ndarray]] = [{} for _ in range(rows)]
        projected = self._projected(rows)
        for row, tokens in enumerate(projected):
            found[row][Feature.VISION_PROJECTED] = _mean_token(tokens)
            if images == 1:
                found[row] |= self._energies(tokens, row)
        for row, encoded in enumerate(self._encoded_rows(rows)):
            found[row][Feature.VISION_ENCODED] = _mean_token(encoded)
        return found

    def _keep(self, _module: Any, inputs: tuple[Any, ...]) -> None:
        if self._encoded is None and inputs and isinstance(inputs[0], torch.Tensor):
            self._encoded = inputs[0]

    def _argument(self, name: str) -> Any:
        if self._arguments is None:
            return None
        args, kwargs = self._arguments
        return args[0] if name == "pixel_values" and args else kwargs.get(name)

    def _grids(self) -> Any:
        """(images, 3) patches in time, down and across, where the model cuts pictures freely."""
        grids = self._argument("image_grid_thw")
        if grids is None and self._arguments is not None and len(self._arguments[0]) > 1:
            second = self._arguments[0][1]
            grids = second if self._config.model_type in _MERGED else None
        return grids

    def _projected(self, rows: int) -> list[torch.Tensor]:
        """Tokens of each row's pictures, (t, d), as the language model reads them."""
        tokens = getattr(self._tokens, "pooler_output", None)
        if tokens is None:
            return []
        parts = [part.reshape(-1, part.shape[-1]) for part in tokens]
        if self._rows_share(rows):
            return [torch.cat(parts)] * rows
        if len(parts) % rows:
            return []
        per_row = len(parts) // rows
        return [torch.cat(parts[i * per_row : (i + 1) * per_row]) for i in range(rows)]

    def _rows_share(self, rows: int) -> bool:
        """Whether one row's pictures were read for all rows."""
        tokens = getattr(self._tokens, "pooler_output", ())
        return 0 < len(tokens) < rows

    def _encoded_rows(self, rows: int) -> list[torch.Tensor]:
        encoded = self._encoded
        if encoded is not None and self._rows_share(rows):
            return [encoded.reshape(-1, encoded.shape[-1])] * rows
        sizes = None if encoded is None else self._encoded_sizes(rows, encoded)
        if encoded is None or sizes is None or sum(sizes) != len(encoded):
            return []
        return [part.reshape(-1, part.shape[-1]) for part in torch.split(encoded, sizes)]

    def _encoded_sizes(self, rows: int, encoded: torch.Tensor) -> list[int] | None:
        """How many entries along the first axis of the projector's input belong to each row."""
        grids, pixels = self._grids(), self._argument("pixel_values")
        if encoded.dim() == 2 and grids is not None:
            sizes = grids.prod(-1).tolist()
        elif isinstance(pixels, torch.Tensor) and pixels.dim() == 5:
            sizes = (pixels != 0).flatten(2).any(-1).sum(1).tolist()  # the others fill up
        else:
            sizes = [1] * len(encoded)
        if len(sizes) < rows or len(sizes) % rows:
            return None
        per_row = len(sizes) // rows
        return [sum(sizes[i * per_row : (i + 1) * per_row]) for i in range(rows)]

    def _energies(self, tokens: torch.Tensor, row: int) -> dict[Feature, np.ndarray]:
        values = tokens.float().cpu().numpy()
        try:
            layout = self._layout(len(values), row)
            if isinstance(layout, NoGrid):
                return {}
            grid = layout.of(values)
            return {
                Feature.VISION_ENERGY: np.asarray(dirichlet_energy(grid).mean()),
                Feature.VISION_ENERGY_NORMALISED: np.asarray(
                    dirichlet_energy(grid, normalised=True).mean()
                ),
                Feature.ENERGY_MAP: energy_map(grid)[0].astype(np.float32),
            }
        except (DataError, UndefinedMetricError):
            return {}

    def _layout(self, tokens: int, row: int) -> TokenLayout:
        kind = self._config.model_type
        if kind in _SQUARE:
            return square_grid(tokens)
        if kind in _BASE_FIRST:
            return base_tile(_side(self._config))
        if kind in _BASE_LAST:
            side = _side(self._config) // self._config.scale_factor
            return base_tile(side, start=tokens - side * side)
        grids = self._grids()
        if kind in _MERGED and grids is not None:
            frames, height, width = grids[row].tolist()
            merge = int(self._config.vision_config.spatial_merge_size)
            return merged_grid(frames, height, width, merge=merge)
        if kind in _QUERIES:
            return query_tokens(tokens)
        return NoGrid(no_grid_reason(kind) or "the picture's grid was not observed")


def _projector(owner: Any) -> Any:
    for name, module in owner.named_modules():
        if name.rpartition(".")[2] in _PROJECTORS:
            return module
    return None


def _side(config: Any) -> int:
    vision = config.vision_config
    return int(vision.image_size) // int(vision.patch_size)


def _mean_token(tokens: torch.Tensor) -> np.ndarray:
    mean: np.ndarray = tokens.float().mean(0).cpu().numpy()
    return mean


def _equal(first: Any, second: Any) -> bool:
    """Whether two calls have equal arguments, tensors by value."""
    if isinstance(first, torch.Tensor) or isinstance(second, torch.Tensor):
        return (
            isinstance(first, torch.Tensor)
            and isinstance(second, torch.Tensor)
            and first.shape == second.shape
            and bool(torch.equal(first, second))
        )
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)
