"""sightline models and sightline doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from sightline.cli.options import shared_options, show_config


@click.command("models")
@click.argument("name", required=False)
@shared_options
@click.pass_context
def models_command(ctx: click.Context, /, **flags: Any) -> int:
    """List the embedded models; with a NAME, print that model's card."""
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from sightline.models.embedded import EMBEDDED, embedded_model_card

    if flags["name"] is not None:
        click.echo(embedded_model_card(flags["name"]))
        return 0
    if flags["as_json"]:
        click.echo(json.dumps([asdict(m) for m in EMBEDDED.values()], indent=1, default=str))
        return 0
    for model in EMBEDDED.values():
        click.echo(f"embedded:{model.name:10} {model.architecture}, {model.description}")
    return 0


@click.command("doctor")
@click.option("--model", "-m", envvar="SIGHTLINE_MODEL", help="Also ask what this model shows.")
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

        model = load_model(flags["model"])
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
    click.echo("signals observed: " + ", ".join(s.name for s in diagnosis.signals if s.observed))
    click.echo(
        "not observed:     " + ", ".join(s.name for s in diagnosis.signals if not s.observed)
    )
    for estimator in diagnosis.estimators:
        if estimator.missing:
            click.echo(f"  {estimator.name} cannot run: no {', '.join(estimator.missing)}")
    ready = sum(not e.missing for e in diagnosis.estimators)
    click.echo(f"{ready} of {len(diagnosis.estimators)} estimators can run on this model.")
    return 0
