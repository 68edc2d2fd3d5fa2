"""Tokens on the wire are held against the text of the answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from chat_servers import said, token

from sightline.models.openai.reading import generation, shows_end, top_logprobs
from sightline.models.openai.scoring import (
    Continuation,
    cases,
    continuation,
    logprob_of_spellings,
)
from sightline.models.openai.wire import (
    MalformedReplyError,
    Piece,
    Step,
    data_url,
    observed_logprob,
    read_object,
    read_reply,
)


def choice(text, tokens, **message):

    content = [token(one, -0.5) for one in tokens]
    made = said(text, logprobs=content)
    made["choices"][0]["message"].update(message)
    return read_reply(json.dumps(made).encode()).choices[0]


@pytest.mark.parametrize(
    ("text", "tokens", "start"),
    [
        ("red cat", ["red", " cat"], 0),
        ("red cat", ["red", " cat", "</s>"], 0),
        ("red cat", ["red", " cat", ""], 0),
        (" red cat\n", ["\n", " red", " cat", "\n", "</s>"], 0),
        ("", ["</s>"], 0),
    ],
)
def test_an_answer_that_its_tokens_spell(text, tokens, start):
    made = generation(choice(text, tokens))
    assert made.text == text.strip()
    assert made.answer_start == start
    assert made.tokens == tuple(tokens)
    np.testing.assert_array_equal(made.logprobs, [-0.5] * len(tokens))


@pytest.mark.parametrize(
    "tokens", [["red"], [" cat"], ["a", " red", " cat"], ["red", " cat", "x", "y", "z"], ["dog"]]
)
def test_an_answer_that_its_tokens_do_not_spell_has_no_logprobs(tokens):
    made = generation(choice("red cat", tokens))
    assert made.text == "red cat"
    assert (made.tokens, made.logprobs, made.answer_start) == (None, None, 0)


def test_reasoning_kept_apart_by_the_server():
    tokens = ["it", " is", " red", "</think>", "\n", "red", "</s>"]
    made = generation(choice("red", tokens, reasoning_content=" it is red"))
    assert (made.text, made.reasoning, made.answer_start) == ("red", "it is red", 5)
    np.testing.assert_array_equal(made.answer_logprobs, [-0.5, -0.5])
    only_answer = generation(choice("red", ["red", "</s>"], reasoning="it is red"))
    assert (only_answer.reasoning, only_answer.answer_start) == ("it is red", 0)


def test_reasoning_written_in_tags():
    tokens = ["<think>", "hm", "</think>", "\n\n", "red", "</s>"]
    made = generation(choice("<think>hm</think>\n\nred", tokens))
    assert (made.text, made.reasoning, made.answer_start) == ("red", "hm", 4)
    opened_by_the_prompt = generation(choice("hm</think>red", ["hm", "</think>", "red"]))
    assert (opened_by_the_prompt.text, opened_by_the_prompt.reasoning) == ("red", "hm")
    endless = generation(choice("<think>hm", ["<think>", "hm"]))
    assert (endless.text, endless.reasoning, endless.answer_start) == ("", "hm", 2)


def test_a_refusal_is_what_the_model_said():
    made = said("x")
    made["choices"][0]["message"] = {"content": None, "refusal": "I cannot."}

    assert read_reply(json.dumps(made).encode()).choices[0].text == "I cannot."


def test_a_long_answer_is_read_in_good_time():
    words = [f" word{i}" for i in range(2000)]
    made = generation(choice("".join(words), [*words, "</s>"]))
    assert made.n_tokens == 2001


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "unknown"), (None, "unknown")],
)
def test_finish_reasons(reason, kept):

    made = said("red")
    made["choices"][0]["finish_reason"] = reason
    assert generation(read_reply(json.dumps(made).encode()).choices[0]).finish_reason == kept


def test_the_end_token_is_seen_where_it_is_shown():
    assert shows_end(choice("red", ["red", "</s>"]))
    assert shows_end(choice("red", ["red", ""]))
    assert not shows_end(choice("red cat", ["red", " cat"]))
    assert not shows_end(choice("red", ["red", "\n"]))


def test_choices_come_in_the_order_of_their_index():

    made = said("a", "b", "c")
    made["choices"] = made["choices"][::-1]
    assert [c.text for c in read_reply(json.dumps(made).encode()).choices] == ["a", "b", "c"]


def test_top_logprobs_are_sorted_and_as_wide_as_the_narrowest_place():
    pieces = [Piece(bytes([65 + i]), -float(i)) for i in range(4)]
    steps = [Step(pieces[0], tuple(pieces)), Step(pieces[0], tuple(pieces[:2]))]
    np.testing.assert_array_equal(top_logprobs(steps, 3), [[0, -1], [0, -1]])
    assert top_logprobs([*steps, Step(pieces[0], ())], 3) is None


@pytest.mark.parametrize("value", [None, True, "x", float("nan"), -9999, -9999.0, -1e9, 0.5, []])
def test_values_that_are_no_logprob(value):
    assert observed_logprob(value) is None


def test_rounding_above_zero_is_zero():
    assert observed_logprob(1e-6) == 0.0


def test_a_continuation_is_read_up_to_its_end_token():
    pieces = [Piece(b" a", -1.0), Piece(b" ramp", -2.0), Piece(b"</s>", -0.25), Piece(b"\n", -9.0)]
    found = continuation(pieces, "a ramp")
    assert found == Continuation(tuple(pieces[:2]), (-1.0, -2.0), -0.25)
    assert continuation(pieces[:2], "a ramp").end is None
    assert continuation([*pieces[:2], pieces[3]], "a ramp").end is None  # white space is no end
    assert continuation(pieces, "a rampart") is None
    assert continuation(pieces, "a") == Continuation((pieces[0],), (-1.0,), -2.0)
    assert continuation([None, *pieces], "a ramp") is None
    assert continuation([Piece(b" a ramp", None)], "a ramp") is None


def test_spellings_are_summed_and_none_is_made_up():
    top = (Piece(b"Yes", -1.0), Piece(b" yes", -2.0), Piece(b"yesterday", -3.0))
    step = Step(Piece(b" YES", -4.0), top)
    expected = np.logaddexp.reduce([-1.0, -2.0, -4.0])
    assert logprob_of_spellings(step, cases("yes")) == pytest.approx(expected)
    assert logprob_of_spellings(step, cases("no")) is None


def test_png_keeps_every_pixel():
    import base64
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    url = data_url(Image.fromarray(pixels), "png")
    raw = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(raw))), pixels)


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"{", b"\xff\xfe{", b"<html>", b"[" * 10**5])
def test_bodies_that_are_no_object(raw):
    with pytest.raises(MalformedReplyError):
        read_object(raw)
