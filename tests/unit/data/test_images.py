"""Decoding: one golden hash per conversion, limits before pixels, and files that changed."""

import base64
import hashlib
import io
import json
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import ImageError
from sightline.core.types import ImageRef
from sightline.data.images import (
    DECODE_POLICY,
    ImageLimits,
    decode,
    hash_image_file,
    image_extension,
    load_image,
    read_image_bytes,
    resolve_inside,
    thumbnail_png,
)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=file_format, **options)
    return out.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, depth: int, color: int, pixels: bytes, extra: bytes = b""):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(pixels))
        + png_chunk(b"IEND", b"")
    )


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data))


def gradient() -> Image.Image:
    y, x = np.mgrid[0:24, 0:32]
    return Image.fromarray(np.stack([8 * x, 10 * y, 4 * x + 4 * y], axis=-1).astype(np.uint8))


def test_rgb_png_comes_back_as_it_was():
    assert (pixels(encode(gradient(), "PNG")) == np.asarray(gradient())).all()


def test_transparency_is_composited_on_white():
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert (pixels(encode(hidden, "PNG")) == 255).all()
    assert (pixels(encode(half, "PNG")) == 127).all()  # 255 · (1 − 128/255)


def test_a_transparent_palette_colour_is_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    assert (pixels(encode(image, "PNG")) == [200, 0, 0]).all()
    assert (pixels(encode(image, "PNG", transparency=1)) == 255).all()
    assert (pixels(encode(image, "GIF", transparency=1)) == 255).all()


def test_a_transparent_grey_level_is_white():
    key = png_chunk(b"tRNS", struct.pack(">H", 7))
    data = raw_png(2, 1, 8, 0, b"\x00\x07\x09", key)
    assert pixels(data)[0].tolist() == [[255, 255, 255], [9, 9, 9]]


def test_16_bit_grey_is_scaled_not_clipped():
    samples = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    grey = pixels(encode(Image.fromarray(samples), "PNG"))
    assert grey[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()


def test_16_bit_grey_and_16_bit_colour_agree():
    levels = [0, 1000, 32768, 65535]
    grey = b"\x00" + b"".join(struct.pack(">H", v) for v in levels)
    color = b"\x00" + b"".join(struct.pack(">HHH", v, v, v) for v in levels)
    assert (pixels(raw_png(4, 1, 16, 0, grey)) == pixels(raw_png(4, 1, 16, 2, color))).all()


def test_a_transparent_16_bit_grey_level_is_white():
    key = png_chunk(b"tRNS", struct.pack(">H", 1000))
    data = raw_png(2, 1, 16, 0, b"\x00" + struct.pack(">HH", 1000, 2000), key)
    assert pixels(data)[0].tolist() == [[255, 255, 255], [7, 7, 7]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    # Pillow's own transposition is the oracle; the file is stored losslessly.
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(gradient(), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (pixels(data) == np.asarray(expected)).all()
    assert decode(data).size == ((32, 24) if orientation < 5 else (24, 32))


@pytest.mark.parametrize("exif", [b"MM\x00\x2a\xff\xff\xff\xff garbage", b"no TIFF at all", b""])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_cost_the_image(file_format, exif):
    data = encode(gradient(), file_format, exif=b"Exif\x00\x00" + exif)
    assert decode(data).size == (32, 24)


def test_the_first_frame_of_an_animation_is_used():
    frames = [Image.new("RGB", (6, 6), c) for c in ("red", "blue", "green")]
    for file_format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert (pixels(data) == [255, 0, 0]).all(), file_format


def test_the_result_is_rgb_without_metadata_or_open_file():
    image = decode(encode(gradient().convert("L"), "JPEG", comment=b"hello"))
    assert image.mode == "RGB"
    assert not image.info
    assert getattr(image, "fp", None) is None


GOLDEN = json.loads(
    (Path(__file__).resolve().parents[2] / "golden" / "data" / "decoded_images.json").read_text()
)


@pytest.mark.parametrize("name", GOLDEN)
def test_stored_files_give_the_golden_pixels(name):
    # A failure means that pixels changed under users' feet: give DECODE_POLICY a new number.
    case = GOLDEN[name]
    image = decode(base64.b64decode(case["file"]))
    assert DECODE_POLICY.startswith("1:")
    assert list(image.size) == case["size"]
    assert list(image.getpixel((0, 0))) == case["first"]
    assert hashlib.sha256(image.tobytes()).hexdigest() == case["sha256"]


def test_cmyk_is_near_the_colours_it_was_made_from():
    data = encode(gradient().convert("CMYK"), "JPEG", quality=95)
    error = pixels(data).astype(int) - np.asarray(gradient()).astype(int)
    assert np.abs(error).mean() < 4


def test_limits_are_checked_before_pixels_are_decoded():
    # The header claims 30,000² pixels and there is no pixel behind it.
    bomb = raw_png(30_000, 30_000, 1, 0, b"")
    with pytest.raises(ImageError, match="too many pixels"):
        decode(bomb)
    with pytest.raises(ImageError, match="7000×7000 pixels; at most 40000000"):
        decode(raw_png(7_000, 7_000, 1, 0, b""))
    with pytest.raises(ImageError, match="at most 10 in all"):
        decode(encode(gradient(), "PNG"), ImageLimits(max_pixels=10))


STRICT = ImageLimits(max_bytes=20_000_000, min_side=14, max_aspect=200)


def test_limits_refuse_tiny_and_thread_like_images():
    tiny = encode(Image.new("RGB", (1, 1)), "PNG")
    thread = encode(Image.new("RGB", (4_000, 15)), "PNG")
    with pytest.raises(ImageError, match="at least 14"):
        decode(tiny, STRICT)
    with pytest.raises(ImageError, match="200-fold"):
        decode(thread, STRICT)
    assert decode(tiny).size == (1, 1)
    assert decode(thread).size == (4_000, 15)


def test_too_many_bytes_are_refused():
    data = encode(gradient(), "PNG")
    with pytest.raises(ImageError, match="at most 50 are read"):
        decode(data, ImageLimits(max_bytes=50))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_every_truncation_is_an_image_error_or_the_whole_image(file_format):
    data = encode(gradient(), file_format)
    messages = []
    for length in range(0, len(data) - 1, max(1, len(data) // 60)):
        try:
            assert decode(data[:length]).size == (32, 24)
        except ImageError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert not any("0x" in message or "\n" in message for message in messages)
    assert decode(data + b"trailing junk").size == (32, 24)


@pytest.mark.parametrize("file_format", ["BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_refused_whatever_their_name(tmp_path, file_format):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(gradient(), file_format))
    with pytest.raises(ImageError, match="one of JPEG, PNG, WEBP, GIF is required"):
        decode(path)


def test_load_image_verifies_the_bytes(tmp_path):
    data = encode(gradient(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    ref = ImageRef("a.png", hashlib.sha256(data).hexdigest())
    assert (np.asarray(load_image(ref, tmp_path)) == np.asarray(gradient())).all()
    (tmp_path / "a.png").write_bytes(encode(gradient().rotate(180), "PNG"))
    with pytest.raises(ImageError, match="has changed"):
        load_image(ref, tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match="does not exist"):
        load_image(ref, tmp_path)


def test_load_image_takes_absolute_paths_and_refuses_relative_ones_that_lead_out(tmp_path):
    data = encode(gradient(), "PNG")
    outside = tmp_path / "a.png"
    outside.write_bytes(data)
    home = tmp_path / "run"
    home.mkdir()
    digest = hashlib.sha256(data).hexdigest()
    assert load_image(ImageRef(str(outside), digest), home).size == (32, 24)
    with pytest.raises(ImageError, match="leads out"):
        load_image(ImageRef("../a.png", digest), home)
    (home / "link.png").symlink_to(outside)
    with pytest.raises(ImageError, match="leads out"):
        load_image(ImageRef("link.png", digest), home)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\x00b", "x" * 5_000])
def test_paths_that_lead_nowhere_good_are_image_errors(tmp_path, path):
    with pytest.raises(ImageError):
        read_image_bytes(resolve_inside(path, tmp_path))


def test_a_link_loop_a_folder_and_a_pipe_are_image_errors(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("loop", "pipe", "."):
        with pytest.raises(ImageError):
            read_image_bytes(resolve_inside(name, tmp_path))


def test_hash_image_file_is_the_hash_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1_000)
    assert hash_image_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000).hexdigest()


@pytest.mark.parametrize(
    ("file_format", "extension"),
    [("JPEG", "jpg"), ("PNG", "png"), ("GIF", "gif"), ("WEBP", "webp")],
)
def test_extension_comes_from_the_bytes(file_format, extension):
    assert image_extension(encode(gradient(), file_format)) == extension


def test_no_extension_for_what_is_no_image():
    assert image_extension(b"<svg xmlns='http://www.w3.org/2000/svg'/>") is None
    assert image_extension(b"") is None


def test_thumbnail_keeps_the_aspect_and_the_original():
    image = gradient()
    small = Image.open(io.BytesIO(thumbnail_png(image, 16)))
    assert small.format == "PNG"
    assert small.size == (16, 12)
    assert image.size == (32, 24)
    assert Image.open(io.BytesIO(thumbnail_png(image, 100))).size == (32, 24)


def test_decoding_in_threads_gives_the_same_pixels():
    data = encode(gradient(), "PNG")
    expected = decode(data).tobytes()
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.extend(decode(data).tobytes() for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 80
