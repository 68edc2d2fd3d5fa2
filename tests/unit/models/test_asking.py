"""Which follow-up questions are asked, and how their fixed replies are spelled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Tiny, example, picture

from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.data.prompts import PromptStyle
from sightline.models import load_model
from sightline.models.asking import reply_spellings
from sightline.models.inputs import AnswerForm
from sightline.models.transformers import TransformersModel

EXAMPLES = [example("a", "What is it?"), example("b", "Is it red?")]
IMAGES = [(picture(1, (30, 40)),), (picture(2, (40, 30)),)]


class Words:
    """Stands for an input builder whose tokenizer knows whole words; 0 is the unknown one."""

    unk_token_id = 0

    def __init__(self, **known: list[int]) -> None:
        self.known = known
        self.tokenizer = self

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, Any]:
        return {"input_ids": [self.ids(text) for text in texts]}

    def ids(self, text: str) -> list[int]:
        lead = "_" if text.startswith(" ") else ""
        return self.known.get(lead + text.strip().replace(" ", "_"), [0])

    def continuations(self, _: str, answers: list[str], form: AnswerForm) -> list[list[int]]:
        return [self.ids(form.lead + answer) for answer in answers]


def spelled(words: Words, *replies: str, lead: str = " ") -> Any:
    return reply_spellings(words, AnswerForm(lead, 1), "prompt", replies)  # type: ignore[arg-type]


def test_every_case_and_the_word_with_and_without_a_space_count() -> None:
    words = Words(yes=[2], _yes=[3], _Yes=[4], YES=[5, 6], _YES=[7, 6], no=[8], _no=[9], No=[8])
    assert spelled(words, "yes", "no") == [{(2,), (3,), (4,), (7, 6)}, {(8,), (9,)}]


def test_a_spelling_that_another_begins_is_counted_once() -> None:
    words = Words(_yes=[2], _Yes=[2, 3], _no=[4])
    assert spelled(words, "yes", "no") == [{(2,)}, {(4,)}]


@pytest.mark.parametrize(
    "known",
    [
        {"_yes": [2]},  # no spelling of no
        {"_yes": [2], "_no": [2]},  # one for both
        {"_yes": [2], "_no": [2, 3]},  # one begins the other
    ],
)
def test_replies_that_cannot_be_told_apart_are_not_scored(known: dict[str, list[int]]) -> None:
    assert spelled(Words(**known), "yes", "no") is None


def test_a_question_without_fixed_replies_has_none_to_score() -> None:
    assert spelled(Words(_yes=[2])) is None


def test_what_the_model_cannot_read_is_not_asked(tiny_llava: Tiny) -> None:
    model = TransformersModel(
        tiny_llava.model,
        tiny_llava.processor,
        identity={},
        style=PromptStyle(asks=("p_true",), forms={"p_true": "{question} {answer}?"}),
    )
    request = Request(max_new_tokens=2, asks=("p_true.2", "p_true", "self_check"))
    records = model.observe(EXAMPLES, IMAGES, request)
    assert [r.condition for r in records] == ["clean", "asked:p_true"] * 2
    assert model.fingerprint()["prompt_style"]["asks"] == ["p_true"]


def test_an_unknown_question_is_a_usage_error(tiny_llava: Tiny) -> None:
    with pytest.raises(UsageError, match="'p_tru' does not exist"):
        tiny_llava.observer().observe(EXAMPLES, IMAGES, Request(max_new_tokens=2, asks=("p_tru",)))


def test_an_answer_that_spells_a_special_token_is_not_asked_about(tiny_llava: Tiny) -> None:
    asker = tiny_llava.observer()._asker
    with torch.inference_mode():
        spoiled, fine = asker.ask(["self_check"], EXAMPLES, IMAGES, ["an <image>", "red"])
        (alone,) = asker.ask(["self_check"], EXAMPLES[1:], IMAGES[1:], ["red"])
        nothing = asker.ask(["self_check"], EXAMPLES[:1], IMAGES[:1], ["an <image>"])
    assert (spoiled, nothing) == ([], [[]])
    np.testing.assert_allclose(
        fine[0].array(Feature.REPLY_LOGPROBS), alone[0].array(Feature.REPLY_LOGPROBS), atol=1e-4
    )


def test_long_and_empty_answers_are_asked_about(tiny_llava: Tiny) -> None:
    asker = tiny_llava.observer()._asker
    with torch.inference_mode():
        replies = asker.ask(["p_true"], EXAMPLES, IMAGES, ["", "word " * 400])
    for (reply,) in replies:
        assert np.isfinite(reply.array(Feature.REPLY_LOGPROBS)).all()


def test_embedded_models_are_asked_what_they_were_trained_to_read() -> None:
    for name in ("vlm", "vlm-prior", "vlm-small"):
        style = PromptStyle.from_dict(load_model(f"embedded:{name}").fingerprint()["prompt_style"])
        assert style.asks == ("p_true", "self_check", "confidence_word", "top_guesses")
