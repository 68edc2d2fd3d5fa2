"""sightline models and sightline doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.display import size
from sightline.cli.groups import Group
from sightline.cli.options import (
    endpoint_options,
    endpoint_settings,
    option,
    shared_options,
    show_config,
)
from sightline.core.errors import GateFailedError
from sightline.core.printing import printable

if TYPE_CHECKING:
    from sightline.workflow.gates import SplitFigures
    from sightline.workflow.model_check import ModelCheck


@click.group(
    "models",
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def models_group(ctx: click.Context, as_json: bool) -> int:
    """List the embedded models; card prints a model's card, check measures its gates."""
    if ctx.invoked_subcommand is not None:
        return 0
    from sightline.models.embedded import EMBEDDED

    if as_json:
        click.echo(json.dumps([asdict(m) for m in EMBEDDED.values()], indent=1, default=str))
        return 0
    for model in EMBEDDED.values():
        click.echo(f"embedded:{model.name}  {model.architecture}, {size(model.size_bytes)}")
        click.echo(f"  {model.description}; {model.checkpoint}")
        click.echo(f"  gates: {model.gates}")
    return 0


@models_group.command("card")
@click.argument("name")
def card_command(name: str) -> int:
    """Print the card of an embedded model."""
    from sightline.models.embedded import embedded_model_card

    click.echo(embedded_model_card(name))
    return 0


@models_group.command("check")
@click.argument("names", nargs=-1)
@click.option(
    "-n", "count", default=2000, show_default=True, type=click.IntRange(100), help="Questions."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def check_command(names: tuple[str, ...], count: int, as_json: bool) -> int:
    """Measure the gates of embedded models, by default of all; exit 3 if one is not passed."""
    from sightline.models.embedded import EMBEDDED
    from sightline.workflow.model_check import check_models

    checks = check_models(
        names or tuple(EMBEDDED), n=count, done=_quiet if as_json else _show_check
    )
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=1))
    missed = [
        f"embedded:{check.name} misses {gate.name}"
        for check in checks
        for gate in check.gates
        if not gate.passed
    ]
    if missed:
        raise GateFailedError(
            f"{'; '.join(missed)}; every gate is required. The card of a model says what is known "
            "of it."
        )
    return 0


def _quiet(_check: ModelCheck) -> None:
    return


def _show_check(check: ModelCheck) -> None:
    from sightline.workflow.gates import SplitFigures

    click.echo(f"embedded:{check.name}")
    for figures in check.figures:
        if isinstance(figures, SplitFigures):
            _show_types(figures)
    for gate in check.gates:
        state = "passed" if gate.passed else "NOT PASSED"
        click.echo(f"  {state}: {gate.name}: {gate.measured} ({gate.required})")


def _show_types(figures: SplitFigures) -> None:
    click.echo(f"  {figures.n} questions of scenes:{figures.split}")
    click.echo(f"  {'type':16} {'n':>5} {'accuracy':>9} {'blank':>6} {'shuffled':>9} {'AUROC':>6}")
    for row in figures.types:
        ranking = "–" if row.auroc is None else f"{row.auroc:.3f}"
        click.echo(
            f"  {row.question_type:16} {row.n:5} {row.accuracy:9.3f} {row.blank:6.3f} "
            f"{row.shuffled:9.3f} {ranking:>6}"
        )


@click.command("doctor")
@option("--model", "-m", help="Also ask what this model shows.")
@endpoint_options
@shared_options
@click.pass_context
def doctor_command(ctx: click.Context, /, **flags: Any) -> int:
    """Tell what this machine and a model can give: extras, signals, estimators."""
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from sightline.workflow.doctor import examine

    model = None
    if flags["model"] is not None:
        from sightline.models import load_model

        model = load_model(flags["model"], **endpoint_settings(flags, {}))
    diagnosis = examine(model)
    if flags["as_json"]:
        click.echo(json.dumps(diagnosis.to_dict(), indent=1, default=str))
        return 0
    click.echo(f"Python {diagnosis.python}, {diagnosis.cpus} CPUs, {diagnosis.platform}")
    click.echo(f"devices: {', '.join(diagnosis.devices) or 'none (torch is not installed)'}")
    for extra in diagnosis.extras:
        state = f"missing {', '.join(extra.missing)}" if extra.missing else "installed"
        hint = f"; pip install 'sightline[{extra.name}]'" if extra.missing else ""
        click.echo(f"extra {extra.name:9} {state}{hint} ({extra.purpose})")
    if not diagnosis.signals:
        click.echo("Give --model to see which signals a model shows.")
        return 0
    click.echo(
        f"model {diagnosis.model.get('name')}: {diagnosis.seconds_per_answer:.2f} s a record"
    )
    for line in diagnosis.endpoint:
        click.echo(f"  {printable(line)}")
    shown = [signal.name for signal in diagnosis.signals if signal.observed]
    click.echo(f"signals: {', '.join(shown)}; {len(diagnosis.signals) - len(shown)} others are not")
    ready = sum(not e.missing for e in diagnosis.estimators)
    click.echo(
        f"estimators: {ready} of {len(diagnosis.estimators)} can run; --json says what each of the "
        "others lacks"
    )
    return 0
