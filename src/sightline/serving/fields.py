"""The fields of a chat request: the one table of what becomes of each.

Everything that the server says or does of a field by its name is derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Field:
    """What becomes of one field.

    Attributes:
        sent: Whether it is passed on to an upstream as it is.
        used: Whether a server that stands before an upstream reads it itself.
        local: Whether it means something to a local model, be it that it is refused.
        sampled: Whether requests for samples of an answer carry what its own request carried.
        length: Whether it bounds the length of answers.
        plain: Values that are as good as none; None where the field does not shape an answer
            beside its temperature, so that a policy's confidence holds whatever it is.
    """

    sent: bool = False
    used: bool = False
    local: bool = True
    sampled: bool = True
    length: bool = False
    plain: tuple[Any, ...] | None = None


FIELDS: Mapping[str, Field] = {
    "messages": Field(used=True),
    "model": Field(used=True),
    "n": Field(sent=True, sampled=False),
    "max_tokens": Field(sent=True, length=True),
    "max_completion_tokens": Field(sent=True, length=True),
    "temperature": Field(sent=True),
    "top_p": Field(sent=True, plain=(1.0,)),
    "seed": Field(sent=True, sampled=False),
    "logprobs": Field(used=True),
    "top_logprobs": Field(used=True, sampled=False),
    "stop": Field(sent=True, plain=([], "")),
    "presence_penalty": Field(sent=True, plain=(0.0,)),
    "frequency_penalty": Field(sent=True, plain=(0.0,)),
    "stream": Field(used=True, sampled=False),
    "stream_options": Field(used=True, sampled=False),
    "response_format": Field(sent=True, plain=({"type": "text"},)),
    "tools": Field(sent=True, plain=([],)),
    "tool_choice": Field(sent=True, plain=("none", "auto")),
    "user": Field(local=False),
    "trust": Field(used=True),
}
"""Every field of a chat request; what is not here reaches nothing."""

SENT = frozenset(name for name, field in FIELDS.items() if field.sent)
"""Passed on beside the messages; nothing else of a request reaches the upstream."""

BEFORE_UPSTREAM = frozenset(name for name, field in FIELDS.items() if field.sent or field.used)
"""What a server before an upstream passes on or uses."""

LOCAL = frozenset(name for name, field in FIELDS.items() if field.local)
"""What means something to a local model."""

LENGTHS = frozenset(name for name, field in FIELDS.items() if field.length)
"""Bounds on the length of answers."""

NOT_SAMPLED = frozenset(name for name, field in FIELDS.items() if not field.sampled)
"""What requests for samples leave out, or set anew."""

OWN = (SENT | NOT_SAMPLED) - {"temperature"}
"""What a client sets of its own accord, by which the form of its reply may differ."""

PLAIN: Mapping[str, tuple[Any, ...]] = {
    name: field.plain for name, field in FIELDS.items() if field.plain is not None
}
"""Decoding settings beside the temperature, and the values that are as good as none."""
