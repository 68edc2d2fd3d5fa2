"""Follow-up questions: their names, their wordings, and how they are filled in."""

from __future__ import annotations

import pytest

from sightline.core.errors import UsageError
from sightline.core.features import FIXED_REPLIES, FOLLOW_UPS, Feature
from sightline.core.types import Example
from sightline.data.prompt_forms import (
    FOLLOW_UP_FORMS,
    PROMPT_FORMS,
    filled,
    follow_up_names,
    follow_up_of,
)
from sightline.data.prompts import PromptStyle, follow_up_text

FREE = Example(id="1", question=" What colour is it? ")
CHOICE = Example(id="2", question="Which {answer}?", choices=("a {question}", "a dog"))


def test_every_follow_up_has_a_form_and_the_embedded_wordings_come_first() -> None:
    assert set(FOLLOW_UP_FORMS) == FOLLOW_UPS
    for name in ("p_true", "self_check", "confidence_word", "top_guesses"):
        assert FOLLOW_UP_FORMS[Feature(name)].wordings[0] == PROMPT_FORMS[name]


@pytest.mark.parametrize("question", sorted(FOLLOW_UPS))
def test_wordings_differ_and_name_their_replies(question: Feature) -> None:
    form = FOLLOW_UP_FORMS[question]
    assert len(set(form.wordings)) == len(form.wordings) >= 2
    assert form.max_new_tokens > 0
    for wording in form.wordings:
        text = filled(wording, question="QUESTION", answer="ANSWER")
        assert "QUESTION" in text
        assert "{" not in text
        asks_again = question.value.startswith(("answer_", "top_", "guess_"))
        assert ("ANSWER" in text) == (not asks_again)
        for reply in FIXED_REPLIES.get(question, ()):
            assert reply in text


@pytest.mark.parametrize("replies", FIXED_REPLIES.values())
def test_no_fixed_reply_begins_another(replies: tuple[str, ...]) -> None:
    assert not [a for a in replies for b in replies if a != b and b.startswith(a)]


def test_names_carry_the_wording() -> None:
    assert follow_up_of("p_true") == (Feature.P_TRUE, 0)
    assert follow_up_of("confidence_number.3") == (Feature.CONFIDENCE_NUMBER, 2)
    assert follow_up_names([" p_true", "", "p_true", "self_check.2"]) == ("p_true", "self_check.2")


@pytest.mark.parametrize("name", ["p_tru", "answer", "p_true.", "p_true.1", "p_true.9", "p_true.x"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"confidence_word|p_true has wordings 1, 2, 3"):
        follow_up_of(name)


def test_the_prompt_holds_question_options_and_the_answer_on_one_line() -> None:
    assert follow_up_text("self_check", FREE, " dark\n red ", PromptStyle()) == (
        "What colour is it?\nProposed answer: dark red\n"
        "Is the proposed answer correct? Answer with yes or no."
    )
    assert follow_up_text("top_guesses", FREE, "red", PromptStyle()) == (
        "What colour is it?\nGive your 3 best guesses, separated by commas."
    )
    assert follow_up_text("p_true", CHOICE, "{question}", PromptStyle()) == (
        "Which {answer}?\nA. a {question}\nB. a dog\nProposed answer: {question}\n"
        "Is the proposed answer true or false?"
    )


def test_a_style_changes_a_form_or_says_what_can_be_asked() -> None:
    values = {"forms": {"p_true.2": "{answer}? {question}"}, "asks": ["p_true", "p_true.2"]}
    style = PromptStyle.from_dict(values)
    assert PromptStyle.from_dict(style.to_dict()) == style
    assert follow_up_text("p_true.2", FREE, "red", style) == "red? What colour is it?"
    assert follow_up_text("p_true", FREE, "red", style).endswith("true or false?")
    assert style.can_ask("p_true.2")
    assert not style.can_ask("self_check")
    assert PromptStyle().can_ask("confidence_number.2")


@pytest.mark.parametrize(
    "values",
    [
        {"forms": ["p_true"]},
        {"forms": {"p_true": 3}},
        {"forms": {"p_tru": "?"}},
        {"asks": "p_true"},
        {"asks": [3]},
        {"asks": ["p_tru"]},
    ],
)
def test_styles_of_another_type_or_name_are_refused(values: dict) -> None:
    with pytest.raises(UsageError, match=r"allowed|does not exist"):
        PromptStyle.from_dict(values)
