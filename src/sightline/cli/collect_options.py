"""What commands share that ask a vision-language model and store a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.display import ProgressLine, Stop, duration
from sightline.cli.options import F, option, parse_layers, parse_limit

if TYPE_CHECKING:
    from sightline.workflow.collect import CollectProgress


def source_options(*, required: bool, model: str, data: str, output: str) -> Callable[[F], F]:
    """Adds --model, --data, --images and --output-path.

    Args:
        required: Whether the command does nothing without them.
        model: Help of --model.
        data: Help of --data.
        output: Help of --output-path.
    """

    def decorate(command: F) -> F:
        for add in (
            option(
                "--output-path",
                "-o",
                "output",
                required=required,
                type=click.Path(file_okay=False),
                help=output,
            ),
            option(
                "--images",
                type=click.Path(file_okay=False),
                help="Folder that relative image paths start from.  "
                "[default: the dataset's folder]",
            ),
            option("--data", "-d", required=required, help=data),
            option("--model", "-m", required=required, help=model),
        ):
            command = add(command)
        return command

    return decorate


def size_options(*, layers: str) -> Callable[[F], F]:
    """Adds what decides how much is collected, and how much at once, read by `collect_settings`.

    Args:
        layers: Help of --layers.
    """

    def decorate(command: F) -> F:
        for add in (
            click.option("--overwrite", is_flag=True, help="Remove an existing run first."),
            option(
                "--shard-size",
                default=32,
                type=click.IntRange(1),
                help="Examples committed at once.",
            ),
            option(
                "--batch-size",
                default=8,
                type=click.IntRange(1),
                help="Examples at once; halved when memory runs out.",
            ),
            option("--limit", "-L", help="First examples only: a count (100) or a share (0.1)."),
            option(
                "--max-new-tokens",
                default=64,
                type=click.IntRange(1),
                help="Limit on generated tokens per answer.",
            ),
            option("--layers", default="0.25,0.5,0.75,1.0", help=layers),
        ):
            command = add(command)
        return command

    return decorate


def conditions_option(purpose: str, default: str = "") -> Callable[[F], F]:
    """Adds --conditions, as `sightline.collect` reads them."""
    return option("--conditions", default=default, metavar="NAMES|FILE.yaml", help=purpose)


def collect_settings(flags: dict[str, Any], line: ProgressLine, stop: Stop) -> dict[str, Any]:
    """Arguments of `sightline.collect` that every command reads off its flags alike.

    Args:
        flags: Of a command with `source_options`, `size_options` and --seed.
        line: Shows the progress.
        stop: Stops the collect between shards.
    """

    def show(progress: CollectProgress) -> None:
        line.update(progress.done, progress.total, progress_note(progress))

    return {
        "images": flags["images"],
        "max_new_tokens": flags["max_new_tokens"],
        "layers": parse_layers(flags["layers"]),
        "limit": parse_limit(flags["limit"]),
        "seed": flags["seed"],
        "batch_size": flags["batch_size"],
        "shard_size": flags["shard_size"],
        "overwrite": flags["overwrite"],
        "announce": announce,
        "progress": show,
        "should_stop": stop,
    }


def progress_note(progress: CollectProgress) -> str:
    """What is left of a collect, and what it set aside."""
    left = progress.remaining_s
    note = "" if not left else f"about {duration(left)} left"
    if progress.quarantined:
        note += f" · {progress.quarantined} quarantined"
    return note


def announce(text: str) -> None:
    """A line on what is about to happen, on standard error."""
    click.echo(text, err=True)
