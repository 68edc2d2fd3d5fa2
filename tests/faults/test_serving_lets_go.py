"""What failed holds neither its pictures nor its text, even where the collector never runs."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from judges import HalfJudge
from running import data_url, picture, running, with_image
from upstreams import upstream

from sightline.models.fake import FakeModel
from sightline.serving import images
from sightline.serving.forwarding import Served
from sightline.serving.limits import Limits
from sightline.serving.local import LocalModel
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server
from sightline.serving.upstream_trust import Drawing

CHAT, DECISIONS = "/v1/chat/completions", "/v1/decisions"
RED = {"type": "predicate", "instructions": "Is it red?"}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert holds()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is in a ring is not freed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Telling(FakeModel):
    """Tells a beginning, and then takes longer than a request may."""

    tells = True

    def observe(self, examples: Any, images: Any, request: Any, **more: Any) -> Any:
        for one in more.pop("told", None) or ():
            if one is not None:
                one("x")
        time.sleep(1.5)
        return super().observe(examples, images, request, **more)


def shown(colour: str) -> dict[str, Any]:
    return {"type": "input_image", "image_url": data_url(picture(colour))}


BROKEN = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
ASK = {"type": "input_text", "text": "Is it red?"}
LATE = {"messages": with_image("What?", data_url(picture("red"))), "stream": True}
FAILING: dict[str, tuple[type[FakeModel], str, dict[str, Any], int]] = {
    "one question": (
        FakeModel,
        DECISIONS,
        {
            "input": "x",
            "questions": [{**RED, "instructions": [one, ASK]} for one in (shown("red"), BROKEN)],
        },
        400,
    ),
    "all questions": (
        Telling,
        DECISIONS,
        {"input": [{"role": "user", "content": [shown("red")]}], "questions": [RED] * 3},
        504,
    ),
    "a stream behind its beginning": (Telling, CHAT, LATE, 200),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_fails_lets_go_of_its_pictures_at_once(
    monkeypatch: pytest.MonkeyPatch, no_collector: None, case: str
) -> None:
    model, path, body, expected = FAILING[case]
    monkeypatch.setattr(images, "_CACHED", 0)
    with running(model(), limits=Limits(request_s=1)) as server:
        status, answered, _ = server.call(path, body)
        assert status == expected
        assert not isinstance(answered, bytes) or b"before the request's deadline" in answered
        backend = server.server.backend
        assert isinstance(backend, LocalModel)
        wait_until(lambda: backend._decoders._held() == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_samples_that_fail_let_go_of_their_question_at_once(
    no_collector: None, stream: bool
) -> None:
    with upstream() as behind:
        asked = Settings("m", upstream=behind.url)
        backend = proxy_of(asked, Served("m", frozenset({"m"})), HalfJudge(samples=3), None)
        with running(server=Server(backend=backend)) as proxy:
            status, document, _ = proxy.chat("samples fail", stream=stream)
            assert status == 200, document
            last = proxy.last(document) if stream else document
            assert "the upstream gave no samples" in last["choices"][0]["trust"]["reason"]
            wait_until(lambda: not any(isinstance(one, Drawing) for one in gc.get_objects()))
