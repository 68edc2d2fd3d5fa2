"""The rows of one shard: what the rename of its Parquet file commits."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sightline.core.errors import DataError, MissingFeatureError
from sightline.core.features import ARRAY_AXES, LAYERED, Feature
from sightline.core.types import Example, Key, Quarantined, Record, Refused, Truth
from sightline.store.schema import ROWS, decode_generations, encode_generation, storable
from sightline.store.sealed import (
    SEAL_KEY,
    corrupt_file,
    metadata_of,
    open_table,
    unreadable,
    write_table,
)
from sightline.store.shards import (
    FILE_NAME,
    Place,
    corrupt_arrays,
    plan_arrays,
    read_header,
    read_parts,
    slice_of,
    write_arrays,
)

Parts = Mapping[tuple[Feature, int], tuple[np.ndarray, tuple[int, ...]]]
"""Tensors by feature and part, layers stacked, with the layers read."""

OBSERVED: Mapping[str, Truth] = MappingProxyType(
    {"ok": "same", "changed": "changed", "unknown": "unknown"}
)
"""Statuses of rows that hold a record, with the truth under its condition that each stands for."""

STATUS: Mapping[Truth, str] = MappingProxyType({truth: name for name, truth in OBSERVED.items()})
"""The status of a record by the truth under its condition."""

_ERROR, _REFUSED = "error", "refused"


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a shard's footer says about it, without reading rows or arrays.

    Attributes:
        records: Number of observed records.
        quarantined: Number of error rows.
        refused: Number of rows of conditions that do not exist for their example.
        changed: Number of records whose right answer changes under their condition.
        unknown: Number of records whose right answer under their condition is not known.
        features: Array features of at least one record.
        layers: Layers of at least one layered array.
        conditions: Conditions of at least one row.
        arrays: Name of the array file, or None.
    """

    records: int
    quarantined: int
    refused: int
    changed: int
    unknown: int
    features: frozenset[Feature]
    layers: frozenset[int]
    conditions: tuple[str, ...]
    arrays: str | None


def write_shard(
    directory: Path,
    index: int,
    run_hash: str,
    records: Sequence[Record],
    quarantined: Sequence[Quarantined],
    refused: Sequence[Refused] = (),
) -> None:
    """Writes a shard's arrays, then its rows; the rename of the rows is the commit."""
    tensors, places = plan_arrays(records)
    arrays = write_arrays(directory, index, run_hash, tensors)
    rows = [_row(record, mine) for record, mine in zip(records, places, strict=True)]
    rows += [_empty_row(_ERROR, row.key, row.reason) for row in quarantined]
    rows += [_empty_row(_REFUSED, row.key, row.reason) for row in refused]
    counts = {
        "refused": len(refused),
        "changed": sum(record.truth == "changed" for record in records),
        "unknown": sum(record.truth == "unknown" for record in records),
    }
    layered = {layer for r in records if r.features.keys() & LAYERED for layer in r.layers}
    present = {feature for r in records for feature in r.features}
    metadata = {
        "sightline.format": "rows.1",
        "sightline.run": run_hash,
        "sightline.shard": str(index),
        "sightline.arrays": "" if arrays is None else arrays.name,
        "sightline.summary": json.dumps(
            {
                "records": len(records),
                "quarantined": len(quarantined),
                **{name: count for name, count in counts.items() if count},
                "features": [f.value for f in Feature if f in present],
                "layers": sorted(layered),
                "conditions": list(dict.fromkeys(row["condition"] for row in rows)),
            }
        ),
    }
    table = pa.Table.from_pylist(rows, schema=ROWS)
    write_table(rows_path(directory, index), ROWS, [table], lambda: metadata)


def rows_path(directory: Path, index: int) -> Path:
    """Path of a shard's Parquet file."""
    return directory / f"{index:06d}.parquet"


def _row(record: Record, places: Sequence[Place]) -> dict[str, Any]:
    return {
        "example_id": record.example.id,
        "condition": record.condition,
        "status": STATUS[record.truth],
        "reason": None,
        "greedy": None if record.greedy is None else encode_generation(record.greedy),
        "samples": [encode_generation(sample) for sample in record.samples],
        "layers": list(record.layers),
        "arrays": [encode_place(place) for place in places],
    }


def _empty_row(status: str, key: Key, reason: str) -> dict[str, Any]:
    return {
        "example_id": key.example_id,
        "condition": key.condition,
        "status": status,
        "reason": storable(reason),
        "greedy": None,
        "samples": [],
        "layers": [],
        "arrays": [],
    }


class StoredShard:
    """One committed shard, its rows' checksum verified.

    Attributes:
        summary: What the footer says.
        seal: Checksum of the rows; what is derived from them names it.
    """

    def __init__(self, directory: Path, index: int, run_hash: str) -> None:
        self._path = rows_path(directory, index)
        self._file: pq.ParquetFile = open_table(self._path)
        metadata = metadata_of(self._file.metadata, self._path)
        for name, want in (("run", run_hash), ("shard", str(index)), ("format", "rows.1")):
            if metadata.get(f"sightline.{name}") != want:
                raise corrupt_file(self._path, f"the {name} of another place", "footer")
        if not self._file.schema_arrow.equals(ROWS):
            raise corrupt_file(self._path, "other columns than a shard has", "schema")
        summary = json.loads(metadata["sightline.summary"])
        self.summary = ShardSummary(
            records=summary["records"],
            quarantined=summary["quarantined"],
            refused=summary.get("refused", 0),
            changed=summary.get("changed", 0),
            unknown=summary.get("unknown", 0),
            features=frozenset(Feature(name) for name in summary["features"]),
            layers=frozenset(summary["layers"]),
            conditions=tuple(summary["conditions"]),
            arrays=metadata["sightline.arrays"] or None,
        )
        self.seal = metadata[SEAL_KEY]
        self._index = index
        self._run_hash = run_hash

    def quarantined(self) -> Iterator[Quarantined]:
        """Error rows in stored order."""
        if self.summary.quarantined:
            yield from (Quarantined(key, reason) for key, reason in self._empty_rows(_ERROR))

    def refused(self) -> Iterator[Refused]:
        """Rows of conditions that do not exist for their example, in stored order."""
        if self.summary.refused:
            yield from (Refused(key, reason) for key, reason in self._empty_rows(_REFUSED))

    def _empty_rows(self, status: str) -> Iterator[tuple[Key, str]]:
        for row in self._rows(["example_id", "condition", "status", "reason"]).to_pylist():
            if row["status"] == status:
                yield Key(row["example_id"], row["condition"]), row["reason"]

    def records(
        self,
        examples: Mapping[str, Example],
        *,
        condition: str | None,
        features: Collection[Feature] | None,
        layers: Collection[int] | None,
        derived: Mapping[Key, Mapping[Feature, np.ndarray]] = MappingProxyType({}),
    ) -> Iterator[Record]:
        """Observed records in stored order, arrays verified; see `RunStore.records`.

        Args:
            examples: The shard's examples by id.
            condition: Only records of this condition.
            features: Array features to read; None reads all.
            layers: Layers of layered features to read; None reads all.
            derived: Further features by key, shown as the records' own.
        """
        if condition is not None and condition not in self.summary.conditions:
            return
        table = self._rows(None)
        keep = np.isin(table["status"].to_numpy().astype(str), list(OBSERVED))
        if condition is not None:
            keep &= table["condition"].to_numpy() == condition
        table = table.filter(pa.array(keep)).combine_chunks()
        if table.num_rows == 0:
            return
        wanted = set(ARRAY_AXES if features is None else features)
        try:
            yield from self._decode(table, examples, wanted, layers, derived)
        except (DataError, ValueError, KeyError, TypeError) as error:
            raise corrupt_file(self._path, f"rows that do not fit ({error})", "rows") from error

    def stacked(self, features: Collection[Feature]) -> dict[Feature, np.ndarray]:
        """Arrays of all records at once; see `RunStore.stacked`."""
        table = self._rows(["status", "arrays"])
        keep = np.isin(table["status"].to_numpy().astype(str), list(OBSERVED))
        table = table.filter(pa.array(keep)).combine_chunks()
        if not features or not table.num_rows:
            return {}
        nested = table["arrays"].chunk(0)
        places = nested.flatten()
        named = places.field("feature").to_numpy(zero_copy_only=False)
        numbers = np.repeat(np.arange(table.num_rows), nested.value_lengths().to_numpy())
        return {
            feature: self._stack(
                feature,
                places.filter(pa.array(named == feature.value)),
                numbers[named == feature.value],
                table.num_rows,
            )
            for feature in features
        }

    def _stack(
        self, feature: Feature, places: pa.StructArray, numbers: np.ndarray, count: int
    ) -> np.ndarray:
        """One feature of all records, from its places and the numbers of the records they are of.

        Raises:
            DataError: A record lacks the feature, or they differ in shape.
            DamagedFileError: The places are not those of the tensors.
        """
        shapes = sorted({tuple(shape) for shape in places.field("shape").to_pylist()})
        if not np.array_equal(numbers, np.arange(count)) or len(shapes) != 1:
            raise DataError(
                f"{self._path} has {feature.value} for {len(set(numbers.tolist()))} of {count} "
                f"records, of shapes such as {shapes[:3]}; one for every record, all of the "
                "same shape, is required. Remove the file and resume the run to collect this shard "
                "again."
            )
        part_of = places.field("part").to_numpy()
        wanted = {(feature, int(part)) for part in part_of}
        owner = (self._run_hash, self._index)
        parts = named_parts(self._path, self.summary.arrays, owner, wanted, None)
        stacks = []
        for _, part in sorted(wanted):
            rows = np.flatnonzero(part_of == part)
            try:
                first = decode_place(places[int(rows[0])].as_py())
                array = stacked_array(first, places.field("start").to_numpy()[rows], parts)
            except (ValueError, KeyError, TypeError) as error:
                raise corrupt_file(self._path, f"rows that do not fit ({error})", "rows") from error
            stacks.append((rows, array))
        if len(stacks) == 1:
            return stacks[0][1]
        dtype = np.result_type(*(array for _, array in stacks))
        out = np.empty((count, *shapes[0]), dtype=dtype)
        for rows, array in stacks:
            out[rows] = array
        return out

    def _decode(
        self,
        table: pa.Table,
        examples: Mapping[str, Example],
        wanted: Collection[Feature],
        layers: Collection[int] | None,
        derived: Mapping[Key, Mapping[Feature, np.ndarray]],
    ) -> Iterator[Record]:
        rows = table.select(["example_id", "condition", "status", "layers", "arrays"]).to_pylist()
        names = {feature.value for feature in wanted}
        every = names == {feature.value for feature in ARRAY_AXES}
        places = [
            [decode_place(entry) for entry in row["arrays"] if every or entry["feature"] in names]
            for row in rows
        ]
        parts = named_parts(
            self._path,
            self.summary.arrays,
            (self._run_hash, self._index),
            {(p.feature, p.part) for mine in places for p in mine},
            layers,
        )
        greedy = decode_generations(table["greedy"].chunk(0))
        nested = table["samples"].chunk(0)
        samples = decode_generations(nested.values)
        bounds = nested.offsets.to_pylist()
        for i, (row, mine) in enumerate(zip(rows, places, strict=True)):
            kept = tuple(n for n in row["layers"] if layers is None or n in layers)
            arrays = {}
            for place in mine:
                if place.feature in LAYERED and layers is not None:
                    self._require_layers(layers, row["layers"])
                arrays[place.feature] = placed_array(place, parts, kept)
            key = Key(row["example_id"], row["condition"])
            yield Record(
                example=examples[row["example_id"]],
                condition=row["condition"],
                greedy=greedy[i],
                samples=tuple(s for s in samples[bounds[i] : bounds[i + 1]] if s is not None),
                features={**arrays, **derived.get(key, {})},
                layers=kept,
                truth=OBSERVED[row["status"]],
            )

    def _require_layers(self, asked: Collection[int], stored: Sequence[int]) -> None:
        absent = sorted(set(asked) - set(stored))
        if absent:
            raise MissingFeatureError(
                f"{self._path.parent.parent} has no hidden states of layers {absent}; layers "
                f"{list(stored)} were stored. Ask for those, or collect again with --layers."
            )

    def _rows(self, columns: list[str] | None) -> pa.Table:
        with unreadable(self._path):
            return self._file.read(columns=columns, use_threads=False)


def named_parts(
    path: Path,
    arrays: str | None,
    owner: tuple[str, int],
    wanted: Collection[tuple[Feature, int]],
    layers: Collection[int] | None,
) -> Parts:
    """Reads (feature, part) pairs of the array file that a table's footer names.

    Args:
        path: The table.
        arrays: Name of the array file beside it, or None.
        owner: Hash of the run and index of the shard that the array file must name.
        wanted: Features and parts to read.
        layers: Layers of layered features to read; None reads all.
    """
    if not wanted or arrays is None:
        return {}
    if FILE_NAME.fullmatch(arrays) is None:
        raise corrupt_file(path, "an array file of a wrong name", "footer")
    file = path.parent / arrays
    if not file.is_file():
        raise corrupt_arrays(file, "no file", "the whole file")
    header = read_header(file)
    if (header[0].get("run"), header[0].get("shard")) != (owner[0], str(owner[1])):
        raise corrupt_arrays(file, "the run or shard of another place", "header")
    return read_parts(file, wanted, layers, header)


def placed_array(place: Place, parts: Parts, layers: tuple[int, ...]) -> np.ndarray:
    """One record's array out of what `named_parts` read.

    Raises:
        KeyError: Its tensor was not read.
        ValueError: The tensor is of another dtype, shape or other layers.
    """
    shape = (len(layers), *place.shape[1:]) if place.feature in LAYERED else place.shape
    if math.prod(shape) == 0 and (place.feature, place.part) not in parts:
        return np.empty(shape, dtype=place.dtype)
    array, stored = parts[place.feature, place.part]
    if array.dtype != np.dtype(place.dtype) or stored != (
        layers if place.feature in LAYERED else ()
    ):
        raise ValueError(f"{place.feature.value} of dtype {array.dtype}, layers {stored}")
    return slice_of(place, array)


def stacked_array(place: Place, starts: np.ndarray, parts: Parts) -> np.ndarray:
    """All arrays of one unlayered tensor out of what `named_parts` read, along a first axis.

    Args:
        place: The first of them; all are of its shape.
        starts: Where each begins.
        parts: What was read.

    Raises:
        KeyError: The tensor was not read.
        ValueError: It is of another dtype, shape or length.
    """
    placed_array(place, parts, ())
    array, _ = parts[place.feature, place.part]
    rows = len(array) // len(starts)
    shape = (len(starts), *place.shape)
    if math.prod(shape) != array.size or not np.array_equal(starts, np.arange(len(starts)) * rows):
        raise ValueError(f"{len(starts)} of {place.feature.value} in a tensor of {len(array)} rows")
    return array.reshape(shape)


def encode_place(place: Place) -> dict[str, Any]:
    """The Parquet struct of one array's place."""
    return {
        "feature": place.feature.value,
        "part": place.part,
        "start": place.start,
        "shape": list(place.shape),
        "dtype": place.dtype,
    }


def decode_place(entry: Mapping[str, Any]) -> Place:
    """The place that a Parquet struct holds.

    Raises:
        ValueError: It names no array feature.
    """
    feature = Feature(entry["feature"])
    if feature not in ARRAY_AXES:
        raise ValueError(f"{feature.value} is no array")
    return Place(
        feature=feature,
        part=entry["part"],
        start=entry["start"],
        shape=tuple(entry["shape"]),
        dtype=entry["dtype"],
    )
