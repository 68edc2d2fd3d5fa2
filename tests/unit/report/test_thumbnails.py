from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import replace
from pathlib import Path

from evaluations import evaluation
from PIL import Image

from sightline.report.thumbnails import SIDE, stored_image, thumbnail


def jpeg(size: tuple[int, int] = (900, 600)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(out, format="JPEG", comment=b"SECRET COMMENT")
    return out.getvalue()


def test_a_picture_is_decoded_scaled_and_encoded_anew() -> None:
    data = jpeg() + b"<script>trailing junk</script>"
    shown = thumbnail("a.jpg", evaluation(), lambda *_: data, alt="alt")
    assert shown.uri is not None
    assert shown.missing is None
    kind, _, encoded = shown.uri.partition(",")
    assert kind == "data:image/png;base64"
    png = base64.b64decode(encoded)
    assert b"SECRET" not in png
    assert b"script" not in png
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert max(image.size) == SIDE


def test_what_cannot_be_shown_says_why() -> None:
    run = evaluation()
    gone = thumbnail("x/gone.png", run, lambda *_: None, alt="alt")
    broken = thumbnail("broken.png", run, lambda *_: b"<svg onload=alert(1)>", alt="alt")
    changed = thumbnail("changed.png", run, lambda *_: jpeg(), alt="alt", sha256="0" * 64)
    assert gone.missing == "gone.png was not found"
    assert broken.missing == "broken.png cannot be decoded"
    assert changed.missing == "changed.png has changed since the model saw it"
    assert {gone.uri, broken.uri, changed.uri} == {None}
    held = hashlib.sha256(jpeg()).hexdigest()
    assert thumbnail("a", run, lambda *_: jpeg(), alt="", sha256=held).uri is not None


def test_stored_images_are_read_below_the_image_root_only(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (root / "a.jpg").write_bytes(b"inside")
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    run = evaluation()
    run = replace(run, run=replace(run.run, image_root=str(root)))
    assert stored_image("a.jpg", run) == b"inside"
    assert stored_image("../secret.jpg", run) is None
    assert stored_image("link.jpg", run) is None
    assert stored_image("none.jpg", run) is None
    assert stored_image("a\x00b", run) is None
    in_run = replace(run, run=replace(run.run, image_root="", path=str(root)))
    assert stored_image("a.jpg", in_run) == b"inside"
