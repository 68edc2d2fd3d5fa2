"""sightline derive."""

from __future__ import annotations

import json
from typing import Any

import click

from sightline.cli.display import ProgressLine, stop_on_signal
from sightline.cli.options import (
    device_options,
    loading_settings,
    option,
    shared_options,
    show_config,
)


@click.command("derive")
@click.argument("run", type=click.Path(file_okay=False))
@option("--embeddings", help="Sentence encoder of the answers: words, a directory or a hub name.")
@option("--entailment", help="Entailment model of pairs of answers: a directory or a hub name.")
@option("--importance", help="Sentence encoder that weighs the answer's tokens: as --embeddings.")
@click.option("--with-question", is_flag=True, help="Put the question before each answer.")
@click.option("--replace", is_flag=True, help="Replace what another model or setting computed.")
@device_options
@shared_options
@click.pass_context
def derive_command(ctx: click.Context, /, **flags: Any) -> int:
    """Compute signals from the answers of a run, without the model that gave them.

    The same command resumes a derivation that was stopped or killed.

    \b
    sightline derive runs/a --embeddings words --entailment ./deberta-mnli
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from sightline.api import derive

    options = loading_settings(flags)
    with ProgressLine("deriving", flags["display"]) as line, stop_on_signal() as stop:
        results = derive(
            flags["run"],
            embeddings=flags["embeddings"],
            entailment=flags["entailment"],
            importance=flags["importance"],
            with_question=flags["with_question"],
            replace=flags["replace"],
            model_options=options,
            progress=lambda kind, done, total: line.update(done, total, label=f"deriving {kind}"),
            should_stop=stop,
        )
    if flags["as_json"]:
        rows = [
            {
                "kind": result.kind.value,
                "source": dict(result.source),
                "records": result.records,
                "shards": result.shards,
                "passes": result.passes,
                "interrupted": result.interrupted,
            }
            for result in results
        ]
        click.echo(json.dumps({"path": flags["run"], "derived": rows}, indent=1))
    else:
        for result in results:
            click.echo(
                f"{result.kind.value} of {result.records} records by {result.source['name']}, "
                f"{result.passes} forward passes"
            )
    if any(result.interrupted for result in results):
        click.echo("sightline: stopped; run the same command to go on.", err=True)
        return stop.exit_code
    return 0
