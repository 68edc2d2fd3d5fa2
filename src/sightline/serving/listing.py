"""Which other models an upstream lists, so that a request may name one."""

from __future__ import annotations

import asyncio
import math
import time

from sightline.core.errors import SightlineError
from sightline.models.openai.settings import EndpointSettings
from sightline.models.openai.transport import FailedTryError, Transport

_AGAIN_S = 10.0
_LONGEST_S = 5.0


class Listing:
    """The names that an upstream lists; asked for when a name is not known, not more often.

    Args:
        url: Its base URL.
        key: Its bearer key, or None.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self._settings, self._key = EndpointSettings((url,), timeout_s=_LONGEST_S), key
        self._names = frozenset[str]()
        self._asked_at = -math.inf
        self._asking = asyncio.Lock()

    async def holds(self, name: str) -> bool:
        """Whether the upstream lists a model of this name; not where it lists none."""
        if name in self._names:
            return True
        async with self._asking:
            now = time.monotonic()
            if name not in self._names and now - self._asked_at > _AGAIN_S:
                self._asked_at = now
                self._names = await self._listed()
        return name in self._names

    async def _listed(self) -> frozenset[str]:
        transport = Transport(self._settings, self._key)
        try:
            models, _ = await transport.get(transport.pool.servers[0], "models")
        except (FailedTryError, SightlineError):
            return frozenset()
        finally:
            await transport.close()
        data = models.get("data")
        listed = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        return frozenset(str(one.get("id")) for one in listed)
