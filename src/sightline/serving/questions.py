"""From a conversation to the one question with images that a local model is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sightline.core.types import Example, ImageRef
from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits
from sightline.serving.wire import (
    ChatBody,
    ImagePart,
    InputImage,
    InputJson,
    InputMessage,
    Message,
    TextPart,
)
from sightline.workflow.asking import question_id


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks.

    Attributes:
        text: The question.
        images: Addresses of its images: data URLs, or others where fetching is switched on.
        param: The field they came from, for errors.
    """

    text: str
    images: tuple[str, ...]
    param: str


def asked_in_chat(body: ChatBody, limits: Limits) -> Asked:
    """The question of a chat request: one user message, system text before it.

    Raises:
        RequestError: There is no user message, or more turns than a single question has.
    """
    users = [message for message in body.messages if message.role == "user"]
    turns = [message for message in body.messages if message.role in ("user", "assistant", "tool")]
    if len(users) != 1 or len(turns) != 1:
        raise RequestError(
            f"messages hold {len(turns)} turns, {len(users)} of them the user's; a model is asked "
            "single questions here: one user message. Put what it needs to know into it.",
            param="messages",
            code="unsupported_conversation",
        )
    system = [one for one in body.messages if one.role in ("system", "developer")]
    if any(_images(one) for one in system):
        raise RequestError(
            "A picture stands in system text; pictures are read from the user's message alone. "
            "Put it there.",
            param="messages",
            code="unsupported_conversation",
        )
    own = users[0]
    images = tuple(part.image_url.url for part in _images(own))
    require_within(body, limits)
    text = "\n\n".join(text for text in map(_text, (*system, own)) if text)
    return _with_text(Asked(text, images, "messages"))


def options_in_chat(body: ChatBody) -> list[str] | None:
    """The options of a multiple-choice question; None for a free one."""
    return None if body.trust is None else body.trust.choices


def input_of_decisions(given: str | Sequence[InputMessage], limits: Limits) -> Asked:
    """What all questions of a decisions request are about; its text may be empty.

    Raises:
        RequestError: A limit is broken by it alone.
    """
    contents = [given] if isinstance(given, str) else [message.content for message in given]
    found = _of_parts(contents)
    _require_within(len(found.text), len(found.images), limits, found.param)
    return found


def asked_in_decision(
    given: Asked,
    instructions: str | Sequence[TextPart | InputImage | InputJson],
    options: Sequence[str] | None,
    limits: Limits,
) -> Asked:
    """One question of a decisions request: the input, then its instructions.

    Raises:
        RequestError: There is no text, or a limit is broken, by the options, too.
    """
    own = _of_parts([instructions])
    characters = len(given.text) + len(own.text) + _characters(options)
    images = given.images + own.images
    _require_within(characters, len(images), limits, own.param)
    text = "\n".join(text for text in (given.text, own.text) if text)
    return _with_text(Asked(text, images, own.param))


def _of_parts(contents: Sequence[str | Sequence[TextPart | InputImage | InputJson]]) -> Asked:
    parts: list[str | TextPart | InputImage | InputJson] = []
    for content in contents:
        parts += [content] if isinstance(content, str) else list(content)
    return Asked(
        "\n".join(text for part in parts if (text := _part_text(part))),
        tuple(part.image_url for part in parts if isinstance(part, InputImage)),
        "input",
    )


def example_of(
    asked: Asked, hashes: Sequence[str], choices: Sequence[str] | None = None
) -> Example:
    """The example that the model observes; equal questions get equal ids, and so equal samples.

    Args:
        asked: The question.
        hashes: SHA-256 of each of its images' bytes.
        choices: Options that are shown to the model, or None for a free answer.
    """
    return Example(
        id=question_id(asked.text, hashes, choices),
        question=asked.text,
        images=tuple(ImageRef(f"request:{i}", digest) for i, digest in enumerate(hashes)),
        choices=tuple(choices) if choices else None,
    )


def _with_text(asked: Asked) -> Asked:
    if not asked.text.strip():
        raise RequestError(
            f"{asked.param} hold no text; a question is required. Add one.", param=asked.param
        )
    return asked


def require_within(body: ChatBody, limits: Limits) -> None:
    """Requires that all texts and images of a chat request together are within the limits.

    Texts are also options, and what tools and formats say, since the model reads them.

    Raises:
        RequestError: They are not.
    """
    said = [*(body.tools or ()), *filter(None, [body.response_format])]
    characters, images = _characters(options_in_chat(body)), 0
    for message in body.messages:
        images += len(_images(message))
        characters += len(_text(message)) + len(message.name or "")
        said += message.tool_calls or ()
    characters += len(json.dumps(said, ensure_ascii=False)) - 2 * len(said) if said else 0
    _require_within(characters, images, limits, "messages")


def _require_within(characters: int, images: int, limits: Limits, param: str) -> None:
    if characters > limits.max_text:
        raise RequestError(
            f"{characters} characters of text; at most {limits.max_text} are read in {param}. "
            "Shorten it.",
            param=param,
        )
    if images > limits.max_images:
        raise RequestError(
            f"{images} images; at most {limits.max_images} are read in {param}. Send fewer.",
            param=param,
            code="too_many_images",
        )


def _characters(texts: Sequence[str] | None) -> int:
    return sum(map(len, texts or ()))


def _images(message: Message) -> list[ImagePart]:
    content = message.content if isinstance(message.content, list) else ()
    return [part for part in content if isinstance(part, ImagePart)]


def _text(message: Message) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.text for part in message.content if isinstance(part, TextPart))
    return message.content or ""


def _part_text(part: str | TextPart | InputImage | InputJson) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, InputJson):
        return json.dumps(part.data, ensure_ascii=False)
    return part.text if isinstance(part, TextPart) else ""
