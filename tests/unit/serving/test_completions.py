"""Tokens on the wire spell the answer that they are shown beside."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.models.openai.reading import generation
from sightline.models.openai.wire import reply_of
from sightline.serving.completions import choice, completion, token_logprobs, with_top_logprobs


def observed(text: str, *tokens: str, start: int = 0) -> Generation:
    values = -np.arange(1.0, len(tokens) + 1)
    return Generation(
        text, tokens=tokens, logprobs=values, finish_reason="stop", answer_start=start
    )


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (observed("a red circle", "a", "red", "circle", "<end>"), ["a", " red", " circle"]),
        (observed("a red circle", "a", " red", " circle", "<end>"), ["a", " red", " circle"]),
        (observed("red", " red", "<end>"), [" red"]),
        (observed("two\n dogs!", "two", "dogs", "!", "<end>"), ["two", "\n dogs", "!"]),
        (observed("a b", "so", "so", "a", "b", "<end>", start=2), ["so", "so", "a", " b"]),
        # what the tokens cannot spell is shown as it is: torn characters, cut or other text
        (observed("né d", "n", "\ufffd", "\ufffd", "d", "<end>"), ["n", "\ufffd", "\ufffd", "d"]),
        (observed("a red circle", "a", "red", "<end>"), ["a", "red"]),
        (observed("", "<end>"), []),
    ],
)
def test_white_space_stands_with_the_word_behind_it(answer: Generation, shown: list[str]) -> None:
    found = token_logprobs(answer)
    assert found is not None
    assert [one["token"] for one in found["content"]] == shown
    for i, one in enumerate(found["content"]):
        assert one["logprob"] == -(i + 1)
        assert one["bytes"] == (None if "\ufffd" in shown[i] else list(shown[i].encode()))


def test_likely_tokens_are_spelled_as_the_one_beside_them() -> None:
    answer = observed("a red", "a", "red", "<end>")
    values = np.log([[0.6, 0.3, 0.1]] * 3)
    record = Record(Example("0", "?"), greedy=answer, features={Feature.TOP_LOGPROBS: values})
    shown = token_logprobs(answer)
    assert shown is not None
    spelled = [["a", "the", "one"], ["red", "blue", "one"]]
    first, second = with_top_logprobs(shown, record, 2, spelled)["content"]
    assert [one["token"] for one in first["top_logprobs"]] == ["a", "the"]
    assert [one["token"] for one in second["top_logprobs"]] == [" red", " blue"]
    assert second["top_logprobs"][1]["bytes"] == list(b" blue")


def test_a_client_finds_log_probabilities_for_words_that_stand_alone() -> None:
    """Read as an endpoint's answer they belong to its text, so they are not dropped."""
    answer = observed("a red circle", "a", "red", "circle", "<end>")
    whole = completion(
        request_id="x",
        created=1,
        model="m",
        choices=[choice(0, answer, {}, logprobs=token_logprobs(answer))],
        prompt_tokens=7,
        completion_tokens=4,
    )
    assert whole["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    read = generation(reply_of(whole).choices[0])
    assert read.text == "a red circle"
    np.testing.assert_array_equal(read.logprobs, [-1.0, -2.0, -3.0])
