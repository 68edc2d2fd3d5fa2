"""sightline study."""

from __future__ import annotations

from pathlib import Path

import click

from sightline.core.errors import UsageError


@click.command("study")
@click.argument("name", type=click.Choice(["estimators", "classifiers", "audit"]))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Receives runs, tables (NAME.json) and a page (NAME.md); what is there is resumed.",
)
@click.option(
    "--recorded",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of recorded outputs of real models, for the tables that need them.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="NAME=PATH",
    help="Directory of a further model to audit, such as another size (repeatable).",
)
@click.option("--quick", is_flag=True, help="A few hundred items, to see that it runs.")
def study_command(
    name: str, output: Path, recorded: Path | None, also: tuple[str, ...], quick: bool
) -> int:
    """Repeat a committed study on the embedded models.

    \b
    sightline study estimators -o studies/
    sightline study audit -o studies/ --also narrow=./narrow
    """  # noqa: D301 (a backspace, which click reads)
    from sightline.workflow.studies import audit, classifiers, estimators
    from sightline.workflow.studies.tables import write_study

    if also and name != "audit":
        raise UsageError(
            f"--also with the study of {name}; only that of audit takes it. Leave it out."
        )

    def say(line: str) -> None:
        click.echo(line, err=True)

    if name == "estimators":
        size = estimators.QUICK if quick else estimators.StudySize()
        tables = estimators.study_estimators(output, size, recorded=recorded, progress=say)
    elif name == "audit":
        much = audit.QUICK if quick else audit.AuditSize()
        tables = audit.study_audit(output, much, also=_named(also), progress=say)
    else:
        shown = classifiers.QUICK if quick else classifiers.ClassifierSize()
        tables = classifiers.study_classifiers(output, shown, progress=say)
    click.echo(write_study(output, name, f"Study of {name}", tables))
    return 0


def _named(also: tuple[str, ...]) -> dict[str, Path]:
    """Model directories by name."""
    found: dict[str, Path] = {}
    for text in also:
        name, equals, path = text.partition("=")
        if not (equals and name.replace("-", "").replace("_", "").isalnum()) or name in found:
            raise UsageError(
                f"--also {text}; NAME=PATH is required, each name of letters, digits and - once. "
                "For example: --also narrow=./narrow."
            )
        if not Path(path).is_dir():
            raise UsageError(
                f"--also {text}: {path or 'the path'} is no directory; a model's directory is "
                "required. Check the path."
            )
        found[name] = Path(path)
    return found
