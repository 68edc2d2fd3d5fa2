"""Labelled answers whose log-probabilities tell how often they are right."""

import numpy as np

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.data.splits import split_groups
from sightline.workflow.policy.labelled import Labelled

RNG = np.random.default_rng


def answer(name, probability, **example):
    settings = {"question": "Which colour?", "references": ("red",), **example}
    logprobs = np.array([np.log(probability)])
    return Record(Example(name, **settings), greedy=Generation("red", logprobs=logprobs))


def answers(n, *, per_group=1, seed=0, types=("a", "b"), prefix="e"):
    """Probabilities uniform on (0.01, 0.99); groups share theirs."""
    rng = RNG(seed)
    probability = np.repeat(rng.uniform(0.01, 0.99, n // per_group), per_group)
    return tuple(
        answer(
            f"{prefix}{i}",
            p,
            group=f"{prefix}{i // per_group}",
            question_type=types[i % len(types)],
        )
        for i, p in enumerate(probability)
    )


def right_at(records, *, low=0.45, high=0.98, seed=1):
    """Right with a chance that rises with the probability from low to high."""
    p = np.array([np.exp(record.answer.logprobs.sum()) for record in records])
    return (RNG(seed).random(len(p)) < low + (high - low) * p).astype(float)


def labelled(records, correct, fractions=(0.0, 0.3, 0.7), seed=0):
    names = [record.example.group for record in records]
    groups = np.unique(names, return_inverse=True)[1]
    parts = split_groups(names, fractions, seed=seed)
    return Labelled(tuple(records), np.asarray(correct, dtype=float), groups, parts)


def choices(n, *, seed=0, level=3.0, counts=(4,)):
    """Multiple choice whose option scores are calibrated: the right one is drawn from them."""
    rng = RNG(seed)
    found = []
    for i in range(n):
        count = counts[i % len(counts)]
        logits = rng.normal(size=count) * level
        p = np.exp(logits - logits.max())
        p /= p.sum()
        right = "ABCDEF"[rng.choice(count, p=p)]
        letters = "ABCDEF"[int(p.argmax())]
        found.append(
            Record(
                Example(
                    f"c{i}",
                    "Which?",
                    choices=tuple(f"option {k}" for k in range(count)),
                    references=(right,),
                ),
                greedy=Generation(letters, logprobs=np.array([np.log(p.max())])),
                features={Feature.OPTION_LOGPROBS: np.log(p)},
            )
        )
    correct = np.array([r.answer.text == r.example.references[0] for r in found], dtype=float)
    return tuple(found), correct


def told_by_layer(layer, n, *, width=8):
    """Answers whose hidden states at one of layers 1 to 3 tell whether they are right."""
    rng = RNG(0)
    correct = (rng.random(n) < 0.7).astype(float)
    hidden = rng.normal(size=(n, 3, 2, width))
    hidden[:, layer - 1, :, 0] += 4 * correct[:, None] - 2
    records = [
        Record(
            Example(f"h{i}", "Which?", references=("red",)),
            greedy=Generation("red", logprobs=np.full(2, -0.1)),
            features={Feature.HIDDEN: states.astype(np.float16)},
            layers=(1, 2, 3),
        )
        for i, states in enumerate(hidden)
    ]
    return tuple(records), correct
