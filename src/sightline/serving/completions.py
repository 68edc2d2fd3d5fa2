"""Chat completions as OpenAI's clients read them, each choice with its ``trust``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sightline.core.features import Feature
from sightline.core.types import Generation, Record
from sightline.serving.trust import Judgement

VERY_UNLIKELY = -9999.0
"""What OpenAI's API says for a log-probability too small to tell; read as missing."""


def completion(
    *,
    request_id: str,
    created: int,
    model: str,
    choices: Sequence[Mapping[str, Any]],
    prompt_tokens: int | None,
    completion_tokens: int | None,
) -> dict[str, Any]:
    """The answer to a chat request; without ``usage`` where a count is not known."""
    usage = None
    if prompt_tokens is not None and completion_tokens is not None:
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": list(choices),
        "usage": usage,
    }


def choice(
    index: int,
    generation: Generation,
    trust: Mapping[str, Any],
    *,
    logprobs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One choice as it was generated."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": generation.text,
        "refusal": None,
    }
    if generation.reasoning is not None:
        message["reasoning_content"] = generation.reasoning
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": "length" if generation.is_truncated else "stop",
        "trust": dict(trust),
    }


def refused(chosen: Mapping[str, Any], judgement: Judgement) -> dict[str, Any]:
    """The choice with its answer withheld."""
    return {
        **chosen,
        "message": {"role": "assistant", "content": None, "refusal": refusal(judgement)},
        "logprobs": None,
        "finish_reason": "stop",
    }


def refusal(judgement: Judgement) -> str:
    """Why an answer is withheld, in one line."""
    if judgement.confidence is None:
        return f"Abstained: no confidence ({judgement.reason or 'nothing could be scored'})."
    if judgement.threshold is None:
        return f"Abstained: {judgement.reason or 'no threshold is certified'}."
    return (
        f"Abstained: confidence {judgement.confidence:.3f} is below the threshold "
        f"{judgement.threshold:.3f}."
    )


def token_logprobs(generation: Generation) -> dict[str, Any] | None:
    """``choices[i].logprobs`` of an observed generation, end token left out.

    The tokens spell the answer: where a tokenizer's words stand alone, the white space that the
    answer has before a word is shown with it.
    """
    if generation.logprobs is None or generation.tokens is None:
        return None
    shown = len(generation.tokens) - (generation.finish_reason == "stop")
    tokens = generation.tokens[:shown]
    spaces = _spaces(tokens, generation.text, generation.answer_start)
    return {
        "content": [
            {**_token(space + token, logprob), "top_logprobs": []}
            for space, token, logprob in zip(
                spaces, tokens, generation.logprobs[:shown].tolist(), strict=True
            )
        ],
        "refusal": None,
    }


def with_top_logprobs(
    shown: Mapping[str, Any], record: Record, count: int, spelled: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """The token log-probabilities with the most likely tokens of each position.

    Args:
        shown: As `token_logprobs` gives them.
        record: Where they were observed.
        count: Tokens per position.
        spelled: The most likely tokens of every position, most likely first.
    """
    values = record.array(Feature.TOP_LOGPROBS)
    alone = record.answer.tokens or ()
    content = []
    for position, token in enumerate(shown["content"]):
        space = token["token"].removesuffix(alone[position])
        top = [
            _token(space + text, float(value))
            for text, value in zip(spelled[position][:count], values[position, :count], strict=True)
        ]
        content.append({**token, "top_logprobs": top})
    return {**shown, "content": content}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {
        "token": text,
        "bytes": None if "\ufffd" in text else list(text.encode()),
        "logprob": max(logprob, VERY_UNLIKELY),
    }


def _spaces(tokens: Sequence[str], text: str, start: int) -> list[str]:
    """White space that a text has before each token, where the tokens alone do not spell it.

    Args:
        tokens: As the tokenizer shows each by itself.
        text: The answer.
        start: Index of the answer's first token.
    """
    none = [""] * len(tokens)
    if "".join(tokens[start:]).strip() == text.strip():
        return none
    found, rest = none[:start], text.strip()
    for token in tokens[start:]:
        bare = rest if rest.startswith(token) else rest.lstrip()
        if not bare.startswith(token):
            return none
        found.append(rest[: len(rest) - len(bare)])
        rest = bare[len(token) :]
    return none if rest else found


def chunks(whole: Mapping[str, Any], *, include_usage: bool) -> Iterator[dict[str, Any]]:
    """A finished completion as the chunks of a stream; trust rides on the last of each choice."""
    for chosen in whole["choices"]:
        yield chunk(whole, chosen["index"], OPENING)
        yield from rest(whole, chosen)
    if include_usage:
        yield usage_chunk(whole)


def chunk(whole: Mapping[str, Any], index: int, delta: Mapping[str, str]) -> dict[str, Any]:
    """One chunk of a stream.

    Args:
        whole: Holds the id, the time and the model.
        index: Of the choice.
        delta: What is added to its message.
    """
    part = {"index": index, "delta": dict(delta), "logprobs": None, "finish_reason": None}
    return {
        "id": whole["id"],
        "object": "chat.completion.chunk",
        "created": whole["created"],
        "model": whole["model"],
        "choices": [part],
    }


def rest(
    whole: Mapping[str, Any], chosen: Mapping[str, Any], *, sent: str = ""
) -> Iterator[dict[str, Any]]:
    """The chunks of a finished choice of which the beginning of the content was sent."""
    index, message = chosen["index"], chosen["message"]
    for name in ("reasoning_content", "content", "refusal"):
        text = message.get(name) or ""
        if name == "content":
            text = text[len(sent) :]
        if text:
            yield chunk(whole, index, {name: text})
    last = chunk(whole, index, {})
    ended = {name: chosen[name] for name in ("logprobs", "finish_reason", "trust")}
    last["choices"][0] |= ended
    yield last


def usage_chunk(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The chunk behind the last choice."""
    return {**chunk(whole, 0, {}), "choices": [], "usage": whole["usage"]}


OPENING = {"role": "assistant", "content": ""}
"""What every streamed choice begins with."""
