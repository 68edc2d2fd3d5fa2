"""sightline calibrate and sightline apply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.numbers import Number, share
from sightline.cli.options import (
    given_split,
    judging_options,
    judging_settings,
    option,
    shared_options,
    show_config,
)
from sightline.core.errors import GateFailedError, UsageError
from sightline.core.printing import printable

if TYPE_CHECKING:
    from sightline.core.estimates import Estimate
    from sightline.workflow.policy import TrustPolicy
    from sightline.workflow.policy.applying import Application
    from sightline.workflow.policy.evidence import Achieved, Promise, Routing, Target


@click.command("calibrate")
@click.argument("run", type=click.Path(file_okay=False))
@click.option(
    "--estimator",
    "-e",
    help="NAME or NAME:KEY=VALUE; fusion:members=A+B joins several.",
)
@click.option(
    "--cascade",
    metavar="A -> B",
    help="In place of --estimator: two or three, from cheap to expensive; a later one looks only "
    "at what the earlier ones leave undecided.",
)
@option(
    "--budget",
    type=Number(0),
    help="Most that a cascade may cost per answer, on average: extra passes over the image and "
    "extra generated answers.  [default: no limit]",
)
@option(
    "--output-path",
    "-o",
    "output",
    required=True,
    type=click.Path(file_okay=False),
    help="Directory that receives the policy.",
)
@option(
    "--risk",
    type=share(low_open=True, high_open=True),
    help="Largest error rate among accepted answers.  [default: 0.05]",
)
@option(
    "--coverage",
    type=share(low_open=True),
    help="In place of --risk: share of answers to accept; their error rate is bounded.",
)
@option(
    "--delta",
    default=0.05,
    type=share(low_open=True, high_open=True),
    help="Chance that the promise does not hold.",
)
@option(
    "--method",
    default="fixed_sequence",
    type=click.Choice(["fixed_sequence", "bonferroni"]),
    help="How errors over all tested thresholds are held at --delta.",
)
@option(
    "--unit",
    default="one_per_group",
    type=click.Choice(["one_per_group", "groups", "rows"]),
    help="What is independent: a random row of each group, the means of groups, or every row.",
)
@option(
    "--per-group",
    metavar="FIELD",
    help="A threshold for every value of this field (question_type or meta data).",
)
@option("--calibrator", default="platt", help="temperature, platt, beta, isotonic or histogram.")
@option(
    "--sets",
    type=click.Choice(["lac", "aps", "raps"]),
    help="Also fit prediction sets over the options of multiple choice.",
)
@option(
    "--sets-level",
    default=0.9,
    type=share(low_open=True, high_open=True),
    help="Share of sets that hold the right option.",
)
@option(
    "--sets-scores",
    default="options",
    type=click.Choice(["letters", "options", "options_per_token"]),
    help="Which probabilities of the options the sets read.",
)
@option(
    "--hold-out",
    default=0.0,
    type=share(high_open=True),
    help="Share of groups kept apart to measure the finished policy on.",
)
@judging_options
@shared_options
@click.pass_context
def calibrate_command(ctx: click.Context, /, **flags: Any) -> int:
    """Fit a policy: a calibrated estimator and a threshold with a guarantee.

    Groups are split in three: to fit an estimator that learns, to calibrate, to certify
    (--fractions; 0,0.3,0.7 where nothing learns). Exit code 3: nothing could be certified; the
    policy is written all the same and abstains from every answer.

    \b
    sightline calibrate runs/a -e sequence_probability --risk 0.05 -o policies/a
    sightline apply runs/b --policy policies/a
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from sightline.api import calibrate
    from sightline.workflow.evaluate import Settings

    judging = judging_settings(flags)
    chosen = ctx.get_parameter_source("fractions") is not click.core.ParameterSource.DEFAULT
    fractions = judging.pop("fractions")
    policy = calibrate(
        flags["run"],
        _estimators(flags["estimator"], flags["cascade"]),
        flags["output"],
        risk=flags["risk"],
        coverage=flags["coverage"],
        delta=flags["delta"],
        method=flags["method"],
        unit=flags["unit"],
        per_group=flags["per_group"],
        calibrator=flags["calibrator"],
        sets=flags["sets"],
        sets_level=flags["sets_level"],
        sets_scores=flags["sets_scores"],
        fractions=fractions if chosen else None,
        hold_out=flags["hold_out"],
        budget=flags["budget"],
        settings=Settings(**judging),
        given_split=given_split(flags["split_file"]),
        judge=flags["judge"],
        announce=_say,
    )
    if flags["as_json"]:
        click.echo(json.dumps({"path": flags["output"], **_evidence(policy)}, allow_nan=False))
    else:
        for line in _policy_lines(flags["output"], policy):
            click.echo(line)
    if not policy.evidence.met:
        first = policy.evidence.promises[0]
        raise GateFailedError(
            f"Nothing could be certified ({first.why_not}); {flags['output']} abstains from every "
            "answer, its confidences hold. Label more answers, allow a larger --risk, or use a "
            "better estimator."
        )
    return 0


@click.command("apply")
@click.argument("run", type=click.Path(file_okay=False))
@option(
    "--policy",
    "-p",
    required=True,
    type=click.Path(file_okay=False),
    help="A directory that 'sightline calibrate' wrote.",
)
@click.option(
    "--unseen",
    is_flag=True,
    help="Leave out groups that the policy was fitted on, in place of refusing the run.",
)
@click.option("--ungraded", is_flag=True, help="Only decide; measure nothing.")
@click.option(
    "--output-path",
    "-o",
    "output",
    type=click.Path(dir_okay=False),
    help="Write every decision to this file, one JSON object a line.",
)
@click.option(
    "--max-risk",
    type=share(),
    help="Exit 3 unless the measured error rate among accepted answers is at most this.",
)
@option("--condition", default="clean", help="Which records are judged.")
@option(
    "--threshold",
    default=0.5,
    type=share(low_open=True),
    help="An answer is right when its correctness reaches this.",
)
@option("--grader", default="auto", help="As for evaluate.")
@click.option("--judge", help="The model behind --grader judge.")
@shared_options
@click.pass_context
def apply_command(ctx: click.Context, /, **flags: Any) -> int:
    """Decide every answer of another run by a policy; measure its risk and coverage there."""
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from sightline.api import apply_policy, load_policy
    from sightline.workflow.evaluate import Settings

    policy = load_policy(flags["policy"])
    result = apply_policy(
        flags["run"],
        policy,
        flags["output"],
        settings=Settings(
            condition=flags["condition"], threshold=flags["threshold"], grader=flags["grader"]
        ),
        unseen=flags["unseen"],
        graded=not flags["ungraded"],
        judge=flags["judge"],
        announce=_say,
    )
    if flags["as_json"]:
        click.echo(json.dumps(_application(policy, result), allow_nan=False))
    else:
        for line in _application_lines(policy, result):
            click.echo(line)
    _gate(result, flags["max_risk"])
    return 0


def _estimators(estimator: str | None, cascade: str | None) -> list[str]:
    if (estimator is None) == (cascade is None):
        raise UsageError(
            f"--estimator {estimator} and --cascade {cascade}; exactly one of them is required. "
            "For example: --estimator sequence_probability."
        )
    return [part.strip() for part in (cascade or "").split("->")] if cascade else [str(estimator)]


def _say(line: str) -> None:
    click.echo(line, err=True)


def _gate(result: Application, limit: float | None) -> None:
    risk = None if result.achieved is None else result.achieved.risk.value
    if limit is None or (risk is not None and risk <= limit):
        return
    shown = "not known" if risk is None else f"{risk:.4f}"
    raise GateFailedError(
        f"The error rate among accepted answers is {shown}; --max-risk {limit:g} is required. "
        "Calibrate a policy on answers like these, or change the gate."
    )


def _evidence(policy: TrustPolicy) -> dict[str, Any]:
    document = asdict(policy.evidence)
    if document["origin"] is not None:
        document["origin"] = {**document["origin"], "content": len(document["origin"]["content"])}
    stages = [{"name": s.name, "spec": dict(s.spec)} for s in policy.stages]
    return {"met": policy.evidence.met, "stages": stages, **document}


def _application(policy: TrustPolicy, result: Application) -> dict[str, Any]:
    accepted = sum(decision.accepted for decision in result.decisions)
    return {
        "answers": len(result.decisions),
        "accepted": accepted,
        "left_out": result.left_out,
        "promised_risk": policy.evidence.target.risk,
        "achieved": None if result.achieved is None else asdict(result.achieved),
        "by_category": {name: asdict(one) for name, one in result.by_category.items()},
    }


def _policy_lines(path: str, policy: TrustPolicy) -> Iterator[str]:
    evidence = policy.evidence
    names = " → ".join(stage.name for stage in policy.stages)
    yield (
        f"{printable(path)}: {names}, calibrated on {evidence.calibrated_on.rows:,} answers"
        + ("" if evidence.calibration == "fitted" else " (no signal: the base rate for all)")
    )
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
        sets = policy.sets.conformal
        yield (
            f"  sets       {sets.score}, hold the right option in {sets.level:.0%} of answers with "
            f"options; fitted on {sets.n:,}, one a group"
        )
    if evidence.tested is not None:
        yield from _achieved_lines("held out", evidence.tested)
    for skipped in evidence.skipped:
        yield f"  no score   {skipped.n:,} answers: {printable(skipped.reason)}"


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
        f"  promise    at most {guarantee.risk:.1%} of accepted answers wrong {unit}, with "
        f"{1 - guarantee.delta:.0%} certainty"
    )
    yield f"  threshold  confidence {guarantee.threshold:.4f}"
    yield from _achieved_lines("seen", promise.achieved)


def _achieved_lines(label: str, achieved: Achieved) -> Iterator[str]:
    yield (
        f"  {label:10} {_percent(achieved.coverage)} of {achieved.rows:,} answers "
        f"({achieved.groups:,} groups) accepted, {_percent(achieved.risk)} of these wrong; of all "
        f"{_percent(achieved.accuracy)} right"
    )
    if achieved.set_coverage is not None and achieved.set_size is not None:
        yield (
            f"  {'':10} {_percent(achieved.set_coverage)} of sets hold the right option, "
            f"{achieved.set_size:.2f} options in a set"
        )


def _application_lines(policy: TrustPolicy, result: Application) -> Iterator[str]:
    if result.left_out:
        yield f"left out   {result.left_out:,} answers of groups that the policy was fitted on"
    if result.achieved is None:
        accepted = sum(decision.accepted for decision in result.decisions)
        yield f"decided    {accepted:,} of {len(result.decisions):,} answers accepted"
        return
    yield from (line.strip() for line in _achieved_lines("measured", result.achieved))
    for name, one in result.by_category.items():
        yield from _achieved_lines(printable(name)[:10], one)
    risk, target = result.achieved.risk, policy.evidence.target.risk
    if target is None or risk.low is None:
        return
    if risk.low > target:
        yield f"The promise of {target:.1%} is broken here: these answers differ from its labels."
    else:
        yield f"That agrees with the promise of at most {target:.1%}."


def _percent(share: Estimate) -> str:
    if share.value is None:
        return f"— ({share.reason})"
    if share.low is None or share.high is None:
        return f"{share.value:.1%}"
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
