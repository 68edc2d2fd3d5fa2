"""What SGPU's own probability is worth at few labels, beside rivals over the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration import CALIBRATORS
from sightline.core.errors import AntiInformativeError
from sightline.core.protocols import Calibrator, LearnedEstimator
from sightline.estimators import ESTIMATORS, parse_estimator
from sightline.metrics.intervals import WITHIN_TYPE
from sightline.workflow.judged import JudgedRows
from sightline.workflow.studies.protocol import (
    CONTROL,
    RANKING,
    Scores,
    compare,
    first_groups,
    on_test,
    shown_name,
)
from sightline.workflow.studies.tables import Cell, StudyTable

Progress = Callable[[str], None]

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


ITS_OWN, ON_LABELS, ON_TEST = "its own", "chosen on labels", "chosen on test"
FOLDS = 5
"""Folds of the labelled groups by which a rival's calibrator is chosen."""


@dataclass(frozen=True, slots=True)
class _Calibrated:
    """The calibrator chosen, and by split the confidences on the test rows."""

    calibrator: str
    confidence: list[Float[np.ndarray, " n"]]


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Scores of one split's labelled and test rows."""

    labelled: Float[np.ndarray, " l"]
    test: Float[np.ndarray, " n"]


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
        scores = {
            name: _labelled(name, rows, labelled) for name in ("sgpu", *SPECTRUM_RIVALS, CONTROL)
        }
        ranked = compare(
            {name: [pair.test for pair in pairs] for name, pairs in scores.items()},
            tests,
            rows,
            RANKING,
            resamples=resamples,
        )
        chosen = {name: _calibrated(name, pairs, labelled, rows) for name, pairs in scores.items()}
        measured = {
            how: compare(
                {name: both[how].confidence for name, both in chosen.items()},
                tests,
                rows,
                ("ece", "brier"),
                probability=True,
                resamples=resamples,
            )
            for how in (ON_LABELS, ON_TEST)
        }
        for name in scores:
            rival = name not in ("sgpu", CONTROL)
            cells: list[Cell] = [f"{count:,}: {shown_name(name)}"]
            for how, figures in measured.items():
                cells += [
                    chosen[name][how].calibrator,
                    figures.figure(name, "ece"),
                    figures.difference("sgpu", name, "ece") if rival else None,
                ]
            cells += [
                measured[ON_LABELS].figure(name, "brier"),
                ranked.figure(name, "auroc"),
                ranked.difference("sgpu", name, "auroc") if rival else None,
                ranked.figure(name, WITHIN_TYPE),
            ]
            table.append(tuple(cells))
    return StudyTable(
        key=f"labels-{run}",
        title=f"SGPU at few labels on {run}",
        note=(
            f"Measured on {len(tests[0]):,} answers in each of {len(tests)} splits. Probabilities "
            "of what is fitted (SGPU, logistic regression, the control) are their own, before any "
            "calibration. Another score gets a calibrator fitted on the same labels: "
            f"{ON_LABELS}, the one of least squared error by cross-fitting over groups of the "
            "labels, the commonest over the splits named; "
            f"{ON_TEST}, the one of lowest ECE on the test rows, which nobody "
            "can choose and which favours it. Differences are SGPU less the rival, paired."
        ),
        columns=(
            "Labels: estimator",
            *(title for how in (ON_LABELS, ON_TEST) for title in label_columns(how)),
            "Brier", "AUROC", "Δ AUROC", "AUROC within type",
        ),
        rows=tuple(table),
    )  # fmt: skip


def label_columns(how: str) -> tuple[str, str, str]:
    """Headings of a rival's calibrator, its ECE and the difference, by how it was chosen."""
    return f"Calibrator {how}", f"ECE {how}", f"Δ ECE {how}"


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


def _calibrated(
    name: str,
    pairs: Sequence[_Labelled],
    labelled: Sequence[Int[np.ndarray, " l"]],
    rows: JudgedRows,
) -> Mapping[str, _Calibrated]:
    """An estimator's confidences on the test rows, by how its calibrator is chosen.

    What was fitted on the labels cannot be calibrated on them again: it keeps its probability.
    """
    estimator = ESTIMATORS[name]
    own = [1.0 - pair.test for pair in pairs]
    if isinstance(estimator, LearnedEstimator):
        return dict.fromkeys((ON_LABELS, ON_TEST), _Calibrated(ITS_OWN, own))
    candidates: Scores = {ITS_OWN: own} if estimator.is_probability else {}
    errors = {
        name: [_error(1.0 - p.labelled, o, rows) for p, o in zip(pairs, labelled, strict=True)]
        for name in candidates
    }
    for calibrator_name, calibrator in CALIBRATORS.items():
        if calibrator.needs_probability and not estimator.is_probability:
            continue
        try:
            candidates[calibrator_name], errors[calibrator_name] = _fitted_calibrator(
                calibrator, pairs, labelled, rows
            )
        except AntiInformativeError:
            continue
    least = [
        min(candidates, key=lambda key: errors[key][split]) for split in range(len(rows.splits))
    ]
    tests = [split.test for split in rows.splits]
    figures = compare(candidates, tests, rows, ("ece",), probability=True, resamples=20)
    ece = {key: figures.figure(key, "ece").value for key in candidates}
    best = min(candidates, key=lambda key: (ece[key] is None, ece[key] or 0.0))
    return {
        ON_LABELS: _Calibrated(
            max(candidates, key=least.count), [candidates[key][at] for at, key in enumerate(least)]
        ),
        ON_TEST: _Calibrated(best, candidates[best]),
    }


def _fitted_calibrator(
    calibrator: Calibrator,
    pairs: Sequence[_Labelled],
    labelled: Sequence[Int[np.ndarray, " l"]],
    rows: JudgedRows,
) -> tuple[list[Float[np.ndarray, " n"]], list[float]]:
    """By split, its confidences on the test rows and its squared error over folds of the labels."""
    confidences, errors = [], []
    for pair, own in zip(pairs, labelled, strict=True):
        correct, groups = rows.correct[own], rows.groups[own]
        whole = calibrator.fit(pair.labelled, correct, groups=groups)
        confidences.append(whole.confidence(pair.test))
        crossed = np.empty(len(own))
        fold = _folds(correct, groups)
        for held in (fold == number for number in range(FOLDS)):
            kept = ~held
            part = calibrator.fit(pair.labelled[kept], correct[kept], groups=groups[kept])
            crossed[held] = part.confidence(pair.labelled[held])
        errors.append(_error(crossed, own, rows))
    return confidences, errors


def _folds(
    correct: Float[np.ndarray, " l"], groups: Int[np.ndarray, " l"]
) -> Int[np.ndarray, " l"]:
    """Fold of each row: groups in line by their accuracy, dealt in turn."""
    _, at, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    accuracy = np.bincount(at, weights=correct) / sizes
    fold = np.empty(len(sizes), dtype=np.int64)
    fold[np.argsort(accuracy, kind="stable")] = np.arange(len(sizes)) % FOLDS
    return fold[at]


def _error(
    confidence: Float[np.ndarray, " l"], own: Int[np.ndarray, " l"], rows: JudgedRows
) -> float:
    return float(np.mean((confidence - rows.correct[own]) ** 2))
