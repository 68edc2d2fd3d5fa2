"""Vectors of pictures that were computed elsewhere: .npz, .safetensors and Parquet files by key.

A key is the picture's id in the data set, its path, its file name or the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sightline.core.errors import DataError

SUFFIXES = (".npz", ".safetensors", ".parquet")

_KEYS = ("keys", "ids", "id", "key", "image_id", "sha256", "path", "file_name")
_VECTORS = ("vectors", "vector", "embeddings", "embedding", "features")
_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What readers raise on bytes that are not what the suffix says; RuntimeError for encrypted ones.
"""
_TENSORS = ("F64", "F32", "F16", "BF16")


def read_vectors(path: Path) -> tuple[list[str], Float[np.ndarray, "n e"]]:
    """Reads keys and their vectors; half precision of 8 exponent bits (bfloat16) as single.

    ``.npz``: arrays ``keys`` (text) and ``vectors`` (one row a key). ``.safetensors``: a tensor
    ``vectors`` with the keys as JSON list under ``keys`` of the metadata, or one tensor a key.
    ``.parquet``: a column of keys and one of lists.

    Raises:
        DataError: The file cannot be read, has no such content, or rows of two widths.
    """
    read = {".npz": _npz, ".safetensors": _safetensors, ".parquet": _parquet}.get(
        path.suffix.lower()
    )
    if read is None:
        raise DataError(
            f"{path} has the suffix {path.suffix!r}; one of {', '.join(SUFFIXES)} is required. "
            "Convert the file."
        )
    if not path.is_file():
        raise DataError(
            f"{path} {'is no file' if path.exists() else 'does not exist'}; a file of vectors by "
            "key is required. Correct the path."
        )
    try:
        keys, table = read(path)
    except _DAMAGE as error:
        raise DataError(
            f"{path} holds no vectors by key ({' '.join(str(error).split())[:160]}); arrays named "
            "keys and vectors are required. Write it again."
        ) from None
    if table.ndim != 2 or len(keys) != len(table) or not table.size:
        raise DataError(
            f"{path} holds {len(keys)} keys beside vectors of shape {table.shape}; one row of "
            "one or more numbers for each key is required. Write it again."
        )
    return keys, table


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _npz(path: Path) -> tuple[list[str], np.ndarray]:
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        raise ValueError(f"one array of shape {content.shape} and no archive of named ones")
    with content:
        keys = content[_named(list(content), _KEYS)]
        if keys.ndim != 1:
            raise ValueError(f"keys of shape {keys.shape}")
        if keys.dtype.kind == "S":
            keys = np.char.decode(keys, "utf-8")
        return [str(key) for key in keys], _numbers(content[_named(list(content), _VECTORS)])


def _safetensors(path: Path) -> tuple[list[str], np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            names = list(file.keys())
            listed = (file.metadata() or {}).get("keys")
            if listed is not None:
                return _listed(listed), _tensor(path, file, _named(names, _VECTORS))
            return names, np.stack([_tensor(path, file, name) for name in names])
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _listed(text: str) -> list[str]:
    keys = json.loads(text)
    if not isinstance(keys, list) or not all(type(key) in (str, int) for key in keys):
        raise ValueError(f"its metadata has {text[:40]!r} as keys, and no JSON list of texts")
    return [str(key) for key in keys]


def _tensor(path: Path, file: Any, name: str) -> np.ndarray:
    """One tensor; NumPy knows no bfloat16, which is the upper half of a single."""
    kind = file.get_slice(name).get_dtype()
    if kind not in _TENSORS:
        raise ValueError(f"vectors of type {kind}")
    if kind != "BF16":
        return np.asarray(file.get_tensor(name))
    with path.open("rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
        entry = json.loads(raw.read(length))[name]
        start, end = entry["data_offsets"]
        raw.seek(8 + length + start)
        upper = np.frombuffer(raw.read(end - start), dtype="<u2").astype(np.uint32)
    return (upper << 16).view(np.float32).reshape(entry["shape"])


def _parquet(path: Path) -> tuple[list[str], np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        keys = table[_named(table.column_names, _KEYS)].to_pylist()
        vectors = table[_named(table.column_names, _VECTORS)].combine_chunks()
        if not hasattr(vectors, "value_lengths"):
            raise ValueError(f"a column of type {vectors.type} and none of lists")
        lengths = set(vectors.value_lengths().to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise ValueError(f"rows of {len(lengths)} widths")
        flat: Any = vectors.flatten().to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None
    return [str(key) for key in keys], _numbers(flat.reshape(len(keys), -1))


def _named(present: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in present:
            return name
    raise ValueError(f"nothing called {wanted[0]} among {', '.join(present)[:80] or 'nothing'}")


def _numbers(array: np.ndarray) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"vectors of type {array.dtype}")
    return array
