"""Scores of answers as a differentiable function of the pixels a model reads.

The model's processor reads the picture once; what it hands over, its normalisation taken back, is
the model's *own pixel space*: values in [0, 1] at the model's own input size. From there on
everything happens in torch, so that gradients reach the pixels and nothing is scaled or rounded
between a changed pixel and the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int

from sightline.core.errors import UsageError
from sightline.data.prompts import user_text
from sightline.models.transformers import TransformersModel

if TYPE_CHECKING:
    from PIL.Image import Image

    from sightline.core.types import Example

_TOLERANCE = 1e-3


class PixelScorer:
    """Log-probabilities of the answers to one question, from the pixels of its one picture.

    Attributes:
        clean: The picture in the model's own pixel space, (h, w, 3) in [0, 1].
        answers: The scored answers.

    Args:
        model: A local model.
        example: A question about one picture.
        image: The picture as it was collected.
        answers: What is scored; None = the example's choices.

    Raises:
        UsageError: The model is not a local one, the example has several pictures or no choices, or
            the model's processor does not hand over one picture of plain channels (tiles, patches).
        ModelError: The question holds a special token.
    """

    def __init__(
        self,
        model: object,
        example: Example,
        image: Image,
        answers: Sequence[str] | None = None,
    ) -> None:
        if not isinstance(model, TransformersModel):
            raise UsageError(
                f"A {type(model).__name__} does not show its gradients; a local transformers model "
                "is required. Choose another model, or a perturbation without gradients."
            )
        self.answers = tuple(answers if answers is not None else example.choices or ())
        if len(example.images) != 1 or len(self.answers) < 2:
            raise UsageError(
                f"Example {example.id!r} has {len(example.images)} pictures and "
                f"{len(self.answers)} answers; one picture and at least two answers are required. "
                "Choose another example, or name the answers."
            )
        inputs = model._inputs
        self._model = model._model
        prompt = inputs.prompt(user_text(example, model._style), 1, where=f"Example {example.id!r}")
        tensors = inputs.tensors([prompt], [(image,)])
        form = model._form
        texts = [answer.strip() for answer in self.answers]
        tokens = [[*ids, form.end_id] for ids in inputs.continuations(prompt, texts, form)]
        self._picture_shape = tensors["pixel_values"].shape[1:]
        self._mean, self._std = _normalisation(inputs.processor.image_processor)
        self.clean = self._own_pixels(tensors["pixel_values"])
        self._ids, self._wanted = _sequences(tensors["input_ids"][0], tokens)
        self._others = {
            name: self._grown(name, value, tensors["input_ids"].shape)
            for name, value in tensors.items()
            if name not in ("input_ids", "pixel_values")
        }
        self._prompt_length = tensors["input_ids"].shape[1]

    def scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer and the end of the turn, in nats, (n, answers).

        Args:
            pixels: (n, h, w, 3) in the model's own pixel space; gradients flow back to them.
        """
        n, count = len(pixels), len(self.answers)
        device, dtype = self._model.device, self._model.dtype
        normal = (pixels - self._mean.to(pixels)) / self._std.to(pixels)
        pictures = normal.permute(0, 3, 1, 2).reshape(n, *self._picture_shape).to(device, dtype)
        inputs = {
            name: value.to(device).repeat(n, *[1] * (value.dim() - 1))
            for name, value in self._others.items()
        }
        logits = self._model(
            input_ids=self._ids.to(device).repeat(n, 1),
            pixel_values=pictures.repeat_interleave(count, 0),
            use_cache=False,
            return_dict=True,
            **inputs,
        ).logits
        wanted = self._wanted.to(logits.device).repeat(n, 1)
        answers = torch.log_softmax(logits[:, self._prompt_length - 1 : -1].float(), -1)
        chosen = answers.gather(2, wanted.clamp_min(0)[..., None])[..., 0]
        return torch.where(wanted >= 0, chosen, 0.0).sum(1).reshape(n, count)

    def margin(self, pixels: torch.Tensor, against: int) -> torch.Tensor:
        """Score of one answer less the best of the others, in nats, (n,); higher = safer."""
        scores = self.scores(pixels)
        others = torch.cat([scores[:, :against], scores[:, against + 1 :]], 1)
        return scores[:, against] - others.max(1).values

    def values(self, pixels: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n answers"]:
        """`scores` without gradients, as numbers."""
        with torch.inference_mode():
            return self.scores(torch.from_numpy(pixels)).double().cpu().numpy()

    def labels(self, pixels: Float[np.ndarray, "n h w c"]) -> Int[np.ndarray, " n"]:
        """The most probable answer, by number; the first of equals."""
        return np.asarray(self.values(pixels).argmax(axis=1))

    def _own_pixels(self, handed_over: torch.Tensor) -> Float[np.ndarray, "h w 3"]:
        """Takes the processor's normalisation back."""
        shape = tuple(handed_over.shape)
        if shape[:-2] not in ((1, 3), (1, 1, 3)):
            raise UsageError(
                f"The processor of {self._model.config.model_type} hands over pixels of shape "
                f"{shape}; one picture of three channels is required to attack "
                "its pixels. Choose a model without tiles and patches."
            )
        picture = handed_over.reshape(shape[-3:]).permute(1, 2, 0).double()
        own = picture * self._std + self._mean
        low, high = float(own.min()), float(own.max())
        if low < -_TOLERANCE or high > 1 + _TOLERANCE:
            raise UsageError(
                f"Pixels of {self._model.config.model_type} run from {low:.3g} to {high:.3g} "
                "without their normalisation; values in [0, 1] are required. Choose a model whose "
                "processor divides by 255 and takes off mean and deviation alone."
            )
        return np.asarray(own.clamp(0, 1).numpy())

    def _grown(self, name: str, value: torch.Tensor, prompt: torch.Size) -> torch.Tensor:
        """An input of one prompt, for all answers; masks grow by ones, token types by zeros."""
        if value.shape == prompt:
            rest = self._ids.shape[1] - prompt[1]
            value = torch.nn.functional.pad(value, (0, rest), value=int("mask" in name))
        return value.expand(len(self._ids), *value.shape[1:])


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


def _normalisation(processor: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation the image processor normalises with."""
    if not getattr(processor, "do_normalize", False):
        return torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    mean, std = (
        torch.as_tensor(getattr(processor, name), dtype=torch.float64).expand(3)
        for name in ("image_mean", "image_std")
    )
    return mean, std
