"""Writes what is read off the code: cli.md, estimators.md, metrics.md, perturbations.md.

The list of scores in classifiers.md, its last section, is written, too.

Run ``make docs`` after changing a command, an estimator, a metric or a perturbation; a test fails
while a page is stale.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

from sightline.cli import cli
from sightline.data import (
    condition_lists,
    label_preservation,
    perturb_text,
    perturb_truth,
    perturbations,
    unrelated,
    wordings,
)
from sightline.data.label_preservation import MILD, QUESTION_KINDS, preservation_table
from sightline.estimators.describe import estimators_page
from sightline.metrics import METRICS
from sightline.zeroshot.describe import scores_table

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
        "| 3 | a gate missed (`--max-ece`, `--min-auroc`, `--max-risk`), or nothing certified |",
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
        "Few rows in a bin make calibration errors too large. Their intervals take that off (basic",
        "bootstrap intervals, widened to hold the figure), so they lie mostly below the figure.",
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


_COLLECTING = """`sightline collect … --conditions jpeg:3,rotate:30` asks every example again under
each of them; a list of the bank or a YAML file may stand for the names, and
`sightline perturbations --preview sheet.png --image photo.jpg` shows them first. A condition that
does not exist for an example is counted with its reason. Whether the right answer stays is decided
for every pair: from the scene of a generated picture, else from the table below. Estimators compare
an answer only with those whose right answer is the same, and with none whose picture names a wrong
one (`answer_text`); `sightline runs show` and every evaluation count the others."""


def perturbations_page() -> str:
    """The perturbation bank, its strengths, and which answers it keeps."""
    side = 336
    lines = [
        "# Perturbations",
        "",
        "Written by `make docs` from `sightline.data.perturbations.BANK`.",
        "",
        _prose(perturbations.__doc__),
        "",
        "Lists: "
        + "; ".join(
            f"`{name}` = {len(perturbations.parse_conditions(name))} conditions "
            f"({', '.join(families)})"
            for name, families in perturbations.BANKS.items()
        )
        + ".",
        "",
        f"Strengths are those on a picture of {side}×{side} pixels; share is of its side.",
        "",
        "| condition | what it does | parameter | pixels | share | needs the answer |",
        "|---|---|---|---|---|---|",
    ]
    for family, entry in perturbations.BANK.items():
        says = (type(entry).__doc__ or "").partition("\n")[0]
        changed = [
            f"{field.name}={getattr(entry, field.name)}"
            for field in fields(entry)
            if field.name != "level" and getattr(entry, field.name) != field.default
        ]
        says += f" ({', '.join(changed)})" if changed else ""
        for condition in perturbations.parse_conditions(family):
            (found,) = condition.magnitudes((side, side)).values()
            size = "" if found.pixels is None else f"{found.pixels:.4g}"
            share = "" if found.share is None else f"{found.share:.1%}"
            needs = "yes" if condition.needs_answer else ""
            lines.append(
                f"| `{condition.name}` | {says} | {found.value:g} {found.unit} | {size} | {share} "
                f"| {needs} |"
            )
    lines += ["", "## Collecting under them", "", _COLLECTING, "", _prose(condition_lists.__doc__)]
    lines += ["", "## Control", "", _prose(unrelated.__doc__)]
    lines += ["", "## Text", "", _prose(perturb_text.__doc__)]
    lines += ["", "## Wordings", "", _prose(wordings.__doc__)]
    lines += ["", "## Truth on generated pictures", "", _prose(perturb_truth.__doc__)]
    lines += [
        "",
        "## Answers kept on other data",
        "",
        _prose(label_preservation.__doc__),
        "",
        "*same*: at every level. *mild*: at the levels "
        + ", ".join(f"`{family}` {level:g}" for family, level in MILD.items())
        + " or milder. Empty: unknown. A question may be of several kinds, which are read off its",
        "words, its type and its options; all of them have to keep their answer.",
        "",
        "| family | " + " | ".join(QUESTION_KINDS) + " |",
        "|---|" + "---|" * len(QUESTION_KINDS),
    ]
    for family, kept in preservation_table():
        lines.append(f"| `{family}` | " + " | ".join(kept) + " |")
    return "\n".join([*lines, ""])


_SCORES = """## Every score

Written by `make docs` from the one table, `sightline.zeroshot.ZERO_SHOT_SCORES`. Those that use
support labels or an auxiliary encoder are computed where the run has them, with several encoders
once for each. Higher uncertainty means that the class is more likely to be wrong; where
"probability" says yes, it is one minus a probability of being right. Settings are changed with
`-e NAME:setting=value`.

"""


def classifiers_page() -> str:
    """The page on classifiers, with the list of scores behind what people wrote."""
    heading = _SCORES.partition("\n")[0]
    written = (HERE / "classifiers.md").read_text(encoding="utf-8").partition(heading)[0]
    return f"{written}{_SCORES}{scores_table()}"


def _prose(text: str | None) -> str:
    """A module's documentation without its example."""
    return (text or "").partition("\nExample:")[0].strip().replace("``", "`")


PAGES = {
    "classifiers.md": classifiers_page,
    "cli.md": cli_page,
    "estimators.md": estimators_page,
    "metrics.md": metrics_page,
    "perturbations.md": perturbations_page,
}


def main() -> None:
    """Writes every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
