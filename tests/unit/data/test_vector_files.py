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


def short(path):
    path.write_bytes(b"")


def an_array(path):
    with path.open("wb") as file:
        np.save(file, TABLE)


def corrupt(path):
    np.savez_compressed(path, keys=KEYS, vectors=np.zeros((2, 4096), np.float32))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8] = b"\xff" * 8
    path.write_bytes(bytes(content))


def one_key(path):
    np.savez(path, keys=np.array("a"), vectors=TABLE[:1])


def listed_as(keys):
    return lambda path: save_file({"vectors": TABLE}, path, metadata={"keys": keys})


def whole_tensors(path):
    save_file({"vectors": np.ones((2, 2), np.int32)}, path, metadata={"keys": json.dumps(KEYS)})


def column(values):
    return lambda path: pq.write_table(pa.table({"key": KEYS, "vector": values}), path)


@pytest.mark.parametrize(
    ("write", "suffix", "said"),
    [
        (short, ".npz", "no vectors by key"),
        (an_array, ".npz", r"one array of shape \(2, 3\)"),
        (corrupt, ".npz", "no vectors by key"),
        (one_key, ".npz", r"keys of shape \(\)"),
        (short, ".safetensors", "no vectors by key"),
        (listed_as("5"), ".safetensors", "'5' as keys"),
        (listed_as('{"a": 0, "b": 1}'), ".safetensors", "no JSON list"),
        (listed_as('["a", null]'), ".safetensors", "no JSON list"),
        (listed_as("nothing"), ".safetensors", "no vectors by key"),
        (whole_tensors, ".safetensors", "type I32"),
        (short, ".parquet", "no vectors by key"),
        (column([1.0, 2.0]), ".parquet", "a column of type double"),
        (column(["a", "b"]), ".parquet", "a column of type string"),
        (column([["a"], ["b"]]), ".parquet", "vectors of type object"),
    ],
)
def test_content_of_another_shape_is_one_line(tmp_path, write, suffix, said):
    path = tmp_path / f"v{suffix}"
    write(path)
    with pytest.raises(DataError, match=said) as error:
        read_vectors(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_not_to_be_written_again(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz does not exist; .* Correct the path"):
        read_vectors(tmp_path / "none.npz")
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(DataError, match=r"d\.npz is no file"):
        read_vectors(tmp_path / "d.npz")


@pytest.mark.parametrize("listed", [True, False])
def test_bfloat16_is_read_as_single_precision(tmp_path, listed):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    table = torch.tensor([[1.5, -2.0, 3.25e-30], [4.0, 0.0, 7e30]], dtype=torch.bfloat16)
    named = {key: row.clone() for key, row in zip(KEYS, table, strict=True)}
    metadata = {"keys": json.dumps(KEYS)} if listed else None
    save_tensors({"vectors": table} if listed else named, tmp_path / "v.safetensors", metadata)
    keys, found = read_vectors(tmp_path / "v.safetensors")
    assert keys == KEYS
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, table.float().numpy())


def test_keys_of_bytes_are_text(tmp_path):
    np.savez(tmp_path / "v.npz", keys=np.array([b"a", "\N{BLACK STAR}".encode()]), vectors=TABLE)
    assert read_vectors(tmp_path / "v.npz")[0] == ["a", "\N{BLACK STAR}"]


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
