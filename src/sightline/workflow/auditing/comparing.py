"""Verdicts on several audits together: of models of different sizes, and of different tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from sightline.audit.resampled import Clusters
from sightline.audit.verdicts import SizedRun, TaskPairs, scale_does_not_help, task_dependent
from sightline.core.audit_results import Comparison, Finding
from sightline.core.errors import UsageError
from sightline.workflow.auditing.running import AuditOutcome, AuditSettings, finding_of


def comparison(
    outcomes: Sequence[AuditOutcome],
    *,
    sizes: Sequence[int] | None = None,
    against: AuditOutcome | None = None,
    settings: AuditSettings,
) -> Comparison:
    """Every verdict that several audits allow together, and whether their pairs are the same.

    Args:
        outcomes: Audits to compare.
        sizes: Parameters of their models; None = whether size helps is not asked.
        against: An audit of other questions, which each of them is held against.
        settings: Bootstrap.

    Raises:
        UsageError: As `compare_sizes` and `compare_tasks`.
    """
    findings = [] if sizes is None else [compare_sizes(outcomes, sizes, settings)]
    if against is not None:
        findings += [compare_tasks(outcome, against, settings) for outcome in outcomes]
    every = [*outcomes, *([] if against is None else [against])]
    return Comparison(
        tuple(outcome.audit.run for outcome in every), tuple(findings), unlike_pairs(every)
    )


def compare_sizes(
    outcomes: Sequence[AuditOutcome],
    sizes: Sequence[int],
    settings: AuditSettings,
) -> Finding:
    """Whether the larger of several models flips less often, on the pairs that count in all runs.

    Args:
        outcomes: Audits of models of different sizes.
        sizes: Their parameters.
        settings: Bootstrap.

    Raises:
        UsageError: As many sizes as runs are required, all different, of as many models; or no
            question under one condition counts in every run.
    """
    if len(sizes) != len(outcomes):
        raise UsageError(
            f"{len(outcomes)} runs with {len(sizes)} sizes; one size a run is required. Give "
            "--sizes in the order of the runs."
        )
    first: dict[str, str] = {}
    for outcome in outcomes:
        model = _identity(outcome.model)
        if model in first:
            raise UsageError(
                f"Two sizes for one model, {outcome.audit.model}, of {first[model]} and "
                f"{outcome.audit.run}; runs of models of different sizes are required. Collect "
                "another size."
            )
        first[model] = outcome.audit.run
    images, clusters = _together(outcomes, settings)
    numbers: dict[tuple[object, ...], int] = {}
    runs = [
        SizedRun(
            name=outcome.audit.run,
            parameters=size,
            pairs=replace(outcome.columns, images=own),
            keys=np.array(
                [numbers.setdefault(key, len(numbers)) for key in _keys(outcome)], dtype=np.int64
            ),
            conditions=outcome.conditions,
        )
        for outcome, size, own in zip(outcomes, sizes, images, strict=True)
    ]
    return finding_of(scale_does_not_help(runs, clusters))


def compare_tasks(outcome: AuditOutcome, other: AuditOutcome, settings: AuditSettings) -> Finding:
    """Whether perturbations change accuracy otherwise on the questions of another run.

    Under the conditions that count in both.

    Args:
        outcome: An audit, such as of questions that ask for reasoning.
        other: An audit of the same model on other questions, such as about what is not there.
        settings: Bootstrap.

    Raises:
        UsageError: The runs are one and the same, or of different models.
    """
    if Path(outcome.audit.path).resolve() == Path(other.audit.path).resolve():
        raise UsageError(
            f"--against compares one run, {outcome.audit.run}; two runs of one model on different "
            "questions are required. Collect the model on the other questions."
        )
    require_one_model(outcome.model, other.model)
    names = [one.audit.dataset for one in (outcome, other)]
    if names[0] == names[1]:
        names = [one.audit.run for one in (outcome, other)]
    images, clusters = _together([outcome, other], settings)
    first, second = (
        TaskPairs(name, replace(one.columns, images=own), one.conditions)
        for name, one, own in zip(names, (outcome, other), images, strict=True)
    )
    return finding_of(task_dependent(first, second, clusters))


def unlike_pairs(outcomes: Sequence[AuditOutcome]) -> str | None:
    """How many of the pairs that count differ between runs, in words; None where none do.

    Args:
        outcomes: Audits that are shown side by side.
    """
    counted = [
        {key for key, counts in zip(_keys(one), one.columns.counted, strict=True) if counts}
        for one in outcomes
    ]
    common = set.intersection(*counted)
    if all(len(own) == len(common) for own in counted):
        return None
    each = ", ".join(
        f"{len(own) - len(common):,} of {len(own):,} in {one.audit.run}"
        for one, own in zip(outcomes, counted, strict=True)
    )
    return (
        "The runs were not asked the same under the same conditions, and figures side by side are "
        f"of each run's own pairs that count: {len(common):,} count in every run, others are "
        f"{each}. A difference may be one of pairs, not of models; verdicts say what they match."
    )


def require_one_model(model: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Requires that two runs that are held against each other are of one model.

    Args:
        model: A run's model, as its manifest has it.
        other: The other run's.

    Raises:
        UsageError: They are of different models.
    """
    if _identity(model) != _identity(other):
        raise UsageError(
            f"--against compares runs of {model.get('name')} and {other.get('name')}; two runs of "
            "one model on different questions are required. Collect the model on the other "
            "questions."
        )


def _identity(model: Mapping[str, Any]) -> str:
    """What tells models apart: their files, or the name of one that shows none."""
    return str(model.get("files_xxh3", model.get("name")))


def _keys(outcome: AuditOutcome) -> list[tuple[object, ...]]:
    """What each pair is of: the question with its words and picture, and the condition."""
    pairs = outcome.columns
    return [
        (outcome.questions[item], outcome.image_keys[image], condition)
        for item, image, condition in zip(
            pairs.items.tolist(), pairs.images.tolist(), outcome.conditions.tolist(), strict=True
        )
    ]


def _together(
    outcomes: Sequence[AuditOutcome], settings: AuditSettings
) -> tuple[list[Int[np.ndarray, " n"]], Clusters]:
    """Pictures of the pairs of all runs, one that several have with one number; and resamples."""
    numbers: dict[str, int] = {}
    images = []
    for outcome in outcomes:
        codes = np.array([numbers.setdefault(key, len(numbers)) for key in outcome.image_keys])
        images.append(codes[outcome.columns.images])
    clusters = Clusters.of(
        np.concatenate(images),
        rng=np.random.default_rng(settings.seed),
        n_resamples=settings.resamples,
        level=settings.level,
    )
    return images, clusters
