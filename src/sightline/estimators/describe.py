"""The documentation page of the estimators, written from the table."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from sightline.core.condition_names import asked_condition
from sightline.core.features import AUDITED, FOLLOW_UPS, Feature
from sightline.core.protocols import Cost, LearnedEstimator
from sightline.core.types import Example, Generation, Record, Related
from sightline.estimators import ESTIMATORS, AnyEstimator

_HEAD = """\
# Estimators

Every estimator reads records and returns *uncertainty*: higher means the answer is more likely to
be wrong. Those whose "probability" column says yes return one minus a probability of being right,
so their calibration error can be read off before any calibration. A record that lacks a needed
signal is skipped and counted, never scored.

The "needs" column names signals of a run. Those that `sightline collect` leaves out by default are
asked for there (`--ask`, `--conditions`, `--sample-states`) or computed later from what was stored:
sentence vectors, entailment and token importance by `sightline derive`, signs of instability by
`sightline audit`. `sightline evaluate` says what a run lacks and how to get it. Costs are what a
score takes beyond the greedy answer, per question; a prefill is one reading of picture and prompt.

Choose some with `--estimators NAME,NAME`, and change settings with `NAME:setting=value` (further
settings follow after another colon), for example `lexical_similarity:metric=rouge1`; the settings
column shows the defaults.

At the limits: one sample, or samples that are all the same, show no disagreement, and scores over
samples are 0, or what the notes name as their least value. An empty answer is an answer like any
other: it agrees with other empty ones. An answer cut off while the model was still reasoning has no
tokens of its own; the reasoning tokens stand in for them. No score is NaN or infinite.

Written by `make docs` from the one table, `sightline.estimators.ESTIMATORS`.
"""


def estimators_page() -> str:
    """Returns the page: for each family its estimators with needs, settings, costs and sources."""
    parts = [_HEAD]
    for family in dict.fromkeys(estimator.family for estimator in ESTIMATORS.values()):
        members = [(n, e) for n, e in ESTIMATORS.items() if e.family == family]
        parts.append(
            f"\n## {family.capitalize()}\n\n"
            "| name | uncertainty | needs | settings | probability | costs |\n"
            "|---|---|---|---|---|---|\n"
        )
        parts += [_row(name, estimator) for name, estimator in members]
        classes = dict.fromkeys(type(estimator) for _, estimator in members)
        notes = [_notes(cls, [f"`{n}`" for n, e in members if type(e) is cls]) for cls in classes]
        parts.append("\n" + "".join(note for note in notes if note))
    return "".join(parts).rstrip("\n") + "\n"


def _notes(cls: type, names: list[str]) -> str:
    """What the class says beyond its summary, as one list item."""
    paragraphs = [
        " ".join(paragraph.replace("Attributes:", "Settings:").split())
        for paragraph in inspect.cleandoc(cls.__doc__ or "").split("\n\n")[1:]
    ]
    return f"- {', '.join(names)}: {' '.join(paragraphs)}\n" if paragraphs else ""


def _row(name: str, estimator: Any) -> str:
    summary = (type(estimator).__doc__ or "").partition("\n")[0].removesuffix(".")
    if isinstance(estimator, LearnedEstimator):
        slow = "; slow, so evaluated only when named" if estimator.slow else ""
        summary += f" (fitted on the training rows{slow})"
    if estimator.simple:
        summary += " (simple baseline)"
    needs = ", ".join(f.value for f in Feature if f in estimator.needs) or "nothing"
    settings = ", ".join(f"{f.name}={getattr(estimator, f.name)}" for f in fields(estimator)) or "–"
    probability = "yes" if estimator.is_probability else "no"
    return f"| `{name}` | {summary} | {needs} | {settings} | {probability} | {_cost(estimator)} |\n"


def _cost(estimator: AnyEstimator) -> str:
    """Cost in words, read off a record with one of everything."""
    cost = estimator.cost([_one_of_everything()])
    if cost == Cost():
        return "nothing"
    if Feature.SAMPLES in estimator.needs:
        return "the samples"
    each = {
        Feature.CONDITIONS: "condition",
        Feature.NEGATIONS: "negated condition",
        Feature.ROTATIONS: "rotation",
        Feature.MODELS: "model",
    }
    per = [word for feature, word in each.items() if feature in estimator.needs]
    if estimator.needs & AUDITED:
        return "a prefill and the answers per perturbed picture"
    if estimator.needs & FOLLOW_UPS:
        return f"a prefill{' and the reply' if cost.generations else ''} per wording asked"
    what = "a prefill and the answers" if cost.generations else "a prefill"
    image = "noised" if Feature.NOISED_LOGPROBS in estimator.needs else "blank"
    return f"{what} per {' and per '.join(per)}" if per else f"{what} with a {image} image"


def _one_of_everything() -> Record:
    answer = Generation("A")
    example = Example("one", "?", choices=("a", "b"))

    def other(condition: str) -> Record:
        return Record(example, condition, greedy=answer)

    return Record(
        example,
        greedy=answer,
        samples=(answer,),
        related=Related(
            conditions=(other("blur:1"), other("negated:1"), other("blank")),
            rotations=(other("clean"),),
            models=(other("clean"),),
            follow_ups=tuple(other(asked_condition(question)) for question in FOLLOW_UPS),
        ),
    )
