"""Policies on recorded answers of real models: fitted on half of the groups, tested on the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sightline.core.errors import AntiInformativeError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.data.splits import Split, split_groups
from sightline.workflow.policy import TrustPolicy
from sightline.workflow.policy.evidence import Achieved, Target
from sightline.workflow.policy.fitting import fit_policy
from sightline.workflow.policy.labelled import Labelled
from sightline.workflow.policy.measuring import measured

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the repository")

LETTERS = "ABCDEF"


class Recorded:
    """Option scores of 26 models on one data set."""

    def __init__(self, name: str) -> None:
        with np.load(DATA / f"ensec_{name}_all26models_logits.npz", allow_pickle=False) as file:
            self.models = [str(model) for model in file["models"]]
            self.logits = file["logits"].astype(np.float64)
            self.right = file["answer_index"]
            self.names = [str(group) for group in file["group"]]
        self.groups = np.unique(self.names, return_inverse=True)[1]
        halves = split_groups(self.names, (0.5, 0.0, 0.5))
        inner = split_groups([self.names[i] for i in halves.train], (0.0, 0.3, 0.7))
        self.parts = Split(*(halves.train[p] for p in (inner.train, inner.calibration, inner.test)))
        self.rest = halves.test

    def correct(self, model: str) -> np.ndarray:
        chosen = self.logits[self.models.index(model)].argmax(axis=1)
        return np.asarray(chosen == self.right, dtype=np.float64)

    def records(self, model: str) -> tuple[Record, ...]:
        logits = self.logits[self.models.index(model)]
        logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return tuple(
            Record(
                Example(str(i), "?", choices=tuple(LETTERS), group=group),
                greedy=Generation(LETTERS[int(own.argmax())]),
                features={Feature.LETTER_LOGPROBS: own},
            )
            for i, (own, group) in enumerate(zip(logprobs, self.names, strict=True))
        )

    def tried(self, model: str, risk: float) -> tuple[TrustPolicy, Achieved] | None:
        """The policy and what it achieves on the other half; None for a score that is refused."""
        records, correct = self.records(model), self.correct(model)
        data = Labelled(records, correct, self.groups, self.parts)
        try:
            policy = fit_policy(["choice_max_probability"], data, Target(risk))
        except AntiInformativeError:
            return None
        rest = [records[i] for i in self.rest]
        found = measured(policy.decide(rest), rest, correct[self.rest], self.groups[self.rest])
        return policy, found


@pytest.fixture(scope="module", params=["oodcv", "mmbench"])
def recorded(request):
    return Recorded(request.param)


def test_no_promise_is_visibly_broken_on_the_other_half(recorded):
    """26 models at a risk of .2: at δ = .05 one or two may exceed it, none by far."""
    exceeded, certified = 0, 0
    for model in recorded.models:
        tried = recorded.tried(model, 0.2)
        if tried is None or not tried[0].evidence.met:
            continue
        certified += 1
        risk = tried[1].group_risk
        exceeded += risk.value > 0.2
        assert risk.low <= 0.2, model
    assert certified >= 5
    assert exceeded <= 4


def test_a_model_whose_confidence_says_nothing_gets_no_more_than_its_error_rate_allows():
    oodcv = Recorded("oodcv")
    bare = 1 - oodcv.correct("Monkey").mean()
    assert bare > 0.8
    for risk in (0.05, 0.1, 0.2, 0.4):
        tried = oodcv.tried("Monkey", risk)
        assert tried is None or tried[1].coverage.value == 0.0
