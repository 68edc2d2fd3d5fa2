"""What an endpoint really does, measured by its effects: a field it accepts may still be ignored.

The probe is some twenty short requests. An answer to the same request twice, or to two
seeds, or to two pictures, shows whether a setting has an effect; the spread of the first token's
probabilities at several temperatures shows whether they are those before the temperature.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from sightline.core.errors import EndpointError, ModelError, UsageError
from sightline.models.openai.reading import answer_start, shows_end
from sightline.models.openai.scoring import continuation
from sightline.models.openai.token_scores import listed, naming, token_ids
from sightline.models.openai.transport import NotServedError, Transport
from sightline.models.openai.wire import Choice, Reply, Step, data_url, user_turn

LogprobSpace = Literal["raw", "after temperature", "unknown"]
Sight = Literal["seen", "accepted, no effect seen", "refused"]

NEUTRAL: Mapping[str, Any] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent where taken, since servers apply the checkpoint's own generation settings by default."""

_WORDS = "Write down eight random words."
_SHORT = "Is water wet? Reply with the single word yes."
_PICTURE = "What is the main colour of this picture?"
_TOP = (20, 10, 5, 1)
_TRIES = 2
_UNLIKELY = ("Q", "Z")
_SAME = 0.05  # rounding of half precision, in nats and as a probability


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server was seen to do.

    Attributes:
        answers_as: Model that its replies name, or None.
        limit_field: Field that bounds the answer's length.
        neutral: Whether it takes the fields of `NEUTRAL`.
        logprobs: Whether it shows the log-probability of every token of a greedy answer.
        top_logprobs: Likeliest tokens that it shows at every place.
        end_token: Whether the token that ends the answer is among those shown.
        logprob_space: Whether log-probabilities are those before the sampling temperature.
        token_ids: Whether it shows the ids of the answer's tokens.
        seed: Whether one seed gives one text, and others give others.
        n: Whether one request gives several samples that differ.
        images: Whether pictures change its answers.
        prompt_logprobs: Whether it scores a given answer behind a prompt, its end included.
        named_tokens: Whether it shows tokens that a request names by id, and gives such ids.
    """

    answers_as: str | None
    limit_field: str
    neutral: bool
    logprobs: bool
    top_logprobs: int
    end_token: bool
    logprob_space: LogprobSpace
    token_ids: bool
    seed: bool
    n: bool
    images: Sight
    prompt_logprobs: bool
    named_tokens: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form, as the fingerprint keeps it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Capabilities:
        """Reads what `to_dict` wrote.

        Raises:
            UsageError: It was written by a version that looked at other things.
        """
        names = {each.name for each in fields(cls)}
        if set(values) != names:
            raise UsageError(
                f"An endpoint's recorded capabilities differ in "
                f"{', '.join(sorted(names ^ set(values))[:4])} from what this version looks at; "
                "the same are required. Collect and calibrate again."
            )
        return cls(**values)

    def keeps_sample_logprobs(self, temperature: float, top_p: float) -> bool:
        """Whether samples drawn so show log-probabilities of the raw distribution."""
        untouched = temperature == 1 and top_p == 1
        return self.logprobs and (self.logprob_space == "raw" or untouched)

    def lines(self) -> tuple[str, ...]:
        """What was found, in plain lines."""
        space = {
            "raw": "before the temperature",
            "after temperature": "after the temperature; those of samples are kept at 1 only",
            "unknown": "not known to be before or after the temperature",
        }[self.logprob_space]
        end = "the end token included" if self.end_token else "without the end token"
        return (
            f"log-probabilities: {f'yes, {end}, {space}' if self.logprobs else 'no'}",
            f"likeliest tokens per place: {self.top_logprobs or 'none'}",
            f"several samples in one request (n): {_yes(self.n)}",
            f"seeds: {'one seed, one text' if self.seed else 'no effect, or texts differ'}",
            f"options scored exactly (prompt_logprobs): {_yes(self.prompt_logprobs)}",
            f"letters scored exactly (logprob_token_ids): {_yes(self.named_tokens)}",
            f"pictures: {self.images}",
            f"token ids: {_yes(self.token_ids)}",
            f"neutral decoding fields taken: {_yes(self.neutral)}",
            f"length limit: {self.limit_field}",
        )


async def probe(transport: Transport, name: str) -> Capabilities:
    """Measures what the servers behind a transport do.

    Raises:
        UsageError: They give no greedy answer to a plain question.
        EndpointError: They cannot be asked.
    """
    asking = _Asking(transport, name)
    reply = await asking.settle_limit()
    neutral = await asking.ask(_SHORT, **NEUTRAL) is not None
    asking.fixed = dict(NEUTRAL) if neutral else {}
    shown, top = await _logprobs(asking)
    space: LogprobSpace = "unknown"
    usable = shown is not None
    if top > 1:
        space, usable = await _space(asking, top)
    return Capabilities(
        answers_as=reply.model,
        limit_field=asking.limit_field,
        neutral=neutral,
        logprobs=usable,
        top_logprobs=top if usable else 0,
        end_token=shown is not None and shows_end(shown),
        logprob_space=space,
        token_ids=await _token_ids(asking),
        seed=await _seed(asking),
        n=await _n(asking),
        images=await _images(asking),
        prompt_logprobs=await _prompt_logprobs(asking),
        named_tokens=usable and await _named_tokens(asking, top),
    )


class _Asking:
    """Short requests in the form that the server takes."""

    def __init__(self, transport: Transport, name: str) -> None:
        self.transport = transport
        self.name = name
        self.limit_field = "max_completion_tokens"
        self.fixed: dict[str, Any] = {}

    async def ask(
        self,
        text: str,
        *,
        tokens: int = 16,
        turns: list[dict[str, Any]] | None = None,
        **fields: Any,
    ) -> Reply | None:
        """The reply, or None where the server refuses the fields."""
        payload = {
            "model": self.name,
            "messages": [user_turn(text, ())] if turns is None else turns,
            "temperature": 0,
            self.limit_field: tokens,
            **self.fixed,
            **fields,
        }
        try:
            return await self.transport.complete(payload, repeatable=True, attempts=_TRIES)
        except ModelError as error:
            self.refusal = str(error)
            return None

    async def settle_limit(self) -> Reply:
        """Finds the field that bounds the answer; the reply to a plain greedy question."""
        for field in ("max_completion_tokens", "max_tokens"):
            self.limit_field = field
            reply = await self.ask(_WORDS, tokens=1)
            if reply is not None and (reply.completion_tokens or 0) <= 1:
                return reply
        if reply is None:
            raise UsageError(
                f"openai:{self.name} gives no greedy answer ({self.refusal}); a model that takes "
                "temperature 0 and a length limit is required. Choose another."
            )
        return reply


async def _logprobs(asking: _Asking) -> tuple[Choice | None, int]:
    """An answer with log-probabilities for all of its text, and the tokens shown per place."""
    for top in (*_TOP, 0):
        wanted: dict[str, Any] = {"top_logprobs": top} if top else {}
        reply = await asking.ask(_SHORT, tokens=32, logprobs=True, **wanted)
        if reply is None:
            continue
        choice = reply.choices[0]
        steps = choice.steps
        whole = steps is not None and all(step.chosen.logprob is not None for step in steps)
        reasoned = choice.reasoning is not None
        if steps is None or not whole:
            return None, 0
        if answer_start(steps, choice.text.strip(), reasoned=reasoned) is None:
            return None, 0
        return choice, min(len(step.top) for step in steps)
    return None, 0


async def _space(asking: _Asking, top: int) -> tuple[LogprobSpace, bool]:
    """The space of log-probabilities, and whether those of the greedy answer mean anything."""
    tops = []
    for temperature in (0, 1, 2):
        reply = await asking.ask(
            _WORDS, tokens=1, temperature=temperature, logprobs=True, top_logprobs=top
        )
        steps = None if reply is None else reply.choices[0].steps
        tops.append(None if not steps else _first(steps))
    greedy, plain, warm = tops
    if greedy is None or plain is None or warm is None:
        return "unknown", greedy is not None
    if max(greedy.values()) > -1e-6 and max(plain.values()) < -1e-2:
        return "unknown", False  # as if the temperature 0 had made the best token certain
    steady, slope = _slope(greedy, plain), _slope(plain, warm)
    if steady is None or slope is None or abs(steady - 1) > 0.15:
        return "unknown", True
    if abs(slope - 1) < 0.15:
        return "raw", True
    return ("after temperature" if abs(slope - 0.5) < 0.15 else "unknown"), True


def _first(steps: tuple[Step, ...]) -> dict[bytes, float] | None:
    found = {piece.raw: piece.logprob for piece in steps[0].top if piece.logprob is not None}
    return found or None


def _slope(before: Mapping[bytes, float], after: Mapping[bytes, float]) -> float | None:
    """How far the spread of log-probabilities of shared tokens has shrunk; None if not to be told.

    Differences to the best token do not depend on the normaliser.
    """
    shared = sorted(set(before) & set(after))
    if len(shared) < 2:
        return None
    best = max(shared, key=lambda raw: before[raw])
    left = [before[raw] - before[best] for raw in shared]
    right = [after[raw] - after[best] for raw in shared]
    square = math.fsum(x * x for x in left)
    return None if square < 0.01 else math.fsum(map(float.__mul__, left, right)) / square


async def _token_ids(asking: _Asking) -> bool:
    reply = await asking.ask(_SHORT, logprobs=True, return_token_ids=True)
    choice = None if reply is None else reply.choices[0]
    if choice is None or choice.steps is None or choice.token_ids is None:
        return False
    return len(choice.token_ids) == len(choice.steps)


async def _seed(asking: _Asking) -> bool:
    """Each of four seeds gives one text twice: that chance alone repeats a text is seen often."""
    texts = set()
    for seed in (11, 12, 13, 14):
        first = await _drawn(asking, seed=seed)
        again = await _drawn(asking, seed=seed) if first is not None else None
        if first is None or again is None or first.choices[0].text != again.choices[0].text:
            return False
        texts.add(first.choices[0].text)
    return len(texts) > 1


async def _n(asking: _Asking) -> bool:
    reply = await _drawn(asking, n=4)
    return (
        reply is not None
        and len(reply.choices) == 4
        and len({choice.text for choice in reply.choices}) > 1
    )


async def _drawn(asking: _Asking, **fields: Any) -> Reply | None:
    """A reply drawn as freely as the server allows; a sure model repeats itself otherwise."""
    warm = await asking.ask(_WORDS, temperature=2, **fields)
    return warm or await asking.ask(_WORDS, temperature=1, **fields)


async def _images(asking: _Asking) -> Sight:
    from PIL import Image

    shown = []
    for colour in ("red", "blue"):
        picture = data_url(Image.new("RGB", (64, 64), colour), "png")
        reply = await asking.ask("", turns=[user_turn(_PICTURE, (picture,))], logprobs=True)
        reply = reply or await asking.ask("", turns=[user_turn(_PICTURE, (picture,))])
        if reply is None:
            return "refused"
        steps = reply.choices[0].steps or ()
        shown.append((reply.choices[0].text, [round(s.chosen.logprob or 0, 2) for s in steps]))
    return "seen" if shown[0] != shown[1] else "accepted, no effect seen"


async def _prompt_logprobs(asking: _Asking) -> bool:
    plain = await asking.ask(_SHORT, tokens=1)
    if plain is None or plain.prompt_tokens is None:
        return False
    turns = [user_turn(_SHORT, ()), {"role": "assistant", "content": "yes"}]
    reply = await asking.ask("", turns=turns, tokens=1, **SCORED)
    if reply is None or reply.prompt_pieces is None:
        return False
    found = continuation(reply.prompt_pieces[plain.prompt_tokens :], "yes")
    return found is not None and found.end is not None


async def _named_tokens(asking: _Asking, top: int) -> bool:
    """Whether tokens that no list of the likeliest would hold are shown where they are named."""
    known: dict[str, asyncio.Task[int | None]] = {}
    try:
        own = [
            await token_ids(asking.transport, asking.name, (text,), known, attempts=_TRIES)
            for text in _UNLIKELY
        ]
    except NotServedError:
        return False
    except ModelError as error:  # a failure that may pass is no finding
        raise EndpointError(str(error)) from None
    if not all(own):
        return False
    ids = [one for part in own for one in part]
    plain = await asking.ask(_SHORT, tokens=1, logprobs=True, top_logprobs=top)
    named = await asking.ask(_SHORT, tokens=1, **naming(ids, top))
    before, after = (None if one is None else one.choices[0].steps for one in (plain, named))
    if not before or not after or before[0].chosen.raw != after[0].chosen.raw:
        return False
    values = [listed(after[0], (t,), len(part)) for t, part in zip(_UNLIKELY, own, strict=True)]
    same = abs((before[0].chosen.logprob or 0.0) - (after[0].chosen.logprob or 0.0)) < _SAME
    chances = [math.exp(value) for value in (*values, after[0].chosen.logprob) if value is not None]
    return None not in values and same and math.fsum(chances) <= 1 + _SAME


SCORED: Mapping[str, Any] = {
    "prompt_logprobs": 1,
    "add_generation_prompt": False,
    "continue_final_message": False,
}
"""What asks a server to score the assistant's turn that ends the messages."""


def _yes(value: bool) -> str:
    return "yes" if value else "no"
