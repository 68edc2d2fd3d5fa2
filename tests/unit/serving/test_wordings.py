"""Texts as prompt styles word them, taken apart again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.core.types import Example
from sightline.data.prompts import PromptStyle, question_text, user_text
from sightline.serving.wordings import missing_wording, taken_apart

PLAIN = PromptStyle(short_instruction="", choice_instruction="")
STYLES = [
    PromptStyle(),
    PLAIN,
    PromptStyle(short_instruction="In a word.", choice_instruction="In a word."),
    PromptStyle(option="({letter}) {text};", choice_instruction="Which letter?"),
    PromptStyle(option="- {text}", choice_instruction="Repeat an option."),
    PromptStyle(short_instruction=""),
    PromptStyle(choice_instruction=""),
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("choices", [None, ("red", "blue"), tuple("abcdefghij" * 4)])
@pytest.mark.parametrize("question", ["What is it?", "A list:\nA. one\nB. two\nWhich?"])
def test_what_a_style_words_is_taken_apart(
    style: PromptStyle, choices: tuple[str, ...] | None, question: str
) -> None:
    example = Example("e", question, choices=choices)
    text, asked = user_text(example, style), (question, choices)
    if style.short_instruction == style.choice_instruction:  # it may as well be a free question
        asked = question_text(example, style), None
    assert taken_apart(text, style) == asked
    assert taken_apart(f"\n {text} \n", style) == asked
    assert missing_wording(text, style) is None


def test_options_may_have_several_lines() -> None:
    example = Example("e", "Which?", choices=("a\nb", "c"))
    assert taken_apart(user_text(example, PromptStyle()), PromptStyle()) == (
        "Which?",
        ("a\nb", "c"),
    )


WORD = st.text(alphabet="abAB. \n-{}", min_size=1, max_size=12)


@given(
    text=WORD,
    option=st.sampled_from(
        ["{letter}. {text}", "- {text}", "{text}", "{letter}", "{text} {letter}"]
    ),
    short=st.sampled_from(["", "b", "A. "]),
    choice=st.sampled_from(["", "b", "a"]),
)
def test_what_is_taken_apart_is_worded_the_same_again(
    text: str, option: str, short: str, choice: str
) -> None:
    style = PromptStyle(option=option, short_instruction=short, choice_instruction=choice)
    found = taken_apart(text, style)
    if found is not None:
        again = user_text(Example("e", found[0], choices=found[1]), style)
        assert again.strip() == text.strip()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("What is it?", "does not end in the line 'Answer with a single word or phrase.' (behind"),
        ("What is it? Answer with a single word or phrase.", "does not end in the line"),
        ("Answer with a single word or phrase.", "does not end in the line"),
        ("Who?\nA. Ann\nB. Bo", '(behind options: "Answer with the option\'s letter.")'),
        (
            "Who?\nA) Ann\nB) Bo\nAnswer with the option's letter.",
            "one a line as '{letter}. {text}'",
        ),
        ("Who?\nA. Ann\nAnswer with the option's letter.", "the options stand otherwise"),
    ],
)
def test_what_is_missing_is_named(text: str, why: str) -> None:
    assert why in (missing_wording(text, PromptStyle()) or "")


def test_without_instructions_nothing_is_missing() -> None:
    for text in ("What is it?", "Who?\nA. Ann\nB. Bo", "A. x\nB. y"):
        assert missing_wording(text, PLAIN) is None
    assert missing_wording("Who?\nA. Ann\nB. Bo", PromptStyle(short_instruction="")) is None


def test_long_texts_of_options_alone_take_little_time() -> None:
    text = "A. x\n" * 40_000 + "Answer with the option's letter."
    assert taken_apart(text, PromptStyle()) is None
    text = "Who?\nA. x\n" + "B. x\n" * 40_000 + "Answer with the option's letter."
    assert taken_apart(text, PromptStyle()) is not None
