"""Sentence vectors of short answers: near where two answers mean the same, far where they do not.

General sentence encoders put "yes, there is" beside "no, there is not" and "two" beside "three".
The default, `ContentWords`, reads the answer first: yes or no, numbers and negation are parsed,
function words fall away, and what is left is compared word by word. It knows no synonyms and no
word order; choose a trained encoder where answers are whole sentences.

Example:
    >>> left, right = ContentWords().embed(["It is a red circle.", "a circle that is red"])
    >>> round(float(left @ right), 3)
    1.0
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from sightline.core.text import normalise_answer, parse_yes_no

_WIDTH = 512
_FUNCTION_WORDS = frozenset(
    """
    it its it's this that these those there there's here which who is are was were be been being am
    isn't i i'm you we they he she my your our their in at of to for with by as and or do does did
    has have had can could would will shall should may might must seems appears see shown shows
    picture image photo me myself answer think believe guess suppose say said looks look like
    probably maybe perhaps likely certainly definitely clearly sure so just very
    """.split()  # noqa: SIM905
)
_NEGATORS = frozenset("no not never without neither nor none cannot".split())  # noqa: SIM905


@runtime_checkable
class SentenceEncoder(Protocol):
    """Turns texts into unit vectors; a text's vector depends on nothing but the text."""

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """One vector of length 1 per text."""
        ...


class ContentWords:
    """A bag of parsed content words, each word a frozen random direction.

    The cosine of two answers is the overlap of their words (Dice-like, by counts); words not shared
    contribute noise of about ±0.04. An answer that says yes or no is that word alone. Words behind
    a negation are other words than those without.
    """

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """One unit vector (512 wide, float64) per text, the same on every machine."""
        out = np.zeros((len(texts), _WIDTH))
        for row, text in enumerate(texts):
            for word in content_words(text):
                out[row] += _direction(word)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def content_words(text: str) -> tuple[str, ...]:
    """Returns what the answer says, word by word, at least one entry.

    Example:
        >>> content_words("There are two big dogs"), content_words("Yes, it is."), content_words("")
        (('2', 'big', 'dog'), ('yes',), ('',))
        >>> content_words("there is no red dog")
        ('not red', 'not dog')
    """
    stated = parse_yes_no(text)
    words = normalise_answer(text).split()
    if stated is not None and (len(words) == 1 or not set(words) - _NEGATORS - _AGREEMENT):
        return (stated,)
    return tuple(_parsed(words)) or (" ".join(words),)


_AGREEMENT = _FUNCTION_WORDS | {"yes", "no", "true", "false", "yeah", "nope", "isn't", "aren't"}


def _parsed(words: Sequence[str]) -> Iterator[str]:
    negator = None
    said = False
    for word in words:
        if word in _NEGATORS or word.endswith("n't"):
            negator, said = "no", False
        elif word not in _FUNCTION_WORDS:
            yield f"not {_singular(word)}" if negator else _singular(word)
            said = True
    if negator and not said:
        yield negator


def _singular(word: str) -> str:
    """Drops a plural ending; only has to map both numbers of a noun to one form."""
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@lru_cache(maxsize=65536)
def _direction(word: str) -> Float[np.ndarray, " d"]:
    seed = hashlib.sha256(word.encode()).digest()
    bits = np.frombuffer(hashlib.shake_256(seed).digest(_WIDTH // 8), dtype=np.uint8)
    signs = np.unpackbits(bits).astype(np.float64) * 2 - 1
    signs.setflags(write=False)
    return signs


ENCODERS = {"words": ContentWords()}
"""Sentence encoders by name."""
