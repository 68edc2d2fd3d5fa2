"""What one recorded row says: its question, its answers and what was observed with them.

Readers of other tools' files bring their rows into the names of `NAMES`; this module alone decides
what they mean and which of them cannot be used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from sightline.core.condition_names import CLEAN, NEGATED
from sightline.core.errors import DataError
from sightline.core.features import Feature
from sightline.core.text import parse_choice
from sightline.core.types import Example, Generation, Record, Scalar, choice_letters
from sightline.data.fields import shown
from sightline.store.import_values import (
    read_correct,
    read_generation,
    read_generations,
    read_label,
    read_logprobs,
    read_number,
    read_numbers,
    read_structured,
    read_text,
)

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "id": ("id", "question_id", "qid", "sample_id", "index"),
        "model": ("model", "model_name", "model_id"),
        "dataset": ("dataset",),
        "condition": ("condition",),
        "question": ("question", "prompt", "query"),
        "context": ("context", "hint"),
        "choices": ("choices", "options"),
        "answer": ("answer", "prediction", "response", "output", "answer_text"),
        "references": ("references", "reference", "answers", "target", "label", "gold"),
        "correct": ("correct", "is_correct"),
        "group": ("group", "group_id"),
        "question_type": ("question_type", "category", "type"),
        "image": ("image", "images", "image_path", "image_file", "image_ref", "file_name"),
        "tokens": ("tokens",),
        "token_ids": ("token_ids",),
        "token_logprobs": ("token_logprobs", "logprobs"),
        "finish_reason": ("finish_reason",),
        "reasoning": ("reasoning",),
        "confidence": ("confidence",),
        "choice_logits": ("choice_logits",),
        "choice_logprobs": ("choice_logprobs",),
        "choice_probs": ("choice_probs",),
        "option_logprobs": ("option_logprobs",),
        "samples": ("samples",),
        "sample_cells": ("sample_cells",),
        "samples_layout": ("samples_layout",),
        "samples_complement": ("samples_complement",),
        "answer_negated": ("answer_negated",),
    }
)
"""What is read, and the names it goes by in a row; the first that a row has is used.

Where a row has no references but an ``answer`` beside another name of the answer (``prediction``,
``response``, ``output``), its ``answer`` is the reference. Rows without a group share one where
they name the same images. Where a row is one version of an item,
with an id ``item:version`` and a category ``topic/version``, its question type is the version.
"""

PROBABILITY_FLOOR = 1e-12
"""A recorded probability of 0 is one too small to be written; its logarithm is that of this."""

_FIELD = {name: field for field, names in NAMES.items() for name in names}
_ORDER = tuple(_FIELD)
_FULL_TEXT = frozenset({"answer_text"})
RECOGNISED = frozenset(_FIELD) | {*choice_letters(26)}
"""Every column that can matter."""

MAX_CHOICES = 702
_LETTERS = {letter: i for i, letter in enumerate(choice_letters(MAX_CHOICES))}
_CONDITION = re.compile(
    r"(?:clean|blank|negated|[A-Za-z][\w-]*:[\w.-]+)(?:\+[A-Za-z][\w-]*:[\w.-]+)*"
)
_CELL = re.compile(r"([A-Za-z][A-Za-z_-]*?)[_-]?(\d+(?:\.\d+)?)")
_VERSIONS = re.compile(r"\[([^\[\]]+)\]")


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """One usable row.

    Attributes:
        model: The model's name, or None.
        dataset: The data set's name, or None.
        example: The question, without its images.
        images: Image values as written.
        records: What was recorded, the row's own condition first.
        correct: Recorded correctness of the row's own answer, or None.
        unused: Names of columns that were left out.
    """

    model: str | None
    dataset: str | None
    example: Example
    images: tuple[str, ...]
    records: tuple[Record, ...]
    correct: float | None
    unused: tuple[str, ...]


def interpret(row: Mapping[str, Any]) -> RecordedRow:
    """Reads one row.

    Raises:
        DataError: The row cannot be used; the message is the reason.
    """
    value, used = _by_name(row)
    letters, choices = _choices(row, value)
    used |= letters
    scores = _letter_logprobs(value, choices)
    if choices is None and scores is not None:
        choices = choice_letters(len(scores))
    question = _question(value["question"], value["context"])
    images, embedded = _images(value["image"])
    meta, unused = _meta({n: item for n, item in row.items() if n not in used})
    identity = read_label("id", value["id"]) or _derived_id(question, images, choices)
    question_type = read_label("question type", value["question_type"])
    _, colon, version = identity.rpartition(":")
    if question_type is not None and colon and question_type.endswith(f"/{version}"):
        meta["category"], question_type = question_type, version
    example = Example(
        id=identity,
        question=question,
        choices=choices,
        references=_references(value["references"], choices),
        group=read_label("group", value["group"]) or ", ".join(images) or identity,
        question_type=question_type,
        meta=meta,
    )
    return RecordedRow(
        model=read_label("model", value["model"]),
        dataset=read_label("dataset", value["dataset"]),
        example=example,
        images=images,
        records=_records(value, example, scores),
        correct=read_correct(value["correct"]),
        unused=(*unused, *(["embedded images"] if embedded else [])),
    )


def _by_name(row: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The row's values by what they mean, and the columns that they are from."""
    names: dict[str, list[str]] = {}
    for name in sorted((n for n in row if n in _FIELD and row[n] is not None), key=_ORDER.index):
        names.setdefault(_FIELD[name], []).append(name)
    answers = names.get("answer", [])
    has_another = set(answers) - _FULL_TEXT > {"answer"}
    if "references" not in names and answers[:1] == ["answer"] and has_another:
        names |= {"references": ["answer"], "answer": answers[1:]}
    chosen = {field: there[0] for field, there in names.items()}
    return dict.fromkeys(NAMES) | {f: row[name] for f, name in chosen.items()}, {*chosen.values()}


def _records(
    value: Mapping[str, Any], example: Example, scores: Float[np.ndarray, " c"] | None
) -> tuple[Record, ...]:
    condition = _condition(value["condition"])
    greedy = _greedy(value, example, scores)
    samples = read_generations("samples", value["samples"])
    negated = read_generations("samples_complement", value["samples_complement"])
    cells = _cells(value, len(samples))
    features: dict[Feature, np.ndarray] = {}
    if scores is not None:
        features[Feature.LETTER_LOGPROBS] = scores
    if value["option_logprobs"] is not None:
        options = read_numbers("option_logprobs", value["option_logprobs"])
        features[Feature.OPTION_LOGPROBS] = read_logprobs("option_logprobs", options)
    if value["confidence"] is not None:
        confidence = read_number("confidence", value["confidence"])
        features[Feature.RECORDED_CONFIDENCE] = np.array(confidence)
    if greedy is None and not samples:
        raise DataError("no answer and no samples")
    own = Record(example, condition, greedy, () if cells else samples, features)
    prefix = "" if condition == CLEAN else f"{condition}+"
    records = [own, *_under(example, prefix, cells, samples)] if cells else [own]
    if value["answer_negated"] is not None or (negated and not cells):
        answer = value["answer_negated"]
        records.append(
            Record(
                example,
                f"{prefix}{NEGATED}",
                None if answer is None else read_generation("answer_negated", answer),
                () if cells else negated,
            )
        )
    if cells and negated:
        records += _under(example, f"{prefix}{NEGATED}+", cells, negated)
    return tuple(records)


def _under(
    example: Example, prefix: str, cells: Sequence[str], answers: Sequence[Generation]
) -> list[Record]:
    """One record a condition; a single answer is its greedy one, several are draws."""
    draws = len(answers) // len(cells)
    if draws * len(cells) != len(answers) or not answers:
        raise DataError(f"{len(answers)} samples do not divide into {len(cells)} conditions")
    out = []
    for i, cell in enumerate(cells):
        here = tuple(answers[i * draws : (i + 1) * draws])
        if draws == 1:
            out.append(Record(example, prefix + cell, here[0]))
        else:
            out.append(Record(example, prefix + cell, samples=here))
    return out


def _cells(value: Mapping[str, Any], n_samples: int) -> tuple[str, ...]:
    """The conditions that the samples were recorded under, in order; none for plain samples.

    They are named by ``sample_cells``, or in square brackets in ``samples_layout`` when there are
    as many names as samples.
    """
    names: Any = read_structured(value["sample_cells"])
    if names is None and isinstance(value["samples_layout"], str):
        listed = _VERSIONS.search(value["samples_layout"])
        names = listed[1].split(",") if listed is not None else []
        names = names if len(names) == n_samples > 1 else None
    if names is None:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"sample_cells is {shown(names)}, not a list of names")
    cells = tuple(_cell(name) for name in names)
    if len(set(cells)) != len(cells) or not cells:
        raise DataError(f"{len(cells)} sample_cells of which {len(set(cells))} are different")
    return cells


def _cell(name: str) -> str:
    parts = []
    for part in re.split(r"[|+]", name.strip()):
        levelled = _CELL.fullmatch(part.strip())
        if levelled is not None:
            parts.append(f"{levelled[1]}:{levelled[2]}")
        elif _CONDITION.fullmatch(part.strip()) and ":" in part:
            parts.append(part.strip())
        else:
            parts.append("view:" + (re.sub(r"[^\w.-]+", "_", part.strip()) or "_"))
    return "+".join(parts)


def _condition(value: Any) -> str:
    if value is None:
        return CLEAN
    if not isinstance(value, str) or _CONDITION.fullmatch(value) is None:
        raise DataError(f"the condition is {shown(value)}, not clean, blank or family:level")
    return value


def _greedy(
    value: Mapping[str, Any], example: Example, scores: Float[np.ndarray, " c"] | None
) -> Generation | None:
    """The recorded answer; where only choices were scored, the letter of the highest."""
    if value["answer"] is None:
        options = value["option_logprobs"]
        best = (
            scores if scores is not None else options and read_numbers("option_logprobs", options)
        )
        return None if best is None else Generation(example.letters[int(np.argmax(best))])
    names = ("tokens", "token_ids", "token_logprobs", "finish_reason", "reasoning")
    if not isinstance(value["answer"], Mapping):
        return read_generation("answer", {"text": value["answer"]} | {n: value[n] for n in names})
    return read_generation("answer", value["answer"])


def _choices(
    row: Mapping[str, Any], value: Mapping[str, Any]
) -> tuple[set[str], tuple[str, ...] | None]:
    """Columns A, B, … that were read, and the option texts; a letter without a text gets none."""
    raw, columns = read_structured(value["choices"]), set[str]()
    if raw is None and row.get("A") is not None and row.get("B") is not None:
        columns = {letter for letter in choice_letters(26) if letter in row}
        raw = {letter: row[letter] for letter in columns if row[letter] is not None}
    if raw is None:
        return columns, None
    if isinstance(raw, Mapping):
        by_letter = {str(key).upper(): item for key, item in raw.items()}
        if not by_letter or not by_letter.keys() <= _LETTERS.keys():
            raise DataError(f"choices keyed {shown(list(raw))}, not A, B, C, …")
        last = max(_LETTERS[letter] for letter in by_letter)
        raw = [by_letter.get(letter, "") for letter in choice_letters(last + 1)]
    if not isinstance(raw, list) or not 2 <= len(raw) <= MAX_CHOICES:
        raise DataError(f"the choices are {shown(raw)}, not a list of 2 to {MAX_CHOICES}")
    return columns, tuple(read_text("a choice", item).strip() for item in raw)


def _letter_logprobs(
    value: Mapping[str, Any], choices: tuple[str, ...] | None
) -> Float[np.ndarray, " c"] | None:
    """Log-probabilities of the letters; the tool's own probabilities come before its logits."""
    name = next(
        (n for n in ("choice_probs", "choice_logprobs", "choice_logits") if value[n] is not None),
        None,
    )
    if name is None:
        return None
    raw = read_structured(value[name])
    if isinstance(raw, Mapping):
        letters = choice_letters(len(choices) if choices is not None else len(raw))
        if set(raw) - set(letters) or set(letters) - set(raw):
            raise DataError(f"{name} keyed {shown(sorted(raw))}, not the letters of the choices")
        raw = [raw[letter] for letter in letters]
    scores = read_numbers(name, raw)
    if choices is not None and len(scores) != len(choices):
        raise DataError(f"{name} has {len(scores)} values for {len(choices)} choices")
    if len(scores) < 2:
        raise DataError(f"{name} has {len(scores)} value(s), not one for each choice")
    if name == "choice_logits":
        shifted = scores - scores.max()
        return np.asarray(np.minimum(shifted - np.log(np.exp(shifted).sum()), 0.0))
    if name == "choice_logprobs":
        return read_logprobs(name, scores)
    if (scores < 0).any() or not 0 < scores.sum() <= 1.001:
        raise DataError(f"choice_probs that sum to {scores.sum():g}; they are no probabilities")
    return np.asarray(np.log(np.clip(scores, PROBABILITY_FLOOR, 1.0)))


def _references(value: Any, choices: tuple[str, ...] | None) -> tuple[str, ...]:
    value = read_structured(value)
    items = value if isinstance(value, list) else [value]
    items = [item.get("answer") if isinstance(item, Mapping) else item for item in items]
    texts = [read_text("a reference", item).strip() for item in items if item is not None]
    texts = [text for text in texts if text]
    return tuple(texts) if choices is None else tuple(_letter(text, choices) for text in texts)


def _letter(text: str, choices: tuple[str, ...]) -> str:
    """The letter a reference stands for: a letter, an option's text, or a 0-based index."""
    letters = choice_letters(len(choices))
    if text in letters:
        return text
    named = parse_choice(text, choices)
    if named is None and text.isdecimal() and len(text) < 4 and text not in choices:
        named = dict(enumerate(letters)).get(int(text))
    if named is None:
        raise DataError(f"the reference {shown(text)} is not one of the {len(choices)} choices")
    return named


def _question(question: Any, context: Any) -> str:
    text = "" if question is None else read_text("the question", question).strip()
    if not text:
        raise DataError("no question")
    about = "" if context is None else read_text("the context", context).strip()
    return f"{about}\n{text}" if about else text


def _images(value: Any) -> tuple[tuple[str, ...], bool]:
    """Paths, and whether an image was embedded instead."""
    value = read_structured(value)
    items = value if isinstance(value, list) else [] if value is None else [value]
    paths = [i for i in items if isinstance(i, str) and len(i) < 1024 and not i.startswith("data:")]
    return tuple(path for path in paths if path.strip()), len(paths) < len(items)


def _meta(rest: Mapping[str, Any]) -> tuple[dict[str, Scalar], list[str]]:
    meta: dict[str, Scalar] = {}
    unused = []
    for name, item in rest.items():
        small = isinstance(item, str) and len(item) <= 200
        number = isinstance(item, int | float) and abs(item) < 2**63  # NaN is not
        if (small or number) and name not in _FULL_TEXT:
            meta[str(name)] = item
        elif item is not None:
            unused.append(str(name))
    return meta, unused


def _derived_id(question: str, images: tuple[str, ...], choices: tuple[str, ...] | None) -> str:
    parts = json.dumps([question, images, choices]).encode("ascii")
    return hashlib.sha256(parts).hexdigest()[:24]
