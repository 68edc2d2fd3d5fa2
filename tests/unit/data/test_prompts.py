"""The user's text: question, options, instruction."""

from __future__ import annotations

import pytest

from sightline.core.errors import UsageError
from sightline.core.types import Example
from sightline.data.prompts import PromptStyle, user_text


def test_free_question_ends_with_the_short_instruction() -> None:
    example = Example(id="1", question="  What colour is it?\n")
    assert user_text(example, PromptStyle()) == (
        "What colour is it?\nAnswer with a single word or phrase."
    )


def test_choices_are_one_line_each_with_their_letter() -> None:
    example = Example(id="1", question="Which?", choices=("red ", "{letter} blue"))
    assert user_text(example, PromptStyle()) == (
        "Which?\nA. red\nB. {letter} blue\nAnswer with the option's letter."
    )


def test_more_than_26_choices() -> None:
    example = Example(id="1", question="Which?", choices=tuple(str(i) for i in range(28)))
    assert "\nZ. 25\nAA. 26\nAB. 27\n" in user_text(example, PromptStyle())


def test_instructions_can_be_replaced_or_left_out() -> None:
    style = PromptStyle(option="({letter}) {text}", choice_instruction="", short_instruction="")
    assert user_text(Example(id="1", question="What?"), style) == "What?"
    chosen = Example(id="2", question="Which?", choices=("a", "b"))
    assert user_text(chosen, style) == "Which?\n(A) a\n(B) b"


def test_style_round_trips() -> None:
    style = PromptStyle(short_instruction="Be brief.")
    assert PromptStyle.from_dict(style.to_dict()) == style
    assert PromptStyle.from_dict({}) == PromptStyle()


@pytest.mark.parametrize("values", [{"colour": "red"}, {"option": 3}])
def test_unknown_style_values_are_refused(values: dict) -> None:
    with pytest.raises(UsageError, match="strings named"):
        PromptStyle.from_dict(values)
