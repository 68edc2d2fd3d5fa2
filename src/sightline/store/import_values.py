"""Single values of recorded rows: texts, numbers, lists and generations, checked one by one."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sightline.core.errors import DataError
from sightline.core.types import FinishReason, Generation
from sightline.data.fields import shown
from sightline.data.json_files import parse_json

SENTINEL_LOGPROB = -9999.0
"""What servers write for a log-probability they do not know; such a list counts as not observed."""

_MAX_LITERAL = 100_000
_THINKING = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def read_generations(name: str, value: Any) -> tuple[Generation, ...]:
    """Generations of a list of texts or mappings; none where there is no list."""
    value = read_structured(value)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"{name} is {shown(value)}, not a list")
    return tuple(read_generation(f"{name}[{i}]", item) for i, item in enumerate(value))


def read_generation(name: str, value: Any) -> Generation:
    """A text, or a mapping with ``text`` and what was observed with it.

    Tokens and log-probabilities are lists of one entry a token, or OpenAI's ``logprobs`` object. A
    ``<think>…</think>`` prefix becomes the reasoning.
    """
    if isinstance(value, str) and _THINKING.match(value) is None:
        return Generation(value)
    if not isinstance(value, Mapping):
        value = {"text": value}
    text = read_text(f"the text of {name}", value.get("text", value.get("answer")))
    reasoning = value.get("reasoning")
    if reasoning is not None:
        reasoning = read_text("the reasoning", reasoning)
    elif (thinking := _THINKING.match(text)) is not None:
        reasoning, text = thinking[1].strip(), text[thinking.end() :]
    logprobs = read_structured(value.get("token_logprobs", value.get("logprobs")))
    tokens = read_structured(value.get("tokens"))
    if isinstance(logprobs, Mapping) and isinstance(logprobs.get("content"), list):
        content = [item if isinstance(item, Mapping) else {} for item in logprobs["content"]]
        tokens = [item.get("token") for item in content]
        logprobs = [item.get("logprob") for item in content]
    if logprobs is not None:
        logprobs = read_numbers("token_logprobs", logprobs)
        logprobs = None if (logprobs <= SENTINEL_LOGPROB).any() else logprobs
    if tokens is not None and not (
        isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    ):
        raise DataError(f"tokens is {shown(tokens)}, not a list of texts")
    ids = read_structured(value.get("token_ids"))
    if ids is not None:
        ids = read_numbers("token_ids", ids)
        if (ids != np.floor(ids)).any() or (ids < 0).any() or (ids >= 2**31).any():
            raise DataError("token_ids with an entry that is no id")
    finish: FinishReason = "unknown"
    if value.get("finish_reason") in ("stop", "length"):
        finish = value["finish_reason"]
    return Generation(
        text=text,
        token_ids=None if ids is None else ids.astype(np.int32),
        tokens=None if tokens is None else tuple(tokens),
        logprobs=logprobs,
        finish_reason=finish,
        reasoning=reasoning,
    )


def read_label(what: str, value: Any) -> str | None:
    """A name: text or a number written as text, not empty."""
    if value is None:
        return None
    text = read_text(f"the {what}", value).strip()
    if not text:
        raise DataError(f"the {what} is empty")
    return text


def read_text(what: str, value: Any) -> str:
    """Text; numbers and booleans are written out."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{what} is {shown(value)}, not text")
    return value


def read_number(what: str, value: Any) -> float:
    """A finite number, or text of one."""
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise DataError(f"{what} is {shown(value)}, not a finite number")
    return number


def read_numbers(what: str, value: Any) -> Float[np.ndarray, " values"]:
    """A list of finite numbers, not empty."""
    value = read_structured(value)
    if not isinstance(value, list) or not value:
        raise DataError(f"{what} is {shown(value)}, not a list of numbers")
    return np.array([read_number(f"{what}[{i}]", item) for i, item in enumerate(value)])


def read_structured(value: Any) -> Any:
    """Undoes the text form that tables give lists and mappings."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return parse_json(value)
    except ValueError:
        pass
    if len(value) > _MAX_LITERAL:
        return value
    try:
        return ast.literal_eval(value)  # a list as pandas writes it
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return value


def read_logprobs(name: str, values: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """Requires log-probabilities to be at most 0."""
    if (values > 0).any():
        raise DataError(f"{name} with {values.max():g}; log-probabilities are at most 0")
    return values


def read_correct(value: Any) -> float | None:
    """Correctness in [0, 1]: a number, a boolean or text of one."""
    if value is None:
        return None
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    number = float(value) if isinstance(value, bool) else read_number("correct", value)
    if not 0 <= number <= 1:
        raise DataError(f"correct is {number:g}, not between 0 and 1")
    return number
