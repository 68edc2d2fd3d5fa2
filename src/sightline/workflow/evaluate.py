"""Evaluating a run: grade, score, split, fit, calibrate, measure.

Protocol. Groups are split into train, calibration and test by several seeds. Every estimator is
given the same calibrator on the same calibration rows and is measured on the same test rows (those
it can score; the others are counted). Figures are means over the seeds' test rows; intervals come
from one bootstrap over groups shared by all seeds and estimators, so that differences are paired.
Ranking figures use the raw score, probability figures the calibrated confidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

import sightline
from sightline.calibration import CALIBRATORS
from sightline.core.column import Column, ColumnKind
from sightline.core.condition_names import CLEAN
from sightline.core.errors import DataError, UsageError
from sightline.core.estimates import Estimate
from sightline.core.features import READ_WITH, Feature
from sightline.core.protocols import Calibrator
from sightline.core.records import link
from sightline.core.results import Curve, Evaluation, NotApplicable, Protocol, Skipped
from sightline.core.types import Record
from sightline.data.splits import assert_no_leakage, split_groups
from sightline.grading import JudgeModel, grade_records, parse_grader
from sightline.metrics import curves
from sightline.metrics.intervals import proportion
from sightline.store.run import RunStore
from sightline.workflow.conditions import with_own_truth
from sightline.workflow.estimator_results import estimator_result
from sightline.workflow.fitted import load_all
from sightline.workflow.heldout import best_simple, heldout_scores
from sightline.workflow.judged import Heldout, JudgedRows, answers_beside
from sightline.workflow.measure import BootstrapSettings, heldout_figures
from sightline.workflow.samples import samples_table
from sightline.workflow.scoring import Scored, affordable, needed_arrays, score
from sightline.workflow.summary import run_summary, type_summaries

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to evaluate.

    Attributes:
        estimators: Specs, or None for all. One that can score no record is listed as not
            applicable, with the reason.
        grader: Spec of a grader, ``labels`` or ``recorded`` for correctness that is stored, or
            ``auto``: stored correctness if there is any, else graded by the kind of question.
        calibrator: Name in `sightline.calibration.CALIBRATORS`.
        condition: Which records are judged.
        seeds: Number of split seeds.
        fractions: Shares of groups for train, calibration and test.
        resamples: Bootstrap resamples.
        level: Coverage of the intervals.
        threshold: An answer is right when its correctness reaches it, in (0, 1].
        seed: First split seed, and the seed of the bootstrap.
        fitted: Directories of estimators fitted before, which join the others.
        transfer: Let estimators that were fitted on another model score this one.
    """

    estimators: tuple[str, ...] | None = None
    grader: str = "auto"
    calibrator: str = "platt"
    condition: str = CLEAN
    seeds: int = 5
    fractions: tuple[float, float, float] = (0.4, 0.2, 0.4)
    resamples: int = 1000
    level: float = 0.95
    threshold: float = 0.5
    seed: int = 0
    fitted: tuple[str, ...] = ()
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A run's answers under one condition, graded and split.

    Attributes:
        answers: Every record with an answer, those without a correctness included.
        column: Correctness of each answer that has one.
        ungraded: The others, by reason.
        rows: The answers that have one, with their splits.
    """

    answers: tuple[Record, ...]
    column: Column
    ungraded: tuple[Skipped, ...]
    rows: JudgedRows


@dataclass(frozen=True, slots=True)
class Outcome:
    """An evaluation, its per-answer table, and the calibrations behind its confidences."""

    evaluation: Evaluation
    samples: pa.Table
    calibrations: dict[str, Any]


def evaluate(
    path: Path,
    settings: Settings = Settings(),
    *,
    other_runs: Sequence[Path] = (),
    given_split: Mapping[str, str] | None = None,
    judge: JudgeModel | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Outcome:
    """Evaluates one run; stores its correctness and uncertainty columns.

    Args:
        path: The run directory.
        settings: How to evaluate.
        other_runs: Runs of other models on the same examples, for cross-model agreement.
        given_split: Split name (train, calibration or test) by group; replaces the seeds.
        judge: The model behind the grader ``judge``.
        progress: Called with (stage, done, total).

    Raises:
        DataError: No answer could be graded, or the split leaves a part empty.
        LeakageError: The given split has one image in two parts, or a row that an estimator was
            fitted on is not in train.
        UsageError: An unknown estimator, grader or calibrator, or an estimator fitted on another
            model.
        MissingFeatureError: None of the named estimators can score a record.
    """
    check(settings)
    store = RunStore.open(path)
    calibrator = named_calibrator(settings.calibrator)
    fitted = load_all(settings.fitted)
    for one in fitted:
        one.check_model(path, store.manifest.model, transfer=settings.transfer)
    progress("reading", 0, 1)
    specs, too_large = settings.estimators, list[NotApplicable]()
    if specs is None:
        specs, too_large = affordable(store)
    judged = read_judged(
        store,
        settings,
        needed_arrays(specs, fitted),
        other_runs=other_runs,
        given_split=given_split,
        judge=judge,
    )
    rows = judged.rows
    for one in fitted:
        one.check_splits(rows.records, rows.splits)
    scorable, lacking = score(rows.records, specs, fitted)
    lacking += too_large
    for item in scorable:
        if not item.learns:
            store.write_column(uncertainty_column(item, rows), replace=True)
    scored, heldout = [], []
    for index, item in enumerate(scorable):
        progress("calibrating", index, len(scorable))
        per_seed = heldout_scores(item, rows, calibrator, settings.calibrator, settings.seed)
        if isinstance(per_seed, NotApplicable):
            lacking.append(per_seed)
        else:
            scored.append(item)
            heldout.append(per_seed)
    if not scored:
        raise DataError(
            f"Estimator {lacking[-1].name!r} could not be fitted: {lacking[-1].reasons[0].reason}"
        )
    return conclude(store, judged, settings, scored, heldout, lacking, progress=progress)


def conclude(
    store: RunStore,
    judged: Judged,
    settings: Settings,
    scored: Sequence[Scored],
    heldout: Sequence[Sequence[Heldout]],
    lacking: Sequence[NotApplicable],
    *,
    own_rows: Mapping[int, JudgedRows] = MappingProxyType({}),
    raw: Mapping[int, dict[str, Estimate]] = MappingProxyType({}),
    progress: Progress = lambda _stage, _done, _total: None,
) -> Outcome:
    """Measures scored and calibrated rows: every figure, in one document.

    Args:
        store: The run.
        judged: Its judged answers.
        settings: How to evaluate.
        scored: The scores.
        heldout: Each on the test rows of every split.
        lacking: Those that could score nothing.
        own_rows: The rows as a score answers them, by its index, where it may change the answer.
        raw: Figures of a raw score, by its index, where one set of scores is not all there is.
        progress: Called with (stage, done, total).
    """
    rows = judged.rows
    baseline = best_simple(scored, rows)
    bootstrap = BootstrapSettings(settings.resamples, settings.level, settings.seed)
    progress("measuring", 0, len(scored))
    figures = heldout_figures(heldout, baseline, rows, bootstrap)
    results = []
    for at, (item, per_seed, found) in enumerate(zip(scored, heldout, figures, strict=True)):
        mine = own_rows.get(at, rows)
        results.append(estimator_result(item, per_seed, found, mine, bootstrap, raw=raw.get(at)))
        progress("measuring", len(results), len(scored))
    few = len(rows.records) / 2
    results.sort(key=lambda r: (r.scored < few, -(r.heldout["auroc"].value or 0.0), r.name))
    test = rows.splits[0].test
    evaluation = Evaluation(
        format_version=1,
        sightline_version=sightline.__version__,
        run=run_summary(store, judged.answers, rows),
        protocol=Protocol(
            condition=settings.condition,
            grader=dict(judged.column.spec) or {"name": judged.column.name},
            threshold=settings.threshold,
            graded=len(rows.records),
            ungraded=judged.ungraded,
            seeds=tuple(settings.seed + i for i in range(len(rows.splits))),
            fractions=settings.fractions,
            rows=(
                len(rows.splits[0].train),
                len(rows.splits[0].calibration),
                len(rows.splits[0].test),
            ),
            calibrator=settings.calibrator,
            resamples=settings.resamples,
            level=settings.level,
            baseline=None if baseline is None else scored[baseline].name,
        ),
        accuracy=proportion(rows.correct, rows.groups, level=settings.level),
        mean_correctness=proportion(rows.correctness, rows.groups, level=settings.level),
        types=type_summaries(rows, settings.level),
        oracle_risk_coverage=Curve(*curves.oracle_risk_coverage(rows.correct[test])),
        oracle_rejection=Curve(*curves.oracle_rejection(rows.correct[test])),
        estimators=tuple(results),
        not_applicable=tuple(lacking),
    )
    return Outcome(
        evaluation,
        samples_table(scored, heldout, rows),
        _calibrations(scored, heldout, evaluation.protocol),
    )


def read_judged(
    store: RunStore,
    settings: Settings,
    arrays: Collection[Feature],
    *,
    other_runs: Sequence[Path] = (),
    given_split: Mapping[str, str] | None = None,
    judge: JudgeModel | None = None,
) -> Judged:
    """Reads a run's answers under the settings' condition, grades them and splits them.

    Args:
        store: The run; receives graded correctness.
        settings: Condition, grader, threshold and splits.
        arrays: Array features to read.
        other_runs: Runs of other models on the same examples, to link.
        given_split: Split name by group; replaces the seeds.
        judge: The model behind the grader ``judge``.

    Raises:
        DataError: No answer could be graded, or the split leaves a part empty.
        LeakageError: The given split has one image in two parts.
        UsageError: An unknown grader, or another run that is a classifier's or has none of the
            examples.
    """
    own = list(store.records(condition=settings.condition, features=arrays))
    beside = store.records(features=set(arrays) & set(READ_WITH.values()))
    linked = link(
        [*own, *(record for record in beside if record.condition != settings.condition)],
        condition=settings.condition,
        other_runs=[answers_beside(store.path, own, one) for one in other_runs],
    )
    answers = tuple(record for record in linked if record.greedy is not None)
    column, ungraded = correctness(store, answers, settings, judge)
    rows = judged_rows(answers, column, settings, given_split)
    if given_split is not None:
        assert_no_leakage([record.example for record in rows.records], rows.splits[0])
    return Judged(answers, column, ungraded, rows)


def check(settings: Settings) -> None:
    """Requires shares and a threshold that can be used.

    Raises:
        UsageError: They cannot.
    """
    train, calibration, test = settings.fractions
    if min(train, calibration, test) < 0 or abs(train + calibration + test - 1) > 1e-3:
        raise UsageError(
            f"Fractions {settings.fractions}; three shares that add up to 1 are required. "
            "For example 0.4, 0.2, 0.4."
        )
    if not calibration or not test:
        raise UsageError(
            f"Fractions {settings.fractions} leave no row for "
            f"{'calibration' if not calibration else 'test'}; a share above 0 is required, since "
            "calibration and measurement need rows of their own. For example 0.4, 0.2, 0.4."
        )
    if not 0 < settings.threshold <= 1:
        raise UsageError(
            f"Threshold {settings.threshold:g}; a correctness above 0, at most 1, is required. "
            "Use 0.5 for a majority of the references."
        )


def _calibrations(
    scored: Sequence[Scored], heldout: Sequence[Sequence[Heldout]], protocol: Protocol
) -> dict[str, Any]:
    """The fitted calibrations as JSON, one per estimator and split seed."""
    return {
        "format_version": 1,
        "calibrator": protocol.calibrator,
        "estimators": {
            item.name: {
                "spec": dict(item.spec),
                "splits": [
                    {
                        "seed": seed,
                        "outcome": held.calibration,
                        "calibration": None if held.fit is None else held.fit.to_dict(),
                    }
                    for seed, held in zip(protocol.seeds, per_seed, strict=True)
                ],
            }
            for item, per_seed in zip(scored, heldout, strict=True)
        },
    }


def correctness(
    store: RunStore,
    records: Sequence[Record],
    settings: Settings,
    judge: JudgeModel | None = None,
) -> tuple[Column, tuple[Skipped, ...]]:
    """Returns the correctness of each answer that has one, and counts the others.

    Graded correctness is stored in the run.

    Raises:
        DataError: No answer could be graded, or stored correctness was asked for and is absent.
    """
    stored = {name for kind, name in store.columns() if kind is ColumnKind.CORRECT}
    for name in ("labels", "recorded"):
        if name in stored and settings.grader in (name, "auto"):
            column = store.column(ColumnKind.CORRECT, name)
            known = set(column.keys)
            without = sum(record.key not in known for record in records)
            return column, (Skipped(f"no {name} correctness", without),) if without else ()
    if settings.grader in ("labels", "recorded"):
        raise DataError(
            f"{store.path} holds no {settings.grader} correctness; --grader {settings.grader} "
            "requires it. Import labels first, or choose another grader."
        )
    decided, unknown = with_own_truth(records)
    column, failed = grade_records(decided, parse_grader(settings.grader, judge=judge))
    if not len(column):
        reason = failed[0][1] if failed else next(iter(unknown), "there are no answers")
        raise DataError(
            f"None of the {len(records)} answers of {store.path} could be graded ({reason}); "
            "references or recorded correctness are required. Add references, or export with "
            "--to-label and import the labels."
        )
    store.write_column(column, replace=True)
    counts = Counter(reason for _, reason in failed) + Counter(unknown)
    return column, tuple(Skipped(reason, n) for reason, n in counts.most_common())


def named_calibrator(name: str) -> Calibrator:
    """The calibrator of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in CALIBRATORS:
        raise UsageError(
            f"Calibrator {name!r} is unknown; one of {', '.join(CALIBRATORS)} is required. "
            "Choose one of them."
        )
    return CALIBRATORS[name]


def judged_rows(
    judged: Sequence[Record],
    column: Column,
    settings: Settings,
    given_split: Mapping[str, str] | None,
) -> JudgedRows:
    """The answers that have a correctness, with their groups and splits.

    Raises:
        DataError: None has one, or a split leaves a part empty.
    """
    correct_by_key = dict(zip(column.keys, column.values.tolist(), strict=True))
    records = tuple(record for record in judged if record.key in correct_by_key)
    if not records:
        raise DataError(
            f"None of the {len(judged)} answers under condition {settings.condition!r} has a "
            "correctness; at least one is required. Check the condition and the labels."
        )
    names = [record.example.group for record in records]
    correctness = np.array([correct_by_key[r.key] for r in records], dtype=np.float64)
    type_names = tuple(sorted({r.example.question_type or "" for r in records}))
    types = None
    if "" in type_names:
        type_names = ()
    else:
        code = {name: i for i, name in enumerate(type_names)}
        types = np.array([code[r.example.question_type or ""] for r in records])
    return JudgedRows(
        records=records,
        correct=(correctness >= settings.threshold).astype(np.float64),
        correctness=correctness,
        groups=np.unique(names, return_inverse=True)[1],
        types=types,
        type_names=type_names,
        splits=tuple(
            split_groups(names, settings.fractions, seed=settings.seed + i, given=given_split)
            for i in range(1 if given_split is not None else settings.seeds)
        ),
    )


def uncertainty_column(item: Scored, rows: JudgedRows) -> Column:
    """A score as the run stores it."""
    return Column(
        name=item.name,
        kind=ColumnKind.UNCERTAINTY,
        keys=tuple(rows.records[i].key for i in item.rows),
        values=item.uncertainty,
        spec=item.spec,
    )
