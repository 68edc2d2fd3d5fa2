"""sightline perturbations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.core.errors import UsageError

if TYPE_CHECKING:
    from sightline.data.perturbations import Condition
    from sightline.workflow.preview import Preview

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("perturbations")
@click.option(
    "--conditions",
    metavar="NAMES|FILE.yaml",
    help="Which to list or show, as collect takes them.  [default: the whole bank]",
)
@click.option(
    "--size",
    default="336x336",
    show_default=True,
    metavar="WIDTHxHEIGHT",
    help="Picture on which strengths are given.",
)
@click.option("--preview", type=_FILE, help="Write a sheet of pictures to this PNG file.")
@click.option("--image", type=_FILE, help="The picture to show.")
@click.option("--data", "-d", help="Or a dataset, for a picture and what is known of its answer.")
@click.option("--images", type=click.Path(file_okay=False), help="Folder of the dataset's images.")
@click.option("--sample-id", help="The example to show.  [default: the first]")
@click.option("--answer", help="The option the model chose, for conditions that name another.")
@click.option(
    "--tile",
    default=144,
    show_default=True,
    type=click.IntRange(16, 1024),
    help="Longest side of each picture on the sheet.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document.")
def perturbations_command(**flags: Any) -> int:
    """List the perturbations to collect under, or show them on a picture.

    \b
    sightline perturbations
    sightline perturbations --conditions overlays --preview sheet.png --image photo.jpg
    sightline perturbations --conditions rotate,crop --preview sheet.png -d scenes:test
    """  # noqa: D301 (a backspace, which click reads)
    from sightline.data.condition_lists import read_conditions
    from sightline.data.perturbations import BANK

    given = flags["conditions"]
    conditions = read_conditions(list(BANK) if given is None else given)
    if flags["preview"] is not None:
        return _preview(conditions, flags)
    for name in ("image", "data", "sample_id", "answer"):
        if flags[name] is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} without --preview; a file to write is required. "
                "Add --preview FILE.png."
            )
    size = _size(flags["size"])
    if flags["as_json"]:
        click.echo(json.dumps(_document(conditions, size), indent=1))
        return 0
    _list(conditions, size)
    return 0


def _preview(conditions: Sequence[Condition], flags: dict[str, Any]) -> int:
    from sightline.core.printing import printable
    from sightline.workflow.preview import preview

    found: Preview = preview(
        conditions,
        flags["preview"],
        **{name: flags[name] for name in ("image", "data", "images", "sample_id", "answer")},
        tile=flags["tile"],
        overwrite=flags["overwrite"],
    )
    if flags["as_json"]:
        document = {
            "path": str(found.path),
            "example_id": found.example_id,
            "truths": found.truths,
            "left_out": found.left_out,
        }
        click.echo(json.dumps(document, indent=1))
        return 0
    click.echo(str(found.path))
    for name, reason in found.left_out.items():
        click.echo(f"  not shown: {name}: {printable(reason)}", err=True)
    return 0


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise UsageError(
            f"--size {text[:40]!r}; width and height in pixels are required. "
            "For example: --size 640x480."
        )
    return int(parts[0]), int(parts[1])


def _document(conditions: Sequence[Condition], size: tuple[int, int]) -> dict[str, Any]:
    """The bank as JSON: lists, conditions with their strengths, and which answers stay."""
    from sightline.data.label_preservation import MILD, QUESTION_KINDS, preservation_table
    from sightline.data.perturbations import BANKS

    table = dict(preservation_table())
    return {
        "lists": {name: list(families) for name, families in BANKS.items()},
        "size": list(size),
        "conditions": [
            {
                "name": condition.name,
                "kind": condition.kind,
                "needs_answer": condition.needs_answer,
                "control": condition.is_control,
                "steps": {
                    name: found._asdict() for name, found in condition.magnitudes(size).items()
                },
            }
            for condition in conditions
        ],
        "answers_kept": {
            family: [kind for kind, kept in zip(QUESTION_KINDS, row, strict=True) if kept == "same"]
            for family, row in table.items()
        },
        "answers_kept_when_mild": {
            family: {
                "kinds": [
                    kind
                    for kind, kept in zip(QUESTION_KINDS, table[family], strict=True)
                    if kept == "mild"
                ],
                "up_to": level,
            }
            for family, level in MILD.items()
        },
    }


def _list(conditions: Sequence[Condition], size: tuple[int, int]) -> None:
    from sightline.data.perturbations import BANKS

    document = _document(conditions, size)
    for name, families in BANKS.items():
        click.echo(f"{name:12} {', '.join(families)}")
    click.echo(f"\n{'condition':22} {'strength':16} {'pixels':>7} {'share':>7}  type")
    for condition in document["conditions"]:
        for at, step in enumerate(condition["steps"].values()):
            pixels = "" if step["pixels"] is None else f"{step['pixels']:.4g}"
            share = "" if step["share"] is None else f"{step['share']:.1%}"
            name, kind = (condition["name"], condition["kind"]) if at == 0 else ("", "")
            strength = f"{step['value']:g} {step['unit']}"
            says = ("needs_answer", " (needs the answer)"), ("control", " (a control)")
            kind += "".join(text for key, text in says if at == 0 and condition[key])
            click.echo(f"{name:22} {strength:16} {pixels:>7} {share:>7}  {kind}")
    click.echo("\nKinds of question whose answer stays (generated scenes are worked out again):")
    for family, kinds in document["answers_kept"].items():
        mild = document["answers_kept_when_mild"].get(family)
        also = f"; when mild {', '.join(mild['kinds'])}" if mild and mild["kinds"] else ""
        click.echo(f"{family:22} {', '.join(kinds) or 'none'}{also}")
