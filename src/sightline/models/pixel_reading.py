"""One prompt with one picture, read again with other pixels and with gradients.

Where a model reads one picture, what its processor hands over, the normalisation taken back, is the
model's *own pixel space*: values in [0, 1] at the model's own input size. Where the processor cuts
tiles, it is the picture itself. From there on everything happens in torch, so that gradients reach
the pixels and nothing is rounded between a changed pixel and the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sightline.core.errors import ModelError, UsageError
from sightline.data.prompts import user_text
from sightline.models.decoding import Decoded, Sampling, decode
from sightline.models.pixel_layouts import pixel_layout
from sightline.models.prefill import prefill
from sightline.models.verification import Decoding

if TYPE_CHECKING:
    from PIL.Image import Image

    from sightline.core.types import Example
    from sightline.models.transformers import ModelParts

_GREEDY = Sampling(temperature=1.0, top_p=1.0)


class PixelReader:
    """What a model says to one question, from the pixels of its one picture.

    Attributes:
        clean: The picture in the space it is changed in, (h, w, 3) in [0, 1].
        prompt: The prompt's text.

    Args:
        parts: Of a local model.
        example: A question about one picture.
        image: The picture as it was collected.

    Raises:
        UsageError: The example has another number of pictures, or the way from the pixels to the
            model is not known.
        ModelError: The question holds a special token.
    """

    def __init__(self, parts: ModelParts, example: Example, image: Image) -> None:
        if len(example.images) != 1:
            raise UsageError(
                f"Example {example.id!r} has {len(example.images)} pictures; one is required to "
                "change its pixels. Choose another example."
            )
        self._parts, inputs = parts, parts.inputs
        self.prompt = inputs.prompt(
            user_text(example, parts.style), 1, where=f"Example {example.id!r}"
        )
        self._tensors = inputs.tensors([self.prompt], [(image,)])
        self._layout = pixel_layout(
            inputs.processor.image_processor,
            lambda other: inputs.tensors([self.prompt], [(other,)]),
            image,
            self._tensors,
            str(parts.network.config.model_type),
        )
        self.clean = self._layout.clean

    def logprobs(self, pixels: torch.Tensor, answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """Log-probability of each answer's tokens behind the prompt, in nats, (n, answers).

        Args:
            pixels: (n, h, w, 3) in the space of `clean`; gradients flow back to them.
            answers: Token ids.
        """
        network, n, count = self._parts.network, len(pixels), len(answers)
        ids, wanted = _sequences(self._tensors["input_ids"][0], answers)
        longest = wanted.shape[1]
        inputs = self._inputs(pixels, count, behind=longest)
        if network._supports_logits_to_keep():
            inputs["logits_to_keep"] = longest + 1
        inputs["input_ids"] = ids.to(network.device).repeat(n, 1)
        logits = network(use_cache=False, return_dict=True, **inputs).logits
        wanted = wanted.to(logits.device).repeat(n, 1)
        read = torch.log_softmax(logits[:, -longest - 1 : -1].float(), -1)
        chosen = read.gather(2, wanted.clamp_min(0)[..., None])[..., 0]
        return torch.where(wanted >= 0, chosen, 0.0).sum(1).reshape(n, count)

    def decoded(self, pixels: torch.Tensor, max_new_tokens: int) -> list[Decoded]:
        """The greedy answer to each picture, (n, h, w, 3), as it is collected.

        Raises:
            ModelError: A logit is NaN or infinite.
        """
        parts = self._parts
        if parts.decoding is not Decoding.SHARED and len(pixels) > 1:
            return [self.decoded(one[None], max_new_tokens)[0] for one in pixels]
        with torch.inference_mode():
            start = prefill(
                parts.network,
                self._inputs(pixels, 1),
                image_token_id=parts.image_token_id,
                recompute=parts.decoding is Decoding.RECOMPUTED,
            )
            rows, _, _ = decode(
                start,
                uniforms=np.empty((len(pixels), 0, 0)),
                max_new_tokens=max_new_tokens,
                eos_ids=parts.eos_ids,
                sampling=_GREEDY,
            )
        return rows

    def require_readable(self, answer: Sequence[int]) -> None:
        """Raises unless an answer can be read behind the prompt.

        Raises:
            ModelError: It holds the token at a picture's places.
        """
        if self._parts.image_token_id in answer:
            raise ModelError(
                "The model's answer holds its own image token; an answer in words is required to "
                "score it. Try another question."
            )

    def _inputs(self, pixels: torch.Tensor, count: int, behind: int = 0) -> dict[str, Any]:
        """The model's inputs for every picture ``count`` times, with room behind the prompt."""
        network = self._parts.network
        device, dtype = network.device, network.dtype
        found: dict[str, Any] = {
            "pixel_values": self._layout.handed_over(pixels, count).to(device, dtype)
        }
        for name, value in self._tensors.items():
            if name != "pixel_values":
                grown = self._grown(name, value, behind)
                every = grown.repeat(len(pixels) * count, *[1] * (value.dim() - 1))
                found[name] = every.to(device, dtype if every.is_floating_point() else None)
        return found

    def _grown(self, name: str, value: torch.Tensor, behind: int) -> torch.Tensor:
        """An input with room behind the prompt: masks grow by ones, types by those of text."""
        if value.shape != self._tensors["input_ids"].shape:
            return value
        # PaliGemma's answers are of type 1, so that the prompt does not see them.
        ones = "mask" in name or self._parts.network.config.model_type == "paligemma"
        return torch.nn.functional.pad(value, (0, behind), value=int(ones))


def _sequences(
    prompt: torch.Tensor, answers: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt and answer in one row each, and the answers' tokens beside them, -1 where none."""
    longest = max(len(ids) for ids in answers)
    wanted = torch.full((len(answers), longest), -1)
    for row, ids in enumerate(answers):
        wanted[row, : len(ids)] = torch.as_tensor(ids)
    # What stands behind a shorter answer is never seen by what stands before it.
    return torch.cat([prompt.expand(len(answers), -1), wanted.clamp_min(0)], 1), wanted
