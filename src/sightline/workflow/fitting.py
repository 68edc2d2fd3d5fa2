"""Fitting an estimator on a run's labelled answers, to score other runs with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import sightline
from sightline.core.errors import DiskError, MissingFeatureError, UsageError
from sightline.core.features import ARRAY_AXES
from sightline.core.protocols import LearnedEstimator
from sightline.core.results import Skipped
from sightline.estimators import ESTIMATORS, parse_estimator, spec_of
from sightline.estimators.saved import Saved, require_free, save_fitted
from sightline.grading import JudgeModel
from sightline.store.run import RunStore
from sightline.workflow.classifying.reading import open_answers
from sightline.workflow.evaluate import Judged, Settings, check, read_judged
from sightline.workflow.fitted import content
from sightline.workflow.scoring import fit_rows, observable


@dataclass(frozen=True, slots=True)
class FitResult:
    """What was fitted, and what it could not be fitted on.

    Attributes:
        saved: The estimator as it was written.
        skipped: Rows left out, by reason.
    """

    saved: Saved
    skipped: tuple[Skipped, ...]


def fit(
    path: Path,
    spec: str,
    output: Path,
    settings: Settings,
    *,
    all_rows: bool = False,
    given_split: Mapping[str, str] | None = None,
    judge: JudgeModel | None = None,
) -> FitResult:
    """Fits an estimator on a run and writes it to a directory.

    Args:
        path: The run directory; receives graded correctness.
        spec: The estimator; one that learns.
        output: Receives the fitted estimator; holds none yet.
        settings: Grader, threshold, condition and split; of the splits only the first is made.
        all_rows: Fit on all rows, not on those of the first split's train part.
        given_split: Split name (train, calibration or test) by group; replaces the shuffle.
        judge: The model behind the grader ``judge``.

    Raises:
        UsageError: The estimator does not exist or does not learn, or the run is a classifier's.
        DataError: No answer could be graded, the rows are too few, or ``output`` is taken.
        MissingFeatureError: No row to fit on shows the signals it needs.
        DiskError: The operating system refused to write.
    """
    store = open_answers(path)
    check(settings)
    estimator = parse_estimator(spec)
    if not isinstance(estimator, LearnedEstimator):
        learned = [name for name, e in ESTIMATORS.items() if isinstance(e, LearnedEstimator)]
        raise UsageError(
            f"Estimator {spec!r} is not fitted on labels; one that learns is required. "
            f"Choose one of {', '.join(learned)}."
        )
    require_free(output)
    needed = estimator.needs & ARRAY_AXES.keys()
    judged = read_judged(
        store, replace(settings, seeds=1), needed, given_split=given_split, judge=judge
    )
    records, correct = judged.rows.records, judged.rows.correct
    among = np.arange(len(records)) if all_rows else judged.rows.splits[0].train
    shown, skipped = observable([records[i] for i in among], estimator.needs)
    if not len(shown):
        why = "; ".join(f"{reason} ({n} rows)" for reason, n in skipped.most_common(3))
        raise MissingFeatureError(
            f"Estimator {spec!r} can be fitted on none of {len(among)} rows of {path}: "
            f"{why or 'the train part is empty'}; rows that show its signals are required. "
            "Collect them, or fit another estimator."
        )
    rng = np.random.default_rng(settings.seed)
    fitted, rows = fit_rows(estimator, records, correct, among[shown], skipped, rng)
    part: dict[str, Any] = {"rows": "all" if all_rows else "train"}
    if not all_rows and given_split is None:
        part |= {"seed": settings.seed, "fractions": list(settings.fractions)}
    origin = {
        "run": path.resolve().name,
        **_seen(store, judged, settings, rows),
        "part": part,
    }
    saved = Saved(fitted, spec_of(estimator), origin)
    try:
        save_fitted(output, saved)
    except OSError as error:
        raise DiskError(
            f"Writing the fitted estimator to {output} failed: {error.strerror}; a directory that "
            "can be written is required. Choose another."
        ) from error
    return FitResult(saved, tuple(Skipped(reason, n) for reason, n in skipped.most_common()))


def _seen(store: RunStore, judged: Judged, settings: Settings, rows: np.ndarray) -> dict[str, Any]:
    """What was fitted on: the model, how it was asked, the data and the rows."""
    manifest = store.manifest.to_dict()
    chosen = [judged.rows.records[i].example for i in rows]
    return {
        "model": manifest["model"],
        "decoding": manifest["settings"],
        "run_hash": store.manifest.run_hash(),
        "dataset": manifest["dataset"].get("name", "unknown"),
        "condition": settings.condition,
        "grader": dict(judged.column.spec) or {"name": judged.column.name},
        "threshold": settings.threshold,
        "n": len(rows),
        "accuracy": float(judged.rows.correct[rows].mean()),
        "content": sorted({digest for example in chosen for digest in content(example)}),
        "sightline_version": sightline.__version__,
    }
