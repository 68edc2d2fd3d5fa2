"""Cascades: who settles what, what it costs, what it buys."""

from dataclasses import replace

import numpy as np
import pytest
from policy_records import RNG, labelled

from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.workflow.policy import load_policy, save_policy
from sightline.workflow.policy.cascade import (
    ALL,
    Scored,
    errors_at,
    least_cost,
    measured_routing,
    routed,
    search_bands,
    stage_costs,
)
from sightline.workflow.policy.evidence import Target
from sightline.workflow.policy.fitting import fit_policy
from sightline.workflow.policy.trust import NOT_SCORED, route

SAMPLES = 4
CASCADE = ["sequence_probability", "sample_agreement"]


def told(n=1500, *, seed=0):
    """Half of the answers are easy: the probability tells; of the others only samples tell."""
    rng = RNG(seed)
    easy = rng.random(n) < 0.5
    right = rng.random(n) < np.where(easy, 0.97, 0.55)
    records = []
    for i in range(n):
        probability = rng.uniform(0.9, 0.99) if easy[i] else rng.uniform(0.3, 0.7)
        agree = rng.random(SAMPLES) < (0.9 if right[i] else 0.15)
        records.append(
            Record(
                Example(f"e{i}", "Which?", references=("red",)),
                greedy=Generation("red", logprobs=np.log([probability])),
                samples=tuple(
                    Generation("red" if a else f"other {k}") for k, a in enumerate(agree)
                ),
            )
        )
    return records, right.astype(float)


@pytest.fixture(scope="module")
def data():
    return labelled(*told())


@pytest.fixture(scope="module")
def policy(data):
    return fit_policy(CASCADE, data, Target(risk=0.1, delta=0.1), budget=2.5)


def test_routing_by_hand():
    confidence = np.array([[0.9, 0.5, 0.2, NOT_SCORED], [0.1, 0.8, NOT_SCORED, 0.7]])
    final, reached = routed(confidence, ((0.1, 0.6),))
    # The third is undecided and the second stage lacks it; the fourth goes on unscored.
    assert final.tolist() == [0.9, 0.8, NOT_SCORED, 0.7]
    assert reached.tolist() == [[True] * 4, [False, True, True, True]]
    final, reached = routed(confidence, ((0.0, 0.0),))
    assert final.tolist() == [0.9, 0.5, 0.2, 0.7]
    final, reached = routed(confidence, ((0.0, ALL),))
    assert reached.all()


def test_errors_at_a_coverage_by_hand_and_with_ties():
    confidence = np.array([0.9, 0.8, 0.8, 0.1])
    correct = np.array([1.0, 0.0, 1.0, 0.0])
    assert errors_at(confidence, correct, [0.25, 0.5, 0.75, 1.0]).tolist() == pytest.approx(
        [0.0, 0.25, 1 / 3, 0.5]
    )
    order = [2, 0, 3, 1]
    assert errors_at(confidence[order], correct[order], [0.5])[0] == 0.25


def test_costs_count_shared_signals_once(data):
    names = [*CASCADE, "lexical_similarity"]
    policy = fit_policy(names, data, Target(risk=0.2))
    assert stage_costs(policy.stages, data.records[:10]).tolist() == [0, SAMPLES, 0]


def test_every_stage_settles_what_is_outside_its_band(policy, data):
    first, _ = policy.stages
    low, high = first.undecided
    decisions = policy.decide(data.records[:300])
    alone = route((replace(first, undecided=None),), data.records[:300]).confidence
    for decision, confidence in zip(decisions, alone, strict=True):
        inside = low <= confidence < high
        assert decision.estimator == (CASCADE[1] if inside else CASCADE[0])
        assert set(decision.signals) == (set(CASCADE) if inside else {CASCADE[0]})
    assert {d.estimator for d in decisions} == set(CASCADE)


def test_the_matrix_that_is_searched_and_the_policy_route_alike(policy, data):
    records = data.records[:400]
    alone = np.stack([route((replace(s, undecided=None),), records).final for s in policy.stages])
    final, _ = routed(alone, (policy.stages[0].undecided,))
    assert final.tolist() == route(policy.stages, records).final.tolist()


def test_it_keeps_to_its_budget_and_beats_the_cheap_stage(policy):
    routing = policy.evidence.routing
    assert routing.full_cost == SAMPLES
    assert routing.cost <= 2.5 * 1.15
    assert sum(routing.settled) == pytest.approx(1.0)
    cheap, full = routing.alone.y
    assert min(routing.frontier.y) < cheap
    assert routing.frontier.x[0] == 0.0
    assert routing.frontier.y[0] == cheap
    assert routing.last_tenth.cost_before < routing.last_tenth.cost_after
    change = routing.last_tenth.change
    assert change.low <= change.value <= change.high
    assert change.value == pytest.approx(
        routing.last_tenth.risk_after - routing.last_tenth.risk_before
    )
    assert full < cheap


def test_no_budget_left_means_the_first_stage_settles_all(data):
    policy = fit_policy(CASCADE, data, Target(risk=0.3), budget=0.0)
    assert policy.evidence.routing.cost == 0.0
    assert policy.evidence.routing.settled == (1.0, 0.0)
    assert policy.evidence.routing.last_tenth is None


def test_an_undecided_answer_says_which_signals_are_still_to_observe(policy, data):
    low, high = policy.stages[0].undecided
    undecided = next(
        r
        for r, c in zip(
            data.records, route(policy.stages[:1], data.records).confidence, strict=True
        )
        if low <= c < high
    )
    (decision,) = policy.decide([replace(undecided, samples=())])
    assert decision.pending == {Feature.SAMPLES}
    assert decision.reason == "no samples"
    assert not decision.accepted
    assert decision.confidence is not None
    assert policy.decide([undecided])[0].pending == frozenset()
    assert Feature.SAMPLES not in policy.needs_of(0)
    assert Feature.SAMPLES in policy.needs_of(1)


def test_a_cascade_is_read_back_whole(policy, data, tmp_path):
    save_policy(tmp_path / "p", policy)
    back = load_policy(tmp_path / "p")
    assert back.evidence == policy.evidence
    assert back.decide(data.records[:200]) == policy.decide(data.records[:200])


def test_cascades_that_cannot_be_are_one_line(data):
    for names, match in (
        ([], "no estimator"),
        (["perplexity", "perplexity"], "different"),
        (["perplexity", "random", "answer_length", "sequence_probability"], "at most 3"),
    ):
        with pytest.raises(UsageError, match=match):
            fit_policy(names, data, Target())
    with pytest.raises(UsageError, match="a first stage that costs 4"):
        fit_policy(CASCADE[::-1], data, Target(), budget=1.0)
    with pytest.raises(UsageError, match="Budget"):
        least_cost(np.array([0.0, 1.0]), float("nan"))


@pytest.mark.parametrize("aim", [{"risk": 0.5, "coverage": None}, {"risk": None, "coverage": 1.0}])
def test_routing_is_judged_where_it_can_change_what_is_accepted(aim):
    """All answers may be accepted; a second stage that knows better still shows what it buys."""
    rng = RNG(4)
    correct = (rng.random(600) < 0.8).astype(float)
    blind, knowing = rng.random(600), 0.5 * correct + 0.4 * rng.random(600)
    scored = Scored(np.clip([blind, knowing], 0.01, 0.99), correct, np.arange(600))
    costs = np.array([0.0, 1.0])
    search = search_bands(scored, costs, **aim)
    assert search.coverage == 0.95
    routing = measured_routing(search, search.best(1.0), scored, costs, 1.0, seed=0)
    assert min(routing.frontier.y) < max(routing.frontier.y)
    assert routing.alone.y[1] < routing.alone.y[0]


def test_three_stages_are_searched_together():
    rng = RNG(3)
    correct = (rng.random(300) < 0.7).astype(float)
    confidence = np.clip(correct[None, :] * 0.4 + rng.random((3, 300)) * 0.6, 0.01, 0.99)
    search = search_bands(
        Scored(confidence, correct, np.arange(300)), np.array([0.0, 1.0, 5.0]),
        risk=None, coverage=0.6,
    )  # fmt: skip
    assert search.cost.min() == 0.0
    assert search.cost.max() == 6.0
    for budget in (0.0, 1.0, 3.0, 6.0):
        chosen = search.bands.index(search.best(budget))
        assert search.cost[chosen] <= budget + 1e-9
        assert search.errors[chosen] == search.errors[search.cost <= budget + 1e-9].min()
