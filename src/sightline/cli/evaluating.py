"""sightline evaluate and sightline report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.display import ProgressLine
from sightline.cli.numbers import share
from sightline.cli.options import (
    estimator_option,
    estimator_specs,
    given_split,
    judging_options,
    judging_settings,
    option,
    shared_options,
    show_config,
    support_options,
)
from sightline.core.errors import GateFailedError, UsageError

if TYPE_CHECKING:
    from sightline.core.results import Evaluation
    from sightline.workflow.classifying.evaluating import ClassifierSettings


@click.command("evaluate")
@click.argument("runs", nargs=-1, required=True, type=click.Path(file_okay=False))
@estimator_option("NAME or NAME:KEY=VALUE (repeatable).  [default: all that can score any answer]")
@click.option(
    "--fitted",
    multiple=True,
    type=click.Path(file_okay=False),
    help="A directory that 'sightline fit' wrote: scored beside the others (repeatable).",
)
@click.option(
    "--transfer",
    is_flag=True,
    help="Let --fitted score the run of another model than it was fitted on.",
)
@judging_options
@option(
    "--calibrator",
    default="platt",
    help="temperature, platt, beta, isotonic or histogram.",
)
@option(
    "--seeds",
    default=5,
    type=click.IntRange(1),
    help="Number of splits.",
)
@option(
    "--resamples",
    default=1000,
    type=click.IntRange(100),
    help="Bootstrap resamples.",
)
@click.option(
    "--together",
    is_flag=True,
    help="The runs are models on the same examples: adds cross-model agreement.",
)
@click.option(
    "--max-ece",
    type=share(),
    help="Exit 3 unless the best estimator's held-out ECE is at most this.",
)
@click.option(
    "--min-auroc",
    type=share(),
    help="Exit 3 unless the best estimator's held-out AUROC is at least this.",
)
@support_options
@click.option(
    "--ood",
    type=click.Path(file_okay=False),
    help="Classifier runs: also tell the pictures from those of this run, of other classes.",
)
@click.option("--top", default=15, show_default=True, help="Estimators shown in the terminal.")
@shared_options
@click.pass_context
def evaluate_command(ctx: click.Context, /, **flags: Any) -> int:
    """Score every answer of a run, calibrate the scores, measure them on held-out rows."""
    if flags["show_config"]:
        show_config(ctx)
        return 0
    if flags["together"] and len(flags["runs"]) < 2:
        raise UsageError(
            "--together with one run; runs of several models on the same examples are required. "
            "Name them all, or leave --together out."
        )
    from sightline.api import evaluate
    from sightline.workflow.evaluate import Settings

    settings = Settings(
        estimators=estimator_specs(flags["estimators"]),
        calibrator=flags["calibrator"],
        seeds=flags["seeds"],
        resamples=flags["resamples"],
        fitted=flags["fitted"],
        transfer=flags["transfer"],
        **judging_settings(flags),
    )
    evaluations = []
    for run in flags["runs"]:
        others = [other for other in flags["runs"] if other != run] if flags["together"] else []
        with ProgressLine(f"evaluating {Path(run).name}", flags["display"]) as line:

            def show(stage: str, done: int, total: int, line: ProgressLine = line) -> None:
                line.update(done, total, label=stage)

            evaluations.append(
                evaluate(
                    run,
                    settings,
                    other_runs=others,
                    given_split=given_split(flags["split_file"]),
                    judge=flags["judge"],
                    classifier=_classifier_settings(flags),
                    progress=show,
                )
            )
    if flags["as_json"]:
        documents = [asdict(evaluation) for evaluation in evaluations]
        click.echo(json.dumps(documents[0] if len(documents) == 1 else documents, allow_nan=False))
    else:
        from sightline.report.terminal import print_leaderboard

        for evaluation in evaluations:
            print_leaderboard(evaluation, top=flags["top"])
    for evaluation in evaluations:
        _gate(evaluation, flags)
    return 0


def _classifier_settings(flags: dict[str, Any]) -> ClassifierSettings | None:
    """What only the runs of zero-shot classifiers take; None where nothing was given."""
    if flags["support"] is None and flags["shots"] is None and flags["ood"] is None:
        return None
    from sightline.workflow.classifying.evaluating import ClassifierSettings

    return ClassifierSettings(
        support=None if flags["support"] is None else Path(flags["support"]),
        shots=flags["shots"],
        ood=None if flags["ood"] is None else Path(flags["ood"]),
    )


def _gate(evaluation: Evaluation, flags: dict[str, Any]) -> None:
    best = next((e for e in evaluation.estimators if not e.control), None)
    for flag, metric, sign in (("max_ece", "ece", -1.0), ("min_auroc", "auroc", 1.0)):
        limit = flags[flag]
        if limit is None:
            continue
        value = None if best is None else best.heldout[metric].value
        if value is None or sign * value < sign * limit:
            shown = "undefined" if value is None else f"{value:.4f}"
            name = "none" if best is None else best.name
            raise GateFailedError(
                f"Held-out {metric.upper()} of the best estimator ({name}) on "
                f"{evaluation.run.name} is {shown}; --{flag.replace('_', '-')} {limit} is "
                "required. Improve the model or the estimator, or change the gate."
            )


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(file_okay=False))
@option(
    "--output-path",
    "-o",
    "output",
    type=click.Path(dir_okay=False),
    help="The HTML file.  [default: evaluation/report.html of the first run]",
)
@click.option("--title", help="Heading of the page.")
@shared_options
@click.pass_context
def report_command(ctx: click.Context, /, **flags: Any) -> int:
    """Render evaluated runs as one self-contained HTML page; several runs side by side."""
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from sightline.api import write_report

    path = write_report(flags["runs"], flags["output"], title=flags["title"])
    if flags["as_json"]:
        click.echo(json.dumps({"path": str(path)}))
    else:
        click.echo(str(path))
    return 0
