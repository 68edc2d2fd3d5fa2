"""Verdicts on several audits together: of models of different sizes, and of different tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sightline.audit.instability import Pairs
from sightline.audit.resampled import Clusters
from sightline.audit.verdicts import SizedRun, scale_does_not_help, task_dependent
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
    """Every verdict that several audits allow together.

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
    return Comparison(tuple(outcome.audit.run for outcome in every), tuple(findings))


def compare_sizes(
    outcomes: Sequence[AuditOutcome],
    sizes: Sequence[int],
    settings: AuditSettings,
) -> Finding:
    """Whether the larger of several models flips less often, on the pictures of all.

    Args:
        outcomes: Audits of models of different sizes.
        sizes: Their parameters.
        settings: Bootstrap.

    Raises:
        UsageError: As many sizes as runs are required, all different.
    """
    if len(sizes) != len(outcomes):
        raise UsageError(
            f"{len(outcomes)} runs with {len(sizes)} sizes; one size a run is required. Give "
            "--sizes in the order of the runs."
        )
    pairs, clusters = _together(outcomes, settings)
    runs = [
        SizedRun(outcome.audit.run, size, own)
        for outcome, size, own in zip(outcomes, sizes, pairs, strict=True)
    ]
    return finding_of(scale_does_not_help(runs, clusters))


def compare_tasks(outcome: AuditOutcome, other: AuditOutcome, settings: AuditSettings) -> Finding:
    """Whether perturbations change accuracy otherwise on the questions of another run.

    Args:
        outcome: An audit, such as of questions that ask for reasoning.
        other: An audit of the same model on other questions, such as about what is not there.
        settings: Bootstrap.

    Raises:
        UsageError: The runs are one and the same, or of different models.
    """
    models = [one.model.get("files_xxh3", one.audit.model) for one in (outcome, other)]
    paths = [Path(one.audit.path).resolve() for one in (outcome, other)]
    if models[0] != models[1] or paths[0] == paths[1]:
        found = (
            f"one run, {outcome.audit.run}"
            if paths[0] == paths[1]
            else f"runs of {outcome.audit.model} and {other.audit.model}"
        )
        raise UsageError(
            f"--against compares {found}; two runs of one model on different questions are "
            "required. Collect the model on the other questions."
        )
    names = [one.audit.dataset for one in (outcome, other)]
    if names[0] == names[1]:
        names = [one.audit.run for one in (outcome, other)]
    (first, second), clusters = _together([outcome, other], settings)
    return finding_of(task_dependent((names[0], first), (names[1], second), clusters))


def _together(
    outcomes: Sequence[AuditOutcome], settings: AuditSettings
) -> tuple[list[Pairs], Clusters]:
    """The pairs of all runs, a picture that several have with one number; and its resamples."""
    numbers: dict[str, int] = {}
    pairs = []
    for outcome in outcomes:
        codes = np.array([numbers.setdefault(key, len(numbers)) for key in outcome.image_keys])
        pairs.append(replace(outcome.columns, images=codes[outcome.columns.images]))
    clusters = Clusters.of(
        np.concatenate([own.images for own in pairs]),
        rng=np.random.default_rng(settings.seed),
        n_resamples=settings.resamples,
        level=settings.level,
    )
    return pairs, clusters
