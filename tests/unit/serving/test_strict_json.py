"""JSON from strangers has one meaning, or is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.serving import strict_json
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


def counts(value: object, depth: int = 0) -> tuple[int, int, int, int]:
    """Depth, commas, brackets and strings that a document is written with."""
    if isinstance(value, str):
        return depth, 0, 0, 1
    if not isinstance(value, dict | list):
        return depth, 0, 0, 0
    inner = [*value.values()] if isinstance(value, dict) else value
    found = [counts(one, depth + 1) for one in inner]
    keys = len(value) if isinstance(value, dict) else 0
    return (
        max([depth + 1, *(one[0] for one in found)]),
        max(0, len(inner) - 1) + sum(one[1] for one in found),
        1 + sum(one[2] for one in found),
        keys + sum(one[3] for one in found),
    )


@given(st.dictionaries(st.text('a",[{\\'), VALUES), st.sampled_from([2, 3, 7, 1 << 20]))
def test_a_document_is_measured_the_same_in_pieces_of_any_size(
    value: dict[str, object], piece: int
) -> None:
    depth, commas, opened, strings = counts(value)
    within = depth <= 3 and commas <= 5 and opened <= 5 and strings <= 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_PIECE", piece)
        patch.setattr(strict_json, "MAX_DEPTH", 3)
        patch.setattr(strict_json, "MAX_VALUES", 5)
        text = json.dumps(value, ensure_ascii=False)
        # What stands in strings counts here, so that the whole text is looked at.
        quick = text.count("[") + text.count("{") <= 3 and text.count(",") <= 5
        try:
            assert loads(text.encode()) == value
            assert within or quick
        except RequestError:
            assert not within


def test_strings_without_end_are_no_json() -> None:
    for body in (b'{"a' * 70, b'{"a\\' * 70, b'{"' * 70 + b"\\", b'""' * 300_000 + b"[" * 65):
        with pytest.raises(RequestError):
            loads(body)


def test_an_image_of_20_mb_is_read_in_seconds() -> None:
    text = "A" * 27_000_000
    assert loads(json.dumps({"a": text, "b": [[]] * 100}).encode())["a"] == text
