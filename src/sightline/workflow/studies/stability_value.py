"""What instability under perturbation is worth as uncertainty, alone and beside other scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.estimators import AnyEstimator, parse_estimator
from sightline.metrics.intervals import WITHIN_TYPE
from sightline.workflow.judged import JudgedRows
from sightline.workflow.studies.protocol import Figures, compare, on_test
from sightline.workflow.studies.tables import Cell, StudyTable

Progress = Callable[[str], None]

FIRST = "sequence_probability"
"""What single signs are compared with."""

CONTROL = "question_type"
SIGNS = ("flip_rate", "drift_share", "delta_energy")
"""Signs that every answer has."""

SCORED_SIGNS = (*SIGNS, "margin_loss", "prior_index")
"""Signs of answers that are chosen among options, yes and no included."""

_MEASURED = ("auroc", WITHIN_TYPE, "prr")


@dataclass(frozen=True, slots=True)
class _Contender:
    """One score of the table; ``beside`` is what it is held against, by paired difference."""

    name: str
    kind: str
    spec: str
    beside: str | None


def value_tables(
    run: str, rows: JudgedRows, bases: Sequence[str], *, resamples: int, progress: Progress
) -> list[StudyTable]:
    """Signs alone and added to other scores, on all answers and on those with options.

    Args:
        run: Name of the run.
        rows: Its judged rows, after an audit.
        bases: Estimators that the signs are added to, `FIRST` among them.
        resamples: Bootstrap resamples.
        progress: Called before every score.

    Returns:
        One table for each set of signs that some answer has.
    """
    return [
        _table(run, rows, bases, signs, resamples=resamples, progress=progress)
        for signs in (SIGNS, SCORED_SIGNS)
        if _usable(rows, signs).any()
    ]


def _table(
    run: str,
    rows: JudgedRows,
    bases: Sequence[str],
    signs: Sequence[str],
    *,
    resamples: int,
    progress: Progress,
) -> StudyTable:
    usable = _usable(rows, signs)
    contenders = _contenders(bases, signs)
    train = [_kept(split.train, usable) for split in rows.splits]
    tests = [_kept(split.test, usable) for split in rows.splits]
    scores: dict[str, list[Float[np.ndarray, " n"]]] = {}
    lacking: dict[str, str] = {}
    for one in contenders:
        progress(f"{run}: {one.name}, {int(usable.sum()):,} answers")
        try:
            scores[one.name] = [
                on_test(parse_estimator(one.spec), rows, split, seed=i, train=fit, test=test)
                for i, (split, fit, test) in enumerate(zip(rows.splits, train, tests, strict=True))
            ]
        except DataError as error:  # too few answers to fit it on
            lacking[one.name] = str(error)
    figures = compare(scores, tests, rows, _MEASURED, resamples=resamples)
    every = signs == SIGNS
    return StudyTable(
        key=f"value-{'all' if every else 'scored'}-{run}",
        title=(
            f"Instability as uncertainty on {run}, "
            + ("all answers" if every else "answers with options, yes and no among them")
        ),
        note=(
            f"{int(usable.sum()):,} answers that have every sign, "
            f"{int((~usable).sum()):,} have not; stacks are logistic, fitted on {len(train[0]):,} "
            f"and measured on {len(tests[0]):,} answers in each of {len(rows.splits)} split(s) by "
            "picture. Signs are means over all perturbations that keep the right answer. "
            f"Differences are paired: of a sign and of the signs together to {FIRST}, of a stack "
            "to the score the signs are added to. The control knows the type of question alone; "
            "figures within types leave its share out. Costs are per answer, beyond the greedy "
            "one."
        ),
        columns=(
            "Score", "Kind", "AUROC", "AUROC within type", "PRR", "Δ AUROC", "Δ within type",
            "Δ PRR", "Passes", "Generations",
        ),
        rows=tuple(
            _row(one, figures, rows, usable)
            if one.name in scores
            else (one.name, one.kind, Estimate(None, n=0, reason=lacking[one.name]), *[None] * 7)
            for one in contenders
        ),
    )  # fmt: skip


def _contenders(bases: Sequence[str], signs: Sequence[str]) -> list[_Contender]:
    together = "+".join(signs)
    return [
        _Contender(CONTROL, "control", CONTROL, None),
        *(_Contender(base, "score", base, None if base == FIRST else FIRST) for base in bases),
        *(_Contender(sign, "sign", sign, FIRST) for sign in signs),
        _Contender("all signs", "stack", f"fusion:members={together}", FIRST),
        *(
            _Contender(f"{base} + all signs", "stack", f"fusion:members={base}+{together}", base)
            for base in bases
        ),
    ]


def _row(
    one: _Contender, figures: Figures, rows: JudgedRows, usable: Bool[np.ndarray, " n"]
) -> tuple[Cell, ...]:
    records = [record for record, own in zip(rows.records, usable, strict=True) if own]
    cost = parse_estimator(one.spec).cost(records)
    beside = one.beside
    return (
        one.name,
        one.kind,
        *(figures.figure(one.name, metric) for metric in _MEASURED),
        *(
            None
            if beside is None or beside not in figures.names
            else figures.difference(one.name, beside, metric)
            for metric in _MEASURED
        ),
        f"{cost.forward_passes:.1f}",
        f"{cost.generations:.1f}",
    )


def _usable(rows: JudgedRows, signs: Sequence[str]) -> Bool[np.ndarray, " n"]:
    estimators: list[AnyEstimator] = [parse_estimator(sign) for sign in signs]
    needs = frozenset().union(*(estimator.needs for estimator in estimators))
    return np.array([all(record.has(need) for need in needs) for record in rows.records])


def _kept(part: Int[np.ndarray, " t"], usable: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " u"]:
    return part[usable[part]]
