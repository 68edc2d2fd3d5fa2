"""Array files: one safetensors file a shard, one tensor per feature (per layer where it has one).

The file's name holds the xxh3-128 of its header, and the header holds the xxh3-128 of every
tensor: naming the file fixes every byte of it, and one tensor can be read and checked alone.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import xxhash

from sightline.core.errors import DataError
from sightline.core.features import ARRAY_AXES, LAYERED, Feature
from sightline.core.types import Record
from sightline.store.disk import DamagedFileError, PendingFile, disk_errors, rename_file

MAX_HEADER = 100_000_000
BLOCK = 1 << 18
DTYPES: Mapping[str, np.dtype] = MappingProxyType(
    {
        "F16": np.dtype("<f2"),
        "F32": np.dtype("<f4"),
        "F64": np.dtype("<f8"),
        "I8": np.dtype("i1"),
        "I16": np.dtype("<i2"),
        "I32": np.dtype("<i4"),
        "I64": np.dtype("<i8"),
        "U8": np.dtype("u1"),
        "U16": np.dtype("<u2"),
        "U32": np.dtype("<u4"),
        "U64": np.dtype("<u8"),
    }
)
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_NAME = re.compile(r"([a-z_]+)(?:\.(0|[1-9][0-9]*))?(?:\.p([1-9][0-9]*))?")
FILE_NAME = re.compile(r"([0-9]{6,})\.([0-9a-f]{32})\.safetensors")
_ORDER = {feature: i for i, feature in enumerate(Feature)}
_RAGGED = frozenset("tcmarsw")  # axes whose length is a record's own: rows lie one after another


@dataclass(frozen=True, slots=True)
class Place:
    """Where one array of one record lies in its shard's array file.

    Attributes:
        feature: The array's feature.
        part: Which tensor of the feature: arrays of one condition, dtype and width share a part.
        start: First row along the tensor's first axis; the record's ragged axes (tokens,
            choices, samples, answers, replies) are flattened into it.
        shape: Shape of the record's array, layer axis included.
        dtype: Numpy name.
    """

    feature: Feature
    part: int
    start: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(slots=True)
class _Tensor:
    name: str
    dtype: np.dtype
    trailing: tuple[int, ...]
    rows: int = 0
    pieces: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Arrays of one feature, condition, dtype and width, with the tensors they lie in."""

    part: int
    dtype: str
    tensors: list[_Tensor]


def tensor_name(feature: Feature, layer: int | None, part: int) -> str:
    """``feature[.layer][.pN]``; part 0 has no suffix."""
    name = feature.value if layer is None else f"{feature.value}.{layer}"
    return name if part == 0 else f"{name}.p{part}"


def _split_shape(feature: Feature, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Rows that an array takes in its tensor, and the shape of one row, layers left out."""
    first = 1 if feature in LAYERED else 0
    last = first
    for axis in ARRAY_AXES[feature][first:]:
        if axis not in _RAGGED:
            break
        last += 1
    return math.prod(shape[first:last]), shape[last:]


def plan_arrays(records: Sequence[Record]) -> tuple[list[_Tensor], list[list[Place]]]:
    """Lays the arrays of a shard out in tensors.

    Returns:
        The tensors in file order, and each record's places.

    Raises:
        DataError: An array's dtype or a record's layers cannot be stored.
    """
    parts: dict[Feature, int] = {}
    kinds: dict[tuple[Any, ...], _Kind] = {}
    tensors: list[_Tensor] = []
    places: list[list[Place]] = []
    for record in records:
        if len(set(record.layers)) != len(record.layers) or min(record.layers, default=0) < 0:
            raise DataError(
                f"Record {record.key} has layers {record.layers}; layer indices must be distinct "
                "and not negative. Name each stored layer once."
            )
        mine = []
        for feature in sorted(record.features, key=_ORDER.__getitem__):
            array = record.features[feature]
            rows, trailing = _split_shape(feature, array.shape)
            layers = record.layers if feature in LAYERED else None
            alike = (feature, record.condition, layers, array.dtype.str.lstrip("<>=|"), trailing)
            kind = kinds.get(alike)
            if kind is None:
                kind = kinds[alike] = _kind(record, feature, trailing, parts.get(feature, 0))
                parts[feature] = kind.part + 1
                tensors += kind.tensors
            start = 0
            for i, tensor in enumerate(kind.tensors):
                piece = array if layers is None else array[i]
                tensor.pieces.append(np.ascontiguousarray(piece, dtype=tensor.dtype))
                start, tensor.rows = tensor.rows, tensor.rows + rows
            mine.append(Place(feature, kind.part, start, array.shape, kind.dtype))
        places.append(mine)
    # Wider items first keeps every tensor aligned, as the safetensors library itself does.
    return sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize), places


def _kind(record: Record, feature: Feature, trailing: tuple[int, ...], part: int) -> _Kind:
    """The tensors, empty yet, of arrays like a record's.

    Raises:
        DataError: The array's dtype cannot be stored.
    """
    found = record.features[feature].dtype
    dtype = found.newbyteorder("<")
    if dtype not in _CODES:
        raise DataError(
            f"{feature.value} of record {record.key} has dtype {found}; one of "
            f"{', '.join(str(d) for d in _CODES)} is required. Convert it."
        )
    layers = record.layers if feature in LAYERED else (None,)
    names = [tensor_name(feature, layer, part) for layer in layers]
    return _Kind(part, dtype.name, [_Tensor(name, dtype, trailing) for name in names])


def write_arrays(
    directory: Path, index: int, run_hash: str, tensors: Sequence[_Tensor]
) -> Path | None:
    """Writes a shard's array file; durable on return. None if the shard has no arrays."""
    if not tensors:
        return None
    digests = {tensor.name: "0" * 32 for tensor in tensors}
    head = b""

    def fill(file: PendingFile) -> None:
        # The header's length is known before its digests are, so that each byte is hashed and
        # written while it is in the processor's cache.
        nonlocal head
        file.append(memoryview(_header(index, run_hash, tensors, digests)))
        for tensor in tensors:
            digest = xxhash.xxh3_128()
            for view in _views(tensor):
                digest.update(view)
                file.append(view)
            digests[tensor.name] = digest.hexdigest()
        head = _header(index, run_hash, tensors, digests)
        file.patch(0, head)

    def path() -> Path:
        return directory / f"{index:06d}.{xxhash.xxh3_128_hexdigest(head)}.safetensors"

    return rename_file(directory / f"{index:06d}.safetensors", fill, path)


def _header(
    index: int, run_hash: str, tensors: Sequence[_Tensor], digests: Mapping[str, str]
) -> bytes:
    entries: dict[str, Any] = {}
    offset = 0
    for tensor in tensors:
        size = sum(piece.nbytes for piece in tensor.pieces)
        entries[tensor.name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": [tensor.rows, *tensor.trailing],
            "data_offsets": [offset, offset + size],
        }
        offset += size
    sums = {f"xxh3.{name}": digest for name, digest in digests.items()}
    metadata = {"format": "sightline.arrays.1", "run": run_hash, "shard": str(index), **sums}
    text = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _views(tensor: _Tensor) -> Iterator[memoryview]:
    """The tensor's bytes in blocks that fit a cache; small pieces are joined."""
    small: list[memoryview] = []
    waiting = 0
    for piece in tensor.pieces:
        view = _bytes(piece)
        if len(view) < BLOCK // 4:
            small.append(view)
            waiting += len(view)
            if waiting < BLOCK:
                continue
            view, small, waiting = memoryview(b"".join(small)), [], 0
        elif small:
            yield memoryview(b"".join(small))
            small, waiting = [], 0
        for at in range(0, len(view), BLOCK):
            yield view[at : at + BLOCK]
    if small:
        yield memoryview(b"".join(small))


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One entry of an array file's header."""

    name: str
    feature: Feature
    layer: int | None
    part: int
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int
    digest: str


def read_header(path: Path) -> tuple[dict[str, str], dict[str, StoredTensor], int]:
    """Reads and checks an array file's header against the checksum in the file's name.

    Returns:
        Metadata, tensors by name, and the byte at which data starts.

    Raises:
        DamagedFileError: Anything about the header is not as `write_arrays` leaves it.
    """
    named = FILE_NAME.fullmatch(path.name)
    with disk_errors(f"Reading {path}"), path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        size_bytes = file.read(8)
        size = int.from_bytes(size_bytes, "little")
        if len(size_bytes) < 8 or not 2 <= size <= min(MAX_HEADER, total - 8):
            raise corrupt_arrays(path, f"a header of {size} bytes in {total}", "header length")
        text = file.read(size)
    if named is None or xxhash.xxh3_128_hexdigest(size_bytes + text) != named[2]:
        raise corrupt_arrays(path, "a checksum that differs from its name", "header")
    try:
        header = json.loads(text, object_pairs_hook=_distinct)
        metadata = header.pop("__metadata__")
        tensors = {name: _parse(name, entry, metadata) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise corrupt_arrays(path, f"a wrong header ({error})", "header") from None
    end = 0
    for tensor in sorted(tensors.values(), key=lambda t: (t.start, t.stop)):
        if tensor.start != end:
            raise corrupt_arrays(path, f"byte {end} in no tensor or in two", "header")
        end = tensor.stop
    if end != total - 8 - size:
        raise corrupt_arrays(path, f"{total} bytes for {8 + size + end}", "end of file")
    return metadata, tensors, 8 + size


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key twice")
    return out


def _parse(name: str, entry: Mapping[str, Any], metadata: Mapping[str, str]) -> StoredTensor:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"tensor name {name!r}")
    feature = Feature(match[1])
    if feature not in ARRAY_AXES or (feature in LAYERED) != (match[2] is not None):
        raise ValueError(f"tensor name {name!r}")
    dtype = DTYPES[entry["dtype"]]
    shape, (start, stop) = tuple(entry["shape"]), entry["data_offsets"]
    for number in (*shape, start, stop):
        if type(number) is not int or not 0 <= number < 1 << 62:
            raise ValueError(f"{number!r} in tensor {name}")
    if not shape or math.prod(shape) * dtype.itemsize != stop - start:
        raise ValueError(f"tensor {name} of shape {shape} in bytes {start} to {stop}")
    return StoredTensor(
        name=name,
        feature=feature,
        layer=None if match[2] is None else int(match[2]),
        part=int(match[3] or 0),
        dtype=dtype,
        shape=shape,
        start=start,
        stop=stop,
        digest=metadata[f"xxh3.{name}"],
    )


def read_parts(
    path: Path,
    wanted: Collection[tuple[Feature, int]],
    layers: Collection[int] | None,
    header: tuple[dict[str, str], dict[str, StoredTensor], int],
) -> dict[tuple[Feature, int], tuple[np.ndarray, tuple[int, ...]]]:
    """Reads the wanted (feature, part) pairs, each checked before it is handed out.

    Args:
        path: The array file.
        wanted: Features and parts to read.
        layers: Layers of layered features to read; None reads all.
        header: What `read_header` returned.

    Returns:
        For each pair the array, layers stacked along a first axis if the feature has them, and
        the layers read.

    Raises:
        DamagedFileError: A tensor's bytes do not match its checksum.
    """
    _, tensors, data_at = header
    found: dict[tuple[Feature, int], list[StoredTensor]] = {pair: [] for pair in wanted}
    for tensor in tensors.values():
        keep = tensor.layer is None or layers is None or tensor.layer in layers
        if keep and (tensor.feature, tensor.part) in found:
            found[tensor.feature, tensor.part].append(tensor)
    out = {}
    with disk_errors(f"Reading {path}"), path.open("rb", buffering=0) as file:
        for pair, group in found.items():
            if not group:
                continue
            if len({(t.shape, t.dtype) for t in group}) != 1:
                raise corrupt_arrays(path, "layers of unequal shape", f"tensor {group[0].name}")
            buffer = np.empty((len(group), *group[0].shape), dtype=group[0].dtype)
            for row, tensor in zip(buffer, group, strict=True):
                view = _bytes(row)
                file.seek(data_at + tensor.start)
                at = 0
                while at < len(view) and (count := file.readinto(view[at:])):
                    at += count
                if at < len(view) or xxhash.xxh3_128_hexdigest(view) != tensor.digest:
                    raise corrupt_arrays(
                        path, "bytes that differ from their checksum", f"tensor {tensor.name}"
                    )
            buffer.setflags(write=False)
            stored = tuple(t.layer for t in group if t.layer is not None)
            out[pair] = (buffer if pair[0] in LAYERED else buffer[0], stored)
    return out


def slice_of(place: Place, array: np.ndarray) -> np.ndarray:
    """The record's own array, a read-only view.

    Raises:
        ValueError: The place lies outside the tensor, or has another shape.
    """
    rows, trailing = _split_shape(place.feature, place.shape)
    layered = place.feature in LAYERED
    axes = array.shape[1:] if layered else array.shape
    if place.start < 0 or place.start + rows > axes[0] or trailing != axes[1:]:
        raise ValueError(
            f"{place.feature.value} of shape {place.shape} from row {place.start} in a tensor of "
            f"shape {axes}"
        )
    here = slice(place.start, place.start + rows)
    if layered:
        return array[:, here].reshape(len(array), *place.shape[1:])
    return array[here].reshape(place.shape)


def corrupt_arrays(path: Path, found: str, where: str) -> DamagedFileError:
    """The error for a damaged array file."""
    derived = path.parent.parent.name == "derived"
    again = "derive this signal again" if derived else "resume the run to collect this shard again"
    remedy = f"Remove {path.name.split('.')[0]}.parquet beside it and {again}."
    return DamagedFileError(path, found, where, remedy)
