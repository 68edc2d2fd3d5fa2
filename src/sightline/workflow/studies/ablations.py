"""What HARMONY's parts and SGPU's labels are worth: one setting changed at a time, few labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration import CALIBRATORS
from sightline.core.errors import AntiInformativeError
from sightline.core.protocols import LearnedEstimator
from sightline.data.splits import Split
from sightline.estimators import ESTIMATORS, parse_estimator
from sightline.metrics.intervals import WITHIN_TYPE
from sightline.workflow.judged import JudgedRows
from sightline.workflow.studies.protocol import Figures, compare, first_groups, on_test
from sightline.workflow.studies.tables import Cell, StudyTable

Progress = Callable[[str], None]
Scores = dict[str, list[Float[np.ndarray, " n"]]]

RANKING = ("auroc", WITHIN_TYPE, "prr", "auarc")

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

SPECTRUM_RIVALS = (
    "spectrum_logistic_regression",
    "von_neumann_entropy",
    "mean_log_eigenvalue",
    "largest_eigenvalue",
    "participation_ratio",
    "discrete_semantic_entropy",
    "semantic_entropy",
    "kernel_language_entropy",
    "sample_agreement",
)
"""Estimators over the same samples that SGPU is compared with."""


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Scores of one split's labelled and test rows."""

    labelled: Float[np.ndarray, " l"]
    test: Float[np.ndarray, " n"]


def harmony_grid(
    run: str,
    rows: JudgedRows,
    rivals: tuple[str, str],
    *,
    seeds: int,
    train_sizes: Sequence[int],
    resamples: int,
    progress: Progress,
) -> StudyTable:
    """HARMONY with one setting changed at a time, and with fewer training answers.

    Args:
        run: Name of the run.
        rows: Its judged rows, split by at least ``seeds`` seeds.
        rivals: What it is compared with: the first in AUROC within type, the second in PRR.
        seeds: Splits; every row of the table is fitted on each.
        train_sizes: Numbers of training answers.
        resamples: Bootstrap resamples.
        progress: Called before every row.
    """
    splits = rows.splits[:seeds]
    layers = {f"layer {n}": f"harmony:layer={n}" for n in rows.records[0].layers}
    specs = {**{name: name for name in rivals}, **HARMONY_GRID, **layers}
    scores = _fitted(run, specs, rows, splits, progress)
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
            for seed, split in enumerate(splits)
        ]
    return _grid_table(
        f"harmony-{run}", f"HARMONY's ablations on {run}", scores, rows, splits, rivals, resamples
    )


def network_grid(
    run: str,
    rows: JudgedRows,
    rivals: tuple[str, str],
    *,
    seeds: int,
    resamples: int,
    progress: Progress,
) -> StudyTable:
    """HARMONY's network alone, which has no regression to start from: mapping by inputs.

    Where the network adds nothing to the regression, no setting of it shows in HARMONY's figures;
    here every row is the network's own.

    Args:
        run: Name of the run.
        rows: Its judged rows, split by at least ``seeds`` seeds.
        rivals: What it is compared with: the first in AUROC within type, the second in PRR.
        seeds: Splits; every row of the table is fitted on each.
        resamples: Bootstrap resamples.
        progress: Called before every row.
    """
    splits = rows.splits[:seeds]
    specs = {**{name: name for name in rivals}, **NETWORK_GRID}
    scores = _fitted(run, specs, rows, splits, progress)
    title = f"HARMONY's network alone on {run}"
    return _grid_table(f"network-{run}", title, scores, rows, splits, rivals, resamples)


def _fitted(
    run: str,
    specs: Mapping[str, str],
    rows: JudgedRows,
    splits: Sequence[Split],
    progress: Progress,
) -> Scores:
    scores: Scores = {}
    for name, spec in specs.items():
        progress(f"{run}: HARMONY, {name}")
        scores[name] = [
            on_test(parse_estimator(spec), rows, split, seed=seed)
            for seed, split in enumerate(splits)
        ]
    return scores


def _grid_table(
    key: str,
    title: str,
    scores: Scores,
    rows: JudgedRows,
    splits: Sequence[Split],
    rivals: tuple[str, str],
    resamples: int,
) -> StudyTable:
    tests = [split.test for split in splits]
    figures = compare(scores, tests, rows, RANKING, resamples=resamples)
    return StudyTable(
        key=key,
        title=title,
        note=(
            f"Fitted on {len(splits[0].train):,} answers, or as many as the row says, and measured "
            f"on {len(tests[0]):,} in each of {len(splits)} splits. Differences are paired, to the "
            f"best estimator of one signal: {rivals[0]} in AUROC within type, {rivals[1]} in PRR, "
            "chosen by their figures on test rows, which favours them."
        ),
        columns=("Setting", "AUROC", "AUROC within type", "PRR", "Δ within type", "Δ PRR"),
        rows=tuple(_grid_row(name, figures, rivals) for name in scores),
    )


def _grid_row(name: str, figures: Figures, rivals: tuple[str, str]) -> tuple[Cell, ...]:
    return (
        name,
        figures.figure(name, "auroc"),
        figures.figure(name, WITHIN_TYPE),
        figures.figure(name, "prr"),
        None if name in rivals else figures.difference(name, rivals[0], WITHIN_TYPE),
        None if name in rivals else figures.difference(name, rivals[1], "prr"),
    )


def label_curve(
    run: str, rows: JudgedRows, counts: Sequence[int], *, resamples: int, progress: Progress
) -> StudyTable:
    """SGPU's own probability against rivals over the same samples, at few labels.

    Args:
        run: Name of the run.
        rows: Its judged rows.
        counts: Numbers of labelled answers, drawn from the train and calibration parts.
        resamples: Bootstrap resamples.
        progress: Called before every number of labels.
    """
    tests = [split.test for split in rows.splits]
    table: list[tuple[Cell, ...]] = []
    for count in counts:
        progress(f"{run}: SGPU on {count:,} labels")
        labelled = [
            first_groups(
                rows,
                np.union1d(split.train, split.calibration),
                count,
                np.random.default_rng(seed),
            )
            for seed, split in enumerate(rows.splits)
        ]
        scores = {name: _labelled(name, rows, labelled) for name in ("sgpu", *SPECTRUM_RIVALS)}
        ranked = compare(
            {name: [pair.test for pair in pairs] for name, pairs in scores.items()},
            tests,
            rows,
            RANKING,
            resamples=resamples,
        )
        chosen: dict[str, str] = {}
        confidences: Scores = {}
        for name, pairs in scores.items():
            chosen[name], confidences[name] = _best_calibrated(name, pairs, labelled, rows)
        measured = compare(
            confidences, tests, rows, ("ece", "brier"), probability=True, resamples=resamples
        )
        for name in scores:
            other = name != "sgpu"
            table.append(
                (
                    f"{count:,}: {name}",
                    chosen[name],
                    measured.figure(name, "ece"),
                    measured.difference("sgpu", name, "ece") if other else None,
                    measured.figure(name, "brier"),
                    ranked.figure(name, "auroc"),
                    ranked.difference("sgpu", name, "auroc") if other else None,
                    ranked.figure(name, WITHIN_TYPE),
                )
            )
    return StudyTable(
        key=f"labels-{run}",
        title=f"SGPU at few labels on {run}",
        note=(
            f"Measured on {len(tests[0]):,} answers in each of {len(tests)} splits. Probabilities "
            "of what is fitted (SGPU, logistic regression) are their own, before any calibration; "
            "another score gets the calibrator, fitted on the same labels, that has the lowest ECE "
            "on the test rows, which favours it. Differences are SGPU less the rival, paired."
        ),
        columns=(
            "Labels: estimator", "Calibrator", "ECE", "Δ ECE", "Brier", "AUROC", "Δ AUROC",
            "AUROC within type",
        ),
        rows=tuple(table),
    )  # fmt: skip


def _labelled(
    name: str, rows: JudgedRows, labelled: Sequence[Int[np.ndarray, " l"]]
) -> list[_Labelled]:
    pairs = []
    estimator = parse_estimator(name)
    for seed, (split, own) in enumerate(zip(rows.splits, labelled, strict=True)):
        both = np.concatenate([own, split.test])
        scores = on_test(estimator, rows, split, seed=seed, train=own, test=both)
        pairs.append(_Labelled(scores[: len(own)], scores[len(own) :]))
    return pairs


def _best_calibrated(
    name: str,
    pairs: Sequence[_Labelled],
    labelled: Sequence[Int[np.ndarray, " l"]],
    rows: JudgedRows,
) -> tuple[str, list[Float[np.ndarray, " n"]]]:
    """The calibrator with the lowest test ECE and the confidences it gives.

    What was fitted on the labels cannot be calibrated on them again: it keeps its probability.
    """
    estimator = ESTIMATORS[name]
    own_probability = [1.0 - pair.test for pair in pairs]
    if isinstance(estimator, LearnedEstimator):
        return "its own", own_probability
    candidates: Scores = {"its own": own_probability} if estimator.is_probability else {}
    for calibrator_name, calibrator in CALIBRATORS.items():
        if calibrator.needs_probability and not estimator.is_probability:
            continue
        try:
            candidates[calibrator_name] = [
                calibrator.fit(
                    pair.labelled, rows.correct[own], groups=rows.groups[own]
                ).confidence(pair.test)
                for own, pair in zip(labelled, pairs, strict=True)
            ]
        except AntiInformativeError:
            continue
    tests = [split.test for split in rows.splits]
    figures = compare(candidates, tests, rows, ("ece",), probability=True, resamples=20)
    ece = {key: figures.figure(key, "ece").value for key in candidates}
    best = min(candidates, key=lambda key: (ece[key] is None, ece[key] or 0.0))
    return best, candidates[best]
