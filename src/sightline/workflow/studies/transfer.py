"""Transfer: fitted on one model or split, measured on another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.core.protocols import Estimator, LearnedEstimator
from sightline.estimators import parse_estimator, spec_of
from sightline.metrics.intervals import WITHIN_TYPE
from sightline.workflow.judged import JudgedRows
from sightline.workflow.scoring import settled
from sightline.workflow.studies.protocol import compare
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
        runs: Judged rows by run, split by at least one seed.
        methods: Learned estimators.
        baseline: An estimator that fits nothing, shown beside them.
        resamples: Bootstrap resamples.
        progress: Called before every fit.
    """
    table: list[tuple[Cell, ...]] = []
    for method in methods:
        learned = parse_estimator(method)
        if not isinstance(learned, LearnedEstimator):
            continue
        for source, fitted_on in runs.items():
            progress(f"transfer: {method} fitted on {source}")
            train = fitted_on.splits[0].train
            fitted = learned.fit(
                [fitted_on.records[i] for i in train],
                fitted_on.correct[train],
                rng=np.random.default_rng(0),
            )
            seen = {fitted_on.records[i].example.group for i in train}
            cells: list[Cell] = []
            for rows in runs.values():
                cells.append(_within(fitted, rows, seen, resamples))
            table.append((method, source, *cells))
    cells = [_within(baseline, rows, _train_groups(rows), resamples) for rows in runs.values()]
    table.append((spec_of(baseline)["name"], "nothing", *cells))
    return StudyTable(
        key="transfer",
        title="Fitted on one run, measured on another",
        note=(
            "AUROC within question type on the rows of each run whose pictures were not fitted on; "
            "one split. A dash says why a method cannot score another model's answers."
        ),
        columns=("Method", "Fitted on", *(f"on {name}" for name in runs)),
        rows=tuple(table),
    )


def _train_groups(rows: JudgedRows) -> set[str]:
    return {rows.records[i].example.group for i in rows.splits[0].train}


def _within(estimator: Estimator, rows: JudgedRows, seen: set[str], resamples: int) -> Estimate:
    kept = np.array(
        [i for i in rows.splits[0].test if rows.records[i].example.group not in seen],
        dtype=np.int64,
    )
    try:
        scores = settled(estimator.uncertainty([rows.records[i] for i in kept]))
    except DataError as error:
        return Estimate(None, n=len(kept), reason=str(error).split(";")[0])
    figures = compare({"it": [scores]}, [kept], rows, (WITHIN_TYPE,), resamples=resamples)
    return figures.figure("it", WITHIN_TYPE)
