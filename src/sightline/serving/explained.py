"""What moves a served answer: the observations of an explanation, through the engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sightline.core.types import Record
from sightline.serving.engine import Engine
from sightline.workflow.explaining import explanation, to_show

if TYPE_CHECKING:
    from PIL.Image import Image


async def explained(
    engine: Engine,
    record: Record,
    pictures: tuple[Image, ...],
    *,
    max_new_tokens: int,
    deadline: float,
) -> dict[str, Any]:
    """Explains an answer; its observations queue like questions and share batches with them.

    Args:
        engine: Observes.
        record: The answer.
        pictures: As the model saw them.
        max_new_tokens: As the answer was asked for.
        deadline: Of `time.monotonic`.

    Returns:
        JSON-serialisable; see `sightline.workflow.explaining.Explanation`.

    Raises:
        RequestError: The queue is full, the deadline passed, or the model refused a picture.
    """
    views = await asyncio.to_thread(
        to_show, record.example, pictures, max_new_tokens=max_new_tokens
    )
    seen = await asyncio.gather(
        *(
            engine.observe(record.example, shown, (request,), deadline=deadline)
            for shown, request in views
        )
    )
    return explanation(record, [one.record for one in seen]).to_dict()
