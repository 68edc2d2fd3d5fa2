"""Kept connections: used again, never where the server has closed or said too much."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sightline.serving.connections import (
    BrokenError,
    Connections,
    UnreachableError,
    read_whole,
)

Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok"


def asked(serve: Served, times: int = 1, *, kept_s: float = 2.0, pause: float = 0) -> list[object]:
    """Bodies (or the error's class) of requests one after another to a scripted server."""

    async def main() -> list[object]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve(reader, writer)
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool = Connections(f"http://127.0.0.1:{port}/v1", most=2, connect_s=2, kept_s=kept_s)
        found: list[object] = []
        for _ in range(times):
            try:
                async with asyncio.timeout(5), pool.post("/v1/x", {"a": "b"}, b"hi") as reply:
                    found.append((reply.status, await read_whole(reply, 100_000)))
            except (BrokenError, UnreachableError) as error:
                found.append(type(error))
            await asyncio.sleep(pause)
        await pool.close()
        server.close()
        return found

    return asyncio.run(main())


class Script:
    """Answers each request on a connection with the next bytes; counts connections."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.connections, self.heads = list(answers), 0, list[bytes]()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.answers:
            try:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                assert await reader.readexactly(2) == b"hi"
            except asyncio.IncompleteReadError:
                return
            answer = self.answers.pop(0)
            writer.write(answer.removesuffix(b"CLOSE"))
            await writer.drain()
            if answer.endswith(b"CLOSE"):
                return


def test_a_connection_is_used_again() -> None:
    script = Script(GOOD, GOOD, GOOD)
    assert asked(script, 3) == [(200, b"ok")] * 3
    assert script.connections == 1
    lines = script.heads[0].lower().split(b"\r\n")
    assert lines[0] == b"post /v1/x http/1.1"
    assert {b"a: b", b"content-length: 2"} <= set(lines)
    assert any(line.startswith(b"host: 127.0.0.1:") for line in lines)


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (GOOD.replace(b"X-A: b", b"Connection: close"), b"ok"),
        (GOOD + b"CLOSE", b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nup to the endCLOSE", b"up to the end"),
        (GOOD + b"HTTP/1.1 200 OK\r\n", b"ok"),
    ],
    ids=["said", "done", "by the end", "something left over"],
)
def test_one_that_the_server_gave_up_is_not(first: bytes, body: bytes) -> None:
    script = Script(first, GOOD)
    assert asked(script, 2, pause=0.05) == [(200, body), (200, b"ok")]
    assert script.connections == 2


def test_one_that_was_idle_for_long_is_not() -> None:
    script = Script(GOOD, GOOD)
    assert asked(script, 2, kept_s=0.02, pause=0.1) == [(200, b"ok")] * 2
    assert script.connections == 2


def test_pieces_hints_and_statuses_come_through() -> None:
    chunked = (
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 No\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    )
    assert asked(Script(chunked, GOOD), 2) == [(404, b"abcdefg"), (200, b"ok")]


@pytest.mark.parametrize(
    "answer",
    [
        b"CLOSE",
        b"HTTP/1.1 200 OK\r\nContent-LeCLOSE",
        GOOD[:-1] + b"CLOSE",
        b"SSH-2.0-OpenSSH_9.6\r\nCLOSE",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\nCLOSE",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nCLOSE",
    ],
    ids=["nothing", "half a head", "half a body", "no HTTP", "a long head", "no last chunk"],
)
def test_broken_answers_are_said_and_the_next_is_fine(answer: bytes) -> None:
    assert asked(Script(answer, GOOD), 2) == [BrokenError, (200, b"ok")]


def test_a_body_that_is_too_long_is_not_kept() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nhi")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            return

    assert asked(endless) == [(200, None)]


def test_a_server_that_is_not_there_is_unreachable() -> None:
    async def main() -> None:
        pool = Connections("http://127.0.0.1:1", most=1, connect_s=1, kept_s=1)
        with pytest.raises(UnreachableError):
            async with pool.post("/", {}, b""):
                pass

    asyncio.run(main())


def test_who_leaves_early_frees_the_place() -> None:
    async def main() -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            left.append(await reader.read(1000))
            writer.close()

        left: list[bytes] = []
        server = await asyncio.start_server(slow, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool = Connections(f"http://127.0.0.1:{port}", most=1, connect_s=2, kept_s=2)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), pool.post("/", {}, b"hi"):
                    pass
        await asyncio.sleep(0.1)
        assert left == [b""] * 3
        server.close()

    asyncio.run(main())
