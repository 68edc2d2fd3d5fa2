"""Column files: one sealed Parquet table a column, ``columns/<kind>.<name>.parquet``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import DataError, StoreError
from sightline.core.types import Key
from sightline.store.schema import COLUMN, canonical_json
from sightline.store.sealed import corrupt_file, metadata_of, open_table, unreadable, write_table

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+@:()\[\]-]{0,159}")
_SUFFIX = ".parquet"


def column_path(directory: Path, kind: ColumnKind, name: str) -> Path:
    """Path of a column's file.

    Raises:
        DataError: The name cannot be a file name.
    """
    if _NAME.fullmatch(name) is None:
        raise DataError(
            f"Column name {name[:80]!r}; 1 to 160 letters, digits and '_.,=+@:()[]-' are "
            "required. Rename the column."
        )
    return directory / f"{ColumnKind(kind).value}.{name}{_SUFFIX}"


def write_column(directory: Path, column: Column, *, replace_stored: bool) -> None:
    """Writes a column's file; durable on return."""
    path = column_path(directory, column.kind, column.name)
    if path.exists() and not replace_stored:
        raise StoreError(
            f"{path} is already stored; a column is replaced only on request. "
            "Pass replace=True, or use another name."
        )
    table = pa.table(
        [
            pa.array([key.example_id for key in column.keys], pa.string()),
            pa.array([key.condition for key in column.keys], pa.string()),
            pa.array(column.values, pa.float64()),
        ],
        schema=COLUMN,
    )
    metadata = {
        "sightline.format": "column.1",
        "sightline.kind": column.kind.value,
        "sightline.name": column.name,
        "sightline.spec": canonical_json(dict(column.spec)),
    }
    write_table(path, COLUMN, [table], lambda: metadata)


def read_column(directory: Path, kind: ColumnKind, name: str) -> Column:
    """Reads a column's file."""
    path = column_path(directory, kind, name)
    if not path.is_file():
        stored = ", ".join(f"{k.value} {n}" for k, n in list_columns(directory)) or "none"
        raise StoreError(
            f"{directory.parent} has no {ColumnKind(kind).value} column {name!r}; stored columns: "
            f"{stored}. Compute it first."
        )
    file = open_table(path)
    metadata = metadata_of(file.metadata, path)
    if (metadata.get("sightline.kind"), metadata.get("sightline.name")) != (kind, name):
        raise corrupt_file(path, "the kind or name of another column", "footer")
    if not file.schema_arrow.equals(COLUMN):
        raise corrupt_file(path, "other columns than key and value", "schema")
    with unreadable(path):
        table = file.read(use_threads=False)
    keys = zip(table["example_id"].to_pylist(), table["condition"].to_pylist(), strict=True)
    try:
        return Column(
            name=name,
            kind=ColumnKind(kind),
            keys=tuple(Key(*key) for key in keys),
            values=table["value"].to_numpy().astype(np.float64),
            spec=MappingProxyType(json.loads(metadata["sightline.spec"])),
        )
    except (DataError, KeyError, ValueError) as error:
        raise corrupt_file(path, f"rows that are no column ({error})", "rows") from error


def list_columns(directory: Path) -> list[tuple[ColumnKind, str]]:
    """Kinds and names of the stored columns, sorted."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        kind, _, name = path.name.removesuffix(_SUFFIX).partition(".")
        if path.name.endswith(_SUFFIX) and kind in set(ColumnKind) and _NAME.fullmatch(name):
            found.append((ColumnKind(kind), name))
    return sorted(found)
