"""Where an endpoint is, and how hard it may be asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from sightline.core.errors import UsageError

PREFIX = "openai:"
"""What a model's name starts with where it is served by an endpoint."""

WORDS = "words_questions"
"""Where ``/v1/models`` says that a server words questions itself; the fingerprint then has the
style that it says there."""

ImageFormat = Literal["png", "jpeg"]


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Servers of one model, and the limits on asking them.

    Attributes:
        base_urls: Each up to the version, such as ``http://127.0.0.1:8000/v1``.
        api_key_env: Name of the environment variable that holds the key; None sends none.
        concurrency: Requests in flight at once, over all servers.
        timeout_s: Limit on one request, from connecting to the last byte.
        attempts: Tries of one request, the first included.
        backoff_s: Longest wait before the second try; it doubles with every further one.
        max_reply_bytes: Longest reply that is read.
        image_format: How pictures are sent: ``png`` keeps every pixel, ``jpeg`` (quality 95) is
            smaller.
    """

    base_urls: tuple[str, ...]
    api_key_env: str | None = None
    concurrency: int = 8
    timeout_s: float = 120.0
    attempts: int = 5
    backoff_s: float = 0.5
    max_reply_bytes: int = 64 * 2**20
    image_format: ImageFormat = "png"

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise UsageError(
                f"A model named {PREFIX}… without a base URL; the server's address is required. "
                "Add --base-url http://127.0.0.1:8000/v1."
            )
        object.__setattr__(self, "base_urls", tuple(map(_checked_url, self.base_urls)))
        checks = {
            "concurrency": (self.concurrency, self.concurrency >= 1, "at least 1"),
            "timeout_s": (self.timeout_s, 0 < self.timeout_s < float("inf"), "above 0"),
            "attempts": (self.attempts, self.attempts >= 1, "at least 1"),
            "backoff_s": (self.backoff_s, self.backoff_s >= 0, "0 or more"),
            "max_reply_bytes": (self.max_reply_bytes, self.max_reply_bytes >= 1, "at least 1"),
            "image_format": (
                self.image_format,
                self.image_format in ("png", "jpeg"),
                "png or jpeg",
            ),
        }
        for name, (value, valid, rule) in checks.items():
            if not valid:
                raise UsageError(f"{name} is {value}; it must be {rule}. Correct the setting.")

    def api_key(self) -> str | None:
        """The key, read from its variable; never kept here, so that it is in no ``repr``.

        Raises:
            UsageError: The variable is not set, or holds what no header can carry.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UsageError(
                f"The environment variable {self.api_key_env} is not set; it must hold the "
                "endpoint's key. Export it, or correct --api-key-env."
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UsageError(
                f"The environment variable {self.api_key_env} holds characters that a header "
                "cannot carry; a key in printable ASCII is required. Export it again."
            )
        return key


def required_endpoint(
    spec: str, settings: EndpointSettings | None, **loading: object
) -> EndpointSettings:
    """The settings of an endpoint's model.

    Args:
        spec: ``openai:NAME``.
        settings: Those given.
        loading: Settings of a model that is loaded here; none may be set.

    Raises:
        UsageError: There are none, the model has no name, or it is to be loaded in a certain way.
    """
    local = [name for name, value in loading.items() if value not in (None, False, "auto")]
    if local:
        raise UsageError(
            f"{spec} with {', '.join(local)}; a server decides that for its model. Leave it out, "
            "or start the server so."
        )
    if settings is None or spec == PREFIX:
        raise UsageError(
            f"{spec} without {'a name' if spec == PREFIX else 'a base URL'}; the server's name for "
            "the model and its address are required. For example: --model openai:NAME --base-url "
            "http://127.0.0.1:8000/v1."
        )
    return settings


def refuse_endpoint(spec: str, settings: EndpointSettings | None) -> None:
    """Raises where a model that is loaded here is given an address.

    Raises:
        UsageError: It is.
    """
    if settings is not None:
        raise UsageError(
            f"{spec} with a base URL; only a model named {PREFIX}NAME is asked over one. Leave "
            f"--base-url out, or write {PREFIX}{spec}."
        )


def _checked_url(url: str) -> str:
    """The address without a final slash.

    Raises:
        UsageError: It is none of a web server, or carries a user, a query or control characters.
    """
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        whole = False
    plain = url.isascii() and url.isprintable() and not set(url) & set(" \\@?#")
    if not whole or not plain:
        raise UsageError(
            f"Base URL {url!r}; http:// or https:// with a host, and neither a user nor a query, "
            "is required. For example: --base-url http://127.0.0.1:8000/v1."
        )
    return url.rstrip("/")
