"""Predictions and results of VLMEvalKit.

Each row has ``index``, ``question``, ``answer`` (the reference), ``prediction``, the options in
columns A, B, …, and optionally ``hint``, ``category``, ``split`` and, in result files, ``hit``.
Files are ``<model>/<model>_<data set>[_…].xlsx`` (or .tsv, .csv, .json).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError, MissingExtraError
from sightline.data.readers import Row

FAILED = "Failed to obtain answer via API."
_CIRCULAR = 1_000_000


def is_vlmevalkit(names: Collection[str]) -> bool:
    """Whether the columns are those of a prediction or result file."""
    return "index" in names and "prediction" in names


def vlmevalkit_names(path: Path) -> tuple[str, str]:
    """Names of the model and the data set: the file's name is both, the folder's the model's."""
    for folder in path.resolve().parents:
        if folder.name and path.stem.startswith(f"{folder.name}_"):
            return folder.name, path.stem[len(folder.name) + 1 :]
    return path.stem, path.stem


def vlmevalkit_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row in the names of `import_rows`.

    Rows whose index differs by a multiple of a million are the same question with its options
    rotated ("circular" evaluation); they share a group.

    Raises:
        DataError: The row has no prediction, or the tool recorded a failure instead of one. An
            empty one is an answer: the model said nothing.
    """
    if "prediction" not in row:
        raise DataError("no prediction")
    prediction = row["prediction"]
    if isinstance(prediction, str) and FAILED in prediction:
        raise DataError("the tool recorded that the model did not answer")
    out = {name: value for name, value in row.items() if name not in ("image", "log", "hit")}
    out["prediction"] = "" if prediction is None else prediction
    out["correct"] = row.get("hit")
    index = str(row.get("index"))
    if row.get("A") is not None and index.isdecimal() and "group" not in row:
        out["group"] = str(int(index) % _CIRCULAR)
    return out


def read_workbook(path: Path) -> Iterator[Row]:
    """Rows of the first sheet of an XLSX workbook; the first row names the columns.

    Raises:
        MissingExtraError: openpyxl is not installed.
        DataError: The file is no workbook.
    """
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise MissingExtraError("openpyxl", "xlsx", "reading an XLSX workbook") from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = book.worksheets[0].iter_rows(values_only=True)
        header = [None if cell is None else str(cell).strip() for cell in next(lines, ())]
        for number, cells in enumerate(lines, start=2):
            named = zip(header, (*cells, *[None] * len(header)), strict=False)
            fields = {name: cell for name, cell in named if name}
            if any(cell is not None for cell in fields.values()):
                yield Row(f"row {number}", fields)
        book.close()
    except (zipfile.BadZipFile, zlib.error, SyntaxError, LookupError, ValueError, OSError):
        raise DataError(
            f"{path} is not a readable workbook; an undamaged XLSX file is required. "
            "Save it again, or as TSV."
        ) from None
