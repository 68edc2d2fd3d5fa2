"""Loading a dataset from any of the usual forms: files, folders, hub names, generated scenes.

A bad row costs that row: it is rejected with where and why, and counted. Only what makes the whole
source unusable raises.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from sightline.core.errors import DataError, UsageError
from sightline.core.types import Example, ImageRef
from sightline.data.benchmarks import is_benchmark, open_benchmark
from sightline.data.collected import Collected, Rejected, digest_json
from sightline.data.embedded import ImageReader, StoreImage
from sightline.data.fields import ALIASES, check_columns, shown
from sightline.data.images import ImageLimits
from sightline.data.readers import Row, is_folder, read_folder, read_rows

HUB = "hf://"
SCENES = "scenes:"

_DEFAULT_SCENES = 600
_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples of one source.

    Attributes:
        name: Short name of the source.
        examples: In the source's order; ids are unique.
        rejected: Rows that could not become examples.
        sha256: Hash of everything the examples say, image contents included; independent of where
            the files lie.
        partial: What a limit left out, in words, or None if this is the whole source.
        ignored: Columns with values that are neither used nor scalar, and how many.
        left_out: How many of the rows read the data set's own rules leave out, by rule.
    """

    name: str
    examples: tuple[Example, ...]
    rejected: tuple[Rejected, ...]
    sha256: str
    partial: str | None = None
    ignored: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    left_out: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def notes(self) -> tuple[str, ...]:
        """What every report says of the data: which rows its own rules left out."""
        if not self.left_out:
            return ()
        return (f"Left out of {self.name} by its own rules: {_counted(self.left_out)}.",)


def load_dataset(
    source: str | Path,
    *,
    images: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | float | None = None,
    sample_ids: Sequence[str] = (),
    store_image: StoreImage | None = None,
    limits: ImageLimits = ImageLimits(),  # noqa: B008 (frozen)
) -> Dataset:
    """Loads a dataset.

    Sources: a JSONL, JSON, CSV, TSV, Parquet or Arrow file; a folder with ``metadata.csv``,
    ``.jsonl`` or ``.parquet``, or with Parquet files; a published benchmark by its own rules
    (``pope:FILE``, see `sightline.data.benchmarks`); ``hf://NAME?split=…&config=…`` (extra
    ``datasets``); ``scenes:SPLIT?n=…&seed=…&types=color,count*3`` (generated pictures; a type with
    a weight is asked more often). Rows in OpenAI's batch form are understood.

    Columns are recognised by `sightline.data.fields.ALIASES`; the options of multiple choice may
    also stand in columns A, B, C, … . An image is a path, a data URL, base64, bytes, or (in a row
    with an id) the id of the row that has it. A row without an id gets one from the hash of its
    images, question and choices. Rows without a group share one where they share an image.

    Args:
        source: What to load.
        images: Folder that image paths start from and must stay in; the source's own if None.
        columns: Column to use for a field, instead of the recognised names.
        limit: The first examples only: a count, or a share as a float up to 1.0 (all).
        sample_ids: Only these examples.
        store_image: Writes an embedded image and returns its reference, such as
            `sightline.store.images.image_writer`; without it such rows are rejected.
        limits: Limits on image files.

    Returns:
        At least one example.

    Raises:
        DataError: The source is missing, has no known form or no usable row.
        UsageError: A field, limit or sample id that does not exist.
        MissingExtraError: A hub name without the ``datasets`` extra.
    """
    columns = dict(columns or {})
    check_columns(columns)
    _check_limit(limit)
    if isinstance(limit, float) and limit == 1:
        limit = None
    text = str(source)
    if columns and is_benchmark(text):
        raise UsageError(
            f"{text} with --column; the columns of a benchmark are known. Leave --column out, or "
            "name the file alone."
        )
    if text.startswith(SCENES):
        examples, whole = _scenes(text, None if sample_ids else limit, store_image)
        return _finish(text, examples, limit=limit, sample_ids=sample_ids, whole=whole)
    name, rows, root = _open(source, images)
    stop_after = int(limit) if limit is not None and limit >= 1 and not sample_ids else None
    collected = Collected(ImageReader(root, store_image, limits), columns, images is not None)
    for row in rows:
        collected.add(row)
        if stop_after is not None and collected.count > stop_after:
            break
    examples = collected.examples()
    absent = [column for column in columns.values() if column not in collected.seen]
    if absent and collected.seen:
        raise DataError(
            f"{name} has no column {absent[0]!r}, only {shown(list(collected.seen), 200)}; a named "
            "column is required. Name one of these."
        )
    if not examples:
        raise DataError(_nothing(name, columns, collected))
    found = _finish(name, examples, limit=limit, sample_ids=sample_ids)
    return replace(
        found,
        rejected=tuple(collected.rejected),
        ignored=MappingProxyType(dict(collected.ignored)),
        left_out=MappingProxyType(dict(collected.left_out)),
    )


def _open(source: str | Path, images: str | Path | None) -> tuple[str, Iterator[Row], Path]:
    """Returns the source's name, its rows, and the folder that image paths start from."""
    root = Path(images) if images is not None else None
    if root is not None and not root.is_dir():
        raise UsageError(f"{root} is not a folder; --images takes a folder. Correct the path.")
    if isinstance(source, str) and source.startswith(HUB):
        from sightline.data.hub import read_hub

        name, rows, folder = read_hub(source)
        return name, rows, root or folder
    if is_benchmark(str(source)):
        return open_benchmark(str(source), root)
    path = Path(source)
    name = (path.name or path.resolve().name).encode(errors="replace").decode()
    if is_folder(path):
        return name, read_folder(path), root or path
    return name, read_rows(path), root or path.parent


def _scenes(
    source: str, limit: int | float | None, store_image: StoreImage | None
) -> tuple[list[Example], int]:
    """Generates ``scenes:SPLIT?n=…&seed=…&types=…``, not beyond the limit, and counts the whole.

    A limit above the default number stands in for a missing ``n``.
    """
    from sightline.data.scenes import BENCHMARK_TYPES, demo_examples, weighted_types

    split, _, query = source.removeprefix(SCENES).partition("?")
    settings = {"n": _DEFAULT_SCENES, "seed": 0}
    if limit is not None and limit >= 1:
        settings["n"] = max(settings["n"], int(limit))
    types: tuple[str, ...] = BENCHMARK_TYPES
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "types":
            types = weighted_types(value)
            continue
        if name not in settings or not value.isdecimal() or len(value) > _MAX_DIGITS:
            raise UsageError(
                f"{source} sets {name}={value[:40]!r}; only n and seed, whole numbers, and types "
                "are known. For example: scenes:test?n=600&seed=1."
            )
        settings[name] = int(value)
    if store_image is None:
        raise UsageError(
            f"{source} needs a folder for its pictures, and none was given; store_image is "
            "required. Pass sightline.store.images.image_writer(folder)."
        )
    whole = settings["n"]
    if limit is not None and limit >= 1:
        settings["n"] = min(whole, int(limit))  # fewer questions are the first of more
    stored: dict[str, ImageRef] = {}
    with TemporaryDirectory() as folder:
        examples = demo_examples(split, settings["n"], settings["seed"], folder, types=types)
        for ref in {image for e in examples for image in e.images}:
            stored[ref.path] = store_image(Path(ref.path).read_bytes(), "png")
    return [replace(e, images=tuple(stored[ref.path] for ref in e.images)) for e in examples], whole


def _finish(
    name: str,
    examples: Sequence[Example],
    *,
    limit: int | float | None,
    sample_ids: Sequence[str],
    whole: int | None = None,
) -> Dataset:
    """Cuts the examples to what was asked for; ``whole`` is how many there would have been."""
    notes = []
    chosen = list(examples)
    if sample_ids:
        absent = set(sample_ids) - {example.id for example in chosen}
        if absent:
            raise UsageError(
                f"{name} has no usable example {min(absent)!r} ({len(absent)} such); --sample-id "
                "takes ids of the dataset. Correct or leave out the id."
            )
        chosen = [example for example in chosen if example.id in set(sample_ids)]
        if len(chosen) < len(examples):
            notes.append(f"--sample-id: {len(chosen)} of {len(examples)}")
    if limit is not None:
        total = len(chosen) if whole is None or sample_ids else whole
        count = math.ceil(limit * total) if limit < 1 else int(limit)
        if count < total:
            chosen = chosen[:count]
            notes.append(f"--limit {limit:g}: the first {count}")
    digest = hashlib.sha256()
    for example in chosen:
        digest.update(digest_json(_content(example)).encode())
    return Dataset(
        name=name,
        examples=tuple(chosen),
        rejected=(),
        sha256=digest.hexdigest(),
        partial="; ".join(notes) or None,
    )


def _content(example: Example) -> list[Any]:
    return [
        example.id,
        example.question,
        [image.sha256 for image in example.images],
        example.choices,
        example.references,
        example.group,
        example.question_type,
        dict(example.meta),
    ]


def _check_limit(limit: int | float | None) -> None:
    if limit is None or 0 < limit < 1 or (math.isfinite(limit) and limit >= 1 and limit % 1 == 0):
        return
    raise UsageError(
        f"--limit {limit:g}; a whole number of examples or a share between 0 and 1 is required. "
        "For example: --limit 100 or --limit 0.1."
    )


def _nothing(name: str, columns: Mapping[str, str], collected: Collected) -> str:
    """Says why a source gave no example: no rows, no question column, or every row rejected."""
    seen = list(collected.seen)
    if collected.left_out and not collected.rejected:
        return (
            f"{name} has no row that its rules keep ({_counted(collected.left_out)}); at least one "
            "is required. Choose another file or setting."
        )
    if not seen and not collected.rejected:
        return f"{name} has no rows; at least one is required. Choose another source."
    questions = {*ALIASES["question"], "messages", "body", *columns.values()}
    if seen and not questions & set(seen):
        return (
            f"{name} has no question among its columns {shown(seen, 200)}; one of "
            f"{', '.join(ALIASES['question'])} is required. Name it with question=COLUMN."
        )
    first = collected.rejected[0]
    return (
        f"{name} has no usable row ({first.where}: {first.reason}; {len(collected.rejected)} "
        "rejected in all); at least one is required. Correct the rows."
    )


def _counted(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts, the most common first."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{count} × {reason}" for reason, count in ordered)
