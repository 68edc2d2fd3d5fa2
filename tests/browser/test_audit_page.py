"""The audit's page in a real browser: quiet, offline, inert, and no wider than a phone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser
from hostile import TEXTS
from PIL import Image

from sightline.core.audit_results import Audit, load_audit
from sightline.core.protocols import Request
from sightline.core.types import Example, ImageRef
from sightline.data.examples import Dataset
from sightline.data.images import ImageLimits, hash_image_file
from sightline.models.fake import FakeModel
from sightline.report.render import write_audit_report
from sightline.workflow.auditing.running import AuditSettings, audit_run
from sightline.workflow.auditing.writing import RESULTS, write_audit
from sightline.workflow.collect import collect

pytestmark = pytest.mark.browser
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    folder = tmp_path_factory.mktemp("audit")
    rng, examples = np.random.default_rng(0), []
    for i in range(12):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (16, 20, 3), dtype=np.uint8)).save(path)
        image = ImageRef(str(path), hash_image_file(path, ImageLimits()))
        hostile = TEXTS[i % len(TEXTS)] or "Is it red?"
        examples.append(Example(f"e{i}", hostile, (image,), references=(hostile,)))
    request = Request(
        max_new_tokens=4, layers=(1.0,), blank=True, channels=True, energy_maps=4,
        conditions=("jpeg:3", "rotate:30", "translate:4"),
    )  # fmt: skip
    data = Dataset("<b>hostile</b>", tuple(examples), (), "0" * 64)
    collect(FakeModel(), data, folder / "run", request=request, batch_size=4, shard_size=6)
    write_audit(audit_run(folder / "run", AuditSettings(resamples=100)), folder / "run")
    return load_audit(folder / "run" / RESULTS)


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_is_quiet_offline_and_fits(
    browser: Browser, audit: Audit, tmp_path: Path, width: int
) -> None:
    page = tmp_path / "page.html"
    write_audit_report([audit, replace(audit, run="other", model="second <model>")], page)
    tab = browser.tab(width=width)
    tab.open(page)
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelectorAll('script, iframe, object').length") == 0
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("[...document.images].every(i => i.alt.length > 0)")
    assert tab.evaluate("document.querySelectorAll('svg[role=img][aria-label]').length") >= 4
    assert tab.evaluate("document.querySelectorAll('#comparison table').length") == 3
    assert tab.evaluate("document.querySelectorAll('ul.maps img').length") >= 4


def test_what_a_model_or_data_says_stays_text(audit: Audit, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    pairs = tuple(replace(p, answer="<img src=x onerror=alert(1)>") for p in audit.sheet[0].pairs)
    shown = replace(audit.sheet[0], question="<script>alert(1)</script>", pairs=pairs)
    write_audit_report([replace(audit, sheet=(shown,), notes=("</style><b>",))], page)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "</style><b>" not in text
    assert "&lt;script&gt;" in text
