"""The audit's page in a real browser: quiet, offline, inert, and no wider than a phone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser
from hostile import TEXTS
from PIL import Image

from sightline.core.audit_results import Audit, Comparison, Finding, load_audit
from sightline.core.estimates import Estimate
from sightline.core.probe_results import (
    AttackProbe,
    BudgetedAudit,
    BudgetStep,
    FilterProbe,
    NoiseProbe,
    Probes,
)
from sightline.core.protocols import Request
from sightline.core.results import Skipped
from sightline.core.types import Example, ImageRef
from sightline.data.examples import Dataset
from sightline.data.images import ImageLimits, hash_image_file
from sightline.models.fake import FakeModel
from sightline.models.vision import no_grid_reason
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
    verdict = Finding("Size <helps>", "undecided", Estimate(0.1), "a rule", None, {})
    write_audit_report(
        [audit, replace(audit, run="other", model="second <model>")],
        page,
        comparison=Comparison(("run", "other"), (verdict,)),
    )
    tab = browser.tab(width=width)
    tab.open(page)
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelectorAll('script, iframe, object').length") == 0
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("[...document.images].every(i => i.alt.length > 0)")
    charts = "svg.chart[role=img][aria-labelledby]"
    assert tab.evaluate(f"document.querySelectorAll('{charts}').length") >= 8
    named = f"[...document.querySelectorAll('{charts} > title')].every(t => t.textContent.length)"
    assert tab.evaluate(named)
    ids = "[...document.querySelectorAll('[id]')].map(e => e.id)"
    assert tab.evaluate(f"new Set({ids}).size === {ids}.length"), "ids are unique on the page"
    assert tab.evaluate("document.querySelectorAll('#comparison .heat').length") == 4
    assert "Size <helps>: undecided" in tab.evaluate(
        "document.querySelector('#comparison').textContent"
    )
    assert tab.evaluate("document.querySelectorAll('.maps-of-heat table').length") >= 4
    assert tab.evaluate("document.querySelectorAll('ul.maps img').length") >= 4


def test_probes_and_budgets_are_drawn(browser: Browser, audit: Audit, tmp_path: Path) -> None:
    def at(value: float) -> Estimate:
        return Estimate(value, value - 0.05, value + 0.05, n=9)

    filters = tuple(
        FilterProbe(name, cutoffs, (at(0.9), at(0.5)), 4, at(0.3))
        for name, cutoffs in (("low", (1.0, 0.1)), ("high", (0.0, 0.9)))
    )
    noise = tuple(NoiseProbe(b, s / 255, at(s / 40)) for b in ("low", "high") for s in (1, 16))
    attacks = tuple(
        AttackProbe(b, 0.0, 0.25, at(0.8), at(0.9), at(-2.0), at(0.02), 0.05, 8 / 255, (1, 0.9, 1))
        for b in ("low", "high")
    )
    probes = Probes(
        questions=9, images=9, skipped=(Skipped("<i>gone</i>", 1),), sides=((48, 64),),
        agreement=at(0.9), filters=filters, noise=noise, attacks=attacks, trials=5,
        epsilon=8 / 255, step=2 / 255, steps=10, seed=0, reads=700, gradients=180,
    )  # fmt: skip
    steps = (BudgetStep("jpeg:3", 0.5, 0.1, at(0.08), 5), BudgetStep("<b>", 0.4, 0.1, at(0.1), 2))
    budgets = (
        BudgetedAudit("the clean answer is wrong", 50, 0.3, 12, 0.6, 5, steps, at(0.02), None),
        BudgetedAudit("others", 5, 1.0, 12, None, 5, (), Estimate(None), "too <few>"),
    )
    page = tmp_path / "page.html"
    write_audit_report([replace(audit, probes=probes, budgets=budgets)], page)
    for width in (PHONE, DESK):
        tab = browser.tab(width=width)
        tab.open(page)
        assert tab.complaints == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    text = tab.evaluate("document.body.innerText")
    for words in ("48", "180 gradients", "Answers that stay under filters", "too <few>", "<i>gone",
                  "gain on other questions", "5 of 5", "low: radius 0 to 0.25"):  # fmt: skip
        assert words in text or words in tab.evaluate("document.body.textContent")


def test_what_a_model_or_data_says_stays_text(audit: Audit, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    pairs = tuple(replace(p, answer="<img src=x onerror=alert(1)>") for p in audit.sheet[0].pairs)
    shown = replace(audit.sheet[0], question="<script>alert(1)</script>", pairs=pairs)
    queries = no_grid_reason("instructblip")
    hostile = replace(audit, sheet=(shown,), notes=("</style><b>",), no_energy=queries, maps=())
    write_audit_report([hostile], page)
    text = page.read_text(encoding="utf-8")
    assert "Not applicable: the vision tokens of instructblip are learned queries" in text
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "</style><b>" not in text
    assert "&lt;script&gt;" in text
