"""A classifier's fitted score in a policy's directory: one safetensors file, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sightline.core.specs import from_spec
from sightline.workflow.classifying.scoring import SIMPLE, AppliedScore
from sightline.zeroshot import ZERO_SHOT_SCORES, ClassifierOutputs, score
from sightline.zeroshot.saved import load_score, save_score

SCORE = "score.safetensors"

ENCODER = "auxiliary_encoder"
"""Entry of a score's spec that is no setting of it: the encoder that it reads."""


def write_score(folder: Path, applied: AppliedScore) -> None:
    """Writes a score with its class texts to a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    save_score(folder / SCORE, applied.fitted, applied.texts)


def read_score(folder: Path, spec: Mapping[str, Any], how: Mapping[str, Any]) -> AppliedScore:
    """Rebuilds what `write_score` wrote.

    Args:
        folder: Where it was written to.
        spec: Name and settings of the score.
        how: Its class, and where the vectors of its auxiliary encoder lie.

    Raises:
        ValueError: The parts do not fit together.
        DataError: The file is no fitted score.
    """
    settings = {name: value for name, value in spec.items() if name != ENCODER}
    traits = from_spec(settings, ZERO_SHOT_SCORES, "score").traits
    fitted, texts = load_score(folder / SCORE)
    if type(fitted).__name__ != how["kind"]:
        raise ValueError(f"a {type(fitted).__name__} in the place of a {how['kind']}")
    aux = None
    if how["aux"] is not None:
        start, stop = how["aux"]
        if not 0 <= start < stop:
            raise ValueError(f"an auxiliary encoder whose vectors lie from {start} to {stop}")
        aux = slice(start, stop)
    if traits.uses_aux != (aux is not None):
        raise ValueError("an auxiliary encoder that the score does not read, or none")
    applied = AppliedScore(texts, fitted, traits, settings["name"] in SIMPLE, aux)
    _require_it_scores(applied)
    return applied


def _require_it_scores(applied: AppliedScore) -> None:
    """Requires that the score fits its classes and its encoder: it scores a class text."""
    texts, aux = applied.texts, None
    if applied.aux is not None:
        aux = np.ones((1, applied.aux.stop - applied.aux.start), dtype=np.float32)
    views = texts.vectors[None, :1] if applied.traits.uses_views else None
    found = score(applied.fitted, ClassifierOutputs(texts, texts.vectors[:1], aux, views))
    if not np.isfinite(found.uncertainty).all():
        raise ValueError("a score that gives no finite number")
