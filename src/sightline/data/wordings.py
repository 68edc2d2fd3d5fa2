"""The same question in other words: what a paraphrase may not change is the answer.

A generated question is put into the generator's own other wordings; any other question is set into
a frame that leaves its words as they are.

Source: question perturbation as in VL-Uncertainty (Zhang et al., 2024), which has a language model
rewrite the question; frames and known wordings cannot change its meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

from sightline.core.errors import DataError, UsageError
from sightline.core.types import Example
from sightline.data.perturb_geometry import Magnitude, Size
from sightline.data.question_writers import WORDINGS

FRAMES = (
    "Look at the image and answer: {question}",
    "{question} Answer from what the image shows.",
    "Here is a question about the image. {question}",
    "Please answer this question about the image: {question}",
    "Using only what can be seen in the image, answer the following. {question}",
)
"""Frames around a question whose words are not touched."""


@dataclass(frozen=True, slots=True)
class Worded:
    """A generated question taken apart.

    Attributes:
        kind: Key of `sightline.data.question_writers.WORDINGS`.
        wording: Index of the wording.
        words: What stands in the wording's places (``x``, ``a``, ``b``, ``r``).
    """

    kind: str
    wording: int
    words: tuple[tuple[str, str], ...]

    def asked(self, wording: int) -> str:
        """The question in another of its wordings."""
        text = WORDINGS[self.kind][wording].format(**dict(self.words))
        return text[0].upper() + text[1:]


def _place(match: re.Match[str]) -> str:
    """Pattern of what stands in one place of a wording."""
    return "(?P<r>bigger|smaller)" if match[1] == "r" else f"(?P<{match[1]}>.+?)"


@cache
def _patterns() -> tuple[tuple[str, int, re.Pattern[str]], ...]:
    patterns = []
    for kind, wordings in WORDINGS.items():
        for index, wording in enumerate(wordings):
            escaped = re.sub(r"\\\{(\w)\\\}", _place, re.escape(wording))
            patterns.append((kind, index, re.compile(escaped, re.IGNORECASE)))
    return tuple(patterns)


def taken_apart(question: str, kind: str) -> Worded | None:
    """Reads a generated question, or returns None where it is none of that kind.

    Args:
        question: The question.
        kind: Its type; a comparison may be of either of its two forms.

    Example:
        >>> taken_apart("How many red objects are there?", "count").words
        (('x', 'red objects'),)
    """
    for known, index, pattern in _patterns():
        if known in {kind, f"{kind}_yes_no"} and (match := pattern.fullmatch(question.strip())):
            words = tuple((name, text.lower()) for name, text in match.groupdict().items())
            return Worded(known, index, words)
    return None


def is_generated(example: Example) -> bool:
    """Whether an example says, in its facts, that it comes from the scene generator."""
    return {"split", "about", "causes", "answer_form"} <= example.meta.keys()


@dataclass(frozen=True, slots=True)
class Rewording:
    """The question in other words; the picture stays as it is.

    Attributes:
        level: Which of the other wordings, from 1: for a generated question the generator's own,
            of which there are two at most; for any other, one of `FRAMES`.
    """

    level: int = 1
    levels: ClassVar[tuple[str, ...]] = ("1", "2", "3", "4", "5")
    kind: ClassVar[str] = "wording"

    def __post_init__(self) -> None:
        if not 1 <= self.level <= len(FRAMES):
            raise UsageError(
                f"The wording is {self.level}; 1 to {len(FRAMES)} is required. Correct the level."
            )

    def refusal(self, example: Example) -> str | None:
        """Why the question cannot be put into these words, or None where it can."""
        if not is_generated(example):
            return None
        count = len(_others(example))
        wordings = "other wording" if count == 1 else "other wordings"
        return None if self.level <= count else f"the question has {count} {wordings}"

    def reword(self, example: Example) -> Example:
        """The example with its question in other words.

        Raises:
            DataError: A generated question has fewer other wordings.
        """
        if is_generated(example):
            others = _others(example)
            if self.level > len(others):
                raise DataError(
                    f"The question of example {example.id!r} has {len(others)} other wordings; "
                    f"wording {self.level} requires as many. Leave this level out."
                )
            return replace(example, question=others[self.level - 1])
        frame = FRAMES[self.level - 1]
        question = example.question.strip()
        if not question.endswith((".", "?", "!", ":")):
            frame = frame.replace("{question} ", "{question}\n")
        return replace(example, question=frame.replace("{question}", question))

    def magnitude(self, size: Size) -> Magnitude:
        """Which wording it is."""
        return Magnitude(self.level, "wording")


def _others(example: Example) -> list[str]:
    """The question in the generator's other wordings, in their order."""
    worded = taken_apart(example.question, str(example.meta["about"]))
    if worded is None:
        return []
    return [worded.asked(i) for i in range(len(WORDINGS[worded.kind])) if i != worded.wording]
