"""Prompts and tokens of answers as they follow a prompt."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tiny_models import CHAT, VICUNA, Tiny, byte_tokenizer, picture

from sightline.core.errors import ModelError
from sightline.models.inputs import InputBuilder, blank_images


class TextProcessor:
    """A tokenizer with a chat template, as processors wrap one."""

    def __init__(self, template: str | None) -> None:
        self.tokenizer = byte_tokenizer()
        self.chat_template = template

    def apply_chat_template(self, turns, **settings):
        return self.tokenizer.apply_chat_template(
            turns, chat_template=self.chat_template, **settings
        )


def builder(template: str | None) -> InputBuilder:
    shown = None if template is None else template.replace("IMAGE", "'<s>'")
    return InputBuilder(TextProcessor(shown), "any", None)


def test_the_answer_form_is_read_off_the_template() -> None:
    chat, vicuna = builder(CHAT), builder(VICUNA)
    assert chat.answer_form([4, 2]).lead == ""
    assert chat.answer_form([2, 4]).end_id == 4
    assert vicuna.answer_form([4, 2]).lead == " "
    assert vicuna.answer_form([2]).end_id == 2


def test_a_template_that_adds_words_before_the_answer_leaves_the_lead_empty() -> None:
    thinking = CHAT.replace(
        "{{ c['text'] }}", "{% if m.role == 'assistant' %}Well: {% endif %}{{ c['text'] }}"
    )
    assert builder(thinking).answer_form([4]).lead == ""


@pytest.mark.parametrize("failing", [True, False])
def test_a_template_of_strings_gets_a_marker_line_per_image(failing: bool) -> None:
    check = "{% if m.content is not string %}{{ raise_exception('no') }}{% endif %}"
    template = (
        "{% for m in messages %}" + check * failing + "{{ m.role + ': ' + m.content|string }}"
    )
    inputs = InputBuilder(TextProcessor(template + "\n{% endfor %}"), "any", 3)
    assert inputs.prompt("What?", 2, where="x") == "user: <|start|>\n<|start|>\nWhat?\n"


def test_without_a_template_the_answer_follows_after_a_space() -> None:
    plain = builder(None)
    assert plain.answer_form([4]).lead == " "
    assert plain.prompt("What?", 0, where="x") == "What?"


def test_continuations_are_the_tokens_that_follow_the_prompt() -> None:
    vicuna = builder(VICUNA)
    form = vicuna.answer_form([4])
    prompt = vicuna.prompt("What?", 0, where="x")
    found = vicuna.continuations(prompt, ["no", "yes"], form)
    whole = vicuna.tokenizer(f"{prompt} yes", add_special_tokens=False)["input_ids"]
    before = vicuna.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert before + found[1] == whole
    assert [len(ids) for ids in found] == [3, 4]


def test_a_merge_across_the_boundary_falls_back_to_the_answer_alone() -> None:
    chat = builder(CHAT)
    whole = chat.tokenizer

    def merging(texts, **settings):
        if isinstance(texts, list) and len(texts) == 2:
            return {"input_ids": [[1, 2], [1, 7, 8]]}
        return whole(texts, **settings)

    chat.tokenizer = merging
    form = SimpleNamespace(lead="", end_id=4)
    assert chat.continuations("p", ["ab"], form) == [
        whole("ab", add_special_tokens=False)["input_ids"]
    ]


@pytest.mark.parametrize("text", ["Is <image> red?", "</s>", "a<|end|>", "x <pad>"])
def test_special_tokens_in_the_question_are_refused(tiny_llava: Tiny, text: str) -> None:
    inputs = InputBuilder(tiny_llava.processor, "llava", 6)
    with pytest.raises(ModelError, match=r"Example 'q7' holds '<.*a special token of this model"):
        inputs.prompt(text, 1, where="Example 'q7'")


def test_blank_images_keep_the_sizes() -> None:
    blank = blank_images([picture(1, (5, 7)), picture(2, (8, 3))], "white")
    assert [image.size for image in blank] == [(5, 7), (8, 3)]
    assert all(image.getextrema() == ((255, 255),) * 3 for image in blank)
