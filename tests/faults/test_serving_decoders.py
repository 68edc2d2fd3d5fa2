"""Decoding processes that die or hang: a good picture is answered, a deadly one harms none but it.

The numbers are those of the project's list of hostile inputs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from running import Running, data_url, picture, running, with_image

from sightline.serving import images
from sightline.serving.errors import RequestError
from sightline.serving.images import Decoders
from sightline.serving.limits import Limits

CHAT = "/v1/chat/completions"
COLOURS = ("red", "blue", "green", "white", "black", "yellow", "pink", "navy")


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as found:
        yield found


def decoders() -> list[psutil.Process]:
    """The living decoding processes of this one."""
    found = psutil.Process().children()
    return [
        one
        for one in found
        if one.status() != psutil.STATUS_ZOMBIE and "sightline.serving.decoder" in one.cmdline()
    ]


def asked(server: Running, colour: str) -> tuple[int, Any]:
    """The answer to a question about a picture that was not seen before."""
    body = {"messages": with_image("What?", data_url(picture(colour)))}
    status, document, _ = server.call(CHAT, body)
    return status, document


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_49_decoders_killed_while_they_wait_cost_no_picture(server: Running, how: int) -> None:
    colours = iter(COLOURS)
    for _ in range(3):
        assert asked(server, next(colours))[0] == 200
        waiting = decoders()
        assert waiting
        for one in waiting:
            one.send_signal(how)
        psutil.wait_procs(waiting, 10)
        assert asked(server, next(colours))[0] == 200


def test_49_every_decoder_may_die_at_once() -> None:
    async def use() -> None:
        pool = Decoders(Limits(), count=2)
        await asyncio.gather(*(pool.image(picture(c), "messages", c) for c in COLOURS[:2]))
        waiting = decoders()
        assert len(waiting) == 2
        for one in waiting:
            os.kill(one.pid, signal.SIGKILL)
        found = await asyncio.gather(*(pool.image(picture(c), "messages", c) for c in COLOURS[2:]))
        assert [own.size for own in found] == [(32, 24)] * 6
        assert len(decoders()) <= 2
        await pool.close()
        assert decoders() == []

    asyncio.run(use())


def test_49_a_picture_that_kills_its_decoder_is_refused_alone(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly, tries = picture("tan"), []
    ask = images._ask

    async def killing(decoder: Any, data: bytes, *more: Any) -> Any:
        if data == deadly:
            tries.append(decoder.process.pid)
            decoder.process.kill()
        return await ask(decoder, data, *more)

    monkeypatch.setattr(images, "_ask", killing)
    assert asked(server, "red")[0] == 200
    status, document = asked(server, "tan")
    assert (status, document["error"]["code"]) == (400, "undecodable_image")
    assert len(set(tries)) == 2  # one that waited, and one started for it
    assert asked(server, "blue")[0] == 200
    assert asked(server, "tan")[0] == 400


def test_49_a_decoder_that_hangs_is_ended_and_asked_once() -> None:
    async def use() -> None:
        pool = Decoders(Limits(decode_s=0.5))
        await pool.start()
        (one,) = decoders()
        one.suspend()
        started = time.monotonic()
        with pytest.raises(RequestError, match="within the limits on time") as error:
            await pool.image(picture(), "messages", "red")
        assert (error.value.status, error.value.code) == (400, "undecodable_image")
        assert time.monotonic() - started < 5
        psutil.wait_procs([one], 10)
        assert not one.is_running()
        image = await pool.image(picture(), "messages", "red")
        assert image.size == (32, 24)
        await pool.close()

    asyncio.run(use())
