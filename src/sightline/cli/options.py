"""Options every command shares: configuration file, environment, display, JSON.

Precedence: flag, then ``SIGHTLINE_*`` environment variable, then the YAML file of ``--config``,
then the default. ``--show-config`` prints the merge and where each value comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from sightline.cli.numbers import share
from sightline.core.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

_SOURCES = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "config file",
    ParameterSource.DEFAULT: "default",
    ParameterSource.PROMPT: "prompt",
}


def option(*flags: str, **settings: Any) -> Callable[[F], F]:
    """A flag that the environment variable ``SIGHTLINE_FLAG`` sets too, and that shows its default.

    Args:
        flags: As `click.option` takes them; the first long one names the variable.
        settings: As `click.option` takes them.
    """
    long = next(flag for flag in flags if flag.startswith("--")).partition("/")[0]
    settings["envvar"] = "SIGHTLINE_" + long.removeprefix("--").replace("-", "_").upper()
    settings["show_default"] = "default" in settings
    return click.option(*flags, **settings)


def estimator_option(purpose: str) -> Callable[[F], F]:
    """Adds --estimator, read by `estimator_specs`."""
    return option("--estimator", "-e", "estimators", multiple=True, help=purpose)


def seed_option(purpose: str) -> Callable[[F], F]:
    """Adds --seed."""
    return option("--seed", default=0, type=click.IntRange(0), help=purpose)


def device_options(command: F) -> F:
    """Adds --device and --dtype, read by `loading_settings`."""
    for decorate in (
        option(
            "--dtype",
            default="auto",
            type=click.Choice(["auto", "bfloat16", "float16", "float32"]),
            help="auto is the checkpoint's, float32 on a CPU.",
        ),
        option("--device", help="cpu, cuda, cuda:1, mps, or auto to spread over devices."),
    ):
        command = decorate(command)
    return command


def loading_options(command: F) -> F:
    """Adds the flags that say how a local model is loaded, read by `loading_settings`."""
    for decorate in (
        click.option(
            "--trust-remote-code", is_flag=True, help="Run code that comes with the model."
        ),
        option("--revision", help="Hub revision of the model."),
        device_options,
    ):
        command = decorate(command)
    return command


def loading_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `sightline.models.load_model` that these flags give.

    Args:
        flags: Those of `device_options` or `loading_options`.
    """
    settings: dict[str, Any] = {"dtype": flags["dtype"]}
    if flags["device"] is not None:
        settings["device_map"] = flags["device"]
    if flags.get("revision") is not None:
        settings["revision"] = flags["revision"]
    if flags.get("trust_remote_code"):
        settings["trust_remote_code"] = True
    return settings


def endpoint_options(command: F) -> F:
    """Adds the flags that say where ``openai:NAME`` is served, read by `endpoint_settings`."""
    for decorate in (
        option(
            "--concurrency",
            default=8,
            type=click.IntRange(1),
            help="Requests in flight at once, over all servers of openai:NAME.",
        ),
        option("--api-key-env", help="Environment variable that holds the endpoint's key."),
        option(
            "--base-url",
            "base_urls",
            multiple=True,
            help="Where openai:NAME is served, up to the version (…/v1); repeatable.",
        ),
    ):
        command = decorate(command)
    return command


def endpoint_settings(flags: dict[str, Any], args: dict[str, Any]) -> dict[str, Any]:
    """The argument of `sightline.models.load_model` that says where an endpoint is.

    Args:
        flags: Those of `endpoint_options`.
        args: Of --model-args; those of an endpoint are taken out.
    """
    from sightline.models.openai import EndpointSettings

    given = {name: args.pop(name) for name in ENDPOINT_ARGS if name in args}
    if not flags["base_urls"]:
        if given or flags["api_key_env"]:
            raise UsageError(
                f"{', '.join(given) or '--api-key-env'} without --base-url; the address of an "
                "endpoint is required. Add --base-url http://127.0.0.1:8000/v1."
            )
        return {}
    try:
        numbers = {name: kind(given[name]) for name, kind in ENDPOINT_ARGS.items() if name in given}
    except ValueError:
        raise UsageError(
            f"--model-args {','.join(f'{k}={v}' for k, v in given.items())}; timeout_s and "
            "attempts are numbers. For example: --model-args timeout_s=300,attempts=8."
        ) from None
    settings = EndpointSettings(
        base_urls=tuple(flags["base_urls"]),
        api_key_env=flags["api_key_env"],
        concurrency=flags["concurrency"],
        **numbers,
    )
    return {"endpoint": settings}


ENDPOINT_ARGS: dict[str, Callable[[str], Any]] = {
    "timeout_s": float,
    "attempts": int,
    "image_format": str,
}
"""Keys of --model-args that belong to an endpoint, and what reads them."""


def judging_options(command: F) -> F:
    """Adds the flags that decide which answers are right and how they are split."""
    for decorate in (
        click.option(
            "--split",
            "split_file",
            type=click.Path(dir_okay=False),
            help="JSON of {group: train|calibration|test}; replaces the seeds.",
        ),
        option(
            "--fractions",
            default="0.4,0.2,0.4",
            help="Shares for train, calibration and test.",
        ),
        seed_option("First split seed."),
        option("--condition", default="clean", help="Which records are judged."),
        option(
            "--threshold",
            default=0.5,
            type=share(low_open=True),
            help="An answer is right when its correctness reaches this (graders may give part "
            "marks).",
        ),
        click.option(
            "--judge", help="The model behind --grader judge: a directory, hub name or embedded."
        ),
        option(
            "--grader",
            default="auto",
            help="auto, labels, recorded, exact, vqa, choice, yes_no, numeric, rouge_l, token_f1 "
            "or judge; settings as NAME:KEY=VALUE.",
        ),
    ):
        command = decorate(command)
    return command


def support_options(command: F) -> F:
    """Adds the flags that choose the support pictures of a classifier's run."""
    shots = click.option(
        "--shots",
        type=click.IntRange(1),
        help="Classifier runs: fewer support pictures of every class than were drawn.",
    )
    run = click.option(
        "--support",
        type=click.Path(file_okay=False),
        help="Classifier runs: take the support pictures of this run (say, the clean one).",
    )
    return run(shots(command))


def judging_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Settings of an evaluation that the flags of `judging_options` give."""
    return {
        "grader": flags["grader"],
        "threshold": flags["threshold"],
        "condition": flags["condition"],
        "seed": flags["seed"],
        "fractions": _fractions(flags["fractions"]),
    }


def shared_options(command: F) -> F:
    """Adds --config, --show-config, --display and --json."""
    for decorate in (
        click.option(
            "--json", "as_json", is_flag=True, help="Print exactly one JSON document to stdout."
        ),
        click.option(
            "--display",
            type=click.Choice(["auto", "rich", "plain", "none"]),
            default="auto",
            show_default=True,
            help="Progress on stderr: auto is rich on a terminal, else plain.",
        ),
        click.option(
            "--show-config",
            is_flag=True,
            is_eager=False,
            help="Print the settings after merging flags, environment and file; do nothing.",
        ),
        click.option(
            "--config",
            type=click.Path(dir_okay=False),
            is_eager=True,
            expose_value=False,
            callback=_read_config,
            help="YAML file of settings, named as the flags are.",
        ),
    ):
        command = decorate(command)
    return command


def _read_config(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    import yaml

    try:
        settings = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{value}: {error.strerror}; a readable YAML file is required. Check --config."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{value}: {first}; valid YAML is required. Fix the file.") from None
    if not isinstance(settings, dict):
        raise UsageError(
            f"{value}: holds {type(settings).__name__}; a mapping of settings is required. "
            "Write one 'name: value' per line."
        )
    known = {
        option.removeprefix("--").replace("-", "_"): param.name
        for param in ctx.command.params
        for option in (*param.opts, *param.secondary_opts)
        if option.startswith("--")
    }
    params = {param.name: param for param in ctx.command.params}
    known |= {param.name: param.name for param in ctx.command.params if param.name}
    merged: dict[str, Any] = {}
    for key, setting in settings.items():
        name = known.get(str(key).replace("-", "_"))
        if name is None:
            raise UsageError(
                f"{value}: unknown setting {str(key)!r}; one of the flags of "
                f"'sightline {ctx.info_name}' is required. See --help."
            )
        merged[name] = _as_flag(params[name], setting)
    ctx.default_map = {**(ctx.default_map or {}), **merged}


def _as_flag(param: click.Parameter, setting: Any) -> Any:
    """A setting of a file as its flag takes it: a list if it repeats, else joined by commas."""
    if getattr(param, "multiple", False):
        return setting if isinstance(setting, list) else [setting]
    return ",".join(map(str, setting)) if isinstance(setting, list) else setting


def show_config(ctx: click.Context) -> None:
    """Prints every setting with its value and source, as JSON."""
    settings = {
        name: {
            "value": str(value) if isinstance(value, Path) else value,
            "source": _SOURCES.get(ctx.get_parameter_source(name) or ParameterSource.DEFAULT),
        }
        for name, value in sorted(ctx.params.items())
        if name not in ("show_config", "config")
    }
    click.echo(json.dumps(settings, indent=1, default=str))


def key_values(values: tuple[str, ...], flag: str, example: str) -> dict[str, str]:
    """Parses repeated ``key=value`` (or one comma-separated list of them)."""
    out: dict[str, str] = {}
    for part in (p for value in values for p in value.split(",") if p):
        key, sign, text = part.partition("=")
        if not sign or not key:
            raise UsageError(
                f"{flag} {part!r}; key=value is required. For example: {flag} {example}."
            )
        out[key.strip()] = text.strip()
    return out


def parse_limit(text: str | None) -> int | float | None:
    """Parses --limit: a whole number is a count, a number with a point is a share."""
    if text is None:
        return None
    try:
        limit: int | float = int(text) if "." not in str(text) else float(text)
    except ValueError:
        limit = 0
    if limit <= 0 or (isinstance(limit, float) and limit > 1):
        raise UsageError(
            f"--limit {text}; a whole number of examples or a share between 0 and 1 is required. "
            "For example: --limit 100 or --limit 0.1."
        )
    return limit


def parse_layers(text: str) -> tuple[float | int, ...]:
    """Parses --layers: comma-separated fractions of the depth (0.5) or layer indices (12)."""
    if text.strip().lower() in ("", "none"):
        return ()
    layers: list[float | int] = []
    for part in text.split(","):
        try:
            layer: float | int = float(part) if "." in part else int(part)
        except ValueError:
            raise UsageError(
                f"--layers {part!r}; fractions of the depth or layer indices are required. "
                "For example: --layers 0.25,0.5,0.75,1.0 or --layers 8,16,24 or --layers none."
            ) from None
        if layer < 0 or (isinstance(layer, float) and layer > 1):
            raise UsageError(
                f"--layers {part!r}; fractions lie between 0.0 and 1.0 and indices are not "
                "negative. For example: --layers 0.5,1.0."
            )
        layers.append(layer)
    return tuple(layers)


def estimator_specs(values: tuple[str, ...]) -> tuple[str, ...] | None:
    """Specs of repeated --estimator, joined by commas or not; None if there are none."""
    specs = (spec.strip() for value in values for spec in value.split(","))
    return tuple(spec for spec in specs if spec) or None


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        train, calibration, test = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--fractions {text}; three shares that add up to 1 are required. "
            "For example: --fractions 0.4,0.2,0.4."
        ) from None
    return train, calibration, test


def given_split(path: str | None) -> dict[str, str] | None:
    """Reads the file of --split: part by group; None where there is none."""
    if path is None:
        return None
    try:
        split = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"--split {path}: {error.strerror}; a readable JSON file is required. Check the path."
        ) from None
    except ValueError:
        split = None
    allowed = {"train", "calibration", "test"}
    if not isinstance(split, dict) or not set(map(str, split.values())) <= allowed:
        raise UsageError(
            f"--split {path}: not a JSON object of group to train, calibration or test; that is "
            'required. For example: {"image-1": "train", "image-2": "test"}.'
        )
    return {str(group): str(part) for group, part in split.items()}
