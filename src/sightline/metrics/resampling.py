"""Measuring estimators under many weightings of the groups: once, with groups left out, resampled.

One weighting says how often each group counts. The rows of every sample are sorted once; each
metric is then computed for whole blocks of weightings, one block per processor at a time (NumPy
releases the interpreter).

Axes: ``e`` estimators, ``s`` samples, ``b`` weightings, ``g`` groups.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError
from sightline.metrics import METRICS, BinGaps, Metric
from sightline.metrics.discrimination import auroc_levels
from sightline.metrics.ranked import Ranked, Ranking, rank, ratio

WITHIN_TYPE = "within_type_auroc"
TYPE_SMALLEST_N = 10
CALIBRATED = " if calibrated"
"""After a calibration error's name: its figure had the bins no gap."""

_JACKKNIFE_BLOCKS = 100
_BLOCK_CELLS = 1 << 17
"""Rows times weightings measured at once: what a processor's own cache holds."""


def rule_of(metric: str) -> Metric:
    """What is known of a metric, that within question type included."""
    return METRICS["auroc" if metric == WITHIN_TYPE else metric.removesuffix(CALIBRATED)]


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
class Prepared:
    """One sample, sorted once for all weightings of the groups.

    Attributes:
        rankings: One per estimator; none where there are no rows.
        within: Per estimator, one per question type that the within-type AUROC counts.
        bin_gaps: Per estimator, the gap of each level's bin, by rule of binning.
    """

    rankings: tuple[Ranking, ...]
    within: tuple[tuple[Ranking, ...], ...]
    bin_gaps: tuple[Mapping[BinGaps | None, np.ndarray], ...]

    @staticmethod
    def of(sample: Sample, group_ids: Int[np.ndarray, " g"], metrics: Sequence[str]) -> Prepared:
        """Sorts a sample's rows for the metrics."""
        if not len(sample.correct):
            return Prepared((), (), ())
        correct = np.asarray(sample.correct, dtype=np.float64)
        scores = np.asarray(sample.scores, dtype=np.float64)
        group_index = np.searchsorted(group_ids, sample.groups)
        types = _counted_types(sample, correct) if WITHIN_TYPE in metrics else []
        rankings = [rank(s, correct) for s in scores]
        kinds = {f for m in metrics if (f := rule_of(m).bin_gaps) is not None}
        return Prepared(
            rankings=tuple(r.of_groups(group_index) for r in rankings),
            within=tuple(
                tuple(rank(s[rows], correct[rows]).of_groups(group_index[rows]) for rows in types)
                for s in scores
            ),
            bin_gaps=tuple({f: f(r.ranked()) for f in kinds} for r in rankings),
        )


def _counted_types(sample: Sample, correct: Float[np.ndarray, " n"]) -> list[np.ndarray]:
    """Rows of each question type that is large enough and has both right and wrong answers."""
    if sample.types is None:
        return []
    return [
        rows
        for name in np.unique(sample.types)
        if len(rows := np.flatnonzero(sample.types == name)) >= TYPE_SMALLEST_N
        and 0 < correct[rows].sum() < len(rows)
    ]


@dataclass(frozen=True)
class Measured:
    """Figures under several weightings, each the mean over the samples that define it.

    Where the scores themselves can leave a metric undefined (an infinite loss), all samples must
    define it: leaving out the worst of them would favour the score.

    Attributes:
        values: By metric; NaN where no sample defines it.
        samples: By metric, how many samples define it.
    """

    values: Mapping[str, Float[np.ndarray, "e b"]]
    samples: Mapping[str, Float[np.ndarray, "e b"]]


def measure(
    prepared: Sequence[Prepared],
    group_weights: Float[np.ndarray, "b g"],
    metrics: Sequence[str],
    estimators: int,
    skip: Mapping[tuple[int, str], str],
) -> Measured:
    """Measures every estimator under every weighting; what is in ``skip`` stays undefined."""
    shape = (estimators, len(group_weights))
    total = {m: np.zeros(shape) for m in metrics}
    counted = {m: np.zeros(shape) for m in metrics}
    for sample in prepared:
        for e in range(len(sample.rankings)):
            wanted = [m for m in metrics if (e, m.removesuffix(CALIBRATED)) not in skip]
            for m, figure in _figures(sample, e, group_weights, wanted):
                defined = ~np.isnan(figure)
                total[m][e] += np.where(defined, figure, 0.0)
                counted[m][e] += defined
    values = {}
    for m in metrics:
        too_few = (counted[m] < len(prepared)) & rule_of(m).undefined_by_scores
        values[m] = np.where(too_few, np.nan, ratio(total[m], counted[m]))
    return Measured(values, counted)


def _figures(
    sample: Prepared, e: int, group_weights: Float[np.ndarray, "b g"], metrics: Sequence[str]
) -> Iterator[tuple[str, Float[np.ndarray, " b"]]]:
    """Figures of one estimator on one sample."""
    if not metrics:
        return
    ranked = sample.rankings[e].ranked(group_weights)
    without_gaps: dict[BinGaps | None, Ranked] = {}
    for m in metrics:
        if m == WITHIN_TYPE:
            yield m, _within_type(sample.within[e], group_weights)
        elif m in METRICS:
            yield m, METRICS[m].weighted(ranked)
        else:
            rule = rule_of(m)
            if rule.bin_gaps not in without_gaps:
                shift = sample.bin_gaps[e][rule.bin_gaps]
                without_gaps[rule.bin_gaps] = ranked.shifted(shift)
            yield m, rule.weighted(without_gaps[rule.bin_gaps])


def _within_type(
    by_type: Sequence[Ranking], group_weights: Float[np.ndarray, "b g"]
) -> Float[np.ndarray, " b"]:
    """Mean AUROC over the types that have both classes in the resample."""
    total, counted = np.zeros(len(group_weights)), np.zeros(len(group_weights))
    for ranking in by_type:
        value = auroc_levels(ranking.ranked(group_weights))
        total += np.nan_to_num(value)
        counted += ~np.isnan(value)
    return ratio(total, counted)


def measure_in_blocks(
    prepared: Sequence[Prepared],
    blocks: Iterable[Float[np.ndarray, "b g"]],
    metrics: Sequence[str],
    estimators: int,
    skip: Mapping[tuple[int, str], str],
) -> dict[str, Float[np.ndarray, "e b"]]:
    """Figures of `measure` under the weightings of all blocks."""
    _reuse_freed_memory()
    processors = os.cpu_count() or 1
    waiting = iter(blocks)
    parts: list[Mapping[str, np.ndarray]] = []
    with ThreadPoolExecutor(processors) as threads:
        while batch := list(islice(waiting, processors)):  # never all weightings in memory
            parts += threads.map(
                lambda block: measure(prepared, block, metrics, estimators, skip).values, batch
            )
    return {m: np.concatenate([part[m] for part in parts], axis=1) for m in metrics}


def _reuse_freed_memory() -> None:
    """Lets the C library keep what is freed instead of fetching each array's pages anew.

    glibc keeps as much as twice the largest array of at most 32 MiB that was ever freed; half of
    all time would else be spent on pages. Other C libraries are not touched.
    """
    np.empty(31 << 17)


def block_size(samples: Sequence[Sample]) -> int:
    """Weightings measured at once."""
    return max(1, min(256, _BLOCK_CELLS // max(1, *(len(s.correct) for s in samples))))


def drawn(
    n_groups: int, n_resamples: int, size: int, rng: np.random.Generator
) -> Iterator[Float[np.ndarray, "block g"]]:
    """Draws as many groups as there are, with replacement, ``size`` resamples at a time."""
    for start in range(0, n_resamples, size):
        b = min(size, n_resamples - start)
        chosen = rng.integers(0, n_groups, size=(b, n_groups))
        chosen += np.arange(b)[:, None] * n_groups
        yield (
            np.bincount(chosen.ravel(), minlength=b * n_groups)
            .reshape(b, n_groups)
            .astype(np.float64)
        )


def left_out(
    n_groups: int, size: int, rng: np.random.Generator
) -> Iterator[Float[np.ndarray, "block g"]]:
    """Leaves out one of at most 100 random parts of the groups, ``size`` parts at a time."""
    parts = min(n_groups, _JACKKNIFE_BLOCKS)
    part_of = rng.permutation(n_groups) % parts
    for start in range(0, parts, size):
        out = np.arange(start, min(start + size, parts))
        yield np.not_equal(part_of[None, :], out[:, None]).astype(np.float64)
