"""Intervals by resampling groups, paired differences between estimators, and the closed forms.

Rows that share a group (rotations of one question, several questions on one image) are not
independent, so groups are what is drawn. One resample draws the groups once for all estimators,
metrics and split seeds, which makes differences between estimators paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError, UsageError
from sightline.core.types import Estimate
from sightline.metrics import METRICS, BinGaps, Metric
from sightline.metrics.closed_form import NORMAL, auroc_estimate, proportion, student
from sightline.metrics.discrimination import auroc_levels
from sightline.metrics.ranked import (
    Ranked,
    Ranking,
    is_binary,
    rank,
    ratio,
    require_probability,
    rows_of,
)

__all__ = ["Bootstrap", "Sample", "auroc_estimate", "cluster_bootstrap", "proportion"]

WITHIN_TYPE = "within_type_auroc"
TYPE_SMALLEST_N = 10
_JACKKNIFE_BLOCKS = 100
_BLOCK_CELLS = 1 << 19
_CALIBRATED = " if calibrated"


@dataclass(frozen=True)
class Sample:
    """The rows measured under one split seed.

    Attributes:
        scores: One row per estimator, higher = more trustworthy; raw for ranking metrics,
            calibrated confidence for probability metrics.
        correct: In [0, 1].
        groups: Group of each row; the same number means the same group in every sample.
        types: Question type of each row, or None.
    """

    scores: Float[np.ndarray, "e n"]
    correct: Float[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    types: Int[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        lengths = {
            "scores": np.shape(self.scores)[-1] if np.ndim(self.scores) == 2 else -1,
            "correct": len(self.correct),
            "groups": len(self.groups),
            "types": len(self.correct) if self.types is None else len(self.types),
        }
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"Sample has lengths {lengths}; scores (estimators, n) and one correctness, group "
                "and type per row are required. Align them by key first."
            )


@dataclass(frozen=True)
class Bootstrap:
    """Figures of several estimators with the resamples they were drawn on.

    Attributes:
        level: Coverage of the intervals.
        tail: Share of the resamples beyond each end; (1 - level) / 2 widened for few groups.
        n: Rows, rounded mean over the samples.
        values: Figure by metric, one per estimator; to be read only where there is no reason.
        reasons: Why a figure is not defined, by (estimator, metric).
        draws: Resampled figures by metric; NaN where a resample leaves it undefined.
        jackknife: Figures by metric with one block of groups left out at a time.
        calibrated: For calibration errors, the resampled figure had the bins no gap.
    """

    level: float
    tail: float
    n: int
    values: Mapping[str, Float[np.ndarray, " e"]]
    reasons: Mapping[tuple[int, str], str]
    draws: Mapping[str, Float[np.ndarray, "e b"]]
    jackknife: Mapping[str, Float[np.ndarray, "e j"]]
    calibrated: Mapping[str, Float[np.ndarray, "e b"]]

    def estimate(self, estimator: int, metric: str) -> Estimate:
        """The figure of one estimator with its interval, or the reason why there is none.

        There is no interval (but a value) where more than a tenth of the resamples leave the
        metric undefined or where all of them agree, as with a perfect AUROC: agreement of
        resamples is no evidence of certainty.
        """
        if (estimator, metric) in self.reasons:
            return Estimate(None, n=self.n, reason=self.reasons[estimator, metric])
        value = float(self.values[metric][estimator])
        rule = _rule(metric)
        interval = _interval(
            value,
            self.draws[metric][estimator],
            self.jackknife[metric][estimator],
            self.tail,
            rule,
        )
        if interval is None:
            return Estimate(value, n=self.n)
        low, high = np.clip(interval, *rule.bounds)
        if metric in self.calibrated:
            chance = np.quantile(self.calibrated[metric][estimator], self.level)
            low = min(low, 0.0) if value <= chance else low
        return Estimate(value, float(low), float(high), n=self.n)

    def difference(self, first: int, second: int, metric: str) -> Estimate:
        """Figure of the first less that of the second estimator, on the same resamples.

        An interval that leaves out 0 is a difference beyond chance. Identical scores give 0 with
        the interval [0, 0].
        """
        for estimator in (first, second):
            if (estimator, metric) in self.reasons:
                return Estimate(None, n=self.n, reason=self.reasons[estimator, metric])
        values, draws, left_out = (
            table[metric][first] - table[metric][second]
            for table in (self.values, self.draws, self.jackknife)
        )
        if not values and not np.any(np.nan_to_num(draws)):
            return Estimate(0.0, 0.0, 0.0, n=self.n)
        interval = _interval(float(values), draws, left_out, self.tail, _rule(metric))
        if interval is None:
            return Estimate(float(values), n=self.n)
        return Estimate(float(values), *interval, n=self.n)


def _rule(metric: str) -> Metric:
    return METRICS["auroc" if metric == WITHIN_TYPE else metric]


def cluster_bootstrap(
    samples: Sequence[Sample],
    *,
    metrics: Sequence[str],
    n_resamples: int = 1000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Bootstrap:
    """Measures estimators and resamples them by group.

    A figure is the mean over the samples (one per split seed) of the metric on that sample. A
    resample draws as many groups as there are, with replacement, over all samples at once; a group
    drawn twice counts twice in every sample it is in.

    Intervals are BCa (bias-corrected and accelerated; acceleration from a jackknife over at most
    100 random blocks of groups, which has the same limit as one over single groups), with tails
    widened as Student's quantile is beside the normal one, since resamples vary too little where
    groups are few.

    Calibration errors are means of absolute values: their resamples lie above the estimate, as the
    estimate lies above the truth, which a percentile or BCa interval would take the wrong way. They
    get the basic interval [2v - q_high, 2v - q_low], which subtracts that bias once, widened to
    hold the estimate itself, and down to 0 where the estimate is within chance of a calibrated
    score: below the ``level`` quantile of resamples whose bins were first rid of their gaps.

    In simulations of 200 to 1,000 rows the 95 % intervals of ranking metrics and proper scores
    cover 92 to 98 %, those of calibration errors 84 to 99 %, of coverage at risk (which jumps) 80
    to 90 %.

    Args:
        samples: One per split seed, each with the same estimators in the same order.
        metrics: Names in `METRICS`, or ``within_type_auroc``: the mean over question types of the
            AUROC within the type, for types with at least 10 rows and both right and wrong answers.
        n_resamples: Number of resamples.
        level: Coverage of the intervals, in (0, 1).
        rng: Draws resamples and jackknife blocks.

    Raises:
        UsageError: An unknown metric, no sample, or ``within_type_auroc`` without types.
        DataError: A score is not finite, or not in [0, 1] for a probability metric.

    Source:
        Efron 1987 (BCa); Field and Welsh 2007 (resampling clusters); Shao and Wu 1989 (grouped
        jackknife); Hesterberg 2015 (tails).
    """
    estimators = _check(samples, metrics)
    group_ids = np.unique(np.concatenate([s.groups for s in samples]))
    prepared = [_Prepared.of(sample, group_ids, metrics) for sample in samples]
    n_groups = max(1, len(group_ids))
    once = np.ones((1, n_groups))
    values = _measure(prepared, once, metrics, estimators, {})
    reasons = {
        (e, metric): reason
        for metric in metrics
        for e in range(estimators)
        if (reason := _reason(samples, metric, float(values[metric][e, 0]))) is not None
    }
    left_out = _jackknife_weights(n_groups, rng)
    jackknife = _in_blocks(
        prepared, _blocks(left_out, _block_size(samples)), metrics, estimators, reasons
    )
    errors = [m for m in metrics if _rule(m).bin_gaps is not None]
    drawn = _in_blocks(
        prepared,
        _drawn(n_groups, n_resamples, _block_size(samples), rng),
        (*metrics, *(m + _CALIBRATED for m in errors)),
        estimators,
        reasons,
    )
    return Bootstrap(
        level=level,
        tail=_tail(level, min(len(np.unique(s.groups)) for s in samples)),
        n=round(float(np.mean([len(s.correct) for s in samples]))),
        values={m: values[m][:, 0] for m in metrics},
        reasons=reasons,
        draws={m: drawn[m] for m in metrics},
        jackknife=jackknife,
        calibrated={m: drawn[m + _CALIBRATED] for m in errors},
    )


def _check(samples: Sequence[Sample], metrics: Sequence[str]) -> int:
    unknown = [m for m in metrics if m not in METRICS and m != WITHIN_TYPE]
    if unknown:
        raise UsageError(
            f"Metric {unknown[0]!r} is unknown; one of {', '.join((*METRICS, WITHIN_TYPE))} is "
            "required. Choose one of them."
        )
    if not samples:
        raise UsageError("No samples to bootstrap; at least one is required. Pass the test rows.")
    counts = {s.scores.shape[0] for s in samples}
    if len(counts) > 1:
        raise UsageError(
            f"Samples hold {sorted(counts)} estimators; the same estimators in the same order are "
            "required. Leave out an estimator that lacks a seed."
        )
    if WITHIN_TYPE in metrics and any(s.types is None for s in samples):
        raise UsageError(
            f"{WITHIN_TYPE} without question types; every row requires one. Leave the metric out."
        )
    probability = any(METRICS[m].input == "probability" for m in metrics if m != WITHIN_TYPE)
    for sample in samples:
        for scores in sample.scores:
            if len(scores):
                rows_of(scores, sample.correct)
            if probability:
                require_probability(scores)
    return int(counts.pop())


def _reason(samples: Sequence[Sample], metric: str, value: float) -> str | None:
    smallest = min(len(s.correct) for s in samples)
    rule = _rule(metric)
    if smallest < rule.smallest_n:
        return f"{smallest} rows; {metric} requires at least {rule.smallest_n}"
    if rule.binary and not all(is_binary(s.correct) for s in samples):
        return f"correctness is fractional; {metric} requires 0 or 1"
    if np.isnan(value):
        if metric == WITHIN_TYPE:
            return f"no question type has {TYPE_SMALLEST_N} rows with both right and wrong answers"
        return rule.undefined
    return None


@dataclass(frozen=True)
class _OfType:
    """The rows of one question type, sorted."""

    rows: Int[np.ndarray, " t"]
    ranking: Ranking


@dataclass(frozen=True)
class _Prepared:
    """One sample, sorted once for all weightings."""

    group_index: Int[np.ndarray, " n"]
    rankings: tuple[Ranking, ...]
    within: tuple[tuple[_OfType, ...], ...]
    bin_gaps: tuple[Mapping[BinGaps | None, np.ndarray], ...]  # (levels,) per estimator

    @staticmethod
    def of(sample: Sample, group_ids: Int[np.ndarray, " g"], metrics: Sequence[str]) -> _Prepared:
        if not len(sample.correct):
            return _Prepared(np.zeros(0, dtype=np.intp), (), (), ())
        correct = np.asarray(sample.correct, dtype=np.float64)
        scores = np.asarray(sample.scores, dtype=np.float64)
        within = []
        if WITHIN_TYPE in metrics and sample.types is not None:
            chosen = [np.flatnonzero(sample.types == t) for t in np.unique(sample.types)]
            chosen = [
                rows
                for rows in chosen
                if len(rows) >= TYPE_SMALLEST_N and 0 < correct[rows].sum() < len(rows)
            ]
            within = [
                tuple(_OfType(rows, rank(s[rows], correct[rows])) for rows in chosen)
                for s in scores
            ]
        rankings = tuple(rank(s, correct) for s in scores)
        kinds = {f for m in metrics if (f := _rule(m).bin_gaps) is not None}
        return _Prepared(
            group_index=np.searchsorted(group_ids, sample.groups),
            rankings=rankings,
            within=tuple(within),
            bin_gaps=tuple({f: f(r.ranked()) for f in kinds} for r in rankings),
        )


def _measure(
    prepared: Sequence[_Prepared],
    group_weights: Float[np.ndarray, "b g"],
    metrics: Sequence[str],
    estimators: int,
    skip: Mapping[tuple[int, str], str],
) -> dict[str, Float[np.ndarray, "e b"]]:
    """Mean over the samples of every metric under every weighting of the groups."""
    out = {m: np.zeros((estimators, len(group_weights))) for m in metrics}
    for sample in prepared:
        if not len(sample.group_index):
            for m in metrics:
                out[m][:] = np.nan
            continue
        weights = np.take(group_weights, sample.group_index, axis=1)
        for e in range(estimators):
            wanted = [m for m in metrics if (e, m.removesuffix(_CALIBRATED)) not in skip]
            if not wanted:
                continue
            ranked = sample.rankings[e].ranked(weights)
            without_gaps: dict[BinGaps | None, Ranked] = {}
            for m in wanted:
                if m == WITHIN_TYPE:
                    out[m][e] += _within_type(sample.within[e], weights)
                elif m in METRICS:
                    out[m][e] += METRICS[m].weighted(ranked)
                else:
                    rule = METRICS[m.removesuffix(_CALIBRATED)]
                    if rule.bin_gaps not in without_gaps:
                        shift = sample.bin_gaps[e][rule.bin_gaps]
                        without_gaps[rule.bin_gaps] = replace(ranked, shift=shift)
                    out[m][e] += rule.weighted(without_gaps[rule.bin_gaps])
    return {m: table / len(prepared) for m, table in out.items()}


def _within_type(
    by_type: Sequence[_OfType], weights: Float[np.ndarray, "b n"]
) -> Float[np.ndarray, " b"]:
    """Mean AUROC over the types that have both classes in the resample."""
    total, counted = np.zeros(len(weights)), np.zeros(len(weights))
    for one in by_type:
        value = auroc_levels(one.ranking.ranked(weights[:, one.rows]))
        total += np.nan_to_num(value)
        counted += ~np.isnan(value)
    return ratio(total, counted)


def _block_size(samples: Sequence[Sample]) -> int:
    return max(1, min(256, _BLOCK_CELLS // max(1, *(len(s.correct) for s in samples))))


def _in_blocks(
    prepared: Sequence[_Prepared],
    blocks: Iterator[Float[np.ndarray, "b g"]],
    metrics: Sequence[str],
    estimators: int,
    skip: Mapping[tuple[int, str], str],
) -> dict[str, Float[np.ndarray, "e b"]]:
    parts = [_measure(prepared, block, metrics, estimators, skip) for block in blocks]
    return {m: np.concatenate([part[m] for part in parts], axis=1) for m in metrics}


def _blocks(weights: Float[np.ndarray, "b g"], size: int) -> Iterator[Float[np.ndarray, "block g"]]:
    for start in range(0, len(weights), size):
        yield weights[start : start + size]


def _drawn(
    n_groups: int, n_resamples: int, size: int, rng: np.random.Generator
) -> Iterator[Float[np.ndarray, "block g"]]:
    for start in range(0, n_resamples, size):
        b = min(size, n_resamples - start)
        drawn = rng.integers(0, n_groups, size=(b, n_groups))
        drawn += np.arange(b)[:, None] * n_groups
        yield (
            np.bincount(drawn.ravel(), minlength=b * n_groups)
            .reshape(b, n_groups)
            .astype(np.float64)
        )


def _jackknife_weights(n_groups: int, rng: np.random.Generator) -> Float[np.ndarray, "j g"]:
    blocks = min(n_groups, _JACKKNIFE_BLOCKS)
    block_of = rng.permutation(n_groups) % blocks
    return np.not_equal(block_of[None, :], np.arange(blocks)[:, None]).astype(np.float64)


def _interval(
    value: float,
    draws: Float[np.ndarray, " b"],
    left_out: Float[np.ndarray, " j"],
    tail: float,
    rule: Metric,
) -> tuple[float, float] | None:
    defined = draws[~np.isnan(draws)]
    if len(defined) < 0.9 * len(draws):
        return None
    same = np.abs(defined - value) <= 1e-12
    if same.all():
        return None
    below = (np.sum((defined < value) & ~same) + np.sum(same) / 2) / len(defined)
    tails = tail, 1 - tail
    if rule.bin_gaps is not None or not 0 < below < 1:
        q_low, q_high = np.quantile(defined, tails)
        return min(2 * value - float(q_high), value), max(2 * value - float(q_low), value)
    bias = NORMAL.inv_cdf(float(below))
    acceleration = _acceleration(left_out[~np.isnan(left_out)])
    levels = []
    for share in tails:
        shifted = bias + NORMAL.inv_cdf(share)
        levels.append(NORMAL.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(defined, levels)
    return float(low), float(high)


def _tail(level: float, n_groups: int) -> float:
    """The tail of the normal that is as far out as Student's with n - 1 in place of n below."""
    if n_groups < 2:
        return (1 - level) / 2
    quantile = student(NORMAL.inv_cdf((1 + level) / 2), n_groups - 1)
    return NORMAL.cdf(-quantile * (n_groups / (n_groups - 1)) ** 0.5)


def _acceleration(left_out: Float[np.ndarray, " j"]) -> float:
    influence = np.sum(left_out) / max(1, len(left_out)) - left_out
    spread = float(np.sum(influence**2)) ** 1.5
    return float(np.sum(influence**3)) / (6 * spread) if spread > 0 else 0.0
