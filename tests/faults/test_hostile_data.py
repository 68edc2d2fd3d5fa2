"""Hostile data sets: one clear line for a useless source, a counted rejection for a bad row."""

import base64
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sightline.core.errors import DataError, ImageError, SightlineError
from sightline.data.examples import Dataset, load_dataset
from sightline.data.images import ImageLimits, decode, load_image
from sightline.store.images import image_writer


def png(size: tuple[int, int] = (16, 16)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(out, format="PNG")
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    """A small PNG file of side² one-bit pixels."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (side + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def load(folder: Path, *rows: object, name: str = "q.jsonl", **options: object) -> Dataset:
    """Loads the rows and a good one, which must survive whatever the others are."""
    (folder / "good.png").write_bytes(png())
    good = {"id": "good", "image": "good.png", "question": "q?"}
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in (*rows, good)))
    dataset = load_dataset(folder / name, **options)
    assert dataset.examples[-1].id == "good"
    assert all("\n" not in row.reason for row in dataset.rejected)
    assert all(len(row.reason) < 600 for row in dataset.rejected)
    return dataset


@pytest.mark.parametrize(
    "image",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "//host/share.png",
        "ftp://host/a.png",
        "s3://bucket/a.png",
        "http://good\\@127.0.0.1/a.png",
    ],
)
def test_urls_are_never_opened(tmp_path, image):
    dataset = load(tmp_path, {"id": 1, "image": image, "question": "q"})
    assert "images are never downloaded" in dataset.rejected[0].reason


@pytest.mark.parametrize(
    "image",
    [
        "../secret.png",
        "sub/../../secret.png",
        "/etc/passwd",
        "link.png",
        "link/secret.png",
        "~/a.png",
    ],
)
def test_paths_out_of_the_image_folder_are_refused(tmp_path, image):
    (tmp_path / "secret.png").write_bytes(png())
    home = tmp_path / "data"
    home.mkdir()
    (home / "link.png").symlink_to(tmp_path / "secret.png")
    (home / "link").symlink_to(tmp_path)
    dataset = load(home, {"id": 1, "image": image, "question": "q"})
    assert len(dataset.rejected) == 1
    assert "leads out" in dataset.rejected[0].reason or image == "~/a.png"


def test_a_folder_the_user_names_opens_absolute_paths_and_links_within_it(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    home = tmp_path / "data"
    home.mkdir()
    (home / "link.png").symlink_to(tmp_path / "secret.png")
    rows = [
        {"id": 1, "image": str(tmp_path / "secret.png"), "question": "q"},
        {"id": 2, "image": "data/link.png", "question": "q"},
    ]
    (tmp_path / "good.png").write_bytes(png())
    assert len(load(home, *rows, images=tmp_path).examples) == 3


@pytest.mark.parametrize(
    "image",
    [
        "pipe",
        "folder",
        "",
        " ",
        "a\0b.png",
        "x" * 300,
        "x" * 5_000,
        "loop",
        5.5,
        True,
        {},
        [[]],
        [{}],
    ],
)
def test_what_is_no_image_file_is_rejected(tmp_path, image):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    dataset = load(tmp_path, {"id": 1, "image": image, "question": "q"})
    assert [row.where for row in dataset.rejected] == ["line 1"]


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64",
        "data:,hello",
        "data:image/png,hello",
        "data:text/html;base64,PGI+",
        "data:image/png;base64,not base64!",
        "data:image/png;base64,AAA",
        "data:image/png;base64," + base64.b64encode(b"<svg/>").decode(),
        "data:image/png;base64," + base64.urlsafe_b64encode(b"\xff\xd8\xff\xfb\xff\xbf").decode(),
        "data:",
        "iVBORw0KGgo" + "!" * 100,
    ],
)
def test_broken_data_urls_are_rejected(tmp_path, url):
    row = {"id": 1, "image": url, "question": "q"}
    dataset = load(tmp_path, row, store_image=image_writer(tmp_path / "run"))
    assert len(dataset.rejected) == 1
    assert not (tmp_path / "run").exists()


def test_a_data_url_with_line_breaks_and_capitals_is_read(tmp_path):
    encoded = base64.encodebytes(png()).decode()
    row = {"id": 1, "image": f"DATA:image/PNG;BASE64,{encoded}", "question": "q"}
    dataset = load(tmp_path, row, store_image=image_writer(tmp_path / "run"))
    assert not dataset.rejected


def test_an_embedded_image_over_the_limit_is_refused_before_it_is_decoded(tmp_path):
    row = {"id": 1, "image": "data:image/png;base64," + "A" * 20_000, "question": "q"}
    limits = ImageLimits(max_bytes=1_000)
    dataset = load(tmp_path, row, store_image=image_writer(tmp_path), limits=limits)
    assert "too many" in dataset.rejected[0].reason


def test_bytes_over_the_limit_or_of_another_format_are_refused(tmp_path):
    rows = [
        {"id": "large", "question": "q", "image": {"bytes": png((64, 64)), "path": None}},
        {"id": "svg", "question": "q", "image": {"bytes": b"<svg/>", "path": None}},
        {"id": "good", "question": "q", "image": {"bytes": png((2, 2)), "path": None}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    limits = ImageLimits(max_bytes=len(png((64, 64))) - 1)
    dataset = load_dataset(
        tmp_path / "q.parquet", store_image=image_writer(tmp_path), limits=limits
    )
    assert [example.id for example in dataset.examples] == ["good"]
    assert "over" in dataset.rejected[0].reason
    assert "none of JPEG" in dataset.rejected[1].reason


def test_a_file_over_the_limit_is_refused_unread(tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(10**12)  # sparse
    dataset = load(tmp_path, {"id": 1, "image": "huge.png", "question": "q"})
    assert "1000000000000 bytes" in dataset.rejected[0].reason


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"%PDF-1.7\n",
        b"II*\0\x08\0\0\0",
        b"<html><img src=x onerror=alert(1)></html>",
        b"BM" + bytes(60),
        b"",
    ],
)
def test_other_formats_named_png_are_image_errors_without_the_decoders_words(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    dataset = load(tmp_path, {"id": 1, "image": "a.png", "question": "q"})
    with pytest.raises(ImageError, match="is not a readable image") as caught:
        load_image(dataset.examples[0].images[0], tmp_path)
    assert "BytesIO" not in str(caught.value)
    assert "0x" not in str(caught.value)


PEAK = """
import resource, sys
from pathlib import Path
{setup}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{work}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def peak_growth_mb(setup: str, work: str, *arguments: str) -> float:
    """Growth of peak memory in a fresh process while ``work`` runs, in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK.format(setup=setup, work=work), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize("side", [13_300, 30_000])
def test_a_decompression_bomb_costs_no_memory(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    assert path.stat().st_size < 200_000
    growth = peak_growth_mb(
        "from sightline.data.images import decode, ImageError\nimport numpy, PIL.PngImagePlugin",
        "try:\n    decode(Path(sys.argv[1]))\nexcept ImageError:\n    pass\n"
        "else:\n    raise SystemExit('decoded')",
        str(path),
    )
    assert growth < 50


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_compressed_metadata_bombs_cost_no_memory(tmp_path, kind):
    packed = zlib.compress(b"\0" * 100_000_000, 9)
    extra = chunk(kind, b"name\0\0" + packed)
    plain = png()
    path = tmp_path / "bomb.png"
    path.write_bytes(plain[:33] + extra + plain[33:])  # right after IHDR
    growth = peak_growth_mb(
        "from sightline.data.images import decode, ImageError\nimport numpy, PIL.PngImagePlugin",
        "try:\n    decode(Path(sys.argv[1]))\nexcept ImageError:\n    pass",
        str(path),
    )
    assert growth < 50


def test_ten_thousand_frames_cost_one(tmp_path):
    frame = Image.new("P", (64, 64))
    frame.putpalette([0, 0, 0, 255, 255, 255])
    out = io.BytesIO()
    frame.save(out, format="GIF")
    one = out.getvalue()
    # Header and palette, then the image block 10,000 times, then the trailer.
    start = one.index(b"\x2c")
    data = one[:start] + one[start:-1] * 10_000 + one[-1:]
    assert decode(data).size == (64, 64)


@pytest.mark.parametrize("side", [(65_000, 1_300), (1, 40_000_001)])
def test_images_of_too_many_pixels_are_refused(side):
    header = struct.pack(">IIBBBBB", *side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(ImageError, match="are decoded"):
        decode(data + chunk(b"IEND", b""))


def test_a_png_of_no_size_is_refused():
    header = struct.pack(">IIBBBBB", 0, 0, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(ImageError):
        decode(data + chunk(b"IEND", b""))


def test_duplicate_ids_empty_questions_and_wrong_types_are_counted(tmp_path):
    dataset = load(
        tmp_path,
        {"id": "a", "question": "first"},
        {"id": "a", "question": "second"},
        {"id": "b", "question": ""},
        {"id": "c", "question": 7},
        {"id": ["d"], "question": "q"},
        {"id": "e", "question": "q", "choices": "x"},
        {"id": "f", "question": "x" * 100_000},
        {"id": "g", "question": "q", "unknown": {"deep": [1]}, "hint": {"not": "text"}},
        {"id": "h", "question": "q", "unknown": {"deep": [1]}, "also": 1},
        {},
        [],
        "text",
        None,
    )
    assert [e.id for e in dataset.examples] == ["a", "f", "h", "good"]
    assert [row.where for row in dataset.rejected] == [
        f"line {i}" for i in (2, 3, 4, 5, 6, 8, 10, 11, 12, 13)
    ]
    assert dict(dataset.ignored) == {"unknown": 1}
    assert len(dataset.examples[1].question) == 100_000


def test_hostile_text_in_rows_comes_out_inert_in_reasons(tmp_path):
    evil = "\x1b[2J\u202e</script>\n[/foo]" + "x" * 100_000
    dataset = load(
        tmp_path,
        {"id": 1, "image": evil, "question": "q"},
        {"id": 2, "choices": evil, "question": "q"},
        {"id": 3, "choices": ["a", "b"], "answer": evil, "question": "q"},
        {"id": evil, "question": "kept as it is"},
        {"id": evil, "question": "again"},
        {"id": 6, "messages": [{"role": evil}]},
    )
    assert len(dataset.rejected) == 5
    assert all(row.reason.isprintable() for row in dataset.rejected)


def test_not_utf_8_names_the_byte(tmp_path):
    good = b'{"id": "good", "question": "q"}\n'
    (tmp_path / "q.jsonl").write_bytes(good + b'{"id": "\xe9"}\n')
    (row,) = load_dataset(tmp_path / "q.jsonl").rejected
    assert (row.where, row.reason) == ("line 2", f"not UTF-8 at byte {len(good) + 8} of the file")


def test_a_path_that_is_not_utf_8_works_or_is_rejected(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(folder).mkdir()
    (Path(folder) / "a.png").write_bytes(png())
    (Path(folder) / "q.jsonl").write_text(
        '{"id": 1, "question": "q"}\n{"id": 2, "image": "a.png", "question": "q"}\n'
    )
    dataset = load_dataset(Path(folder) / "q.jsonl")
    assert [row.reason for row in dataset.rejected] == [
        "the image's path is not UTF-8; rename the file"
    ]
    assert load_dataset(Path(folder) / "q.jsonl", limit=1).name.encode()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("q.jsonl", b"", "has no rows"),
        ("q.jsonl", b"\n\n  \n", "has no rows"),
        ("q.csv", b"", "has no rows"),
        ("q.csv", b"id,question\n", "has no rows"),
        ("q.json", b"[]", "has no rows"),
        ("q.csv", b"id,note\n1,hello\n", r"no question among its columns \['id', 'note'\]"),
        ("q.jsonl", b'{"note": "hello"}', r"no question among its columns \['note'\]"),
        ("q.jsonl", b'{"question": ""}', "no usable row .line 1: no question; 1 rejected"),
        ("q.jsonl", b"\x00\x01\x02\n", "no usable row .line 1: not JSON"),
        ("q.jsonl", b"[\n{},\n{}\n]", "no usable row"),
        ("q.txt", b"hello", "unknown suffix"),
        ("q.parquet", b"PAR1", "not a readable Parquet file"),
        ("q.json", b'{"a": [', "not JSON"),
    ],
)
def test_a_useless_source_is_one_clear_line(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=found) as caught:
        load_dataset(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_named_column_that_is_not_there_is_an_error_and_not_an_empty_answer(tmp_path):
    with pytest.raises(DataError, match=r"no column 'gold', only \['id', 'image', 'question'\]"):
        load(tmp_path, columns={"answer": "gold"})


def test_a_missing_source_is_one_clear_line(tmp_path):
    for source in ("none.jsonl", "none", "x" * 5_000, "a\0b.jsonl"):
        with pytest.raises(SightlineError) as caught:
            load_dataset(tmp_path / source)
        assert "\n" not in str(caught.value)


READ = "from sightline.data.readers import read_rows\nimport csv, json"
COUNT = (
    "rows = sum(len(row.fields['question']) for row in read_rows(Path(sys.argv[1])))\n"
    "assert rows > 0, rows"
)


def write_jsonl(path: Path, megabytes: int) -> None:
    block = "".join(
        json.dumps({"id": i, "question": "x" * 1_000, "choices": ["a", "b"]}) + "\n"
        for i in range(1_000)
    ).encode()
    with path.open("wb") as file:
        while file.tell() < megabytes * 1_000_000:
            file.write(block)


@pytest.mark.parametrize("name", ["q.jsonl", "q.csv"])
def test_files_are_streamed(tmp_path, name):
    path = tmp_path / name
    if name == "q.jsonl":
        write_jsonl(path, 60)
    else:
        path.write_text("id,question\n" + f'1,"{"x" * 500}\n{"x" * 500}"\n' * 60_000)
    assert peak_growth_mb(READ, COUNT, str(path)) < 10


@pytest.mark.slow
def test_a_gigabyte_of_jsonl_is_streamed(tmp_path):
    path = tmp_path / "q.jsonl"
    write_jsonl(path, 1_000)
    assert peak_growth_mb(READ, COUNT, str(path)) < 10


def test_an_endless_line_is_skipped_in_bounded_memory(tmp_path):
    path = tmp_path / "q.jsonl"
    with path.open("wb") as file:
        file.write(b'{"question": "q"}\n{"question": "')
        file.seek(2 * 10**8)  # sparse: zeros, no line break
        file.write(b'"}\n{"question": "r"}\n')
    growth = peak_growth_mb(
        "from sightline.data import readers\nreaders.MAX_LINE_BYTES = 1_000_000",
        "rows = list(readers.read_rows(Path(sys.argv[1])))\n"
        "assert [r.error is None for r in rows] == [True, False, True], rows",
        str(path),
    )
    assert growth < 20
