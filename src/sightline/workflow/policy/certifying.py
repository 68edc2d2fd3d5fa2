"""Thresholds of calibrated stages: planned on one part, tested on another, with what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration.risk_control import (
    Guarantee,
    ThresholdTest,
    error_bound,
    learn_threshold,
    plan_thresholds,
    smallest_accepted,
)
from sightline.core.errors import UndefinedMetricError, UsageError
from sightline.core.estimates import Estimate
from sightline.core.printing import percent
from sightline.core.results import Skipped
from sightline.metrics import METRICS
from sightline.metrics.curves import reliability_bins
from sightline.metrics.intervals import auroc_estimate
from sightline.workflow.policy.categories import category_of
from sightline.workflow.policy.evidence import Evidence, Part, Promise, Routing, Target
from sightline.workflow.policy.labelled import Labelled
from sightline.workflow.policy.measuring import accepted_rows, achieved
from sightline.workflow.policy.option_sets import SetsFitter
from sightline.workflow.policy.trust import NOT_SCORED, Stage, TrustPolicy, route

BOUND_STEP = 0.001
"""Risks that a bound for groups is looked for in."""


def certified(
    stages: tuple[Stage, ...],
    data: Labelled,
    fitted_on: Int[np.ndarray, " k"],
    skipped: Mapping[str, int],
    target: Target,
    *,
    sets: SetsFitter | None,
    routing: Routing | None,
    seed: int,
) -> TrustPolicy:
    """Chooses thresholds for calibrated stages, tests them, and gathers what was seen."""
    plan, test = data.parts.calibration, data.parts.test
    confidence = np.full(len(data.records), NOT_SCORED)
    for part in (plan, test):
        confidence[part] = route(stages, [data.records[i] for i in part]).final
    promises = tuple(
        _promise(category, rows, confidence, data, target, seed)
        for category, rows in categories(data, target)
    )
    fitted_sets, sets_fit = None, None
    if sets is not None:
        fitted_sets, sets_fit = sets(data, np.random.default_rng(seed))
    evidence = _evidence(target, data, fitted_on, skipped, stages, promises, confidence)
    return TrustPolicy(stages, replace(evidence, routing=routing, sets=sets_fit), fitted_sets)


def categories(
    data: Labelled, target: Target
) -> list[tuple[str | None, tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]]]:
    """Rows of the second and third part, by category; one without a name where none is asked for.

    Raises:
        UsageError: No example has the field that thresholds are to go by.
    """
    plan, test = data.parts.calibration, data.parts.test
    if target.per_group is None:
        return [(None, (plan, test))]
    field = target.per_group
    names = [category_of(record, field) for record in data.records]
    found = sorted({names[i] for i in (*plan, *test)} - {None}, key=str)
    if not found:
        raise UsageError(
            f"No answer to calibrate or certify on has {field!r}; a field of the data set is "
            "required, question_type or an entry of its meta data. Correct --per-group, or leave "
            "it out."
        )
    pick = np.array(names, dtype=object)
    return [(name, (plan[pick[plan] == name], test[pick[test] == name])) for name in found]


def _promise(
    category: str | None,
    rows: tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]],
    confidence: Float[np.ndarray, " n"],
    data: Labelled,
    target: Target,
    seed: int,
) -> Promise:
    plan, test = rows
    units = len(np.unique(data.groups[test]))
    levels = _planned(confidence[plan], data.correct[plan], target, units)
    rng = np.random.default_rng(seed)
    if target.risk is None:
        guarantee = _bounded(levels, confidence[test], data, test, target, seed)
    elif len(levels):
        guarantee = learn_threshold(
            confidence[test],
            data.correct[test],
            levels,
            risk=target.risk,
            delta=target.delta,
            method=target.method,
            groups=data.groups[test],
            unit=target.unit,
            rng=rng,
        )
    else:
        guarantee = _nothing(target.risk, target, len(test))
    smallest = target.smallest(max(1, len(levels)))
    accepted = accepted_rows(confidence[test], guarantee.threshold)
    return Promise(
        category=category,
        guarantee=guarantee,
        smallest=smallest,
        units=units,
        achieved=achieved(accepted, data.correct[test], data.groups[test]),
        why_not=_why_not(guarantee, smallest, units, target),
    )


def _planned(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    target: Target,
    units: int,
) -> Float[np.ndarray, " k"]:
    """Thresholds to test; none where nothing could be scored."""
    if not np.any(confidence > NOT_SCORED):
        return np.empty(0)
    if target.coverage is not None:
        rank = min(len(confidence), int(np.ceil(target.coverage * len(confidence))))
        level = float(np.sort(confidence)[::-1][rank - 1])
        return np.array([max(level, float(confidence[confidence > NOT_SCORED].min()))])
    if target.risk is None:
        raise UsageError("A target needs a risk or a coverage. Give one.")
    if target.unit == "groups":
        # Plans are by the exact test of single answers, and betting takes more groups than it.
        exact = smallest_accepted(target.risk, target.delta)
        units = units * exact // smallest_accepted(target.risk, target.delta, target.unit)
    levels = plan_thresholds(
        confidence, correct, risk=target.risk, delta=target.delta, n_test=units
    )
    return levels[levels > NOT_SCORED]


def _bounded(
    levels: Float[np.ndarray, " k"],
    confidence: Float[np.ndarray, " n"],
    data: Labelled,
    test: Int[np.ndarray, " n"],
    target: Target,
    seed: int,
) -> Guarantee:
    """The smallest risk that can be certified at one threshold that was fixed beforehand."""
    if not len(levels) or not len(test):
        return _nothing(1.0, target, len(test))

    def tested(risk: float) -> Guarantee:
        return learn_threshold(
            confidence,
            data.correct[test],
            levels[:1],
            risk=risk,
            delta=target.delta,
            groups=data.groups[test],
            unit=target.unit,
            rng=np.random.default_rng(seed),
        )

    # From the largest risk down, stopping at the first that fails: nested hypotheses, so that
    # all of them together err no more often than delta.
    seen = tested(0.5).tests[0]
    bound = 1.0
    if target.unit == "groups":
        for risk in np.arange(1.0 - BOUND_STEP, 0.0, -BOUND_STEP).tolist():
            if tested(risk).threshold is None:
                break
            bound = risk
    else:
        bound = error_bound(round(seen.wrong), seen.accepted, target.delta)
    known = bound < 1.0
    p_value = target.delta if known else 1.0
    test_of = ThresholdTest(seen.threshold, seen.accepted, seen.wrong, p_value, certified=known)
    threshold = seen.threshold if known else None
    return Guarantee(
        bound, target.delta, threshold, (test_of,), len(test), target.method, target.unit
    )


def _nothing(risk: float, target: Target, n: int) -> Guarantee:
    return Guarantee(risk, target.delta, None, (), n, target.method, target.unit)


def _why_not(guarantee: Guarantee, smallest: int | None, units: int, target: Target) -> str | None:
    if guarantee.threshold is not None:
        return None
    if not guarantee.tests:
        return "none of the answers that thresholds are chosen on could be scored"
    risk = guarantee.risk
    if smallest is None:
        test = guarantee.closest
        if not test.accepted:
            return f"no answer of {units:,} groups reaches the threshold of this coverage"
        return (
            f"{test.wrong:g} of {test.accepted:,} accepted answers of {units:,} groups wrong at "
            "this coverage, which bounds no error rate below 100%"
        )
    if units < smallest:
        what = "groups" if target.unit == "groups" else "independent answers"
        return (
            f"{units:,} {what} to test on; at least {smallest:,}, all accepted and right, "
            f"are needed to certify a risk of {percent(risk)}"
        )
    closest, first, n = guarantee.closest, guarantee.tests[0], len(guarantee.tests)
    why = f"the closest of {n} thresholds" if n > 1 else "the only threshold"
    why += f" is {_shown(closest, target)}"
    if guarantee.method == "fixed_sequence" and first != closest:
        why += f", but the sequence stopped at its first, {_shown(first, target)}"
    return why


def _shown(test: ThresholdTest, target: Target) -> str:
    """A threshold with the errors seen there, and the bound that would hold for it alone."""
    seen = test.wrong / test.accepted if test.accepted else 0.0
    text = (
        f"{test.threshold:.4f}: {test.wrong:g} of {test.accepted:,} accepted answers wrong "
        f"({seen:.1%})"
    )
    if target.unit != "groups":
        bound = error_bound(round(test.wrong), test.accepted, target.delta)
        certainty = percent(1 - target.delta, 0)
        text += f", alone a risk of at most {percent(bound)} with {certainty} certainty"
    return text


def _evidence(
    target: Target,
    data: Labelled,
    fitted_on: Int[np.ndarray, " k"],
    skipped: Mapping[str, int],
    stages: Sequence[Stage],
    promises: tuple[Promise, ...],
    confidence: Float[np.ndarray, " n"],
) -> Evidence:
    test = data.parts.test
    known = test[confidence[test] > NOT_SCORED]
    seen, correct, groups = confidence[known], data.correct[known], data.groups[known]
    informative = all(stage.calibration.informative for stage in stages)
    return Evidence(
        target=target,
        fitted_on=part_of(fitted_on, data),
        calibrated_on=part_of(data.parts.calibration, data),
        certified_on=part_of(test, data),
        skipped=tuple(Skipped(reason, n) for reason, n in Counter(skipped).most_common()),
        calibration="fitted" if informative else "base rate",
        promises=promises,
        reliability=reliability_bins(seen, correct, groups) if len(known) else (),
        auroc=_auroc(seen, correct, groups),
        ece=_ece(seen, correct),
    )


def part_of(rows: Int[np.ndarray, " k"], data: Labelled) -> Part:
    """How many rows and groups these are, with right and with wrong answers."""
    correct, groups = data.correct[rows], data.groups[rows]
    of_kind = (len(np.unique(groups[correct == mark])) for mark in (1.0, 0.0))
    return Part(len(rows), len(np.unique(groups)), *of_kind)


def _auroc(
    confidence: Float[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
) -> Estimate:
    if not len(correct):
        return Estimate(None, n=0, reason="no answer could be scored")
    return auroc_estimate(confidence, correct, groups)


def _ece(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float | None:
    try:
        return float(METRICS["ece"].function(confidence, correct))
    except UndefinedMetricError:
        return None
