"""Evaluating a zero-shot classifier's run by the protocol of every other run.

A support draw is to a score what a split seed is to the protocol: figure ``i`` is that of split
``i`` with support draw ``i``, and figures are means over them. Every score gets the same calibrator
on the same calibration rows. A score that may change the label is judged, calibrated and measured
by its own labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sightline.core.errors import (
    AntiInformativeError,
    MissingFeatureError,
    UndefinedMetricError,
    UsageError,
)
from sightline.core.estimates import Estimate
from sightline.core.protocols import Calibrator
from sightline.core.results import (
    ClassifierSummary,
    DrawFigures,
    OutOfDistribution,
)
from sightline.metrics.discrimination import auroc, fpr95, fpr_at_tpr_nearest
from sightline.metrics.intervals import Sample, cluster_bootstrap
from sightline.metrics.selective import aurc
from sightline.store.layout import CLASSES, SUPPORT, is_run
from sightline.store.run import RunStore
from sightline.workflow.classifying.comparing import refuse_leakage, same_classifier
from sightline.workflow.classifying.judging import (
    check_classes_judge,
    judged_pictures,
    relabelled,
)
from sightline.workflow.classifying.reading import (
    Embedded,
    SupportDraws,
    open_classification,
    read_embedded,
    read_support,
    read_texts,
)
from sightline.workflow.classifying.scoring import Drawn, score_embedded
from sightline.workflow.evaluate import (
    Outcome,
    Progress,
    Settings,
    check,
    conclude,
    named_calibrator,
    uncertainty_column,
)
from sightline.workflow.judged import Heldout, JudgedRows
from sightline.workflow.measure import (
    RAW_PROBABILITY,
    RAW_RANKING,
    BootstrapSettings,
    bootstrap_views,
    is_probability,
)
from sightline.workflow.scoring import Scored as ScoredItem
from sightline.workflow.scoring import settled

_OVER_DRAWS = {
    "auroc": auroc,
    "aurc": aurc,
    "fpr95": fpr95,
    "fpr95_nearest": fpr_at_tpr_nearest,
}
OOD = ("auroc", "fpr95", "aupr_right", "aupr_wrong")


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """What an evaluation of a classifier's run needs beside the settings of every other.

    Attributes:
        support: Run whose support pictures are used; None takes the run's own, if there are any.
        shots: Support pictures of every class; None takes as many as were drawn.
        ood: Run of pictures of none of the classes.
    """

    support: Path | None = None
    shots: int | None = None
    ood: Path | None = None


def evaluate_classifier(
    path: Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    chosen: ClassifierSettings = ClassifierSettings(),
    *,
    given_split: Mapping[str, str] | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Outcome:
    """Evaluates a run of `sightline.workflow.classifying.collecting.classify`.

    Args:
        path: The run directory.
        settings: How to evaluate; its estimators are scores of a zero-shot classifier.
        chosen: Support pictures and a second task.
        given_split: Split name (train, calibration or test) by group; replaces the seeds.
        progress: Called with (stage, done, total).

    Raises:
        DataError: No picture can be judged, or the split leaves a part empty.
        LeakageError: A support picture is among the judged ones, or a picture of none of the
            classes is among either.
        UsageError: An unknown score, shots that were not drawn, or runs of two classifiers.
        MissingFeatureError: None of the named scores can be computed.
    """
    check(settings)
    check_classes_judge(settings)
    store = open_classification(path)
    calibrator = named_calibrator(settings.calibrator)
    progress("reading", 0, 1)
    texts = read_texts(RunStore.open(path / CLASSES))
    seen = read_embedded(store, texts)
    home = chosen.support or (path if is_run(path / SUPPORT) else None)
    if home is None and chosen.shots is not None:
        raise UsageError(
            f"--shots {chosen.shots} with {path}, which has no support pictures; some are required "
            "to take fewer of. Leave it out, or name a run that has them with --support."
        )
    draws = None if home is None else read_support(home, seen, chosen.shots)
    other = None if chosen.ood is None else _other(chosen.ood, seen, draws)
    named = settings.estimators
    drawn, outside, lacking = score_embedded(
        seen,
        [] if other is None else [other],
        draws,
        named,
        seed=settings.seed,
        progress=lambda done, total: progress("scoring", done, total),
    )
    if not drawn:
        raise MissingFeatureError(
            f"None of {len(lacking)} scores can be computed on {path}; {lacking[0].name!r}: "
            f"{lacking[0].reasons[0].reason}"
        )
    judged = judged_pictures(
        seen, settings, given_split, draws=1 if draws is None else len(draws.rows)
    )
    rows = judged.rows
    keep = np.flatnonzero(seen.labels >= 0)
    scored, heldout, own_rows, raw = [], [], {}, {}
    bootstrap = BootstrapSettings(settings.resamples, settings.level, settings.seed)
    for at, one in enumerate(drawn):
        progress("calibrating", at, len(drawn))
        views = _views(one, seen, keep)
        item = _item(one, views[0])
        if not one.estimator.traits.uses_support:
            store.write_column(uncertainty_column(item, rows), replace=True)
        scored.append(item)
        heldout.append(_heldout(item, views, rows, calibrator, settings.calibrator))
        raw[at] = _raw(item, views, rows, bootstrap)
        if one.estimator.traits.may_relabel:
            own_rows[at] = relabelled(rows, one, seen)
    outcome = conclude(
        store, judged, settings, scored, heldout, lacking, own_rows=own_rows, raw=raw,
        progress=progress,
    )  # fmt: skip
    ood = None
    if other is not None:
        ood = _out_of_distribution(seen, other, drawn, outside[0], bootstrap)
    summary = _summary(store, seen, draws, drawn, keep, ood)
    return replace(outcome, evaluation=replace(outcome.evaluation, classifier=summary))


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """One draw of a score on the judged pictures."""

    uncertainty: Float[np.ndarray, " n"]
    correct: Float[np.ndarray, " n"] | None  # None: the classifier's own labels


def _other(path: Path, seen: Embedded, draws: SupportDraws | None) -> Embedded:
    """The out-of-distribution pictures, embedded alike.

    Raises:
        LeakageError: One is among the pictures of the run, or among those learned from.
        UsageError: They are of another classifier, or have labels among its classes.
    """
    store = open_classification(path)
    other = read_embedded(store, seen.texts)
    same_classifier(path, store.manifest.model, seen.store, what="other pictures (--ood)")
    known = int((other.labels >= 0).sum())
    if known:
        at = int(np.argmax(other.labels >= 0))
        raise UsageError(
            f"{known} of {len(other.labels)} pictures of {path} have a label among the classes of "
            f"{seen.store.path}, such as {seen.texts.classes[other.labels[at]]!r}; pictures of "
            "none of its classes are required. Choose others."
        )
    mine = [record.example for record in other.records]
    runs = {"test pictures": seen}
    if draws is not None:
        runs["support pictures"] = draws.pictures
    for among, own in runs.items():
        refuse_leakage(
            mine,
            [record.example for record in own.records],
            str(path),
            str(own.store.path),
            what="other pictures (--ood)",
            among=among,
        )
    return other


def _views(one: Drawn, seen: Embedded, keep: np.ndarray) -> list[_View]:
    """Each draw's scores of the judged pictures."""
    relabels = one.estimator.traits.may_relabel
    return [
        _View(
            settled(result.uncertainty[keep]),
            (result.label[keep] == seen.labels[keep]).astype(np.float64) if relabels else None,
        )
        for result in one.results
    ]


def _item(one: Drawn, first: _View) -> ScoredItem:
    return ScoredItem(
        name=one.name,
        estimator=one.estimator,
        rows=np.arange(len(first.uncertainty)),
        skipped={},
        uncertainty=first.uncertainty,
        seconds=one.seconds,
        spec=one.spec,
    )


def _heldout(
    item: ScoredItem,
    views: Sequence[_View],
    rows: JudgedRows,
    calibrator: Calibrator,
    calibrator_name: str,
) -> list[Heldout]:
    """Test rows of every split, each with a draw of its own, calibrated on its calibration rows."""
    out = []
    for at, split in enumerate(rows.splits):
        view = views[at % len(views)]
        correct = rows.correct if view.correct is None else view.correct
        own = None if view.correct is None else view.correct[split.test]
        confidence, note, fit = None, "", None
        if calibrator.needs_probability and not is_probability(item):
            note = f"{calibrator_name} calibrates probabilities only, and this score is none"
        else:
            try:
                fit = calibrator.fit(
                    view.uncertainty[split.calibration],
                    correct[split.calibration],
                    groups=rows.groups[split.calibration],
                )
                confidence = fit.confidence(view.uncertainty[split.test])
                note = "fitted" if fit.informative else "base rate"
            except AntiInformativeError as error:
                note = str(error)
        out.append(
            Heldout(split.test, view.uncertainty[split.test], confidence, note, fit, correct=own)
        )
    return out


def _raw(
    item: ScoredItem, views: Sequence[_View], rows: JudgedRows, settings: BootstrapSettings
) -> dict[str, Estimate]:
    """Figures of the raw score on all judged pictures, mean over the draws."""
    held = [Heldout(item.rows, v.uncertainty, None, "", correct=v.correct) for v in views]
    ranked = bootstrap_views([held], RAW_RANKING, rows, settings, probability=False)
    values = {metric: ranked.estimate(0, metric) for metric in RAW_RANKING}
    inside = all(np.all((v.uncertainty >= 0) & (v.uncertainty <= 1)) for v in views)
    if item.estimator.is_probability and inside:
        sure = [replace(h, confidence=1.0 - h.uncertainty) for h in held]
        measured = bootstrap_views([sure], RAW_PROBABILITY, rows, settings, probability=True)
        values |= {metric: measured.estimate(0, metric) for metric in RAW_PROBABILITY}
    return values


def _out_of_distribution(
    seen: Embedded,
    other: Embedded,
    inside: Sequence[Drawn],
    outside: Sequence[Drawn],
    settings: BootstrapSettings,
) -> OutOfDistribution:
    """Right = one of the classes; both runs' pictures together."""
    groups = [r.example.group for r in (*seen.records, *other.records)]
    codes = np.unique(groups, return_inverse=True)[1]
    correct = np.repeat([1.0, 0.0], [len(seen.records), len(other.records)])
    figures = {}
    for one, another in zip(inside, outside, strict=True):
        samples = [
            Sample(
                scores=-settled(np.concatenate([a.uncertainty, b.uncertainty]))[None],
                correct=correct,
                groups=codes,
                types=None,
            )
            for a, b in zip(one.results, another.results, strict=True)
        ]
        found = cluster_bootstrap(
            samples,
            metrics=OOD,
            n_resamples=settings.resamples,
            level=settings.level,
            rng=np.random.default_rng(settings.seed),
        )
        figures[one.name] = {metric: found.estimate(0, metric) for metric in OOD}
    return OutOfDistribution(other.store.path.resolve().name, len(other.records), figures)


def _summary(
    store: RunStore,
    seen: Embedded,
    draws: SupportDraws | None,
    drawn: Sequence[Drawn],
    keep: np.ndarray,
    ood: OutOfDistribution | None,
) -> ClassifierSummary:
    return ClassifierSummary(
        classes=len(seen.texts.classes),
        templates=tuple(store.manifest.model["templates"]),
        encoders=seen.encoders,
        support=None if draws is None else draws.run,
        shots=0 if draws is None else draws.shots[1],
        fewest_shots=0 if draws is None else draws.shots[0],
        draws=0 if draws is None else len(draws.rows),
        unreadable=0 if draws is None else draws.lacking,
        scores={one.name: _draw_figures(one, seen, keep) for one in drawn},
        out_of_distribution=ood,
    )


def _draw_figures(one: Drawn, seen: Embedded, keep: np.ndarray) -> DrawFigures:
    traits = one.estimator.traits
    by_metric: dict[str, list[float]] = {"accuracy": [], **{name: [] for name in _OVER_DRAWS}}
    for result in one.results:
        correct = (result.label[keep] == seen.labels[keep]).astype(np.float64)
        trust = -settled(result.uncertainty[keep])
        by_metric["accuracy"].append(float(correct.mean()))
        for name, metric in _OVER_DRAWS.items():
            try:
                by_metric[name].append(float(metric(trust, correct)))
            except UndefinedMetricError:
                continue
    return DrawFigures(
        uses_support=traits.uses_support,
        may_relabel=traits.may_relabel,
        draws=len(one.results),
        mean={m: float(np.mean(v)) if v else None for m, v in by_metric.items()},
        spread={m: float(np.std(v, ddof=1)) if len(v) > 1 else None for m, v in by_metric.items()},
    )
