"""What a request asks of a local model: settings that can be, and depths as layer indices."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.core.errors import UsageError
from sightline.core.protocols import Request


def layer_indices(layers: Sequence[float | int], depth: int, name: str) -> tuple[int, ...]:
    """Layer indices of the asked depths, in their order, doubles left out.

    A fraction is of the decoder's depth (1.0 = after the last layer and its final norm, 0.5 = the
    middle), an integer an index itself (0 = embeddings).

    Args:
        layers: Fractions or indices.
        depth: Layers of the model.
        name: What the user calls it.

    Raises:
        UsageError: A depth outside the model.
    """
    found: list[int] = []
    for layer in layers:
        index = round(layer * depth) if isinstance(layer, float) else layer
        if not 0 <= index <= depth:
            raise UsageError(
                f"layer {layer} of {name}; an index from 0 to {depth} or a fraction from 0.0 to "
                "1.0 is required. Correct --layers."
            )
        if index not in found:
            found.append(index)
    return tuple(found)


def require_settings(request: Request) -> None:
    """Raises unless a model can be asked with these settings.

    Raises:
        UsageError: A number lies outside what it can be.
    """
    checks = {
        "max_new_tokens": (request.max_new_tokens, request.max_new_tokens >= 1, "at least 1"),
        "n_samples": (request.n_samples, request.n_samples >= 0, "0 or more"),
        "temperature": (request.temperature, request.temperature > 0, "above 0"),
        "top_p": (request.top_p, 0 < request.top_p <= 1, "above 0 and at most 1"),
        "top_k_logprobs": (request.top_k_logprobs, request.top_k_logprobs >= 0, "0 or more"),
    }
    for name, (value, valid, rule) in checks.items():
        if not valid:
            raise UsageError(f"{name} is {value}; it must be {rule}. Correct the setting.")
