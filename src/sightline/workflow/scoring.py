"""Scoring a run: every estimator on the records it can see, with the others counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sightline.core.condition_names import CLEAN
from sightline.core.errors import MissingFeatureError, UnscorableError
from sightline.core.features import ARRAY_AXES, READ_WITH, Feature, how_to_observe
from sightline.core.protocols import Estimator, FittedEstimator, LearnedEstimator
from sightline.core.results import NotApplicable, Skipped
from sightline.core.types import Record
from sightline.estimators import ESTIMATORS, AnyEstimator, parse_estimator, spec_of
from sightline.store.run import RunStore
from sightline.workflow.fitted import Fitted

MOST_STATES = 4_000_000_000
"""Bytes of hidden states that an evaluation reads without being told to."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One estimator's view of a run.

    Attributes:
        name: The spec it was asked for by.
        estimator: The estimator, not yet fitted if it learns.
        rows: Indices of the records it can score.
        skipped: Rows it cannot score, by reason.
        uncertainty: One value per row in ``rows``; empty for an estimator that learns.
        seconds: Seconds spent scoring.
        spec: Name and settings; of one fitted before, also where it was fitted.
    """

    name: str
    estimator: AnyEstimator
    rows: Int[np.ndarray, " rows"]
    skipped: Mapping[str, int]
    uncertainty: Float[np.ndarray, " rows"]
    seconds: float
    spec: Mapping[str, Any]

    @property
    def learns(self) -> bool:
        """Whether it must be fitted on labelled records first."""
        return isinstance(self.estimator, LearnedEstimator)


def observable(
    records: Sequence[Record], needs: frozenset[Feature]
) -> tuple[Int[np.ndarray, " rows"], Counter[str]]:
    """Splits records into those that show every needed feature and those that do not.

    Returns:
        Indices of the records that can be scored, and how many lack what.
    """
    rows: list[int] = []
    skipped: Counter[str] = Counter()
    for index, record in enumerate(records):
        missing = record.missing(needs)
        if missing:
            skipped["no " + ", ".join(f.value for f in missing)] += 1
        else:
            rows.append(index)
    return np.array(rows, dtype=np.int64), skipped


def score(
    records: Sequence[Record], specs: Sequence[str] | None, fitted: Sequence[Fitted] = ()
) -> tuple[list[Scored], list[NotApplicable]]:
    """Scores records with the named estimators, or with all that need no slow fit.

    Args:
        records: The records.
        specs: Which estimators, or None for all but the slow ones.
        fitted: Estimators fitted before; they score records they were not fitted on.

    Returns:
        Those that can score some record, and those that can score none.

    Raises:
        MissingFeatureError: None of the named estimators can score a record.
        UsageError: A name is not in the table.
    """
    scored = []
    lacking = []
    unseen = set[Feature]()
    every = np.arange(len(records))
    for name, estimator, spec, among in [
        *((name, e, spec_of(e), every) for name, e in _chosen(specs).items()),
        *((one.name, one.saved.estimator, one.spec, one.unseen(records)) for one in fitted),
    ]:
        shown, skipped = observable([records[i] for i in among], estimator.needs)
        rows = among[shown]
        if len(among) < len(records):
            skipped["it was fitted on their group"] = len(records) - len(among)
        started = time.perf_counter()
        values = np.empty(0)
        if rows.size and not isinstance(estimator, LearnedEstimator):
            rows, values = score_rows(estimator, records, rows, skipped)
        if rows.size:
            seconds = time.perf_counter() - started
            scored.append(Scored(name, estimator, rows, skipped, values, seconds, spec))
        else:
            reasons = tuple(Skipped(reason, n) for reason, n in skipped.most_common())
            lacking.append(NotApplicable(name, reasons))
            unseen.update(f for record in records for f in record.missing(estimator.needs))
    if lacking and not scored:
        first = lacking[0]
        why = "; ".join(f"{reason.reason} ({reason.n} rows)" for reason in first.reasons[:3])
        others = f" (nor can {len(lacking) - 1} others that were named)" if lacking[1:] else ""
        raise MissingFeatureError(
            f"Estimator {first.name!r} can score none of the {len(records)} records{others}: "
            f"{why}; it requires these signals. {how_to_observe(unseen)}, or leave the estimator "
            "out."
        )
    return scored, lacking


def score_rows(
    estimator: Estimator,
    records: Sequence[Record],
    rows: Int[np.ndarray, " rows"],
    skipped: Counter[str],
) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """Scores the rows; those the estimator refuses are left out and counted in ``skipped``."""
    try:
        return rows, settled(estimator.uncertainty([records[i] for i in rows]))
    except UnscorableError as error:
        skipped[error.reason] += len(error.rows)
        rows = np.delete(rows, error.rows)
    return score_rows(estimator, records, rows, skipped) if rows.size else (rows, np.empty(0))


def fit_rows(
    estimator: LearnedEstimator,
    records: Sequence[Record],
    correct: Float[np.ndarray, " n"],
    rows: Int[np.ndarray, " rows"],
    skipped: Counter[str],
    rng: np.random.Generator,
) -> tuple[FittedEstimator, Int[np.ndarray, " kept"]]:
    """Fits on the rows; those the estimator refuses are left out and counted in ``skipped``.

    Args:
        estimator: What to fit.
        records: All records.
        correct: Correctness of all records.
        rows: Indices of those to fit on.
        skipped: Counts what is left out, by reason.
        rng: Handed to the estimator.

    Returns:
        The fitted estimator, and the rows it was fitted on.

    Raises:
        DataError: The rows are too few, or none of them can be fitted on.
    """
    try:
        return estimator.fit([records[i] for i in rows], correct[rows], rng=rng), rows
    except UnscorableError as error:
        if len(error.rows) == len(rows):
            raise
        skipped[error.reason] += len(error.rows)
        rows = np.delete(rows, error.rows)
    return fit_rows(estimator, records, correct, rows, skipped, rng)


def settled(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Scores without rounding noise: 12 decimals, or 12 significant digits above 1.

    Equal probabilities reach a score through sums over different options; ties that only the last
    bits break would otherwise change every ranking figure. The price: probabilities of an answer
    below 1e-12 tie, where the same score as a logarithm does not.
    """
    scale = 10.0 ** np.ceil(np.log10(np.maximum(np.abs(values), 1.0)))
    rounded: Float[np.ndarray, " n"] = np.round(values / scale, 12) * scale + 0.0
    return rounded


def needed_arrays(specs: Sequence[str] | None, fitted: Sequence[Fitted] = ()) -> frozenset[Feature]:
    """Array features that the named estimators (or all) read; a run's others stay on disk."""
    read = [*_chosen(specs).values(), *(one.saved.estimator for one in fitted)]
    needs = frozenset[Feature]().union(*(e.needs for e in read))
    return (needs | {READ_WITH[f] for f in needs & READ_WITH.keys()}) & ARRAY_AXES.keys()


def affordable(store: RunStore) -> tuple[tuple[str, ...], list[NotApplicable]]:
    """Estimators to compute where none is named, and those that would fill the memory.

    An evaluation keeps what its estimators read of all records; hidden states of a large model can
    be more than a machine holds, so from `MOST_STATES` on they are read only where an estimator
    that needs them is named.
    """
    names = tuple(_chosen(None))
    committed = sorted(store.committed())
    if not committed or Feature.HIDDEN not in store.available():
        return names, []
    first = list(store.records(condition=CLEAN, features={Feature.HIDDEN}, shard=committed[0]))
    held = sum(r.features[Feature.HIDDEN].nbytes for r in first if r.has(Feature.HIDDEN))
    estimated = held * len(committed)
    if estimated <= MOST_STATES:
        return names, []
    reason = f"hidden states of about {estimated / 1e9:.0f} GB are read only where it is named"
    large = [name for name in names if Feature.HIDDEN in ESTIMATORS[name].needs]
    skipped = (Skipped(reason, len(store.examples())),)
    return tuple(n for n in names if n not in large), [NotApplicable(n, skipped) for n in large]


def _chosen(specs: Sequence[str] | None) -> dict[str, AnyEstimator]:
    """The named estimators, or where none is named all but the slow ones."""
    if specs is not None:
        return {spec: parse_estimator(spec) for spec in specs}
    return {
        name: estimator
        for name, estimator in ESTIMATORS.items()
        if not (isinstance(estimator, LearnedEstimator) and estimator.slow)
    }
