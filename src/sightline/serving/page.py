"""The page at ``/``: one document without anything from elsewhere, locked by its policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Page:
    """The document and the headers that lock it.

    Attributes:
        html: Its bytes.
        headers: What goes with it; only its own script and style may run.
    """

    html: bytes
    headers: Mapping[str, str]


@cache
def page() -> Page:
    """Returns the page."""
    assets = resources.files("sightline.serving") / "assets"
    style = (assets / "page.css").read_text(encoding="utf-8")
    script = (assets / "page.js").read_text(encoding="utf-8")
    frame = (assets / "page.html").read_text(encoding="utf-8")
    html = frame.replace("{style}", style).replace("{script}", script)
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "x-frame-options": "DENY"}
    return Page(html.encode(), headers)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
