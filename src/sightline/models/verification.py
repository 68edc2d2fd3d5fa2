"""Whether a model's cache can be shared: asked of every architecture the test-suite does not hold.

A wrong position or mask behind a copied cache gives plausible numbers, so a model of an untested
architecture is put to the test when it is loaded: a short answer is scored behind a shared, padded
prefill and by reading everything again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
import torch
from PIL import Image

from sightline.core.errors import ModelError, UsageError
from sightline.models.decoding import score
from sightline.models.inputs import InputBuilder
from sightline.models.prefill import prefill
from sightline.models.soundness import out_of_memory

TESTED = frozenset(
    {
        ("idefics3", "llama"),
        ("instructblip", "llama"),
        ("llava", "llama"),
        ("llava_next", "mistral"),
        ("llava_onevision", "qwen2"),
        ("paligemma", "gemma"),
        ("qwen2_5_vl", "qwen2_5_vl_text"),
        ("qwen2_vl", "qwen2_vl_text"),
        ("qwen3_vl", "qwen3_vl_text"),
    }
)
"""Types of model and language model held to full forward passes by tests/differential/vlm."""

_FAILURES = (ModelError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)


class Decoding(StrEnum):
    """How a model is decoded; part of its fingerprint."""

    SHARED = "shared prefill"
    SHARED_ALONE = "shared prefill, one example at a time"
    RECOMPUTED = "everything read again for every token"


def decoding_of(model: Any, inputs: InputBuilder, image_token_id: int | None) -> Decoding:
    """Returns the fastest exact way to decode a model.

    Raises:
        UsageError: The model fails on the probe image and question however it is asked.
    """
    if (model.config.model_type, model.config.get_text_config().model_type) in TESTED:
        return Decoding.SHARED
    image = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    texts = ("What is it?", "What is shown here, in as few words as possible?")
    prompts = [inputs.prompt(text, 1, where="The probe question") for text in texts]
    answer = inputs.tokenizer("yes it is", add_special_tokens=False)["input_ids"][:4]

    def scored(rows: list[int], *, recompute: bool) -> np.ndarray | None:
        try:
            tensors = {
                name: value.to(model.device, model.dtype if value.is_floating_point() else None)
                for name, value in inputs.tensors(
                    [prompts[i] for i in rows], [(image,) for _ in rows]
                ).items()
            }
            start = prefill(model, tensors, image_token_id=image_token_id, recompute=recompute)
            return np.stack(score(start, range(len(rows)), [answer] * len(rows)))
        except _FAILURES as error:
            if out_of_memory(error):
                raise UsageError(
                    f"Memory ran out when {model.config.model_type} was tried on one small image; "
                    "room for weights and an answer is required. Choose --dtype bfloat16, "
                    "--device-map auto or a smaller model, or free the device."
                ) from error
            # Not being able to is the answer this probe is for; it is recorded as such.
            return None

    with torch.inference_mode():
        expected = [scored([i], recompute=True) for i in (0, 1)]
        if expected[0] is None or expected[1] is None:
            raise UsageError(
                f"{model.config.model_type} fails on a probe image and question; a decoder-only "
                "image-text-to-text model is required. Try another model."
            )
        truth = np.concatenate([expected[0], expected[1]])
        # Wrong positions or masks move log-probabilities by far more than half precision does.
        tolerance = 1e-3 if model.dtype == torch.float32 else 0.3
        together = scored([0, 1], recompute=False)
        if together is not None and np.abs(together - truth).max() < tolerance:
            return Decoding.SHARED
        alone = scored([0], recompute=False)
        if alone is not None and np.abs(alone - truth[:1]).max() < tolerance:
            return Decoding.SHARED_ALONE
    return Decoding.RECOMPUTED
