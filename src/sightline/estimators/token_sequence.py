"""A generated answer as one sequence: what is written, how probable each token was, which state.

Positions: start, question, separator, then the answer's tokens, then separator. Every position
adds up what it holds of text, probability code, projected state and kind, so the mappings differ
only in what shares a position: *interleaved* gives each token one position per sub-token of its
text, one for its probability and one for its state; *additive* puts probability and state on the
positions of its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import UnscorableError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.estimators.signals import answer_start
from sightline.estimators.token_codes import bin_of
from sightline.estimators.token_text import TextCode, words

QUESTION_WORDS = 24
"""A longer question is cut to its first and last words, half of them each."""

ANSWER_TOKENS = 64
"""A longer answer is cut to its first and last tokens, half of them each."""

FRAME, QUESTION, ANSWER, PROBABILITY, STATE, IMAGE = range(6)
"""What a position holds; *additive* calls all positions of a token ANSWER."""

KINDS = 6
POSITIONS = 1 + QUESTION_WORDS + 2 + ANSWER_TOKENS
"""Numbers of positions: all positions of one token share one, so leaving a slot out moves none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of an answer, and how its tokens are laid out.

    Attributes:
        text: Whether question and tokens are read.
        probability: Whether probabilities are.
        hidden: Whether hidden states are.
        image: Whether the mean state over the image is.
        additive: One position for all of a token, not one for each signal.
        layer: Index of the layer that states are read at; None where none is read.
    """

    text: bool
    probability: bool
    hidden: bool
    image: bool
    additive: bool
    layer: int | None


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One answer laid out.

    Attributes:
        text: Rows of the text table by position, 0 for none.
        probability: 1 + bin of the probability at each position, 0 for none.
        state: 1 + index into ``states`` at each position, 0 for none.
        kind: What each position holds.
        number: Number of each position.
        states: The answer's states as they were recorded.
        image: Mean state over the image, empty where not read.
        logprobs: Of all the answer's tokens, those that are cut out included, in nats.
    """

    text: Int[np.ndarray, "p g"]
    probability: Int[np.ndarray, " p"]
    state: Int[np.ndarray, " p"]
    kind: Int[np.ndarray, " p"]
    number: Int[np.ndarray, " p"]
    states: Float[np.ndarray, "t d"]
    image: Float[np.ndarray, " e"]
    logprobs: Float[np.ndarray, " u"]

    def __len__(self) -> int:
        return len(self.kind)


def sequences(
    records: Sequence[Record], reading: Reading, code: TextCode, edges: Float[np.ndarray, " k"]
) -> list[TokenSequence]:
    """Lays the answers out.

    Args:
        records: Records with the signals that are read.
        reading: What is read.
        code: Turns texts into rows of the text table.
        edges: Where the bins of the log-probabilities meet, in nats.

    Raises:
        UnscorableError: A record has no state of the layer, or no token.
    """
    if reading.layer is not None:
        absent = [row for row, r in enumerate(records) if reading.layer not in r.layers]
        if absent:
            stored = list(records[absent[0]].layers)
            raise UnscorableError(
                absent,
                f"no hidden state of layer {reading.layer}; layers {stored} are stored",
                "Collect the run with this layer, or fit on a layer that it has.",
            )
    empty = [row for row, r in enumerate(records) if reading.hidden and not _states(r, reading)]
    if empty:
        raise UnscorableError(
            empty,
            "no token in hidden; observed arrays hold at least one",
            "Leave the feature out where nothing was observed.",
        )
    return [_sequence(record, reading, code, edges) for record in records]


def cut(length: int, limit: int) -> Int[np.ndarray, " k"]:
    """Indices of the first and last entries of a list, at most ``limit`` in all.

    Example:
        >>> cut(3, 4).tolist(), cut(9, 4).tolist()
        ([0, 1, 2], [0, 1, 7, 8])
    """
    if length <= limit:
        return np.arange(length)
    return np.concatenate([np.arange(limit // 2), np.arange(length - limit // 2, length)])


def _states(record: Record, reading: Reading) -> int:
    return int(record.array(Feature.HIDDEN).shape[1]) if reading.hidden else 0


def _sequence(
    record: Record, reading: Reading, code: TextCode, edges: Float[np.ndarray, " k"]
) -> TokenSequence:
    answer = record.answer
    begin = answer_start(answer)
    at = 0 if reading.layer is None else record.layers.index(reading.layer)
    logprobs = np.empty(0)
    if reading.probability and answer.logprobs is not None:
        logprobs = answer.logprobs[begin:]
    states = np.empty((0, 0))
    if reading.hidden:
        states = record.array(Feature.HIDDEN)[at, begin:].astype(np.float32)
    image = np.empty(0)
    if reading.image:
        image = record.array(Feature.IMAGE_HIDDEN)[at].astype(np.float32)
    texts = answer.tokens[begin:] if reading.text and answer.tokens is not None else None
    count = max(len(logprobs), len(states), len(texts or ()))
    kept = cut(count, ANSWER_TOKENS)
    rows = _Rows(code)
    rows.add(code.start(), FRAME, 0)
    if reading.image:
        rows.add(None, IMAGE, 0)
    if reading.text:
        rows.add_words(record.example.question, QUESTION_WORDS, QUESTION, 1)
        rows.add(code.separator(), FRAME, 1 + QUESTION_WORDS)
        if texts is None:
            rows.add_words(answer.text, ANSWER_TOKENS, ANSWER, 2 + QUESTION_WORDS)
    none = np.zeros(len(kept), dtype=np.int64)
    bins = 1 + bin_of(logprobs[kept], edges) if len(logprobs) else none
    index = np.arange(1, 1 + len(kept)) if len(states) else none
    for slot, place in enumerate(kept):
        written = None if texts is None else code.positions(texts[place])
        held = (2 + QUESTION_WORDS + slot, int(bins[slot]), int(index[slot]))
        rows.add_token(written, *held, together=reading.additive)
    rows.add(code.separator(), FRAME, POSITIONS - 1)
    return rows.sequence(states[kept] if len(states) else states, image, logprobs)


class _Rows:
    """Positions being put together."""

    def __init__(self, code: TextCode) -> None:
        self._code = code
        self._blank = np.zeros_like(code.start())
        self._text: list[np.ndarray] = []
        self._rest: list[tuple[int, int, int, int]] = []

    def add(
        self, text: np.ndarray | None, kind: int, number: int, probability: int = 0, state: int = 0
    ) -> None:
        text = self._blank if text is None else text
        self._text.append(text)
        self._rest.extend([(probability, state, kind, number)] * len(text))

    def add_words(self, text: str, limit: int, kind: int, first: int) -> None:
        found = words(text)
        for number, place in enumerate(cut(len(found), limit)):
            self.add(self._code.positions(found[place]), kind, first + number)

    def add_token(
        self, text: np.ndarray | None, number: int, probability: int, state: int, *, together: bool
    ) -> None:
        if together:
            self.add(text, ANSWER, number, probability, state)
            return
        if text is not None:
            self.add(text, ANSWER, number)
        if probability:
            self.add(None, PROBABILITY, number, probability)
        if state:
            self.add(None, STATE, number, 0, state)

    def sequence(
        self, states: np.ndarray, image: np.ndarray, logprobs: np.ndarray
    ) -> TokenSequence:
        rest = np.array(self._rest, dtype=np.int64).T
        text = np.concatenate(self._text)
        return TokenSequence(text, rest[0], rest[1], rest[2], rest[3], states, image, logprobs)
