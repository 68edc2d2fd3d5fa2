"""The examples of a run: written once when it is created, read by slices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from sightline.core.errors import DataError
from sightline.core.types import Example
from sightline.data.collected import Rejected
from sightline.store.schema import (
    EXAMPLES,
    REJECTED,
    canonical_json,
    decode_examples,
    encode_example,
    storable,
)
from sightline.store.sealed import (
    check_table,
    corrupt_file,
    metadata_of,
    open_table,
    read_group,
    unreadable,
    write_table,
)

ROWS_PER_GROUP = 1024


@dataclass(slots=True)
class ExamplesDigest:
    """Count and sha256 of examples as they stream past; the same for equal examples anywhere."""

    n: int = 0
    _ids: set[str] | None = None
    _sha256: Any = None

    def over(self, examples: Iterable[Example]) -> Iterator[dict[str, Any]]:
        """Yields the stored row of each example while counting and hashing it.

        Raises:
            DataError: An id comes twice or cannot be stored.
        """
        ids: set[str] = set()
        self._sha256 = hashlib.sha256()
        for example in examples:
            if example.id in ids:
                raise DataError(
                    f"Example id {example.id!r} comes twice; ids must be unique within a run. "
                    "Rename or drop one."
                )
            ids.add(example.id)
            row = encode_example(example)
            self._sha256.update(canonical_json(row).encode("ascii") + b"\n")
            self.n += 1
            yield row

    def hexdigest(self) -> str:
        """Sha256 over the canonical JSON lines of the examples."""
        return str(self._sha256.hexdigest())


def digest_examples(examples: Iterable[Example]) -> ExamplesDigest:
    """Counts and hashes examples without writing them."""
    digest = ExamplesDigest()
    for _ in digest.over(examples):
        pass
    return digest


def write_examples(path: Path, examples: Iterable[Example]) -> ExamplesDigest:
    """Writes examples.parquet in bounded memory."""
    digest = ExamplesDigest()
    rows = digest.over(examples)

    def batches() -> Iterator[pa.Table]:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            yield pa.Table.from_pylist(group, schema=EXAMPLES)

    write_table(
        path,
        EXAMPLES,
        batches(),
        lambda: {"sightline.format": "examples.1", "sightline.sha256": digest.hexdigest()},
    )
    return digest


class StoredExamples:
    """Examples of one file, read a row group at a time; the last group read is kept.

    Args:
        path: The file.
        sha256: The manifest's hash of its examples; None where the manifest is unreadable.
    """

    def __init__(self, path: Path, sha256: str | None) -> None:
        self._path = path
        self._footer = check_table(path)
        if sha256 not in (None, metadata_of(self._footer, path).get("sightline.sha256")):
            raise corrupt_file(path, "the examples of another run", "footer")
        self._kept: tuple[int, list[Example]] = (-1, [])

    def __len__(self) -> int:
        return int(self._footer.num_rows)

    def between(self, start: int, stop: int) -> list[Example]:
        """Examples at positions start to stop, in the plan's order."""
        out: list[Example] = []
        for group in range(start // ROWS_PER_GROUP, -(-min(stop, len(self)) // ROWS_PER_GROUP)):
            if self._kept[0] != group:
                table = read_group(self._path, self._footer, group)
                self._kept = (group, decode_examples(table))
            first = group * ROWS_PER_GROUP
            out += self._kept[1][max(0, start - first) : stop - first]
        return out


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> int:
    """Writes rejected.parquet; returns the number of rows."""
    rows = [{"where": storable(r.where), "reason": storable(r.reason)} for r in rejected]
    table = pa.Table.from_pylist(rows, schema=REJECTED)
    write_table(path, REJECTED, [table], lambda: {"sightline.format": "rejected.1"})
    return len(rows)


def read_rejected(path: Path) -> list[Rejected]:
    """Reads rejected.parquet."""
    file = open_table(path)
    with unreadable(path):
        return [Rejected(row["where"], row["reason"]) for row in file.read().to_pylist()]
