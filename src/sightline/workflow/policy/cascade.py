"""Cascades: cheap signals settle most answers, expensive ones are observed for the undecided.

A stage settles an answer unless its confidence lies in the stage's band [low, high). All bands are
chosen together on the planning rows: of every combination of bands between deciles of confidence
whose mean cost stays within the budget, the one with the fewest errors among the answers that would
be accepted. What the routing costs and buys is then measured on rows that had no part in the
choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import UsageError
from sightline.core.estimates import Estimate
from sightline.core.results import Curve
from sightline.core.types import Record
from sightline.estimators.fusion import joint_cost
from sightline.workflow.policy.evidence import LastTenth, Routing
from sightline.workflow.policy.trust import NOT_SCORED, Stage

MOST_STAGES = 3
"""More would need another search than trying every combination of bands."""

ALL = 2.0
"""Upper end of a band that leaves everything to the next stage."""

_POINTS = 20
_RESAMPLES = 500
_AROUND = (0.8, 0.9, 1.0, 1.1)
"""Coverages, relative to the aim, over which errors are averaged: one alone is a jumpy aim."""

_MOST = 0.95
"""Largest coverage at which routing is judged: where all are accepted, all routings err alike."""

Bands = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What every stage alone says of some rows.

    Attributes:
        confidence: Of each stage on each row; `NOT_SCORED` where it cannot score it.
        correct: 0 or 1.
        groups: Rows that share a number are not independent.
    """

    confidence: Float[np.ndarray, "k n"]
    correct: Float[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Every combination of bands that was tried on the planning rows.

    Attributes:
        bands: Of all stages but the last, by combination.
        cost: Mean cost of an answer.
        errors: Error rate around the coverage aimed at.
        coverage: That coverage.
    """

    bands: tuple[Bands, ...]
    cost: Float[np.ndarray, " b"]
    errors: Float[np.ndarray, " b"]
    coverage: float

    def best(self, budget: float) -> Bands | None:
        """Fewest errors within the budget, then the least cost; None where none is within it."""
        within = np.flatnonzero(self.cost <= budget + 1e-9)
        if not len(within):
            return None
        order = np.lexsort((self.cost[within], self.errors[within]))
        return self.bands[int(within[order[0]])]


def stage_costs(stages: Sequence[Stage], records: Sequence[Record]) -> Float[np.ndarray, " k"]:
    """What observing each stage adds to those before it, per answer that reaches it.

    Extra passes over the image and extra generated answers count alike; signals that an earlier
    stage has observed cost nothing more.
    """
    upto = []
    for index in range(len(stages)):
        cost = joint_cost([s.estimator for s in stages[: index + 1]], records)
        upto.append(float(cost.forward_passes + cost.generations))
    return np.diff(np.array([0.0, *upto]))


def search_bands(
    scored: Scored, costs: Float[np.ndarray, " k"], *, risk: float | None, coverage: float | None
) -> Search:
    """Tries every combination of bands.

    Args:
        scored: The planning rows.
        costs: Of `stage_costs`.
        risk: Aimed at; sets the coverage at which errors are counted.
        coverage: Aimed at, in place of a risk. Errors are counted at 0.95 where it is more: which
            stage settles an answer says nothing where all are accepted.
    """
    stages = len(costs)
    if coverage is None:
        everything = ((0.0, ALL),) * (stages - 1)
        full, _ = routed(scored.confidence, everything)
        coverage = _reachable(full, scored.correct, 0.05 if risk is None else risk)
    coverage = min(coverage, _MOST)
    grids = [_pairs(scored.confidence[index]) for index in range(stages - 1)]
    bands = tuple(product(*grids))
    cost, errors = np.empty(len(bands)), np.empty(len(bands))
    aims = [min(1.0, coverage * share) for share in _AROUND]
    for at, chosen in enumerate(bands):
        confidence, reached = routed(scored.confidence, chosen)
        cost[at] = float(costs @ reached.mean(axis=1))
        errors[at] = np.mean(errors_at(confidence, scored.correct, aims))
    return Search(bands, cost, errors, coverage)


def routed(
    confidence: Float[np.ndarray, "k n"], bands: Bands
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, "k n"]]:
    """Confidence of the stage that settles each row, and which rows reach each stage."""
    n = confidence.shape[1]
    final = np.full(n, NOT_SCORED)
    reached = np.zeros(confidence.shape, dtype=bool)
    open_rows = np.ones(n, dtype=bool)
    for index, (low, high) in enumerate((*bands, (0.0, 0.0))):
        reached[index] = open_rows
        final[open_rows] = confidence[index, open_rows]
        undecided = (final >= low) & (final < high)
        open_rows = open_rows & (undecided | (final == NOT_SCORED))
    return final, reached


def errors_at(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    coverages: Sequence[float],
) -> Float[np.ndarray, " c"]:
    """Error rate among the most confident share of rows, ties averaged."""
    levels, tie = np.unique(-confidence, return_inverse=True)
    rows = np.bincount(tie, minlength=len(levels)).astype(np.float64)
    wrong = np.bincount(tie, weights=1.0 - correct, minlength=len(levels))
    kept = np.maximum(np.asarray(coverages) * len(confidence), 1.0)
    counts = np.interp(kept, np.append(0.0, np.cumsum(rows)), np.append(0.0, np.cumsum(wrong)))
    return np.asarray(counts / kept)


def measured_routing(
    search: Search,
    bands: Bands,
    scored: Scored,
    costs: Float[np.ndarray, " k"],
    budget: float,
    seed: int,
) -> Routing:
    """What a choice of bands costs and buys, on rows that had no part in it."""
    _, reached = routed(scored.confidence, bands)
    cost = float(costs @ reached.mean(axis=1))
    full = float(costs.sum())
    points = [
        (
            float(costs @ rows.mean(axis=1)),
            float(errors_at(c, scored.correct, [search.coverage])[0]),
        )
        for c, rows in (routed(scored.confidence, b) for b in _frontier(search, full))
    ]
    points = sorted(set(points))
    alone = [
        float(errors_at(own, scored.correct, [search.coverage])[0]) for own in scored.confidence
    ]
    settled = reached.mean(axis=1) - np.append(reached[1:].mean(axis=1), 0.0)
    return Routing(
        settled=tuple(np.clip(settled, 0.0, 1.0).tolist()),
        cost=cost,
        full_cost=full,
        budget=budget,
        coverage=search.coverage,
        frontier=Curve(tuple(x for x, _ in points), tuple(y for _, y in points)),
        alone=Curve(tuple(np.cumsum(costs).tolist()), tuple(alone)),
        last_tenth=_last_tenth(search, bands, scored, costs, budget, seed),
    )


def least_cost(costs: Float[np.ndarray, " k"], budget: float) -> float:
    """The budget, checked to pay at least for the first stage.

    Raises:
        UsageError: It does not.
    """
    if not budget >= costs[0]:
        raise UsageError(
            f"Budget {budget:g} per answer and a first stage that costs {costs[0]:g}; at least its "
            "cost is required, in extra passes and generated answers. Raise --budget, or begin "
            "with a cheaper estimator."
        )
    return budget


def _frontier(search: Search, full: float) -> list[Bands]:
    found = (search.best(budget) for budget in np.linspace(0.0, full, _POINTS + 1).tolist())
    return [bands for bands in found if bands is not None]


def _last_tenth(
    search: Search,
    bands: Bands,
    scored: Scored,
    costs: Float[np.ndarray, " k"],
    budget: float,
    seed: int,
) -> LastTenth | None:
    """The chosen bands against the best ones for nine tenths of what they cost to plan."""
    spent = float(search.cost[search.bands.index(bands)])
    cheaper = search.best(0.9 * min(budget, spent))
    if cheaper is None or spent == 0.0:
        return None
    both = [routed(scored.confidence, chosen) for chosen in (cheaper, bands)]
    cost = [float(costs @ reached.mean(axis=1)) for _, reached in both]

    def errors(rows: Int[np.ndarray, " r"]) -> list[float]:
        return [
            float(errors_at(c[rows], scored.correct[rows], [search.coverage])[0]) for c, _ in both
        ]

    before, after = errors(np.arange(len(scored.correct)))
    members = [np.flatnonzero(scored.groups == group) for group in np.unique(scored.groups)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = rng.integers(0, len(members), len(members))
        one, other = errors(np.concatenate([members[i] for i in chosen]))
        drawn.append(other - one)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    change = after - before
    return LastTenth(
        cost_before=cost[0],
        cost_after=cost[1],
        risk_before=before,
        risk_after=after,
        change=Estimate(change, min(low, change), max(high, change), n=len(scored.correct)),
    )


def _pairs(confidence: Float[np.ndarray, " n"]) -> list[tuple[float, float]]:
    """Bands between deciles, an empty one and one that holds everything among them."""
    known = confidence[confidence > NOT_SCORED]
    inner = np.quantile(known, np.linspace(0.1, 0.9, 9)).tolist() if len(known) else []
    levels = sorted({0.0, *inner, ALL})
    pairs = [(a, b) for a, b in combinations_with_replacement(levels, 2) if a < b]
    return [(0.0, 0.0), *pairs]


def _reachable(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], risk: float
) -> float:
    """Largest coverage whose error rate stays within the risk; a half where none does."""
    shares = np.linspace(0.05, 1.0, 20)
    within = shares[errors_at(confidence, correct, shares.tolist()) <= risk]
    return float(within.max()) if len(within) else 0.5
