"""How much an endpoint will be asked, told before the first question: some of them cost money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sightline.core.features import FIXED_REPLIES
from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.data.prompt_forms import FOLLOW_UP_FORMS, follow_up_of
from sightline.data.prompts import PromptStyle
from sightline.models.openai.capabilities import Capabilities
from sightline.models.openai.scoring import cases
from sightline.models.openai.token_scores import forms, groups

SAMPLES_PER_REQUEST = 8


@dataclass(frozen=True, slots=True)
class Forecast:
    """Upper bounds on what observing takes; what is sent again after a failure comes on top.

    Attributes:
        requests: Requests, those that ask for token ids included.
        pictures: Pictures sent, once a request.
        tokens: Tokens generated; those of prompts and pictures come on top.
    """

    requests: int
    pictures: int
    tokens: int

    def line(self, questions: int) -> str:
        """The forecast in one line."""
        return (
            f"{questions:,} questions: at most {self.requests:,} requests with {self.pictures:,} "
            f"pictures and {self.tokens:,} generated tokens; tokens of prompts and pictures, and "
            "what fails and is sent again, come on top."
        )


def forecast(
    examples: Sequence[Example], request: Request, found: Capabilities, style: PromptStyle
) -> Forecast:
    """What observing examples takes at most, their conditions included.

    Args:
        examples: Those still to be observed.
        request: What to observe of each.
        found: What the server does.
        style: Says which follow-up questions the model can be asked.
    """
    under = replace(request, n_samples=request.condition_samples, blank=False, asks=())
    whole = [(request, 1), (under, len(request.conditions))]
    requests = pictures = tokens = 0
    for example in examples:
        for asked, times in whole:
            count, generated = _once(example, asked, found, style)
            requests += times * count
            pictures += times * count * len(example.images)
            tokens += times * generated
    requests += len(forms(_beginnings(examples, request, style))) if found.named_tokens else 0
    return Forecast(requests, pictures, tokens)


def _beginnings(examples: Sequence[Example], request: Request, style: PromptStyle) -> Iterator[str]:
    """Texts whose tokens may be named, repeats included; each is asked for once a run."""
    if request.options and style.asks_for_letters:
        for example in examples:
            yield from example.letters
    for name in request.asks if examples else ():
        if style.can_ask(name):
            question, _ = follow_up_of(name)
            for reply in FIXED_REPLIES.get(question, ()):
                yield from cases(reply)


def _once(
    example: Example, request: Request, found: Capabilities, style: PromptStyle
) -> tuple[int, int]:
    """Requests and generated tokens of one question under one condition."""
    size = SAMPLES_PER_REQUEST if found.n else 1
    options = _options(example, request, found, style)
    blanks = int(request.blank and bool(example.images))
    scored = options * (1 + blanks) + (blanks if found.prompt_logprobs else 0)
    answers = 1 + blanks
    requests = answers + scored + -(-request.n_samples // size)
    tokens = (answers + request.n_samples) * request.max_new_tokens + scored
    for name in request.asks:
        if style.can_ask(name):
            question, _ = follow_up_of(name)
            spelled = sum(len(cases(reply)) for reply in FIXED_REPLIES.get(question, ()))
            extra = spelled if found.prompt_logprobs else 0
            extra += _named([len(cases(r)) for r in FIXED_REPLIES.get(question, ())], found)
            requests += 1 + extra
            tokens += FOLLOW_UP_FORMS[question].max_new_tokens + extra
    return requests, tokens


def _options(example: Example, request: Request, found: Capabilities, style: PromptStyle) -> int:
    """Requests that score options and letters."""
    if not request.options or example.choices is None:
        return 0
    count = len(example.choices)
    letters = _named([1] * count, found) if style.asks_for_letters else 0
    return letters + (count * (1 + style.asks_for_letters) if found.prompt_logprobs else 0)


def _named(spellings: Sequence[int], found: Capabilities) -> int:
    """Requests that name the tokens of texts with so many spellings each."""
    if not found.named_tokens:
        return 0
    return len(list(groups([2 * count for count in spellings], found.top_logprobs)))
