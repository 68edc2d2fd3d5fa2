"""The server's OpenAPI description, made from the same models that check requests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sightline import __version__
from sightline.serving.limits import Limits
from sightline.serving.wire import ChatBody, DecisionsBody, FeedbackBody

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_TRUST = {
    "type": "object",
    "description": "How far an answer can be trusted.",
    "required": [
        "confidence",
        "raw_score",
        "abstain",
        "reason",
        "threshold",
        "category",
        "prediction_set",
        "signals",
        "warnings",
    ],
    "properties": {
        "confidence": {
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "description": "Calibrated probability of being right; null where there is none.",
        },
        "raw_score": {"type": ["number", "null"], "description": "Uncertainty, higher is worse."},
        "abstain": {"type": ["boolean", "null"], "description": "null without a policy."},
        "reason": {
            "type": ["string", "null"],
            "description": "Why the answer is accepted or not; null without a policy.",
        },
        "threshold": {"type": ["number", "null"], "description": "Least accepted confidence."},
        "category": {
            "type": ["string", "null"],
            "description": "Whose threshold it is, where the policy has one for every category.",
        },
        "prediction_set": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "Letters of the options that hold the right one at the policy's rate.",
        },
        "signals": {"type": "object", "additionalProperties": {"type": "number"}},
        "calibrator": {"type": ["string", "null"]},
        "backend_level": {"type": "string", "enum": ["L0", "L1", "L2", "L3", "L4"]},
        "receipt": {"type": ["string", "null"], "description": "Goes to /v1/feedback."},
        "seed": {
            "type": "integer",
            "description": "Of a local model's sampled answer: gives it again.",
        },
        "warnings": {"type": "array", "items": {"type": "string"}},
        "explanation": {
            "type": ["object", "null"],
            "description": "What moves the answer, where it was asked for: blank picture, samples, "
            "tokens, small changes. Nothing in it enters the confidence.",
        },
    },
}
_DOCUMENT = {"type": "object"}


def description(limits: Limits, model: str | None = None) -> dict[str, Any]:
    """Returns the description.

    Args:
        limits: Limits whose numbers it names.
        model: The one name that requests may give; None where any is taken.
    """
    models: list[type[BaseModel]] = [ChatBody, DecisionsBody, FeedbackBody]
    _, schema = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas = {
        **schema["$defs"],
        "Trust": _TRUST,
        "Error": _ERROR,
        "ChatCompletion": _completion(),
        "Decision": _listed("answers"),
        "ModelList": _listed("data"),
    }
    _state(schemas, limits, model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sightline",
            "version": __version__,
            "description": "OpenAI-compatible answers about images, each with its trust.",
        },
        "paths": {
            "/v1/chat/completions": {"post": _post("ChatBody", "ChatCompletion", stream=True)},
            "/v1/decisions": {"post": _post("DecisionsBody", "Decision", form=True)},
            "/v1/feedback": {
                "post": _post("FeedbackBody", None),
                "get": _get("What the outcomes say of the calibration.", secured=True),
            },
            "/v1/models": {"get": _get("The model and its policy.", "ModelList", secured=True)},
            "/health": {"get": _get("Whether the server can answer.")},
            "/metrics": {"get": _get("Counters for Prometheus.", kind="text/plain", secured=True)},
            "/openapi.json": {"get": _get("This description.")},
            "/": {"get": _get("A page to ask questions on.", kind="text/html")},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _state(schemas: dict[str, Any], limits: Limits, model: str | None) -> None:
    """Writes the server's limits and its model's name into the schemas of what it reads."""
    chat, decisions = schemas["ChatBody"]["properties"], schemas["DecisionsBody"]["properties"]
    chat["messages"]["maxItems"] = limits.max_messages
    decisions["questions"]["maxItems"] = limits.max_questions
    if model is not None:
        for fields in (chat, decisions):
            fields["model"]["anyOf"][0]["enum"] = [model]
    for name, most in (
        ("n", limits.max_n),
        ("max_tokens", limits.max_tokens),
        ("max_completion_tokens", limits.max_tokens),
    ):
        chat[name]["anyOf"][0]["maximum"] = most


def _completion() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices"],
        "properties": {
            "id": {"type": "string"},
            "object": {"type": "string", "const": "chat.completion"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["index", "message", "finish_reason", "trust"],
                    "properties": {
                        "index": {"type": "integer"},
                        "message": _DOCUMENT,
                        "finish_reason": {"type": ["string", "null"]},
                        "trust": {"$ref": "#/components/schemas/Trust"},
                    },
                },
            },
        },
    }


def _listed(name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name],
        "properties": {name: {"type": "array", "items": _DOCUMENT}},
    }


def _post(
    body: str, answer: str | None, *, stream: bool = False, form: bool = False
) -> dict[str, Any]:
    shape = _DOCUMENT if answer is None else {"$ref": f"#/components/schemas/{answer}"}
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}
    }
    if form:
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "required": ["request"],
                "properties": {
                    "request": {"type": "string", "description": f"A {body} as JSON."},
                    "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
                },
            }
        }
    answers: dict[str, Any] = {"application/json": {"schema": shape}}
    if stream:
        answers["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "Answered.", "content": answers}, **_errors()},
        "security": [{"key": []}],
    }


def _get(
    summary: str,
    answer: str | None = None,
    *,
    kind: str = "application/json",
    secured: bool = False,
) -> dict[str, Any]:
    shape: dict[str, Any] = _DOCUMENT if kind == "application/json" else {"type": "string"}
    if answer is not None:
        shape = {"$ref": f"#/components/schemas/{answer}"}
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {kind: {"schema": shape}}}}
        | _errors(),
        **({"security": [{"key": []}]} if secured else {}),
    }


def _errors() -> dict[str, Any]:
    shape = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        status: {"description": text, "content": shape}
        for status, text in (
            ("4XX", "The request cannot be answered as it is."),
            ("502", "The upstream failed."),
            ("503", "Too busy, or down; see Retry-After."),
            ("504", "The deadline passed."),
        )
    }
