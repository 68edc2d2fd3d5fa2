"""JSON from strangers has one meaning, or is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.serving.errors import RequestError
from sightline.serving.strict_json import MAX_DEPTH, MAX_VALUES, loads

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_ordinary_documents_come_through(value: object, ascii_only: bool) -> None:
    assert loads(json.dumps({"a": value}, ensure_ascii=ascii_only).encode()) == {"a": value}


@given(st.binary(max_size=200))
def test_anything_else_is_refused_in_one_line(body: bytes) -> None:
    found: object = None
    try:
        found = loads(body)
    except RequestError as error:
        found = error.body()
    assert isinstance(found, dict)
    if "error" in found:
        assert "\n" not in found["error"]["message"]


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_the_limits_are_exact() -> None:
    assert loads(nested(MAX_DEPTH))
    with pytest.raises(RequestError, match="deeper than 64"):
        loads(nested(MAX_DEPTH + 1))
    assert loads(b'{"a": [' + b"1," * MAX_VALUES + b"1]}")
    with pytest.raises(RequestError, match="more than 100000 values"):
        loads(b'{"a": [' + b"1," * (MAX_VALUES + 1) + b"1]}")


def test_signs_in_strings_do_not_count() -> None:
    text = "[{," * 200_000 + '\\"'
    assert loads(json.dumps({"a": text}).encode()) == {"a": text}


def test_an_image_of_20_mb_is_read_in_seconds() -> None:
    text = "A" * 27_000_000
    assert loads(json.dumps({"a": text, "b": [[]] * 100}).encode())["a"] == text
