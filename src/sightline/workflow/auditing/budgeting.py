"""A budgeted audit: the few conditions that tell most, and what they are worth elsewhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
from jaxtyping import Bool, Float

from sightline.audit.budget import Labelled, choose_perturbations, cross_fitted
from sightline.audit.comparable import comparable_means
from sightline.audit.resampled import Clusters
from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.core.probe_results import BudgetedAudit, BudgetStep
from sightline.workflow.auditing.columns import Columns
from sightline.workflow.auditing.pairs import AuditRows

PARTS = 5
FORMS = ("choice", "yes_no", "text")


def budgets_of(
    rows: AuditRows,
    columns: Columns,
    drift: Float[np.ndarray, " n"],
    clusters: Clusters,
    *,
    k: int,
    seed: int,
) -> tuple[BudgetedAudit, ...]:
    """Chooses conditions for two targets: a wrong clean answer, and one less stable than most.

    Of every condition the flip, the margin that is lost (of free answers the log-probability) and
    the drift are seen; the clean margin is known without any. A pair that does not count shows the
    mean of those that do.

    How often an answer flips is held against how often others do under the same conditions, over
    all conditions: the chosen ones are part of what they predict, so that even a condition without
    any bearing on the others tells its own part. The target is what the whole bank would show, not
    what other perturbations will.

    Args:
        rows: Questions and pairs.
        columns: What was measured of each pair.
        drift: 1 - cosine of the flagged channel, NaN where there is none.
        clusters: Resamples of the pictures.
        k: How many to choose.
        seed: Of the parts.
    """
    counted = columns.counted_pictures
    if not counted.any():
        return ()
    conditions = list(dict.fromkeys(rows.conditions[counted].tolist()))
    shown = _shown(rows, columns, drift, counted, conditions)
    items, flips = comparable_means(
        rows.item_of[counted], rows.conditions[counted], rows.flipped[counted] * 1.0
    )
    seen, unstable = np.zeros((2, len(rows.items)), dtype=bool)
    seen[items] = True
    unstable[items] = flips > np.median(flips)
    wrong = np.array([item.right is False for item in rows.items])
    graded = np.array([item.right is not None for item in rows.items])
    known = _known(rows)
    images = np.array([item.image for item in rows.items], dtype=np.int64)

    def budget(
        target: str, hits: Bool[np.ndarray, " i"], used: Bool[np.ndarray, " i"]
    ) -> BudgetedAudit:
        labelled = Labelled(shown[used], hits[used], images[used], known[used])
        return _budget(target, labelled, conditions, clusters, k, seed)

    return (
        budget("the clean answer is wrong", wrong, graded & seen),
        budget("the answer flips more often than the median one", unstable, seen),
    )


def _budget(
    target: str, rows: Labelled, conditions: list[str], clusters: Clusters, k: int, seed: int
) -> BudgetedAudit:
    n = len(rows.target)
    share = float(rows.target.mean()) if n else 0.0
    try:
        found = choose_perturbations(rows, k=k, folds=PARTS, seed=seed)
        elsewhere = cross_fitted(rows, k=k, parts=PARTS, folds=PARTS, seed=seed)
    except DataError as error:
        none = Estimate(None, n=n, reason="nothing could be chosen")
        reason = str(error)
        return BudgetedAudit(target, n, share, len(conditions), None, PARTS, (), none, reason)
    times = Counter(one for own in elsewhere.chosen for one in own)
    worth = [clusters.mean(rows.groups, own) for own in elsewhere.gains]
    steps = tuple(
        BudgetStep(
            conditions[one.perturbation], one.loss, one.gain, worth[i], times[one.perturbation]
        )
        for i, one in enumerate(found.chosen)
    )
    return BudgetedAudit(
        target, n, share, len(conditions), found.loss, PARTS, steps, worth[-1], None
    )


def _shown(
    rows: AuditRows,
    columns: Columns,
    drift: Float[np.ndarray, " n"],
    counted: Bool[np.ndarray, " n"],
    conditions: list[str],
) -> Float[np.ndarray, "i p 3"]:
    """Flip, loss and drift of every question under every condition."""
    loss = columns.margin_before - columns.margin
    loss = np.where(np.isfinite(loss), loss, -columns.score_change)
    values = np.stack([columns.pairs.flipped * 1.0, loss, drift], axis=1)
    shown = np.full((len(rows.items), len(conditions), values.shape[1]), np.nan)
    number = {name: i for i, name in enumerate(conditions)}
    items = rows.item_of
    for i in np.flatnonzero(counted):
        shown[items[i], number[rows.pairs[i].record.condition]] = values[i]
    there = np.isfinite(shown)
    total = np.where(there, shown, 0.0).sum(axis=0)
    mean = total / np.maximum(there.sum(axis=0), 1)
    return np.where(there, shown, mean)


def _known(rows: AuditRows) -> Float[np.ndarray, "i 6"]:
    """What is known without a perturbation: the kind of question, and its margin within it."""
    found = np.zeros((len(rows.items), 2 * len(FORMS)))
    for i, item in enumerate(rows.items):
        kind = FORMS.index(item.form)
        logprobs = item.record.answer.logprobs
        if item.scores is not None:
            own = float(np.diff(np.sort(item.scores)[-2:])[0])
        else:
            own = 0.0 if logprobs is None else float(logprobs.sum())
        found[i, 2 * kind : 2 * kind + 2] = 1.0, own
    return found
