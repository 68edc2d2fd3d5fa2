"""What the model is asked: an example's question, its options and the answer instruction as text.

The instruction shapes every answer and every probability, so it is recorded with the run. The
text goes into the user's turn of the model's own chat template; see `sightline.models.inputs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sightline.core.errors import UsageError
from sightline.core.types import Example


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How an example becomes the user's text; an empty instruction is left out.

    Attributes:
        option: One line per choice, with ``{letter}`` and ``{text}``.
        choice_instruction: Last line of a multiple-choice question.
        short_instruction: Last line of a free question.
    """

    option: str = "{letter}. {text}"
    choice_instruction: str = "Answer with the option's letter."
    short_instruction: str = "Answer with a single word or phrase."

    @property
    def asks_for_letters(self) -> bool:
        """Whether multiple choice is to be answered by a letter, so that letters can be scored.

        Not where the options carry no letters, nor where the instruction names the options' text
        and no letter.

        Example:
            >>> PromptStyle().asks_for_letters
            True
            >>> PromptStyle(choice_instruction="Answer with the option's text.").asks_for_letters
            False
        """
        words = set(re.findall(r"[a-z]+", self.choice_instruction.lower()))
        by_text = not words.isdisjoint({"text", "texts"}) and words.isdisjoint(
            {"letter", "letters"}
        )
        return "{letter}" in self.option and not by_text

    def to_dict(self) -> dict[str, str]:
        """The strings as they go into the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PromptStyle:
        """Reads what `to_dict` wrote; strings left out keep their defaults.

        Raises:
            UsageError: An unknown name, or a value that is not a string.
        """
        known = {field.name for field in fields(cls)}
        for name, value in values.items():
            if name not in known or not isinstance(value, str):
                raise UsageError(
                    f"Prompt style has {name!r} = {value!r}; strings named "
                    f"{', '.join(sorted(known))} are allowed. Correct or remove it."
                )
        return cls(**values)


def user_text(example: Example, style: PromptStyle) -> str:
    r"""Returns the text of the user's turn, images not included.

    Example:
        >>> from sightline.core.types import Example
        >>> example = Example(id="1", question="What is it? ", choices=("a cat", "a dog"))
        >>> user_text(example, PromptStyle())
        "What is it?\nA. a cat\nB. a dog\nAnswer with the option's letter."
        >>> user_text(Example(id="2", question="What is it?"), PromptStyle(short_instruction=""))
        'What is it?'
    """
    lines = [example.question.strip()]
    if example.choices is None:
        instruction = style.short_instruction
    else:
        instruction = style.choice_instruction
        lines += [
            style.option.replace("{letter}", letter).replace("{text}", text.strip())
            for letter, text in zip(example.letters, example.choices, strict=True)
        ]
    if instruction:
        lines.append(instruction)
    return "\n".join(lines)
