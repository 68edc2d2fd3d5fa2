"""Graders that need no model: each compares an answer with the references of its example.

An answer that is empty, ambiguous or not of the asked form is wrong: the model had its say. An
example without a reference of the right form is not graded at all: that is a `DataError`, which
the caller counts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from sightline.core.errors import DataError, UsageError
from sightline.core.text import (
    Quantity,
    answer_form,
    normalise_answer,
    option_texts,
    parse_choice,
    parse_number,
    parse_yes_no,
)
from sightline.core.types import Example, Generation, choice_letters

VQA_REFERENCES = 10


@dataclass(frozen=True, slots=True)
class Exact:
    """Right if the normalised answer equals any normalised reference.

    Source: the answer normaliser of the VQA evaluation, see `normalise_answer`.
    """

    def grade(self, example: Example, generation: Generation) -> float:
        """1 for a match with any reference, else 0."""
        accepted = {normalise_answer(reference) for reference in _references(example)}
        return float(normalise_answer(generation.text) in accepted)

    def to_dict(self) -> dict[str, Any]:
        """The grader's name."""
        return {"name": "exact"}


@dataclass(frozen=True, slots=True)
class Vqa:
    """VQA soft accuracy over ten or more references; with fewer, a match with any.

    Each reference is left out in turn; the answer scores min(1, matches among the others / 3), and
    the scores are averaged: 0, 0.3, 0.6, 0.9 or 1 for 0, 1, 2, 3 or more matches out of ten.

    Source: Antol et al., "VQA: Visual Question Answering", ICCV 2015, official evaluation. Ours
    normalises answer and references always, not only where the references disagree.
    """

    def grade(self, example: Example, generation: Generation) -> float:
        """Soft accuracy in [0, 1]."""
        references = [normalise_answer(reference) for reference in _references(example)]
        matches = references.count(normalise_answer(generation.text))
        if len(references) < VQA_REFERENCES:
            return float(matches > 0)
        without_a_match = (len(references) - matches) * min(1.0, matches / 3)
        without_another = matches * min(1.0, max(0, matches - 1) / 3)
        return (without_a_match + without_another) / len(references)

    def to_dict(self) -> dict[str, Any]:
        """The grader's name."""
        return {"name": "vqa"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Right if the letter the answer gives is a reference letter; no or two letters are wrong.

    How a letter is read is in `parse_choice`; an option's text stands for its letter only while no
    other option has the same text.
    """

    def grade(self, example: Example, generation: Generation) -> float:
        """1 for a reference letter, else 0."""
        options = option_texts(example)
        letters = choice_letters(len(options))
        references = _references(example)
        if not all(reference in letters for reference in references):
            raise DataError(
                "A reference that is not the letter of an option; letters are required for "
                "multiple choice. Give the letter of the right option."
            )
        return float(parse_choice(generation.text, options) in references)

    def to_dict(self) -> dict[str, Any]:
        """The grader's name."""
        return {"name": "choice"}


@dataclass(frozen=True, slots=True)
class YesNo:
    """Right if the answer says what most yes/no references say; at a tie either is right.

    How yes and no are read is in `parse_yes_no`; an answer that says neither or both is wrong.
    """

    def grade(self, example: Example, generation: Generation) -> float:
        """1 for the majority's word, else 0."""
        votes = Counter(word for r in _references(example) if (word := parse_yes_no(r)) is not None)
        if not votes:
            raise DataError(
                "No reference that says yes or no; the yes_no grader requires one. "
                "Choose another grader."
            )
        said = parse_yes_no(generation.text)
        return float(said is not None and votes[said] == max(votes.values()))

    def to_dict(self) -> dict[str, Any]:
        """The grader's name."""
        return {"name": "yes_no"}


@dataclass(frozen=True, slots=True)
class Numeric:
    """Right if the answer gives one number within tolerance of a reference.

    Digits, group commas, number words, percent and common units are read by `parse_number`. Two
    different units are wrong (nothing is converted), a missing unit is not; where only one side
    has a percent sign, ``45%`` equals both 45 and 0.45. ``relative=0.05`` is the relaxed accuracy
    of chart benchmarks.

    Attributes:
        relative: Tolerance as a share of the reference's absolute value.
        absolute: Tolerance in the reference's own unit.
    """

    relative: float = 0.0
    absolute: float = 1e-9

    def __post_init__(self) -> None:
        for name in ("relative", "absolute"):
            _require_range(f"numeric {name}", getattr(self, name), 0.0, 1e300)

    def grade(self, example: Example, generation: Generation) -> float:
        """1 within tolerance of any numeric reference, else 0."""
        wanted = [q for r in _references(example) if (q := parse_number(r)) is not None]
        if not wanted:
            raise DataError(
                "No reference that is one number; the numeric grader requires one. "
                "Choose another grader."
            )
        given = parse_number(generation.text)
        return float(given is not None and any(self._close(given, want) for want in wanted))

    def _close(self, given: Quantity, want: Quantity) -> bool:
        scales = [1.0]
        if (given.unit == "%") != (want.unit == "%"):
            scales.append(0.01 if given.unit == "%" else 100.0)
        elif given.unit and want.unit and given.unit != want.unit:
            return False
        tolerance = max(self.absolute, self.relative * abs(want.value))
        return any(abs(given.value * scale - want.value) <= tolerance for scale in scales)

    def to_dict(self) -> dict[str, Any]:
        """The grader's name and tolerances."""
        return {"name": "numeric", **asdict(self)}


@dataclass(frozen=True, slots=True)
class RougeL:
    """Right if ROUGE-L (F1 of the longest common subsequence of words) reaches the threshold.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, with beta = 1, the
    best reference, lower-case words, no stemming.

    Attributes:
        threshold: In (0, 1].
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        _require_range("rouge_l threshold", self.threshold, 1e-6, 1.0)

    def grade(self, example: Example, generation: Generation) -> float:
        """1 if the best reference's ROUGE-L is at least the threshold, else 0."""
        best = max(rouge_l(generation.text, reference) for reference in _references(example))
        return float(best >= self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """The grader's name and threshold."""
        return {"name": "rouge_l", **asdict(self)}


@dataclass(frozen=True, slots=True)
class TokenF1:
    """Right if the F1 of shared words reaches the threshold.

    Source: Rajpurkar et al., "SQuAD", EMNLP 2016, the best reference; words are those of
    `normalise_answer`.

    Attributes:
        threshold: In (0, 1].
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        _require_range("token_f1 threshold", self.threshold, 1e-6, 1.0)

    def grade(self, example: Example, generation: Generation) -> float:
        """1 if the best reference's F1 is at least the threshold, else 0."""
        best = max(token_f1(generation.text, reference) for reference in _references(example))
        return float(best >= self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """The grader's name and threshold."""
        return {"name": "token_f1", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Auto:
    """Grades every example by the form of its references.

    | references | grader |
    |---|---|
    | letters of options | choice |
    | ten or more | vqa |
    | all yes or no | yes_no |
    | all numbers | numeric |
    | anything else | exact |
    """

    def grade(self, example: Example, generation: Generation) -> float:
        """What the grader of the example's form gives."""
        form = answer_form(example)
        if form == "choice":
            return Choice().grade(example, generation)
        if len(_references(example)) >= VQA_REFERENCES:
            return Vqa().grade(example, generation)
        if form == "yes_no":
            return YesNo().grade(example, generation)
        if form == "number":
            return Numeric().grade(example, generation)
        return Exact().grade(example, generation)

    def to_dict(self) -> dict[str, Any]:
        """The grader's name."""
        return {"name": "auto"}


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, in [0, 1]; 0 where either has no word.

    Example:
        >>> round(rouge_l("police killed the gunman", "police kill the gunman"), 3)
        0.75
    """
    ours, theirs = _words(answer), _words(reference)
    return _f1(_common_subsequence(ours, theirs), len(ours), len(theirs))


def token_f1(answer: str, reference: str) -> float:
    """F1 of shared normalised words, counted with repeats, in [0, 1].

    Example:
        >>> round(token_f1("a red car", "the red sports car"), 3)
        0.8
    """
    ours, theirs = normalise_answer(answer).split(), normalise_answer(reference).split()
    return _f1((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if shared else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _common_subsequence(ours: list[str], theirs: list[str]) -> int:
    """Length of the longest common subsequence, one big-integer step per word.

    Source: Hyyrö, "Bit-parallel LCS-length computation revisited", 2004. Keeps answers of a
    megabyte affordable.
    """
    places: dict[str, int] = {}
    for at, word in enumerate(theirs):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(theirs)) - 1
    unmatched = full
    for word in ours:
        here = unmatched & places.get(word, 0)
        unmatched = (unmatched + here | unmatched - here) & full
    return len(theirs) - unmatched.bit_count()


def _references(example: Example) -> tuple[str, ...]:
    if not example.references:
        raise DataError(
            "No reference; at least one is required to grade. "
            "Add references, or label the answers by hand."
        )
    return example.references


def _require_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(
            f"{name} is {value}; a number from {low:g} to {high:g} is required. Change it."
        )
