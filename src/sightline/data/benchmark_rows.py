"""One row of each published benchmark, by its own rules: what is asked, and what is left out.

Every function takes a row as the benchmark publishes it and returns a row of the recognised
columns (`sightline.data.fields.ALIASES`), or the same row with the rule that leaves it out or the
reason why it cannot be used.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from sightline.core.types import choice_letters
from sightline.data.fields import shown
from sightline.data.readers import Row

Settings = Mapping[str, str]

SEED_DIMENSIONS: Mapping[int, str] = MappingProxyType(
    {
        1: "Scene Understanding",
        2: "Instance Identity",
        3: "Instance Attributes",
        4: "Instance Location",
        5: "Instances Counting",
        6: "Spatial Relation",
        7: "Instance Interaction",
        8: "Visual Reasoning",
        9: "Text Understanding",
    }
)
"""SEED-Bench-1's dimensions on images; 10 to 12 are on videos."""

VOTES = 10
"""Free answers that people gave to each question; the VQA rule counts on as many."""

CIRCULAR = 1_000_000
"""MMBench numbers the circular copies of a question from its own index in steps of this."""

_MMMU_ID = re.compile(r"(dev|validation|test)_(.+)_[0-9]+")
_MARKER = re.compile(r"<image ([0-9]+)>")
_LETTER = re.compile(r"[A-Z]")
_MMMU_IMAGES = 7
_MIN_OPTIONS = 2
_MAX_LIST_CHARS = 100_000


def seedbench_row(row: Row, _settings: Settings) -> Row:
    """SEED-Bench-1: multiple choice among four, by dimension; video questions are left out."""
    fields = row.fields
    kind, dimension = fields["data_type"], _whole(fields["question_type_id"])
    if kind != "image":
        return _left_out(row, f"of the data_type {shown(kind)}, not 'image'")
    if dimension is None or dimension not in SEED_DIMENSIONS:
        given = shown(fields["question_type_id"])
        return _unusable(row, f"the question_type_id {given} is none of 1 to 9")
    embedded = fields.get("image")
    return _asked(
        row,
        id=fields["question_id"],
        image=fields.get("data_id") if embedded is None else embedded,
        question=fields["question"],
        choices={letter: fields[f"choice_{letter.lower()}"] for letter in "ABCD"},
        answer=fields["answer"],
        question_type=SEED_DIMENSIONS[dimension],
    )


def mmbench_row(row: Row, settings: Settings) -> Row:
    """A row of the tables that MMBench and VLMEvalKit publish: options A, B, … and base64."""
    fields = row.fields
    index = _whole(fields["index"])
    if index is None:
        return _unusable(row, f"the index is {shown(fields['index'])}, not a whole number")
    if index >= CIRCULAR and settings["circular"] == "drop":
        return _left_out(row, "a circular copy of another question (circular=keep asks it)")
    image = fields.get("image")
    if image is None:
        image = fields.get("image_path")
    elif isinstance(image, str) and not image.strip().isdecimal():
        image = _data_urls(image)
    return _asked(
        row,
        id=index,
        image=image,
        question=fields["question"],
        context=fields.get("hint"),
        choices={name: value for name, value in fields.items() if _LETTER.fullmatch(name)},
        answer=fields.get("answer"),
        question_type=fields.get("category"),
        **{name: fields.get(name) for name in ("l2-category", "split", "source")},
    )


def mmmu_row(row: Row, settings: Settings) -> Row:
    """MMMU: multiple choice with images; open questions and other splits are left out."""
    fields = row.fields
    named = _MMMU_ID.fullmatch(str(fields["id"]))
    if named is None:
        return _unusable(row, f"the id {shown(fields['id'])} names no split and subject")
    listed = _listed(fields["options"])
    options = listed or ()
    numbers = [k for k in range(1, _MMMU_IMAGES + 1) if fields.get(f"image_{k}") is not None]
    rules = (
        (named[1] != settings["split"], f"of the split {named[1]}, not {settings['split']}"),
        (fields["question_type"] != "multiple-choice", "not a multiple-choice question"),
        (
            listed is not None and len(options) < _MIN_OPTIONS,
            f"fewer than {_MIN_OPTIONS} options",
        ),
        (not numbers, "without an image"),
        (
            settings["images"] == "one" and len(numbers) > 1,
            "with several images (images=any asks them)",
        ),
    )
    rule = next((rule for broken, rule in rules if broken), None)
    if rule is not None:
        return _left_out(row, rule)
    if listed is None:
        return _unusable(row, f"the options are {shown(fields['options'])}, not a list")
    text = "\n".join(map(str, (fields["question"], *options)))
    absent = sorted({int(k) for k in _MARKER.findall(text)} - set(range(1, len(numbers) + 1)))
    if absent:
        return _unusable(row, f"the text names <image {absent[0]}>, and the images are {numbers}")
    answer = fields.get("answer")
    return _asked(
        row,
        id=fields["id"],
        image=[fields[f"image_{k}"] for k in numbers],
        question=fields["question"],
        choices=dict(zip(choice_letters(len(options)), options, strict=True)),
        answer=None if answer == "?" else answer,
        question_type=named[2].replace("_", " "),
        **{name: fields.get(name) for name in ("subfield", "img_type", "topic_difficulty")},
    )


def pope_row(row: Row, settings: Settings) -> Row:
    """POPE: is an object in the image, yes or no; the setting is that of the file's name."""
    fields = row.fields
    if fields["label"] not in ("yes", "no"):
        return _unusable(row, f"the label is {shown(fields['label'])}, neither 'yes' nor 'no'")
    setting = settings.get("negatives")
    return _asked(
        row,
        id=f"{setting}-{fields['question_id']}" if setting else fields["question_id"],
        image=fields["image"],
        question=fields["text"],
        answer=fields["label"],
        question_type="existence",
        negatives=setting,
    )


def aokvqa_row(row: Row, settings: Settings) -> Row:
    """A-OKVQA, as multiple choice or with its ten direct answers."""
    fields = row.fields
    difficult = fields.get("difficult_direct_answer")
    asked = {
        "id": fields["question_id"],
        "image": fields.get("image"),
        "question": fields["question"],
        "difficult_direct_answer": difficult,
    }
    if asked["image"] is None:
        number = _whole(fields.get("image_id"))
        if number is None:
            return _unusable(row, f"the image_id is {shown(fields.get('image_id'))}, no number")
        asked |= {"image_id": number, "data_subtype": f"{fields.get('split')}2017"}
    if settings["form"] == "direct":
        if difficult is True:
            return _left_out(row, "marked as difficult to answer directly")
        answers = _votes(fields.get("direct_answers"))
        if answers is not None and len(answers) != VOTES:
            return _unusable(row, f"{len(answers)} direct answers, not {VOTES}")
        return _asked(row, answers=answers, **asked)
    choices = _listed(fields["choices"]) or ()
    right = fields.get("correct_choice_idx")
    letters = choice_letters(len(choices))
    if right is not None and (not isinstance(right, int) or not 0 <= right < len(letters)):
        return _unusable(row, f"correct_choice_idx is {shown(right)}, not 0 to {len(letters) - 1}")
    return _asked(
        row,
        choices=dict(zip(letters, choices, strict=True)),
        answer=None if right is None else letters[right],
        **asked,
    )


def vizwiz_row(row: Row, settings: Settings) -> Row:
    """VizWiz: a free answer, with ten references of equal weight whatever their confidence."""
    fields = row.fields
    if settings["unanswerable"] == "drop" and fields.get("answerable") == 0:
        return _left_out(row, "not answerable (unanswerable=keep asks it)")
    image, answers = fields["image"], _votes(fields.get("answers"))
    if answers is not None and len(answers) != VOTES:
        return _unusable(row, f"{len(answers)} answers, not {VOTES}")
    return _asked(
        row,
        id=PurePath(image).stem if isinstance(image, str) else fields.get("question_id"),
        image=image,
        question=fields["question"],
        answers=answers,
        question_type=fields.get("answer_type"),
        answerable=fields.get("answerable"),
    )


def _asked(row: Row, **fields: Any) -> Row:
    """The row with other fields, those that are None left out.

    It needs an image, and at least two options if any: no benchmark asks without.
    """
    kept = {name: value for name, value in fields.items() if value is not None}
    if not kept.keys() & {"image", "image_id"}:
        return _unusable(row, "the image is empty")
    texts = kept.get("choices", {}).values()
    options = [text for text in texts if text is not None and str(text).strip()]
    if "choices" in kept and len(options) < _MIN_OPTIONS:
        return _unusable(row, f"{len(options)} options that are not empty, not {_MIN_OPTIONS}")
    return replace(row, fields=kept)


def _left_out(row: Row, rule: str) -> Row:
    return Row(row.where, {}, left_out=rule)


def _unusable(row: Row, reason: str) -> Row:
    return Row(row.where, {}, error=reason)


def _listed(value: Any) -> Sequence[Any] | None:
    """A list, or text that holds one as Python writes it; None for anything else."""
    if isinstance(value, str) and len(value) <= _MAX_LIST_CHARS:
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
    return value if isinstance(value, list) else None


def _votes(value: Any) -> list[str] | None:
    """The texts among the answers to a question that are not empty; None where it has none."""
    if value is None:
        return None
    given = (one.get("answer") if isinstance(one, dict) else one for one in _listed(value) or ())
    return [text for text in given if isinstance(text, str) and text.strip()]


def _whole(value: Any) -> int | None:
    """A whole number, or text of its digits."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value[:20])
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _data_urls(cell: str) -> list[str]:
    """Base64 as data URLs; text that holds a list has several."""
    listed = cell.lstrip().startswith("[")
    images = re.findall(r"['\"]([^'\"]*)['\"]", cell) if listed else [cell]
    return [f"data:image/any;base64,{image.strip()}" for image in images]
