"""Fitting a policy on labelled records: estimators, calibrations, then certified thresholds.

Three parts of the groups, none of which sees another: estimators that learn are fitted on the
first; calibrations are fitted, and the thresholds to test are chosen, on the second; the thresholds
are tested on the third. Only the third part carries the promise, so nothing that was chosen on the
others can spoil it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int

from sightline.calibration import CALIBRATORS
from sightline.core.errors import DataError, MissingFeatureError, UsageError
from sightline.core.features import how_to_observe
from sightline.core.protocols import Calibration, Calibrator, Estimator, LearnedEstimator
from sightline.estimators import AnyEstimator, parse_estimator, spec_of
from sightline.workflow.policy.cascade import (
    MOST_STAGES,
    Scored,
    least_cost,
    measured_routing,
    search_bands,
    stage_costs,
)
from sightline.workflow.policy.certifying import certified
from sightline.workflow.policy.evidence import Routing, Target
from sightline.workflow.policy.labelled import Labelled, SetsTarget
from sightline.workflow.policy.option_sets import SetsFitter, fit_sets_over_options
from sightline.workflow.policy.trust import Stage, TrustPolicy, route
from sightline.workflow.scoring import fit_rows, observable, score_rows


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """An estimator that can score, before it is calibrated.

    Attributes:
        name: The spec it was asked for by.
        spec: Name and settings.
        estimator: Fitted where it learns.
    """

    name: str
    spec: Mapping[str, Any]
    estimator: Estimator


def fit_policy(
    specs: Sequence[str],
    data: Labelled,
    target: Target,
    *,
    calibrator: str = "platt",
    sets: SetsTarget | None = None,
    budget: float | None = None,
    seed: int = 0,
) -> TrustPolicy:
    """Fits a policy of one stage, or a cascade.

    Args:
        specs: The estimator's spec; several make a cascade, the cheapest first.
        data: Labelled answers with their parts.
        target: What to promise.
        calibrator: Name in `sightline.calibration.CALIBRATORS`.
        sets: Prediction sets to fit on the third part too; None for none.
        budget: Most that a cascade may cost per answer, on average, in extra passes and generated
            answers; None for no limit.
        seed: Of everything that is drawn.

    Returns:
        The policy; where nothing could be certified its thresholds are None, and it abstains from
        every answer.

    Raises:
        UsageError: An unknown estimator or calibrator, one that calibrates probabilities only, or
            a cascade or budget that cannot be.
        DataError: The rows are too few for an estimator that learns.
        MissingFeatureError: No row shows the signals of the estimator.
        AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
    """
    check_stages(specs, budget)
    fitted_on = np.empty(0, dtype=np.int64)
    fit_sets = None if sets is None else partial(fit_sets_over_options, sets)
    chosen, skipped = [], Counter[str]()
    for spec in specs:
        estimator, rows = ready(spec, data, skipped, seed)
        fitted_on = np.union1d(fitted_on, rows)
        chosen.append(Ready(spec, spec_of(parse_estimator(spec)), estimator))
    return fit_ready(
        chosen, data, target, fitted_on, skipped, calibrator=calibrator, sets=fit_sets,
        budget=budget, seed=seed,
    )  # fmt: skip


def fit_ready(
    chosen: Sequence[Ready],
    data: Labelled,
    target: Target,
    fitted_on: Int[np.ndarray, " k"],
    skipped: Counter[str],
    *,
    calibrator: str,
    sets: SetsFitter | None,
    budget: float | None = None,
    seed: int,
) -> TrustPolicy:
    """Fits a policy of estimators that can score already; otherwise as `fit_policy`.

    Args:
        chosen: The estimators, the cheapest first.
        data: Labelled answers with their parts.
        target: What to promise.
        fitted_on: Rows that the estimators were fitted on.
        skipped: Counts what was left out so far, by reason; goes on counting.
        calibrator: Name in `sightline.calibration.CALIBRATORS`.
        sets: Fits prediction sets; None for none.
        budget: Most that a cascade may cost per answer, on average.
        seed: Of everything that is drawn.
    """
    stages = []
    for one in chosen:
        calibration = _calibrated(
            one.name, one.estimator, data, skipped, named(calibrator), calibrator
        )
        stages.append(Stage(one.name, one.spec, one.estimator, calibration))
    routing = None
    if len(stages) > 1:
        stages, routing = _with_bands(stages, data, target, budget, seed)
    return certified(
        tuple(stages), data, fitted_on, skipped, target, sets=sets, routing=routing, seed=seed
    )


def check_stages(specs: Sequence[str], budget: float | None) -> None:
    """Requires one estimator, or the different ones of a cascade.

    Raises:
        UsageError: There are none, too many, or one comes twice; or a budget without a cascade.
    """
    if not 1 <= len(specs) <= MOST_STAGES or len(set(specs)) < len(specs):
        raise UsageError(
            f"A policy of {' -> '.join(specs) or 'no estimator'}; one estimator, or a cascade of "
            f"at most {MOST_STAGES} different ones, is required. For example "
            "sequence_probability -> sample_agreement."
        )
    if budget is not None and len(specs) == 1:
        raise UsageError(
            f"Budget {budget:g} and the single estimator {specs[0]}; only a cascade can spend less "
            "than all of its cost. Leave the budget out, or name a cascade."
        )


def _with_bands(
    stages: Sequence[Stage], data: Labelled, target: Target, budget: float | None, seed: int
) -> tuple[list[Stage], Routing]:
    """The stages of a cascade with their bands, and what these cost and buy."""
    plan, test = data.parts.calibration, data.parts.test
    costs = stage_costs(stages, [data.records[i] for i in plan])
    limit = least_cost(costs, float(costs.sum()) if budget is None else budget)
    planned, tested = (_scored(stages, data, rows) for rows in (plan, test))
    search = search_bands(planned, costs, risk=target.risk, coverage=target.coverage)
    bands = search.best(limit)
    if bands is None:
        raise UsageError(
            f"No bands keep the mean cost within {limit:g}, because answers without the signals of "
            "a stage go on to the next; a larger budget is required. Raise --budget."
        )
    with_bands = [
        replace(stage, undecided=band) for stage, band in zip(stages[:-1], bands, strict=True)
    ]
    return [*with_bands, stages[-1]], measured_routing(search, bands, tested, costs, limit, seed)


def _scored(stages: Sequence[Stage], data: Labelled, rows: Int[np.ndarray, " k"]) -> Scored:
    records = [data.records[i] for i in rows]
    alone = np.stack([route((stage,), records).final for stage in stages])
    return Scored(alone, data.correct[rows], data.groups[rows])


def ready(
    spec: str, data: Labelled, skipped: Counter[str], seed: int
) -> tuple[Estimator, Int[np.ndarray, " k"]]:
    """An estimator that can score, and the rows it was fitted on; none if it does not learn.

    Raises:
        MissingFeatureError: No row that it is to be fitted or used on shows its signals.
    """
    estimator = parse_estimator(spec)
    _require_shown(spec, estimator, data)
    if not isinstance(estimator, LearnedEstimator):
        return estimator, np.empty(0, dtype=np.int64)
    among = data.parts.train
    shown, lacking = observable([data.records[i] for i in among], estimator.needs)
    skipped.update(lacking)
    if not len(shown):
        raise DataError(
            f"Estimator {spec!r} learns and none of the {len(among)} rows of the first part can be "
            "fitted on; a share for it is required. Set --fractions 0.4,0.2,0.4."
        )
    rng = np.random.default_rng(seed)
    return fit_rows(estimator, data.records, data.correct, among[shown], skipped, rng)


def named(calibrator: str) -> Calibrator:
    """The calibrator of this name.

    Raises:
        UsageError: There is none.
    """
    if calibrator not in CALIBRATORS:
        raise UsageError(
            f"Calibrator {calibrator!r} is unknown; one of {', '.join(CALIBRATORS)} is required. "
            "Choose one of them."
        )
    return CALIBRATORS[calibrator]


def _require_shown(spec: str, estimator: AnyEstimator, data: Labelled) -> None:
    used = [data.records[i] for i in (*data.parts.calibration, *data.parts.test)]
    rows, lacking = observable(used, estimator.needs)
    if not len(rows):
        why = "; ".join(f"{reason} ({n} rows)" for reason, n in lacking.most_common(3))
        missing = {f for record in used for f in record.missing(estimator.needs)}
        raise MissingFeatureError(
            f"Estimator {spec!r} can score none of {len(used)} answers: {why}; it requires these "
            f"signals. {how_to_observe(missing)}, or choose another estimator."
        )


def _calibrated(
    spec: str,
    estimator: Estimator,
    data: Labelled,
    skipped: Counter[str],
    calibrator: Calibrator,
    name: str,
) -> Calibration:
    if calibrator.needs_probability and not estimator.is_probability:
        raise UsageError(
            f"Calibrator {name} calibrates probabilities only and {spec!r} is none; one that takes "
            "any score is required. Use platt or isotonic."
        )
    among = data.parts.calibration
    shown, lacking = observable([data.records[i] for i in among], estimator.needs)
    skipped.update(lacking)
    rows, values = among[shown], np.empty(0)
    if len(rows):
        rows, values = score_rows(estimator, data.records, rows, skipped)
    if not len(rows):
        raise DataError(
            f"Estimator {spec!r} can score none of the {len(among)} answers of the calibration "
            "part; at least one is required. Use more labelled answers, or other --fractions."
        )
    return calibrator.fit(values, data.correct[rows], groups=data.groups[rows])
