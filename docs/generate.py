"""Writes the pages read off the code: cli.md, estimators.md, metrics.md.

Run ``make docs`` after changing a command, an estimator or a metric; a test fails while a page is
stale.
"""

from __future__ import annotations

from pathlib import Path

import click

from sightline.cli import cli
from sightline.estimators.describe import estimators_page
from sightline.metrics import METRICS

HERE = Path(__file__).resolve().parent


def cli_page() -> str:
    """The help of every command, as the terminal shows it."""
    parts = [
        "# Command line",
        "",
        "Written by `make docs` from the commands themselves.",
        "",
        "Results go to standard output, everything else to standard error. Settings come from",
        "flags, then `SIGHTLINE_*` environment variables, then the YAML file of `--config`, then",
        "defaults; `--show-config` prints the merge.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | failure |",
        "| 2 | usage, configuration or data |",
        "| 3 | a gate missed (`--max-ece`, `--min-auroc`) |",
        "| 4 | finished, with quarantined examples or rejected rows |",
        "| 5 | a damaged store |",
        "| 130, 143 | stopped by a signal; the same command goes on |",
        "",
    ]
    root = click.Context(cli, info_name="sightline", **cli.context_settings)
    parts += _help(cli, root, 2)
    return "\n".join(parts)


def _help(command: click.Command, ctx: click.Context, level: int) -> list[str]:
    text = ["#" * level + " " + ctx.command_path, "", "```", _plain_help(command, ctx), "```", ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            if child is not None:
                settings = child.context_settings
                inner = click.Context(child, info_name=name, parent=ctx, **settings)
                text += _help(child, inner, level + 1)
    return text


def _plain_help(command: click.Command, ctx: click.Context) -> str:
    formatter = click.HelpFormatter(width=100)
    command.format_help(ctx, formatter)
    return formatter.getvalue().rstrip("\n")


def metrics_page() -> str:
    """The table of metrics."""
    lines = [
        "# Metrics",
        "",
        "Written by `make docs` from `sightline.metrics.METRICS`. Ties are averaged analytically;",
        "a figure below its smallest n, or with one class only, is null with the reason.",
        "",
        "| name | better | input | smallest n | definition and source |",
        "|---|---|---|---|---|",
    ]
    for name, metric in METRICS.items():
        lines.append(
            f"| `{name}` | {metric.direction} | {metric.input} | {metric.smallest_n} | "
            f"{metric.source} |"
        )
    return "\n".join([*lines, ""])


PAGES = {"cli.md": cli_page, "estimators.md": estimators_page, "metrics.md": metrics_page}


def main() -> None:
    """Writes every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
