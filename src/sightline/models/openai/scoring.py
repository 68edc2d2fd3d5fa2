"""Log-probabilities of given answers: behind the prompt where the server scores it, else by top-k.

A fixed reply that is not among the likeliest tokens shown has no log-probability here; none is made
up for it, and the whole feature is missing where one reply is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.models.openai.wire import Piece, Step


@dataclass(frozen=True, slots=True)
class Continuation:
    """A text behind a prompt, as the server scored it.

    Attributes:
        pieces: Tokens of the text.
        logprobs: Of each, in nats.
        end: Log-probability of the token that ends the turn, or None where it is not plain which
            one that is.
    """

    pieces: tuple[Piece, ...]
    logprobs: tuple[float, ...]
    end: float | None


def continuation(pieces: Sequence[Piece | None], text: str) -> Continuation | None:
    """Reads off the tokens behind a prompt how a text was scored.

    Returns:
        None where the tokens do not spell the text (white space around it aside), or one of them
        has no log-probability.
    """
    wanted = text.strip().encode("utf-8", errors="replace")
    spelled = b""
    found: list[Piece] = []
    values: list[float] = []
    for at, piece in enumerate(pieces):
        if piece is None or piece.logprob is None:
            return None
        spelled += piece.raw
        found.append(piece)
        values.append(piece.logprob)
        if spelled.strip() == wanted:
            after = pieces[at + 1] if at + 1 < len(pieces) else None
            plain = after is not None and bool(not after.raw or after.raw.strip())
            return Continuation(
                tuple(found), tuple(values), after.logprob if after and plain else None
            )
        if len(spelled.strip()) > len(wanted):
            return None
    return None


def logprob_of_spellings(step: Step, spellings: Sequence[str]) -> float | None:
    """Log-probability that one of the spellings comes next, white space around it aside.

    Sums over the tokens shown that are such a spelling; None where none is shown.
    """
    wanted = {spelling.encode() for spelling in spellings}
    shown = list(step.top)
    if all(piece.raw != step.chosen.raw for piece in shown):
        shown.append(step.chosen)
    values = [
        piece.logprob
        for piece in shown
        if piece.logprob is not None and piece.raw.strip() in wanted
    ]
    return min(0.0, float(np.logaddexp.reduce(values))) if values else None


def cases(reply: str) -> tuple[str, ...]:
    """A reply as declared, with a capital letter and in capitals.

    Example:
        >>> cases("yes")
        ('yes', 'Yes', 'YES')
    """
    return tuple(dict.fromkeys((reply, reply.capitalize(), reply.upper())))
