"""What clients send, checked field by field; past this module nothing is untrusted but its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits

_STRICT = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)
_Body = TypeVar("_Body", bound=BaseModel)
_Share = Annotated[float, Field(ge=0, le=1)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]


class _Strict(BaseModel):
    model_config = _STRICT


class TextPart(_Strict):
    """Text in a message."""

    type: Literal["text", "input_text"]
    text: str


class ImageUrl(_Strict):
    """Where an image is: a data URL, or an address if fetching is switched on."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Strict):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class InputImage(_Strict):
    """An image in the input of decisions."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class InputJson(_Strict):
    """A JSON object in the input of decisions, shown to the model as text."""

    type: Literal["input_json"]
    data: dict[str, Any] | list[dict[str, Any]]


_ChatPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]
_InputPart = Annotated[TextPart | InputImage | InputJson, Field(discriminator="type")]
Role = Literal["system", "developer", "user", "assistant", "tool"]


class Message(_Strict):
    """One turn of a conversation."""

    role: Role
    content: str | list[_ChatPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class InputMessage(_Strict):
    """One turn of the input of decisions."""

    role: Literal["system", "developer", "user"]
    content: str | list[_InputPart]


class TrustOptions(_Strict):
    """What a client may ask of trust.

    Attributes:
        abstain_mode: ``refuse`` replaces answers that are abstained from; it cannot be turned off
            where the server runs in that mode.
        choices: Options of a multiple-choice question, which are shown to the model.
        explain: Also observe what moves the first choice, which costs about fifteen answers more.
    """

    abstain_mode: Literal["flag", "refuse"] | None = None
    choices: Annotated[list[str], Field(min_length=2, max_length=255)] | None = None
    explain: bool | None = None


class StreamOptions(_Strict):
    """What a stream ends with."""

    include_usage: bool | None = None


class ChatBody(_Strict):
    """Body of ``/v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    user: str | None = None
    trust: TrustOptions | None = None


class Predicate(_Strict):
    """A statement about the input that is true or not."""

    type: Literal["predicate"]
    instructions: str | list[_InputPart]
    name: str | None = None


class ChoiceValue(_Strict):
    """One option."""

    value: str | bool
    description: str | None = None


class Choice(_Strict):
    """One of several options."""

    type: Literal["choice"]
    instructions: str | list[_InputPart]
    choices: Annotated[list[ChoiceValue], Field(min_length=2, max_length=255)]
    name: str | None = None


class Level(_Strict):
    """One level of a scale."""

    label: str
    description: str | None = None


class Score(_Strict):
    """A level of an ordered scale."""

    type: Literal["score"]
    instructions: str | list[_InputPart]
    levels: Annotated[list[Level], Field(min_length=2, max_length=255)]
    name: str | None = None


DecisionQuestion = Annotated[Predicate | Choice | Score, Field(discriminator="type")]


class DecisionsBody(_Strict):
    """Body of ``/v1/decisions``."""

    input: str | list[InputMessage]
    questions: Annotated[list[DecisionQuestion], Field(min_length=1)]
    model: str | None = None
    trust: TrustOptions | None = None


class FeedbackBody(_Strict):
    """Body of ``/v1/feedback``.

    Attributes:
        receipt: ``trust.receipt`` of the answer that was graded.
        correct: 1 or true = right, 0 or false = wrong; fractions for soft grades.
        note: Kept with the outcome.
    """

    receipt: Annotated[str, Field(min_length=1, max_length=512)]
    correct: bool | _Share
    note: Annotated[str, Field(max_length=2000)] | None = None


def read_chat(body: Mapping[str, Any], limits: Limits, *, strict: bool) -> ChatBody:
    """Checks the body of ``/v1/chat/completions``.

    Raises:
        RequestError: A field is not what OpenAI's API takes, or breaks a limit.
    """
    _check_length(body, "messages", limits.max_messages)
    read = _read(ChatBody, body, strict=strict)
    if read.top_logprobs is not None and not read.logprobs:
        raise RequestError(
            "top_logprobs is set without logprobs; logprobs: true is required. Set it too.",
            param="top_logprobs",
        )
    for name, value, most in (
        ("n", read.n, limits.max_n),
        ("max_tokens", read.max_tokens, limits.max_tokens),
        ("max_completion_tokens", read.max_completion_tokens, limits.max_tokens),
    ):
        if value is not None and value > most:
            raise RequestError(
                f"{name} is {value}; at most {most} is allowed here. Ask for less.", param=name
            )
    return read


def read_decisions(body: Mapping[str, Any], limits: Limits, *, strict: bool) -> DecisionsBody:
    """Checks the body of ``/v1/decisions``.

    Raises:
        RequestError: A field is not what the API takes, or breaks a limit.
    """
    _check_length(body, "input", limits.max_messages)
    _check_length(body, "questions", limits.max_questions)
    return _read(DecisionsBody, body, strict=strict)


def read_feedback(body: Mapping[str, Any]) -> FeedbackBody:
    """Checks the body of ``/v1/feedback``.

    Raises:
        RequestError: A field is missing or has another form.
    """
    return _read(FeedbackBody, body, strict=True)


def dropped_fields(body: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, ...]:
    """Names of the top-level fields that are not read, shortened for showing."""
    return tuple(name[:40] for name in body if name not in model.model_fields)[:20]


def _read(model: type[_Body], body: Mapping[str, Any], *, strict: bool) -> _Body:
    unknown = dropped_fields(body, model)
    if strict and unknown:
        raise RequestError(
            f"Unknown field {unknown[0]!r}; one of {', '.join(model.model_fields)} is required. "
            "Remove it.",
            param=unknown[0],
            code="unknown_field",
        )
    try:
        return model.model_validate(dict(body))
    except ValidationError as error:
        first = max(error.errors(include_input=False), key=lambda one: len(one["loc"]))
        where = ".".join(str(part) for part in first["loc"] if _is_field(part)) or "body"
        what = first["msg"][:1].lower() + first["msg"][1:]
        raise RequestError(
            f"{where[:100]}: {what[:300]}. Correct this field.", param=where[:100]
        ) from None


def _is_field(part: int | str) -> bool:
    """Whether part of a location is the client's, and not a branch of a union."""
    return isinstance(part, int) or (part.replace("_", "").isalnum() and part not in _BRANCHES)


_BRANCHES = frozenset({"str", "bool", "float", "text", "predicate", "choice", "score"})


def _check_length(body: Mapping[str, Any], name: str, most: int) -> None:
    value = body.get(name)
    if isinstance(value, list) and len(value) > most:
        raise RequestError(
            f"{name} has {len(value)} entries; at most {most} are allowed. Send fewer.", param=name
        )
