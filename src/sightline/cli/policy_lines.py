"""Policies in lines for a terminal: what one promises, and what it did on another run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sightline.core.printing import percent, printable

if TYPE_CHECKING:
    from sightline.calibration.conformal import ConformalSets
    from sightline.core.estimates import Estimate
    from sightline.workflow.policy import TrustPolicy
    from sightline.workflow.policy.applying import Application
    from sightline.workflow.policy.evidence import Achieved, Promise, Routing, SetsFit, Target


def policy_lines(path: str, policy: TrustPolicy) -> Iterator[str]:
    """What a policy was fitted on, promises and achieved."""
    evidence = policy.evidence
    names = " → ".join(stage.name for stage in policy.stages)
    yield (
        f"{printable(path)}: {names}, calibrated on {evidence.calibrated_on.rows:,} answers of "
        f"{evidence.calibrated_on.groups:,} groups"
        + ("" if evidence.calibration == "fitted" else " (no signal: the base rate for all)")
    )
    origin = evidence.origin
    if origin is not None and origin.classifier is not None and origin.classifier.support:
        learned = origin.classifier
        few, most = learned.shots
        shots = f"{most:,}" if few == most else f"{few:,} to {most:,}"
        yield (
            f"  support    {learned.pictures:,} pictures of {printable(str(learned.support))}, "
            f"{shots} of every class: its first draw"
        )
    for part, what in (
        (evidence.fitted_on, "the estimator"),
        (evidence.calibrated_on, "probabilities"),
    ):
        if part.few is not None:
            yield f"  loose      {what}: {part.few} to fit on"
    for promise in evidence.promises:
        yield from _promise_lines(promise, evidence.target)
    missed = sum(promise.guarantee.threshold is None for promise in evidence.promises)
    if 0 < missed < len(evidence.promises):
        yield (
            f"  abstains   from every answer of {missed} of {len(evidence.promises)} categories, "
            "for which nothing could be certified"
        )
    if evidence.routing is not None:
        yield from _routing_lines(evidence.routing, policy)
    if policy.sets is not None:
        yield from _sets_lines(policy, policy.sets.conformal, evidence.sets)
    if evidence.tested is not None:
        yield from achieved_lines("held out", evidence.tested, member=_member(policy))
    for skipped in evidence.skipped:
        yield f"  no score   {skipped.n:,} answers: {printable(skipped.reason)}"


def _member(policy: TrustPolicy) -> tuple[str, str]:
    """What prediction sets hold: one of it, and several."""
    return ("class", "classes") if policy.of_pictures else ("option", "options")


def _sets_lines(policy: TrustPolicy, sets: ConformalSets, fit: SetsFit | None) -> Iterator[str]:
    found, (one, several) = sets.coverage, _member(policy)
    among = "pictures" if policy.of_pictures else "answers with options"
    if found.low is not None and found.high is not None:
        yield (
            f"  sets       {sets.score}, hold the right {one} in {percent(sets.level, 0)} of "
            f"{among} on average over fits; fitted on {sets.n:,}, one a group, this "
            f"fit does in {percent(found.low)} to {percent(found.high)} with 95% certainty, or "
            f"more, as the likeliest {one} is in every set"
        )
    if fit is not None:
        none = ": they leave nothing out" if fit.size == fit.options else ""
        options = f"{fit.options:.2f}".removesuffix(".00")
        yield f"  {'':10} {fit.size:.2f} of {options} {several} in a set{none}"


def _routing_lines(routing: Routing, policy: TrustPolicy) -> Iterator[str]:
    shares = ", ".join(
        f"{stage.name} settles {share:.0%}"
        for stage, share in zip(policy.stages, routing.settled, strict=True)
    )
    yield f"  cascade    {shares}"
    yield (
        f"  cost       {routing.cost:.2f} passes and generations per answer, of "
        f"{routing.full_cost:g} if every stage looked at every answer"
    )
    at = f"at coverage {routing.coverage:.0%}"
    yield f"  frontier   cost → error rate {at}, on the answers certified on"
    for cost, risk in zip(routing.frontier.x, routing.frontier.y, strict=True):
        yield f"             {cost:6.2f}   {risk:.1%}"
    for stage, cost, risk in zip(policy.stages, routing.alone.x, routing.alone.y, strict=True):
        yield f"             {cost:6.2f}   {risk:.1%}   {stage.name} alone, on every answer"
    last = routing.last_tenth
    if last is not None:
        yield (
            f"  last tenth from cost {last.cost_before:.2f} to {last.cost_after:.2f} the error "
            f"rate {at} goes from {last.risk_before:.1%} to {last.risk_after:.1%}, a change of "
            f"{_percent(last.change)}"
        )


def _promise_lines(promise: Promise, target: Target) -> Iterator[str]:
    guarantee = promise.guarantee
    if promise.category is not None:
        yield f"  {target.per_group} {printable(promise.category)}"
    if guarantee.threshold is None:
        yield f"  promise    none: {promise.why_not}"
        return
    unit = "for a new answer" if guarantee.unit == "rows" else "for a random answer of a new group"
    yield (
        f"  promise    at most {percent(guarantee.risk)} of accepted answers wrong {unit}, with "
        f"{percent(1 - guarantee.delta, 0)} certainty"
    )
    yield f"  threshold  confidence {guarantee.threshold:.4f}"
    yield from achieved_lines("seen", promise.achieved)


def achieved_lines(
    label: str, achieved: Achieved, *, member: tuple[str, str] = ("option", "options")
) -> Iterator[str]:
    """Coverage, risk and sets on some answers."""
    wrong = "none"
    if achieved.risk.value is not None:
        wrong = f"{_percent(achieved.risk)} of these wrong"
        by_group = achieved.group_risk
        if by_group is not None and _percent(by_group) != _percent(achieved.risk):
            wrong += f", {_percent(by_group)} where every group counts once"
    yield (
        f"  {label:10} {_percent(achieved.coverage)} of {achieved.rows:,} answers "
        f"({achieved.groups:,} groups) accepted, {wrong}; of all {_percent(achieved.accuracy)} "
        "right"
    )
    if achieved.set_coverage is not None and achieved.set_size is not None:
        yield (
            f"  {'':10} {_percent(achieved.set_coverage)} of sets hold the right {member[0]}, "
            f"{achieved.set_size:.2f} {member[1]} in a set"
        )


def application_lines(policy: TrustPolicy, result: Application) -> Iterator[str]:
    """How a policy did on another run, and whether its promises held there."""
    if result.left_out:
        yield f"left out   {result.left_out:,} answers of groups that the policy was fitted on"
    if result.achieved is None:
        accepted = sum(decision.accepted for decision in result.decisions)
        yield f"decided    {accepted:,} of {len(result.decisions):,} answers accepted"
        return
    member = _member(policy)
    whole = achieved_lines("measured", result.achieved, member=member)
    yield from (line.strip() for line in whole)
    for name, one in result.by_category.items():
        yield from achieved_lines(printable(name), one, member=member)
    for promise in policy.evidence.promises:
        if promise.category in result.kept:
            yield _verdict(promise, result.kept[promise.category], policy.evidence.target.per_group)


def _verdict(promise: Promise, kept: bool | None, field: str | None) -> str:
    of = "" if promise.category is None else f" for {field} {printable(promise.category)}"
    named = f"the promise of at most {percent(promise.guarantee.risk)} wrong{of}"
    if kept is None:
        return f"Whether {named} holds here cannot be told: it lies within the interval."
    if kept:
        return f"That agrees with {named}."
    return f"That breaks {named}: these answers differ from its labels."


def _percent(share: Estimate) -> str:
    if share.value is None:
        return f"— ({share.reason})"
    if share.low is None or share.high is None:
        return percent(share.value)
    return f"{percent(share.value)} [{percent(share.low)}, {percent(share.high)}]"
