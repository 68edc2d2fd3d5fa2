"""Images from addresses: off by default, and on only for named hosts at public numbers."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import picture

from sightline.serving import fetching, image_files
from sightline.serving.errors import RequestError
from sightline.serving.fetching import Addresses, is_public
from sightline.serving.limits import Limits

PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fd00::1",
    "fec0::1",
    "4000::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:0:0:0:0:0:80ff:fffe",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_28_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "3ffe::1", "::ffff:8.8.8.8"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


class Host(BaseHTTPRequestHandler):
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["host"]))
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("location", "http://127.0.0.1/secret")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/endless":
            for _ in range(1000):
                self.wfile.write(b"x" * 10_000)
        elif self.path == "/slow":
            time.sleep(3)
        else:
            self.wfile.write(picture())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    asked: list[tuple[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Host,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


def fetch(addresses: Addresses, url: str) -> bytes:
    async def one() -> bytes:
        return (await addresses([url], "messages"))[0]

    return asyncio.run(one())


def to(numbers: list[str]) -> Any:
    async def lookup(_: str, __: int) -> list[str]:
        return numbers

    return lookup


def test_an_allowed_host_is_asked_at_the_number_that_was_checked(
    host: tuple[int, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = host
    monkeypatch.setattr(fetching, "is_public", lambda _: True)
    addresses = Addresses(Limits(), ["images.test"], to(["127.0.0.1"]), frozenset({port}))
    url = f"http://images.test:{port}/a.png?b=c"
    assert fetch(addresses, url) == picture()
    assert asked == [("/a.png?b=c", f"images.test:{port}")]
    with pytest.raises(RequestError, match="redirects are not followed"):
        fetch(addresses, f"http://images.test:{port}/redirect")
    small = Addresses(
        Limits(max_image_bytes=50_000), ["images.test"], to(["127.0.0.1"]), frozenset({port})
    )
    with pytest.raises(RequestError, match="more than 50000 bytes"):
        fetch(small, f"http://images.test:{port}/endless")
    monkeypatch.setattr(fetching, "FETCH_S", 0.5)
    with pytest.raises(RequestError, match=r"did not arrive within 0\.5 s"):
        fetch(addresses, f"http://images.test:{port}/slow")


def test_30_a_name_is_looked_up_once_and_no_more(
    host: tuple[int, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = host
    monkeypatch.setattr(fetching, "is_public", lambda _: True)
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])  # public at first, and inside when asked again

    async def lookup(_: str, __: int) -> list[str]:
        return next(answers)

    addresses = Addresses(Limits(), ["images.test"], lookup, frozenset({port}))
    assert fetch(addresses, f"http://images.test:{port}/a.png") == picture()
    assert len(asked) == 1
    assert next(answers) == ["10.0.0.1"]


@pytest.mark.parametrize("numbers", [[], ["127.0.0.1"], ["93.184.216.34", "10.0.0.1"]])
def test_30_a_name_that_leads_inside_is_refused(
    host: tuple[int, list[tuple[str, str]]], numbers: list[str]
) -> None:
    port, asked = host
    addresses = Addresses(Limits(), ["images.test"], to(numbers), frozenset({port}))
    with pytest.raises(RequestError, match="no public address"):
        fetch(addresses, f"http://images.test:{port}/a.png")
    assert asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://other.test/a.png",
        "http://images.test.evil.test/a.png",
        "http://images.test\\@127.0.0.1/a.png",
        "http://images.test@127.0.0.1/a.png",
        "http://user:p@images.test/a.png",
        "http://images.test\t/a.png",
        "http://①②⑦.⓪.⓪.①/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://2130706433/a.png",
        "file:///etc/passwd",
        "//images.test/a.png",
        "ftp://images.test/a.png",
        "http://images.test:99999/a.png",
        "http://images.test:22/a.png",
    ],
)
def test_29_and_32_addresses_that_two_parsers_could_read_differently(url: str) -> None:
    looked: list[str] = []

    async def lookup(name: str, _: int) -> list[str]:
        looked.append(name)
        return ["93.184.216.34"]

    with pytest.raises(RequestError):
        fetch(Addresses(Limits(), ["images.test"], lookup), url)
    assert looked == []


@given(st.binary(max_size=100), st.sampled_from([4, 8, 1 << 20]))
def test_base64_is_read_the_same_in_pieces_of_any_size(data: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_files, "_PIECE", piece)
        assert image_files._decoded(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    "content", ["QQ==QQ==", "QUFBQQ==QUFB", "QUF", "QUF=QUFB", "QUFB\nQUF", "Q_FB", "QUFé", "===="]
)
@pytest.mark.parametrize("piece", [4, 1 << 20])
def test_20_base64_that_is_damaged(
    content: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "_PIECE", piece)
    with pytest.raises(RequestError, match="base64 is damaged"):
        image_files.read_data_url(f"data:image/png;base64,{content}", Limits(), "messages")
