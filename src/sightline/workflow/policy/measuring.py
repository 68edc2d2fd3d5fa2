"""How a policy does on labelled answers: coverage, risk and sets, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.estimates import Estimate
from sightline.core.types import Record
from sightline.metrics.intervals import proportion
from sightline.workflow.policy.decision import Decision
from sightline.workflow.policy.evidence import Achieved, Promise
from sightline.workflow.policy.option_sets import right_member


def accepted_rows(
    confidence: Float[np.ndarray, " n"], threshold: float | None
) -> Bool[np.ndarray, " n"]:
    """Which confidences a threshold accepts; none where there is no threshold."""
    if threshold is None:
        return np.zeros(len(confidence), dtype=bool)
    return np.asarray(confidence >= threshold)


def achieved(
    accepted: Bool[np.ndarray, " n"],
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
) -> Achieved:
    """Coverage and selective risk with intervals that allow for groups."""
    index = np.unique(groups, return_inverse=True)[1]
    each = 1.0 / np.bincount(index)[index]
    return Achieved(
        rows=len(accepted),
        groups=len(np.unique(groups)),
        coverage=proportion(accepted.astype(np.float64), groups),
        risk=_risk(correct[accepted], groups[accepted]),
        accuracy=proportion(correct, groups),
        group_risk=_risk(correct[accepted], groups[accepted], each[accepted]),
    )


def measured(
    decisions: Sequence[Decision],
    records: Sequence[Record],
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
) -> Achieved:
    """The same of decisions, with how often their prediction sets hold what is right."""
    accepted = np.array([decision.accepted for decision in decisions], dtype=bool)
    found = achieved(accepted, correct, groups)
    held, sizes, rows = [], [], []
    for row, (decision, record) in enumerate(zip(decisions, records, strict=True)):
        right = right_member(record)
        if decision.prediction_set is not None and right is not None:
            held.append(float(right in decision.prediction_set))
            sizes.append(len(decision.prediction_set))
            rows.append(row)
    if not rows:
        return found
    return replace(
        found,
        set_coverage=proportion(np.array(held), groups[rows]),
        set_size=float(np.mean(sizes)),
    )


def kept(promise: Promise, achieved: Achieved) -> bool | None:
    """Whether a promise held on answers that had no part in it.

    Returns:
        True where the whole interval of the error rate that it bounds lies within it, False where
        none of it does; None where that cannot be told.
    """
    risk = achieved.risk if promise.guarantee.unit == "rows" else achieved.group_risk
    if promise.guarantee.threshold is None or risk is None or risk.low is None:
        return None
    if risk.low > promise.guarantee.risk:
        return False
    return True if risk.high is not None and risk.high <= promise.guarantee.risk else None


def _risk(
    correct: Float[np.ndarray, " k"],
    groups: Int[np.ndarray, " k"],
    weights: Float[np.ndarray, " k"] | None = None,
) -> Estimate:
    if not len(correct):
        return Estimate(None, n=0, reason="no answer was accepted")
    return proportion(1.0 - correct, groups, weights=weights)
