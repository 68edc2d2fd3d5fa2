"""In what a request departs from how a policy's answers were asked: the one list of such fields.

A policy's answers are greedy answers to single questions of the user. Whatever else shapes the
answer or its probabilities leaves the policy without a say: its confidence is then none, whether
the model is local or an upstream's, and whether this model heeds the field or not. A seed,
the number of choices and what is shown of an answer change nothing in a greedy one; its length is
judged by the answer itself (see `sightline.serving.trust.held_to_limit`).
"""

from __future__ import annotations

from collections.abc import Iterator

from sightline.data.prompts import PromptStyle
from sightline.serving.fields import PLAIN
from sightline.serving.wire import ChatBody, ImagePart, Message, TextPart
from sightline.serving.wordings import missing_wording

ANOTHER = "another model was asked for: the policy was fitted on the one that is served here"
SAMPLED = "sampled answer: the policy was fitted on greedy ones (temperature 0)"


def set_fields(body: ChatBody) -> Iterator[str]:
    """Names of the settings in `PLAIN` that change how this answer is decoded."""
    for name, plain in PLAIN.items():
        value = getattr(body, name)
        if value is not None and value not in plain:
            yield name


def departures(body: ChatBody) -> tuple[str, ...]:
    """Why a policy has no confidence in the answer to a request, one line a field."""
    return tuple(_departures(body))


def unworded(body: ChatBody, style: PromptStyle) -> Iterator[str]:
    """In what the last question, passed on as it is, departs from how the style words questions."""
    last = next((one for one in reversed(body.messages) if one.role == "user"), None)
    content = None if last is None else last.content
    texts = [content] if isinstance(content, str) else []
    if isinstance(content, list):
        texts = [part.text for part in content if isinstance(part, TextPart)]
        if texts and (len(texts) > 1 or not isinstance(content[-1], TextPart)):
            yield (
                "the question is not one text behind its pictures, as the policy's were: put it "
                "so, or set trust.as_labelled"
            )
    missing = missing_wording(texts[-1], style) if texts else None
    if missing is not None:
        yield f"{missing}, as the policy's did: word it so, or set trust.as_labelled"


def _departures(body: ChatBody) -> Iterator[str]:
    if body.temperature:
        yield SAMPLED
    for name in set_fields(body):
        yield f"{name} is set: the policy was fitted on answers without it"
    yield from _in_messages(body.messages)


def _in_messages(messages: list[Message]) -> Iterator[str]:
    turns = [message for message in messages if message.role not in ("system", "developer")]
    if len(turns) < len(messages):
        yield "messages hold system text: the policy was fitted on questions without it"
    if len(turns) != 1 or turns[0].role != "user":
        yield f"messages hold {len(turns)} turns: the policy was fitted on single questions"
    if any(message.name is not None for message in messages):
        yield "messages.name is set: the policy was fitted on questions without it"
    if any(_has_detail(message) for message in messages):
        yield "image_url.detail is set: the policy was fitted on pictures without it"


def _has_detail(message: Message) -> bool:
    parts = message.content if isinstance(message.content, list) else ()
    details = (part.image_url.detail for part in parts if isinstance(part, ImagePart))
    return any(detail not in (None, "auto") for detail in details)
