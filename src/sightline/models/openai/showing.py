"""What was asked for and an endpoint does not show, told before the first question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.core.features import CHANNELS, Feature
from sightline.core.protocols import Request
from sightline.data.prompts import PromptStyle
from sightline.models.openai.capabilities import Capabilities


def unseen(request: Request, found: Capabilities) -> str:
    """One line on the signals that an endpoint does not show.

    Args:
        request: What is asked for.
        found: What it was seen to do.
    """
    missing = [Feature.TOKEN_ENTROPY, Feature.TOP_TOKEN_IDS]
    if request.layers or request.sample_hidden:
        missing += [Feature.HIDDEN]
    if request.channels:
        missing += [feature for feature in Feature if feature in CHANNELS]
    if not found.logprobs:
        missing += [Feature.LOGPROBS]
    if request.top_k_logprobs and not found.top_logprobs:
        missing += [Feature.TOP_LOGPROBS]
    if request.n_samples and not found.keeps_sample_logprobs(request.temperature, request.top_p):
        missing += [Feature.SAMPLE_LOGPROBS]
    if request.options and not found.prompt_logprobs:
        missing += [Feature.OPTION_LOGPROBS]
        if not found.top_logprobs:
            missing += [Feature.LETTER_LOGPROBS]
    if request.blank and not found.prompt_logprobs:
        missing += [Feature.BLANK_LOGPROBS]
    line = f"This endpoint does not show: {', '.join(f.value for f in missing)}."
    if request.n_samples and not found.seed:
        line += " It heeds no seed: samples collected again would differ."
    return line


def worded_there(own: Mapping[str, Any], style: PromptStyle) -> str:
    """One line on a server that words questions itself.

    Args:
        own: The style that it says it words them in.
        style: In which they are sent.
    """
    if style.to_dict() == dict(own):
        return (
            "It words questions itself: they are sent in its own words "
            f"({own['short_instruction'][:80]!r}), to which it adds nothing."
        )
    return (
        "It words questions itself: it adds its own instruction "
        f"({own['short_instruction'][:80]!r}) to what is sent."
    )
