"""A free answer's log-probability, and whether it stays, from the pixels a model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int

from sightline.core.text import canonical_answer
from sightline.models.decoding import Decoded
from sightline.models.pixel_reading import PixelReader
from sightline.models.pixels import require_white_box

if TYPE_CHECKING:
    from PIL.Image import Image

    from sightline.core.types import Example


class AnswerScorer:
    """The log-probability of the answer to the clean picture, under changed pixels.

    The clean answer is decoded greedily from the clean picture. A changed picture's label is found
    by decoding again: it is the clean one where the short form of the answer is, which is what
    graders compare and what an audit counts as a flip.

    Attributes:
        clean: The picture in the space it is changed in, (h, w, 3) in [0, 1].
        answers: The clean answer alone.

    Args:
        model: A local model.
        example: A question about one picture.
        image: The picture as it was collected.
        max_new_tokens: Limit on tokens of an answer.

    Raises:
        UsageError: The model is not a local one, the example has several pictures, or the way from
            the pixels to the model is not known.
        ModelError: The question or the answer holds a special token, or a logit is not finite.

    Source:
        arXiv 2602.06652 attacks the score of the chosen option and has no free answers. Ours: the
        clean answer's tokens, its end with them, take the option's place.
    """

    def __init__(
        self, model: object, example: Example, image: Image, *, max_new_tokens: int
    ) -> None:
        self._parts = require_white_box(model).parts
        self._example, self._limit = example, max_new_tokens
        self._read = PixelReader(self._parts, example, image)
        self.clean = self._read.clean
        (decoded,) = self._read.decoded(torch.from_numpy(self.clean[None]), max_new_tokens)
        self._read.require_readable(decoded.ids)
        self._ids = decoded.ids
        self.answers: tuple[str, ...] = (self._text(decoded),)

    def scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """Log-probability of the clean answer's tokens, in nats, (n, 1).

        Args:
            pixels: (n, h, w, 3) in the space of `clean`; gradients flow back to them.
        """
        return self._read.logprobs(pixels, [self._ids])

    def labels(self, pixels: Float[np.ndarray, "n h w c"]) -> Int[np.ndarray, " n"]:
        """0 where the greedy answer has the short form of the clean one, 1 where it has another."""
        rows = self._read.decoded(torch.from_numpy(pixels), self._limit)
        clean = canonical_answer(self._example, self.answers[0])
        found = [canonical_answer(self._example, self._text(row)) for row in rows]
        return np.array([int(other != clean) for other in found], dtype=np.int64)

    def _text(self, decoded: Decoded) -> str:
        return self._parts.reader.generation(decoded, self._read.prompt).text
