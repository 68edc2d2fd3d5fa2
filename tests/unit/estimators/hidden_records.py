"""Records with hidden states in which the answer's correctness can be planted."""

from __future__ import annotations

import numpy as np

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record


def record(name, hidden, *, group=None, layers=None, answer_start=0, prompt=None, **example):
    """One record; ``hidden`` has axes layer, token, width."""
    hidden = np.asarray(hidden, dtype=np.float32)
    tokens = hidden.shape[1]
    features = {Feature.HIDDEN: hidden}
    if prompt is not None:
        features[Feature.PROMPT_HIDDEN] = np.asarray(prompt, dtype=np.float32)
    return Record(
        Example(name, "?", group=group or name, **example),
        greedy=Generation("x", logprobs=np.full(tokens, -0.1), answer_start=answer_start),
        samples=(Generation("x"), Generation("y")),
        features=features,
        layers=tuple(range(1, len(hidden) + 1)) if layers is None else layers,
    )


def planted(n=200, *, width=8, layers=3, told_by=2, strength=2.0, seed=0, per_group=1):
    """Records whose layer ``told_by`` tells in its first entry whether the answer is right.

    Returns:
        The records and their correctness, 0 or 1.
    """
    rng = np.random.default_rng(seed)
    correct = (rng.random(n) < 0.7).astype(float)
    hidden = rng.normal(size=(n, layers, 2, width))
    hidden[:, told_by - 1, :, 0] += strength * (2 * correct[:, None] - 1)
    records = [
        record(f"r{i:04d}", hidden[i], group=f"g{i // per_group}", prompt=hidden[i, :, 0])
        for i in range(n)
    ]
    return records, correct
