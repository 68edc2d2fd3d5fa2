"""What is fixed about one request besides its body."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

_T = TypeVar("_T")


class Kept:
    """What the questions of one request have in common, made once: its pictures.

    Attributes:
        pixels: Of all pictures of the request that were decoded.
    """

    def __init__(self) -> None:
        self.pixels = 0
        self._known: dict[Hashable, Any] = {}
        self._making = asyncio.Lock()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[_T]]) -> _T:
        """What is known under a key, made by whoever asks first while the others wait.

        Args:
            key: Equal keys mean the same.
            make: Makes it; what it raises is raised, and the next to ask tries anew.
        """
        async with self._making:
            if key not in self._known:
                self._known[key] = await make()
            found: _T = self._known[key]
            return found


@dataclass(frozen=True, slots=True)
class Call:
    """What is fixed about one request besides its body.

    Attributes:
        request_id: Id of the answer.
        created: Unix time.
        deadline: Of `time.monotonic`.
        refuse: Whether answers that are abstained from are withheld.
        warnings: What was dropped from the request, in words.
        category: Kind of question, for a policy whose thresholds go by it, or None.
        large: Whether what its body holds is read beside the event loop.
        salt: The same for requests with the same key; what is kept of them is kept apart by it.
        kept: What its questions have in common.
    """

    request_id: str
    created: int
    deadline: float
    refuse: bool
    warnings: tuple[str, ...] = ()
    category: str | None = None
    large: bool = False
    salt: str = ""
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)
