"""sightline study."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("study")
@click.argument("name", type=click.Choice(["estimators", "classifiers"]))
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
@click.option("--quick", is_flag=True, help="A few hundred items, to see that it runs.")
def study_command(name: str, output: Path, recorded: Path | None, quick: bool) -> int:
    """Repeat a committed study on the embedded models.

    \b
    sightline study estimators -o studies/
    """  # noqa: D301 (a backspace, which click reads)
    from sightline.workflow.studies import classifiers, estimators
    from sightline.workflow.studies.tables import write_study

    def say(line: str) -> None:
        click.echo(line, err=True)

    if name == "estimators":
        size = estimators.QUICK if quick else estimators.StudySize()
        tables = estimators.study_estimators(output, size, recorded=recorded, progress=say)
    else:
        shown = classifiers.QUICK if quick else classifiers.ClassifierSize()
        tables = classifiers.study_classifiers(output, shown, progress=say)
    click.echo(write_study(output, name, f"Study of {name}", tables))
    return 0
