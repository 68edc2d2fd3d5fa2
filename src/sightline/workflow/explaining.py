"""What moves an answer: the picture, chance, weak tokens, small changes of the picture.

Nothing here enters a confidence; it shows a person where an answer comes from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from sightline.core.condition_names import CLEAN
from sightline.core.features import Feature
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.records import link
from sightline.core.text import canonical_answer
from sightline.core.types import Example, Generation, Record
from sightline.data.perturbations import parse_condition
from sightline.estimators.signals import answer_start

if TYPE_CHECKING:
    from PIL.Image import Image

CHANGES = ("translate:4", "jpeg:3")
"""A geometric and a photometric change that leave the right answer as it is."""

BLANK_PICTURE = "blank"
_SHOWN = (*CHANGES, BLANK_PICTURE)
SAMPLES = 10
DEPTH = 0.75
WEAK = 0.5
"""A token less likely than this was not the model's clear choice."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the answer with its probability, None where that was not observed."""

    text: str
    probability: float | None

    @property
    def weak(self) -> bool:
        """Whether its probability is below `WEAK`."""
        return self.probability is not None and self.probability < WEAK


@dataclass(frozen=True, slots=True)
class Prior:
    """What the model says without the picture.

    Attributes:
        answer: Its answer under a blank picture.
        same: Whether that says the same.
        probability: Of the answer's tokens with the picture; None where not observed.
        blank_probability: Of the same tokens under the blank picture.
    """

    answer: str
    same: bool
    probability: float | None
    blank_probability: float | None


@dataclass(frozen=True, slots=True)
class Draws:
    """Sampled answers at temperature 1.

    Attributes:
        n: How many.
        agree: Those that say the same as the answer.
        others: The other answers with their counts, most frequent first.
    """

    n: int
    agree: int
    others: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Shift:
    """What one change of the picture does.

    Attributes:
        condition: The change; ``blank`` is the yardstick.
        answer: The answer under it.
        same: Whether that says the same.
        distance: Cosine distance of the answers' hidden states, in [0, 2]; None where the model
            shows none.
    """

    condition: str
    answer: str
    same: bool
    distance: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What moves an answer.

    Attributes:
        prior: Without the picture; None where the model shows no such answer.
        draws: Under chance; None where it draws no samples.
        tokens: Of the answer; empty where not observed.
        shifts: Under changes of the picture, the blank picture last.
    """

    prior: Prior | None
    draws: Draws | None
    tokens: tuple[Token, ...]
    shifts: tuple[Shift, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return asdict(self)


def explain(
    model: VisionLanguageModel,
    record: Record,
    pictures: tuple[Image, ...],
    *,
    max_new_tokens: int,
) -> Explanation:
    """Observes the model some more on the question of a record.

    Costs ten sampled answers, one answer under a blank picture, and one under each change.

    Args:
        model: The model.
        record: The answer to explain.
        pictures: As the model saw them.
        max_new_tokens: As the answer was asked for.
    """
    views = to_show(record.example, pictures, max_new_tokens=max_new_tokens)
    # One at a time: the examples share their id, which a batch may not.
    seen = [
        link(model.observe([record.example], [shown], request), condition=CLEAN)[0]
        for shown, request in views
    ]
    return explanation(record, seen)


def to_show(
    example: Example, pictures: tuple[Image, ...], *, max_new_tokens: int
) -> tuple[tuple[tuple[Image, ...], Request], ...]:
    """The pictures to show for an explanation, each with what to observe under them.

    Args:
        example: The question.
        pictures: As the model saw them; none where the question has none.
        max_new_tokens: As the answer was asked for.
    """
    request = Request(
        max_new_tokens=max_new_tokens,
        n_samples=SAMPLES,
        top_k_logprobs=0,
        layers=(DEPTH,),
        blank=True,
    )
    plain = Request(max_new_tokens=max_new_tokens, top_k_logprobs=0, layers=(DEPTH,))
    if not pictures:
        return ((pictures, request),)
    changed = [
        tuple(parse_condition(name).apply(p, example, index=i) for i, p in enumerate(pictures))
        for name in _SHOWN
    ]
    return ((pictures, request), *((shown, plain) for shown in changed))


def explanation(record: Record, seen: Sequence[Record]) -> Explanation:
    """What the observations that `to_show` names say of an answer.

    Args:
        record: The answer.
        seen: One per view, in their order.
    """
    example, first = record.example, seen[0]
    return Explanation(
        prior=_prior(first),
        draws=_draws(first),
        tokens=_tokens(record.answer),
        shifts=tuple(
            Shift(
                name,
                other.answer.text,
                _same(example, first.answer, other.answer),
                _distance(first, other),
            )
            for name, other in zip(_SHOWN, seen[1:], strict=False)
        ),
    )


def _same(example: Example, one: Generation, other: Generation) -> bool:
    return canonical_answer(example, one.text) == canonical_answer(example, other.text)


def _prior(record: Record) -> Prior | None:
    blanks = [b for b in record.related.blank if b.greedy is not None]
    if not blanks:
        return None
    answer = record.answer
    probability = blank = None
    if answer.logprobs is not None:
        probability = float(np.exp(answer.logprobs[answer_start(answer) :].sum()))
    if record.has(Feature.BLANK_LOGPROBS):
        forced = record.array(Feature.BLANK_LOGPROBS)
        blank = float(np.exp(forced[answer_start(answer) :].sum()))
    said = blanks[0].answer
    return Prior(said.text, _same(record.example, answer, said), probability, blank)


def _draws(record: Record) -> Draws | None:
    if not record.samples:
        return None
    example = record.example
    own = canonical_answer(example, record.answer.text)
    said = [canonical_answer(example, sample.text) for sample in record.samples]
    others = Counter(text for text in said if text != own)
    return Draws(len(said), len(said) - others.total(), tuple(others.most_common()))


def _tokens(answer: Generation) -> tuple[Token, ...]:
    if answer.tokens is None:
        return ()
    start = answer_start(answer)
    texts: Sequence[str] = answer.tokens[start:]
    if answer.logprobs is None:
        return tuple(Token(text, None) for text in texts)
    chances = np.exp(answer.logprobs[start:]).tolist()
    return tuple(Token(text, chance) for text, chance in zip(texts, chances, strict=True))


def _distance(one: Record, other: Record) -> float | None:
    left, right = _state(one), _state(other)
    if left is None or right is None:
        return None
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return None if scale == 0 else float(np.clip(1.0 - left @ right / scale, 0.0, 2.0))


def _state(record: Record) -> Float[np.ndarray, " d"] | None:
    """Mean state of the answer's tokens; None where the model shows none."""
    if not record.has(Feature.HIDDEN):
        return None
    states = record.array(Feature.HIDDEN)[0, answer_start(record.answer) :]
    mean: Float[np.ndarray, " d"] = states.astype(np.float64).mean(axis=0)
    return mean
