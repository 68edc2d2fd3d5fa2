"""Copies of a prefill's key-value cache that further tokens can be appended to."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

_CHUNK = 64
"""Tokens that room is made for at a time."""


@dataclass(frozen=True, slots=True)
class JoinedLayer:
    """One layer of rows that were read in parts; they are put together when they are copied.

    Attributes:
        parts: The layer as each part left it.
        place: Part and row within it, by row.
    """

    parts: Sequence[DynamicLayer]
    place: Sequence[tuple[int, int]]

    def stores(self, rows: torch.Tensor, room: int) -> tuple[list[torch.Tensor], int]:
        """Keys and values of rows, left-padded with zeros, with room behind; and their length."""
        length = max(layer.keys.shape[-2] for layer in self.parts)
        places = [self.place[row] for row in rows.tolist()]
        stores = []
        for name in ("keys", "values"):
            states = [getattr(layer, name) for layer in self.parts]
            _, heads, _, width = states[0].shape
            store = states[0].new_empty(len(places), heads, length + room, width)
            for row, (part, own) in zip(store, places, strict=True):
                first = length - states[part].shape[-2]
                row[:, :first] = 0
                row[:, first:length] = states[part][own]
            stores.append(store)
        return stores, length


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Rows of a layer with room for further tokens.

    The library's layer copies all its keys and values whenever a token is added, which costs more
    than the attention itself where many short answers share a long prompt.
    """

    def __init__(self, layer: DynamicLayer | JoinedLayer, rows: torch.Tensor, room: int) -> None:
        super().__init__()
        room = min(room, _CHUNK)
        if isinstance(layer, JoinedLayer):
            self._stores, self._length = layer.stores(rows, room)
        else:
            self._length = layer.get_seq_length()
            self._stores = [
                _with_room(states.index_select(0, rows.to(states.device)), room)
                for states in (layer.keys, layer.values)
            ]
        self.lazy_initialization(*self._stores)
        self._show()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends states and returns all of them."""
        start = self._length
        self._length += key_states.shape[-2]
        if self._length > self._stores[0].shape[-2]:
            added = max(_CHUNK, key_states.shape[-2])
            self._stores = [_with_room(store[:, :, :start], added) for store in self._stores]
        for store, states in zip(self._stores, (key_states, value_states), strict=True):
            store[:, :, start : self._length] = states
        self._show()
        return self.keys, self.values

    def reorder_cache(self, rows: torch.Tensor) -> None:
        """Keeps these rows, in this order."""
        self._stores = [store.index_select(0, rows.to(store.device)) for store in self._stores]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (store[:, :, : self._length] for store in self._stores)


def copied_rows(cache: Any, rows: torch.Tensor, room: int) -> Any:
    """Returns a cache of these rows that can grow without changing the given one.

    Args:
        cache: Keys and values of a prefill.
        rows: Row numbers; a row may be repeated.
        room: Tokens that will be added at most.
    """
    grown = copy.copy(cache)
    grown.layers = [_copied_layer(layer, rows, room) for layer in cache.layers]
    return grown


def _copied_layer(layer: Any, rows: torch.Tensor, room: int) -> Any:
    if isinstance(layer, JoinedLayer) or (
        type(layer) is DynamicLayer and layer.get_seq_length() > 0
    ):
        return RoomyLayer(layer, rows, room)
    # Sliding and linear-attention layers keep their own bookkeeping; their tensors are replaced,
    # not written to, once the rows have been selected.
    copied = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict | list):
            setattr(copied, name, copy.copy(value))
    copied.reorder_cache(rows)
    return copied


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    rows, heads, length, width = states.shape
    store = states.new_empty(rows, heads, length + room, width)
    store[:, :, :length] = states
    return store
