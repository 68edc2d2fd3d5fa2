"""Vectors computed elsewhere, read by key from three formats."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sightline.core.errors import DataError
from sightline.data.vector_files import read_vectors

KEYS = ["a", "b"]
TABLE = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=np.float32)


def npz(path):
    np.savez(path, ids=KEYS, embeddings=TABLE)


def listed_safetensors(path):
    save_file({"vectors": TABLE}, path, metadata={"keys": json.dumps(KEYS)})


def named_safetensors(path):
    save_file(dict(zip(KEYS, TABLE, strict=True)), path)


def parquet(path):
    pq.write_table(pa.table({"sha256": KEYS, "vector": TABLE.tolist()}), path)


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (npz, ".npz"),
        (listed_safetensors, ".safetensors"),
        (named_safetensors, ".safetensors"),
        (parquet, ".parquet"),
    ],
)
def test_every_format_gives_the_same(tmp_path, write, suffix):
    path = tmp_path / f"v{suffix}"
    write(path)
    keys, table = read_vectors(path)
    found = dict(zip(keys, table, strict=True))
    for key, row in zip(KEYS, TABLE, strict=True):
        np.testing.assert_array_equal(found[key], row)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_a_damaged_file_is_one_line(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="no vectors by key") as error:
        read_vectors(path)
    assert "\n" not in str(error.value)


def test_pickled_keys_are_refused(tmp_path):
    np.savez(tmp_path / "v.npz", keys=np.array(KEYS, dtype=object), vectors=TABLE)
    with pytest.raises(DataError, match="no vectors by key"):
        read_vectors(tmp_path / "v.npz")


def test_rows_of_two_widths(tmp_path):
    table = pa.table({"id": KEYS, "vector": [[1.0], [1.0, 2.0]]})
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(DataError, match="2 widths"):
        read_vectors(tmp_path / "v.parquet")


def test_more_keys_than_rows(tmp_path):
    np.savez(tmp_path / "v.npz", keys=[*KEYS, "c"], vectors=TABLE)
    with pytest.raises(DataError, match="3 keys beside vectors of shape"):
        read_vectors(tmp_path / "v.npz")


def test_vectors_of_no_numbers_are_refused(tmp_path):
    np.savez(tmp_path / "v.npz", keys=["a", "b"], vectors=np.zeros((2, 0), np.float32))
    with pytest.raises(
        DataError, match=r"shape \(2, 0\); one row of one or more numbers for each key"
    ):
        read_vectors(tmp_path / "v.npz")


def test_whole_numbers_are_no_vectors(tmp_path):
    np.savez(tmp_path / "v.npz", keys=KEYS, vectors=TABLE.astype(np.int64))
    with pytest.raises(DataError, match="type int64"):
        read_vectors(tmp_path / "v.npz")


def test_another_suffix(tmp_path):
    with pytest.raises(DataError, match=r"suffix '\.pt'"):
        read_vectors(tmp_path / "v.pt")
