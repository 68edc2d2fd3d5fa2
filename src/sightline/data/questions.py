"""Questions about drawn scenes, each with its accepted answers and what makes it hard."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from types import MappingProxyType

import numpy as np

from sightline.data.question_writers import WRITERS, Draft, Picture, Thing
from sightline.data.rendering import EMPTY, Scenes

USUAL_COLOR = MappingProxyType(
    {"circle": "red", "square": "blue", "triangle": "yellow", "cross": "green", "ring": "purple"}
)
RARE = (
    ("circle", "green"),
    ("square", "orange"),
    ("triangle", "purple"),
    ("cross", "white"),
    ("ring", "black"),
)
UNSEEN = (("square", "white"), ("triangle", "black"), ("cross", "orange"), ("ring", "green"))
QUESTION_TYPES = tuple(WRITERS)
_COLOR_MATTERS = frozenset(
    {"color", "count", "existence", "description", "scene", "multiple_choice"}
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one picture.

    Attributes:
        picture: Index of the picture.
        question_type: One of `QUESTION_TYPES`.
        question: What goes to the model, without an answer instruction.
        answer: The canonical answer; for multiple choice, the letter.
        references: All accepted answers, the canonical one first.
        choices: Option texts in letter order, or None.
        difficulty: 0 (easy) to 1 (hard).
        causes: Known reasons why a model may fail here.
        answer_form: What the answer looks like: ``word``, ``yes_no``, ``letter`` or ``phrase``.
        about: The type of a multiple-choice item's content; otherwise the question type.
        wording: Which of the type's wordings was used; 0 is the plain one.
    """

    picture: int
    question_type: str
    question: str
    answer: str
    references: tuple[str, ...]
    choices: tuple[str, ...] | None
    difficulty: float
    causes: tuple[str, ...]
    answer_form: str
    about: str
    wording: int


def pictures(scenes: Scenes) -> list[Picture]:
    """Reads a batch of scenes, object by object."""
    rows, cells = np.nonzero(scenes.kind != EMPTY)
    columns = [cells.tolist()] + [
        array[rows, cells].tolist()
        for array in (
            scenes.kind,
            scenes.color,
            scenes.size,
            scenes.digit,
            scenes.mixing,
            scenes.occluded,
        )
    ]
    things: list[list[Thing]] = [[] for _ in range(len(scenes))]
    for row, values in zip(rows.tolist(), zip(*columns, strict=True), strict=True):
        things[row].append(Thing(*values))
    return [
        Picture(index, tuple(there), word, difficulty)
        for index, (there, word, difficulty) in enumerate(
            zip(things, scenes.word.tolist(), scenes.difficulty.tolist(), strict=True)
        )
    ]


def _causes(draft: Draft, question_type: str, picture: Picture) -> tuple[str, ...]:
    causes = []
    if picture.difficulty > 0.5:
        causes.append("perception_noise")
    if any(t.occluded for t in draft.targets):
        causes.append("occlusion")
    if question_type in _COLOR_MATTERS and any(t.mixing > 0.3 for t in draft.targets):
        causes.append("ambiguity")
    combinations = [(t.noun, t.color_name) for t in draft.targets]
    if any(combination in RARE or combination in UNSEEN for combination in combinations):
        causes.append("rare_combination")
    if question_type in _COLOR_MATTERS and any(
        USUAL_COLOR.get(noun, color) != color for noun, color in combinations
    ):
        causes.append("prior_conflict")
    return tuple(causes)


def _difficulty(draft: Draft, picture: Picture) -> float:
    """The picture's severity, raised by what covers, shrinks or tints the objects asked about."""
    share = 1 / max(len(draft.targets), 1)
    extra = sum(0.7 * t.occluded + 0.15 * (t.size == 0) + 0.5 * t.mixing for t in draft.targets)
    return round(0.55 * picture.difficulty + 0.45 * min(extra * share, 1.0), 6)


def ask(
    picture: Picture,
    question_type: str,
    random: Random,
    *,
    yes_share: float = 0.5,
    wordings: int = 3,
) -> Item | None:
    """Writes one question of a type, or returns None where the picture does not allow it.

    Args:
        picture: What the question is about.
        question_type: One of `QUESTION_TYPES`.
        random: Source of all choices.
        yes_share: How often the truth of a yes-or-no question is yes.
        wordings: How many of the type's wordings may be used, the plain one first.
    """
    draft = WRITERS[question_type](picture, random, yes_share, wordings)
    if draft is None:
        return None
    return Item(
        picture=picture.index,
        question_type=question_type,
        question=draft.question,
        answer=draft.answer,
        references=(draft.answer, *draft.other_references),
        choices=draft.choices,
        difficulty=_difficulty(draft, picture),
        causes=_causes(draft, draft.about or question_type, picture),
        answer_form=draft.answer_form,
        about=draft.about or question_type,
        wording=draft.wording,
    )
