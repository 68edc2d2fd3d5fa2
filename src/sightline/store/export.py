"""A run's rows for other tools, and the sheet on which people label answers.

CSV is for spreadsheets: no cell can start a formula, and control, bidirectional and invisible
characters are shown as escapes. JSONL is exact.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sightline.core.column import Column, ColumnKind
from sightline.core.condition_names import CLEAN
from sightline.core.errors import DataError
from sightline.core.printing import printable
from sightline.core.types import Example, Generation, Key
from sightline.store.rows import STATUS
from sightline.store.run import RunStore

LABELS = "labels"
CSV_FIELDS = (
    "id",
    "condition",
    "group",
    "question_type",
    "question",
    "images",
    "choices",
    "references",
    "status",
    "reason",
    "answer",
    "finish_reason",
    "tokens",
    "logprob",
    "samples",
)
LABEL_FIELDS = (
    "id",
    "condition",
    "question",
    "images",
    "choices",
    "answer",
    "references",
    "correct",
)
MAX_CELL = 1 << 26
_FORMULA = re.compile(r"\s*[=+\-@|%\uff1d\uff0b\uff0d\uff20]")
_DECIMAL = re.compile(r"(?:0|1)?\.[0-9]{1,17}|[01]\.?")
_FRACTION = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_WORDS = {"true": 1.0, "false": 0.0}


def safe_cell(text: str) -> str:
    r"""Text that a spreadsheet shows and never runs.

    Example:
        >>> safe_cell("=1+1"), safe_cell("two\nlines"), safe_cell("3 dogs")
        ("'=1+1", 'two lines', '3 dogs')
    """
    formula = _FORMULA.match(text) is not None or text[:1] in ("\t", "\r", "\n")
    text = printable(text)
    return f"'{text}" if formula else text


def exported_rows(store: RunStore, *, condition: str | None = None) -> Iterator[dict[str, Any]]:
    """One mapping a row, quarantined and refused ones too: answers, samples, columns, no arrays.

    Args:
        store: The run.
        condition: Only rows of this condition; None gives all.
    """
    columns = {f"{kind.value}.{name}": _by_key(store, kind, name) for kind, name in store.columns()}
    examples = {example.id: example for example in store.examples()}
    for record in store.records(condition=condition, features=()):
        yield {
            **_example_fields(record.example, record.condition),
            "status": STATUS[record.truth],
            "reason": None,
            "answer": None if record.greedy is None else _generation_fields(record.greedy),
            "samples": [_generation_fields(sample) for sample in record.samples],
            **{name: values.get(record.key) for name, values in columns.items()},
        }
    for status, rows in (("error", store.quarantined()), ("refused", store.refused())):
        for row in rows:
            if condition in (None, row.key.condition):
                yield {
                    **_example_fields(examples[row.key.example_id], row.key.condition),
                    "status": status,
                    "reason": row.reason,
                    "answer": None,
                    "samples": [],
                    **{name: values.get(row.key) for name, values in columns.items()},
                }


def write_jsonl(store: RunStore, out: TextIO, *, condition: str | None = None) -> int:
    """Writes every row as one line of JSON, exactly as stored; returns their number.

    Numbers keep all digits; characters beyond ASCII are escaped, so that the file is inert in a
    terminal.
    """
    count = 0
    for row in exported_rows(store, condition=condition):
        out.write(json.dumps(row, allow_nan=False) + "\n")
        count += 1
    return count


def write_csv(store: RunStore, out: TextIO, *, condition: str | None = None) -> int:
    """Writes every row for a spreadsheet; returns their number."""
    columns = [f"{kind.value}.{name}" for kind, name in store.columns()]
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*CSV_FIELDS, *columns])
    count = 0
    for row in exported_rows(store, condition=condition):
        answer = row["answer"] or {}
        logprobs = answer.get("logprobs")
        flat = {
            **row,
            "answer": answer.get("text"),
            "finish_reason": answer.get("finish_reason"),
            "tokens": None if logprobs is None else len(logprobs),
            "logprob": None if logprobs is None else math.fsum(logprobs),
            "samples": [sample["text"] for sample in row["samples"]],
        }
        writer.writerow([_cell(flat[name]) for name in (*CSV_FIELDS, *columns)])
        count += 1
    return count


def write_label_sheet(store: RunStore, out: TextIO, *, condition: str = CLEAN) -> int:
    """Writes a CSV for people to fill in the last column; returns the number of answers."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(LABEL_FIELDS)
    count = 0
    for record in store.records(condition=condition, features=()):
        if record.greedy is None:
            continue
        fields = _example_fields(record.example, record.condition)
        cells = {**fields, "answer": record.greedy.text, "correct": None}
        writer.writerow([_cell(cells[name]) for name in LABEL_FIELDS])
        count += 1
    return count


def read_labels(path: Path, store: RunStore, *, name: str = LABELS) -> Column:
    """Reads a filled-in label sheet into a column of correctness.

    Rows whose ``correct`` cell is empty are left out; other columns of the sheet may be missing,
    reordered or edited. Accepted values: 0, 1, true, false, decimals in [0, 1], fractions (2/3).

    Raises:
        DataError: A row names no answer of the run, comes twice or has another value (with its
            line), no row is labelled, or the file is no CSV in UTF-8.
    """
    known: dict[tuple[str, str], Key] = {}
    shared = Counter[tuple[str, str]]()
    for record in store.records(features=()):
        if record.greedy is not None:
            shown = safe_cell(record.key.example_id), safe_cell(record.key.condition)
            known[shown] = record.key
            shared[shown] += 1
    labels: dict[Key, float] = {}
    for line, row in _sheet_rows(path):
        shown = row["id"], row.get("condition") or CLEAN
        text = row["correct"].strip().lower()
        if shown not in known:
            raise DataError(
                f"{path} line {line}: id {_clip(shown[0])} with condition {_clip(shown[1])} is no "
                f"answer of {store.path}; each row must name one answer of the run. Export the "
                "sheet again with 'sightline runs export --to-label'."
            )
        if text == "":
            continue
        if shared[shown] > 1:
            raise DataError(
                f"{path} line {line}: id {_clip(shown[0])} stands for {shared[shown]} answers "
                "whose ids look alike in a sheet; one is required. Give the examples other ids."
            )
        if known[shown] in labels:
            raise DataError(
                f"{path} line {line}: id {_clip(shown[0])} is labelled a second time; one label an "
                "answer is required. Remove one of the rows."
            )
        value = _label_value(text)
        if value is None:
            raise DataError(
                f"{path} line {line}: correct is {_clip(text)}; 0, 1, true, false or a fraction "
                "between them is required. Mend the cell, or empty it to leave the answer out."
            )
        labels[known[shown]] = value
    if not labels:
        raise DataError(
            f"{path} has no filled-in cell in its column 'correct'; at least one label is "
            "required. Fill in 1 for right and 0 for wrong."
        )
    return Column(
        name=name,
        kind=ColumnKind.CORRECT,
        keys=tuple(labels),
        values=np.array(list(labels.values())),
        spec={"grader": "labels", "source": printable(Path(path).name)},
    )


def _sheet_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); a label sheet is required. Check the path."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} has a byte that is not UTF-8 at {error.start}; a CSV in UTF-8 is required. "
            "In a spreadsheet, save it as 'CSV UTF-8'."
        ) from None
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    limit = csv.field_size_limit(MAX_CELL)
    try:
        reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip().lower() for name in next(reader, [])]
        absent = [name for name in ("id", "correct") if names.count(name) != 1]
        if absent:
            raise DataError(
                f"{path} has no single column {absent[0]!r} in its first line; a header with 'id' "
                "and 'correct' is required. Export the sheet again."
            )
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{path} line {reader.line_num}: {len(cells)} cells under {len(names)} column "
                    "names; one cell a column is required. Check the quotes around commas."
                )
            yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path} line {reader.line_num}: {error}; a CSV file is required. Export it again."
        ) from None
    finally:
        csv.field_size_limit(limit)


def _label_value(text: str) -> float | None:
    if text in _WORDS:
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        value = float(text)
    elif (parts := _FRACTION.fullmatch(text)) and int(parts[2]) > 0:
        value = int(parts[1]) / int(parts[2])
    else:
        return None
    return value if value <= 1 else None


def _example_fields(example: Example, condition: str) -> dict[str, Any]:
    return {
        "id": example.id,
        "condition": condition,
        "group": example.group,
        "question_type": example.question_type,
        "question": example.question,
        "images": [image.path for image in example.images],
        "choices": None if example.choices is None else list(example.choices),
        "references": list(example.references),
    }


def _generation_fields(generation: Generation) -> dict[str, Any]:
    return {
        "text": generation.text,
        "reasoning": generation.reasoning,
        "finish_reason": generation.finish_reason,
        "answer_start": generation.answer_start,
        "token_ids": None if generation.token_ids is None else generation.token_ids.tolist(),
        "tokens": None if generation.tokens is None else list(generation.tokens),
        "logprobs": None if generation.logprobs is None else generation.logprobs.tolist(),
    }


def _by_key(store: RunStore, kind: ColumnKind, name: str) -> Mapping[Key, float]:
    column = store.column(kind, name)
    return dict(zip(column.keys, column.values.tolist(), strict=True))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return safe_cell(json.dumps(value, ensure_ascii=False)) if value else ""
    return safe_cell(value) if isinstance(value, str) else repr(value)


def _clip(text: str, limit: int = 60) -> str:
    shown = printable(text)
    return repr(shown if len(shown) <= limit else shown[: limit - 1] + "…")
