"""sightline import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sightline.cli.options import option, shared_options, show_config
from sightline.core.errors import UsageError


@click.command("import")
@click.argument("source", type=click.Path(dir_okay=False), required=False)
@option(
    "--output-path",
    "-o",
    "output",
    type=click.Path(file_okay=False),
    default="runs",
    help="Folder that receives one run directory per model.",
)
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    help="auto, or the name of a reader ('sightline import --formats' lists them).",
)
@click.option("--formats", is_flag=True, help="List the readers and what they read.")
@click.option(
    "--labels",
    type=click.Path(dir_okay=False),
    help="A file written by 'runs export --to-label', filled in.",
)
@click.option(
    "--run",
    "run",
    type=click.Path(file_okay=False),
    help="With --labels: the run the labels are for.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing runs of the same name.")
@shared_options
@click.pass_context
def import_command(ctx: click.Context, /, **flags: Any) -> int:
    """Turn recorded outputs of a model that ran elsewhere into runs.

    \b
    sightline import answers.jsonl -o runs
    sightline import --labels labelled.csv --run runs/a
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    if flags["formats"]:
        from sightline.store.importers import FORMATS

        for name, description in FORMATS.items():
            click.echo(f"{name:12} {description}")
        return 0
    if flags["labels"] is not None:
        return _labels(flags)
    if flags["source"] is None:
        raise UsageError(
            "No file to import; a file of recorded answers (or --labels with --run) is required. "
            "For example: sightline import answers.jsonl -o runs."
        )
    from sightline.api import import_file

    imported = import_file(
        flags["source"], flags["output"], format=flags["format_"], overwrite=flags["overwrite"]
    )
    if flags["as_json"]:
        click.echo(json.dumps([{"path": str(path)} for path in imported], indent=1))
    else:
        for path in imported:
            click.echo(str(path))
    return _rejections(imported)


def _rejections(imported: list[Path]) -> int:
    """Says which rows were not imported; exit code 4 if there are any."""
    from collections import Counter

    from sightline.core.printing import printable
    from sightline.store.run import RunStore

    rejected = [row for path in imported for row in RunStore.open(path).rejected()]
    for reason, count in Counter(row.reason for row in rejected).most_common(5):
        first = next(row.where for row in rejected if row.reason == reason)
        click.echo(f"  {count} × {printable(reason)} (first: {printable(first)})", err=True)
    if rejected:
        rows = "1 row was" if len(rejected) == 1 else f"{len(rejected)} rows were"
        click.echo(f"sightline: {rows} not imported.", err=True)
        return 4
    return 0


def _labels(flags: dict[str, Any]) -> int:
    if flags["run"] is None:
        raise UsageError(
            "--labels without --run; the run that the labels are for is required. "
            "Add --run runs/NAME."
        )
    from sightline.api import import_labels

    column = import_labels(flags["labels"], flags["run"])
    if flags["as_json"]:
        click.echo(json.dumps({"path": flags["run"], "labels": len(column)}))
    else:
        click.echo(f"{len(column)} labels stored in {flags['run']}")
    return 0
