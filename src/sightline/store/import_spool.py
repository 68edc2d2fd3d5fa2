"""Rows of an import, sorted by model and example on disk, so that memory does not grow with them.

A file may hold the rows of several models, and of one example under several conditions, in any
order; a run's shards need them example by example.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from sightline.core.errors import DataError, DiskError
from sightline.core.types import Example, ImageRef, Key, Record
from sightline.data.collected import Rejected
from sightline.data.readers import Row
from sightline.store.disk import disk_errors, make_directory
from sightline.store.import_rows import NAMES, RECOGNISED, RecordedRow, interpret
from sightline.store.schema import EXAMPLES, decode_examples, encode_example

UNNAMED = "unnamed"
NO_MODEL = ""
MAX_MODELS = 1000
MAX_LISTED = 10_000
_MAX_NAMES = 50
_BATCH = 256

_KEPT = RECOGNISED - {*NAMES["image"]}

FindImage = Callable[[str], ImageRef | None]

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE answers (run INTEGER, position INTEGER, line INTEGER, body TEXT);
CREATE INDEX answers_in_order ON answers (run, position, line);
CREATE TABLE examples (run INTEGER, id TEXT, position INTEGER, choices INTEGER, place TEXT,
                       body TEXT, PRIMARY KEY (run, id)) WITHOUT ROWID;
CREATE UNIQUE INDEX examples_in_order ON examples (run, position);
CREATE TABLE conditions (run INTEGER, position INTEGER, condition TEXT, place TEXT, correct REAL,
                         PRIMARY KEY (run, position, condition)) WITHOUT ROWID;
CREATE TABLE rejected (model TEXT, place TEXT, reason TEXT);
CREATE INDEX rejected_by_model ON rejected (model);
"""


@dataclass(slots=True)
class SpooledRun:
    """What is known of one model's rows.

    Attributes:
        number: Position among the file's models.
        model: The model's name.
        datasets: Names of its data sets, in order of appearance.
        examples: Number of examples.
        size: Characters of its rows.
        without_images: Number of examples whose images were not found.
        unused: Rows that had a column that was left out, by column.
    """

    number: int
    model: str
    datasets: list[str] = field(default_factory=list)
    examples: int = 0
    size: int = 0
    without_images: int = 0
    unused: Counter[str] = field(default_factory=Counter)


class Spool:
    """A database in an unlinked temporary file; use `open_spool`.

    Attributes:
        runs: One per model that has a usable row.
        rejections: Number of rows that cannot be used, by the model they name.
        first_reason: Place of the first such row, and why.
    """

    def __init__(self, connection: sqlite3.Connection, find_image: FindImage) -> None:
        self._db = connection
        self._find_image = find_image
        self.runs: list[SpooledRun] = []
        self.rejections: Counter[str] = Counter()
        self.first_reason = ""

    def fill(self, rows: Iterable[Row], *, model: str, dataset: str) -> None:
        """Takes every row in; those that cannot be used are counted with their reason.

        Args:
            rows: Rows in the names of `sightline.store.import_rows.NAMES`.
            model: Name for rows that name no model.
            dataset: Name for rows that name no data set.

        Raises:
            DataError: The rows name too many models.
        """
        by_model: dict[str, SpooledRun] = {}
        for line, row in enumerate(rows):
            if row.error is not None:
                self._reject(NO_MODEL, row.where, row.error)
                continue
            try:
                found = interpret(row.fields)
            except DataError as error:
                self._reject(_named_model(row, model), row.where, str(error))
                continue
            name = found.model or model
            if name not in by_model:
                if len(by_model) == MAX_MODELS:
                    raise DataError(
                        f"The file names more than {MAX_MODELS} models; at most that many runs are "
                        "made of one file. Correct the model column, or split the file."
                    )
                by_model[name] = SpooledRun(len(self.runs), name)
                self.runs.append(by_model[name])
            self._add(by_model[name], line, row, found, dataset)

    def _add(self, run: SpooledRun, line: int, row: Row, found: RecordedRow, dataset: str) -> None:
        example = found.example
        choices = len(example.choices or ())
        stored = self._db.execute(
            "SELECT position, choices, place FROM examples WHERE run = ? AND id = ?",
            (run.number, example.id),
        ).fetchone()
        position = run.examples if stored is None else stored[0]
        if stored is not None:
            if stored[1] != choices:
                reason = f"id {example.id!r} has other choices at {stored[2]}"
                self._reject(run.model, row.where, reason)
                return
            for record in found.records:
                double = self._db.execute(
                    "SELECT place FROM conditions WHERE run = ? AND position = ? AND condition = ?",
                    (run.number, position, record.condition),
                ).fetchone()
                if double is not None:
                    self._reject(
                        run.model,
                        row.where,
                        f"id {example.id!r} under {record.condition} is already at {double[0]}",
                    )
                    return
        else:
            self._db.execute(
                "INSERT INTO examples VALUES (?, ?, ?, ?, ?, ?)",
                (
                    run.number,
                    example.id,
                    position,
                    choices,
                    row.where,
                    json.dumps(encode_example(self._with_images(run, found))),
                ),
            )
            run.examples += 1
        self._db.executemany(
            "INSERT INTO conditions VALUES (?, ?, ?, ?, ?)",
            [
                (run.number, position, r.condition, row.where, found.correct if i == 0 else None)
                for i, r in enumerate(found.records)
            ],
        )
        kept = {name: row.fields[name] for name in row.fields if name in _KEPT}
        body = json.dumps(kept, default=str)
        run.size += len(body)
        self._db.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?)",
            (run.number, position, line, body),
        )
        name = found.dataset or dataset
        if name not in run.datasets and len(run.datasets) < _MAX_NAMES:
            run.datasets.append(name)
        for column in found.unused:
            known = column in run.unused or len(run.unused) < _MAX_NAMES
            run.unused[column if known else "others"] += 1

    def _reject(self, model: str, place: str, reason: str) -> None:
        """Counts a row, and lists it while there are not too many of its model."""
        self.first_reason = self.first_reason or f"{place}: {reason}"
        known = model in self.rejections or len(self.rejections) < MAX_MODELS
        model = model if known else NO_MODEL
        self.rejections[model] += 1
        if self.rejections[model] <= MAX_LISTED:
            self._db.execute("INSERT INTO rejected VALUES (?, ?, ?)", (model, place, reason))

    def _with_images(self, run: SpooledRun, found: RecordedRow) -> Example:
        """The example with all of its images, or with none where one is missing."""
        refs = [self._find_image(image) for image in found.images]
        if None not in refs:
            return replace(found.example, images=tuple(ref for ref in refs if ref is not None))
        run.without_images += 1
        missing = [path for path, ref in zip(found.images, refs, strict=True) if ref is None]
        meta = {**found.example.meta, "image_missing": ", ".join(missing)}
        return replace(found.example, meta=meta)

    def examples(self, run: SpooledRun) -> Iterator[Example]:
        """The examples of a run in the order of their first rows."""
        query = "SELECT body FROM examples WHERE run = ? ORDER BY position"
        with closing(self._db.execute(query, (run.number,))) as cursor:
            while bodies := cursor.fetchmany(_BATCH):
                rows = [json.loads(body) for (body,) in bodies]
                yield from decode_examples(pa.Table.from_pylist(rows, schema=EXAMPLES))

    def records(self, run: SpooledRun, start: int, stop: int) -> Iterator[Record]:
        """Records of the examples at positions start to stop, example by example."""
        query = (
            "SELECT body FROM answers WHERE run = ? AND position >= ? AND position < ? "
            "ORDER BY position, line"
        )
        with closing(self._db.execute(query, (run.number, start, stop))) as cursor:
            for (body,) in cursor:
                yield from interpret(json.loads(body)).records

    def correct(self, run: SpooledRun) -> Iterator[tuple[Key, float]]:
        """Recorded correctness by key, in the order of the examples."""
        query = (
            "SELECT e.id, c.condition, c.correct FROM conditions c JOIN examples e "
            "ON e.run = c.run AND e.position = c.position "
            "WHERE c.run = ? AND c.correct IS NOT NULL ORDER BY c.position"
        )
        with closing(self._db.execute(query, (run.number,))) as cursor:
            for identity, condition, value in cursor:
                yield Key(identity, sys.intern(condition)), value

    def n_rejected(self, run: SpooledRun) -> tuple[int, int]:
        """Rows that cannot be used: of the run's model, and of no run's model.

        Every rejected row is of one run: the first has those that are of none.
        """
        loose = sum(self.rejections[model] for model in self._loose(run))
        return self.rejections[run.model], loose

    def rejected(self, run: SpooledRun) -> Iterator[Rejected]:
        """The rows behind `n_rejected`: `MAX_LISTED` of a model, and the number of the others."""
        more = 0
        for model in (run.model, *self._loose(run)):
            query = "SELECT place, reason FROM rejected WHERE model = ? ORDER BY rowid"
            with closing(self._db.execute(query, (model,))) as cursor:
                for place, reason in cursor:
                    yield Rejected(place, reason)
            more += max(0, self.rejections[model] - MAX_LISTED)
        if more:
            yield Rejected("further rows", f"{more} more rejected rows are not listed")

    def _loose(self, run: SpooledRun) -> list[str]:
        named = {known.model for known in self.runs}
        return [model for model in self.rejections if model not in named] if run.number == 0 else []


def _named_model(row: Row, model: str) -> str:
    """The model that a row names, even if nothing else of the row can be used."""
    named = (row.fields[name] for name in NAMES["model"] if row.fields.get(name) is not None)
    return str(next(named, model)).strip()


@contextmanager
def open_spool(folder: Path, find_image: FindImage) -> Iterator[Spool]:
    """A spool in a folder; nothing of it remains, however the process ends.

    Args:
        folder: Where the temporary file lies.
        find_image: Gives the reference of an image by its path as written, or None.

    Raises:
        DiskError: The folder is full or cannot be written.
    """
    make_directory(folder)
    with disk_errors(f"Writing in {folder}"):
        file = tempfile.NamedTemporaryFile(dir=folder, prefix=".import.", suffix=".db")  # noqa: SIM115
    try:
        with closing(sqlite3.connect(file.name, isolation_level=None)) as db:
            db.executescript(_TABLES)
            file.close()
            db.execute("BEGIN")
            yield Spool(db, find_image)
    except sqlite3.OperationalError as error:
        raise DiskError(
            f"Sorting the rows of an import in {folder} failed ({error}); a writable disk with "
            "free space is required. Make room, or choose another output folder."
        ) from error
