"""From text and images to a model's input tensors, through the model's own processor.

The prompt is the processor's chat template with the images first, then the text; a template that
takes no list of parts gets one string with a marker line per image. A model without a template
gets the plain form: one image marker per image, each on its own line, then the text (PaliGemma:
markers without line breaks; BLIP: the text alone; both as their processors expect).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sightline.core.errors import ModelError, UnreadableError, UsageError
from sightline.models.soundness import refusals

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_PROBE = "answerprobe"
_ANY_LENGTH = int(1e30)
"""What transformers itself writes where a tokenizer has no limit."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How the template continues a prompt with an answer.

    Attributes:
        lead: White space between the prompt and the answer's first character.
        end_id: The token that ends the assistant's turn.
    """

    lead: str
    end_id: int


def images_only(processor_class: Any) -> Any:
    """A processor class without its video processor, which needs torchvision; images do not.

    The class itself is kept, so that images and texts go through the model's own code.
    """
    kept = [name for name in processor_class.get_attributes() if name != "video_processor"]
    return type(
        processor_class.__name__, (processor_class,), {"get_attributes": staticmethod(lambda: kept)}
    )


class InputBuilder:
    """Builds prompts and tensors for one model; keeps the processor and what it says of itself."""

    def __init__(self, processor: Any, model_type: str, image_token_id: int | None) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.model_type = model_type
        self.image_token_id = image_token_id
        self.tokenizer.padding_side = "left"
        # What is too long is refused by who reads it (`reading.py`); nothing is cut here, and a
        # tokenizer that knows no length logs no warning of its own about what was refused.
        self.tokenizer.model_max_length = _ANY_LENGTH
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.template = getattr(processor, "chat_template", None) or self.tokenizer.chat_template
        # BLIP's processors put the image markers in front themselves.
        self._adds_markers = hasattr(processor, "num_query_tokens")
        self._marker = _image_marker(processor, self.tokenizer, image_token_id)
        self._reserved = _reserved_strings(self.tokenizer, self._marker)
        self._takes_parts = not self.template or self._shows_parts()

    def require_working(self, name: str) -> None:
        """Raises unless a question with a picture becomes inputs that hold both.

        Args:
            name: What the user calls the model.

        Raises:
            UsageError: The chat template or the processor's files do not go with the model.
        """
        try:
            prompt = self._render(_PROBE, 1, answer=None)
        except ModelError as error:
            raise UsageError(f"{name}: {error}") from error
        if _PROBE not in prompt:
            raise UsageError(
                f"The chat template of {name} leaves out the question; one that shows the user's "
                "turn is required. Mend chat_template.jinja, or download the model again."
            )
        with refusals(name, "its chat template, processor and tokenizer files", "a whole model"):
            ids = self.tensors([prompt], [(_probe_image(),)])["input_ids"]
        if self.image_token_id is not None and not bool((ids == self.image_token_id).any()):
            raise UsageError(
                f"The inputs of {name} have no place for the picture (token "
                f"{self.image_token_id}); chat template, tokenizer and config.json of one model "
                "are required. Download the model again."
            )

    def prompt(self, text: str, images: int, *, where: str) -> str:
        """Returns the prompt text up to the place where the answer starts.

        Raises:
            UnreadableError: The text holds one of the model's special tokens.
        """
        found = next((token for token in self._reserved if token in text), None)
        if found is not None:
            raise UnreadableError(
                "special_token",
                {
                    0: f"{where} holds {found!r}, a special token of this model; plain text is "
                    "required. Reword it."
                },
            )
        return self._render(text, images, answer=None)

    def answer_form(self, eos_ids: Sequence[int]) -> AnswerForm:
        """Reads off the template how an answer follows the prompt and which token ends it.

        The lead is kept only where it is white space; a template that inserts words before the
        answer leaves it empty. The end is the first token after the answer if that is one of the
        model's end tokens, else the tokenizer's end token, else the first of the model's.
        """
        preferred = self.tokenizer.eos_token_id
        end_id = preferred if preferred in eos_ids else eos_ids[0]
        prompt = self._render("question", 0, answer=None)
        if not self.template:
            return AnswerForm("" if self._spoken(prompt)[-1:].isspace() else " ", end_id)
        whole = self._render("question", 0, answer=_PROBE)
        if not whole.startswith(prompt) or _PROBE not in whole[len(prompt) :]:
            return AnswerForm("", end_id)
        lead, _, tail = whole[len(prompt) :].partition(_PROBE)
        tail_ids = self.tokenizer(tail.strip(), add_special_tokens=False)["input_ids"]
        if tail_ids and tail_ids[0] in eos_ids:
            end_id = tail_ids[0]
        return AnswerForm(lead if lead.isspace() else "", end_id)

    def continuations(
        self, prompt: str, answers: Sequence[str], form: AnswerForm
    ) -> list[list[int]]:
        """Tokenises each answer as it would follow the prompt, end token not included.

        Prompt and answer are tokenised together and the prompt's tokens cut off; where the
        boundary would merge into one token, the answer is tokenised by itself, since the prompt's
        tokens are what the model has read.
        """
        spoken = self._spoken(prompt)
        texts = [spoken, *(spoken + form.lead + answer for answer in answers)]
        encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        before, joined = encoded[0], encoded[1:]
        return [
            ids[len(before) :]
            if ids[: len(before)] == before and len(ids) > len(before)
            else self.tokenizer(answer, add_special_tokens=False)["input_ids"]
            for ids, answer in zip(joined, answers, strict=True)
        ]

    def tensors(
        self, prompts: Sequence[str], images: Sequence[tuple[Image, ...]]
    ) -> dict[str, torch.Tensor]:
        """Returns the model's inputs for prompts with equal numbers of images, left-padded."""
        bos = self.tokenizer.bos_token
        settings = {"return_tensors": "pt", "padding": True}
        if bos and self.template and all(prompt.startswith(bos) for prompt in prompts):
            settings["add_special_tokens"] = False  # the template has written it already
        pictures: Any = None
        if images and images[0]:
            nested = [list(row) for row in images]
            pictures = [image for row in nested for image in row] if self._adds_markers else nested
        encoded = self.processor(text=list(prompts), images=pictures, **settings)
        return {name: value for name, value in encoded.items() if name != "labels"}

    def _render(self, text: str, images: int, *, answer: str | None) -> str:
        if not self.template:
            if self._adds_markers:
                return text
            end = "" if self.model_type == "paligemma" else "\n"
            return (self._marker + end) * images + text
        turns: list[dict[str, Any]] = [{"role": "user", "content": self._content(text, images)}]
        if answer is not None:
            turns.append({"role": "assistant", "content": self._content(answer, 0)})
        try:
            return cast(
                str,
                self.processor.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=answer is None
                ),
            )
        except _template_errors() as error:
            raise ModelError(
                f"The model's chat template fails ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:120]}); one that takes a user's turn is required. "
                "Mend chat_template.jinja, or download the model again."
            ) from error

    def _content(self, text: str, images: int) -> Any:
        if self._takes_parts:
            return [{"type": "image"}] * images + [{"type": "text", "text": text}]
        return (self._marker + "\n") * images + text

    def _shows_parts(self) -> bool:
        """Whether the template takes content as a list of parts; older ones take a string."""
        turns = [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}]
        try:
            shown = self.processor.apply_chat_template(turns, tokenize=False)
        except _template_errors():
            return False
        return _PROBE in shown and "'type'" not in shown

    def _spoken(self, prompt: str) -> str:
        # PaliGemma's processor ends every prompt with a line break.
        return prompt + "\n" if self.model_type == "paligemma" else prompt


def _template_errors() -> tuple[type[Exception], ...]:
    """What rendering a chat template that is broken, or made for other turns, may raise."""
    from jinja2 import TemplateError

    return (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def _probe_image() -> Image:
    from PIL import Image

    return Image.linear_gradient("L").resize((96, 64)).convert("RGB")


def image_positions(ids: torch.Tensor, image_token_id: int | None) -> torch.Tensor:
    """Marks the image's positions in prompt ids, (n, prompt) bool."""
    import torch

    if image_token_id is None:
        return torch.zeros_like(ids, dtype=torch.bool)
    return ids == image_token_id


def blank_images(images: Sequence[Image], colour: str) -> tuple[Image, ...]:
    """Returns images of the same sizes filled with one colour."""
    from PIL import Image

    return tuple(Image.new("RGB", image.size, colour) for image in images)


def as_int32(values: Sequence[int]) -> np.ndarray:
    """Token ids as the records keep them."""
    return np.asarray(values, dtype=np.int32)


def _image_marker(processor: Any, tokenizer: Any, image_token_id: int | None) -> str:
    token = getattr(processor, "image_token", None)
    if token is not None:
        return str(token)
    return "" if image_token_id is None else str(tokenizer.convert_ids_to_tokens(image_token_id))


def _reserved_strings(tokenizer: Any, marker: str) -> tuple[str, ...]:
    special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    return tuple(sorted(special | set(tokenizer.all_special_tokens) | ({marker} - {""})))
