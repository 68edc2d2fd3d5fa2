"""A classifier's policy keeps its promise, and its sets theirs, where the truth is known.

Pictures are vectors whose true distribution over classes is known; a data set draws whole groups
of them and a label for each. Everything runs through the policy itself.
"""

import numpy as np
import pytest

from sightline.core.types import Example, Generation, Record
from sightline.data.splits import split_groups
from sightline.workflow.classifying.scoring import SIMPLE, AppliedScore, Drawn
from sightline.workflow.policy.evidence import Target
from sightline.workflow.policy.labelled import Labelled, SetsTarget
from sightline.workflow.policy.pictures import Pictures
from sightline.zeroshot import ClassifierOutputs, ClassTexts, parse_score, score

SIMULATIONS = 300
FEW = 80
"""Data sets outside of the long tests."""
POOL = 3_000
PER_GROUP = 3
GROUPS = 600
CLASSES = 6
RISK, DELTA, LEVEL = 0.25, 0.1, 0.8


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Sample:
    """Pictures as `Embedded` has them, their vectors in memory."""

    def __init__(self, texts, image, labels, records):
        self.texts, self.image, self.labels, self.records = texts, image, labels, records

    def __len__(self):
        return len(self.labels)

    def parts(self, encoder):
        yield ClassifierOutputs(self.texts, self.image)


class Population:
    """Groups of three alike pictures; the classifier is overconfident."""

    def __init__(self):
        rng = np.random.default_rng(0)
        names = tuple(f"class {i}" for i in range(CLASSES))
        self.texts = ClassTexts(names, unit(rng.normal(size=(CLASSES, 8))), logit_scale=8.0)
        near = np.repeat(rng.normal(size=(POOL, 8)), PER_GROUP, axis=0)
        self.image = unit(near + 0.4 * rng.normal(size=near.shape))
        logits = 8.0 * self.image.astype(np.float64) @ self.texts.vectors.T
        self.label = logits.argmax(axis=1)
        true = np.exp(0.6 * (logits - logits.max(axis=1, keepdims=True)))
        self.true = true / true.sum(axis=1, keepdims=True)
        self.right = self.true[np.arange(len(true)), self.label]
        fitted = parse_score("msp").fit(self.texts, None, rng)
        self.applied = AppliedScore(
            self.texts, fitted, parse_score("msp").traits, "msp" in SIMPLE, None
        )
        self.scored = score(fitted, ClassifierOutputs(self.texts, self.image))
        self.records = [
            Record(
                Example(f"{i}", "Which?", group=f"{i // PER_GROUP}"),
                greedy=Generation(names[label]),
            )
            for i, label in enumerate(self.label)
        ]

    def fitted(self, seed, target, sets=None):
        """A policy on a draw of groups, whose pictures share half of their luck."""
        rng = np.random.default_rng(seed)
        chosen = rng.choice(POOL, GROUPS, replace=False)
        rows = (chosen[:, None] * PER_GROUP + np.arange(PER_GROUP)).ravel()
        groups = np.repeat(np.arange(GROUPS), PER_GROUP)
        luck = np.where(rng.random(len(rows)) < 0.5, rng.random(GROUPS)[groups],
                        rng.random(len(rows)))  # fmt: skip
        cumulated = self.true[rows].cumsum(axis=1)
        labels = (luck[:, None] > cumulated[:, :-1]).sum(axis=1)
        records = tuple(self.records[row] for row in rows)
        seen = Sample(self.texts, self.image[rows], labels, records)
        result = type(self.scored)(self.scored.label[rows], self.scored.uncertainty[rows])
        drawn = Drawn("msp", self.applied, {"name": "msp"}, [result], 0.0)
        parts = split_groups([r.example.group for r in records], (0.0, 0.4, 0.6), seed=seed)
        correct = (labels == self.label[rows]).astype(float)
        return Pictures(seen, drawn, None).fit(
            Labelled(records, correct, groups, parts), target,
            calibrator="platt", sets=sets, seed=seed,
        )  # fmt: skip

    def risk(self, policy, category=None):
        """Error rate of a random accepted picture of the population; None where none is."""
        threshold = policy.thresholds[category]
        if threshold is None:
            return None
        (stage,) = policy.stages
        accepted = stage.calibration.confidence(self.scored.uncertainty) >= threshold
        if category is not None:
            accepted &= self.label == self.texts.classes.index(category)
        return float(1 - self.right[accepted].mean()) if accepted.any() else None

    def coverage(self, policy):
        """How often its sets hold the right class of a random picture."""
        logits = 8.0 * self.image @ self.texts.vectors.T
        p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        inside = policy.sets.conformal.sets(p / p.sum(axis=1, keepdims=True))
        return float((self.true * inside).sum(axis=1).mean())


@pytest.fixture(scope="module")
def population():
    return Population()


def noise(share, simulations):
    """Three standard errors of a share over the simulations."""
    return 3 * np.sqrt(share * (1 - share) / simulations)


LONG = pytest.param("one_per_group", SIMULATIONS, marks=pytest.mark.slow)
GROUPED = pytest.param("groups", SIMULATIONS, marks=pytest.mark.slow)


@pytest.mark.parametrize(("unit_of", "simulations"), [("one_per_group", FEW), LONG, GROUPED])
def test_the_promised_risk_is_exceeded_at_most_at_delta(population, unit_of, simulations):
    exceeded = certified = 0
    for seed in range(simulations):
        risk = population.risk(population.fitted(seed, Target(RISK, None, DELTA, unit=unit_of)))
        if risk is not None:
            certified += 1
            exceeded += risk > RISK
    assert exceeded / simulations <= DELTA + noise(DELTA, simulations)
    # It is no empty promise.
    assert certified / simulations > 0.3


@pytest.mark.slow
def test_every_named_class_keeps_its_own_promise(population):
    target = Target(0.4, None, DELTA, per_group="predicted_class")
    exceeded, certified = np.zeros(CLASSES), np.zeros(CLASSES)
    for seed in range(SIMULATIONS):
        policy = population.fitted(seed, target)
        for at, name in enumerate(population.texts.classes):
            risk = population.risk(policy, name)
            if risk is not None:
                certified[at] += 1
                exceeded[at] += risk > 0.4
    assert (exceeded / SIMULATIONS <= DELTA + noise(DELTA, SIMULATIONS)).all()
    assert certified.max() / SIMULATIONS > 0.3


@pytest.mark.parametrize(
    ("kind", "simulations"),
    [
        ("lac", FEW),
        *(pytest.param(k, SIMULATIONS, marks=pytest.mark.slow) for k in ("lac", "aps", "raps")),
    ],
)
def test_sets_hold_the_right_class_as_often_and_as_surely_as_they_say(
    population, kind, simulations
):
    fits = [
        population.fitted(seed, Target(None, 0.5, DELTA), SetsTarget(kind=kind, level=LEVEL))
        for seed in range(simulations)
    ]
    covered = np.array([population.coverage(policy) for policy in fits])
    said = fits[0].evidence.sets.coverage
    assert {policy.sets.conformal.n for policy in fits} == {round(0.6 * GROUPS)}
    error = 3 * covered.std() / np.sqrt(simulations)
    assert covered.mean() >= LEVEL - error
    assert np.mean(covered < said.low) <= 0.025 + noise(0.025, simulations)
    if kind == "lac":
        # Hardly a score ties, so that the other end holds too.
        assert np.mean(covered > said.high) <= 0.025 + noise(0.025, simulations)
        assert covered.mean() <= said.value + error + 0.01
