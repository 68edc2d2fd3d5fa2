"""Array files: hostile headers are refused, checksums cover every byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from run_plans import make_examples, make_record

from sightline.core.errors import CorruptStoreError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.store.shards import (
    Place,
    plan_arrays,
    read_header,
    read_parts,
    slice_of,
    tensor_name,
    write_arrays,
)

DIGEST = xxhash.xxh3_128_hexdigest(b"\0" * 8)


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


def crafted(tmp_path: Path, text: str, data: bytes = b"\0" * 8) -> Path:
    """A file whose name vouches for its header, so that only the header's own checks remain."""
    raw = text.encode("utf-8", "surrogatepass")
    head = len(raw).to_bytes(8, "little") + raw
    path = tmp_path / f"000001.{xxhash.xxh3_128_hexdigest(head)}.safetensors"
    path.write_bytes(head + data)
    return path


def header(tensors: dict[str, Any], **metadata: str) -> str:
    sums = {f"xxh3.{name}": DIGEST for name in tensors}
    return json.dumps({"__metadata__": {"run": "r", "shard": "1", **sums, **metadata}, **tensors})


def test_a_good_crafted_header_is_read(tmp_path: Path) -> None:
    metadata, tensors, data_at = read_header(crafted(tmp_path, header({"token_entropy": entry()})))
    assert metadata["run"] == "r"
    assert tensors["token_entropy"].feature is Feature.TOKEN_ENTROPY
    assert data_at > 8


NAMES = [
    "../../etc/passwd",
    "/abs",
    "",
    "hidden",
    "token_entropy.3",
    "hidden.-1",
    "hidden.03",
    "hidden.3.p0",
    "token_entropy.p1x",
    "answer",
    "unknown",
    "token_entropy\n",
    "tokén_entropy",
    "token_entropy.p1.p2",
]


@pytest.mark.parametrize("name", NAMES)
def test_tensor_names_are_a_closed_list(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorruptStoreError, match=r"header"):
        read_header(crafted(tmp_path, header({name: entry()})))


ENTRIES: list[Any] = [
    entry(dtype="BF16"),
    entry(dtype=7),
    entry(dtype=None),
    entry(shape=[]),
    entry(shape=[3]),
    entry(shape=[-2]),
    entry(shape=[True, 2]),
    entry(shape=[2.0]),
    entry(shape="2"),
    entry(shape=None),
    entry(shape=[1 << 40, 1 << 40]),
    entry(data_offsets=[0, 4]),
    entry(data_offsets=[4, 12]),
    entry(data_offsets=[8, 0]),
    entry(data_offsets=[-8, 0]),
    entry(data_offsets=[0]),
    entry(data_offsets=[0, 8, 16]),
    entry(data_offsets=[0, "8"]),
    entry(data_offsets=None),
    {},
    [],
    None,
    "x",
]


@pytest.mark.parametrize("bad", ENTRIES)
def test_hostile_entries_are_refused(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(CorruptStoreError, match=r"\(header\)"):
        read_header(crafted(tmp_path, header({"token_entropy": bad})))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '"x"',
        "{",
        "NaN",
        "\ufeff{}",
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"__metadata__": null, "token_entropy": {}}',
        '{"__metadata__": [], "token_entropy": {}}',
        '{"__metadata__": {"x": "\ud800"}}',
        header({"token_entropy": entry()})[:-1] + ', "token_entropy": {}}',
        header({"token_entropy": entry()}).replace('"run"', '"shard"'),
        json.dumps({"__metadata__": {}, "token_entropy": entry()}),
        "9" * 5000,
    ],
)
def test_hostile_headers_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CorruptStoreError):
        read_header(crafted(tmp_path, text))


def test_holes_overlaps_and_missing_bytes_are_refused(tmp_path: Path) -> None:
    hole = {"token_entropy": entry(), "option_logprobs": entry(data_offsets=[16, 24])}
    overlap = {"token_entropy": entry(), "option_logprobs": entry(data_offsets=[4, 12])}
    for tensors, size in ((hole, 24), (overlap, 12), ({"token_entropy": entry()}, 9)):
        with pytest.raises(CorruptStoreError):
            read_header(crafted(tmp_path, header(tensors), b"\0" * size))
    with pytest.raises(CorruptStoreError, match="end of file"):
        read_header(crafted(tmp_path, header({"token_entropy": entry()}), b"\0" * 7))


@pytest.mark.parametrize("size", [0, 1, 1 << 40, (1 << 64) - 1])
def test_a_lying_header_length_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / f"000001.{'0' * 32}.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b"{}")
    with pytest.raises(CorruptStoreError, match="header length"):
        read_header(path)


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    path = crafted(tmp_path, header({"token_entropy": entry()}))
    other = path.rename(tmp_path / f"000001.{'0' * 32}.safetensors")
    with pytest.raises(CorruptStoreError, match="its name"):
        read_header(other)
    with pytest.raises(CorruptStoreError, match="its name"):
        read_header(other.rename(tmp_path / "x.safetensors"))


def test_every_single_byte_matters(tmp_path: Path) -> None:
    record = make_record(make_examples(2)[1], "clean")
    few = (Feature.TOKEN_ENTROPY, Feature.PROMPT_HIDDEN, Feature.OPTION_LENGTHS)
    tensors, _ = plan_arrays([replace(record, features={f: record.features[f] for f in few})])
    path = write_arrays(tmp_path, 1, "r", tensors)
    assert path is not None
    data = path.read_bytes()
    everything = {(t.feature, t.part) for t in read_header(path)[1].values()}
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(CorruptStoreError):
            read_parts(path, everything, None, read_header(path))


def test_names_count_parts_from_one() -> None:
    assert tensor_name(Feature.HIDDEN, 12, 0) == "hidden.12"
    assert tensor_name(Feature.TOKEN_ENTROPY, None, 3) == "token_entropy.p3"


@pytest.mark.parametrize(
    ("feature", "start", "shape"),
    [
        (Feature.TOKEN_ENTROPY, 3, (2,)),
        (Feature.TOKEN_ENTROPY, -1, (2,)),
        (Feature.TOP_LOGPROBS, 0, (2, 3)),
        (Feature.RECORDED_CONFIDENCE, 4, ()),
        (Feature.ENTAILMENT, 1, (2, 2)),
    ],
)
def test_places_outside_a_tensor_are_refused(
    feature: Feature, start: int, shape: tuple[int, ...]
) -> None:
    array = np.zeros((4, 2)) if feature is Feature.TOP_LOGPROBS else np.zeros(4)
    with pytest.raises(ValueError, match="in a tensor of shape"):
        slice_of(Place(feature, 0, start, shape, "float64"), array)


def test_arrays_are_stored_without_copies_of_their_neighbours(tmp_path: Path) -> None:
    records = [make_record(e, "clean") for e in make_examples(3)]
    tensors, _ = plan_arrays(records)
    path = write_arrays(tmp_path, 0, "r", tensors)
    assert path is not None
    payload = sum(a.nbytes for r in records for a in r.features.values())
    _, _, data_at = read_header(path)
    assert path.stat().st_size == data_at + payload
    assert data_at % 8 == 0
    assert write_arrays(tmp_path, 0, "r", []) is None


def test_square_arrays_of_unequal_size_share_one_tensor(tmp_path: Path) -> None:
    """Rows and columns are both ragged: (1, 1), (2, 2) and (3, 3) become 1 + 4 + 9 values."""
    squares = [np.arange(n * n, dtype=np.float32).reshape(n, n) + 10 * n for n in (1, 2, 3)]
    records = [
        Record(
            example=Example(id=f"s{n}", question="?"),
            greedy=Generation("yes"),
            samples=(Generation("no"),) * n,
            features={Feature.ENTAILMENT: square},
        )
        for n, square in enumerate(squares)
    ]
    tensors, places = plan_arrays(records)
    assert [(t.name, t.rows, t.trailing) for t in tensors] == [("entailment", 14, ())]
    assert [(p[0].start, p[0].shape) for p in places] == [(0, (1, 1)), (1, (2, 2)), (5, (3, 3))]
    path = write_arrays(tmp_path, 0, "r", tensors)
    assert path is not None
    pair = (Feature.ENTAILMENT, 0)
    array, _ = read_parts(path, {pair}, None, read_header(path))[pair]
    for place, square in zip(places, squares, strict=True):
        np.testing.assert_array_equal(slice_of(place[0], array), square)


def test_states_of_samples_follow_one_another_whatever_their_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states = [rng.standard_normal((2, m, 4)).astype(np.float16) for m in (3, 0, 1)]
    records = [
        Record(
            example=Example(id=f"s{i}", question="?"),
            samples=(Generation("no"),) * state.shape[1],
            features={Feature.SAMPLE_HIDDEN: state},
            layers=(1, 7),
        )
        for i, state in enumerate(states)
    ]
    tensors, places = plan_arrays(records)
    assert [(t.name, t.rows, t.trailing) for t in tensors] == [
        ("sample_hidden.1", 4, (4,)),
        ("sample_hidden.7", 4, (4,)),
    ]
    path = write_arrays(tmp_path, 0, "r", tensors)
    assert path is not None
    pair = (Feature.SAMPLE_HIDDEN, 0)
    array, layers = read_parts(path, {pair}, None, read_header(path))[pair]
    assert layers == (1, 7)
    for place, state in zip(places, states, strict=True):
        np.testing.assert_array_equal(slice_of(place[0], array), state)


def test_layers_of_unequal_shape_are_refused(tmp_path: Path) -> None:
    two = {"dtype": "F16", "shape": [1, 2], "data_offsets": [0, 4]}
    one = {"dtype": "F16", "shape": [1, 1], "data_offsets": [4, 6]}
    text = header({"prompt_hidden.1": two, "prompt_hidden.2": one})
    path = crafted(tmp_path, text, b"\0" * 6)
    with pytest.raises(CorruptStoreError, match="layers of unequal shape"):
        read_parts(path, {(Feature.PROMPT_HIDDEN, 0)}, None, read_header(path))
