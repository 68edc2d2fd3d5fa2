"""Reading what is large beside the event loop, one thing at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")

_READER = ThreadPoolExecutor(1, thread_name_prefix="sightline-reader")
"""One thread: reading 30 MB holds the interpreter for up to 50 ms at a time, and the event loop
would wait for several such threads in turn."""


async def beside(function: Callable[..., _T], *args: object) -> _T:
    """What a function returns, called on the reading thread while the event loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(_READER, function, *args)
