"""What the studies measure with: scores on held-out rows, figures and paired differences.

Contenders of one comparison are fitted on the same training rows and measured on the same test
rows of the same splits, so one bootstrap over groups gives paired differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.core.protocols import LearnedEstimator
from sightline.data.splits import Split
from sightline.estimators import ESTIMATORS, AnyEstimator
from sightline.metrics.intervals import WITHIN_TYPE, Bootstrap, Sample, cluster_bootstrap
from sightline.workflow.judged import JudgedRows
from sightline.workflow.scoring import settled

RANKING = ("auroc", WITHIN_TYPE, "prr", "auarc")
"""Figures of a ranking that the studies show."""

CONTROL = "question_type"
"""The control that every table shows: the error rate of the question's type, and nothing else."""

Scores = dict[str, list[Float[np.ndarray, " n"]]]
"""By contender, one array per split over the split's test rows."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of several contenders on the same held-out rows.

    Attributes:
        names: The contenders.
        bootstrap: Their figures, in that order.
    """

    names: tuple[str, ...]
    bootstrap: Bootstrap

    def figure(self, name: str, metric: str) -> Estimate:
        """One contender's figure with its interval."""
        return self.bootstrap.estimate(self.names.index(name), metric)

    def difference(self, name: str, other: str, metric: str) -> Estimate:
        """Figure of the first less that of the second, paired."""
        first, second = self.names.index(name), self.names.index(other)
        return self.bootstrap.difference(first, second, metric)


def shown_name(name: str) -> str:
    """Name of a row of a table: a control's says that it is one."""
    known = ESTIMATORS.get(name)
    return f"{name} (control)" if known is not None and known.control else name


def on_test(
    estimator: AnyEstimator,
    rows: JudgedRows,
    split: Split,
    *,
    seed: int,
    train: Int[np.ndarray, " t"] | None = None,
    test: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Scores a split's test rows, after fitting on its training rows where the estimator learns.

    Args:
        estimator: An entry of the table of estimators, or a variant.
        rows: The judged rows.
        split: Which rows are which.
        seed: Seeds the fit.
        train: Rows to fit on; the split's training rows if None.
        test: Rows to score; the split's test rows if None.
    """
    scored = [rows.records[i] for i in (split.test if test is None else test)]
    if isinstance(estimator, LearnedEstimator):
        chosen = split.train if train is None else train
        records = [rows.records[i] for i in chosen]
        fitted = estimator.fit(records, rows.correct[chosen], rng=np.random.default_rng(seed))
        return settled(fitted.uncertainty(scored))
    return settled(estimator.uncertainty(scored))


def first_groups(
    rows: JudgedRows, among: Int[np.ndarray, " n"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, " m"]:
    """Returns ``count`` of the rows, group by group in random order; the last may be cut.

    Raises:
        DataError: There are fewer rows.
    """
    if len(among) < count:
        raise DataError(
            f"{len(among)} rows to draw {count} labels from; at least as many rows are required. "
            "Collect more, or ask for fewer labels."
        )
    groups = rng.permutation(np.unique(rows.groups[among]))
    place = np.empty(int(rows.groups.max()) + 1, dtype=np.int64)
    place[groups] = np.arange(len(groups))
    ordered = among[np.argsort(place[rows.groups[among]], kind="stable")]
    return np.sort(ordered[:count])


def compare(
    scores: Mapping[str, Sequence[Float[np.ndarray, " n"]]],
    tests: Sequence[Int[np.ndarray, " n"]],
    rows: JudgedRows,
    metrics: Sequence[str],
    *,
    probability: bool = False,
    resamples: int = 1000,
) -> Figures:
    """Measures contenders on the same rows.

    Args:
        scores: By contender, one array per split: uncertainty, or with ``probability`` the
            confidence, of the split's test rows.
        tests: The test rows of each split.
        rows: The judged rows.
        metrics: Names in `sightline.metrics.METRICS`, or ``within_type_auroc``.
        probability: Whether the scores are confidences.
        resamples: Bootstrap resamples.
    """
    names = tuple(scores)
    sign = 1.0 if probability else -1.0
    samples = [
        Sample(
            scores=np.array([sign * scores[name][at] for name in names]),
            correct=rows.correct[test],
            groups=rows.groups[test],
            types=None if rows.types is None else rows.types[test],
        )
        for at, test in enumerate(tests)
    ]
    bootstrap = cluster_bootstrap(
        samples, metrics=metrics, n_resamples=resamples, rng=np.random.default_rng(0)
    )
    return Figures(names, bootstrap)
