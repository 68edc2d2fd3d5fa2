"""Columns: one number per record, with the spec that produced it.

Columns meet only through `align`, by key, never by position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from sightline.core.errors import DataError
from sightline.core.types import Key


class ColumnKind(StrEnum):
    """What a column's numbers mean."""

    CORRECT = "correct"  # in [0, 1]; 1 = right, fractions from soft graders
    UNCERTAINTY = "uncertainty"  # raw score, higher is worse
    CONFIDENCE = "confidence"  # calibrated probability of being right
    DRIFT = "drift"  # distance between clean and perturbed, higher is farther


@dataclass(frozen=True, slots=True)
class Column:
    """Values of one quantity, one per key.

    Attributes:
        name: Unique within its kind in a run, such as ``sequence_probability``.
        kind: What the numbers mean.
        keys: Unique record keys.
        values: Float64 (n,), finite; in [0, 1] for correct and confidence.
        spec: JSON-serialisable settings that produced the values.
    """

    name: str
    kind: ColumnKind
    keys: tuple[Key, ...]
    values: Float[np.ndarray, " n"]
    spec: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.shape != (len(self.keys),):
            raise DataError(
                f"Column {self.name!r} has values of shape {values.shape} for {len(self.keys)} "
                "keys; one value per key is required. Drop the rows that have none."
            )
        if len(set(self.keys)) != len(self.keys):
            seen: set[Key] = set()
            double = next(k for k in self.keys if k in seen or seen.add(k))  # type: ignore[func-returns-value]
            raise DataError(
                f"Column {self.name!r} holds key {double} twice; keys must be unique. "
                "Remove the duplicate rows."
            )
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise DataError(
                f"Column {self.name!r} is {values[bad[0]]} at {self.keys[bad[0]]} "
                f"({bad.size} such); values must be finite. Skip and count rows without a value."
            )
        if self.kind in (ColumnKind.CORRECT, ColumnKind.CONFIDENCE):
            outside = np.flatnonzero((values < 0) | (values > 1))
            if outside.size:
                raise DataError(
                    f"Column {self.name!r} is {values[outside[0]]} at {self.keys[outside[0]]}; "
                    f"{self.kind.value} must lie in [0, 1]. Store raw scores as uncertainty."
                )
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.keys)


def align(columns: Sequence[Column]) -> tuple[tuple[Key, ...], Float[np.ndarray, "columns n"]]:
    """Joins columns on their keys.

    Returns:
        The keys present in every column, in the first column's order, and the values, one row per
        column.

    Raises:
        DataError: No key is common to all columns.
    """
    if not columns:
        raise DataError("No columns to align; at least one is required. Pass the columns to join.")
    shared = set(columns[0].keys).intersection(*(set(c.keys) for c in columns[1:]))
    if not shared:
        names = ", ".join(f"{c.name} ({len(c)})" for c in columns)
        raise DataError(
            f"Columns {names} share no key; at least one common record is required. "
            "Check that they come from the same examples and condition."
        )
    keys = tuple(k for k in columns[0].keys if k in shared)
    values = np.empty((len(columns), len(keys)))
    for row, column in zip(values, columns, strict=True):
        where = {key: i for i, key in enumerate(column.keys)}
        row[:] = column.values[[where[key] for key in keys]]
    return keys, values
