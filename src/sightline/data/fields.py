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
from sightline.data.readers import parse_json

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "id": ("id", "question_id", "questionId", "qid", "index", "sample_id", "custom_id"),
        "image": ("image", "images", "image_path", "image_file", "file_name", "filename", "img"),
        "question": ("question", "query", "prompt"),
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

    An answer to a multiple-choice question may be a letter, the text of exactly one choice, or a
    0-based index. An integer is an index, unless the choices themselves are numbers; text of digits
    is a choice's text where one matches, else an index.

    Args:
        row: Values by column name.
        columns: Column to use for a field, instead of `ALIASES`.

    Raises:
        DataError: The row has no question, or a value that cannot be used; the message is a short
            reason.
    """
    row = flatten_chat(row)
    names = {
        field: next((n for n in named if row.get(n) is not None), None)
        for field, aliases in ALIASES.items()
        for named in [(columns[field],) if field in columns else aliases]
    }
    value = {field: row[name] if name is not None else None for field, name in names.items()}
    used = {name for name in names.values() if name is not None}

    lettered = {} if value["choices"] is not None else _letter_columns(row)
    used |= set(lettered.values())
    raw_choices = value["choices"]
    if lettered:
        raw_choices = {letter: row[name] for letter, name in lettered.items()}
    choices = _choices(raw_choices)

    numbered = [] if value["image"] is not None else _image_columns(row)
    used |= set(numbered)
    images = _image_list(value["image"]) or tuple(
        row[name] for name in numbered if row[name] is not None
    )
    if not images and _has_image_column(row, columns, numbered):
        raise DataError("the image is empty; leave the column out for questions without images")

    meta: dict[str, Scalar] = {}
    ignored = []
    for name, item in row.items():
        if name in used or item is None:
            continue
        if _is_meta(item):
            meta[str(name)] = item
        else:
            ignored.append(str(name))
    return Fields(
        id=_label("id", value["id"]),
        question=_question(value["question"], value["context"]),
        images=images,
        choices=choices,
        references=_references(value["answer"], choices, raw_choices),
        group=_label("group", value["group"]),
        question_type=_label("question type", value["question_type"]),
        meta=MappingProxyType(meta),
        ignored=tuple(ignored),
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
        for part in (
            [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        ):
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
    if not question.strip():
        raise DataError("the question is empty")
    text = question.strip()
    if isinstance(context, str) and context.strip():
        text = f"{context.strip()}\n{text}"
    elif context is not None and not isinstance(context, str):
        raise DataError(f"the context is {shown(context)}, not text")
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
    text = str(value).strip()
    if not text:
        raise DataError(f"the {what} is empty")
    return text


def _letter_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """Columns A, B, … or choice_a, choice_b, … or option_a, …; at least A and B."""
    found: dict[str, str] = {}
    for name in row:
        match = _LETTER_COLUMN.fullmatch(str(name))
        if match is not None and (len(name) > 1 or name.isupper()):
            found.setdefault(match[1].upper(), name)
    return found if {"A", "B"} <= set(found) else {}


def _choices(raw: Any) -> tuple[str, ...] | None:
    if raw is None:
        return None
    raw = _parsed(raw)
    if isinstance(raw, Mapping):
        keys = sorted((str(key) for key in raw), key=lambda key: (len(key), key))
        by_letter = {str(key).upper(): item for key, item in raw.items()}
        letters = list(choice_letters(len(keys))) if len(keys) <= MAX_CHOICES else []
        if [key.upper() for key in keys] != letters:
            raise DataError(f"choices keyed {shown(keys)}, not A, B, C, …")
        raw = [by_letter[letter] for letter in letters]
    if not isinstance(raw, list):
        raise DataError(f"the choices are {shown(raw)}, not a list")
    texts = list(raw)
    while texts and _is_blank(texts[-1]):
        texts.pop()
    if not texts:
        return None
    if any(_is_blank(text) or not isinstance(text, (str, int, float)) for text in texts):
        raise DataError(f"choices {shown(texts)} with an entry that is no text")
    if not 2 <= len(texts) <= MAX_CHOICES:
        raise DataError(f"{len(texts)} choice(s), not 2 to {MAX_CHOICES}")
    return tuple(_text(text) for text in texts)


def _references(value: Any, choices: tuple[str, ...] | None, raw_choices: Any) -> tuple[str, ...]:
    value = _parsed(value)
    items = value if isinstance(value, list) else [value]
    answers: list[Any] = [item.get("answer") if isinstance(item, dict) else item for item in items]
    answers = [answer for answer in answers if not _is_blank(answer)]
    for answer in answers:
        if not isinstance(answer, (str, int, float)):
            raise DataError(f"the answer is {shown(answer)}, neither text nor a number")
    if choices is None:
        return tuple(_text(answer) for answer in answers)
    raw = _parsed(raw_choices)
    listed = list(raw.values()) if isinstance(raw, Mapping) else raw
    numeric = all(isinstance(item, (int, float)) for item in listed if not _is_blank(item))
    return tuple(_letter(answer, choices, numeric=numeric) for answer in answers)


def _letter(answer: str | float, choices: tuple[str, ...], *, numeric: bool) -> str:
    letters = choice_letters(len(choices))
    folded = [" ".join(choice.split()).casefold() for choice in choices]
    text = " ".join(_text(answer).split())
    same = [
        letter for letter, choice in zip(letters, folded, strict=True) if choice == text.casefold()
    ]
    if isinstance(answer, str):
        lettered = _LETTERED.fullmatch(text)
        named = lettered[1].upper() if lettered is not None else None
        if named in letters:
            if same and same != [named]:
                raise DataError(f"the answer {shown(answer)} is both a letter and another choice")
            return named
    elif not numeric:
        same = []
    if len(same) > 1:
        raise DataError(f"the answer {shown(answer)} is the text of several choices")
    if same:
        return same[0]
    if text.isdecimal() and int(text[:6]) < len(choices) and len(text) < 6:
        return letters[int(text)]
    raise DataError(f"the answer {shown(answer)} is none of the {len(choices)} choices")


def _text(value: str | float) -> str:
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
    matches = [(name, _IMAGE_COLUMN.fullmatch(str(name))) for name in row]
    return [n for n, m in sorted(matches, key=lambda p: int(p[1][1]) if p[1] else 0) if m]


def _has_image_column(
    row: Mapping[str, Any], columns: Mapping[str, str], numbered: list[str]
) -> bool:
    names = (columns["image"],) if "image" in columns else ALIASES["image"]
    return bool(numbered) or any(name in row for name in names)


def _is_meta(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_META_CHARS
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and -_INT64 <= value < _INT64
