"""Log-probabilities of the answer's tokens, weighed by how much each matters for the meaning.

A token matters as much as the answer's vector changes when the token is left out: 1 − cosine of
the answer with and without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Generation, Record
from sightline.estimators.encoders import ContentWords
from sightline.estimators.signals import (
    FREE,
    Ragged,
    answer_logprobs,
    answer_start,
    per_answer_token,
    require,
)

Importance = Literal["words", "stored"]
"""``words``: read off the answer's content words, computed here. ``stored``: token_importance."""

_MARKS = " \t\n\r▁Ġ"  # white space, and how tokenizers write it
_PIECE = 32  # tokens that are read together
_CHUNK = 4096  # pairs of texts whose vectors are held at once
_NOTHING = 1e-9  # change of a vector that is rounding


@dataclass(frozen=True, slots=True)
class TokenSAR:
    """Mean negative log-probability of the answer's tokens, weighed by importance.

    Equals the perplexity's logarithm where all tokens matter alike, and where none does.

    Attributes:
        importance: words, the change of the answer's content words without the token, or stored.

    Source: TokenSAR of Duan et al. (ACL 2024), which leaves tokens out of question and answer
    together. Equals LM-Polygraph's on the same importance, save that it calls an answer certain
    (0) where no token matters.
    """

    importance: Importance = "words"

    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer's log-probabilities, and the importance where it was stored."""
        return _needs(self.importance)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Weighted mean in nats per token, ≥ 0.

        Raises:
            UnscorableError: The answer's tokens were not observed as texts.
        """
        require(records, self.needs, self)
        weights = token_importance(records, self.importance)
        total = weights.spread(weights.sum())
        even = 1.0 / weights.spread(weights.lengths.astype(np.float64))
        share = np.where(total > 0, weights.values / np.where(total > 0, total, 1.0), even)
        return _weighted(records, share)

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


@dataclass(frozen=True, slots=True)
class MARS:
    """Negative log-probability of the answer's tokens, half evenly and half by importance.

    The importance is sharpened by a softmax. Equals the perplexity's logarithm where all tokens
    matter alike.

    Attributes:
        temperature: Of the softmax.
        importance: words, the change of the answer's content words without the token, or stored.

    Source: meaning-aware response scoring of Bakman et al. (ACL 2024), as TruthTorchLM weighs. The
    importance there is that of phrases by a trained model; here it is that of tokens by the
    change of the answer's vector.
    """

    temperature: float = 0.1
    importance: Importance = "words"

    family: ClassVar[str] = "likelihood"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise UsageError(
                f"Setting temperature={self.temperature} of mars; a number above 0 is required. "
                "Leave it out for the published 0.1."
            )

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer's log-probabilities, and the importance where it was stored."""
        return _needs(self.importance)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Weighted mean in nats per token, ≥ 0.

        Raises:
            UnscorableError: The answer's tokens were not observed as texts.
        """
        require(records, self.needs, self)
        weights = token_importance(records, self.importance)
        sharp = weights.map(lambda values: values / self.temperature).log_softmax()
        even = 1.0 / weights.spread(weights.lengths.astype(np.float64))
        return _weighted(records, 0.5 * np.exp(sharp.values) + 0.5 * even)

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing beyond the greedy answer."""
        return FREE


def token_importance(records: Sequence[Record], importance: Importance) -> Ragged:
    """How much each token of the answers matters, ≥ 0; one array per record.

    By words, a token is left out of the answer's text where it stands; the end token and pieces
    that the text does not show matter nothing. An answer of more than 32 tokens is read in pieces
    of 32, as one word of many moves no vector.

    Raises:
        UnscorableError: The answer's tokens were not observed as texts.
    """
    if importance == "stored":
        stored = Ragged.of(per_answer_token(records, Feature.TOKEN_IMPORTANCE))
        return stored.map(lambda values: np.maximum(values, 0.0))
    unread = [row for row, record in enumerate(records) if record.answer.tokens is None]
    if unread:
        raise UnscorableError(
            unread,
            "no texts of the answer's tokens; the importance of tokens requires them",
            "Collect or import tokens, or use importance=stored.",
        )
    removals = [_removals(record.answer) for record in records]
    out = Ragged.of([np.zeros(len(own)) for own in removals])
    every = [removal for own in removals for removal in own]
    shown = [i for i, removal in enumerate(every) if removal is not None]
    for begin in range(0, len(shown), _CHUNK):
        chosen = shown[begin : begin + _CHUNK]
        out.values[chosen] = _changes([pair for i in chosen if (pair := every[i]) is not None])
    return out


class _Removal(NamedTuple):
    """A text, and the same without one token."""

    whole: str
    without: str


def _removals(answer: Generation) -> list[_Removal | None]:
    """For each token of the answer what it is left out of; None where the text does not show it."""
    spans = _spans(answer.text, (answer.tokens or ())[answer_start(answer) :])
    shown = [span for span in spans if span is not None]
    removals: list[_Removal | None] = []
    at = 0
    for span in spans:
        if span is None:
            removals.append(None)
            continue
        first = at - at % _PIECE
        piece = shown[first : first + _PIECE]
        low, high = piece[0][0], piece[-1][1]
        whole = answer.text[low:high]
        removals.append(_Removal(whole, whole[: span[0] - low] + whole[span[1] - low :]))
        at += 1
    return removals


def _spans(text: str, tokens: Sequence[str]) -> list[tuple[int, int] | None]:
    """Where each token stands in the text, without the white space around it."""
    spans: list[tuple[int, int] | None] = []
    at = 0
    for token in tokens:
        piece = token.strip(_MARKS)
        begin = at
        while begin < len(text) and text[begin] in _MARKS:
            begin += 1
        if piece and text.startswith(piece, begin):
            at = begin + len(piece)
            spans.append((begin, at))
        else:
            spans.append(None)
    return spans


def _changes(removals: Sequence[_Removal]) -> Float[np.ndarray, " k"]:
    """1 − cosine of the vectors with and without, exactly 0 where nothing changes."""
    numbers: dict[str, int] = {}
    at = [[numbers.setdefault(text, len(numbers)) for text in removal] for removal in removals]
    vectors = ContentWords().embed(tuple(numbers))
    whole, without = np.array(at, dtype=np.int64).T
    change = 1.0 - (vectors[whole] * vectors[without]).sum(axis=1)
    return np.where(change > _NOTHING, change, 0.0)


def _weighted(
    records: Sequence[Record], weights: Float[np.ndarray, " total"]
) -> Float[np.ndarray, " n"]:
    """Sum of the answers' negative log-probabilities times the weights."""
    return answer_logprobs(r.answer for r in records).map(lambda values: -values * weights).sum()


def _needs(importance: Importance) -> frozenset[Feature]:
    stored = {Feature.TOKEN_IMPORTANCE} if importance == "stored" else set()
    return frozenset({Feature.ANSWER, Feature.LOGPROBS} | stored)
