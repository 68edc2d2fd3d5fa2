"""Which tool wrote a file, and its rows in the names that `import_rows` knows."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sightline.core.errors import DataError, UsageError
from sightline.core.printing import printable
from sightline.core.types import choice_letters
from sightline.data.readers import SUFFIXES, Row, read_rows
from sightline.store.import_lmms_eval import is_lmms_eval, lmms_eval_names, lmms_eval_row
from sightline.store.import_rows import NAMES
from sightline.store.import_spool import UNNAMED
from sightline.store.import_vlmevalkit import (
    is_vlmevalkit,
    read_workbook,
    vlmevalkit_names,
    vlmevalkit_row,
)
from sightline.store.layout import looking_at

_LOOKED_AT = 50
_SIGNALS = ("answer", "samples", "choice_logits", "choice_logprobs", "choice_probs")


@dataclass(frozen=True, slots=True)
class Source:
    """An opened file.

    Attributes:
        format: The reader's name.
        rows: Its rows in the names of `NAMES`.
        model: Name of the model of rows that name none.
        dataset: Name of the data set of rows that name none.
    """

    format: str
    rows: Iterator[Row]
    model: str
    dataset: str


def open_source(path: Path, format: str, known: Sequence[str]) -> Source:  # noqa: A002
    """Opens a file by the named reader, or by the one that its content fits.

    Raises:
        UsageError: The reader is unknown.
        DataError: The file is missing, or no reader fits it; the message says what was found.
    """
    if format not in known:
        raise UsageError(
            f"Import format {format!r} is unknown; one of {', '.join(known)} is required. "
            "See 'sightline import --formats'."
        )
    with looking_at(path):
        is_file = path.is_file()
    if not is_file:
        raise DataError(f"{path} is not a file; a file of outputs is required. Correct the path.")
    found = detect(path) if format == "auto" else format
    if found == "logits":
        return Source(found, _logits(path), UNNAMED, path.stem)
    rows = read_workbook(path) if path.suffix.lower() == ".xlsx" else read_rows(path)
    if found == "lmms-eval":
        return Source(found, _renamed(rows, lmms_eval_row), *lmms_eval_names(path))
    if found == "vlmevalkit":
        return Source(found, _renamed(rows, vlmevalkit_row), *vlmevalkit_names(path))
    return Source(found, rows, UNNAMED, path.stem)


def detect(path: Path) -> str:
    """Name of the reader that fits the file's content.

    Raises:
        DataError: None does.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return "logits"
    if suffix == ".xlsx":
        return "vlmevalkit"
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path} has the unknown suffix {suffix!r}; one of {', '.join(SUFFIXES)}, .xlsx, .npz "
            "is required. Convert or rename the file."
        )
    names: dict[str, None] = {}
    unreadable = ""
    for row in islice(read_rows(path), _LOOKED_AT):
        names |= dict.fromkeys(str(name) for name in row.fields)
        unreadable = unreadable or (row.error and f"{row.where}: {row.error}") or ""
    if is_lmms_eval(names):
        return "lmms-eval"
    if is_vlmevalkit(names):
        return "vlmevalkit"
    if any(name in names for signal in _SIGNALS for name in NAMES[signal]):
        return "rows"
    listed = ", ".join(printable(name) for name in islice(names, 20)) or "no readable row"
    raise DataError(
        f"{path} holds {listed}{f' ({unreadable})' if unreadable else ''}; an answer, samples, "
        "choice_logits or choice_probs in each row, or the log of a known tool, is required. "
        "Rename the columns, or name the tool with --format."
    )


def _renamed(
    rows: Iterator[Row], rename: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Iterator[Row]:
    for row in rows:
        if row.error is not None:
            yield row
            continue
        try:
            fields = rename(row.fields)
        except DataError as error:
            yield Row(row.where, row.fields, str(error))
            continue
        yield Row(row.where, fields)


def _logits(path: Path) -> Iterator[Row]:
    """Rows of an NPZ of option logits; the answer is the letter of the highest logit.

    It holds ``models`` (m,), ``ids`` (n,), ``logits`` (m, n, c), and optionally ``group`` (n,) and
    ``answer_index`` (n,). It has no questions, so each row's question says so, with its id: rows
    of one group are then not taken for rotations, which cannot be told without the option texts.

    Raises:
        DataError: An array is missing or of another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        raise DataError(
            f"{path} is not a readable NPZ file; arrays without Python objects are required. "
            "Write it again."
        ) from None
    shapes = {name: array.shape for name, array in arrays.items()}
    logits = arrays.get("logits", np.empty(0))
    models, items = (*logits.shape, 0, 0)[:2]
    wanted = {"models": (models,), "ids": (items,)}
    wanted |= {name: (items,) for name in ("group", "answer_index") if name in arrays}
    is_shaped = logits.ndim == 3 and all(shapes.get(n) == shape for n, shape in wanted.items())
    is_numeric = logits.dtype.kind in "fiu" and (
        "answer_index" not in arrays or arrays["answer_index"].dtype.kind in "iu"
    )
    if not (is_shaped and is_numeric):
        raise DataError(
            f"{path} holds arrays {shapes}; models (m,), ids (n,) and numbers logits (m, n, c) are "
            "required. Rename or reshape them."
        )
    letters = choice_letters(logits.shape[2])
    ids = [str(item) for item in arrays["ids"]]
    for name, scores in zip(arrays["models"], logits, strict=True):
        for i, item in enumerate(ids):
            fields: dict[str, Any] = {
                "id": item,
                "model": str(name),
                "question": f"(item {item}; its text was not recorded)",
                "choice_logits": [float(value) for value in scores[i]],
            }
            if "group" in arrays:
                fields["group"] = str(arrays["group"][i])
            index = int(arrays["answer_index"][i]) if "answer_index" in arrays else -1
            if 0 <= index < len(letters):
                fields["references"] = [letters[index]]
            yield Row(f"{name} item {item}", fields)
