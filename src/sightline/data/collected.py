"""Rows on their way to examples: unique ids, images that other rows hold, groups by image."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sightline.core.errors import DataError
from sightline.core.types import Example, ImageRef
from sightline.data.embedded import ImageReader
from sightline.data.fields import Fields, interpret
from sightline.data.readers import Row

_MAX_ROW_ID = 64


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that did not become an example.

    Attributes:
        where: Where it stands in the source, such as ``line 12``.
        reason: Why, in a few words.
    """

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row that only waits for images which other rows hold."""

    where: str
    id: str
    fields: Fields
    images: tuple[ImageRef | str, ...]


class Collected:
    """The rows read so far.

    Attributes:
        rejected: Rows that cannot be used.
        left_out: How many rows the data set's own rules leave out, by rule.
        ignored: How often a column held a value that is neither used nor scalar.
        seen: Names of all columns, in the order of their first appearance.
    """

    def __init__(self, reader: ImageReader, columns: Mapping[str, str], by_number: bool) -> None:
        self.rejected: list[Rejected] = []
        self.left_out: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.seen: dict[str, None] = {}
        self._reader = reader
        self._columns = columns
        self._by_number = by_number
        self._drafts: list[_Draft] = []
        self._where: dict[str, str] = {}
        self._images_of: dict[str, tuple[ImageRef, ...]] = {}
        self._awaited: set[str] = set()

    @property
    def count(self) -> int:
        """Usable rows, or 0 while a row still waits for the images of a later one."""
        return 0 if self._awaited else len(self._drafts)

    def add(self, row: Row) -> None:
        """Keeps what the row says, or why it cannot be used or is not asked."""
        if row.left_out is not None:
            self.left_out[row.left_out] += 1
            return
        self.seen.update(dict.fromkeys(map(str, row.fields)))
        try:
            if row.error is not None:
                raise DataError(row.error)
            draft = self._draft(row)
        except DataError as error:
            self.rejected.append(Rejected(row.where, str(error)))
            return
        self._where[draft.id] = row.where
        self._drafts.append(draft)
        self.ignored.update(draft.fields.ignored)

    def examples(self) -> list[Example]:
        """The examples, in the rows' order; rows whose images never came are rejected."""
        found = []
        for draft in self._drafts:
            refs: list[ImageRef] = []
            for image in draft.images:
                if isinstance(image, ImageRef):
                    refs.append(image)
                elif image in self._images_of:
                    refs.extend(self._images_of[image])
                else:
                    reason = f"the image {image!r} is neither a file nor the id of a row with one"
                    self.rejected.append(Rejected(draft.where, reason))
                    break
            else:
                found.append(
                    Example(
                        id=draft.id,
                        question=draft.fields.question,
                        images=tuple(refs),
                        choices=draft.fields.choices,
                        references=draft.fields.references,
                        group=draft.fields.group or "",
                        question_type=draft.fields.question_type,
                        meta=draft.fields.meta,
                    )
                )
        given = {draft.id for draft in self._drafts if draft.fields.group is not None}
        return _grouped(found, given)

    def _draft(self, row: Row) -> _Draft:
        fields = interpret(row.fields, self._columns)
        values = fields.images
        number, subset = row.fields.get("image_id"), row.fields.get("data_subtype")
        if not values and isinstance(number, int) and (self._by_number or isinstance(subset, str)):
            values = (self._reader.numbered(number, str(subset or "")),)
        images = tuple(self._image(value, fields) for value in values)
        name = fields.id or _derived_id(fields, images)
        if name in self._where:
            raise DataError(f"the id {name[:80]!r} is that of {self._where[name]}")
        refs = tuple(image for image in images if isinstance(image, ImageRef))
        if refs and len(refs) == len(images):
            self._images_of[name] = refs
            self._awaited.discard(name)
        self._awaited.update(i for i in images if isinstance(i, str) and i not in self._images_of)
        return _Draft(row.where, name, fields, images)

    def _image(self, value: Any, fields: Fields) -> ImageRef | str:
        """A reference, or the id of the row that holds the image (as MMBench writes it)."""
        number = str(value) if isinstance(value, int) else value
        if isinstance(number, str) and number.isdecimal() and len(number) < _MAX_ROW_ID:
            if fields.id is None or self._reader.is_file(number):
                return self._reader.ref(number)
            return number
        return self._reader.ref(value)


def digest_json(content: Any) -> str:
    """Returns the SHA-256 of a value's JSON text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _derived_id(fields: Fields, images: Sequence[ImageRef | str]) -> str:
    hashes = [image.sha256 if isinstance(image, ImageRef) else image for image in images]
    return digest_json([hashes, fields.question, fields.choices])[:16]


def _grouped(examples: Sequence[Example], given: Collection[str]) -> list[Example]:
    """Gives examples without a group of their own one group per connected set of images."""
    parent: dict[str, str] = {}

    def root(image: str) -> str:
        while parent.setdefault(image, image) != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    loose = [bool(e.images) and e.id not in given for e in examples]
    for example, alone in zip(examples, loose, strict=True):
        if alone:
            roots = sorted({root(ref.sha256) for ref in example.images})
            parent.update(dict.fromkeys(roots, roots[0]))
    return [
        replace(e, group=f"image-{root(e.images[0].sha256)[:16]}") if alone else e
        for e, alone in zip(examples, loose, strict=True)
    ]
