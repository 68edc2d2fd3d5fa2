"""Holders of different keys cannot tell from the time of an answer what the others asked about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from running import Running, data_url, picture, running, with_image
from upstreams import Upstream, upstream

from sightline.models.fake import FakeModel
from sightline.serving import images
from sightline.serving.forwarding import Served
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server

CHAT = "/v1/chat/completions"
KEYS = ("first", "second")


class Seeing(FakeModel):
    """Keeps the pictures it is shown."""

    seen: list[Any] = []  # noqa: RUF012

    def observe(self, examples: Any, images: Any, request: Any, **more: Any) -> Any:
        self.seen.extend(image for own in images for image in own)
        return super().observe(examples, images, request, **more)


def asked(server: Running, key: str | None, **fields: Any) -> Any:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    body = {"messages": with_image("ok", data_url(picture())), **fields}
    status, document, _ = server.call(CHAT, body, headers=headers)
    assert status == 200, document
    return document


def test_pictures_are_shared_by_requests_with_the_same_key_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded, ask = [], images._ask

    async def counting(*args: Any) -> Any:
        decoded.append(args)
        return await ask(*args)

    monkeypatch.setattr(images, "_ask", counting)
    Seeing.seen.clear()
    with running(Seeing(), keys=KEYS) as server:
        for key in ("first", "second", "first", "second"):
            asked(server, key)
    assert len(decoded) == 2
    first, second, again, other = Seeing.seen
    assert first is again
    assert second is other
    assert first is not second
    assert first.tobytes() == second.tobytes()


@pytest.fixture
def behind() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


def salts(behind: Upstream, keys: tuple[str, ...], salted: bool) -> list[str | None]:
    """What the upstream gets of requests with the first key, the last, and the first again."""
    settings = Settings("m", upstream=behind.url, salted=salted)
    backend = proxy_of(settings, Served("m", frozenset({"m"})), None, None)
    with running(server=Server(backend=backend, keys=keys)) as server:
        for key in (keys[0], keys[-1], keys[0]) if keys else (None,) * 3:
            document = asked(server, key, cache_salt="mine")
            assert "not used, dropped: cache_salt" in document["choices"][0]["trust"]["warnings"]
    return [body.get("cache_salt") for body in behind.bodies[-3:]]


def test_an_upstream_keeps_its_cache_apart_by_key(behind: Upstream) -> None:
    first, second, again = salts(behind, KEYS, salted=True)
    assert first == again != second
    assert {len(str(one)) for one in (first, second)} == {32}
    assert salts(behind, KEYS, salted=True)[0] != first  # another start, other salts
    assert len(set(salts(behind, (), salted=True))) == 1


def test_other_upstreams_get_no_field_that_they_may_refuse(behind: Upstream) -> None:
    assert salts(behind, KEYS, salted=False) == [None] * 3
