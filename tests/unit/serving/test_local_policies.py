"""Policies before a local model: why, by which category and in which set an answer stands."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Running, running
from upstreams import upstream

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "policy"))

from policy_records import answer, answers, choices, labelled, right_at

from sightline.core.protocols import Request
from sightline.core.types import Record
from sightline.serving.forwarding import Served
from sightline.serving.judging import PolicyJudge
from sightline.serving.server import Settings, proxy_of
from sightline.serving.shared import Server
from sightline.workflow.policy import TrustPolicy
from sightline.workflow.policy.evidence import Target
from sightline.workflow.policy.fitting import fit_policy
from sightline.workflow.policy.labelled import SetsTarget

ASKED = Request(max_new_tokens=8, top_k_logprobs=0)


def judge_of(policy: TrustPolicy, request: Request = ASKED) -> PolicyJudge:
    return PolicyJudge(policy, "0", (policy.observed_by(request, 0),))


def fitted(
    records: Sequence[Record], target: Target, correct: Sequence[float] | None = None
) -> PolicyJudge:
    """A policy on the answer's probability."""
    known = right_at(records) if correct is None else correct
    return judge_of(fit_policy(["sequence_probability"], labelled(records, known), target))


def trust_of(server: Running, **fields: Any) -> dict[str, Any]:
    status, document, _ = server.chat(**fields)
    assert status == 200, document
    return dict(document["choices"][0]["trust"])


def by_type() -> PolicyJudge:
    """Thresholds for the types a and b."""
    return fitted(answers(1200), Target(risk=0.35, per_group="question_type"))


def by_meta() -> PolicyJudge:
    """Thresholds for the difficulties easy and hard."""
    rng = np.random.default_rng(0)
    records = [
        answer(f"e{i}", p, meta={"difficulty": ("easy", "hard")[i % 2]})
        for i, p in enumerate(rng.uniform(0.01, 0.99, 1200))
    ]
    return fitted(records, Target(risk=0.35, per_group="difficulty"))


@pytest.fixture(scope="module", params=["local", "proxy"])
def typed(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A server of a policy with a threshold for every type of question."""
    judge = by_type()
    if request.param == "local":
        with running(judge=judge, has_policy=True) as found:
            yield found
        return
    with upstream() as behind:
        asked = Settings("m", upstream=behind.url)
        backend = proxy_of(asked, Served("m", frozenset({"m"})), judge, None)
        with running(server=Server(backend=backend, has_policy=True)) as found:
            yield found


@pytest.mark.parametrize("category", ["a", "b"])
def test_a_category_has_its_own_threshold(typed: Running, category: str) -> None:
    policy = typed.call("/v1/models")[1]["data"][0]["policy"]
    assert policy["per_group"] == "question_type"
    trust = trust_of(typed, question="ok", trust={"category": category})
    assert trust["category"] == category
    assert trust["threshold"] == policy["thresholds"][category] is not None
    assert trust["abstain"] is (trust["confidence"] < trust["threshold"])
    assert trust["reason"].startswith(f"confidence {trust['confidence']:.4f} ")
    assert trust["warnings"] == []


def test_without_a_category_that_is_known_the_policy_abstains_and_says_why(typed: Running) -> None:
    for fields, reason in (
        (
            {},
            "the question has no question_type, which the threshold goes by; name it in "
            "trust.category",
        ),
        ({"trust": {"category": "z"}}, "question_type 'z' was not among the labelled answers"),
    ):
        trust = trust_of(typed, question="ok", **fields)
        assert (trust["abstain"], trust["threshold"], trust["reason"]) == (True, None, reason)
        assert 0 < trust["confidence"] < 1
        refused = {"trust": {**fields.get("trust", {}), "abstain_mode": "refuse"}}
        message = typed.chat("ok", **refused)[1]["choices"][0]["message"]
        assert message == {
            "role": "assistant",
            "content": None,
            "refusal": f"Abstained: {reason}.",
        }


def test_a_category_rides_on_streams_and_decisions(typed: Running) -> None:
    _, data, _ = typed.chat("ok", stream=True, trust={"category": "b"})
    events = [json.loads(line[6:]) for line in data.decode().split("\n\n")[:-2]]
    (trust,) = [c["trust"] for event in events for c in event["choices"] if "trust" in c]
    assert (trust["category"], trust["threshold"] is None) == ("b", False)
    questions = [{"type": "predicate", "instructions": "Is it?"}]
    asked = {"input": "ok", "questions": questions, "trust": {"category": "b"}}
    status, document, _ = typed.call("/v1/decisions", asked)
    assert status == 200
    assert document["answers"][0]["trust"]["category"] == "b"


def test_a_category_may_be_any_field_of_the_labelled_data() -> None:
    with running(judge=by_meta(), has_policy=True) as server:
        trust = trust_of(server, trust={"category": "hard"})
        assert (trust["category"], trust["threshold"] is None) == ("hard", False)
        assert trust_of(server)["reason"].startswith("the question has no difficulty")


def test_a_category_that_nothing_goes_by_is_said_to_be_unused() -> None:
    plain = fitted(answers(900), Target(risk=0.3))
    for judge in (plain, None):
        with running(judge=judge, has_policy=judge is not None) as server:
            trust = trust_of(server, trust={"category": "a"})
            assert trust["category"] is None
            assert "trust.category is not used: no threshold goes by it" in trust["warnings"]


def test_the_reason_of_every_decision_is_served() -> None:
    sure = fitted(answers(900), Target(risk=0.3))
    none = fitted(answers(60), Target(), [0.0, 1.0] * 30)
    with running(judge=sure, has_policy=True) as server:
        trust = trust_of(server)
        word = "is below" if trust["abstain"] else "reaches"
        said = f"confidence {trust['confidence']:.4f} {word} the threshold {trust['threshold']:.4f}"
        assert trust["reason"] == said
        sampled = trust_of(server, temperature=1.0)
        assert sampled["reason"] == sampled["warnings"][0]
        assert sampled["reason"].startswith("sampled answer")
    with running(judge=none, has_policy=True, mode="refuse") as server:
        reason = "no threshold is certified: the policy abstains from every answer"
        assert trust_of(server)["reason"] == reason
        message = server.chat()[1]["choices"][0]["message"]
        assert message["refusal"] == f"Abstained: {reason}."
    with running() as server:
        assert trust_of(server)["reason"] is None


def with_sets() -> PolicyJudge:
    """Prediction sets over options."""
    records, correct = choices(600)
    data = labelled(records, correct)
    policy = fit_policy(["option_margin"], data, Target(risk=0.4), sets=SetsTarget(level=0.85))
    return judge_of(policy, replace(ASKED, options=True))


def test_prediction_sets_are_served() -> None:
    with running(judge=with_sets(), has_policy=True) as server:
        assert server.call("/v1/models")[1]["data"][0]["policy"]["sets_level"] == 0.85
        options = ["red", "green", "blue", "white"]
        trust = trust_of(server, trust={"choices": options})
        held = trust["prediction_set"]
        assert held
        assert held == sorted(set(held) & set("ABCD"))
        assert trust_of(server)["prediction_set"] is None  # a free answer has no options


FEW = [1.0, 0.0, 1.0]
DEGENERATE = {
    "all right": (answers(300), [1.0] * 300),
    "all wrong": (answers(300), [0.0] * 300),
    "three": (answers(3), FEW),
    "constant": ([answer(f"e{i}", 0.5) for i in range(300)], FEW * 100),
}


@pytest.mark.parametrize("labels", DEGENERATE)
def test_51_policies_of_labels_that_tell_nothing_are_served(labels: str) -> None:
    records, correct = DEGENERATE[labels]
    judge = fitted(records, Target(risk=0.3), correct)
    with running(judge=judge, has_policy=True) as server:
        policy = server.call("/v1/models")[1]["data"][0]["policy"]
        numbers = [policy["auroc"], policy["ece"], *policy["thresholds"].values()]
        assert all(one is None or math.isfinite(one) for one in numbers)
        if labels.startswith("all"):
            assert policy["auroc"] is None  # one class
        trusts = [trust_of(server, question=f"Question {i}?") for i in range(5)]
        # A score that tells nothing gives every answer the base rate.
        (confidence,) = {trust["confidence"] for trust in trusts}
        assert 0 < confidence < 1
        certified = labels == "all right"
        assert policy["certified"] is certified
        assert {trust["abstain"] for trust in trusts} == {not certified}
        assert all(trust["reason"] for trust in trusts)


def test_what_was_tested_is_counted_in_its_unit() -> None:
    records = answers(900, per_group=3)
    for unit, units in (("one_per_group", 210), ("groups", 210)):
        judge = fitted(records, Target(risk=0.4, unit=unit))  # type: ignore[arg-type]
        said = judge.describe()
        assert (said["unit"], said["units"], said["labelled"]) == (unit, units, 630)
    judge = fitted(answers(900), Target(risk=0.4, unit="rows"))
    assert (judge.describe()["units"], judge.describe()["labelled"]) == (630, 630)
