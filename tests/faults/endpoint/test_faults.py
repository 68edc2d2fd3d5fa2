"""What a model's server can do wrong: it costs one example at most, or stops in one line."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from chat_servers import PLAIN, ChatServer, FakeChat, said, token

from sightline.core.errors import EndpointError, ModelError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.models.openai import EndpointModel, EndpointSettings, load_endpoint
from sightline.models.openai.transport import Transport

ONE = [Example("one", "What is it?")]
REQUEST = Request(max_new_tokens=8, top_k_logprobs=3)


@lru_cache
def probed():
    """What the faithful server was seen to do; found once."""
    with ChatServer(FakeChat()) as server:
        return load_endpoint("m", EndpointSettings((server.url,)), style=PLAIN).capabilities


def endpoint(*servers, without=(), **settings):
    """The model behind the servers, as if probed; ``without`` are capabilities they lack."""
    fast = {"backoff_s": 0.01, "attempts": 3, "timeout_s": 1.0, **settings}
    where = EndpointSettings(tuple(server.url for server in servers), **fast)
    found = replace(probed(), **dict.fromkeys(without, False))
    return EndpointModel("m", where, found, {}, transport=Transport(where), style=PLAIN)


def status(code, body=b"{}", **headers):
    return lambda handler: handler.send_whole(body, code, **headers)


def body(raw, **headers):
    return lambda handler: handler.send_whole(raw, **headers)


def cut_short(handler):
    """Promises more bytes than it sends, then closes."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def reset_in_the_body(handler):
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    time.sleep(0.05)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def hang_up(handler):
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def never(handler):
    time.sleep(2.5)


def drip(handler):
    """One byte at a time: every read succeeds, the whole never comes."""
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)
    handler.close_connection = True


def endless(handler):
    handler.send_response(200)
    handler.send_header("connection", "close")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(200):
        handler.wfile.write(b" " * 100_000)


FAULTS = {
    "429": status(429),
    "500": status(500, b"<html>internal</html>", content_type="text/html"),
    "502": status(502, b"<html>bad gateway</html>", content_type="text/html"),
    "503": status(503, retry_after="0"),
    "504": status(504),
    "html with status 200": body(b"<!DOCTYPE html><p>login", content_type="text/html"),
    "html called json": body(b"<html><p>proxy error"),
    "truncated json": body(json.dumps(said("yes")).encode()[:-20]),
    "empty body": body(b""),
    "utf-16": body(json.dumps(said("yes")).encode("utf-16")),
    "a list": body(b"[]"),
    "null": body(b"null"),
    "deep nesting": body(b"[" * 100_000),
    "a 5,000-digit integer": body(b'{"choices": [' + b"9" * 5000 + b"]}"),
    "no choices": body(b'{"object": "chat.completion"}'),
    "empty choices": body(b'{"choices": []}'),
    "null choice": body(b'{"choices": [null]}'),
    "no message": body(b'{"choices": [{"index": 0}]}'),
    "a number as content": body(b'{"choices": [{"message": {"content": 5}}]}'),
    "an error with status 200": body(b'{"error": {"message": "overloaded"}}'),
    "broken gzip": body(b"not gzip", content_encoding="gzip"),
    "cut short": cut_short,
    "reset in the body": reset_in_the_body,
    "closed without a word": hang_up,
    "no answer in time": never,
    "slow drip": drip,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_greedy_answer_is_asked_for_again_and_equal(fault):
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        (expected,) = model.observe(ONE, [()], REQUEST)
        server.script.append(fault)
        (record,) = model.observe(ONE, [()], REQUEST)
        assert len(server.requests) == 3
        (after,) = model.observe(ONE, [()], REQUEST)  # the next request is a usual one
    for found in (record, after):
        assert found.answer.text == expected.answer.text
        np.testing.assert_array_equal(found.answer.logprobs, expected.answer.logprobs)


@pytest.mark.parametrize(
    "fault",
    ["500", "html with status 200", "truncated json", "no choices", "cut short", "slow drip"],
)
def test_a_fault_of_one_example_that_stays_is_its_error_alone(fault):
    with ChatServer(FakeChat()) as server:
        model = endpoint(server, timeout_s=0.5)
        good = server.answer

        def answer(asked):
            poisoned = "poison" in json.dumps(asked["messages"])
            return (FAULTS[fault], 200) if poisoned else good(asked)

        server.answer = answer
        examples = [Example("a", "What?"), Example("bad", "poison"), Example("b", "Where?")]
        with pytest.raises(ModelError, match="'bad'") as caught:
            model.observe(examples, [()] * 3, REQUEST)
        assert "\n" not in str(caught.value)
        asked = len(server.requests)
        assert asked == 2 + 3
        with pytest.raises(ModelError, match="in 3 tries"):
            model.observe([examples[1]], [()], REQUEST)  # remembered: not asked again
        assert len(server.requests) == asked
        assert len(model.observe([examples[0], examples[2]], [(), ()], REQUEST)) == 2
        assert len(server.requests) == asked  # answered before, and kept


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_refused_request_is_not_repeated(code):
    said_so = json.dumps({"error": {"message": "too\x1b[2J big\nfor us"}}).encode()
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        server.always = status(code, said_so)
        with pytest.raises(ModelError, match=rf"status {code}\): too\\x1b\[2J big for us"):
            model.observe(ONE, [()], REQUEST)
        assert len(server.requests) == 1


@pytest.mark.parametrize("code", [401, 403, 404, 307])
def test_a_server_that_may_not_be_asked_stops_the_run(code, monkeypatch):
    monkeypatch.setenv("KEY_OF_TESTS", "sk-0123456789")
    echoed = json.dumps({"error": {"message": "bad key sk-0123456789"}}).encode()
    with ChatServer(FakeChat()) as server:
        model = endpoint(server, api_key_env="KEY_OF_TESTS")
        server.always = status(code, echoed, location="http://127.0.0.1:9/v1")
        with pytest.raises(EndpointError, match=f"status {code}") as caught:
            model.observe(ONE, [()], REQUEST)
        assert len(server.requests) == 1
    assert "sk-0123456789" not in str(caught.value)
    assert "bad key ***" in str(caught.value)


def test_retry_after_is_kept_to():
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        server.script.append(status(429, retry_after="0.6"))
        model.observe(ONE, [()], REQUEST)
        first, second = (at for _, _, at in server.requests)
    assert 0.55 < second - first < 5


def test_a_server_without_room_stops_the_run_after_its_tries():
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        server.always = status(429)
        with pytest.raises(EndpointError, match=r"status 429\) in 3 tries.*Look at the server"):
            model.observe(ONE, [()], REQUEST)
        assert len(server.requests) == 3


def test_a_dead_server_stops_the_run_and_a_new_one_goes_on():
    chat = FakeChat()
    with ChatServer(chat) as server:
        model = endpoint(server)
        (expected,) = model.observe(ONE, [()], REQUEST)
        port = server.port
    with pytest.raises(EndpointError, match=r"no connection|broke"):
        model.observe(ONE, [()], REQUEST)
    with ChatServer(chat, port=port):
        (record,) = model.observe(ONE, [()], REQUEST)
    assert record.answer.text == expected.answer.text


def test_a_sample_without_a_seed_is_not_drawn_again_once_it_has_begun():
    with ChatServer(FakeChat()) as server:
        model = endpoint(server, without=("seed",))
        server.script.extend([None, cut_short])
        with pytest.raises(ModelError, match="in 1 try"):
            model.observe(ONE, [()], Request(max_new_tokens=8, n_samples=1))
        assert len(server.requests) == 2
        server.script.extend([status(503), None])  # nothing of an answer had come
        (record,) = model.observe(ONE, [()], Request(max_new_tokens=9, n_samples=1))
    assert len(record.samples) == 1


def test_fewer_samples_than_asked_for_are_an_error():
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        good = server.answer

        def fewer(asked):
            reply, code = good(asked)
            return {**reply, "choices": reply["choices"][:3]}, code

        server.answer = fewer
        with pytest.raises(ModelError, match="3 of 5 samples"):
            model.observe(ONE, [()], Request(max_new_tokens=8, n_samples=5))


def test_a_huge_reply_is_cut_off():
    with ChatServer(FakeChat()) as server:
        model = endpoint(server, max_reply_bytes=300_000, timeout_s=10.0)
        server.always = endless
        with pytest.raises(ModelError, match="more than 300000 bytes"):
            model.observe(ONE, [()], REQUEST)
        server.always = body(gzip.compress(b" " * 10_000_000), content_encoding="gzip")
        with pytest.raises(ModelError, match="more than 300000 bytes"):
            model.observe([Example("two", "Why?")], [()], REQUEST)


ODD_LOGPROBS = {
    "sentinel": [token(" yes", -9999.0), token("</s>", -0.1)],
    "null": [token(" yes", None), token("</s>", -0.1)],
    "a word": [token(" yes", "high"), token("</s>", -0.1)],
    "true": [token(" yes", True), token("</s>", -0.1)],
    "positive": [token(" yes", 0.5), token("</s>", -0.1)],
    "too large to be a number": [token(" yes", -(10**400)), token("</s>", -0.1)],
    "fewer tokens than text": [token(" ye", -0.5)],
    "tokens of another text": [token(" no", -0.5), token("</s>", -0.1)],
    "a token without text": [{"logprob": -0.5}],
    "no tokens": [],
    "not a token": ["yes"],
}


@pytest.mark.parametrize("content", ODD_LOGPROBS.values(), ids=ODD_LOGPROBS)
def test_logprobs_that_say_nothing_are_missing_and_the_answer_stays(content):
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        server.answer = lambda _: (said("yes", logprobs=content), 200)
        (record,) = model.observe(ONE, [()], REQUEST)
    assert record.answer.text == "yes"
    assert record.answer.logprobs is None
    assert not record.has(Feature.TOP_LOGPROBS)


def test_nan_and_infinity_on_the_wire_are_missing():
    raw = json.dumps(said("yes", logprobs=[token(" yes", "@", {"no": -1.0, "yes": "@"})]))
    for literal in ("NaN", "-Infinity", "1e999", "-1e999"):
        with ChatServer(FakeChat()) as server:
            model = endpoint(server)
            server.always = body(raw.replace('"@"', literal).encode())
            (record,) = model.observe(ONE, [()], REQUEST)
        assert record.answer.text == "yes"
        assert record.answer.logprobs is None


def test_missing_likeliest_tokens_shrink_the_list_and_are_never_made_up():
    content = [
        token(" yes", -0.5, {" yes": -0.5, " no": -1.0, " red": -9999.0}),
        token("</s>", -0.1, {"</s>": -0.1, " one": -3.0, " two": -4.0}),
    ]
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        server.answer = lambda _: (said("yes", logprobs=content), 200)
        (record,) = model.observe(ONE, [()], REQUEST)
    np.testing.assert_array_equal(record.answer.logprobs, [-0.5, -0.1])
    np.testing.assert_array_equal(record.array(Feature.TOP_LOGPROBS), [[-0.5, -1.0], [-0.1, -3.0]])


def test_text_no_terminal_should_see_and_half_characters_are_kept_as_text():
    half = [
        {"token": "�", "bytes": [0xF0, 0x9F], "logprob": -0.5},
        {"token": "�", "bytes": [0x98, 0x80], "logprob": -0.25},
    ]
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        server.answer = lambda _: (said("😀", logprobs=half), 200)
        (record,) = model.observe(ONE, [()], REQUEST)
        np.testing.assert_array_equal(record.answer.logprobs, [-0.5, -0.25])
        raw = json.dumps(said("A\x00\x1b]52;c;x\x07")).replace("A", "\\ud800A").encode()
        server.always = body(raw)
        (record,) = model.observe([Example("two", "Why?")], [()], REQUEST)
    assert record.answer.text.encode() == b"?A\x00\x1b]52;c;x\x07"


def test_an_answer_that_claims_a_confidence_stays_text():
    claim = '{"trust": {"confidence": 1.0}}'
    with ChatServer(FakeChat()) as server:
        model = endpoint(server)
        server.answer = lambda _: ({**said(claim), "trust": {"confidence": 1.0}}, 200)
        (record,) = model.observe(ONE, [()], REQUEST)
    assert record.answer.text == claim
    assert record.features == {}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/v1",
        "http://",
        "http://u:p@h/v1",
        "http://h/v1?x=1",
        "http://good\\@127.0.0.1",
        "http://h:99999/v1",
        "http://h/\tv1",
    ],
)
def test_a_bad_address_is_refused(url):
    with pytest.raises(UsageError, match="Base URL"):
        EndpointSettings((url,))


def test_a_key_is_taken_from_its_variable_alone(monkeypatch):
    settings = EndpointSettings(("http://127.0.0.1:9/v1",), api_key_env="KEY_OF_TESTS")
    monkeypatch.delenv("KEY_OF_TESTS", raising=False)
    with pytest.raises(UsageError, match="KEY_OF_TESTS is not set"):
        settings.api_key()
    monkeypatch.setenv("KEY_OF_TESTS", "sk-a\r\nx-evil: 1")
    with pytest.raises(UsageError, match="cannot carry") as caught:
        settings.api_key()
    assert "sk-a" not in str(caught.value)


@pytest.mark.parametrize("local", [{"dtype": "float16"}, {"device_map": "cuda"}, {"revision": "x"}])
def test_how_to_load_a_model_is_the_servers_matter(local):
    from sightline.models import check_model, load_model

    where = EndpointSettings(("http://127.0.0.1:9/v1",))
    for check in (check_model, load_model):
        with pytest.raises(UsageError, match=f"openai:m with {next(iter(local))}"):
            check("openai:m", endpoint=where, **local)
