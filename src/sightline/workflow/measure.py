"""Measuring scored and calibrated rows: every figure of an evaluation, with its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.core.estimates import Estimate
from sightline.metrics.intervals import WITHIN_TYPE, Bootstrap, Sample, cluster_bootstrap
from sightline.workflow.judged import Heldout, JudgedRows
from sightline.workflow.scoring import Scored

RANKING = (
    "auroc", "prr", "aurc", "e_aurc", "augrc", "auarc", "fpr95", "aupr_right", "aupr_wrong",
    "cohens_d", "risk_at_coverage", "coverage_at_risk",
)  # fmt: skip
PROBABILITY = (
    "ece", "ece15", "ece_mass", "ece_debiased", "ace", "mce", "brier", "brier_skill", "nll",
)  # fmt: skip
RAW_RANKING = ("auroc", "prr", "aurc", "auarc", "fpr95")
BY_TYPE_RANKING = ("auroc", "prr")
BY_TYPE_PROBABILITY = ("ece",)
RAW_PROBABILITY = ("ece", "ece15", "brier")
COMPARED_RANKING = ("auroc", "prr", "aurc", "auarc")
COMPARED_PROBABILITY = ("ece", "brier")


@dataclass(frozen=True, slots=True)
class Figures:
    """Bootstrapped figures of one estimator."""

    heldout: dict[str, Estimate]
    within_type: Estimate
    by_type: dict[str, dict[str, Estimate]]
    vs_baseline: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """Resamples, coverage and seed shared by every interval of an evaluation."""

    resamples: int
    level: float
    seed: int


def heldout_figures(
    heldout: Sequence[Sequence[Heldout]],
    baseline: int | None,
    rows: JudgedRows,
    settings: BootstrapSettings,
) -> list[Figures]:
    """Figures of every estimator on its held-out rows.

    Args:
        heldout: By estimator, then by seed.
        baseline: Index of the estimator the others are compared with, or None.
        rows: The judged rows.
        settings: How to bootstrap.

    Every bootstrap draws the same groups, so differences are paired. Estimators that see the same
    rows, and judge the same answers there, are measured together.
    """
    together: dict[bytes, list[int]] = defaultdict(list)
    for index, per_seed in enumerate(heldout):
        parts = [
            h.rows.tobytes() + (b"" if h.correct is None else h.correct.tobytes()) for h in per_seed
        ]
        together[b"|".join(parts)].append(index)
    figures: dict[int, Figures] = {}
    for members in together.values():
        shared = baseline is not None and _covers(heldout[baseline], heldout[members[0]])
        figures |= _together(heldout, members, baseline if shared else None, rows, settings)
        if baseline is not None and not shared:
            for index in members:
                figures[index].vs_baseline.update(
                    _pair(heldout[index], heldout[baseline], rows, settings)
                )
    return [figures[index] for index in range(len(heldout))]


def _covers(outer: Sequence[Heldout], inner: Sequence[Heldout]) -> bool:
    return all(
        o.correct is None and i.correct is None and np.isin(i.rows, o.rows).all()
        for o, i in zip(outer, inner, strict=True)
    )


def _restricted(per_seed: Sequence[Heldout], wanted: Sequence[np.ndarray]) -> list[Heldout]:
    """The same estimator on fewer rows."""
    out = []
    for held, rows in zip(per_seed, wanted, strict=True):
        at = np.searchsorted(held.rows, rows)
        confidence = None if held.confidence is None else held.confidence[at]
        correct = None if held.correct is None else held.correct[at]
        out.append(
            Heldout(rows, held.uncertainty[at], confidence, held.calibration, correct=correct)
        )
    return out


def _samples(
    members: Sequence[Sequence[Heldout]], rows: JudgedRows, *, probability: bool
) -> list[Sample]:
    samples = []
    for per_estimator in zip(*members, strict=True):
        index = per_estimator[0].rows
        scores = [h.confidence if probability else -h.uncertainty for h in per_estimator]
        samples.append(
            Sample(
                scores=np.array(scores, dtype=float).reshape(len(scores), len(index)),
                correct=per_estimator[0].correct_in(rows),
                groups=rows.groups[index],
                types=None if rows.types is None else rows.types[index],
            )
        )
    return samples


def bootstrap_views(
    members: Sequence[Sequence[Heldout]],
    metrics: Sequence[str],
    rows: JudgedRows,
    settings: BootstrapSettings,
    *,
    probability: bool,
) -> Bootstrap:
    """Figures of estimators that judge the same answers, by estimator and then by seed.

    ``probability`` measures their confidences instead of their raw scores.
    """
    return cluster_bootstrap(
        _samples(members, rows, probability=probability),
        metrics=metrics,
        n_resamples=settings.resamples,
        level=settings.level,
        rng=np.random.default_rng(settings.seed),
    )


def _together(
    heldout: Sequence[Sequence[Heldout]],
    members: Sequence[int],
    baseline: int | None,
    rows: JudgedRows,
    settings: BootstrapSettings,
) -> dict[int, Figures]:
    """Figures of estimators that see the same rows, the baseline restricted to those rows."""
    views = [heldout[i] for i in members]
    if baseline is not None and baseline not in members:
        views.append(_restricted(heldout[baseline], [h.rows for h in views[0]]))
    reference = members.index(baseline) if baseline in members else len(views) - 1
    calibrated = [i for i, view in enumerate(views) if all(h.confidence is not None for h in view)]
    position = {view: at for at, view in enumerate(calibrated)}
    ranked = bootstrap_views(views, (*RANKING, *_within(rows)), rows, settings, probability=False)
    measured = (
        bootstrap_views(
            [views[i] for i in calibrated], PROBABILITY, rows, settings, probability=True
        )
        if calibrated
        else None
    )
    by_type = _by_type(views, calibrated, rows, settings)
    figures = {}
    for view, index in enumerate(members):
        values = {metric: ranked.estimate(view, metric) for metric in RANKING}
        against: dict[str, Estimate] = {}
        compare = baseline is not None and index != baseline
        if compare:
            against = {m: ranked.difference(view, reference, m) for m in COMPARED_RANKING}
        if measured is not None and view in position:
            at = position[view]
            values |= {metric: measured.estimate(at, metric) for metric in PROBABILITY}
            if compare and reference in position:
                against |= {
                    m: measured.difference(at, position[reference], m) for m in COMPARED_PROBABILITY
                }
        else:
            values |= _undefined(PROBABILITY, heldout[index])
        within = (
            ranked.estimate(view, WITHIN_TYPE)
            if rows.types is not None
            else Estimate(None, n=0, reason="some rows have no question type")
        )
        figures[index] = Figures(values, within, by_type[view], against)
    return figures


def _within(rows: JudgedRows) -> tuple[str, ...]:
    return () if rows.types is None else (WITHIN_TYPE,)


def _undefined(metrics: Sequence[str], per_seed: Sequence[Heldout]) -> dict[str, Estimate]:
    reason = next(h.calibration for h in per_seed if h.confidence is None)
    n = len(per_seed[0].rows)
    return {metric: Estimate(None, n=n, reason=f"no calibration: {reason}") for metric in metrics}


def _by_type(
    views: Sequence[Sequence[Heldout]],
    calibrated: Sequence[int],
    rows: JudgedRows,
    settings: BootstrapSettings,
) -> list[dict[str, dict[str, Estimate]]]:
    out: list[dict[str, dict[str, Estimate]]] = [{} for _ in views]
    if rows.types is None:
        return out
    for code, name in enumerate(rows.type_names):
        wanted = [h.rows[rows.types[h.rows] == code] for h in views[0]]
        if not all(len(w) for w in wanted):
            continue
        narrowed = [_restricted(view, wanted) for view in views]
        ranked = bootstrap_views(narrowed, BY_TYPE_RANKING, rows, settings, probability=False)
        for view in range(len(views)):
            out[view][name] = {m: ranked.estimate(view, m) for m in BY_TYPE_RANKING}
        if calibrated:
            measured = bootstrap_views(
                [narrowed[i] for i in calibrated],
                BY_TYPE_PROBABILITY,
                rows,
                settings,
                probability=True,
            )
            for at, view in enumerate(calibrated):
                out[view][name] |= {m: measured.estimate(at, m) for m in BY_TYPE_PROBABILITY}
    return out


def _pair(
    first: Sequence[Heldout],
    second: Sequence[Heldout],
    rows: JudgedRows,
    settings: BootstrapSettings,
) -> dict[str, Estimate]:
    """Paired differences on the rows both can score."""
    wanted = [
        np.intersect1d(a.rows, b.rows, assume_unique=True)
        for a, b in zip(first, second, strict=True)
    ]
    if not all(len(w) for w in wanted):
        missing = Estimate(None, n=0, reason="no row scored by both")
        return dict.fromkeys((*COMPARED_RANKING, *COMPARED_PROBABILITY), missing)
    views = [_restricted(first, wanted), _restricted(second, wanted)]
    ranked = _both(views, COMPARED_RANKING, rows, settings, probability=False)
    out = {m: ranked.difference(0, 1, m) for m in COMPARED_RANKING}
    if all(h.confidence is not None for view in views for h in view):
        measured = _both(views, COMPARED_PROBABILITY, rows, settings, probability=True)
        out |= {m: measured.difference(0, 1, m) for m in COMPARED_PROBABILITY}
    return out


def _both(
    views: Sequence[Sequence[Heldout]],
    metrics: Sequence[str],
    rows: JudgedRows,
    settings: BootstrapSettings,
    *,
    probability: bool,
) -> Bootstrap:
    """Two estimators on the same resamples of the same rows, whichever answers they judge."""
    if all(h.correct is None for view in views for h in view):
        return bootstrap_views(views, metrics, rows, settings, probability=probability)
    first, second = (
        bootstrap_views([view], metrics, rows, settings, probability=probability) for view in views
    )
    return first.beside(second)


def raw_figures(item: Scored, rows: JudgedRows, settings: BootstrapSettings) -> dict[str, Estimate]:
    """Figures of the raw score on every scored row; nothing is fitted, so nothing is held out."""
    if item.learns or not item.rows.size:
        return {}
    view = [[Heldout(item.rows, item.uncertainty, None, "")]]
    metrics = (*RAW_RANKING, *_within(rows))
    ranked = bootstrap_views(view, metrics, rows, settings, probability=False)
    values = {m: ranked.estimate(0, m) for m in metrics}
    if is_probability(item):
        view = [[Heldout(item.rows, item.uncertainty, 1.0 - item.uncertainty, "")]]
        measured = bootstrap_views(view, RAW_PROBABILITY, rows, settings, probability=True)
        values |= {m: measured.estimate(0, m) for m in RAW_PROBABILITY}
    return values


def is_probability(item: Scored) -> bool:
    """Whether 1 − uncertainty may be read as a probability: meant as one, and within [0, 1]."""
    u = item.uncertainty
    return item.estimator.is_probability and bool(np.all((u >= 0) & (u <= 1)))
