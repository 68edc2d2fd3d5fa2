"""Pictures turned into tensors once, however many prompts are about them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class PictureMemo:
    """While open, an image processor's work on the same pictures is done once.

    A second call with the same picture objects and the same settings gets a shallow copy of what
    the first returned, so that every prompt about them holds the same tensors, to the bit.

    Args:
        processor: A model's processor; its ``image_processor`` stands aside while this is open.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._worker = processor.image_processor

    def __enter__(self) -> PictureMemo:
        self._processor.image_processor = _Remembering(self._worker)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._processor.image_processor = self._worker


class _Remembering:
    """Stands for an image processor: its attributes, and its calls with a memory."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._calls: list[tuple[Any, Mapping[str, Any], Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def __call__(self, images: Any = None, **settings: Any) -> Any:
        for before, own, found in self._calls:
            if own == settings and _same(before, images):
                return copy.copy(found)
        found = self._worker(images, **settings)
        self._calls.append((images, settings, copy.copy(found)))
        return found


def _same(first: Any, second: Any) -> bool:
    """Whether two nested lists hold the same picture objects in the same order."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return first is second
