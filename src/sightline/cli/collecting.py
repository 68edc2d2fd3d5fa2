"""sightline collect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.collect_options import (
    collect_settings,
    conditions_option,
    size_options,
    source_options,
)
from sightline.cli.display import ProgressLine, stop_on_signal
from sightline.cli.numbers import Number, share
from sightline.cli.options import (
    ENDPOINT_ARGS,
    endpoint_options,
    endpoint_settings,
    estimator_option,
    estimator_specs,
    key_values,
    loading_options,
    loading_settings,
    option,
    seed_option,
    shared_options,
    show_config,
)
from sightline.core.errors import EndpointError, SightlineError, UsageError

if TYPE_CHECKING:
    from sightline.workflow.collect import CollectResult


_MODEL_ARGS = ("device_map", "dtype", "revision", "blank_colour", *ENDPOINT_ARGS)
_STOPPED = "sightline: stopped; run the same command to go on."


@click.command("collect")
@source_options(
    required=True,
    model="Directory or hub name that transformers loads, embedded:vlm, or openai:NAME.",
    data="JSONL, CSV, TSV, Parquet, image folder, hf://NAME, scenes:SPLIT, or a benchmark such as "
    "pope:FILE.",
    output="The run directory.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=NAME",
    help="Read a field from a column of another name (repeatable).",
)
@estimator_option("Collect only what these need (NAME or NAME:KEY=VALUE; repeatable).")
@option(
    "--samples",
    default=10,
    type=click.IntRange(0),
    help="Sampled answers beside the greedy one.",
)
@option(
    "--temperature",
    default=1.0,
    type=Number(0, low_open=True),
    help="Sampling temperature.",
)
@option(
    "--top-p",
    default=1.0,
    type=share(low_open=True),
    help="Nucleus for sampling.",
)
@option(
    "--top-k",
    default=20,
    type=click.IntRange(0),
    help="Most likely tokens kept per position.",
)
@size_options(layers="Depths whose hidden states are kept: fractions, layer indices or none.")
@option(
    "--sample-states/--no-sample-states",
    default=False,
    help="Also keep the last hidden state of every sample, at these layers.",
)
@option(
    "--options/--no-options",
    default=True,
    help="Score the options of multiple choice.",
)
@option(
    "--blank/--no-blank",
    default=True,
    help="Also ask every question with a blank image.",
)
@option(
    "--ask",
    "asks",
    default="",
    metavar="NAME,NAME.2",
    help="Then ask about the answer: p_true, self_check, confidence_number, top_guesses, …",
)
@conditions_option(
    "Also ask under perturbations: jpeg:3,rotate:30, a list of the bank such as default "
    "('sightline perturbations' has them), or a YAML list."
)
@option(
    "--condition-samples",
    default=0,
    type=click.IntRange(0),
    help="Sampled answers under each condition.",
)
@option(
    "--channels/--no-channels",
    default=False,
    help="Also keep what 'sightline audit' compares: states of prompts and answers at --layers, "
    "vision tokens and their energy.",
)
@option(
    "--energy-maps",
    default=16,
    type=click.IntRange(0),
    help="With --channels, examples of which every vision token's energy is kept.",
)
@click.option("--sample-id", "sample_ids", multiple=True, help="Only this example (repeatable).")
@seed_option("Run seed.")
@loading_options
@option(
    "--device-map",
    help="Passed to transformers: auto spreads a model over devices.",
)
@endpoint_options
@click.option(
    "--model-args",
    "--model_args",
    "model_args",
    multiple=True,
    metavar="KEY=VALUE",
    help="More arguments for loading the model (repeatable).",
)
@option(
    "--instruction",
    help="Replaces the short-answer instruction; empty for none.",
)
@option(
    "--choice-instruction",
    help="Replaces the multiple-choice instruction; empty for none.",
)
@option(
    "--fail-on-error",
    default=0.05,
    type=share(),
    help="Share of failed rows above which the exit code is 1.",
)
@shared_options
@click.pass_context
def collect_command(ctx: click.Context, /, **flags: Any) -> int:
    """Run a model over images and questions once, and store all it shows.

    The same command resumes a run that was stopped or killed.

    \b
    sightline collect -m ./llava-1.5-7b-hf -d questions.jsonl --images ./photos -o runs/a
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from sightline.api import collect

    with (
        _resumable(),
        ProgressLine("collecting", flags["display"]) as line,
        stop_on_signal() as stop,
    ):
        result = collect(
            flags["model"],
            flags["data"],
            flags["output"],
            columns=key_values(flags["columns"], "--column", "question=prompt") or None,
            estimators=estimator_specs(flags["estimators"]),
            samples=flags["samples"],
            temperature=flags["temperature"],
            top_p=flags["top_p"],
            top_k=flags["top_k"],
            sample_states=flags["sample_states"],
            options=flags["options"],
            blank=flags["blank"],
            asks=flags["asks"].split(","),
            conditions=flags["conditions"],
            condition_samples=flags["condition_samples"],
            channels=flags["channels"],
            energy_maps=flags["energy_maps"],
            sample_ids=flags["sample_ids"],
            style=_style(flags),
            model_options=_model_options(flags),
            **collect_settings(flags, line, stop),
        )
    return _finish(result, flags, stop.exit_code if result.interrupted else 0)


@contextmanager
def _resumable() -> Iterator[None]:
    """Says beside the error of an endpoint that what was collected stays."""
    try:
        yield
    except EndpointError:
        click.echo(_STOPPED, err=True)
        raise


def _finish(result: CollectResult, flags: dict[str, Any], interrupted: int) -> int:
    failed = result.quarantined + result.rejected
    share = failed / (result.total + result.rejected)
    if flags["as_json"]:
        document = {
            "path": str(result.path),
            "examples": result.total,
            "quarantined": result.quarantined,
            "rejected": result.rejected,
            "refused": sum(count for _, count in result.refused),
            "interrupted": result.interrupted,
        }
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(str(result.path))
    for reason, count in result.reasons[:5]:
        click.echo(f"  {count} × {_printable(reason)}", err=True)
    for reason, count in result.refused[:5]:
        click.echo(f"  {count} × no such condition: {_printable(reason)}", err=True)
    if interrupted:
        click.echo(_STOPPED, err=True)
        return interrupted
    if share > flags["fail_on_error"]:
        raise SightlineError(
            f"{failed} of {result.total + result.rejected} rows failed ({share:.1%}); at most "
            f"{flags['fail_on_error']:.1%} may (--fail-on-error). The others are kept in "
            f"{result.path}; see 'sightline runs show {result.path}'."
        )
    if failed:
        click.echo(
            f"sightline: finished; {result.quarantined} examples quarantined, {result.rejected} "
            "dataset rows rejected.",
            err=True,
        )
        return 4
    return 0


def _printable(text: str) -> str:
    from sightline.core.printing import printable

    return printable(text)


def _style(flags: dict[str, Any]) -> dict[str, str]:
    """The instructions that were given, which change the model's own style."""
    return {
        name: flags[flag]
        for flag, name in (
            ("instruction", "short_instruction"),
            ("choice_instruction", "choice_instruction"),
        )
        if flags[flag] is not None
    }


def _model_options(flags: dict[str, Any]) -> dict[str, Any]:
    options = loading_settings(flags)
    if flags["device_map"] is not None:
        options["device_map"] = flags["device_map"]
    for key, value in key_values(flags["model_args"], "--model-args", "revision=main").items():
        if key not in _MODEL_ARGS:
            raise UsageError(
                f"--model-args {key}={value}: unknown argument; one of {', '.join(_MODEL_ARGS)} "
                "is required. Correct the name."
            )
        options[key] = value
    return options | endpoint_settings(flags, options)
