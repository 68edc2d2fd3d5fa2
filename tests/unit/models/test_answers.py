"""Reading decoded ids: end tokens, truncation, empty answers, reasoning."""

from __future__ import annotations

import pytest
from tiny_models import byte_tokenizer

from sightline.models.answers import AnswerReader
from sightline.models.decoding import Decoded

TOKENIZER = byte_tokenizer()
END = TOKENIZER.eos_token_id


def read(text: str, *, stopped: bool = True, prompt: str = "Q"):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"] + [END] * stopped
    row = Decoded(ids, [-0.5] * len(ids), stopped)
    return AnswerReader(TOKENIZER).generation(row, prompt)


def test_the_end_token_counts_and_is_not_text() -> None:
    answer = read(" red")
    assert answer.text == "red"
    assert answer.tokens == (" ", "r", "e", "d", "<|end|>")
    assert len(answer.logprobs) == len(answer.token_ids) == 5
    assert answer.finish_reason == "stop"
    assert answer.reasoning is None
    assert answer.answer_start == 0


def test_truncated_and_empty_answers_are_marked() -> None:
    assert read("red", stopped=False).is_truncated
    empty = read("")
    assert empty.is_empty
    assert not empty.is_truncated
    assert empty.tokens == ("<|end|>",)


@pytest.mark.parametrize("prompt", ["Q", "Q<think>\n"])
def test_reasoning_is_kept_apart(prompt: str) -> None:
    opening = "" if prompt.endswith("\n") else "<think>"
    answer = read(f"{opening}it is warm</think>\n\nred", prompt=prompt)
    assert answer.text == "red"
    assert answer.reasoning == "it is warm"
    assert "".join(answer.tokens[answer.answer_start :]) == "red<|end|>"
    assert len(answer.answer_logprobs) == 4


def test_reasoning_that_never_ends_leaves_no_answer() -> None:
    answer = read("<think>it is wa", stopped=False)
    assert answer.text == ""
    assert answer.reasoning == "it is wa"
    assert answer.answer_start == len(answer.token_ids)


def test_half_a_character_does_not_break_decoding() -> None:
    ids = TOKENIZER("é", add_special_tokens=False)["input_ids"][:1]
    answer = AnswerReader(TOKENIZER).generation(Decoded(ids, [-1.0], stopped=False), "Q")
    assert answer.text == "�"
