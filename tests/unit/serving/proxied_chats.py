"""A chat server that a policy was fitted on, and that can change behind its proxy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from chat_servers import PLAIN, FakeChat
from running import picture

from sightline import api
from sightline.core.protocols import Request
from sightline.core.types import Example, Record
from sightline.data.prompts import PromptStyle
from sightline.estimators.agreement import SampleAgreement
from sightline.models.fake import FakeModel
from sightline.models.openai import EndpointSettings

TOKENS, SAMPLES = 2, 10


@dataclass
class Chat:
    """`FakeChat` for whole conversations, of which the last user's text counts, and for streams.

    Attributes:
        chat: Answers; its fields may change.
        most: Answers that one request gets at most.
        finishes: Whether streams say that they are finished.
        behind: What a stream says after that.
        reason: How it calls the end of an answer, in place of its own word.
        draws: Whether it gives sampled answers.
        answers_as: Model that its answers name, in place of its own.
        mark: Their system fingerprint.
    """

    chat: FakeChat = field(default_factory=FakeChat)
    most: int = 64
    finishes: bool = True
    behind: str = ""
    reason: str | None = ""
    draws: bool = True
    answers_as: str | None = None
    mark: str | None = None

    def __call__(self, body: dict[str, Any]) -> tuple[Any, int]:
        asked = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
        if "prompt_logprobs" not in body:
            said = [m["content"] for m in body["messages"] if m["role"] == "user"][-1]
            parts = [{"type": "text", "text": said}] if isinstance(said, str) else said
            asked["messages"] = [{"role": "user", "content": parts}]
        if body.get("temperature") and not self.draws:
            return {"error": {"message": "none drawn"}}, 429
        value, status = self.chat(asked)
        if status == 200 and "choices" in value:
            value["choices"] = value["choices"][: self.most]
            value["model"] = self.answers_as or value["model"]
            value["system_fingerprint"] = self.mark
            if self.reason != "":
                value["choices"][0]["finish_reason"] = self.reason
        if status == 200 and body.get("stream"):
            return (lambda handler: self._stream(handler, value)), 200
        return value, status

    def _stream(self, handler: Any, value: dict[str, Any]) -> None:
        (choice,) = value["choices"]
        content = (choice.get("logprobs") or {"content": []})["content"]
        shown = [one for one in content if one["token"] != "</s>"]
        parts = [_part({"content": one["token"]}, logprobs={"content": [one]}) for one in shown]
        if content:
            parts.append(_part({}, logprobs={"content": content[len(shown) :]}))
        else:
            parts.append(_part({"content": choice["message"]["content"]}))
        if self.finishes:
            parts.append(_part({}, finish_reason=choice["finish_reason"]))
        if self.behind:
            parts.append(_part({"content": self.behind}))
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        handler.close_connection = True
        named = {name: value[name] for name in ("model", "system_fingerprint")}
        for part in parts:
            event = {**named, "choices": [part]}
            handler.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        handler.wfile.write(b"data: [DONE]\n\n")


def _part(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **more}


def questions(count: int) -> list[Example]:
    return [Example(f"q{i}", f"Question {i}?") for i in range(count)]


def choices(count: int) -> list[Example]:
    return [Example(f"c{i}", f"Which {i}?", choices=("red", "blue", "green")) for i in range(count)]


def write_labelled(path: Path, records: Sequence[Record]) -> None:
    """A dataset on which answers that the samples agree with tend to be right.

    One of the questions has a picture, so that a policy knows questions with one and without.
    """
    doubt = SampleAgreement().uncertainty(records)
    noise = np.random.default_rng(0).normal(0, 0.1, len(records))
    rows = [
        {
            "id": record.example.id,
            "question": record.example.question,
            "answer": record.answer.text if good else "something else",
        }
        for record, good in zip(records, doubt + noise < np.median(doubt), strict=True)
    ]
    path.with_name("labelled.png").write_bytes(picture("blue"))
    rows[-1]["image"] = "labelled.png"
    path.write_text("\n".join(map(json.dumps, rows)))


def collect(
    folder: Path,
    url: str,
    name: str = "m",
    count: int = 240,
    samples: int = SAMPLES,
    style: PromptStyle | None = PLAIN,
) -> Path:
    """A run of an endpoint's model on labelled questions."""
    asked = Request(max_new_tokens=TOKENS, n_samples=samples)
    records = FakeModel(style or PromptStyle()).observe(questions(count), [()] * count, asked)
    write_labelled(folder / "questions.jsonl", records)
    api.collect(
        f"openai:{name}",
        folder / "questions.jsonl",
        folder / "run",
        samples=samples,
        max_new_tokens=TOKENS,
        layers=(),
        options=False,
        blank=False,
        style=style,
        batch_size=32,
        model_options={"endpoint": EndpointSettings((url,))},
    )
    return folder / "run"


def policy(run: Path, name: str, *estimators: str, **settings: Any) -> Path:
    """A policy calibrated on the run."""
    path = run.parent / name
    api.calibrate(run, estimators, path, risk=0.5, **settings)
    return path
