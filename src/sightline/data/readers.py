"""Reading rows from files of many formats, one at a time, in bounded memory.

A row that cannot be read costs that row: it arrives as a `Row` with an error. Only what makes the
whole file unusable (missing, unknown format, no header) raises.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

from sightline.core.errors import DataError
from sightline.data.json_files import json_items, parse_json

MAX_LINE_BYTES = 256 * 1024 * 1024
"""Longest line or cell that is read; longer ones are skipped as unreadable rows."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its fields, or why it could not be read or is not to be asked.

    Attributes:
        where: Where it stands, such as ``line 12``.
        fields: Values by column name; empty where there is an error.
        error: The reason it could not be read, or None.
        left_out: The rule of its data set by which it is not asked, or None.
    """

    where: str
    fields: Mapping[str, Any]
    error: str | None = None
    left_out: str | None = None


def read_rows(path: Path, form: str | None = None) -> Iterator[Row]:
    """Yields the rows of a JSONL, JSON, CSV, TSV, Parquet or Arrow file, by its suffix.

    JSON values keep their types (``NaN`` arrives as a float); an empty CSV or TSV cell is None and
    every other one text. A JSON file is a list of objects, or an object that holds one list under
    ``questions``, ``data``, ``rows`` or ``examples``; VQA's annotations are joined to it, see
    `sightline.data.json_files.json_items`. It is read whole; all other files are streamed.

    Args:
        path: The file.
        form: One of `SUFFIXES` that says what it holds, where its own does not.

    Raises:
        DataError: The file does not exist, cannot be read, or has no known form.
    """
    read = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
        ".arrow": _arrow,
    }.get(form or path.suffix.lower())
    if read is None:
        raise DataError(
            f"{path} has the unknown suffix {path.suffix!r}; one of {', '.join(SUFFIXES)} is "
            "required. Convert or rename the file."
        )
    try:
        if not path.is_file():
            found = "is not a regular file" if path.exists() else "does not exist"
            raise DataError(f"{path} {found}; a data file is required. Correct the path.")
        yield from read(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or 'damaged'}); a readable data file is "
            "required. Check the file and its permissions."
        ) from None


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, offset, line in _lines(file, path):
            where = f"line {number}"
            if line is None:
                yield Row(where, {}, f"longer than {MAX_LINE_BYTES} bytes")
                continue
            if not line.strip():
                continue
            try:
                value = parse_json(line.decode())
            except UnicodeDecodeError as error:
                yield Row(where, {}, f"not UTF-8 at byte {offset + error.start} of the file")
                continue
            except ValueError as error:
                yield Row(where, {}, str(error))
                continue
            yield _row(where, value)


def _json(path: Path) -> Iterator[Row]:
    for i, value in enumerate(json_items(path), start=1):
        yield _row(f"row {i}", value)


def _row(where: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(where, value)
    return Row(where, {}, f"a JSON {type(value).__name__} instead of an object")


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open("rb") as file:
        source = _TextLines(file, path)
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        cells = csv.reader(source, delimiter=delimiter, strict=True)
        try:
            header = next(cells, [])
        except csv.Error as error:
            raise DataError(
                f"{path} has an unreadable header ({error}); a first line of column names is "
                "required. Correct the file."
            ) from None
        if source.bad is not None:
            raise DataError(
                f"{path} is not UTF-8 at byte {source.bad}; UTF-8 is required. Convert the file."
            )
        names = [name.strip() for name in header]
        _require_unique([name for name in names if name], path)
        while True:
            first = source.number + 1
            source.bad = None
            try:
                values = next(cells, None)
            except csv.Error as error:
                yield Row(f"line {first}", {}, f"not {path.suffix[1:].upper()}: {error}")
                continue
            if values is None:
                return
            if not values:
                continue
            where = f"line {first}"
            if source.bad is not None:
                yield Row(where, {}, f"not UTF-8 at byte {source.bad} of the file")
            elif len(values) != len(names):
                yield Row(where, {}, f"{len(values)} cells under {len(names)} column names")
            else:
                pairs = zip(names, values, strict=True)
                yield Row(where, {name: value or None for name, value in pairs if name})


def _require_unique(names: list[str], path: Path) -> None:
    name, count = max(Counter(names).items(), key=lambda pair: pair[1], default=("", 0))
    if count > 1:
        raise DataError(
            f"{path} has two columns named {name!r}; column names must be unique. Rename one."
        )


class _TextLines:
    """The decoded lines of a file, remembering the first byte that was not UTF-8."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.number = 0
        self.bad: int | None = None
        self._lines = _lines(file, path)

    def __iter__(self) -> _TextLines:
        return self

    def __next__(self) -> str:
        self.number, offset, line = next(self._lines)
        if line is None:
            raise csv.Error(f"line longer than {MAX_LINE_BYTES} bytes")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            if self.bad is None:
                self.bad = offset + error.start
            return line.decode(errors="replace")


def _lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, int, bytes | None]]:
    """Yields (line number, offset of its first byte, line); None in place of an overlong line."""
    start = file.read(4)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16; UTF-8 is required. Convert the file.")
    offset = 3 if start.startswith(b"\xef\xbb\xbf") else 0
    file.seek(offset)
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        size = len(line)
        if size == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while rest := file.readline(1 << 20):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield number, offset, None
        else:
            yield number, offset, line
        offset += size


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    def batches() -> Iterator[Any]:
        with pq.ParquetFile(path) as file:
            _require_unique(file.schema_arrow.names, path)
            yield from file.iter_batches(batch_size=_BATCH)

    return _batched(path, batches(), "Parquet")


def _arrow(path: Path) -> Iterator[Row]:
    """A stream of record batches, as the Hugging Face library saves tables, or an Arrow file."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        with pa.memory_map(str(path)) as mapped:
            framed = mapped.read(6) == b"ARROW1"
            mapped.seek(0)
            table = pa.ipc.open_file(mapped) if framed else pa.ipc.open_stream(mapped)
            _require_unique(table.schema.names, path)
            whole = map(table.get_batch, range(table.num_record_batches)) if framed else table
            for batch in whole:
                for start in range(0, batch.num_rows, _BATCH):
                    yield batch.slice(start, _BATCH)

    return _batched(path, batches(), "Arrow")


def _batched(path: Path, batches: Iterator[Any], form: str) -> Iterator[Row]:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches:
            for fields in _batch_rows(batch):
                number += 1
                bad = None if fields is not None else "a value its column type does not allow"
                yield Row(f"row {number}", fields or {}, bad)
    except (pa.ArrowException, OSError, ValueError):
        raise DataError(
            f"{path} is not a readable {form} file after row {number}; an undamaged file is "
            "required. Write it again."
        ) from None


def _batch_rows(batch: Any) -> list[dict[str, Any] | None]:
    """Rows of a batch; None for a row that Python cannot represent (bad UTF-8, year 10,000)."""
    try:
        rows: list[dict[str, Any] | None] = batch.to_pylist()
        return rows
    except (ValueError, OverflowError):
        if batch.num_rows <= 1:
            return [None] * batch.num_rows
    middle = batch.num_rows // 2
    return _batch_rows(batch.slice(0, middle)) + _batch_rows(batch.slice(middle))


def is_folder(path: Path) -> bool:
    """Whether the path names a folder; False for what cannot be a path."""
    try:
        return path.is_dir()
    except OSError:
        return False


def metadata_file(folder: Path) -> Path | None:
    """Returns the metadata file of an image folder, or None."""
    candidates = (folder / f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet"))
    return next((path for path in candidates if path.is_file()), None)


def read_folder(folder: Path) -> Iterator[Row]:
    """Yields the rows of an image folder's metadata file, or of a folder of Parquet files.

    Raises:
        DataError: The folder has neither.
    """
    metadata = metadata_file(folder)
    if metadata is not None:
        return read_rows(metadata)
    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        raise DataError(
            f"{folder} has no metadata.csv, metadata.jsonl or metadata.parquet and no Parquet "
            "files; one of these is required. Add a metadata file with file_name and question."
        )
    return chain.from_iterable(_named_rows(part) for part in parts)


def _named_rows(path: Path) -> Iterator[Row]:
    for row in read_rows(path):
        yield Row(f"{path.name} {row.where}", row.fields, row.error)
