"""What HARMONY's parts are worth: one setting changed at a time, and its network alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sightline.estimators import parse_estimator
from sightline.metrics.intervals import WITHIN_TYPE
from sightline.workflow.judged import JudgedRows
from sightline.workflow.studies.protocol import (
    CONTROL,
    RANKING,
    Figures,
    Scores,
    compare,
    first_groups,
    on_test,
    shown_name,
)
from sightline.workflow.studies.tables import Cell, StudyTable

Progress = Callable[[str], None]

HARMONY_GRID: Mapping[str, str] = {
    "default": "harmony",
    "text alone": "harmony:inputs=text",
    "probability alone": "harmony:inputs=prob",
    "hidden alone": "harmony:inputs=hidden",
    "without hidden": "harmony:inputs=text+prob",
    "without probability": "harmony:inputs=text+hidden",
    "without text": "harmony:inputs=prob+hidden",
    "additive mapping": "harmony:mapping=additive",
    "pooled MLP": "harmony:mapping=pooled_mlp",
}
"""One change at a time from the default; every stored layer alone comes on top."""

NETWORK_GRID: Mapping[str, str] = {
    f"{mapping}: {inputs}": f"harmony:residual=false:inputs={inputs}:mapping={mapping}"
    for mapping in ("interleaved", "additive", "pooled_mlp")
    for inputs in ("text+prob+hidden", "text+prob", "prob+hidden", "text+hidden")
}
"""The network without the regression it starts from: mappings by inputs."""


def harmony_grid(
    run: str,
    rows: JudgedRows,
    rivals: tuple[str, str],
    *,
    train_sizes: Sequence[int],
    resamples: int,
    progress: Progress,
) -> StudyTable:
    """HARMONY with one setting changed at a time, and with fewer training answers.

    Args:
        run: Name of the run.
        rows: Its judged rows; every row of the table is fitted on each of their splits.
        rivals: What it is compared with: the first in AUROC within type, the second in PRR.
        train_sizes: Numbers of training answers.
        resamples: Bootstrap resamples.
        progress: Called before every row.
    """
    layers = {f"layer {n}": f"harmony:layer={n}" for n in rows.records[0].layers}
    shown = dict.fromkeys((*rivals, CONTROL))
    specs = {**{name: name for name in shown}, **HARMONY_GRID, **layers}
    scores = _fitted(run, specs, rows, progress)
    for count in train_sizes:
        progress(f"{run}: HARMONY on {count:,} answers")
        scores[f"{count:,} training answers"] = [
            on_test(
                parse_estimator("harmony"),
                rows,
                split,
                seed=seed,
                train=first_groups(rows, split.train, count, np.random.default_rng(seed)),
            )
            for seed, split in enumerate(rows.splits)
        ]
    return _grid_table(
        f"harmony-{run}", f"HARMONY's ablations on {run}", scores, rows, rivals, resamples
    )


def network_grid(
    run: str,
    rows: JudgedRows,
    rivals: tuple[str, str],
    *,
    resamples: int,
    progress: Progress,
) -> StudyTable:
    """HARMONY's network alone, which has no regression to start from: mapping by inputs.

    Where the network adds nothing to the regression, no setting of it shows in HARMONY's figures;
    here every row is the network's own.

    Args:
        run: Name of the run.
        rows: Its judged rows; every row of the table is fitted on each of their splits.
        rivals: What it is compared with: the first in AUROC within type, the second in PRR.
        resamples: Bootstrap resamples.
        progress: Called before every row.
    """
    shown = dict.fromkeys((*rivals, CONTROL))
    specs = {**{name: name for name in shown}, **NETWORK_GRID}
    scores = _fitted(run, specs, rows, progress)
    title = f"HARMONY's network alone on {run}"
    return _grid_table(f"network-{run}", title, scores, rows, rivals, resamples)


def _fitted(
    run: str,
    specs: Mapping[str, str],
    rows: JudgedRows,
    progress: Progress,
) -> Scores:
    scores: Scores = {}
    for name, spec in specs.items():
        progress(f"{run}: HARMONY, {name}")
        scores[name] = [
            on_test(parse_estimator(spec), rows, split, seed=seed)
            for seed, split in enumerate(rows.splits)
        ]
    return scores


def _grid_table(
    key: str,
    title: str,
    scores: Scores,
    rows: JudgedRows,
    rivals: tuple[str, str],
    resamples: int,
) -> StudyTable:
    tests = [split.test for split in rows.splits]
    figures = compare(scores, tests, rows, RANKING, resamples=resamples)
    return StudyTable(
        key=key,
        title=title,
        note=(
            f"Fitted on {len(rows.splits[0].train):,} answers, or as many as the row says, and "
            f"measured on {len(tests[0]):,} in each of {len(tests)} splits. Differences are "
            f"paired, to the best estimator of one signal: {rivals[0]} in AUROC within type, "
            f"{rivals[1]} in PRR, chosen by their figures on test rows, which favours them."
        ),
        columns=("Setting", "AUROC", "AUROC within type", "PRR", "Δ within type", "Δ PRR"),
        rows=tuple(_grid_row(name, figures, rivals) for name in scores),
    )


def _grid_row(name: str, figures: Figures, rivals: tuple[str, str]) -> tuple[Cell, ...]:
    compared = name not in (*rivals, CONTROL)
    return (
        shown_name(name),
        figures.figure(name, "auroc"),
        figures.figure(name, WITHIN_TYPE),
        figures.figure(name, "prr"),
        figures.difference(name, rivals[0], WITHIN_TYPE) if compared else None,
        figures.difference(name, rivals[1], "prr") if compared else None,
    )
