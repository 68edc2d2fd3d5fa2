"""Sealed files: one changed byte anywhere is noticed."""

from __future__ import annotations

import errno
import gc
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from sightline.core.errors import CorruptStoreError, DiskError
from sightline.store.disk import PendingFile, write_file
from sightline.store.sealed import (
    SEAL_KEY,
    check_table,
    dump_document,
    load_document,
    metadata_of,
    open_table,
    read_group,
    reading,
    write_table,
)

SCHEMA = pa.schema([("text", pa.string()), ("value", pa.float64())])
TABLE = pa.table({"text": ["xxh3-128:" + "0" * 32, "é"], "value": [1.5, -0.0]}, schema=SCHEMA)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    write_table(path, SCHEMA, [TABLE, TABLE], lambda: {"note": "xxh3-128:" + "0" * 32})
    return path


def test_a_table_round_trips_even_if_it_quotes_a_seal(table: Path) -> None:
    file = open_table(table)
    assert file.read().equals(pa.concat_tables([TABLE, TABLE]))
    assert file.num_row_groups == 2
    metadata = metadata_of(file.metadata, table)
    assert metadata["note"] == "xxh3-128:" + "0" * 32
    assert metadata[SEAL_KEY] != metadata["note"]


def test_the_seal_is_the_hash_of_the_file_with_its_digits_zeroed(table: Path) -> None:
    data = table.read_bytes()
    seal = pq.read_metadata(table).metadata[SEAL_KEY.encode()]
    assert data.count(seal) == 1
    zeroed = data.replace(seal, b"xxh3-128:" + b"0" * 32)
    assert seal == b"xxh3-128:" + xxhash.xxh3_128_hexdigest(zeroed).encode()


def test_every_single_byte_of_a_table_matters(table: Path) -> None:
    data = table.read_bytes()
    for at in range(len(data)):
        table.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(CorruptStoreError):
            open_table(table)


@pytest.mark.parametrize("keep", [0, 3, 7, 8, 11, 12, 40, -1, -8])
def test_a_truncated_table_is_corrupt(table: Path, keep: int) -> None:
    table.write_bytes(table.read_bytes()[:keep])
    with pytest.raises(CorruptStoreError, match=r"t\.parquet"):
        open_table(table)


def test_a_table_with_a_tail_or_a_head_is_corrupt(table: Path) -> None:
    data = table.read_bytes()
    for changed in (data + b"\0", b"\0" + data, data + data):
        table.write_bytes(changed)
        with pytest.raises(CorruptStoreError):
            open_table(table)


def test_an_unsealed_table_is_corrupt(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "plain.parquet")
    with pytest.raises(CorruptStoreError, match="no seal"):
        open_table(tmp_path / "plain.parquet")


def test_a_sealed_file_that_is_no_parquet_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "fake.parquet"
    mark = b"PAR1" + b"xxh3-128:" + b"0" * 32
    tail = (9 + 32).to_bytes(4, "little") + b"PAR1"
    seal = xxhash.xxh3_128_hexdigest(mark + tail).encode()
    path.write_bytes(mark[:-32] + seal + tail)
    with pytest.raises(CorruptStoreError, match="unreadable Parquet"):
        open_table(path)


def test_damage_after_the_check_is_caught_by_page_checksums(table: Path) -> None:
    footer = check_table(table)
    assert read_group(table, footer, 1).equals(TABLE)
    data = bytearray(table.read_bytes())
    column = footer.row_group(1).column(1)
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    table.write_bytes(data)
    with pytest.raises(CorruptStoreError, match="CRC"):
        read_group(table, footer, 1)
    table.unlink()
    with pytest.raises(CorruptStoreError, match="no file"):
        read_group(table, footer, 0)


def test_a_document_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    document = {"b": [1, 2.5, None], "a": 'é\ud800"xxh3-128:' + "0" * 32}
    path.write_bytes(dump_document(document))
    assert load_document(path) == document
    assert json.loads(path.read_text())["seal"].startswith("xxh3-128:")
    assert list(load_document(path)) == ["b", "a"]


def test_every_single_byte_of_a_document_matters(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    data = dump_document({"a": 1, "b": {"c": "text"}})
    for at in range(len(data)):
        for bit in (1, 0x20):
            path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
            with pytest.raises(CorruptStoreError, match=r"d\.json"):
                load_document(path)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(CorruptStoreError):
            load_document(path)


def test_sealed_text_that_is_no_json_object(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    for text in ('[{\n "seal": "xxh3-128:%s"\n}\n', '[1, {"x": 1},\n{"seal": "xxh3-128:%s"\n}\n'):
        zeroed = (text % ("0" * 32)).encode()
        path.write_bytes((text % xxhash.xxh3_128_hexdigest(zeroed)).encode())
        with pytest.raises(CorruptStoreError, match="not JSON"):
            load_document(path)


def test_a_pending_file_counts_and_hashes(tmp_path: Path) -> None:
    seen: list[PendingFile] = []

    def fill(file: PendingFile) -> None:
        assert file.write(b"abc") == 3
        file.append(memoryview(b"de"))
        file.flush()
        assert (file.tell(), file.tail(1)) == (5, b"bcde")
        file.patch(0, b"X")
        seen.append(file)

    write_file(tmp_path / "f", fill)
    assert (tmp_path / "f").read_bytes() == b"Xbcde"
    assert seen[0].digest.hexdigest() == xxhash.xxh3_128_hexdigest(b"abc")


def test_metadata_that_is_no_text_is_corrupt(table: Path) -> None:
    footer = SimpleNamespace(metadata={b"note": b"\xff"})
    with pytest.raises(CorruptStoreError, match="metadata that is not UTF-8"):
        metadata_of(cast("pq.FileMetaData", footer), table)


def test_a_disk_that_fails_is_not_called_damage(table: Path) -> None:
    with pytest.raises(DiskError, match="Input/output error"), reading(table):
        raise OSError(errno.EIO, "Input/output error")


def test_a_file_that_shrinks_while_it_is_checked_is_corrupt(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its footer was read whole; what lies before it is gone when it is hashed."""
    found = io.BytesIO(table.read_bytes())

    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b"" if self.tell() == 0 else super().read(size)

    monkeypatch.setattr(Path, "open", lambda *_args, **_more: Shrinking(found.getvalue()))
    with pytest.raises(CorruptStoreError, match="missing bytes"):
        check_table(table)


def test_a_sealed_list_is_no_document(tmp_path: Path) -> None:
    text = dump_document({"a": 1}).decode()
    body = text.replace("{", "[{", 1).rstrip()[:-1]
    zeroed = f'{body.rpartition("xxh3-128:")[0]}xxh3-128:{"0" * 32}"\n}}\n'
    assert zeroed.startswith("[")
    path = tmp_path / "d.json"
    seal = xxhash.xxh3_128_hexdigest(zeroed.encode())
    path.write_text(zeroed.replace("0" * 32, seal))
    with pytest.raises(CorruptStoreError, match="not JSON"):
        load_document(path)


@pytest.mark.parametrize("ends", ["closed", "forgotten"])
def test_a_writer_that_was_given_up_writes_into_no_other_file(tmp_path: Path, ends: str) -> None:
    """Its descriptor's number is that of the next file by then."""
    writers = []

    def fail(file: PendingFile) -> None:
        writers.append(pq.ParquetWriter(file, SCHEMA))
        writers[0].write_table(TABLE)
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(file: PendingFile) -> None:
        file.write(b"who")
        if ends == "closed":
            writers[0].close()
        writers.clear()
        gc.collect()
        file.write(b"le")

    with pytest.raises(DiskError):
        write_file(tmp_path / "a.parquet", fail)
    write_file(tmp_path / "b", fill)
    assert (tmp_path / "b").read_bytes() == b"whole"
