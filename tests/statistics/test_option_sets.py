"""Prediction sets of the policy hold the right option at their rate, and as surely as they say."""

import numpy as np
import pytest

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.workflow.policy.option_sets import fit_option_sets

SIMULATIONS = 400
POOL = 2_500
GROUPS = 25
LEVEL = 0.8


class Population:
    """Groups of one to six questions of two to six options that are alike hard, their options'
    scores off by an unlike heat, and as many free questions, which have no sets."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.size = rng.choice([1, 2, 6], POOL, p=[0.5, 0.3, 0.2])
        self.groups = np.repeat(np.arange(POOL), self.size)
        heat = rng.choice([0.3, 1.0, 3.0], POOL)
        self.records = [self.question(rng, i, heat[g]) for i, g in enumerate(self.groups)]
        self.start = np.concatenate([[0], np.cumsum(self.size)])
        self.right = ["ABCDEF".index(record.example.references[0]) for record in self.records]
        self.said = np.zeros((len(self.records), 6))
        for own, record in zip(self.said, self.records, strict=True):
            logprobs = record.features[Feature.OPTION_LOGPROBS]
            own[: len(logprobs)] = np.exp(logprobs)

    def question(self, rng, name, heat):
        count = int(rng.choice([2, 4, 6]))
        logits = rng.normal(size=count) * 2
        right = "ABCDEF"[rng.choice(count, p=np.exp(logits) / np.exp(logits).sum())]
        said = logits * heat
        return Record(
            Example(f"{name}", "Which?", choices=tuple("uvwxyz"[:count]), references=(right,)),
            greedy=Generation("A", logprobs=np.array([-0.1])),
            features={Feature.OPTION_LOGPROBS: said - np.log(np.exp(said).sum())},
        )

    def fitted(self, seed, kind):
        rng = np.random.default_rng(seed)
        chosen = rng.choice(POOL, GROUPS, replace=False)
        rows = np.concatenate([np.arange(self.start[g], self.start[g + 1]) for g in chosen])
        free = [Record(Example(f"free {g}", "What?"), greedy=Generation("red")) for g in chosen]
        return fit_option_sets(
            [*(self.records[row] for row in rows), *free],
            np.concatenate([self.groups[rows], chosen]),
            scores="options",
            level=LEVEL,
            score=kind,
            rng=rng,
        )

    def coverage(self, sets):
        """Of a random question of a new group."""
        held = sets.conformal.sets(self.said)[np.arange(len(self.said)), self.right]
        return float(np.average(held, weights=1 / self.size[self.groups]))


@pytest.mark.parametrize("kind", ["lac", "aps", "raps"])
def test_sets_cover_a_random_question_of_a_new_group(kind):
    pool = Population()
    fits = [pool.fitted(seed, kind) for seed in range(SIMULATIONS)]
    covered = np.array([pool.coverage(sets) for sets in fits])
    said = fits[0].conformal.coverage
    assert {sets.conformal.n for sets in fits} == {GROUPS}
    error = 3 * covered.std() / np.sqrt(SIMULATIONS)
    assert covered.mean() >= LEVEL - error
    # How far a single fit may lie below: at most one in forty.
    assert np.mean(covered < said.low) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / SIMULATIONS)
    if kind == "lac":
        # Hardly a score ties, so that the other end holds too, and sets are no larger than needed.
        assert np.mean(covered > said.high) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / SIMULATIONS)
        assert covered.mean() <= said.value + error + 0.02
