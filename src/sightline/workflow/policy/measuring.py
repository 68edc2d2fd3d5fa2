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
from sightline.workflow.policy.evidence import Achieved
from sightline.workflow.policy.option_sets import right_option


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
    return Achieved(
        rows=len(accepted),
        groups=len(np.unique(groups)),
        coverage=proportion(accepted.astype(np.float64), groups),
        risk=_risk(correct[accepted], groups[accepted]),
        accuracy=proportion(correct, groups),
    )


def measured(
    decisions: Sequence[Decision],
    records: Sequence[Record],
    correct: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
) -> Achieved:
    """The same of decisions, with how often their prediction sets hold the right option."""
    accepted = np.array([decision.accepted for decision in decisions], dtype=bool)
    found = achieved(accepted, correct, groups)
    held, sizes, rows = [], [], []
    for row, (decision, record) in enumerate(zip(decisions, records, strict=True)):
        right = right_option(record)
        if decision.prediction_set is not None and right >= 0:
            held.append(float(record.example.letters[right] in decision.prediction_set))
            sizes.append(len(decision.prediction_set))
            rows.append(row)
    if not rows:
        return found
    return replace(
        found,
        set_coverage=proportion(np.array(held), groups[rows]),
        set_size=float(np.mean(sizes)),
    )


def _risk(correct: Float[np.ndarray, " k"], groups: Int[np.ndarray, " k"]) -> Estimate:
    if not len(correct):
        return Estimate(None, n=0, reason="no answer was accepted")
    return proportion(1.0 - correct, groups)
