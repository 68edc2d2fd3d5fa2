"""sightline serve."""

from __future__ import annotations

import os
from typing import Any

import click

from sightline.cli.numbers import Number
from sightline.cli.options import (
    estimator_option,
    estimator_specs,
    loading_options,
    loading_settings,
    option,
    shared_options,
    show_config,
)
from sightline.core.errors import UsageError

_MB = 1_000_000
_SECONDS = Number(0, 86_400, low_open=True)


@click.command("serve")
@option("--model", "-m", required=True, help="As for collect: directory, hub name, embedded:vlm.")
@option(
    "--policy",
    type=click.Path(file_okay=False),
    help="Directory written by calibrate; without it scores are raw and no probabilities.",
)
@option(
    "--upstream",
    metavar="URL",
    help="Stand before this OpenAI-compatible server (…/v1); --model is its name for the model.",
)
@option("--upstream-key-env", metavar="NAME", help="Variable that holds the upstream's key.")
@click.option(
    "--cache-salt",
    is_flag=True,
    help="Have the upstream (vLLM) keep its prefix cache apart for every key of --api-key-env.",
)
@option(
    "--on-low-trust",
    default="flag",
    type=click.Choice(["flag", "refuse"]),
    help="flag says so beside the answer; refuse withholds the answer.",
)
@option("--host", default="127.0.0.1", help="Address to listen on; others need a key.")
@option("--port", default=8000, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@option(
    "--api-key-env",
    metavar="NAME",
    help="Environment variable that holds the bearer keys, separated by commas.",
)
@option(
    "--feedback",
    type=click.Path(file_okay=False),
    help="Directory for graded outcomes; switches /v1/feedback on.",
)
@estimator_option("Raw scores to show where there is no policy (repeatable).")
@option(
    "--text-models",
    type=click.Path(file_okay=False),
    help="Directory of the local encoders that computed a policy's derived signals.",
)
@option("--max-new-tokens", default=64, type=click.IntRange(1), help="Without a policy.")
@option("--max-batch", default=16, type=click.IntRange(1), help="Questions observed at once.")
@option("--batch-window", default=0.01, type=Number(0, 60), help="Seconds to fill a batch.")
@click.option("--strict", is_flag=True, help="Refuse unknown fields instead of dropping them.")
@click.option(
    "--fetch-host",
    "fetch_hosts",
    multiple=True,
    metavar="HOST",
    help="Fetch images from this host (repeatable); without it images come in the request only.",
)
@option("--concurrency", default=64, type=click.IntRange(1), help="Requests worked on at once.")
@option("--queue", default=128, type=click.IntRange(0), help="Requests that wait; then 503.")
@option("--max-body-mb", default=32, type=click.IntRange(1), help="Body of a request.")
@option("--max-held-mb", default=1024, type=click.IntRange(1), help="Bodies of all requests.")
@option("--max-images", default=8, type=click.IntRange(0), help="Images of a request.")
@option("--max-image-mb", default=20, type=click.IntRange(1), help="One image file.")
@option("--max-megapixels", default=40, type=click.IntRange(1), help="One image.")
@option("--max-request-megapixels", default=120, type=click.IntRange(1), help="All its images.")
@option(
    "--max-held-megapixels", default=1000, type=click.IntRange(1), help="Images of all requests."
)
@option("--max-messages", default=256, type=click.IntRange(1), help="Messages of a request.")
@option("--max-parts", default=2048, type=click.IntRange(1), help="Parts of all its messages.")
@option("--max-text", default=200_000, type=click.IntRange(1), help="Characters of a request.")
@option("--max-options", default=8192, type=click.IntRange(2), help="Options of all decisions.")
@option("--max-n", default=16, type=click.IntRange(1), help="Choices of a request.")
@option("--max-tokens", default=4096, type=click.IntRange(1), help="Tokens of a choice.")
@option("--max-header-kb", default=32, type=click.IntRange(1), help="Headers of a request.")
@option("--header-timeout", default=5.0, type=_SECONDS, help="Seconds.")
@option("--body-timeout", default=10.0, type=_SECONDS, help="Seconds.")
@option("--write-timeout", default=10.0, type=_SECONDS, help="Seconds.")
@option("--request-timeout", default=120.0, type=_SECONDS, help="Seconds.")
@loading_options
@shared_options
@click.pass_context
def serve_command(ctx: click.Context, /, **flags: Any) -> int:
    """Answer over OpenAI's API, every answer with a calibrated probability of being right.

    \b
    sightline serve -m embedded:vlm --policy policy/ --feedback outcomes/
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    from pathlib import Path

    from sightline.serving.server import Settings, serve

    settings = Settings(
        model=flags["model"],
        policy=None if flags["policy"] is None else Path(flags["policy"]),
        upstream=flags["upstream"],
        upstream_key=next(iter(_keys(flags["upstream_key_env"], "--upstream-key-env")), None),
        salted=flags["cache_salt"],
        host=flags["host"],
        port=flags["port"],
        keys=_keys(flags["api_key_env"], "--api-key-env"),
        mode=flags["on_low_trust"],
        feedback=None if flags["feedback"] is None else Path(flags["feedback"]),
        estimators=estimator_specs(flags["estimators"]),
        max_new_tokens=flags["max_new_tokens"],
        max_batch=flags["max_batch"],
        window_s=flags["batch_window"],
        strict=flags["strict"],
        fetch_hosts=flags["fetch_hosts"],
        text_models=None if flags["text_models"] is None else Path(flags["text_models"]),
        model_options=loading_settings(flags),
        limits=_limits(flags),
    )
    serve(settings, announce=lambda text: click.echo(text, err=True))
    return 0


def _limits(flags: dict[str, Any]) -> Any:
    from sightline.serving.limits import MIB, Limits

    return Limits(
        max_body=flags["max_body_mb"] * MIB,
        max_held=flags["max_held_mb"] * MIB,
        max_images=flags["max_images"],
        max_image_bytes=flags["max_image_mb"] * _MB,
        max_pixels=flags["max_megapixels"] * _MB,
        max_request_pixels=flags["max_request_megapixels"] * _MB,
        max_held_pixels=flags["max_held_megapixels"] * _MB,
        max_messages=flags["max_messages"],
        max_parts=flags["max_parts"],
        max_text=flags["max_text"],
        max_options=flags["max_options"],
        max_n=flags["max_n"],
        max_tokens=flags["max_tokens"],
        concurrency=flags["concurrency"],
        queue=flags["queue"],
        header_s=flags["header_timeout"],
        body_s=flags["body_timeout"],
        write_s=flags["write_timeout"],
        request_s=flags["request_timeout"],
        max_header_bytes=flags["max_header_kb"] * 1024,
    )


def _keys(variable: str | None, flag: str) -> tuple[str, ...]:
    """The keys that an environment variable holds; they are never taken from the command line."""
    if variable is None:
        return ()
    keys = tuple(key.strip() for key in os.environ.get(variable, "").split(",") if key.strip())
    if not keys:
        raise UsageError(
            f"{flag} {variable}: that variable is empty or not set; a key is required there. "
            f"Set it, for example: export {variable}=$(openssl rand -hex 32)."
        )
    return keys
