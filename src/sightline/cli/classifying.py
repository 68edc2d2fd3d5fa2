"""sightline classify and sightline rerank."""

from __future__ import annotations

import gc
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.collect_options import announce, progress_note
from sightline.cli.display import ProgressLine, stop_on_signal
from sightline.cli.numbers import share
from sightline.cli.options import (
    loading_options,
    loading_settings,
    option,
    parse_limit,
    seed_option,
    shared_options,
    show_config,
)
from sightline.core.errors import SightlineError, UsageError

if TYPE_CHECKING:
    from sightline.workflow.classifying.collecting import ClassifyResult
    from sightline.workflow.collect import CollectProgress, CollectResult


@click.command("classify")
@option(
    "--model",
    "-m",
    required=True,
    help="CLIP or SigLIP that transformers loads, embedded:clip, embedded:siglip, or "
    "open_clip:ARCHITECTURE/WEIGHTS.",
)
@option(
    "--data",
    "-d",
    required=True,
    help="Image folder, split file, CSV, saved dataset, hf://NAME, scenes-classes:SPLIT or "
    "digits:SPLIT.",
)
@option(
    "--output-path",
    "-o",
    "output",
    required=True,
    type=click.Path(file_okay=False),
    help="The run directory.",
)
@option(
    "--classes",
    help="File of class names, names joined by commas, or an earlier run.  [default: data's]",
)
@option(
    "--templates",
    help="Prompt templates: photo, this-is, names, picture, ensemble, or a file, one a line.",
)
@option(
    "--images",
    type=click.Path(file_okay=False),
    help="Folder that picture paths start from.  [default: the data's folder]",
)
@option(
    "--encoder",
    "encoders",
    multiple=True,
    help="Auxiliary image encoder: directory, hub name, embedded:encoder (?pool=mean or cls pools "
    "its tokens so), or a file of vectors (.npz, .safetensors, .parquet) (repeatable).",
)
@option(
    "--encoder-preprocessing",
    default="own",
    type=click.Choice(["own", "classifier"]),
    help="Whose input encoders get; classifier is that of TrustVLM's released code.",
)
@option("--views", default="mirror,gray", help="Also embed these versions; or none.")
@option("--support", help="Labelled pictures to learn from: data, or another split of --data.")
@option("--shots", default=16, type=click.IntRange(1), help="Support pictures of every class.")
@option(
    "--draws",
    type=click.IntRange(1),
    help="Repeated draws of them.  [default: 10; by the rule compat 1]",
)
@option(
    "--support-rule",
    default="random",
    type=click.Choice(["random", "compat"]),
    help="How they are drawn; compat is the one draw of TrustVLM's released code.",
)
@seed_option("Seed of the draws.")
@option("--limit", "-L", help="Pictures only of this count (100) or share (0.1), spread evenly.")
@option("--batch-size", default=64, type=click.IntRange(1), help="Pictures at once.")
@option("--shard-size", default=512, type=click.IntRange(1), help="Pictures committed at once.")
@loading_options
@option(
    "--fail-on-error",
    default=0.05,
    type=share(),
    help="Share of failed pictures above which the exit code is 1.",
)
@click.option("--overwrite", is_flag=True, help="Remove an existing run first.")
@shared_options
@click.pass_context
def classify_command(ctx: click.Context, /, **flags: Any) -> int:
    """Classify pictures by their class names, and store what every score needs.

    The same command resumes a run that was stopped or killed; 'sightline evaluate' scores it.

    \b
    sightline classify -m embedded:clip -d scenes-classes:test --support train \\
        --encoder embedded:encoder -o runs/clip
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    if not flags["support"]:
        given = [n for n in ("shots", "draws", "support_rule") if _on_command_line(ctx, n)]
        if given:
            raise UsageError(
                f"--{given[0].replace('_', '-')} without --support says how support pictures are "
                "drawn, and there are none; --support is required. Name it, or leave it out."
            )
    from sightline.api import classify
    from sightline.workflow.classifying.embedding import parse_views

    views = parse_views(flags["views"])
    with ProgressLine("classifying", flags["display"]) as line, stop_on_signal() as stop:

        def show(part: str, progress: CollectProgress) -> None:
            if not progress.observed:
                # Models and pictures listed stay until the end: to look through them for garbage,
                # again and again as records grow, costs as much as embedding hundreds of pictures.
                gc.freeze()
            line.update(progress.done, progress.total, progress_note(progress), label=part)

        result = classify(
            flags["model"],
            flags["data"],
            flags["output"],
            classes=flags["classes"],
            templates=flags["templates"],
            images=flags["images"],
            encoders=flags["encoders"],
            encoder_preprocessing=flags["encoder_preprocessing"],
            views=views,
            support=flags["support"],
            shots=flags["shots"],
            draws=flags["draws"],
            support_rule=flags["support_rule"],
            seed=flags["seed"],
            limit=parse_limit(flags["limit"]),
            batch_size=flags["batch_size"],
            shard_size=flags["shard_size"],
            overwrite=flags["overwrite"],
            model_options=loading_settings(flags),
            announce=announce,
            progress=show,
            should_stop=stop,
        )
    return _finish(result, flags, stop.exit_code)


@click.command("rerank")
@click.argument("run", type=click.Path(file_okay=False))
@option("--model", "-m", required=True, help="The model that is asked, as collect takes it.")
@option(
    "--output-path",
    "-o",
    "output",
    required=True,
    type=click.Path(file_okay=False),
    help="Receives the model's run.",
)
@option("--top-k", default=3, type=click.IntRange(2), help="Classes offered.")
@option("--question", help="What is asked of a picture.  [default: What does the picture show?]")
@click.option("--examples", is_flag=True, help="Also show support pictures of these classes.")
@option(
    "--samples", default=0, type=click.IntRange(0), help="Sampled answers beside the greedy one."
)
@option("--limit", "-L", type=click.IntRange(1), help="The first pictures only.")
@seed_option("Run seed.")
@option("--batch-size", default=8, type=click.IntRange(1), help="Pictures at once.")
@option("--shard-size", default=32, type=click.IntRange(1), help="Pictures committed at once.")
@loading_options
@click.option("--overwrite", is_flag=True, help="Remove an existing run first.")
@shared_options
@click.pass_context
def rerank_command(ctx: click.Context, /, **flags: Any) -> int:
    """Let a vision-language model choose among a classifier's likeliest classes.

    Prints the accuracy before and after; 'sightline evaluate' says how far to trust the choice.

    \b
    sightline rerank runs/clip -m embedded:vlm -o runs/clip-vlm
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from sightline.api import rerank

    with ProgressLine("re-ranking", flags["display"]) as line, stop_on_signal() as stop:
        result = rerank(
            flags["run"],
            flags["model"],
            flags["output"],
            top=flags["top_k"],
            question=flags["question"],
            shown=flags["examples"],
            limit=flags["limit"],
            samples=flags["samples"],
            seed=flags["seed"],
            batch_size=flags["batch_size"],
            shard_size=flags["shard_size"],
            overwrite=flags["overwrite"],
            model_options=loading_settings(flags),
            announce=announce,
            progress=lambda state: line.update(state.done, state.total),
            should_stop=stop,
        )
    if flags["as_json"]:
        click.echo(
            json.dumps(
                {
                    "path": str(result.collected.path),
                    "before": asdict(result.before),
                    "after": asdict(result.after),
                    "change": asdict(result.change),
                    "changed": result.changed,
                    "unnamed": result.unnamed,
                    "quarantined": result.collected.quarantined,
                    "interrupted": result.collected.interrupted,
                }
            )
        )
    else:
        click.echo(
            f"{result.collected.path}: right before {result.before}, after {result.after}, change "
            f"{result.change}; {result.changed} classes changed, {result.unnamed} replies named "
            "none of the classes offered"
        )
    _show_reasons(result.collected)
    if result.collected.interrupted:
        click.echo("sightline: stopped; run the same command to go on.", err=True)
        return stop.exit_code
    if result.collected.quarantined:
        click.echo(
            f"sightline: finished; {result.collected.quarantined} of {result.collected.total} "
            "pictures left out of both accuracies.",
            err=True,
        )
        return 4
    return 0


def _on_command_line(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _finish(result: ClassifyResult, flags: dict[str, Any], interrupted: int) -> int:
    """Prints what was embedded; the exit code says whether all of it could be."""
    named = {"pictures": result.images, "support": result.support}
    parts = [part for part in named.values() if part is not None]
    failed = sum(part.quarantined + part.rejected for part in parts)
    total = sum(part.total + part.rejected for part in parts)
    if flags["as_json"]:
        document = {
            "path": str(result.path),
            "pictures": 0 if result.images is None else result.images.total,
            "support": 0 if result.support is None else result.support.total,
            "quarantined": sum(part.quarantined for part in parts),
            "rejected": sum(part.rejected for part in parts),
            "reasons": {name: dict(part.reasons) for name, part in named.items() if part},
            "alike": result.alike,
            "interrupted": result.interrupted,
        }
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(str(result.path))
    for part in parts:
        _show_reasons(part)
    if result.interrupted:
        click.echo("sightline: stopped; run the same command to go on.", err=True)
        return interrupted
    if failed > flags["fail_on_error"] * total:
        raise SightlineError(
            f"{failed} of {total} pictures failed ({failed / total:.1%}); at most "
            f"{flags['fail_on_error']:.1%} may (--fail-on-error). The others are kept in "
            f"{result.path}; see 'sightline runs show {result.path}'."
        )
    if failed:
        click.echo(f"sightline: finished; {failed} pictures left out.", err=True)
        return 4
    return 0


def _show_reasons(part: CollectResult) -> None:
    """Prints why pictures were left out, the most frequent reasons first."""
    from sightline.core.printing import printable

    for reason, count in part.reasons[:5]:
        click.echo(f"  {count} × {printable(reason)}", err=True)
