"""What every source of labelled pictures gives: pictures with their labels, and class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

LABEL_COLUMNS = (
    "label",
    "class",
    "class_name",
    "classname",
    "category",
    "target",
    "labels",
    "fine_label",
)
"""Usual names of the column that holds the label."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One labelled picture as its source writes it.

    Attributes:
        where: Where it stands, for messages.
        id: What names it within the source, such as its path.
        value: A path, bytes, or what else `sightline.data.embedded.ImageReader` reads.
        label: As the source spells it; None where the source has none.
        error: Why the row cannot be used, or None.
        meta: Further scalar facts.
    """

    where: str
    id: str
    value: Any
    label: str | None
    error: str | None = None
    meta: Mapping[str, str | int | float | bool] = field(
        default_factory=lambda: MappingProxyType({})
    )


@dataclass(frozen=True, slots=True)
class Source:
    """An opened source.

    Attributes:
        name: Short name, with its split.
        root: Folder that picture paths start from and must stay in.
        pictures: Its labelled pictures, once through.
        names: Class name of each label in the source's own order, where the source declares them.
    """

    name: str
    root: Path
    pictures: Iterator[Picture]
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def few(names: Sequence[str]) -> str:
    """The names in words, the first eight of them."""
    listed = ", ".join(map(str, names[:8]))
    return f"{listed} and {len(names) - 8} more" if len(names) > 8 else listed or "none"
