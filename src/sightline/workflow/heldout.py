"""Scoring the held-out rows of one split: fit on train, calibrate on calibration, score test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Int

from sightline.core.errors import AntiInformativeError, DataError, MissingExtraError
from sightline.core.protocols import Calibrator, Estimator, LearnedEstimator
from sightline.core.results import NotApplicable, Skipped
from sightline.data.splits import Split
from sightline.metrics.discrimination import auroc
from sightline.workflow.judged import Heldout, JudgedRows
from sightline.workflow.measure import is_probability
from sightline.workflow.scoring import Scored, fit_rows, score_rows

NOTHING = np.empty(0)


def heldout_scores(
    item: Scored, rows: JudgedRows, calibrator: Calibrator, calibrator_name: str, seed: int
) -> list[Heldout] | NotApplicable:
    """Scores and calibrates one estimator's test rows under every split.

    Args:
        item: The estimator and the rows it can score.
        rows: The judged rows with their splits.
        calibrator: Fitted on the calibration rows.
        calibrator_name: Its name, for messages.
        seed: Of the generator an estimator that learns is fitted with.

    Returns:
        One entry per split, or why the estimator could be fitted under none.
    """
    per_seed = []
    failures: Counter[str] = Counter()
    for split in rows.splits:
        try:
            per_seed.append(_heldout(item, rows, split, calibrator, calibrator_name, seed))
        except _NotFittedError as error:
            failures[str(error)] += 1
            per_seed.append(Heldout(split.test[:0], NOTHING, None, str(error)))
    if failures.total() == len(rows.splits):
        return NotApplicable(item.name, (Skipped(failures.most_common(1)[0][0], len(item.rows)),))
    return per_seed


def best_simple(scored: Sequence[Scored], rows: JudgedRows) -> int | None:
    """Index of the simple baseline with the best AUROC on the calibration rows, or None.

    Chosen there, so that the comparison on the test rows is fair; it must score at least half of
    the rows.
    """
    best: int | None = None
    best_auroc = 0.0
    for index, item in enumerate(scored):
        if item.learns or not item.estimator.simple or 2 * len(item.rows) < len(rows.records):
            continue
        values = []
        for split in rows.splits:
            chosen = np.intersect1d(split.calibration, item.rows, assume_unique=True)
            correct = rows.correct[chosen]
            if 0 < correct.sum() < len(correct):
                trust = -item.uncertainty[np.searchsorted(item.rows, chosen)]
                values.append(auroc(trust, correct))
        if values and float(np.mean(values)) > best_auroc:
            best, best_auroc = index, float(np.mean(values))
    return best


class _NotFittedError(Exception):
    """An estimator that learns and cannot be fitted on one split's training rows, and why."""


def _heldout(
    item: Scored,
    rows: JudgedRows,
    split: Split,
    calibrator: Calibrator,
    calibrator_name: str,
    seed: int,
) -> Heldout:
    refused: dict[str, frozenset[int]] = {}
    train, calibration, test = (
        np.intersect1d(part, item.rows, assume_unique=True)
        for part in (split.train, split.calibration, split.test)
    )
    if not len(test):
        return Heldout(test, NOTHING, None, "none of its rows is in the test split")
    if isinstance(item.estimator, LearnedEstimator):
        if not len(train):
            return Heldout(test[:0], NOTHING, None, "none of its rows is in the train split")
        fitted = _fitted(item.estimator, rows, train, seed)
        asked, reasons = np.union1d(calibration, test), Counter[str]()
        calibration, on_calibration = score_rows(fitted, rows.records, calibration, reasons)
        test, on_test = score_rows(fitted, rows.records, test, reasons)
        left_out = frozenset(np.setdiff1d(asked, np.union1d(calibration, test)).tolist())
        refused = {"; ".join(reasons): left_out} if left_out else {}
    else:
        on_calibration = item.uncertainty[np.searchsorted(item.rows, calibration)]
        on_test = item.uncertainty[np.searchsorted(item.rows, test)]
    held = partial(Heldout, test, on_test, refused=refused)
    if not len(calibration):
        return held(None, "none of its rows is in the calibration split")
    if calibrator.needs_probability and not is_probability(item):
        return held(
            None, f"{calibrator_name} calibrates probabilities only, and this score is none"
        )
    try:
        fit = calibrator.fit(
            on_calibration, rows.correct[calibration], groups=rows.groups[calibration]
        )
    except AntiInformativeError as error:
        return held(None, str(error))
    note = "fitted" if fit.informative else "base rate"
    return held(fit.confidence(on_test), note, fit)


def _fitted(
    estimator: LearnedEstimator, rows: JudgedRows, train: Int[np.ndarray, " k"], seed: int
) -> Estimator:
    try:
        fitted, _ = fit_rows(
            estimator, rows.records, rows.correct, train, Counter(), np.random.default_rng(seed)
        )
    except (DataError, MissingExtraError) as error:
        raise _NotFittedError(str(error)) from error
    return fitted
