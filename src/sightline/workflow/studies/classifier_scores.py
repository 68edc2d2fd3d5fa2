"""One score of a zero-shot classifier in one setting: fitted on support sets and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration import CALIBRATORS
from sightline.core.errors import AntiInformativeError, SightlineError
from sightline.core.estimates import Estimate
from sightline.metrics.discrimination import fpr_at_tpr_nearest
from sightline.metrics.intervals import Bootstrap, Sample, cluster_bootstrap, resampled_interval
from sightline.metrics.selective import aurc
from sightline.zeroshot import (
    ZERO_SHOT_SCORES,
    ClassifierOutputs,
    ClassTexts,
    Support,
    draw_support,
    score,
)

RANKING = ("aurc", "auroc", "fpr95", "accuracy")


@dataclass(frozen=True, slots=True)
class Labelled:
    """Vectors of pictures with the right class of each."""

    outputs: ClassifierOutputs
    labels: Int[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Uncertainty of each picture's label, and whether that label is right."""

    uncertainty: Float[np.ndarray, " n"]
    correct: Float[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Result:
    """One score in one setting.

    Attributes:
        draws: Support sets it was fitted on.
        spread: Standard deviation of AURC over the draws.
        nearest: FPR95 by the released code's rule, mean over the draws.
        ranking: Figures of `RANKING`, mean over the draws, with resamples of the pictures.
        error: Expected calibration error after calibration; None where there is none.
        raw: That of the score's own probability; None where it is none.
        reason: Why there are no figures; the others are then empty.
    """

    draws: int = 0
    spread: float = 0.0
    nearest: float = 0.0
    ranking: Bootstrap | None = None
    error: Bootstrap | None = None
    raw: Bootstrap | None = None
    reason: str = ""

    def figure(self, metric: str, scale: float = 1.0) -> Estimate:
        """A figure with its interval."""
        bootstrap = self.error if metric == "ece" else self.ranking
        if bootstrap is None:
            return Estimate(None, reason=self.reason or "not calibrated")
        found = bootstrap.estimate(0, metric)
        value, low, high = (
            None if end is None else scale * end for end in (found.value, found.low, found.high)
        )
        return Estimate(value, low, high, n=found.n, reason=found.reason)


def draw_supports(pool: Labelled, shots: int, draws: int) -> list[Support]:
    """Draws support sets from labelled pictures, each of ``shots`` pictures a class."""
    supports = []
    for draw in range(draws):
        chosen = draw_support(pool.labels, shots, np.random.default_rng([draw, shots]))
        seen = pool.outputs
        supports.append(
            Support(
                np.asarray(seen.image[chosen]),
                pool.labels[chosen],
                None if seen.aux is None else np.asarray(seen.aux[chosen]),
                None if seen.views is None else np.asarray(seen.views[:, chosen]),
            )
        )
    return supports


def measure(
    name: str,
    texts: ClassTexts,
    supports: Sequence[Support],
    calibration: Labelled,
    test: Labelled,
    *,
    resamples: int,
) -> Result:
    """Fits one score on every support set and measures it on the test pictures.

    Figures are means over the support sets. Resamples draw the same pictures for every score, so
    that differences are paired although scores that may relabel are right on other pictures.
    """
    entry = ZERO_SHOT_SCORES[name]
    draws = len(supports) if entry.traits.uses_support else 1
    judged: list[tuple[Judgement, Judgement]] = []
    for draw, support in enumerate(supports[:draws]):
        try:
            fitted = entry.fit(texts, support, np.random.default_rng([draw, 0]))
        except SightlineError as error:
            return Result(reason=str(error).split(";")[0])
        pair = [
            Judgement(found.uncertainty, (found.label == part.labels).astype(float))
            for part in (calibration, test)
            for found in (score(fitted, part.outputs),)
        ]
        judged.append((pair[0], pair[1]))
    return measure_judged(judged, resamples=resamples, probability=entry.traits.is_probability)


def measure_judged(
    judged: Sequence[tuple[Judgement, Judgement]], *, resamples: int, probability: bool = False
) -> Result:
    """Figures of uncertainties on test pictures, mean over the draws.

    Args:
        judged: For each draw the pictures that calibrate, and those that are measured.
        resamples: Bootstrap resamples.
        probability: Whether 1 - uncertainty is a probability by itself.
    """
    trust, right, confident = [], [], []
    for calibration, test in judged:
        trust.append(-test.uncertainty)
        right.append(test.correct)
        try:
            calibrated = CALIBRATORS["platt"].fit(
                calibration.uncertainty,
                calibration.correct,
                groups=np.arange(len(calibration.correct)),
            )
        except AntiInformativeError:
            continue
        confident.append(calibrated.confidence(test.uncertainty))
    draws = len(judged)
    ranking = _resampled(trust, right, RANKING, resamples)
    raw = None
    if probability:
        sure = [1.0 - test.uncertainty for _, test in judged]
        raw = _resampled(sure, right, ("ece",), resamples)
    return Result(
        draws=draws,
        spread=float(np.std([aurc(t, r) for t, r in zip(trust, right, strict=True)])),
        nearest=float(
            np.mean([fpr_at_tpr_nearest(t, r) for t, r in zip(trust, right, strict=True)])
        ),
        ranking=ranking,
        error=_resampled(confident, right, ("ece",), resamples)
        if len(confident) == draws
        else None,
        raw=raw,
    )


def relative(result: Result, other: Result) -> Estimate:
    """By what share AURC is lower than another score's, paired; above 0 is better."""
    first, second = result.ranking, other.ranking
    if first is None or second is None:
        return Estimate(None, reason=result.reason or other.reason)
    values, draws, left_out = (
        1.0 - table[0]["aurc"][0] / table[1]["aurc"][0]
        for table in (
            (first.values, second.values),
            (first.draws, second.draws),
            (first.jackknife, second.jackknife),
        )
    )
    interval = resampled_interval(float(values), draws, left_out, first.tail)
    if interval is None:
        return Estimate(float(values), n=first.n)
    return Estimate(float(values), *interval, n=first.n)


def difference(result: Result, other: Result, metric: str) -> Estimate:
    """A figure less another score's, paired by picture."""
    first, second = (r.error if metric == "ece" else r.ranking for r in (result, other))
    if first is None or second is None:
        return Estimate(None, reason=result.reason or other.reason or "not calibrated")
    return first.beside(second).difference(0, 1, metric)


def _resampled(
    scores: Sequence[Float[np.ndarray, " n"]],
    right: Sequence[Float[np.ndarray, " n"]],
    metrics: Sequence[str],
    resamples: int,
) -> Bootstrap:
    samples = [
        Sample(scores=own[None], correct=correct, groups=np.arange(len(correct)))
        for own, correct in zip(scores, right, strict=True)
    ]
    return cluster_bootstrap(
        samples, metrics=metrics, n_resamples=resamples, rng=np.random.default_rng(0)
    )
