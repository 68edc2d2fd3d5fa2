"""What requests share: the backend that answers, limits, keys, counters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sightline.serving.bodies import Bodies
from sightline.serving.calls import Call
from sightline.serving.counters import Counters
from sightline.serving.feedback import FeedbackStore
from sightline.serving.limits import Limits
from sightline.serving.memory import Memory
from sightline.serving.trust import Trusting
from sightline.serving.wire import ChatBody, DecisionsBody

Mode = Literal["flag", "refuse"]


class Backend(Protocol):
    """What answers: a local model, or an upstream server."""

    name: str
    explains: bool
    """Whether it shows what moves an answer."""
    trusting: Trusting
    """Writes the trust of its answers."""

    async def complete(self, body: ChatBody, call: Call) -> dict[str, Any]:
        """Answers a chat request with trust."""
        ...

    async def stream(self, body: ChatBody, call: Call) -> AsyncGenerator[dict[str, Any], None]:
        """Answers it in chunks; errors before the first chunk are raised here."""
        ...

    async def decide(self, body: DecisionsBody, call: Call) -> dict[str, Any]:
        """Answers a decisions request."""
        ...

    def fields(self) -> frozenset[str]:
        """Names of the chat fields it uses; the others are dropped with a warning."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What ``/v1/models`` and the page show of it."""
        ...

    def gauges(self) -> Mapping[str, float | None]:
        """Values for ``/metrics``."""
        ...

    def trouble(self) -> str | None:
        """Why it cannot answer at all, or None."""
        ...

    async def start(self) -> None:
        """Called once before the first request."""
        ...

    async def stop(self) -> None:
        """Called once after the last."""
        ...


@dataclass(slots=True)
class Server:
    """Everything that requests share.

    Attributes:
        backend: What answers.
        limits: Limits on requests.
        mode: ``refuse`` withholds answers that the policy abstains from.
        keys: Bearer keys; none means that no key is asked for.
        strict: Refuse unknown fields instead of dropping them.
        feedback: Where outcomes are kept, or None.
        has_policy: Whether the backend's answers have a policy.
    """

    backend: Backend
    limits: Limits = field(default_factory=Limits)
    mode: Mode = "flag"
    keys: tuple[str, ...] = ()
    strict: bool = False
    feedback: FeedbackStore | None = None
    has_policy: bool = False
    counters: Counters = field(default_factory=Counters)
    memory: Memory = field(default_factory=Memory)
    bodies: Bodies = field(init=False)
    places: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.limits, self.memory)
        self.places = asyncio.Semaphore(self.limits.concurrency)
