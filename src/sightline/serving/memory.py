"""Handing freed memory back to the system, which glibc keeps after large requests."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from functools import partial

LARGE = 1 << 20
"""Bytes of a body, or of decoded images, from which memory is handed back behind them."""
_AFTER_S = 1.0


class Memory:
    """Hands freed memory back, a moment after the last large request and beside the event loop.

    Once blocks of tens of megabytes were freed, glibc takes such blocks from its own heaps, of
    which it has one a thread, and keeps them: sixteen images of 16 MB left a server with 700 MB
    that nothing used.
    """

    def __init__(self) -> None:
        # Other systems, and other libraries of C, have no such function.
        library = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim: Callable[[int], int] | None = getattr(library, "malloc_trim", None)
        self._waiting: asyncio.TimerHandle | None = None

    def used(self, size: int) -> None:
        """Says that something of that many bytes is done with."""
        if self._trim is None or size < LARGE:
            return
        loop = asyncio.get_running_loop()
        if self._waiting is not None:
            self._waiting.cancel()
        trim = partial(loop.run_in_executor, None, self._trim, 0)
        self._waiting = loop.call_later(_AFTER_S, trim)
