"""Untrusted JSON: single texts, and files that hold a list of objects.

VQA v2 comes as two files, the questions and, beside them, ten answers to each; they are read as one
list.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError

MAX_JSON_BYTES = 512 * 1024 * 1024
"""Largest JSON file that is read: unlike JSONL, it is held in memory whole."""

_LISTS = ("questions", "data", "rows", "examples")
_TASK = re.compile("(?:OpenEnded|MultipleChoice)_")
_VOTE = {"answer", "answer_confidence", "answer_id"}

Pairs = list[tuple[str, Any]]


def parse_json(text: str | bytes, build: Callable[[Pairs], Any] | None = None) -> Any:
    """Parses untrusted JSON.

    Args:
        text: The document.
        build: Makes a value of an object's keys and values; a dictionary if None.

    Raises:
        ValueError: Not JSON, nested too deeply, a key twice in one object, an integer of thousands
            of digits, or half of a surrogate pair; the message says which.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=build or _unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    except _DoubleKeyError:
        raise
    except ValueError:
        raise ValueError("a whole number of thousands of digits, which is not read") from None
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair, which is no character") from None
    return value


class _DoubleKeyError(ValueError):
    """A key that comes twice in one object."""


def _unique(pairs: Pairs) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        double = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _DoubleKeyError(f"key {double[:40]!r} twice in one object")
    return fields


def _votes_as_texts(pairs: Pairs) -> Any:
    """One of VQA's ten answers as its text: two million of them are in memory at once."""
    fields = _unique(pairs)
    if fields.keys() == _VOTE and isinstance(fields["answer"], str):
        return sys.intern(fields["answer"])
    return fields


def json_items(path: Path) -> Iterator[Any]:
    """Yields the items of a JSON list, or of the one list in a JSON object.

    Items under ``questions`` get the fields of the annotation with their ``question_id``, from the
    object's own ``annotations`` or from the file beside it that VQA v2 names like it, and the
    object's ``data_subtype``, by which their images are found.

    Raises:
        DataError: The file is too large, no JSON, or of another form.
    """
    content = _read(path)
    if isinstance(content, list):
        yield from content
        return
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds one JSON {type(content).__name__}; a list of objects is required. "
            "Wrap the rows in [ ]."
        )
    name = next((name for name in _LISTS if isinstance(content.get(name), list)), None)
    if name is None:
        raise DataError(
            f"{path} is a JSON object with keys {list(content)[:8]}; a list of objects, or one "
            f"list under {', '.join(_LISTS)}, is required. Move the rows there."
        )
    if name == "questions":
        yield from _answered(path, content)
    else:
        yield from content[name]


def _answered(path: Path, content: dict[str, Any]) -> Iterator[Any]:
    """The questions, each with what its annotation says."""
    questions = content["questions"]
    annotations, beside = content.get("annotations"), None
    if not isinstance(annotations, list) and _is_vqa(questions):
        beside = annotations_beside(path)
        annotations = None if beside is None else _annotations(beside)
    known = {
        str(item["question_id"]): item
        for item in annotations or ()
        if isinstance(item, dict) and "question_id" in item
    }
    ids = (str(item.get("question_id")) for item in questions if isinstance(item, dict))
    if beside is not None and not any(identity in known for identity in ids):
        raise DataError(
            f"{beside} answers none of the questions of {path}; files of the same part of the data "
            "set are required. Put the right one there, or move it away to collect without."
        )
    subtype = content.get("data_subtype")
    shared = {"data_subtype": subtype} if isinstance(subtype, str) else {}
    for item in questions:
        if isinstance(item, dict):
            yield shared | known.get(str(item.get("question_id")), {}) | item
        else:
            yield item


def _is_vqa(questions: list[Any]) -> bool:
    first = questions[0] if questions else None
    return isinstance(first, dict) and {"question_id", "image_id"} <= first.keys()


def annotations_beside(questions: Path) -> Path | None:
    """The file of answers that VQA distributes with a file of questions, if it is there.

    ``v2_OpenEnded_mscoco_val2014_questions.json`` goes with
    ``v2_mscoco_val2014_annotations.json``; a name that keeps the task is found as well.
    """
    if "questions" not in questions.name:
        return None
    name = questions.name.replace("questions", "annotations")
    beside = (questions.with_name(_TASK.sub("", name)), questions.with_name(name))
    return next((path for path in beside if path.is_file()), None)


def _annotations(path: Path) -> list[Any]:
    content = _read(path, _votes_as_texts)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise DataError(
            f"{path} has no list under annotations; VQA's answers are required there. Correct the "
            "file, or move it away to collect without."
        )
    return annotations


def _read(path: Path, build: Callable[[Pairs], Any] | None = None) -> Any:
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise DataError(
            f"{path} has {size} bytes; a JSON file is read whole and may have {MAX_JSON_BYTES}. "
            "Write one object a line as JSONL, which is streamed."
        )
    try:
        return parse_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), build)
    except ValueError as error:
        raise DataError(
            f"{path} is {error}; a JSON list of objects is required. Correct the file."
        ) from None
