"""Explanations through the engine are those of ``ask --explain``, and leak nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judges import HalfJudge
from PIL import Image
from running import data_url, picture, running, with_image
from upstreams import upstream

from sightline.core.types import Example
from sightline.models.fake import FakeModel
from sightline.serving.forwarding import Served
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server
from sightline.workflow.asking import ask

sys.path.insert(0, str(Path(__file__).parent))

CHAT = "/v1/chat/completions"


def body(**trust: Any) -> dict[str, Any]:
    url = data_url(picture("green", size=(64, 48)))
    return {"messages": with_image("What is it?", url), "trust": {"explain": True, **trust}}


def test_it_is_the_explanation_of_asking(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(picture("green", size=(64, 48)))
    with running(judge=HalfJudge(), has_policy=True) as server:
        _, document, _ = server.call(CHAT, body())
        plain = server.call(CHAT, {"messages": body()["messages"]})[1]
    found = document["choices"][0]["trust"]["explanation"]
    assert "explanation" not in plain["choices"][0]["trust"]
    assert document["choices"][0]["trust"]["confidence"] == pytest.approx(
        plain["choices"][0]["trust"]["confidence"]
    )
    own = ask(FakeModel(), [path], "What is it?", explained=True)
    expected = own.explanation.to_dict()
    assert [s["condition"] for s in found["shifts"]] == ["translate:4", "jpeg:3", "blank"]
    assert found["draws"]["n"] == expected["draws"]["n"] == 10
    assert set(found) == set(expected)
    assert len(found["tokens"]) == len(expected["tokens"])


def test_the_same_model_and_question_give_the_same_numbers() -> None:
    from sightline.models.loading import load_model
    from sightline.workflow.explaining import explain

    model = load_model("embedded:vlm")
    image = Image.fromarray(np.tile(np.uint8([20, 160, 40]), (96, 96, 1)))
    with running(model, judge=HalfJudge(), has_policy=True) as server:
        url = data_url(picture((20, 160, 40), size=(96, 96)))  # type: ignore[arg-type]
        asked = {"messages": with_image("What is in the image?", url), "trust": {"explain": True}}
        status, document, _ = server.call(CHAT, asked)
        assert status == 200
        found = document["choices"][0]["trust"]["explanation"]
        record = model.observe(
            [Example("x", "What is in the image?")], [(image,)], HalfJudge().requests[0]
        )[0]
        expected = explain(model, record, (image,), max_new_tokens=64).to_dict()
    for one, other in zip(found["shifts"], expected["shifts"], strict=True):
        assert one["answer"] == other["answer"]
        assert one["distance"] == pytest.approx(other["distance"], abs=1e-5)
    assert found["prior"]["blank_probability"] == pytest.approx(
        expected["prior"]["blank_probability"], rel=1e-4
    )
    assert [t["text"] for t in found["tokens"]] == [t["text"] for t in expected["tokens"]]


def test_an_answer_that_is_withheld_is_not_explained() -> None:
    with running(judge=HalfJudge(0.999), has_policy=True, mode="refuse") as server:
        choice = server.call(CHAT, body())[1]["choices"][0]
        assert choice["message"]["content"] is None
        assert choice["trust"]["explanation"] is None


def test_a_question_without_a_picture_has_samples_and_tokens() -> None:
    with running(judge=HalfJudge(), has_policy=True) as server:
        found = server.chat(trust={"explain": True})[1]["choices"][0]["trust"]["explanation"]
        assert (found["prior"], found["shifts"]) == (None, [])
        assert found["draws"]["n"] == 10


def test_what_cannot_be_explained_says_so() -> None:
    with upstream() as behind:
        asked = Settings("m", upstream=behind.url)
        backend = proxy_of(asked, Served("m", frozenset({"m"})), HalfJudge(), None)
        with running(server=Server(backend=backend, has_policy=True)) as proxy:
            status, document, _ = proxy.call(CHAT, body())
            assert (status, document["error"]["param"]) == (400, "trust.explain")
            assert proxy.call("/v1/models")[1]["data"][0]["explains"] is False
    with running(judge=HalfJudge(), has_policy=True) as server:
        question = {"type": "predicate", "instructions": "Is it?"}
        request = {"input": "x", "questions": [question], "trust": {"explain": True}}
        status, document, _ = server.call("/v1/decisions", request)
        assert (status, document["error"]["param"]) == (400, "trust.explain")
