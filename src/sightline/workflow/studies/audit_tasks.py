"""Instability by kind of question: where perturbations take answers away, and where they do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from sightline.audit.instability import instability
from sightline.audit.resampled import Clusters
from sightline.audit.verdicts import (
    FEWEST_PICTURES,
    TaskPairs,
    change_of_accuracy,
    common_conditions,
    task_dependent,
)
from sightline.core.audit_results import Finding
from sightline.core.estimates import Estimate
from sightline.store.run import RunStore
from sightline.workflow.auditing.columns import PICTURE
from sightline.workflow.auditing.running import AuditOutcome, AuditSettings, finding_of
from sightline.workflow.studies.tables import Cell, StudyTable

REASONING = ("comparison", "count", "position")
"""Types that take more than finding one thing."""

HALLUCINATION = ("existence",)
"""Types that ask for what may not be there."""


NOTHING_COMMON = Estimate(None, n=0, reason="no condition counts for every type")


@dataclass(frozen=True, slots=True, eq=False)
class TypedPairs:
    """Pairs of a run whose picture is changed, with the type of their question.

    Attributes:
        pairs: Flips and grades, with the condition of each.
        types: Type of each pair's question.
        far: Whether the answer stayed while the representation moved as far as an unrelated
            picture.
        drift: 1 - cosine of the flagged channel, NaN where there is none.
    """

    pairs: TaskPairs
    types: np.ndarray
    far: Bool[np.ndarray, " n"]
    drift: Float[np.ndarray, " n"]


def answers_by_type(outcome: AuditOutcome, store: RunStore) -> TypedPairs:
    """The pairs of an audit with the types of its run's questions."""
    types = {example.id: example.question_type or "" for example in store.examples()}
    own = [pair for pair in outcome.pairs if pair.part == PICTURE]
    return TypedPairs(
        pairs=TaskPairs("", outcome.columns, outcome.conditions),
        types=np.array([types[pair.example_id] for pair in own], dtype=object),
        far=np.array([pair.moved_far for pair in own], dtype=bool),
        drift=np.array([np.nan if pair.drift is None else pair.drift for pair in own]),
    )


def by_task(
    answers: TypedPairs, first: tuple[str, ...], second: tuple[str, ...], settings: AuditSettings
) -> Finding:
    """Whether perturbations change accuracy otherwise on some types than on others.

    Under the conditions that count for both.

    Args:
        answers: Pairs with types.
        first: Types of the one task.
        second: Types of the other.
        settings: Bootstrap.
    """
    one, other = (
        answers.pairs.where(np.isin(answers.types, types), " and ".join(types))
        for types in (first, second)
    )
    return finding_of(task_dependent(one, other, _clusters(answers, settings)))


def tasks_table(run: str, answers: TypedPairs, settings: AuditSettings) -> StudyTable:
    """Flips, accuracy and drift behind answers that stay, by type of question."""
    clusters = _clusters(answers, settings)
    pairs = answers.pairs.pairs
    tasks = [
        answers.pairs.where(answers.types == name, name) for name in sorted(set(answers.types))
    ]
    common = common_conditions(tasks)
    rows: list[tuple[Cell, ...]] = []
    for task in tasks:
        own = answers.types == task.name
        found = instability(task.pairs, clusters)
        stayed = own & pairs.counted & ~pairs.flipped
        images = pairs.images
        there = stayed & np.isfinite(answers.drift)
        rows.append(
            (
                task.name,
                found.pairs,
                len(set(task.conditions[task.pairs.counted])),
                found.ifr,
                found.iv,
                found.accuracy_before,
                found.accuracy_change,
                change_of_accuracy(task, common, clusters) if common else NOTHING_COMMON,
                found.lost,
                found.won,
                clusters.share(images, answers.far, stayed),
                clusters.mean(images[there], answers.drift[there])
                if there.any()
                else Estimate(None, n=0, reason="no answer stays"),
            )
        )
    return StudyTable(
        key=f"tasks-{run}",
        title=f"By type of question on {run}",
        note=(
            "All perturbations of the picture together; pairs whose right answer may change are "
            "left out, so that types are seen under other conditions, whose number stands beside: "
            "rows of unlike conditions say nothing about types. Same conditions: mean over the "
            f"{len(common)} that count about at least {FEWEST_PICTURES} pictures of every type, "
            "weighted alike. Moved far: share of the answers that stay whose representation moved "
            "as far as an unrelated picture. Intervals resample pictures."
        ),
        columns=(
            "Type", "Pairs", "Conditions", "IFR", "IV", "Accuracy before", "Δ accuracy",
            "Δ accuracy, same conditions", "R→W", "W→R", "Moved far",
            "Drift where the answer stays",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _clusters(answers: TypedPairs, settings: AuditSettings) -> Clusters:
    return Clusters.of(
        answers.pairs.pairs.images,
        rng=np.random.default_rng(settings.seed),
        n_resamples=settings.resamples,
        level=settings.level,
    )
