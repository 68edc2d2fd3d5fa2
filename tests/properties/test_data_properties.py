"""Laws of reading data: no bytes crash a reader, no row crashes a loader, no split leaks."""

import csv
import io
import json
import math
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.core.errors import DataError, ImageError
from sightline.core.types import Scalar, choice_letters
from sightline.data.examples import Dataset, load_dataset
from sightline.data.fields import ALIASES, Fields, interpret
from sightline.data.images import decode
from sightline.data.json_files import parse_json
from sightline.data.readers import SUFFIXES, read_rows
from sightline.data.splits import split_groups
from sightline.store.images import image_writer

# The machine may be busy; slowness is not what these tests are about.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FILE_BYTES = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from([b'"', b",", b"\t", b"\n", b"\r\n", b"a", b"\xff", b"{", b"}", b"\0"]))
    .map(b"".join),
)  # fmt: skip

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["A", "b", "0", "1", "a.png", "data:image/png;base64,AA==", "['x', 'y']", "[1"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
COLUMN = st.sampled_from(
    [name for names in ALIASES.values() for name in names]
    + ["A", "B", "C", "choice_a", "choice_b", "image_1", "image_2", "messages", "body", "image_id"]
)
ROW = st.dictionaries(COLUMN | st.text(max_size=5), JSON, max_size=8)
CELL = st.text(st.characters(codec="utf-8"), max_size=10)


def load(name: str, content: bytes) -> Dataset | None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return load_dataset(path, images=folder, store_image=image_writer(Path(folder)))
        except DataError as error:
            message = str(error)
    assert message
    assert "\n" not in message
    return None


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=FILE_BYTES)
@settings(PATIENT, max_examples=80)
def test_no_bytes_crash_a_reader(suffix, content):
    load(f"q{suffix}", content)


@given(rows=st.lists(ROW, min_size=1, max_size=4))
@settings(PATIENT, max_examples=100)
def test_no_json_row_crashes_the_loader_and_every_row_is_accounted_for(rows):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    dataset = load("q.jsonl", content)
    if dataset is not None:
        assert len(dataset.examples) + len(dataset.rejected) == len(rows)
        assert len({example.id for example in dataset.examples}) == len(dataset.examples)
        for example in dataset.examples:
            assert example.question.strip()
            assert set(example.references) <= set(example.letters) or example.choices is None
            assert all(_storable(value) for value in example.meta.values())


def _storable(value: Scalar) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return len(value.encode()) >= 0
    return isinstance(value, bool) or -(2**63) <= value < 2**63


@given(row=ROW)
@settings(PATIENT, max_examples=150)
def test_a_row_is_interpreted_or_refused(row):
    try:
        result = interpret(row, {})
    except DataError as error:
        result = error
    assert isinstance(result, Fields) or str(result).isprintable()


@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=5))
@settings(PATIENT)
def test_csv_cells_come_back_as_they_were_written(rows):
    out = io.StringIO()
    csv.writer(out).writerows([["x", "y"], *rows])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "q.csv"
        path.write_bytes(out.getvalue().encode())
        read = [row.fields for row in read_rows(path)]
    assert read == [{"x": x or None, "y": y or None} for x, y in rows]


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=4), max_size=5))
@settings(PATIENT)
def test_jsonl_values_come_back_as_they_were_written(rows):
    lines = [json.dumps(row) for row in rows]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "q.jsonl"
        path.write_text("\r\n".join(lines))
        read = list(read_rows(path))
    for line, row in zip(lines, read, strict=True):
        if row.error is None:
            assert json.dumps(row.fields) == line
        else:
            assert "surrogate" in row.error


@given(text=st.text(max_size=60) | JSON.map(json.dumps))
@settings(PATIENT)
def test_parse_json_parses_or_raises_value_error(text):
    results: list[object] = []
    for parse in (json.loads, parse_json):
        try:
            results.append(repr(parse(text)))
        except ValueError as error:
            results.append(error)
    expected, found = results
    refused = isinstance(found, ValueError)
    assert refused or found == expected
    assert refused or not isinstance(expected, ValueError)
    if refused and not isinstance(expected, ValueError):
        assert "twice" in str(found) or "surrogate" in str(found)


PARQUET = [
    pa.table({"id": ["a", "b"], "question": ["q", "r"], "choices": [["x", "y"], None]}),
    pa.table({"question": ["q"], "image": [{"bytes": b"\x89PNG", "path": None}]}),
]


@given(
    which=st.sampled_from(PARQUET),
    damage=st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 255)), max_size=6),
)
@settings(PATIENT, max_examples=150)
def test_damaged_parquet_files_never_crash(which, damage):
    out = pa.BufferOutputStream()
    pq.write_table(which, out)
    content = bytearray(out.getvalue().to_pybytes())
    for at, value in damage:
        content[at % len(content)] = value
    load("q.parquet", bytes(content))


def _images() -> list[bytes]:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (12, 14, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = Image.fromarray(rng.integers(0, 65_535, (9, 9)).astype(np.uint16))
    made = [
        (image, "JPEG", {"exif": exif}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "PNG", {"exif": exif}),
        (image.quantize(8), "PNG", {"transparency": 1}),
        (grey, "PNG", {}),
        (image, "WEBP", {"exif": exif}),
        (image.convert("RGBA"), "WEBP", {"lossless": True}),
        (image, "GIF", {"save_all": True, "append_images": [image.rotate(90)]}),
    ]
    files = []
    for picture, file_format, options in made:
        out = io.BytesIO()
        picture.save(out, format=file_format, **options)
        files.append(out.getvalue())
    return files


@given(
    image=st.sampled_from(_images()),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=5),
    cut=st.none() | st.integers(0, 2_000),
    junk=st.binary(max_size=8),
)
@settings(PATIENT, max_examples=250)
def test_a_damaged_image_decodes_to_rgb_or_is_an_image_error(image, damage, cut, junk):
    content = bytearray(image[:cut])
    for at, value in damage:
        if content:
            content[at % len(content)] = value
    try:
        found = decode(bytes(content) + junk).mode
    except ImageError as error:
        found = str(error)
    assert found == "RGB" or ("0x" not in found and "\n" not in found)


@given(
    choices=st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=30),
    pick=st.integers(0, 29),
)
@settings(PATIENT)
def test_a_letter_is_read_as_itself_and_a_unique_text_as_its_letter(choices, pick):
    pick %= len(choices)
    row = {
        "question": "q",
        "choices": dict(zip(choice_letters(len(choices)), choices, strict=True)),
    }
    letter = choice_letters(len(choices))[pick]
    try:
        fields = interpret({**row, "answer": letter}, {})
    except DataError:
        return  # fewer than two choices with a visible character
    if len(fields.choices or ()) == len(choices):
        assert fields.references == (letter,)
        counts = Counter(" ".join(choice.split()).casefold() for choice in choices)
        text = " ".join(choices[pick].split())
        if counts[text.casefold()] == 1 and len(text) > 4 and not text.startswith(("[", "{")):
            assert interpret({**row, "answer": text}, {}).references == (letter,)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=40),
    shares=st.tuples(*[st.floats(0.05, 1)] * 3),
    seed=st.integers(0, 2**32),
    order=st.randoms(use_true_random=False),
)
@settings(PATIENT)
def test_splits_keep_groups_whole_shares_near_and_order_out(sizes, shares, seed, order):
    fractions = tuple(share / sum(shares) for share in shares)
    groups = [f"g{g}" for g, size in enumerate(sizes) for _ in range(size)]
    shuffled = list(groups)
    order.shuffle(shuffled)
    landed = []
    for names in (groups, shuffled):
        split = split_groups(names, fractions, seed=seed)
        parts = (split.train, split.calibration, split.test)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(names)))
        landed.append([{names[i] for i in part} for part in parts])
        assert sum(map(len, landed[-1])) == len(sizes)
        assert all(landed[-1])
        for part, share in zip(parts, fractions, strict=True):
            # Half a group at each border, or one or two groups taken so that no part is empty.
            assert abs(len(part) - share * len(names)) <= 2 * max(sizes)
    assert landed[0] == landed[1]
