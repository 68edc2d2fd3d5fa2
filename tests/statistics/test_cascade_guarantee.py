"""A cascade keeps its promise and its budget: its bands are chosen before its threshold is tested.

Everything runs through the policy itself; the true risk and cost are those over all the answers.
"""

import numpy as np
import pytest

from sightline.core.types import Example, Generation, Record
from sightline.data.splits import split_groups
from sightline.estimators import ESTIMATORS
from sightline.workflow.policy.cascade import routed
from sightline.workflow.policy.evidence import Target
from sightline.workflow.policy.fitting import fit_policy
from sightline.workflow.policy.labelled import Labelled

SIMULATIONS = 1000
FEW = 50
"""Data sets outside of the long tests."""
POOL, SAMPLES, DRAWN = 6_000, 4, 1000
RISK, DELTA, BUDGET = 0.12, 0.1, 2.0
CASCADE = ["sequence_probability", "sample_agreement"]


class Population:
    """Answers whose chance of being right is known: of sure ones by the probability, of the others
    by how many samples agree."""

    def __init__(self):
        rng = np.random.default_rng(0)
        probability = rng.uniform(0.3, 0.99, POOL)
        agree = rng.integers(0, SAMPLES + 1, POOL)
        sure = probability > 0.7
        self.right = np.where(sure, 0.82 + 0.16 * probability, 0.35 + 0.14 * agree)
        self.records = [
            Record(
                Example(f"{i}", "Which?"),
                greedy=Generation("red", logprobs=np.log(probability[[i]])),
                samples=tuple(
                    Generation("red" if k < agree[i] else f"other {k}") for k in range(SAMPLES)
                ),
            )
            for i in range(POOL)
        ]
        self.uncertainty = [ESTIMATORS[name].uncertainty(self.records) for name in CASCADE]

    def drawn(self, seed):
        rng = np.random.default_rng(seed)
        rows = rng.choice(POOL, DRAWN, replace=False)
        correct = (rng.random(DRAWN) < self.right[rows]).astype(float)
        records = tuple(self.records[row] for row in rows)
        parts = split_groups([r.example.group for r in records], (0.0, 0.4, 0.6), seed=seed)
        return Labelled(records, correct, np.arange(DRAWN), parts)

    def risk_and_cost(self, policy):
        """Error rate of all that is accepted (None where nothing is), and mean cost."""
        alone = np.stack(
            [
                s.calibration.confidence(u)
                for s, u in zip(policy.stages, self.uncertainty, strict=True)
            ]
        )
        final, reached = routed(alone, (policy.stages[0].undecided,))
        cost = SAMPLES * float(reached[1].mean())
        threshold = policy.thresholds[None]
        accepted = np.zeros(POOL, dtype=bool) if threshold is None else final >= threshold
        return (float(1 - self.right[accepted].mean()) if accepted.any() else None), cost


@pytest.mark.parametrize("simulations", [FEW, pytest.param(SIMULATIONS, marks=pytest.mark.slow)])
def test_the_promised_risk_is_exceeded_at_most_at_delta_within_the_budget(simulations):
    pool, target = Population(), Target(RISK, None, DELTA)
    exceeded, certified, costs = 0, 0, []
    for seed in range(simulations):
        policy = fit_policy(CASCADE, pool.drawn(seed), target, budget=BUDGET, seed=seed)
        risk, cost = pool.risk_and_cost(policy)
        costs.append(cost)
        if risk is not None:
            certified += 1
            exceeded += risk > RISK
    assert exceeded / simulations <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / simulations)
    # It is no empty promise, and what the planning rows cost is what answers cost.
    assert certified / simulations > 0.4
    assert np.mean(costs) <= BUDGET + 0.02
    assert np.mean(costs) > 0.3
