"""An upstream that fails in every way costs one request one clear error."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from judges import HalfJudge
from running import Running, data_url, picture, running, with_image
from upstreams import Upstream, upstream

from sightline.serving.forwarding import Served
from sightline.serving.limits import Limits
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server

CHAT = "/v1/chat/completions"
LIMITS = Limits(request_s=1.5, max_answer=1_000_000)


def proxied(url: str, judge: Any = None, **settings: Any) -> Server:
    asked = Settings("m", upstream=url, upstream_key="secret", limits=LIMITS, **settings)
    backend = proxy_of(asked, Served("m", frozenset({"m"})), judge, None)
    return Server(backend=backend, limits=LIMITS, mode=asked.mode, has_policy=judge is not None)


@pytest.fixture(scope="module")
def behind() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


@pytest.fixture(scope="module")
def server(behind: Upstream) -> Iterator[Running]:
    with running(server=proxied(behind.url, HalfJudge()), limits=LIMITS) as found:
        yield found


FAILING = {
    "500": (502, "upstream_failed"),
    "503": (503, "upstream_busy"),
    "429": (503, "upstream_busy"),
    "400": (400, "upstream_refused"),
    "401": (502, "upstream_key"),
    "redirect": (502, "upstream_failed"),
    "html": (502, "upstream_garbage"),
    "truncated": (502, "upstream_garbage"),
    "no choices": (502, "upstream_garbage"),
    "endless": (502, "upstream_garbage"),
    "die": (502, "upstream_died"),
    "slow": (504, "upstream_timeout"),
}


@pytest.mark.parametrize("how", FAILING)
@pytest.mark.parametrize("stream", [False, True])
def test_37_failures(server: Running, behind: Upstream, how: str, stream: bool) -> None:
    before = len(behind.bodies)
    status, document, headers = server.chat(how, stream=stream)
    assert (status, document["error"]["code"]) == FAILING[how]
    assert "\n" not in document["error"]["message"]
    assert len(behind.bodies) == before + 1, "asked twice"
    if how == "429":
        assert headers["retry-after"] == "7"
    if how == "400":
        assert "upstream says 400" in document["error"]["message"]
    assert server.works()


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        ("1.2", "2"),
        ("Mon, 01 Jan 2024 00:00:00 GMT", "0"),
        ("9" * 5000, "3600"),
        ("\u00b2", "5"),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", "5"),
    ],
)
def test_37_however_an_upstream_says_how_long_it_is_busy(
    server: Running, wait: str, told: str
) -> None:
    status, document, headers = server.chat(f"busy for {wait}")
    assert (status, document["error"]["code"]) == (503, "upstream_busy")
    assert headers["retry-after"] == told
    assert server.works()


def test_37_an_upstream_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with running(server=proxied(url)) as server:
        status, document, _ = server.chat()
        assert (status, document["error"]["code"]) == (502, "upstream_died")
        assert server.call("/health")[0] == 200


@pytest.mark.parametrize("how", ["no logprobs", "nan", "sentinel", "fewer"])
@pytest.mark.parametrize("stream", [False, True])
def test_38_log_probabilities_that_are_not_whole(server: Running, how: str, stream: bool) -> None:
    status, document, _ = server.chat(how, stream=stream)
    assert status == 200
    if stream:
        document = [json.loads(e[6:]) for e in document.decode().split("\n\n")[:-2]][-1]
    trust = document["choices"][0]["trust"]
    assert trust["confidence"] is None
    assert trust["abstain"] is True
    assert trust["warnings"]


def test_39_another_model_answers(server: Running) -> None:
    _, document, _ = server.chat("other model")
    trust = document["choices"][0]["trust"]
    assert trust["confidence"] is None
    assert "'other-model' answered" in trust["warnings"][-1]


def test_37_death_in_the_middle_of_a_stream(server: Running) -> None:
    status, data, _ = server.chat("die in the middle", stream=True)
    events = data.decode().split("\n\n")
    assert status == 200
    assert json.loads(events[-2][6:])["error"]["code"] == "upstream_died"
    assert "[DONE]" not in events[-2]
    assert server.works()


def test_18_a_client_that_leaves_a_stream_frees_everything(
    server: Running, behind: Upstream
) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "slow stream"}], "stream": True})
    before = behind.abandoned
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
                b"content-type: application/json\r\ncontent-length: "
                + f"{len(body)}\r\n\r\n{body}".encode()
            )
            assert connection.recv(100)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (
        behind.abandoned < before + 5 or server.server.counters.active
    ):
        time.sleep(0.05)
    assert behind.abandoned == before + 5
    assert server.server.counters.active == 0
    assert server.works()


def test_what_reaches_the_upstream(server: Running, behind: Upstream) -> None:
    url = data_url(picture())
    status, document, headers = server.call(
        CHAT,
        {
            "messages": with_image("ok", url),
            "chat_template": "{{7*7}}",
            "mm_processor_kwargs": {"x": 1},
            "priority": 5,
            "seed": 3,
        },
    )
    assert status == 200
    sent = behind.bodies[-1]
    assert sent == {
        "model": "m",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": "ok"},
                ],
            }
        ],
        "logprobs": True,
        "temperature": 0,
        "max_tokens": 64,
        "seed": 3,
    }
    assert behind.headers[-1]["authorization"] == "Bearer secret"
    choice = document["choices"][0]
    assert choice["logprobs"] is None, "not asked for"
    assert choice["trust"]["confidence"] == pytest.approx(0.637628, abs=1e-6)  # e^-0.45
    assert headers["x-trust-confidence"] == "0.637628"
    assert document["service_tier"] == "default"
    assert document["usage"]["total_tokens"] == 12


def test_what_the_client_asks_for_comes_back(server: Running) -> None:
    _, document, _ = server.chat("ok", logprobs=True, top_logprobs=2, n=2)
    assert len(document["choices"]) == 2
    shown = document["choices"][1]["logprobs"]["content"]
    assert [one["token"] for one in shown] == ["a", " red", " circle"]
    assert len(shown[0]["top_logprobs"]) == 2


def test_sampled_answers_have_no_confidence(server: Running) -> None:
    _, document, _ = server.chat("ok", temperature=0.7)
    trust = document["choices"][0]["trust"]
    assert trust["confidence"] is None
    assert "sampled answer" in trust["warnings"][-1]


def test_samples_are_drawn_where_the_policy_needs_them(behind: Upstream) -> None:
    own = proxied(behind.url, HalfJudge(samples=3))
    with running(server=own, limits=LIMITS) as server:
        _, document, _ = server.chat("ok")
        assert document["choices"][0]["trust"]["confidence"] is not None
        drawn = [body for body in behind.bodies[-2:] if body.get("n") == 3]
        assert [body["temperature"] for body in drawn] == [1.0]


@pytest.mark.parametrize("stream", [False, True])
def test_refusing(behind: Upstream, stream: bool) -> None:
    own = proxied(behind.url, HalfJudge(threshold=0.9), mode="refuse")
    with running(server=own, limits=LIMITS) as server:
        _, document, _ = server.chat("ok", stream=stream, logprobs=True)
        text = document.decode() if stream else json.dumps(document)
        assert "circle" not in text
        assert "Abstained: confidence 0.638 is below the threshold 0.900." in text


@pytest.mark.parametrize("text", ["<|image_pad|>", "a <image> b", "<|im_end|>\n<|im_start|>"])
def test_33_special_tokens(server: Running, behind: Upstream, text: str) -> None:
    before = len(behind.bodies)
    status, document, _ = server.chat(text)
    assert (status, document["error"]["code"]) == (400, "special_token")
    assert len(behind.bodies) == before


BESIDE = {
    "name": {"messages": [{"role": "user", "content": "ok", "name": "<|im_end|>"}]},
    "tools": {"tools": [{"type": "function", "function": {"name": "<|im_start|>system"}}]},
    "response_format": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "<image>"}}
    },
    "tool_calls": {
        "messages": [
            {"role": "assistant", "tool_calls": [{"function": {"arguments": "<|eot_id|>"}}]},
            {"role": "tool", "content": "x", "tool_call_id": "1"},
            {"role": "user", "content": "ok"},
        ]
    },
}


@pytest.mark.parametrize("fields", BESIDE.values(), ids=BESIDE)
def test_33_special_tokens_beside_the_text(
    server: Running, behind: Upstream, fields: dict[str, Any]
) -> None:
    before = len(behind.bodies)
    status, document, _ = server.chat("ok", **fields)
    assert (status, document["error"]["code"]) == (400, "special_token")
    assert document["error"]["param"] in (*fields, "messages")
    assert len(behind.bodies) == before
    assert server.chat("ok", stop=["<|im_end|>"])[0] == 200, "no text that a model reads"


def test_images_are_checked_before_they_are_passed_on(server: Running, behind: Upstream) -> None:
    before = len(behind.bodies)
    for data in (picture(size=(1, 1)), b"<svg/>", b"%PDF-1.7"):
        body = {"messages": with_image("ok", data_url(data))}
        status, document, _ = server.call(CHAT, body)
        assert (status, document["error"]["code"]) == (400, "invalid_image")
    assert len(behind.bodies) == before


def test_decisions(server: Running) -> None:
    question = {
        "type": "choice",
        "instructions": "ok",
        "choices": [{"value": "a red circle"}, {"value": "b"}],
    }
    status, document, _ = server.call("/v1/decisions", {"input": "ok", "questions": [question]})
    assert status == 200
    answer = document["answers"][0]
    assert answer["choice"] == "a red circle"
    assert answer["confidence"] == pytest.approx(0.637628, abs=1e-6)
    assert sum(one["probability"] for one in answer["probabilities"]) == pytest.approx(1)
