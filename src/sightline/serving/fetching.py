"""From the address of an image to its bytes: data URLs, and others only where switched on.

Fetching is a request that strangers make this server send. It goes only to named hosts, to an
address that was looked up once, found public and then connected to by number, without redirects,
within ten seconds and the limit on bytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from sightline.serving.beside import beside
from sightline.serving.errors import RequestError
from sightline.serving.image_files import LARGE, read_data_url
from sightline.serving.limits import Limits

if TYPE_CHECKING:
    import httpx2

Fetch = Callable[[Sequence[str], str], Awaitable[list[bytes]]]
"""From the addresses of images, and the field they came from, to their bytes."""

FETCH_S = 10.0
"""Seconds that fetching one image may take, from the lookup to the last byte."""

_PLAIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[!-~]*)?", re.IGNORECASE)
_GLOBAL = ipaddress.ip_network("2000::/3")
_DOCUMENTED = ipaddress.ip_network("3fff::/20")
"""For documentation (RFC 9637), which Python's own tables do not know before 3.14."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Addresses:
    """Reads data URLs, and fetches from the hosts it is given.

    Args:
        limits: Limits on images.
        hosts: Names of hosts that images may be fetched from; none switches fetching off.
        lookup: From a host and a port to its addresses.
        ports: Ports that may be connected to.
    """

    def __init__(
        self,
        limits: Limits,
        hosts: Sequence[str] = (),
        lookup: Callable[[str, int], Awaitable[list[str]]] | None = None,
        ports: frozenset[int] = frozenset({80, 443}),
    ) -> None:
        self._limits, self._ports = limits, ports
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._lookup = lookup or _looked_up

    async def __call__(self, addresses: Sequence[str], param: str) -> list[bytes]:
        """The bytes of each image.

        Raises:
            RequestError: An address is none that is read, or its host does not give an image.
        """
        return [await self._read(address, param) for address in addresses]

    async def _read(self, address: str, param: str) -> bytes:
        if address[:5].lower() == "data:":
            if len(address) < LARGE:
                return read_data_url(address, self._limits, param)
            return await beside(read_data_url, address, self._limits, param)
        if not self._hosts:
            _refuse(
                "Images are not fetched from addresses here; a data URL "
                "(data:image/png;base64,…) is required. Send the image itself.",
                param,
                "fetching_off",
            )
        try:
            async with asyncio.timeout(FETCH_S):
                return await self._fetched(address, param)
        except TimeoutError:
            _refuse(
                f"The image did not arrive within {FETCH_S:g} s. Send the image itself.",
                param,
                "fetching_failed",
            )

    async def _fetched(self, address: str, param: str) -> bytes:
        import httpx2

        # One parser decides, and only on addresses that no two parsers read differently.
        parts = urlsplit(address) if _PLAIN.fullmatch(address) else None
        host = "" if parts is None or parts.hostname is None else parts.hostname.rstrip(".")
        if parts is None or host not in self._hosts:
            _refuse(
                f"The image's host is none of those that are fetched from "
                f"({', '.join(sorted(self._hosts))}); one of them is required. Send the image "
                "itself.",
                param,
                "fetching_refused",
            )
        port = int(parts.netloc.rpartition(":")[2]) if ":" in parts.netloc else 0
        port = port or (443 if parts.scheme == "https" else 80)
        found = await self._lookup(host, port) if port in self._ports else []
        if not found or not all(is_public(one) for one in found):
            _refuse(
                "The image's host has no public address, or the port is not a web server's; both "
                "are required. Send the image itself.",
                param,
                "fetching_refused",
            )
        pinned = f"[{found[0]}]" if ":" in found[0] else found[0]
        target = f"{parts.scheme}://{pinned}:{port}{parts.path or '/'}"
        target += f"?{parts.query}" if parts.query else ""
        name = host if port in (80, 443) else f"{host}:{port}"
        try:
            async with (
                httpx2.AsyncClient(trust_env=False, follow_redirects=False) as client,
                client.stream(
                    "GET", target, headers={"host": name}, extensions={"sni_hostname": host}
                ) as response,
            ):
                if response.status_code != 200:
                    _refuse(
                        f"The image's host answered {response.status_code}; 200 with the image is "
                        "required, redirects are not followed. Send the image itself.",
                        param,
                        "fetching_failed",
                    )
                return await self._body(response, param)
        except (httpx2.HTTPError, httpx2.InvalidURL):
            _refuse(
                "The image's host cannot be reached or broke off. Send the image itself.",
                param,
                "fetching_failed",
            )

    async def _body(self, response: httpx2.Response, param: str) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_raw():
            parts.append(part)
            size += len(part)
            if size > self._limits.max_image_bytes:
                raise RequestError(
                    f"An image has more than {self._limits.max_image_bytes} bytes; that is the "
                    "most that is read. Compress it.",
                    status=413,
                    param=param,
                    code="image_too_large",
                )
        return b"".join(parts)


def is_public(text: str) -> bool:
    """Whether an address is reachable by everybody, and so none of this network's.

    Addresses that carry another one inside (mapped, NAT64, 6to4, Teredo) are no more public than
    that one.

    Example:
        >>> is_public("93.184.216.34"), is_public("64:ff9b::a9fe:a9fe"), is_public("127.0.0.1")
        (True, False, False)
        >>> is_public("2606:2800:220:1::1"), is_public("fec0::1")
        (True, False)
    """
    address: _Address = ipaddress.ip_address(text.partition("%")[0])
    inner: list[_Address] = []
    if isinstance(address, ipaddress.IPv6Address):
        inner += [one for one in (address.ipv4_mapped, address.sixtofour) if one is not None]
        inner += list(address.teredo or ())
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if int(address) >> 32 == 0xFFFF0000:  # ::ffff:0:a.b.c.d, translated by SIIT
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return all(map(_is_global, inner or [address]))


def _is_global(address: _Address) -> bool:
    """Whether an address is of those that are given out to reach everybody."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _GLOBAL or address in _DOCUMENTED
    ):
        return False  # not given out, whatever is_global says of it
    return address.is_global and not address.is_multicast and not address.is_reserved


async def _looked_up(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


def _refuse(message: str, param: str, code: str) -> NoReturn:
    raise RequestError(message, param=param, code=code) from None
