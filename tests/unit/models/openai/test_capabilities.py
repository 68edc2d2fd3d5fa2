"""The probe tells what a server does from what it says it takes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from chat_servers import PLAIN, ChatServer, FakeChat, said

from sightline.core.errors import EndpointError, UsageError
from sightline.models.openai import EndpointSettings, load_endpoint
from sightline.models.openai.capabilities import Capabilities

FULL = Capabilities(
    answers_as="m",
    limit_field="max_completion_tokens",
    neutral=True,
    logprobs=True,
    top_logprobs=11,
    end_token=True,
    logprob_space="raw",
    token_ids=True,
    seed=True,
    n=True,
    images="seen",
    prompt_logprobs=True,
    named_tokens=False,
)


def found(answer):
    with ChatServer(answer) as server:
        where = EndpointSettings((server.url,), attempts=2, backoff_s=0.01)
        return load_endpoint("m", where, style=PLAIN).capabilities


def test_everything_is_found():
    assert found(FakeChat()) == FULL
    assert found(FakeChat(names_tokens=True)) == replace(FULL, named_tokens=True)


NO_LOGPROBS = {"logprobs": False, "top_logprobs": 0, "end_token": False, "logprob_space": "unknown"}
LACKING = {
    "max_completion_tokens": {"limit_field": "max_tokens"},
    "top_k": {"neutral": False},
    "logprobs": {**NO_LOGPROBS, "token_ids": False},
    "return_token_ids": {"token_ids": False},
    "seed": {"seed": False},
    "n": {"n": False},
    "images": {"images": "refused"},
    "prompt_logprobs": {"prompt_logprobs": False},
}


@pytest.mark.parametrize("field", LACKING)
def test_a_field_that_is_refused_is_not_used(field):
    assert found(FakeChat(refused=frozenset({field}))) == replace(FULL, **LACKING[field])


IGNORED = {
    **LACKING,
    "top_k": {},  # without an effect that could be seen
    "images": {"images": "accepted, no effect seen"},
}


@pytest.mark.parametrize("field", IGNORED)
def test_a_field_without_effect_is_not_believed(field):
    assert found(FakeChat(ignored=frozenset({field}))) == replace(FULL, **IGNORED[field])


def test_texts_that_chance_repeats_are_not_taken_for_a_seed_s():
    # One of two sampled texts by the toss of a coin: a pair is equal half the time.
    coin = random.Random(0)

    def tossed(body):
        value, status = FakeChat()(body)
        if "seed" in body:
            value["choices"][0]["message"]["content"] = coin.choice(("one", "two"))
        return value, status

    seen = [found(tossed).seed for _ in range(12)]
    assert sum(seen) <= 3


@pytest.mark.parametrize("top", [10, 5, 1])
def test_the_most_tokens_that_a_server_lists(top):
    space = "raw" if top > 1 else "unknown"
    expected = replace(FULL, top_logprobs=top, logprob_space=space)
    assert found(FakeChat(top=top)) == expected


def test_no_list_of_likeliest_tokens_at_all():
    chat = FakeChat(refused=frozenset({"top_logprobs"}))
    assert found(chat) == replace(FULL, top_logprobs=0, logprob_space="unknown")


def test_the_end_token_may_be_left_out():
    chat = FakeChat(end_token=False)
    assert found(chat).end_token is False
    assert found(chat).logprobs


def test_logprobs_after_the_temperature():
    assert found(FakeChat(space="after")) == replace(FULL, logprob_space="after temperature")


def test_greedy_logprobs_that_the_temperature_has_made_certain_are_not_used():
    chat = FakeChat()

    def certain(body):
        reply, status = chat(body)
        if body["temperature"] == 0 and body.get("logprobs"):
            for step in reply["choices"][0]["logprobs"]["content"]:
                step["logprob"] = 0.0
                step["top_logprobs"] = step["top_logprobs"][:1] * 3
                for top in step["top_logprobs"]:
                    top["logprob"] = 0.0
        return reply, status

    capabilities = found(certain)
    assert not capabilities.logprobs
    assert capabilities.top_logprobs == 0


def test_a_server_without_greedy_answers_is_refused_with_its_words():
    def warm_only(body):
        if body["temperature"] != 1:
            return {"error": {"message": "temperature must be 1"}}, 400
        return said("yes"), 200

    with pytest.raises(UsageError, match=r"no greedy answer.*temperature must be 1"):
        found(warm_only)


def test_a_server_that_only_sends_pages_is_no_endpoint():
    with ChatServer(lambda _: (said("x"), 200)) as server:
        server.models = None
        server.always = lambda handler: handler.send_whole(b"<html>", 404)
        with pytest.raises(EndpointError, match="status 404"):
            load_endpoint("m", EndpointSettings((server.url,)))


def test_the_lines_name_every_capability():
    text = "\n".join(FULL.lines())
    assert "yes, the end token included, before the temperature" in text
    assert "per place: 11" in text
    plain = replace(FULL, logprobs=False, top_logprobs=0, seed=False, n=False, images="refused")
    lines = plain.lines()
    assert lines[0] == "log-probabilities: no"
    assert "pictures: refused" in lines
