"""Prompts and images read the fastest way that gives a model's own numbers.

Questions about the same images share one reading of them; a batch on a processor is read in parts
of equal length; a model whose cache cannot be continued keeps its inputs, to be read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sightline.core.errors import ModelError, UnreadableError
from sightline.models.failures import one_line
from sightline.models.inputs import InputBuilder
from sightline.models.prefill import Prefill, is_separate, prefill
from sightline.models.reading_apart import can_join, joined, parts_of, rows_of
from sightline.models.shared_prefix import PrefixSharing
from sightline.models.verification import Decoding

if TYPE_CHECKING:
    from PIL.Image import Image


class PromptReader:
    """Reads batches of prompts with one model.

    Args:
        model: A transformers image-text-to-text model.
        inputs: Builds its tensors.
        image_token_id: The token at a picture's places.
        decoding: How the model is decoded.
    """

    def __init__(
        self, model: Any, inputs: InputBuilder, image_token_id: int | None, decoding: Decoding
    ) -> None:
        self._model, self._inputs, self._image_token_id = model, inputs, image_token_id
        self._recompute = decoding is Decoding.RECOMPUTED
        self._shares = decoding is Decoding.SHARED and not is_separate(model)
        self._in_parts = decoding is Decoding.SHARED and can_join(model)
        self._parameters = sum(weights.numel() for weights in model.parameters())
        text = model.config.get_text_config()
        self._positions: int | None = getattr(text, "max_position_embeddings", None)
        self.sharing = PrefixSharing()

    def read(
        self,
        prompts: Sequence[str],
        images: Sequence[tuple[Image, ...]],
        layers: tuple[int, ...] = (),
        *,
        whole: bool = False,
    ) -> Prefill:
        """Reads prompts with equal numbers of images once.

        Args:
            prompts: The prompts.
            images: Images of each; the same objects where questions are about the same images.
            layers: Indices of the hidden states to keep.
            whole: Read all rows in one pass, as an open `VisionTap` needs.

        Raises:
            UnreadableError: Prompts are longer than the model was made for.
            ModelError: The processor or the model refuses an image or a text.
        """

        def plain() -> Prefill:
            return self._plain(prompts, images, layers, whole)

        try:
            if not self._shares:
                return plain()
            return self.sharing.prefill(
                self._model, self._inputs, prompts, images, layers, plain, self._require_room
            )
        except (ValueError, IndexError, TypeError) as error:
            # How processors and models refuse an image or a text.
            raise ModelError(one_line(error, "the model refused its inputs")) from error

    def _plain(
        self,
        prompts: Sequence[str],
        images: Sequence[tuple[Image, ...]],
        layers: tuple[int, ...],
        whole: bool,
    ) -> Prefill:
        device, dtype = self._model.device, self._model.dtype
        inputs = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in self._inputs.tensors(prompts, images).items()
        }
        lengths = inputs["attention_mask"].sum(1).tolist()
        self._require_room(lengths)
        if whole or not self._in_parts:
            return self._pass(inputs, layers)
        rows = parts_of(lengths, self._parameters)
        parts = [rows_of(inputs, own, len(images[0])) for own in rows]
        if len(rows) == 1 or None in parts:
            return self._pass(inputs, layers)
        return joined([self._pass(part, layers) for part in parts if part is not None], rows)

    def require_texts(self, prompts: Sequence[str]) -> None:
        """Refuses prompts that are too long by their text alone, before pictures are prepared.

        Raises:
            UnreadableError: There are some.
        """
        if self._positions is None:
            return
        # A token is at least one character: other prompts are short enough.
        rows = [row for row, text in enumerate(prompts) if len(text) >= self._positions]
        if rows:
            texts = [prompts[row] for row in rows]
            ids = self._inputs.tokenizer(texts, add_special_tokens=False)["input_ids"]
            self._require_room(dict(zip(rows, map(len, ids), strict=True)))

    def _require_room(self, lengths: Sequence[int] | Mapping[int, int]) -> None:
        """Raises unless prompts of these many tokens, by row, can be read."""
        by_row = lengths if isinstance(lengths, Mapping) else dict(enumerate(lengths))
        most = self._positions
        found = {row: n for row, n in by_row.items() if most is not None and n >= most}
        if found:
            raise UnreadableError(
                "context_length_exceeded",
                {
                    row: f"The prompt takes {length} tokens or more, images included; the model "
                    f"reads fewer than {most}. Shorten the question, or send fewer or smaller "
                    "images."
                    for row, length in found.items()
                },
            )

    def _pass(self, inputs: dict[str, torch.Tensor], layers: tuple[int, ...]) -> Prefill:
        return prefill(
            self._model,
            inputs,
            image_token_id=self._image_token_id,
            layers=layers,
            recompute=self._recompute,
        )
