"""Tokens flow while the model generates; trust comes last; what is refused was never sent."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from judges import HalfJudge
from running import Running, data_url, picture, running, with_image

from sightline.core.errors import ModelError
from sightline.core.types import Record
from sightline.models.fake import FakeModel

CHAT = "/v1/chat/completions"
ASKED = [{"role": "user", "content": "What is it?"}]


class Telling(FakeModel):
    """Tells the fake model's answer letter by letter, as the test lets it."""

    tells = True
    wait: threading.Event | None = None
    said: tuple[str, ...] | None = None
    fails = False

    def observe(
        self,
        examples: Any,
        images: Any,
        request: Any,
        *,
        told: Sequence[Any] | None = None,
        **more: Any,
    ) -> list[Record]:
        records = super().observe(examples, images, request, **more)
        for record, tell in zip(records, told or (), strict=False):
            text = record.answer.text
            steps = self.said or [text[:end] for end in range(len(text) + 1)]
            for at, step in enumerate(steps):
                if tell is not None:
                    tell(step)
                if at == 2 and self.fails:
                    raise ModelError("The model failed on this one.")
                if at == 2 and self.wait is not None:
                    assert self.wait.wait(20)
        return records


def events(data: bytes) -> list[dict[str, Any]]:
    found = data.decode().split("\n\n")
    assert found[-2:] == ["data: [DONE]", ""]
    return [json.loads(event[6:]) for event in found[:-2]]


def deltas(chunks: Sequence[dict[str, Any]], name: str = "content") -> list[str]:
    return [c["choices"][0]["delta"][name] for c in chunks if c["choices"][0]["delta"].get(name)]


def test_letters_flow_and_trust_is_on_the_last_chunk() -> None:
    with running(Telling(), judge=HalfJudge(0.0), has_policy=True) as server:
        _, whole, _ = server.chat(logprobs=True)
        status, data, _ = server.chat(
            stream=True, logprobs=True, stream_options={"include_usage": True}
        )
        assert status == 200
        *chunks, usage = events(data)
        choice = whole["choices"][0]
        letters = deltas(chunks)
        assert "".join(letters) == choice["message"]["content"]
        assert len(letters) == len(choice["message"]["content"])
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        last = chunks[-1]["choices"][0]
        assert last["finish_reason"] == choice["finish_reason"]
        assert last["trust"]["confidence"] == choice["trust"]["confidence"]
        assert last["logprobs"] == choice["logprobs"]
        assert all("trust" not in c["choices"][0] for c in chunks[:-1])
        assert usage["usage"] == whole["usage"]
        assert 'decision="accepted"} 2' in server.call("/metrics")[1].decode()


def test_the_first_letters_arrive_before_the_answer_is_complete() -> None:
    model = type("Waiting", (Telling,), {"wait": threading.Event()})()
    with running(model) as server, socket.create_connection(("127.0.0.1", server.port)) as line:
        line.settimeout(20)
        line.sendall(request({"messages": ASKED, "stream": True}))
        seen = received(line, lambda seen: seen.count(b"data: ") >= 2)
        assert b"trust" not in seen
        model.wait.set()
        assert b"trust" in received(line, lambda seen: b"[DONE]" in seen)


def received(line: socket.socket, enough: Callable[[bytes], bool]) -> bytes:
    """What arrives until it is enough."""
    seen = b""
    while not enough(seen):
        more = line.recv(65536)
        assert more, seen
        seen += more
    return seen


def request(body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(data)}\r\n\r\n".encode() + data


@pytest.mark.parametrize("mode", ["flag", "refuse"])
def test_where_answers_may_be_withheld_nothing_is_sent_before_the_decision(mode: Any) -> None:
    extra = {} if mode == "refuse" else {"trust": {"abstain_mode": "refuse"}}
    with running(Telling(), judge=HalfJudge(0.999), has_policy=True, mode=mode) as server:
        _, data, _ = server.chat(stream=True, **extra)
        chunks = events(data)
        assert deltas(chunks) == []
        (refusal,) = deltas(chunks, "refusal")
        assert refusal.startswith("Abstained:")
    with running(Telling(), judge=HalfJudge(0.0), has_policy=True, mode=mode) as server:
        assert len(deltas(events(server.chat(stream=True, **extra)[1]))) == 1


@pytest.mark.parametrize("fields", [{"temperature": 0.5}, {"n": 2}])
def test_samples_and_several_choices_come_when_they_are_done(fields: dict[str, Any]) -> None:
    with running(Telling()) as server:
        chunks = events(server.chat(stream=True, **fields)[1])
        assert {c["choices"][0]["index"] for c in chunks} == set(range(fields.get("n", 1)))
        assert len(deltas(chunks)) == fields.get("n", 1)


def test_a_failure_after_the_first_letters_is_the_last_event() -> None:
    model = type("Failing", (Telling,), {"fails": True})()
    with running(model) as server:
        data = server.chat(stream=True)[1]
        document = json.loads(data.decode().split("data: ")[-1])
        assert document["error"]["code"] == "model_refused_input"


def test_a_failure_before_them_is_a_status() -> None:
    class Failing(Telling):
        def observe(self, *_: Any, **__: Any) -> list[Record]:
            raise ModelError("The model failed on this one.")

    with running(Failing()) as server:
        status, document, _ = server.chat(stream=True)
        assert (status, document["error"]["code"]) == (400, "model_refused_input")


def test_text_that_is_taken_back_is_said_and_not_sent() -> None:
    model = type("Wavering", (Telling,), {"said": ("blue", "blu", "blue!", "re")})()
    with running(model) as server:
        data = server.chat(stream=True)[1].decode()
        assert data.count('"content": "blue"') == 1
        assert json.loads(data.split("data: ")[-1])["error"]["code"] == "stream_changed"


def test_a_client_that_leaves_frees_its_place() -> None:
    model = type("Waiting", (Telling,), {"wait": threading.Event()})()
    with running(model) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(request({"messages": ASKED, "stream": True}))
            assert line.recv(100)
        deadline = time.monotonic() + 10
        while server.server.counters.active and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.server.counters.active == 0
        model.wait.set()
        assert server.works()


def test_the_embedded_model_streams_what_it_answers_whole() -> None:
    from sightline.models.loading import load_model

    def ask(server: Running, question: str, **fields: Any) -> Any:
        url = data_url(picture("green", size=(96, 96)))
        body = {"messages": with_image(question, url), "logprobs": True, **fields}
        status, document, _ = server.call(CHAT, body)
        assert status == 200
        return document

    with running(load_model("embedded:vlm"), judge=HalfJudge(), has_policy=True) as server:
        pieces = []
        for question in ("What is in the image?", "Is there a circle?", "Describe the picture."):
            choice = ask(server, question)["choices"][0]
            chunks = events(ask(server, question, stream=True))
            assert "".join(deltas(chunks)) == choice["message"]["content"]
            trust = chunks[-1]["choices"][0]["trust"]
            assert trust["confidence"] == pytest.approx(choice["trust"]["confidence"], abs=1e-6)
            pieces.append(len(deltas(chunks)))
        assert max(pieces) > 1
