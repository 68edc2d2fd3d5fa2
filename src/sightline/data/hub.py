"""Datasets of the Hugging Face hub, images left undecoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from sightline.core.errors import DataError, MissingExtraError, UsageError
from sightline.data.readers import Row

_SETTINGS = ("split", "config", "revision")
_REFUSED = (OSError, ValueError, RuntimeError, ImportError, TypeError, LookupError)
"""What the library raises beside its own errors; the last two on a description of another shape."""


@dataclass(frozen=True, slots=True)
class HubTable:
    """One split of a dataset.

    Attributes:
        name: Its name with its split.
        table: A table of the datasets library, images left undecoded.
        folder: Where image files lie (the hub's cache, for images that are no part of the tables).
    """

    name: str
    table: Any
    folder: Path


def read_hub(source: str) -> tuple[str, Iterator[Row], Path]:
    """The name, the rows and the folder of images of what `open_hub` opens."""
    found = open_hub(source)
    return found.name, _rows(found.table), found.folder


def open_hub(source: str) -> HubTable:
    """Opens ``hf://NAME?split=…&config=…&revision=…``; NAME may be a local folder.

    The dataset is downloaded once into the hub's cache and read row by row. No code of the
    dataset's repository is run.

    Raises:
        MissingExtraError: The ``datasets`` package is not installed.
        UsageError: An unknown setting, or no name.
        DataError: The dataset, configuration or split cannot be loaded.
    """
    name, _, query = source.removeprefix("hf://").partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown or not name:
        raise UsageError(
            f"{source} {f'sets {unknown[0]!r}' if unknown else 'has no name'}; a name and only "
            f"{', '.join(_SETTINGS)} are known. For example: hf://org/name?split=test."
        )
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "datasets", "loading a hub dataset by name") from None
    split = settings.get("split", "test")
    try:
        table = datasets.load_dataset(
            name, settings.get("config"), split=split, revision=settings.get("revision")
        )
    except (*_REFUSED, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{source} cannot be loaded ({type(error).__name__}: {_one_line(error)}); a dataset "
            "of the hub or its cache is required. Check name, config, split and the network."
        ) from None
    for column, kind in table.features.items():
        undecoded = _undecoded(kind, datasets.Image)
        if undecoded is not None:
            table = table.cast_column(column, undecoded)
    folder = Path(name) if Path(name).is_dir() else Path(datasets.config.HF_CACHE_HOME)
    return HubTable(f"{name}?split={split}", table, folder)


def _undecoded(kind: Any, image: Any) -> Any:
    """The feature type of an image column (or list of images) that keeps the file's bytes."""
    if isinstance(kind, image):
        return image(decode=False)
    inner = getattr(kind, "feature", None)
    if isinstance(inner, image):
        return type(kind)(image(decode=False))
    return None


def _rows(table: Any) -> Iterator[Row]:
    for number, fields in enumerate(table, start=1):
        yield Row(f"row {number}", fields)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error.__cause__ or error).split())[:200]
