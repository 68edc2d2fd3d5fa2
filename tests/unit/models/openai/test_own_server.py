"""Our own server as the endpoint: its model is observed as if it were here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from chat_servers import PLAIN
from PIL import Image

from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.models.fake import FakeModel
from sightline.models.openai import EndpointSettings, load_endpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "serving"))

from running import running


def test_the_answer_and_its_logprobs_are_those_of_the_model():
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    examples = [Example("a", "What is it?"), Example("b", "Where is it?")]
    images = [(Image.fromarray(pixels),), ()]
    request = Request(max_new_tokens=10, n_samples=4)
    local = FakeModel(PLAIN).observe(examples, images, request)
    with running(FakeModel(PLAIN)) as server:
        where = EndpointSettings((f"http://127.0.0.1:{server.port}/v1",))
        model = load_endpoint("fake", where, style=PLAIN)
        remote = model.observe(examples, images, request)
    assert model.capabilities.logprobs
    assert model.capabilities.images == "seen"
    assert not model.capabilities.end_token
    for here, there in zip(local, remote, strict=True):
        assert there.answer.text == here.answer.text
        shown = there.answer.n_tokens
        assert here.answer.n_tokens - shown == (here.answer.finish_reason == "stop")
        assert there.answer.tokens == here.answer.tokens[:shown]
        np.testing.assert_array_equal(there.answer.logprobs, here.answer.logprobs[:shown])
        assert len(there.samples) == 4
