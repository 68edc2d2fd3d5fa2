"""What clients send, checked field by field; past this module nothing is untrusted but its text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from sightline.core.printing import printable
from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits

_STRICT = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)
_Body = TypeVar("_Body", bound=BaseModel)
_Item = TypeVar("_Item")
_Listed = Annotated[list[_Item], Field(fail_fast=True)]
"""A list whose first entry at fault is the only one reported: a body may hold 30,000."""
_MOST_TOOLS = 1024
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
    content: str | _Listed[_ChatPart] | None = None
    name: str | None = None
    tool_calls: _Listed[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class InputMessage(_Strict):
    """One turn of the input of decisions."""

    role: Literal["system", "developer", "user"]
    content: str | _Listed[_InputPart]


class TrustOptions(_Strict):
    """What a client may ask of trust; unknown fields are refused, since they ask for safety.

    Attributes:
        abstain_mode: ``refuse`` replaces answers that are abstained from; it cannot be turned off
            where the server runs in that mode.
        choices: Options of a multiple-choice question, which are shown to the model.
        explain: Also observe what moves the first choice, which costs about fifteen answers more.
        category: Kind of question, for a policy whose thresholds go by it.
        as_labelled: Have the question worded as the policy's labelled questions were; a local
            model's always is.
    """

    model_config = ConfigDict(extra="forbid")

    abstain_mode: Literal["flag", "refuse"] | None = None
    choices: Annotated[list[str], Field(min_length=2, max_length=255)] | None = None
    explain: bool | None = None
    category: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    as_labelled: Literal[True] | None = None


class StreamOptions(_Strict):
    """What a stream ends with."""

    include_usage: bool | None = None


class ChatBody(_Strict):
    """Body of ``/v1/chat/completions``."""

    messages: Annotated[_Listed[Message], Field(min_length=1)]
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
    tools: Annotated[_Listed[dict[str, Any]], Field(max_length=_MOST_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    user: str | None = None
    trust: TrustOptions | None = None


class Predicate(_Strict):
    """A statement about the input that is true or not."""

    type: Literal["predicate"]
    instructions: str | _Listed[_InputPart]
    name: str | None = None


class ChoiceValue(_Strict):
    """One option."""

    value: str | bool
    description: str | None = None


class Choice(_Strict):
    """One of several options."""

    type: Literal["choice"]
    instructions: str | _Listed[_InputPart]
    choices: Annotated[list[ChoiceValue], Field(min_length=2, max_length=255)]
    name: str | None = None


class Level(_Strict):
    """One level of a scale."""

    label: str
    description: str | None = None


class Score(_Strict):
    """A level of an ordered scale."""

    type: Literal["score"]
    instructions: str | _Listed[_InputPart]
    levels: Annotated[list[Level], Field(min_length=2, max_length=255)]
    name: str | None = None


DecisionQuestion = Annotated[Predicate | Choice | Score, Field(discriminator="type")]


class DecisionsBody(_Strict):
    """Body of ``/v1/decisions``."""

    input: str | _Listed[InputMessage]
    questions: Annotated[_Listed[DecisionQuestion], Field(min_length=1)]
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
    _check_parts(body, {"messages": ("content", "tool_calls")}, "parts", limits.max_parts)
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
    parts = {"input": ("content",), "questions": ("instructions",)}
    _check_parts(body, parts, "parts", limits.max_parts)
    _check_parts(body, {"questions": ("choices", "levels")}, "options", limits.max_options)
    return _read(DecisionsBody, body, strict=strict)


def read_feedback(body: Mapping[str, Any]) -> FeedbackBody:
    """Checks the body of ``/v1/feedback``.

    Raises:
        RequestError: A field is missing or has another form.
    """
    return _read(FeedbackBody, body, strict=True)


def dropped_fields(body: Mapping[str, Any], read: BaseModel) -> tuple[str, ...]:
    """Where a body that was read has fields that are not, shortened for showing.

    Args:
        body: What was sent.
        read: What it was read as.

    Returns:
        The first twenty paths, joined by points: ``messages.0.content.1.detail``.
    """
    return tuple(_joined(path) for path in islice(_unknown(body, read), 20))


def _unknown(raw: Any, read: Any) -> Iterator[tuple[int | str, ...]]:
    """Paths of the fields that nothing reads, one by one: a body may hold 90,000.

    Args:
        raw: What was sent.
        read: What it was read as.
    """
    if isinstance(read, BaseModel):
        known = type(read).model_fields
        for name in known:
            if name in raw:
                yield from ((name, *path) for path in _unknown(raw[name], getattr(read, name)))
        yield from ((name,) for name in raw if name not in known)
    elif isinstance(read, list):
        for at, (own, one) in enumerate(zip(raw, read, strict=True)):
            if isinstance(one, BaseModel):
                yield from ((at, *path) for path in _unknown(own, one))


def _read(model: type[_Body], body: Mapping[str, Any], *, strict: bool) -> _Body:
    options = body.get("trust")
    if "trust" in model.model_fields and isinstance(options, dict):
        # Before all else is read, and just the first: the check itself would name every one.
        other = next((name for name in options if name not in TrustOptions.model_fields), None)
        if other is not None:
            raise _unknown_field(_joined(("trust", other)), TrustOptions)
    try:
        found = model.model_validate(dict(body))
    except ValidationError as error:
        raise _refusal(error.errors(include_input=False, include_url=False)) from None
    unknown = dropped_fields(body, found) if strict else ()
    if unknown:
        raise _unknown_field(unknown[0], model if "." not in unknown[0] else None)
    return found


def _refusal(errors: Sequence[ErrorDetails]) -> RequestError:
    """What is wrong with the first field at fault, in one line."""
    where = _where(max(errors, key=lambda one: len(one["loc"])))
    found = [one for one in errors if _where(one) == where]
    # Of a field that may be several things: what its bounds say, else all that it may be.
    bounds = [one for one in found if not one["type"].endswith("_type")] or found
    said = dict.fromkeys(one["msg"][:1].lower() + one["msg"][1:] for one in bounds)
    return RequestError(f"{where}: {' or '.join(said)[:300]}. Correct this field.", param=where)


def _unknown_field(name: str, known: type[BaseModel] | None) -> RequestError:
    asked = (
        "a field of OpenAI's API" if known is None else f"one of {', '.join(known.model_fields)}"
    )
    return RequestError(
        f"Unknown field {name!r}; {asked} is required. Remove it.",
        param=name,
        code="unknown_field",
    )


def _where(error: ErrorDetails) -> str:
    """The place of an error in the body, without the branches of unions."""
    parts = [part for part in error["loc"] if _is_field(part)]
    # The branch of a picture is called as its field is.
    kept = [part for at, part in enumerate(parts) if not at or part != parts[at - 1]]
    return _joined(kept) or "body"


def _joined(path: Iterable[int | str]) -> str:
    """A path for showing; what a client calls its fields may be long, and hold anything."""
    return ".".join(printable(str(part)[:40]) for part in path)[:100]


def _is_field(part: int | str) -> bool:
    """Whether part of a location is the client's, and not a branch of a union."""
    return isinstance(part, int) or (part.replace("_", "").isalnum() and part not in _BRANCHES)


_BRANCHES = frozenset(
    {"str", "bool", "float", "text", "predicate", "choice", "score", "input_image", "input_json"}
)


def _check_length(body: Mapping[str, Any], name: str, most: int) -> None:
    value = body.get(name)
    if isinstance(value, list) and len(value) > most:
        raise RequestError(
            f"{name} has {len(value)} entries; at most {most} are allowed. Send fewer.", param=name
        )


def _check_parts(
    body: Mapping[str, Any], where: Mapping[str, Sequence[str]], kind: str, most: int
) -> None:
    """Requires that lists within lists together are within a limit, before any entry is read.

    Args:
        body: The body.
        where: Fields that are lists of objects, and the lists that those hold.
        kind: What the entries are called.
        most: Entries that all of them may have.
    """
    entries = [
        entry[inner]
        for name, inners in where.items()
        if isinstance(body.get(name), list)
        for entry in body[name]
        if isinstance(entry, dict)
        for inner in inners
        if isinstance(entry.get(inner), list)
    ]
    count = sum(map(len, entries))
    if count > most:
        named = " and ".join(where)
        raise RequestError(
            f"{named} hold {count} {kind}; at most {most} are allowed. Send fewer.",
            param=next(iter(where)),
        )
