"""Transfer: fitted on one model or split, measured on another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from sightline.core.errors import DataError, UsageError
from sightline.core.estimates import Estimate
from sightline.core.protocols import Estimator, LearnedEstimator
from sightline.estimators import parse_estimator, spec_of
from sightline.metrics.intervals import WITHIN_TYPE
from sightline.workflow.judged import JudgedRows
from sightline.workflow.scoring import settled
from sightline.workflow.studies.protocol import compare, shown_name
from sightline.workflow.studies.tables import Cell, StudyTable


def transfer_table(
    runs: Mapping[str, JudgedRows],
    methods: Sequence[str],
    baseline: Estimator,
    *,
    resamples: int,
    progress: Callable[[str], None],
) -> StudyTable:
    """Fits each method on each run's training rows and scores the others' rows.

    Rows of a group that was fitted on are left out, also where another run asks the same questions.

    Args:
        runs: Judged rows by run, all with as many splits.
        methods: Learned estimators, and controls among them.
        baseline: An estimator that fits nothing, shown beside them.
        resamples: Bootstrap resamples.
        progress: Called before every fit.

    Raises:
        UsageError: A method learns nothing.
    """
    table: list[tuple[Cell, ...]] = []
    for method in methods:
        learned = parse_estimator(method)
        if not isinstance(learned, LearnedEstimator):
            raise UsageError(
                f"{method} learns nothing, so it has nothing to transfer; leave it out."
            )
        for source, fitted_on in runs.items():
            progress(f"transfer: {method} fitted on {source}")
            fits = [_Fit.on(learned, fitted_on, seed) for seed in range(len(fitted_on.splits))]
            cells = [cell for rows in runs.values() for cell in _figures(fits, rows, resamples)]
            table.append((shown_name(method), source, *cells))
    cells = []
    for rows in runs.values():
        nothing = [_Fit(baseline, _groups(rows, split.train)) for split in rows.splits]
        cells += _figures(nothing, rows, resamples)
    table.append((spec_of(baseline)["name"], "nothing", *cells))
    splits = min(len(rows.splits) for rows in runs.values())
    return StudyTable(
        key="transfer",
        title="Fitted on one run, measured on another",
        note=(
            "AUROC, over all rows and within question types, on the test rows of each run whose "
            f"pictures were not fitted on, over {splits} splits. A dash says why a method cannot "
            "score another model's answers."
        ),
        columns=(
            "Method",
            "Fitted on",
            *(title for name in runs for title in (f"on {name}", f"on {name}, within type")),
        ),
        rows=tuple(table),
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """An estimator that scores, and the groups it must not be measured on."""

    estimator: Estimator
    seen: frozenset[str]

    @classmethod
    def on(cls, learned: LearnedEstimator, rows: JudgedRows, seed: int) -> _Fit:
        """Fitted on the training rows of one split."""
        train = rows.splits[seed].train
        fitted = learned.fit(
            [rows.records[i] for i in train], rows.correct[train], rng=np.random.default_rng(seed)
        )
        return cls(fitted, _groups(rows, train))


def _groups(rows: JudgedRows, chosen: Int[np.ndarray, " n"]) -> frozenset[str]:
    return frozenset(str(rows.records[i].example.group) for i in chosen)


def _figures(fits: Sequence[_Fit], rows: JudgedRows, resamples: int) -> tuple[Estimate, Estimate]:
    """AUROC over all rows and within types; each fit scores the test rows of its own split."""
    tests, scores = [], []
    for fit, split in zip(fits, rows.splits, strict=True):
        test = [i for i in split.test if rows.records[i].example.group not in fit.seen]
        try:
            scores.append(settled(fit.estimator.uncertainty([rows.records[i] for i in test])))
        except DataError as error:
            refused = Estimate(None, n=len(test), reason=str(error).split(";")[0])
            return refused, refused
        tests.append(np.array(test, dtype=np.int64))
    figures = compare({"it": scores}, tests, rows, ("auroc", WITHIN_TYPE), resamples=resamples)
    return figures.figure("it", "auroc"), figures.figure("it", WITHIN_TYPE)
