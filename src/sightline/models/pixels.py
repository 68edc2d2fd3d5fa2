"""Scores of answers as a differentiable function of the pixels a model reads.

The model's processor reads the picture once; what it hands over, its normalisation taken back, is
the model's *own pixel space*: values in [0, 1] at the model's own input size. From there on
everything happens in torch, so that gradients reach the pixels and nothing is scaled or rounded
between a changed pixel and the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from sightline.core.errors import UsageError
from sightline.core.text import answer_form
from sightline.data.prompts import user_text
from sightline.models.asking import reply_spellings
from sightline.models.pixel_layouts import pixel_layout
from sightline.models.transformers import ModelParts, TransformersModel

if TYPE_CHECKING:
    from PIL.Image import Image

    from sightline.core.types import Example

NO_YES = ("no", "yes")


class PixelScorer:
    """Log-probabilities of the answers to one question, from the pixels of its one picture.

    Options and named answers are scored as the record's options are: the text with the token that
    ends the turn. Yes and no are scored as the record's replies are: as beginnings, in all their
    spellings.

    Attributes:
        clean: The picture in the model's own pixel space, (h, w, 3) in [0, 1].
        answers: The scored answers; no and yes, in that order, where the question asks for them.

    Args:
        model: A local model.
        example: A question about one picture.
        image: The picture as it was collected.
        answers: What is scored; None = the example's choices, or no and yes.

    Raises:
        UsageError: The model is not a local one, the example has several pictures or no answers to
            choose among, or the way from the pixels to the model is not known (tiles).
        ModelError: The question holds a special token.
    """

    def __init__(
        self,
        model: object,
        example: Example,
        image: Image,
        answers: Sequence[str] | None = None,
    ) -> None:
        parts = require_white_box(model).parts
        said = answers is None and example.choices is None and answer_form(example) == "yes_no"
        self.answers = NO_YES if said else tuple(answers or example.choices or ())
        if len(example.images) != 1 or len(self.answers) < 2:
            raise UsageError(
                f"Example {example.id!r} has {len(example.images)} pictures and "
                f"{len(self.answers)} answers; one picture and at least two answers are required. "
                "Choose another example, or name the answers."
            )
        inputs = parts.inputs
        self._network = parts.network
        prompt = inputs.prompt(user_text(example, parts.style), 1, where=f"Example {example.id!r}")
        tensors = inputs.tensors([prompt], [(image,)])
        spelled = _replies(parts, prompt) if said else _texts(parts, prompt, self.answers)
        kind = str(parts.network.config.model_type)
        self._layout = pixel_layout(inputs.processor.image_processor, tensors, kind)
        self.clean = self._layout.clean
        tokens = [ids for own in spelled for ids in own]
        self._owner = torch.as_tensor([i for i, own in enumerate(spelled) for _ in own])
        self._ids, self._wanted = _sequences(tensors["input_ids"][0], tokens)
        self._others = {
            name: self._grown(name, value, tensors["input_ids"].shape)
            for name, value in tensors.items()
            if name not in ("input_ids", "pixel_values")
        }

    def scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer, in nats, (n, answers).

        Args:
            pixels: (n, h, w, 3) in the model's own pixel space; gradients flow back to them.
        """
        n, count = len(pixels), len(self._ids)
        device, dtype = self._network.device, self._network.dtype
        inputs: dict[str, Any] = {
            name: value.to(device).repeat(n, *[1] * (value.dim() - 1))
            for name, value in self._others.items()
        }
        longest = self._wanted.shape[1]
        if self._network._supports_logits_to_keep():
            inputs["logits_to_keep"] = longest + 1
        logits = self._network(
            input_ids=self._ids.to(device).repeat(n, 1),
            pixel_values=self._layout.handed_over(pixels, count).to(device, dtype),
            use_cache=False,
            return_dict=True,
            **inputs,
        ).logits
        wanted = self._wanted.to(logits.device).repeat(n, 1)
        read = torch.log_softmax(logits[:, -longest - 1 : -1].float(), -1)
        chosen = read.gather(2, wanted.clamp_min(0)[..., None])[..., 0]
        totals = torch.where(wanted >= 0, chosen, 0.0).sum(1).reshape(n, count)
        if count == len(self.answers):
            return totals
        return torch.stack(
            [
                totals[:, self._owner == i].logsumexp(1).clamp_max(0.0)
                for i in range(len(self.answers))
            ],
            1,
        )

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

    def _grown(self, name: str, value: torch.Tensor, prompt: torch.Size) -> torch.Tensor:
        """An input of one prompt, for all sequences; masks grow by ones, types by those of text."""
        if value.shape == prompt:
            rest = self._ids.shape[1] - prompt[1]
            # PaliGemma's answers are of type 1, so that the prompt does not see them.
            ones = "mask" in name or self._network.config.model_type == "paligemma"
            value = torch.nn.functional.pad(value, (0, rest), value=int(ones))
        return value.expand(len(self._ids), *value.shape[1:])


def require_white_box(model: object) -> TransformersModel:
    """The model, if gradients can flow through it.

    Raises:
        UsageError: It is not a local transformers model.
    """
    if not isinstance(model, TransformersModel):
        raise UsageError(
            f"A {type(model).__name__} does not show its gradients; a local transformers model is "
            "required. Choose another model, or a perturbation without gradients."
        )
    return model


def _texts(parts: ModelParts, prompt: str, answers: Sequence[str]) -> list[list[list[int]]]:
    """Tokens of each answer as it follows the prompt, with the end of the turn."""
    texts = [answer.strip() for answer in answers]
    found = parts.inputs.continuations(prompt, texts, parts.form)
    return [[[*ids, parts.form.end_id]] for ids in found]


def _replies(parts: ModelParts, prompt: str) -> list[list[list[int]]]:
    """Tokens of no and yes in all their spellings, in that order."""
    spelled = reply_spellings(parts.inputs, parts.form, prompt, NO_YES)
    if spelled is None:
        raise UsageError(
            "The model's vocabulary does not tell yes from no at the beginning of a reply; it must "
            "to score them. Name the answers, or choose questions with options."
        )
    return [[list(ids) for ids in sorted(own)] for own in spelled]


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
