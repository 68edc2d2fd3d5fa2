"""Letters whose tokens are named by id: exact where the server shows them, missing otherwise."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from chat_servers import PLAIN, ChatServer, FakeChat, said, token

from sightline.core.errors import EndpointError, ModelError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.models.fake import FakeModel
from sightline.models.openai import EndpointSettings, load_endpoint
from sightline.models.openai.background import wait_for
from sightline.models.openai.forecasting import forecast
from sightline.models.openai.token_scores import forms, groups, listed, naming, token_ids
from sightline.models.openai.wire import Piece, Step

EXAMPLES = [
    Example("two", "Which one?", choices=("a ramp", "a cat")),
    Example("twelve", "Which of these?", choices=tuple(f"number {i}" for i in range(12))),
]
REQUEST = Request(max_new_tokens=6, options=True, top_k_logprobs=0)
TWELVE = "ABCDEFGHIJKL"
UNSCORED = frozenset({"prompt_logprobs"})


def endpoint(server, **settings):
    settings = EndpointSettings((server.url,), attempts=2, backoff_s=0.01, **settings)
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
        server.requests.clear(), server.tokenized.clear()
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
    assert [body["prompt"] for body in spelled].count(" L") == 1
    assert {body["prompt"] for body in spelled} == {f"{s}{c}" for s in ("", " ") for c in TWELVE}
    assert all(body["add_special_tokens"] is False for body in spelled)
    found = forecast(EXAMPLES, REQUEST, model.capabilities, PLAIN)
    assert len(sent) + len(spelled) == found.requests


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


def first(server, *replies):
    """Lets the tokeniser of a server give these replies before its own."""
    left, faithful = deque(replies), server.tokenize
    server.tokenize = lambda body: left.popleft() if left else faithful(body)


def hang_up(handler):
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


HTML = (lambda handler: handler.send_whole(b"<html>starting</html>"), 200)
TRANSIENT = {
    **{
        str(code): ({"error": {"message": "busy"}}, code) for code in (408, 429, 500, 502, 503, 504)
    },
    "no connection": (hang_up, 200),
}


@pytest.mark.parametrize("reply", [*TRANSIENT.values(), HTML], ids=[*TRANSIENT, "html"])
def test_a_failure_that_passes_changes_no_finding(reply):
    with ChatServer(chat()) as server:
        untroubled = endpoint(server)
        first(server, reply)
        assert endpoint(server).fingerprint() == untroubled.fingerprint()
    assert untroubled.capabilities.named_tokens


@pytest.mark.parametrize("reply", TRANSIENT.values(), ids=TRANSIENT)
def test_a_failure_that_stays_is_an_error_and_no_finding(reply):
    with ChatServer(chat()) as server:
        first(server, reply, reply)
        with pytest.raises(EndpointError, match=r"gave no answer .* in 2 tries"):
            endpoint(server)
        assert len(server.tokenized) == 2
        assert endpoint(server).capabilities.named_tokens


def test_a_page_after_a_busy_server_is_no_finding_either():
    with ChatServer(chat()) as server:
        first(server, TRANSIENT["503"], HTML)
        with pytest.raises(EndpointError, match="an HTML page"):
            endpoint(server)


@pytest.mark.parametrize("code", [301, 400, 401, 403, 404, 405, 410, 422, 501])
def test_a_tokeniser_that_is_refused_is_not_there_and_not_asked_again(code):
    with ChatServer(chat()) as server:
        server.tokenize = lambda _: ({"detail": "no"}, code)
        assert not endpoint(server).capabilities.named_tokens
        assert len(server.tokenized) == 1


def test_retry_after_is_kept_to_by_all_that_is_sent():
    times = []

    def busy(handler):
        times.append(time.monotonic())
        handler.send_whole(b"{}", 429, retry_after="0.6")

    with ChatServer(chat()) as server:
        first(server, (busy, 429))
        assert endpoint(server).capabilities.named_tokens
        after = min(at for _, _, at in server.requests if at > times[0])
    assert after - times[0] > 0.55


def test_what_a_tokeniser_takes_is_no_latency_of_answers():
    with ChatServer(chat(refused=UNSCORED)) as server:
        model = endpoint(server)
        ids = token_ids(model.transport, "m", ("A",), {})
        assert len(wait_for(ids)) == 2
    (known,) = model.transport.pool.servers
    assert known.answered == 2
    assert known.latency_s is None


MANY = [Example(f"q{i}", f"Which one, {i}?", choices=("a", "b", "c", "d")) for i in range(16)]
ASKED = replace(REQUEST, asks=("p_true", "self_check"))


@pytest.mark.parametrize("request_", [REQUEST, ASKED])
def test_questions_at_once_ask_for_every_token_once_and_within_the_forecast(request_):
    faithful = chat(refused=UNSCORED)
    faithful.learn(MANY)

    def slow(body):
        time.sleep(0.02)
        return faithful.tokenize(body)

    with ChatServer(faithful) as server:
        model = endpoint(server, concurrency=64)
        server.tokenize = slow
        server.requests.clear(), server.tokenized.clear()
        records = model.observe(MANY, [()] * len(MANY), request_)
        sent, spelled = len(server.requests), [body["prompt"] for body in server.tokenized]
        model.observe(MANY, [()] * len(MANY), request_)
        assert len(server.tokenized) == len(spelled)
    assert sum(record.has(Feature.LETTER_LOGPROBS) for record in records) == len(MANY)
    assert len(spelled) == len(set(spelled))
    assert set(spelled) >= set(forms("ABCD"))
    found = forecast(MANY, request_, model.capabilities, PLAIN)
    assert sent + len(spelled) <= found.requests
    if request_ is REQUEST:
        assert (sent, len(spelled), found.requests) == (32, 8, 40)


def test_the_forecast_counts_every_spelling_once():
    with ChatServer(chat(refused=UNSCORED)) as server:
        found = endpoint(server).capabilities
    without = replace(found, named_tokens=False)

    def more(examples, request):
        with_ids = forecast(examples, request, found, PLAIN)
        many = forecast([*examples, *examples], request, found, PLAIN)
        return 2 * with_ids.requests - many.requests  # what does not grow with the questions

    plainly = replace(REQUEST, options=False)
    assert more(MANY, plainly) == 0
    assert more(MANY, REQUEST) == 8  # four letters, by themselves and after a space
    assert more(EXAMPLES, REQUEST) == 24
    assert more(MANY, replace(plainly, asks=("p_true",))) == 12  # true and false in three cases
    assert more(MANY, ASKED) == 8 + 12 + 12
    assert more(MANY, replace(ASKED, conditions=("jpeg:3",))) == 8 + 12 + 12
    assert forecast([], ASKED, found, PLAIN).requests == 0
    assert forecast(MANY, REQUEST, without, PLAIN).requests == len(MANY)


def test_a_question_that_is_given_up_leaves_others_their_token():
    faithful = chat()

    def slow(body):
        time.sleep(0.1)
        return faithful.tokenize(body)

    async def both(transport):
        known = {}
        one, other = (
            asyncio.ensure_future(token_ids(transport, "m", ("A",), known)) for _ in range(2)
        )
        await asyncio.sleep(0.02)
        one.cancel()
        return await other, one.cancelled()

    with ChatServer(faithful) as server:
        model = endpoint(server)
        server.tokenize = slow
        server.tokenized.clear()
        found, cancelled = wait_for(both(model.transport))
        assert [body["prompt"] for body in server.tokenized] == ["A", " A"]
    assert cancelled
    assert len(found) == 2


def test_questions_that_wait_for_one_token_share_its_failure():
    async def both(transport, known):
        asked = (token_ids(transport, "m", ("A",), known) for _ in range(8))
        return await asyncio.gather(*asked, return_exceptions=True)

    known = {}
    with ChatServer(chat()) as server:
        model = endpoint(server)
        server.tokenized.clear()
        first(server, *[TRANSIENT["500"]] * 2)
        failed = wait_for(both(model.transport, known))
        assert len(server.tokenized) == 2
        assert not known
        assert all(len(ids) == 2 for ids in wait_for(both(model.transport, known)))
    assert [type(one) for one in failed] == [ModelError] * 8


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


def test_a_tokeniser_that_fails_later_is_the_examples_error_and_is_asked_again():
    with ChatServer(chat(refused=UNSCORED)) as server:
        model = endpoint(server)
        first(server, *[({"error": {"message": "no room"}}, 500)] * 2)
        with pytest.raises(
            ModelError, match=r"'two': .* to /tokenize \(status 500: no room\) in 2"
        ):
            model.observe(EXAMPLES[:1], [()], REQUEST)
        (record,) = model.observe(EXAMPLES[:1], [()], REQUEST)
    assert record.has(Feature.LETTER_LOGPROBS)


def test_a_tokeniser_that_is_gone_later_stops_the_run():
    with ChatServer(chat(refused=UNSCORED)) as server:
        model = endpoint(server)
        server.tokenize = lambda _: ({"detail": "Not Found"}, 404)
        with pytest.raises(EndpointError, match=r"does not serve /tokenize \(status 404\)"):
            observed(model)


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
