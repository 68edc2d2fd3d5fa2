"""The port is open once it is announced."""

import asyncio
import socket

import pytest

from sightline.core.errors import UsageError
from sightline.serving.server import bind, listen


def test_clients_that_come_before_the_server_runs_wait_in_line():
    with (
        listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname(), timeout=5) as client,
    ):
        client.sendall(b"early")
        taken, _ = listening.accept()
        with taken:
            assert taken.recv(5) == b"early"


def test_a_port_in_use_is_named():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UsageError, match=f"Cannot listen on 127.0.0.1:{port} "):
            listen("127.0.0.1", port)


def test_a_port_is_taken_before_clients_are():
    """While a model loads, clients are turned away rather than kept waiting."""
    with bind("127.0.0.1", 0) as bound:
        address = bound.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UsageError, match=f"Cannot listen on 127.0.0.1:{port} "):
            bind("127.0.0.1", port)


def test_small_parts_of_an_answer_are_sent_at_once():
    """Else the second part of an answer waits 40 ms for the client to acknowledge the first."""

    async def connected() -> int:
        loop, taken = asyncio.get_running_loop(), asyncio.Queue()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                taken.put_nowait(transport)

        listening = listen("127.0.0.1", 0)
        async with await loop.create_server(Server, sock=listening):
            with socket.create_connection(listening.getsockname(), timeout=5):
                transport = await taken.get()
                known = transport.get_extra_info("socket")
                found = known.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                transport.close()
        return found

    assert asyncio.run(connected())
