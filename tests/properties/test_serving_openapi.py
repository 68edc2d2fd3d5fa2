"""Requests made from our own OpenAPI description, and mutilated, never end in a server error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from judges import HalfJudge
from running import Running, data_url, picture, running, with_image

from sightline.serving.limits import Limits
from sightline.serving.openapi import description
from sightline.workflow.explaining import Explanation

DOCUMENT = description(Limits(), "fake")
SCHEMAS = DOCUMENT["components"]["schemas"]
EXPLAINED = {field.name for field in fields(Explanation)}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def values(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:  # noqa: PLR0911
    """Documents that a schema allows, as far as it says."""
    if "$ref" in schema:
        return st.deferred(lambda: values(SCHEMAS[schema["$ref"].rpartition("/")[2]], depth + 1))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return st.one_of([values(one, depth) for one in schema[several]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {})
        required = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {n: values(s, depth) for n, s in fields.items() if n in required},
            optional={n: values(s, depth) for n, s in fields.items() if n not in required},
        )
    if kind == "array":
        least = schema.get("minItems", 0)
        return st.lists(values(schema["items"], depth), min_size=least, max_size=least + 2)
    if kind == "integer":
        return st.integers(
            max(schema.get("minimum", -5), -(2**63)), min(schema.get("maximum", 9), 9)
        )
    if kind == "number":
        return st.floats(schema.get("minimum", 0), schema.get("maximum", 2))
    if kind == "boolean":
        return st.booleans()
    if kind == "null":
        return st.none()
    return st.text(max_size=30) | st.sampled_from(
        [data_url(picture()), "data:image/png;base64,AA=="]
    )


BODIES = {
    path: methods["post"]["requestBody"]["content"]["application/json"]["schema"][
        "$ref"
    ].rpartition("/")[2]
    for path, methods in DOCUMENT["paths"].items()
    if "post" in methods
}
READ = [path for path, methods in DOCUMENT["paths"].items() if "get" in methods]
KINDS = st.sampled_from(
    [
        "application/json",
        "application/json; charset=utf-16",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=edge",
        "multipart/mixed; boundary=edge",
        "text/plain",
        "application/octet-stream",
        "image/png",
        ";",
        "",
    ]
) | st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40
)
FAST = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from sightline.serving.feedback import FeedbackStore

    store = FeedbackStore(tmp_path_factory.mktemp("outcomes"), "half@sha256:0")
    with running(judge=HalfJudge(), has_policy=True, feedback=store) as found:
        yield found


def check(server: Running, path: str, body: Any, kind: str = "application/json") -> int:
    """Sends a body (bytes as they are), and holds the answer against the description."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = server.call(path, raw, method="POST", headers={"content-type": kind})
    described(path, "post", found, (body, kind))
    status, document, headers = found
    if status == 200 and headers["content-type"].startswith("application/json") and "chat" in path:
        for choice in document["choices"]:
            assert set(SCHEMAS["Trust"]["required"]) <= set(choice["trust"])
    return status


def described(path: str, method: str, found: tuple[int, Any, dict[str, str]], sent: Any) -> None:
    """Requires a status, a content type and top-level fields that the description names."""
    status, document, headers = found
    assert status == 200 or 400 <= status < 500, (path, sent, document)
    assert headers["x-content-type-options"] == "nosniff"
    responses = DOCUMENT["paths"][path][method]["responses"]
    content = responses["200" if status == 200 else "4XX"]["content"]
    kind = headers["content-type"].partition(";")[0]
    assert kind in content, (path, sent, kind)
    schema = content[kind]["schema"]
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    if schema["type"] == "object":
        assert set(schema.get("required", ())) <= set(document), (path, sent, document)
    if status >= 400:
        error = document["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert "\n" not in error["message"]


@FAST
@given(data=st.data())
@pytest.mark.parametrize("path", BODIES)
def test_described_requests(server: Running, path: str, data: st.DataObject) -> None:
    check(server, path, data.draw(values(SCHEMAS[BODIES[path]])))


@FAST
@given(data=st.data())
@pytest.mark.parametrize("path", BODIES)
def test_mutilated_requests(server: Running, path: str, data: st.DataObject) -> None:
    body = data.draw(values(SCHEMAS[BODIES[path]]))
    name = data.draw(st.sampled_from([*body, "other"]))
    body[name] = data.draw(ANYTHING)
    check(server, path, body)


@FAST
@given(data=st.data())
@pytest.mark.parametrize("path", BODIES)
def test_any_bytes_under_any_content_type(server: Running, path: str, data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=200) | values(SCHEMAS[BODIES[path]]))
    kind = data.draw(KINDS)
    status = check(server, path, body, kind)
    read = kind.partition(";")[0].strip().lower()
    if read not in ("application/json", "multipart/form-data"):
        assert status == 415


def form(parts: list[tuple[str, str | None, bytes]]) -> bytes:
    """A form of (name, file name, content) with the boundary ``edge``."""
    lines = b""
    for name, file, content in parts:
        shown = "" if file is None else f'; filename="{file}"'
        head = f'--edge\r\ncontent-disposition: form-data; name="{name}"{shown}\r\n\r\n'
        lines += head.encode() + content + b"\r\n"
    return lines + b"--edge--\r\n"


@FAST
@given(data=st.data())
def test_forms_whole_and_damaged(server: Running, data: st.DataObject) -> None:
    request = st.builds(
        lambda body: json.dumps(body).encode(), values(SCHEMAS["DecisionsBody"])
    ) | st.binary(max_size=40)
    image = st.just(picture()) | st.binary(max_size=40)
    part = st.tuples(
        st.sampled_from(["request", "image", "image[]", "other", ""]),
        st.none() | st.sampled_from(["a.png", "../../etc/passwd", ""]),
        request | image,
    )
    good = st.tuples(st.just("request"), st.none(), request)
    images = st.lists(st.tuples(st.just("image"), st.just("a.png"), image), max_size=10)
    body = form(
        data.draw(st.lists(part, max_size=4) | st.builds(lambda r, i: [r, *i], good, images))
    )
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(body)))
        body = body[:start] + data.draw(st.binary(max_size=6)) + body[start + 4 :]
    check(server, "/v1/decisions", body, "multipart/form-data; boundary=edge")


@settings(FAST, max_examples=30)
@given(data=st.data())
def test_explanations_beside_all_else_that_is_asked(server: Running, data: st.DataObject) -> None:
    """A request that is answered carries its explanation, unless its answer is withheld."""
    fields = SCHEMAS["ChatBody"]["properties"]
    drawn = data.draw(
        st.fixed_dictionaries(
            {"trust": st.just({"explain": True}) | values(SCHEMAS["TrustOptions"])},
            optional={
                name: values(fields[name])
                for name in ("n", "temperature", "logprobs", "top_logprobs", "max_tokens", "stream")
            },
        )
    )
    asked = {"model": "fake", "messages": with_image("What is it?", data_url(picture())), **drawn}
    path = "/v1/chat/completions"
    found = server.call(path, asked)
    described(path, "post", found, asked)
    status, document, _ = found
    if status != 200 or drawn.get("stream"):
        return
    first, *others = document["choices"]
    assert all("explanation" not in choice["trust"] for choice in others)
    if not drawn["trust"].get("explain"):
        assert "explanation" not in first["trust"]
    elif first["message"]["content"] is None:
        assert first["trust"]["explanation"] is None
    else:
        assert set(first["trust"]["explanation"]) == EXPLAINED


@settings(FAST, max_examples=30)
@given(data=st.data())
@pytest.mark.parametrize("path", READ)
def test_what_is_read_whatever_stands_behind_it(
    server: Running, path: str, data: st.DataObject
) -> None:
    """Queries, header fields and bodies of a GET change nothing."""
    letters = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
    query = data.draw(letters.map(lambda text: text and "?" + text.replace("#", "")))
    names = st.sampled_from(["accept", "range", "if-none-match", "cookie", "x-forwarded-for", "te"])
    headers = data.draw(st.dictionaries(names, letters, max_size=3))
    body = data.draw(st.none() | st.binary(max_size=30))
    found = server.call(path + query, body, method="GET", headers=headers)
    described(path, "get", found, (query, headers))
    assert found[0] == 200


@FAST
@given(data=st.data())
def test_other_paths_and_methods(server: Running, data: st.DataObject) -> None:
    """What is not described is not found, or not allowed; HEAD is a GET without its body."""
    methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
    letters = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
    method = data.draw(methods)
    path = data.draw(
        st.sampled_from(sorted(DOCUMENT["paths"]))
        | st.builds(
            lambda base, more: "/" + (base.strip("/") + more).replace("?", "").replace("#", ""),
            st.sampled_from(sorted(DOCUMENT["paths"])),
            letters,
        )
    )
    status, document, headers = server.call(path, method=method)
    described_methods = DOCUMENT["paths"].get(path, {})
    if method == "HEAD" and "get" in described_methods:
        assert (status, document) == (200, b"")
    elif method.lower() in described_methods:
        assert status in (200, 400)
    else:
        assert status == (405 if described_methods else 404)
    assert headers["content-type"]


def test_every_path_is_described(server: Running) -> None:
    shown = server.call("/openapi.json")[1]
    assert shown == json.loads(json.dumps(DOCUMENT))
    for path, methods in shown["paths"].items():
        for method in methods:
            status = server.call(path, b"{}" if method == "post" else None, method=method.upper())[
                0
            ]
            assert status in (200, 400), (path, method)
