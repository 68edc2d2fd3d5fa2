"""Pages that are written from the code are what the code says now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _generator():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "page", ["classifiers.md", "cli.md", "metrics.md", "estimators.md", "perturbations.md"]
)
def test_the_page_is_not_stale(page):
    expected = _generator().PAGES[page]()
    assert (DOCS / page).read_text(encoding="utf-8") == expected, "run: make docs"


def test_every_page_the_readme_links_to_exists():
    import re

    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", readme)
    assert links
    assert [link for link in links if not (DOCS.parent / link).exists()] == []
