"""Scores of a question's answers as a differentiable function of the pixels a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int

from sightline.core.errors import UsageError
from sightline.core.text import answer_form
from sightline.models.asking import reply_spellings
from sightline.models.pixel_reading import PixelReader
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
        clean: The picture in the space it is changed in, (h, w, 3) in [0, 1].
        answers: The scored answers; no and yes, in that order, where the question asks for them.

    Args:
        model: A local model.
        example: A question about one picture.
        image: The picture as it was collected.
        answers: What is scored; None = the example's choices, or no and yes.

    Raises:
        UsageError: The model is not a local one, the example has several pictures or no answers to
            choose among, or the way from the pixels to the model is not known.
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
        if len(self.answers) < 2:
            raise UsageError(
                f"Example {example.id!r} has {len(self.answers)} answers; at least two are "
                "required. Choose another example, or name the answers."
            )
        self._read = PixelReader(parts, example, image)
        self.clean = self._read.clean
        prompt = self._read.prompt
        spelled = _replies(parts, prompt) if said else _texts(parts, prompt, self.answers)
        self._tokens = [ids for own in spelled for ids in own]
        self._owner = torch.as_tensor([i for i, own in enumerate(spelled) for _ in own])

    def scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer, in nats, (n, answers).

        Args:
            pixels: (n, h, w, 3) in the space of `clean`; gradients flow back to them.
        """
        totals = self._read.logprobs(pixels, self._tokens)
        if len(self._tokens) == len(self.answers):
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
