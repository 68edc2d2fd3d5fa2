"""sightline calibrate and sightline apply."""

from __future__ import annotations

import json
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
    support_options,
)
from sightline.cli.policy_lines import application_lines, policy_lines
from sightline.core.errors import GateFailedError, UsageError

if TYPE_CHECKING:
    from sightline.workflow.policy import TrustPolicy
    from sightline.workflow.policy.applying import Application


@click.command("calibrate")
@click.argument("run", type=click.Path(file_okay=False))
@click.option(
    "--estimator",
    "-e",
    help="NAME or NAME:KEY=VALUE; fusion:members=A+B joins several. Classifier runs: a score such "
    "as msp, where there are several encoders NAME[ENCODER].",
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
    help="Also fit prediction sets over the options of multiple choice, or over classes.",
)
@option(
    "--sets-level",
    default=0.9,
    type=share(low_open=True, high_open=True),
    help="Share of sets that hold the right option, or class.",
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
@support_options
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
    sightline calibrate runs/clip -e msp --sets aps -o policies/clip
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
        support=flags["support"],
        shots=flags["shots"],
        announce=_say,
    )
    if flags["as_json"]:
        click.echo(json.dumps({"path": flags["output"], **_evidence(policy)}, allow_nan=False))
    else:
        for line in policy_lines(flags["output"], policy):
            click.echo(line)
    if not policy.evidence.met:
        first = policy.evidence.promises[0]
        raise GateFailedError(
            f"Nothing could be certified ({first.why_not}); {flags['output']} abstains from every "
            "answer and gives its probability. Label more answers, allow a larger --risk, or use a "
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
        for line in application_lines(policy, result):
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
    if policy.sets is not None:
        document["sets"] = {**policy.sets.to_dict(), **(document["sets"] or {})}
    stages = [{"name": s.name, "spec": dict(s.spec)} for s in policy.stages]
    return {"met": policy.evidence.met, "stages": stages, **document}


def _application(policy: TrustPolicy, result: Application) -> dict[str, Any]:
    accepted = sum(decision.accepted for decision in result.decisions)
    promises = [
        {
            "category": promise.category,
            "risk": None if promise.guarantee.threshold is None else promise.guarantee.risk,
            "kept": result.kept.get(promise.category),
        }
        for promise in policy.evidence.promises
    ]
    return {
        "answers": len(result.decisions),
        "accepted": accepted,
        "left_out": result.left_out,
        "promised_risk": policy.evidence.target.risk,
        "promises": promises,
        "achieved": None if result.achieved is None else asdict(result.achieved),
        "by_category": {name: asdict(one) for name, one in result.by_category.items()},
    }
