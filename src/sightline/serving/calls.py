"""What is fixed about one request besides its body."""

from __future__ import annotations

from dataclasses import dataclass


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
        salt: The same for requests with the same key; what is kept of them is kept apart by it.
    """

    request_id: str
    created: int
    deadline: float
    refuse: bool
    warnings: tuple[str, ...] = ()
    category: str | None = None
    salt: str = ""
