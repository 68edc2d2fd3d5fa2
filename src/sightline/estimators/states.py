"""One vector per answer out of its hidden states: at its end, averaged over it, or before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UnscorableError, UsageError
from sightline.core.features import AUDITED, LAYERED, Feature
from sightline.core.protocols import Estimator, ReadsLayers
from sightline.core.types import Record
from sightline.estimators.signals import answer_start

Position = Literal["answer_end", "answer_mean", "answer_end_and_mean", "prompt_end"]
"""Which state stands for an answer.

``answer_end``: the state that emitted its last token, the end token where the model wrote one, and
so has read the whole answer. ``answer_mean``: the mean over the answer's tokens, reasoning left
out. ``answer_end_and_mean``: both, end to end. ``prompt_end``: the state at the prompt's last
position, before anything was answered.
"""


def state_needs(at: Position) -> frozenset[Feature]:
    """The signal a position is read off."""
    return frozenset({Feature.PROMPT_HIDDEN if at == "prompt_end" else Feature.HIDDEN})


def check_layer(layer: str, chosen: str) -> None:
    """Requires a setting that is a layer index or the word for all stored layers.

    Raises:
        UsageError: It is neither.
    """
    if layer != chosen and not (layer.isascii() and layer.isdigit()):
        raise UsageError(
            f"Layer {layer!r}; {chosen} or the index of a stored layer is required. "
            f"Use {chosen}, or for example 16."
        )


def layers_read(estimators: Iterable[Estimator]) -> tuple[int, ...] | None:
    """Indices of the layers whose states enter the scores of any of the estimators.

    Returns:
        None where one does not say which it reads, or goes by which layers a record has.
    """
    found = set[int]()
    for estimator in estimators:
        if not estimator.needs & (LAYERED | AUDITED):
            continue
        own = estimator.layers if isinstance(estimator, ReadsLayers) else None
        if own is None:
            return None
        found.update(own)
    return tuple(sorted(found))


def states(
    records: Sequence[Record], at: Position, layer: int, width: int | None = None
) -> Float[np.ndarray, "n d"]:
    """The state of one layer that stands for each answer.

    Args:
        records: Records with hidden states.
        at: Which state.
        layer: Layer index as in `Record.layers`.
        width: Entries that every vector must have; None takes the first record's.

    Raises:
        UnscorableError: A record has no state of this layer, no token, or another width.
    """
    vectors: list[np.ndarray] = []
    absent, empty, odd = [], [], []
    for row, record in enumerate(records):
        if layer not in record.layers:
            absent.append(row)
            continue
        hidden = record.array(next(iter(state_needs(at))))[record.layers.index(layer)]
        if not hidden.size:
            empty.append(row)
            continue
        vector = _vector(record, hidden.astype(np.float64), at)
        width = width or len(vector)
        if len(vector) != width:
            odd.append(row)
        vectors.append(vector)
    if absent:
        stored = list(records[absent[0]].layers)
        raise UnscorableError(
            absent,
            f"no hidden state of layer {layer}; layers {stored} are stored",
            "Collect the run with this layer, or fit on a layer that it has.",
        )
    if empty:
        raise UnscorableError(
            empty,
            "no token in hidden; observed arrays hold at least one",
            "Leave the feature out where nothing was observed.",
        )
    if odd:
        raise UnscorableError(
            odd,
            f"hidden states {len(vectors[odd[0]])} wide; {width} are required here",
            "Fit on records of the same model.",
        )
    return np.array(vectors).reshape(len(records), -1 if records else width or 0)


def _vector(record: Record, hidden: np.ndarray, at: Position) -> Float[np.ndarray, " d"]:
    if at == "prompt_end":
        return np.asarray(hidden)
    mean = hidden[answer_start(record.answer) :].mean(axis=0)
    if at == "answer_mean":
        return np.asarray(mean)
    return np.asarray(hidden[-1] if at == "answer_end" else np.concatenate([hidden[-1], mean]))
