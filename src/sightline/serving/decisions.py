"""Decisions about images: predicates, choices and levels, each with a calibrated probability.

The probability of the option that the model gives is the policy's confidence; what is left over is
shared out among the other options as the model scores them. Without a confidence a question is
refused, since a number would be no probability.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.text import parse_choice, parse_yes_no
from sightline.core.types import Record
from sightline.serving.beside import beside
from sightline.serving.calls import Call
from sightline.serving.engine import Seen
from sightline.serving.errors import RequestError
from sightline.serving.limits import Limits
from sightline.serving.questions import Asked, asked_in_decision, input_of_decisions
from sightline.serving.trust import Trusting, without_confidence
from sightline.serving.wire import Choice, DecisionsBody, Predicate, Score


class Decider(Protocol):
    """What observes questions and judges the answers."""

    name: str
    trusting: Trusting

    async def observe(
        self,
        asked: Asked,
        options: Sequence[str] | None,
        requests: Sequence[Request],
        call: Call,
    ) -> Seen:
        """Observes one question."""
        ...

    def decision_requests(self, *, options: bool) -> tuple[Request, ...]:
        """What to observe."""
        ...


AT_ONCE = 16
"""Questions of one request that are asked at the same time."""


async def decide(model: Decider, body: DecisionsBody, call: Call, limits: Limits) -> dict[str, Any]:
    """Answers a decisions request.

    Raises:
        RequestError: A question cannot be asked, or the engine refuses.
    """
    free = asyncio.Semaphore(AT_ONCE)
    # Once, and before any question: 400 copies of 30 MB are refused too late.
    read = input_of_decisions
    given = await beside(read, body.input, limits) if call.large else read(body.input, limits)

    async def answer(
        index: int, question: Predicate | Choice | Score
    ) -> tuple[dict[str, Any], Seen]:
        async with free:
            return await _answer(model, given, index, question, call, limits)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(i, q)) for i, q in enumerate(body.questions)]
    except ExceptionGroup as errors:
        # What is no refusal is a fault of ours, and goes before one.
        found = errors.exceptions
        raise next((e for e in found if not isinstance(e, RequestError)), found[0]) from None
    done = [task.result() for task in tasks]
    return {
        "object": "decision",
        "id": call.request_id,
        "model": model.name,
        "answers": [answer for answer, _ in done],
        "usage": _usage([seen for _, seen in done]),
    }


def _usage(seen: Sequence[Seen]) -> dict[str, Any] | None:
    """Tokens of all prompts and answers, as OpenAI's clients read them; None where not known."""
    read = [one.prompt_tokens for one in seen]
    said = [_said(one) for one in seen]
    if None in read or None in said:
        return None
    inputs, outputs = sum(filter(None, read)), sum(filter(None, said))
    return {
        "input_tokens": inputs,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": outputs,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": inputs + outputs,
    }


def _said(seen: Seen) -> int | None:
    known = seen.completion_tokens
    return seen.record.answer.n_tokens if known is None else known


async def _answer(
    model: Decider,
    given: Asked,
    index: int,
    question: Predicate | Choice | Score,
    call: Call,
    limits: Limits,
) -> tuple[dict[str, Any], Seen]:
    labels = None if isinstance(question, Predicate) else _labels(question)
    asked = asked_in_decision(given, question.instructions, labels, limits)
    requests = model.decision_requests(options=labels is not None)
    seen = await model.observe(asked, labels, requests, call)
    chosen = _chosen(seen.record, labels)
    judgement = seen.judgement
    if chosen is None and judgement.confidence is not None:
        judgement = without_confidence(judgement, "the answer is none of the options")
    key = f"{call.request_id}:{index}"
    trust = model.trusting.trust(seen.record, judgement, key, call.warnings)
    trust["answer"] = seen.record.answer.text
    named = {"name": question.name, "trust": trust}
    withheld = call.refuse and judgement.abstain
    if chosen is None or judgement.confidence is None or withheld:
        if withheld:
            trust["answer"] = None
        return {"type": "refusal", **named}, seen
    shares = _shared_out(seen, chosen, judgement.confidence, labels)
    return {**_shaped(question, chosen, shares), **named}, seen


def _labels(question: Choice | Score) -> list[str]:
    """The options as the model reads them."""
    if isinstance(question, Score):
        return [_described(level.label, level.description) for level in question.levels]
    return [
        _described(str(c.value).lower() if isinstance(c.value, bool) else c.value, c.description)
        for c in question.choices
    ]


def _described(text: str, description: str | None) -> str:
    return f"{text} ({description})" if description else text


def _chosen(record: Record, labels: Sequence[str] | None) -> int | None:
    """Index of the option that the answer gives; a predicate's are true, false."""
    text = record.answer.text
    if labels is None:
        said = parse_yes_no(text)
        return None if said is None else int(said == "no")
    letter = parse_choice(text, labels)
    return None if letter is None else record.example.letters.index(letter)


def _shared_out(
    seen: Seen, chosen: int, confidence: float, labels: Sequence[str] | None
) -> list[float]:
    """Probabilities of all options: the chosen one's is the confidence."""
    count = 2 if labels is None else len(labels)
    weights = np.ones(count)
    for feature in (Feature.OPTION_LOGPROBS, Feature.LETTER_LOGPROBS):
        if labels is not None and seen.record.has(feature):
            others = seen.record.array(feature).astype(np.float64)
            others[chosen] = -np.inf
            weights = np.exp(others - others.max())
    weights[chosen] = 0.0
    shares = (1 - confidence) * weights / weights.sum()
    shares[chosen] = confidence
    return [float(share) for share in shares]


def _shaped(
    question: Predicate | Choice | Score, chosen: int, shares: Sequence[float]
) -> Mapping[str, Any]:
    if isinstance(question, Predicate):
        return {"type": "predicate", "probability": shares[0]}
    if isinstance(question, Choice):
        return {
            "type": "choice",
            "choice": question.choices[chosen].value,
            "confidence": shares[chosen],
            "probabilities": [
                {"value": choice.value, "probability": share}
                for choice, share in zip(question.choices, shares, strict=True)
            ],
        }
    return {
        "type": "score",
        "score": float(np.dot(shares, np.arange(len(shares)))),
        "confidence": shares[chosen],
        "probabilities": [
            {"label": level.label, "value": value, "probability": share}
            for value, (level, share) in enumerate(zip(question.levels, shares, strict=True))
        ],
    }
