"""Perturbations to look at before collecting under them: one sheet of pictures, with the truth."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.condition_names import CLEAN
from sightline.core.errors import DataError, DiskError, ImageError, UsageError
from sightline.core.text import parse_choice
from sightline.core.types import Example
from sightline.data.contact_sheet import contact_sheet
from sightline.data.examples import load_dataset
from sightline.data.images import decode, load_image
from sightline.data.label_preservation import decide
from sightline.data.perturbations import Condition, prepared
from sightline.store.images import image_writer

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 200


@dataclass(frozen=True, slots=True)
class Preview:
    """What a sheet shows.

    Attributes:
        path: The picture's file.
        example_id: The example whose picture it is; None for a picture by itself.
        truths: What is decided of the right answer under each condition shown, by its name:
            ``same``, ``unknown``, or ``changed`` with the new answer; empty without an example.
        left_out: Conditions that are not shown, with reasons.
    """

    path: Path
    example_id: str | None
    truths: dict[str, str]
    left_out: dict[str, str]


def preview(
    conditions: Sequence[Condition],
    output: Path,
    *,
    image: Path | None = None,
    data: str | None = None,
    images: str | None = None,
    sample_id: str | None = None,
    answer: str | None = None,
    tile: int = 144,
    overwrite: bool = False,
) -> Preview:
    """Writes one picture and its perturbations, side by side, as one PNG file.

    Args:
        conditions: What to show, in order.
        output: The file to write.
        image: A picture by itself.
        data: Or a dataset, whose first example is shown with what is decided of its answer.
        images: Folder that the dataset's relative image paths start from.
        sample_id: Another example of the dataset.
        answer: The option the model chose, by letter or text, for conditions that name another.
        tile: Longest side of each picture on the sheet, in pixels.
        overwrite: Replace the file that is there.

    Raises:
        UsageError: Neither a picture nor a dataset, or both; too many conditions; a file of
            another kind, or one that is there; an answer that is none of the options.
        ImageError: The picture cannot be read.
        DiskError: The file cannot be written.
    """
    _check(conditions, output, image, data, overwrite=overwrite)
    with tempfile.TemporaryDirectory() as folder:
        example, picture = (
            (None, decode(image))
            if image is not None
            else _example(str(data), images, sample_id, Path(folder))
        )
    option = None if example is None or answer is None else _option(example, answer)
    picture = prepared(picture)
    left_out = {c.name: why for c in conditions if (why := _left_out(c, picture, example, option))}
    shown = [c for c in conditions if c.name not in left_out and c.name != CLEAN]
    truths = {} if example is None else {c.name: _truth(c, example, option) for c in shown}
    sheet = contact_sheet(picture, shown, example, answer=option, captions=truths, tile=tile)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(output, format="PNG")
    except OSError as error:
        raise DiskError(
            f"Writing {output} failed: {error.strerror or error}; a writable file is required. "
            "Choose another path."
        ) from None
    return Preview(output, None if example is None else example.id, truths, left_out)


def _check(
    conditions: Sequence[Condition],
    output: Path,
    image: Path | None,
    data: str | None,
    *,
    overwrite: bool,
) -> None:
    if (image is None) == (data is None):
        raise UsageError(
            f"{'Neither' if image is None else 'Both'} a picture and a dataset; one of them is "
            "required for a preview. Give --image FILE or --data DATA."
        )
    if len(conditions) > MOST:
        raise UsageError(
            f"{len(conditions)} conditions; a preview shows at most {MOST}. Name fewer."
        )
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output} is no .png file; a preview is one. Choose a name with .png.")
    if output.exists() and not overwrite:
        raise UsageError(
            f"{output} exists already; a new file is required. Choose another path, or replace it "
            "with --overwrite."
        )


def _example(
    data: str, images: str | None, sample_id: str | None, folder: Path
) -> tuple[Example, Image]:
    """The named example, or the first, with its first picture; generated ones are drawn anew."""
    named = () if sample_id is None else (sample_id,)
    limit = 1 if sample_id is None else None
    dataset = load_dataset(
        data, images=images, sample_ids=named, limit=limit, store_image=image_writer(folder)
    )
    example = dataset.examples[0]
    if not example.images:
        raise ImageError(
            f"Example {example.id!r} has no picture; one is required for a preview. Name another "
            "with --sample-id."
        )
    return example, load_image(example.images[0], folder)


def _option(example: Example, answer: str) -> str:
    letter = parse_choice(answer, example.choices or ())
    if letter is None:
        raise UsageError(
            f"--answer {answer[:40]!r} names none of the options of example {example.id!r} "
            f"({len(example.choices or ())}); one of them is required. Give its letter."
        )
    return letter


def _left_out(
    condition: Condition, picture: Image, example: Example | None, option: str | None
) -> str | None:
    """Why a condition is not shown, such as a picture without room for its text; None if it is."""
    if condition.needs_answer and option is None:
        return "it depends on the model's answer: give --data and --answer"
    if condition.is_control:
        return "it is a control, and shows another question's picture"
    reason = None if example is None else condition.refusal(example)
    if reason is None and condition.steps and not condition.changes_image:
        return "it changes the question, not the picture"
    if reason is not None:
        return reason
    try:
        condition.apply(picture, example, answer=option)
    except DataError as error:
        return str(error)
    return None


def _truth(condition: Condition, example: Example, option: str | None) -> str:
    found = decide(condition, example, answer=option)
    if found.truth == "changed" and found.references:
        return f"changed: {found.references[0]}"
    return found.truth
