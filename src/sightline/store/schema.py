"""What the files of a run contain: manifest, Parquet schemas, format version and migrations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sightline.core.errors import CorruptStoreError, DataError, StoreError
from sightline.core.types import Example, FinishReason, Generation, ImageRef

SCHEMA_VERSION = 1

MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = MappingProxyType({})
"""From a manifest of version v to one of version v + 1; files keep the bytes they have."""

RESULT_FIELDS = ("kind", "model", "dataset", "settings", "shard_size", "n_shards", "conditions")
"""Manifest fields that decide what the rows hold; a resumed run must have the same."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """What a run is.

    Attributes:
        schema_version: Version of the directory's format.
        run_id: Name of the run, for people.
        created: UTC time in ISO form.
        kind: How the records came to be.
        model: Fingerprint of the one model of this run.
        dataset: ``name``; ``sha256``, ``n`` and ``rejected`` (counts) are filled in by the store.
        settings: Decoding, request and prompt settings: everything that changes results.
        versions: Packages at creation; not compared on resume.
        shard_size: Examples per shard.
        n_shards: Filled in by the store.
        conditions: Conditions the run may hold; empty means any.
        partial: Why the run is not of the whole data set, or None.
        image_root: Folder that relative image paths start from.
        notes: Anything a reader should know.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    created: str
    kind: Literal["collected", "imported", "merged"]
    model: dict[str, Any]
    dataset: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    shard_size: int
    n_shards: int | None = None
    conditions: tuple[str, ...] = ()
    partial: str | None = None
    image_root: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise DataError(
                f"shard_size is {self.shard_size}; at least 1 example per shard is required. "
                "Use 32 if in doubt."
            )

    def deciding(self) -> dict[str, Any]:
        """What decides the rows: `RESULT_FIELDS`, without the data set's name."""
        fields = {name: getattr(self, name) for name in RESULT_FIELDS}
        fields["dataset"] = {k: v for k, v in self.dataset.items() if k != "name"}
        plain: dict[str, Any] = json.loads(canonical_json(fields))
        return {name: plain[name] for name in RESULT_FIELDS}

    def run_hash(self) -> str:
        """Xxh3-128 of what decides the rows; every shard carries it."""
        return xxhash.xxh3_128_hexdigest(canonical_json(self.deciding()).encode("ascii"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form.

        Raises:
            DataError: A value is not JSON (NaN, an object).
        """
        document: dict[str, Any] = json.loads(canonical_json(asdict(self)))
        return {name: document[name] for name in asdict(self)}


def manifest_from_dict(document: dict[str, Any], path: object) -> Manifest:
    """Checks a manifest's version and fields.

    Raises:
        StoreError: The version is newer than this library, or older without a migration.
        CorruptStoreError: A field is missing, unknown or of the wrong type.
    """
    version = document.get("schema_version")
    while isinstance(version, int) and version < SCHEMA_VERSION and version in MIGRATIONS:
        document = MIGRATIONS[version](document)
        version = document["schema_version"]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version!r}; this version of sightline reads up to "
            f"{SCHEMA_VERSION}. Upgrade sightline, or collect the run again."
        )
    try:
        return TypeAdapter(Manifest).validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorruptStoreError(
            f"{path} has a wrong entry {where} ({first['msg']}); a manifest of version "
            f"{SCHEMA_VERSION} is required. Restore it from a copy."
        ) from None


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, ASCII, no spaces.

    Raises:
        DataError: The value is not JSON.
    """
    try:
        return _CANONICAL.encode(value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"A setting cannot be stored ({error}); JSON values are required. "
            "Use text, numbers, booleans, lists and mappings."
        ) from None


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} {value!r}")


_CANONICAL = json.JSONEncoder(
    sort_keys=True, allow_nan=False, separators=(",", ":"), default=_plain
)


def storable(text: str) -> str:
    r"""Text as stored: what is not valid Unicode (lone surrogates) becomes a ``\udc80`` escape."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


GENERATION = pa.struct(
    [
        pa.field("text", pa.string(), nullable=False),
        ("token_ids", pa.list_(pa.int32())),  # null: not observable
        ("tokens", pa.list_(pa.string())),
        ("logprobs", pa.list_(pa.float64())),  # nats; float64 as observed, bit for bit
        pa.field("finish_reason", pa.string(), nullable=False),  # stop, length, unknown
        ("reasoning", pa.string()),
        pa.field("answer_start", pa.int32(), nullable=False),
    ]
)

ARRAY_PLACE = pa.struct(
    [
        pa.field("feature", pa.string(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),  # which tensor of that feature
        pa.field("start", pa.int64(), nullable=False),  # first row of this record in the tensor
        pa.field("shape", pa.list_(pa.int64()), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),  # numpy name, such as float16
    ]
)

ROWS = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("condition", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # see rows.OBSERVED; error, refused
        ("reason", pa.string()),  # of an error
        ("greedy", GENERATION),  # null: samples only
        pa.field("samples", pa.list_(GENERATION), nullable=False),
        pa.field("layers", pa.list_(pa.int32()), nullable=False),  # along the l axis
        pa.field("arrays", pa.list_(ARRAY_PLACE), nullable=False),  # places in the array file
    ]
)

DERIVED = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("condition", pa.string(), nullable=False),
        pa.field("arrays", pa.list_(ARRAY_PLACE), nullable=False),  # places in the array file
    ]
)

EXAMPLES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field(
            "images",
            pa.list_(
                pa.struct(
                    [
                        pa.field("path", pa.string(), nullable=False),
                        pa.field("sha256", pa.string(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
        ("choices", pa.list_(pa.string())),  # null: free answer
        pa.field("references", pa.list_(pa.string()), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        ("question_type", pa.string()),
        pa.field("meta", pa.string(), nullable=False),  # JSON object of scalars
    ]
)

REJECTED = pa.schema(
    [
        pa.field("where", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

COLUMN = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("condition", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


def encode_example(example: Example) -> dict[str, Any]:
    """One row of examples.parquet.

    Raises:
        DataError: The id is not valid Unicode, or a meta value is not a JSON scalar.
    """
    if storable(example.id) != example.id:
        raise DataError(
            f"Example id {example.id!r} is not valid Unicode; ids are keys and must be stored as "
            "they are. Rename it."
        )
    meta = {
        storable(key): storable(value) if isinstance(value, str) else value
        for key, value in example.meta.items()
    }
    return {
        "id": example.id,
        "question": storable(example.question),
        "images": [{"path": storable(i.path), "sha256": i.sha256} for i in example.images],
        "choices": None if example.choices is None else [storable(c) for c in example.choices],
        "references": [storable(r) for r in example.references],
        "group": storable(example.group),
        "question_type": _optional(example.question_type),
        "meta": canonical_json(meta),
    }


def decode_examples(table: pa.Table) -> list[Example]:
    """Rows of examples.parquet as examples.

    Raises:
        CorruptStoreError: An image, its path or its sha256 is null.
    """
    # By column: as rows of nested objects the same takes three times as long.
    table = table.combine_chunks()
    columns = [
        table[name].to_pylist()
        for name in ("id", "question", "choices", "references", "group", "question_type", "meta")
    ]
    return [
        Example(
            id=name,
            question=question,
            images=images,
            choices=None if choices is None else tuple(choices),
            references=tuple(references),
            group=group,
            question_type=question_type,
            meta=MappingProxyType(json.loads(meta)),
        )
        for images, name, question, choices, references, group, question_type, meta in zip(
            _image_refs(table["images"]), *columns, strict=True
        )
    ]


def _image_refs(column: pa.ChunkedArray) -> Iterator[tuple[ImageRef, ...]]:
    for nested in column.chunks:
        # Flattening keeps to the slice that the chunk is; the values behind it need not.
        flat = nested.flatten()
        paths, hashes = flat.field("path"), flat.field("sha256")
        # A null image has fields all the same, which hold anything.
        if nested.null_count or flat.null_count or paths.null_count or hashes.null_count:
            raise CorruptStoreError(
                "examples.parquet has a null among its images; a path and a sha256 of each are "
                "required. Restore it from a copy."
            )
        refs = list(map(ImageRef, paths.to_pylist(), hashes.to_pylist()))
        counts = nested.value_lengths().to_pylist()
        ends = list(accumulate(counts))
        for count, end in zip(counts, ends, strict=True):
            yield tuple(refs[end - count : end])


def encode_generation(generation: Generation) -> dict[str, Any]:
    """The Parquet struct of one generation."""
    tokens = generation.tokens
    return {
        "text": storable(generation.text),
        "token_ids": generation.token_ids,
        "tokens": None if tokens is None else [storable(token) for token in tokens],
        "logprobs": generation.logprobs,
        "finish_reason": generation.finish_reason,
        "reasoning": _optional(generation.reasoning),
        "answer_start": generation.answer_start,
    }


def decode_generations(array: pa.StructArray) -> list[Generation | None]:
    """Generations of one struct array; null where the struct is null."""
    present = array.is_valid().to_pylist()
    fields = {
        name: array.field(name).to_pylist()
        for name in ("text", "tokens", "finish_reason", "reasoning", "answer_start")
    }
    token_ids = list(_lists(array.field("token_ids")))
    logprobs = list(_lists(array.field("logprobs")))
    out: list[Generation | None] = []
    for i, here in enumerate(present):
        if not here:
            out.append(None)
            continue
        tokens: Sequence[str] | None = fields["tokens"][i]
        reason: FinishReason = fields["finish_reason"][i]
        out.append(
            Generation(
                text=fields["text"][i],
                token_ids=token_ids[i],
                tokens=None if tokens is None else tuple(tokens),
                logprobs=logprobs[i],
                finish_reason=reason,
                reasoning=fields["reasoning"][i],
                answer_start=fields["answer_start"][i],
            )
        )
    return out


def _lists(array: pa.ListArray) -> Iterator[np.ndarray | None]:
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False)
    for start, stop, here in zip(
        offsets[:-1], offsets[1:], array.is_valid().to_pylist(), strict=True
    ):
        yield values[start:stop] if here else None


def _optional(text: str | None) -> str | None:
    return None if text is None else storable(text)
