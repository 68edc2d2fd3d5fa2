"""Errors that become answers: one line each, in the shape OpenAI's clients read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sightline.core.errors import SightlineError

_TYPES = {
    401: "authentication_error",
    429: "rate_limit_error",
    502: "upstream_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class RequestError(SightlineError):
    """A request that is answered with an error; its message never holds an internal.

    Attributes:
        status: HTTP status.
        code: Short machine-readable reason, or None.
        param: The field at fault, or None.
        retry_after: Seconds after which trying again may work, or None.
        closes: Whether the connection ends with the answer, since the request was not read whole.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.closes = closes

    def body(self) -> dict[str, Any]:
        """The answer's JSON document."""
        default = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": str(self),
                "type": _TYPES.get(self.status, default),
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> Mapping[str, str]:
        """Headers that go with it."""
        if self.retry_after is not None:
            return {"retry-after": str(self.retry_after)}
        return {"www-authenticate": "Bearer"} if self.status == 401 else {}

    def encoded(self) -> bytes:
        """The answer's bytes."""
        return json.dumps(self.body(), ensure_ascii=False).encode()


def not_served(name: str, own: str) -> RequestError:
    """The answer to a request that names another model than the one that answers here."""
    return RequestError(
        f"The model {name[:80]!r} is not served here; {own!r} is required. Name it, or leave model "
        "out.",
        status=404,
        param="model",
        code="model_not_found",
    )


def let_go(error: BaseException) -> None:
    """Forgets through which frames an error came, and those that it came from.

    They hold the request, and the error itself in turn: such a ring is freed when the garbage
    collector comes round, which with bodies of 30 MB is too late. The frames are not emptied:
    one error may be raised to several requests that wait for the same picture.
    """
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if id(one) not in seen:  # an error and the group it was in name each other
            seen.add(id(one))
            one.__traceback__ = None
            left += filter(None, (one.__cause__, one.__context__))
            left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
