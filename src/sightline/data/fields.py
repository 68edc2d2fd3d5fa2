"""What the columns of a row mean: question, choices, references and the rest.

Column names are recognised by `ALIASES`; a caller can name any other column for a field.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sightline.core.errors import DataError, UsageError
from sightline.core.types import Scalar, choice_letters
from sightline.data.json_files import parse_json

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "id": ("id", "question_id", "questionId", "qid", "index", "sample_id", "custom_id"),
        "image": ("image", "images", "image_path", "image_file", "file_name", "filename", "img"),
        "question": ("question", "query", "prompt", "text"),
        "choices": ("choices", "options"),
        "answer": ("references", "answers", "answer", "label", "target"),
        "group": ("group", "group_id"),
        "question_type": ("question_type", "category", "type"),
        "context": ("context", "hint"),
    }
)
"""Recognised column names of each field; the first one that a row has is used."""

MAX_QUESTION_CHARS = 1_000_000
MAX_META_CHARS = 10_000
MAX_LITERAL_CHARS = 100_000
MAX_CHOICES = 702  # A to ZZ

_LETTER_COLUMN = re.compile(r"(?:choice_|option_)?([A-Za-z])")
_IMAGE_COLUMN = re.compile(r"image_?([0-9]{1,3})")
_LETTERED = re.compile(r"\(?([A-Za-z]{1,2})\)?[.:]?")
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Fields:
    """A row's values by meaning; images are still as written in the row.

    Attributes:
        id: The given id, or None.
        question: With the context, if any, on the lines before it.
        images: Image values in order: paths, data URLs, base64, bytes or structs.
        choices: Option texts in letter order, or None.
        references: Accepted answers; letters where there are choices.
        group: The given group, or None.
        question_type: The given type, or None.
        meta: The remaining scalar columns.
        ignored: Names of the remaining columns whose value is not a scalar.
    """

    id: str | None
    question: str
    images: tuple[Any, ...]
    choices: tuple[str, ...] | None
    references: tuple[str, ...]
    group: str | None
    question_type: str | None
    meta: Mapping[str, Scalar]
    ignored: tuple[str, ...]


def check_columns(columns: Mapping[str, str]) -> None:
    """Requires that every renamed field exists.

    Raises:
        UsageError: A field is unknown.
    """
    unknown = sorted(set(columns) - set(ALIASES))
    if unknown:
        raise UsageError(
            f"Column mapping for the unknown field {unknown[0]!r}; one of {', '.join(ALIASES)} is "
            "required. Write FIELD=COLUMN."
        )


def interpret(row: Mapping[str, Any], columns: Mapping[str, str]) -> Fields:
    """Reads the meaning of one row.

    An answer to a multiple-choice question may be a label of a choice (its letter, where the row
    has no labels), the text of exactly one choice, or a 0-based index. An integer is an index,
    unless the choices themselves are numbers; text of digits is a choice's text where one matches,
    else an index. Blank choices are left out, so letters can differ from the row's labels.
    Empty text and NaN, as tables write missing values, count as absent everywhere.

    Args:
        row: Values by column name.
        columns: Column to use for a field, instead of `ALIASES`.

    Raises:
        DataError: The row has no question, or a value that cannot be used; the message is a short
            reason.
    """
    given = flatten_chat(row)
    row = {str(name): item for name, item in given.items() if not _is_blank(item)}
    names = {
        field: next((n for n in named if n in row), None)
        for field, aliases in ALIASES.items()
        for named in [(columns[field],) if field in columns else aliases]
    }
    value = {field: row[name] if name is not None else None for field, name in names.items()}
    used = {name for name in names.values() if name is not None}

    raw_choices = value["choices"]
    if raw_choices is None:
        lettered = _letter_columns(given)
        used |= set(lettered.values())
        raw_choices = {letter: given[name] for letter, name in lettered.items()} or None
    options = _options(raw_choices)

    numbered = [] if value["image"] is not None else _image_columns(row)
    used |= set(numbered)
    images = _image_list(value["image"]) or tuple(row[name] for name in numbered)
    named = {columns["image"]} if "image" in columns else {*ALIASES["image"]}
    if not images and (named & set(given) or _image_columns(given)):
        raise DataError("the image is empty; leave the column out for questions without images")

    question_type = value["question_type"]
    if isinstance(question_type, (list, dict)):
        used.remove(str(names["question_type"]))
        question_type = None
    rest = {name: item for name, item in row.items() if name not in used}
    return Fields(
        id=_label("id", value["id"]),
        question=_question(value["question"], value["context"]),
        images=images,
        choices=None if options is None else options.texts,
        references=_references(value["answer"], options),
        group=_label("group", value["group"]),
        question_type=_label("question type", question_type),
        meta=MappingProxyType({name: item for name, item in rest.items() if _is_meta(item)}),
        ignored=tuple(name for name, item in rest.items() if not _is_meta(item)),
    )


def flatten_chat(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Turns an OpenAI batch row (``body.messages`` or ``messages``) into a plain one.

    System and user texts become the question, in order and on their own lines; image parts become
    the images. Other rows are returned as they are.

    Raises:
        DataError: The messages are malformed or hold an earlier answer of a model.
    """
    body = row.get("body")
    messages = body.get("messages") if isinstance(body, dict) else row.get("messages")
    if not isinstance(messages, list) or "question" in row:
        return row
    texts: list[str] = []
    images: list[Any] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user"):
            raise DataError(f"a message of role {shown(role)}; only system and user are read")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise DataError(f"a message with content {shown(content)}, neither text nor parts")
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif kind == "image_url":
                url = part.get("image_url")
                images.append(url.get("url") if isinstance(url, dict) else url)
            else:
                raise DataError(f"a message part of type {shown(kind)}; only text and image_url")
    rest = {k: v for k, v in row.items() if k not in ("body", "messages", "method", "url")}
    flat = rest | {"question": "\n".join(texts)}
    return flat | {"images": images} if images else flat


def shown(value: Any, limit: int = 60) -> str:
    """Returns a short, printable form of an untrusted value."""
    text = repr(value[:limit] if isinstance(value, (str, bytes, list)) else value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _question(question: Any, context: Any) -> str:
    if question is None:
        raise DataError("no question")
    if not isinstance(question, str):
        raise DataError(f"the question is {shown(question)}, not text")
    if context is not None and not isinstance(context, str):
        raise DataError(f"the context is {shown(context)}, not text")
    text = question.strip() if context is None else f"{context.strip()}\n{question.strip()}"
    if len(text) > MAX_QUESTION_CHARS:
        raise DataError(f"the question has {len(text)} characters, over {MAX_QUESTION_CHARS}")
    return text


def _label(what: str, value: Any) -> str | None:
    """Ids, groups and types: text, or a whole number written as one."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"the {what} is {shown(value)}, neither text nor a whole number")
    return str(value).strip()


def _letter_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """Columns A, B, … or choice_a, choice_b, … or option_a, …; at least A and B."""
    found: dict[str, str] = {}
    for name in row:
        match = _LETTER_COLUMN.fullmatch(str(name))
        if match is not None and (len(name) > 1 or name.isupper()):
            found.setdefault(match[1].upper(), name)
    return found if {"A", "B"} <= set(found) else {}


@dataclass(frozen=True, slots=True)
class _Options:
    """Choices as the row gives them, blank ones left out.

    Attributes:
        texts: In the row's order; labelled by single letters, in theirs.
        labels: The row's own labels, or letters where it has none.
        indices: Positions before blank ones were left out.
        labelled: Whether the row has labels of its own.
        numeric: Whether every choice is a number.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    labelled: bool
    numeric: bool


def _options(raw: Any) -> _Options | None:
    """Reads a list of texts, or texts by label."""
    raw = _parsed(raw)
    if raw is None:
        return None
    if isinstance(raw, Mapping):
        labelled = [(str(label).strip().upper(), text) for label, text in raw.items()]
        if all(len(label) == 1 and label.isalpha() for label, _ in labelled):
            labelled.sort(key=lambda pair: pair[0])
    elif isinstance(raw, list) and len(raw) <= MAX_CHOICES:
        labelled = list(zip(choice_letters(len(raw)), raw, strict=True))
    else:
        raise DataError(f"the choices are {shown(raw)}, not a list of at most {MAX_CHOICES}")
    indices = tuple(i for i, (_, text) in enumerate(labelled) if not _is_blank(text))
    if not indices:
        return None
    labels, texts = zip(*(labelled[i] for i in indices), strict=True)
    if any(not isinstance(text, (str, int, float)) for text in texts):
        raise DataError(f"the choices are {shown(list(texts))}, not all of them text")
    if not 2 <= len(set(labels)) == len(labels) <= MAX_CHOICES:
        raise DataError(
            f"choices labelled {shown(list(labels))}; at least 2, all different, needed"
        )
    numeric = not any(isinstance(text, (str, bool)) for text in texts)
    return _Options(tuple(map(_text, texts)), labels, indices, isinstance(raw, Mapping), numeric)


def _references(value: Any, options: _Options | None) -> tuple[str, ...]:
    value = _parsed(value)
    items = value if isinstance(value, list) else [value]
    answers: list[Any] = [i.get("answer") if isinstance(i, dict) else i for i in items]
    answers = [answer for answer in answers if not _is_blank(answer)]
    for answer in answers:
        if not isinstance(answer, (str, int, float)):
            raise DataError(f"the answer is {shown(answer)}, neither text nor a number")
    if options is None:
        return tuple(_text(answer) for answer in answers)
    letters = choice_letters(len(options.texts))
    return tuple(letters[_choice_index(answer, options)] for answer in answers)


def _choice_index(answer: str | int | float, options: _Options) -> int:
    text = " ".join(_text(answer).split())
    folded = [" ".join(choice.split()).casefold() for choice in options.texts]
    same = [i for i, choice in enumerate(folded) if choice == text.casefold()]
    if isinstance(answer, str):
        lettered = _LETTERED.fullmatch(text)
        named = lettered[1].upper() if lettered is not None else text.upper()
        if named in options.labels:
            index = options.labels.index(named)
            if not options.labelled and same and same != [index]:
                raise DataError(f"the answer {shown(answer)} is both a letter and another choice")
            return index
    elif not options.numeric:
        same = []
    if len(same) > 1:
        raise DataError(f"the answer {shown(answer)} is the text of several choices")
    if same:
        return same[0]
    if re.fullmatch("[0-9]{1,4}", text) and int(text) in options.indices:
        return options.indices.index(int(text))
    raise DataError(f"the answer {shown(answer)} is none of the {len(options.texts)} choices")


def _text(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _is_blank(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return value is None or (isinstance(value, str) and not value.strip())


def _parsed(value: Any) -> Any:
    """Undoes the text form that tables give lists and dicts: JSON, or Python's own."""
    if not isinstance(value, str):
        return list(value) if isinstance(value, tuple) else value
    text = value.strip()
    if not text.startswith(("[", "{")) or len(text) > MAX_LITERAL_CHARS:
        return value
    try:
        parsed = parse_json(text)
    except ValueError:
        try:
            parsed = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return value
    return parsed if isinstance(parsed, (list, dict)) else value


def _image_list(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError:
            # Tables made with pandas write lists as Python does; base64 and paths need no escapes.
            value = re.findall(r"'([^']*)'|\"([^\"]*)\"", value)
            value = [single or double for single, double in value]
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return () if value is None else (value,)


def _image_columns(row: Mapping[str, Any]) -> list[str]:
    """Columns image_1, image_2, …, in the order of their numbers."""
    numbers = {name: m[1] for name in row if (m := _IMAGE_COLUMN.fullmatch(str(name)))}
    return sorted(numbers, key=lambda name: int(numbers[name]))


def _is_meta(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_META_CHARS
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and -_INT64 <= value < _INT64
