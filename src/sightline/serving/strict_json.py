"""Reading JSON from strangers: one meaning, bounded work, or an error."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from sightline.serving.errors import RequestError

MAX_DEPTH = 64
MAX_VALUES = 100_000
_MAX_DIGITS = 20
_PIECE = 1 << 20
"""Characters that are looked at without letting go of the interpreter; at least two."""
_SIGN = re.compile(r'["\[{\]}]')
_WITHIN = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)


def loads(body: bytes) -> dict[str, Any]:
    """Reads a JSON object.

    Refused are other encodings than UTF-8, byte order marks, duplicate keys, NaN and infinity in
    any spelling, integers of more than 20 digits, lone surrogates, more than 64 levels and more
    than 100,000 values.

    Raises:
        RequestError: The body is none of these; status 400.
    """
    if not body:
        _refuse("The body is empty; a JSON object is required. Send one.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("The body is not UTF-8; a JSON object in UTF-8 is required. Encode it so.")
    if text.startswith("\ufeff"):
        _refuse("The body starts with a byte order mark; plain UTF-8 is required. Leave it out.")
    _check_size(text)
    try:
        value = json.loads(
            text,
            parse_constant=_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
    except (json.JSONDecodeError, RecursionError):
        _refuse("The body is not JSON; one complete JSON object is required. Check its syntax.")
    if not isinstance(value, dict):
        _refuse(f"The body is a JSON {_kind(value)}; an object is required. Wrap it in one.")
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_size(text: str) -> None:
    """Depth and number of values, before anything is built from them."""
    depth, commas = 0, text.count(",")
    if text.count("[") + text.count("{") <= MAX_DEPTH and commas <= MAX_VALUES:
        return  # too few signs to break either limit, wherever they stand
    opened = strings = at = 0
    while at < len(text):
        found = _SIGN.search(text, at, at + _PIECE)
        if found is None:
            at += _PIECE
            continue
        at = found.end()
        if found[0] == '"':
            strings += 1
            begin, at = at, _end_of_string(text, at)
            commas -= text.count(",", begin, at)
        elif found[0] in "[{":
            opened += 1
            depth += 1
            if depth > MAX_DEPTH:
                _refuse(
                    f"The body is nested deeper than {MAX_DEPTH} levels; that is the most that "
                    "is read. Flatten it."
                )
        else:
            depth -= 1
        # What a bracket opens is a value, and of two strings at least one is.
        if opened > MAX_VALUES or strings > 2 * MAX_VALUES:
            _too_many()
    if commas > MAX_VALUES:
        _too_many()


def _end_of_string(text: str, at: int) -> int:
    """Where a string ends that begins before a place, or the text."""
    while at < len(text) and text[at] != '"':
        end = _WITHIN.match(text, at, at + _PIECE).end()  # type: ignore[union-attr]
        if end == at:
            return len(text)  # a backslash and nothing behind it
        at = end
    return at + 1


def _too_many() -> NoReturn:
    _refuse(
        f"The body holds more than {MAX_VALUES} values; that is the most that is read. "
        "Send a smaller request."
    )


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        _refuse(
            "The body holds half of a surrogate pair (\\ud800…); whole characters are required. "
            "Encode the text as UTF-8."
        )


def _constant(name: str) -> NoReturn:
    _refuse(f"The body holds {name}; finite numbers are required. Leave it out.")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _refuse("The body holds a number beyond 1.8e308; finite numbers are required. Correct it.")
    return value


def _integer(digits: str) -> int:
    count = len(digits.removeprefix("-"))
    if count > _MAX_DIGITS:
        _refuse(
            f"The body holds an integer of {count} digits; at most {_MAX_DIGITS} are read. "
            "Correct it."
        )
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        left = Counter(key for key, _ in pairs)
        twice = left.most_common(1)[0][0]
        _refuse(
            f"The body has the key {twice[:40]!r} twice in one object; unique keys are required. "
            "Remove one."
        )
    return found


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {list: "array", str: "string", bool: "boolean"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "number")


def _refuse(message: str) -> NoReturn:
    raise RequestError(message, code="invalid_json") from None
