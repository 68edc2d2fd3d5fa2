"""What of a pass a record keeps: states and distributions as small arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sightline.core.errors import ModelError
from sightline.core.features import Feature
from sightline.models.decoding import Decoded, Detail
from sightline.models.prefill import Prefill

_FLOAT16_MAX = 65504.0


def detail_features(
    detail: Detail, start: Prefill, row: int, layers: tuple[int, ...]
) -> dict[Feature, np.ndarray]:
    """What the greedy answer's tokens and one row of its prefill show."""
    features = {Feature.TOKEN_ENTROPY: np.asarray(detail.entropy, dtype=np.float32)}
    if detail.top_ids:
        features[Feature.TOP_LOGPROBS] = np.stack(detail.top_logprobs)
        features[Feature.TOP_TOKEN_IDS] = np.stack(detail.top_ids).astype(np.int32)
    if layers and start.hidden is not None:
        features[Feature.HIDDEN] = compact(torch.stack(detail.hidden, 1))
        features[Feature.PROMPT_HIDDEN] = compact(start.hidden[row])
        if start.image_hidden is not None and bool(start.has_image[row]):
            features[Feature.IMAGE_HIDDEN] = compact(start.image_hidden[row])
    return features


def sample_features(samples: Sequence[Decoded]) -> dict[Feature, np.ndarray]:
    """States of the samples of one row, where they were kept."""
    states = [sample.state for sample in samples if sample.state is not None]
    return {Feature.SAMPLE_HIDDEN: compact(torch.stack(states, 1))} if states else {}


def compacted(channels: Mapping[Feature, torch.Tensor]) -> dict[Feature, np.ndarray]:
    """`compact` of every channel."""
    return {feature: compact(state) for feature, state in channels.items()}


def compact(states: torch.Tensor) -> np.ndarray:
    """States by layer in float16 (3 digits are enough), read-only.

    Where a layer has a value beyond float16's range the result is float32; such a layer is kept as
    it is and the others have float16's digits, so that none depends on which others are kept.

    Raises:
        ModelError: A state is NaN or infinite.
    """
    values = states.float().cpu().numpy()
    largest = np.abs(values).max(initial=0.0)  # NaN where there is one
    if not largest < np.inf:
        raise ModelError(
            "The model's hidden states hold NaN or infinity; finite states are required. "
            "Load it with another dtype, such as bfloat16 or float32."
        )
    if largest <= _FLOAT16_MAX:
        kept = values.astype(np.float16)
    else:
        kept = np.stack([_rounded(layer) for layer in values])
    kept.setflags(write=False)
    return kept


def _rounded(layer: np.ndarray) -> np.ndarray:
    """One layer with float16's digits, where all of it is within float16's range."""
    if np.abs(layer).max(initial=0.0) > _FLOAT16_MAX:
        return layer
    return layer.astype(np.float16).astype(np.float32)
