"""Requests made from our own OpenAPI description, and mutilated, never end in a server error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from judges import HalfJudge
from running import Running, data_url, picture, running

from sightline.serving.limits import Limits
from sightline.serving.openapi import description

DOCUMENT = description(Limits())
SCHEMAS = DOCUMENT["components"]["schemas"]
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
    "/v1/chat/completions": "ChatBody",
    "/v1/decisions": "DecisionsBody",
    "/v1/feedback": "FeedbackBody",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from sightline.serving.feedback import FeedbackStore

    store = FeedbackStore(tmp_path_factory.mktemp("outcomes"), "half@sha256:0")
    with running(judge=HalfJudge(), has_policy=True, feedback=store) as found:
        yield found


def check(server: Running, path: str, body: Any) -> None:
    status, document, headers = server.call(path, json.dumps(body).encode(), method="POST")
    assert status < 500, (path, body, document)
    assert f"{status // 100}XX" in ("2XX", "4XX")
    if status >= 400:
        assert set(document["error"]) == {"message", "type", "param", "code"}
    elif headers["content-type"].startswith("application/json") and "chat" in path:
        for choice in document["choices"]:
            assert set(SCHEMAS["Trust"]["required"]) <= set(choice["trust"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("path", BODIES)
def test_described_requests(server: Running, path: str, data: st.DataObject) -> None:
    check(server, path, data.draw(values(SCHEMAS[BODIES[path]])))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("path", BODIES)
def test_mutilated_requests(server: Running, path: str, data: st.DataObject) -> None:
    body = data.draw(values(SCHEMAS[BODIES[path]]))
    name = data.draw(st.sampled_from([*body, "other"]))
    body[name] = data.draw(ANYTHING)
    check(server, path, body)


def test_every_path_is_described(server: Running) -> None:
    shown = server.call("/openapi.json")[1]
    assert shown == json.loads(json.dumps(DOCUMENT))
    for path, methods in shown["paths"].items():
        for method in methods:
            status = server.call(path, b"{}" if method == "post" else None, method=method.upper())[
                0
            ]
            assert status in (200, 400), (path, method)
