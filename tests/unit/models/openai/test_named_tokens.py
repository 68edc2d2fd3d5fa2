"""Letters whose tokens are named by id: exact where the server shows them, missing otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chat_servers import PLAIN, ChatServer, FakeChat, said, token

from sightline.core.errors import ModelError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.models.fake import FakeModel
from sightline.models.openai import EndpointSettings, load_endpoint
from sightline.models.openai.forecasting import forecast
from sightline.models.openai.token_scores import groups, listed, naming
from sightline.models.openai.wire import Piece, Step

EXAMPLES = [
    Example("two", "Which one?", choices=("a ramp", "a cat")),
    Example("twelve", "Which of these?", choices=tuple(f"number {i}" for i in range(12))),
]
REQUEST = Request(max_new_tokens=6, options=True, top_k_logprobs=0)
UNSCORED = frozenset({"prompt_logprobs"})


def endpoint(server):
    settings = EndpointSettings((server.url,), attempts=2, backoff_s=0.01)
    return load_endpoint("m", settings, style=PLAIN)


def chat(**settings):
    found = FakeChat(names_tokens=True, run_tokens=6, **settings)
    found.learn(EXAMPLES)
    return found


def observed(model):
    return model.observe(EXAMPLES, [(), ()], REQUEST)


def test_letters_outside_the_likeliest_tokens_are_exact():
    with ChatServer(chat(refused=UNSCORED)) as server:
        model = endpoint(server)
        assert model.capabilities.named_tokens
        server.requests.clear()
        records = observed(model)
        sent, spelled = list(server.bodies), list(server.tokenized)
    here = FakeModel(PLAIN).observe(EXAMPLES, [(), ()], REQUEST)
    for record, local in zip(records, here, strict=True):
        expected = local.array(Feature.LETTER_LOGPROBS)
        np.testing.assert_allclose(record.array(Feature.LETTER_LOGPROBS), expected, rtol=1e-9)
        assert not record.has(Feature.OPTION_LOGPROBS)
    room = model.capabilities.top_logprobs - 1
    assert [len(body["logprob_token_ids"]) for body in sent if "logprob_token_ids" in body] == [
        4,
        *[room // 2 * 2] * (24 // (room // 2 * 2)),
        *([24 % (room // 2 * 2)] if 24 % (room // 2 * 2) else []),
    ]
    assert {body["prompt"] for body in spelled} >= {"A", " A", "L", " L"}
    assert all(body["add_special_tokens"] is False for body in spelled)
    found = forecast(EXAMPLES, REQUEST, model.capabilities, PLAIN)
    assert len(sent) == found.requests


def test_without_it_they_are_missing():
    with ChatServer(replace(chat(refused=UNSCORED), names_tokens=False)) as server:
        model = endpoint(server)
        records = observed(model)
    assert not model.capabilities.named_tokens
    assert not any(record.has(Feature.LETTER_LOGPROBS) for record in records)


@pytest.mark.parametrize("field", ["refused", "ignored"])
def test_a_field_that_has_no_effect_is_not_believed(field):
    with ChatServer(chat(**{field: UNSCORED | {"logprob_token_ids"}})) as server:
        assert not endpoint(server).capabilities.named_tokens


TOKENISERS = {
    "html": lambda handler: handler.send_whole(b"<html>login</html>"),
    "cut": lambda handler: handler.send_whole(b'{"tokens": [1'),
    "empty": {"tokens": []},
    "two": {"tokens": [1, 2]},
    "text": {"tokens": ["1"]},
    "negative": {"tokens": [-1]},
    "huge": {"tokens": [2**40]},
    "not a list": {"tokens": 7},
    "nothing": {},
}


@pytest.mark.parametrize("name", TOKENISERS)
def test_a_tokeniser_that_gives_no_ids_is_not_used(name):
    with ChatServer(chat()) as server:
        server.tokenize = lambda _: (TOKENISERS[name], 200)
        assert not endpoint(server).capabilities.named_tokens


def dropped(top):
    return top[:-1]


def with_value(value):
    return lambda top: [*top[:-1], {**top[-1], "logprob": value}]


CHANGES = {
    "fewer tokens": dropped,
    "none": lambda top: [],
    "no list": lambda top: None,
    "NaN": with_value(float("nan")),
    "infinite": with_value(-float("inf")),
    "sentinel": with_value(-9999.0),
    "null": with_value(None),
    "above certain": with_value(0.5),
    "text": with_value("-1"),
    "other tokens": lambda top: [{**one, "token": "x", "bytes": None} for one in top],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_reply_that_does_not_show_all_that_was_named_says_nothing(name):
    faithful = chat(refused=UNSCORED)
    hostile = False

    def answer(body):
        reply, status = faithful(body)
        if hostile and "logprob_token_ids" in body:
            place = reply["choices"][0]["logprobs"]["content"][0]
            place["top_logprobs"] = CHANGES[name](place["top_logprobs"])
        return reply, status

    with ChatServer(answer) as server:
        server.tokenize = faithful.tokenize
        model = endpoint(server)
        assert model.capabilities.named_tokens
        hostile = True
        records = observed(model)
    assert not any(record.has(Feature.LETTER_LOGPROBS) for record in records)
    assert [record.answer.text for record in records]


def test_another_first_token_says_nothing():
    faithful = chat(refused=UNSCORED)
    hostile = False

    def answer(body):
        reply, status = faithful(body)
        if hostile and "logprob_token_ids" in body:
            place = reply["choices"][0]["logprobs"]["content"][0]
            place |= {"token": " other", "bytes": list(b" other")}
        return reply, status

    with ChatServer(answer) as server:
        server.tokenize = faithful.tokenize
        model = endpoint(server)
        hostile = True
        assert not observed(model)[0].has(Feature.LETTER_LOGPROBS)


def test_a_tokeniser_that_fails_later_is_the_examples_error():
    with ChatServer(chat(refused=UNSCORED)) as server:
        model = endpoint(server)
        server.tokenize = lambda _: ({"error": {"message": "no room"}}, 500)
        with pytest.raises(ModelError, match="gave no answer to this request"):
            model.observe(EXAMPLES[:1], [()], REQUEST)


def test_spellings_are_summed_and_all_must_be_there():
    step = Step(Piece(b" yes", -0.1), (Piece(b" A", -1.0), Piece(b"A", -2.0), Piece(b"B", -3.0)))
    assert listed(step, ("A",), 2) == pytest.approx(np.logaddexp(-1.0, -2.0))
    assert listed(step, ("B",), 1) == -3.0
    assert listed(step, ("B",), 2) is None
    assert listed(step, ("C",), 0) is None


def test_no_more_tokens_are_named_than_are_shown():
    assert naming([5, 6, 7], 20)["top_logprobs"] == 4
    assert naming([5, 6, 7], 2)["top_logprobs"] == 2
    assert list(groups([], 20)) == []
    assert list(groups([2] * 9, 20)) == [[*range(8)], [8]]
    assert list(groups([30, 2], 20)) == [[0], [1]]


def test_an_answer_that_was_thought_about_has_no_first_token():
    thought = said("A", logprobs=[token(" think", -0.1), token("A", -0.2)])
    thought["choices"][0]["message"]["reasoning_content"] = "think"
    faithful, thinking = chat(refused=UNSCORED), False

    def answer(body):
        if thinking:
            assert "logprob_token_ids" not in body
            return thought, 200
        return faithful(body)

    with ChatServer(answer) as server:
        server.tokenize = faithful.tokenize
        model = endpoint(server)
        thinking = True
        assert not observed(model)[0].has(Feature.LETTER_LOGPROBS)
