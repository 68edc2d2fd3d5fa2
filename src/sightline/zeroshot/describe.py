"""The documentation's table of scores, written from the one table."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sightline.zeroshot import ZERO_SHOT_SCORES, Traits


def scores_table() -> str:
    """Returns a row for every score: what it is, what it uses, its settings and its source."""
    head = "| name | uncertainty | uses | settings | probability | source |\n"
    return f"{head}|---|---|---|---|---|---|\n" + "".join(
        _row(name, score) for name, score in ZERO_SHOT_SCORES.items()
    )


def _row(name: str, score: Any) -> str:
    traits: Traits = score.traits
    summary = (type(score).__doc__ or "").partition("\n")[0].removesuffix(".")
    if traits.may_relabel and "relabel" not in summary:
        summary += "; may relabel"
    if traits.slow:
        summary += " (slow, so computed only when named)"
    settings = ", ".join(f"{f.name}={getattr(score, f.name)}" for f in fields(score)) or "–"
    probability = "yes" if traits.is_probability else "no"
    return (
        f"| `{name}` | {summary} | {_uses(traits)} | {settings} | {probability} | "
        f"{traits.source} |\n"
    )


def _uses(traits: Traits) -> str:
    used = {
        "support labels": traits.uses_support,
        "auxiliary encoder": traits.uses_aux,
        "several templates": traits.uses_templates,
        "views": traits.uses_views,
    }
    return ", ".join(word for word, is_used in used.items() if is_used) or "the logits"
