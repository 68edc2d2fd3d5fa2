"""Labelled pictures of every source, one at a time: folders, split files, tables, saved datasets.

A `sightline.data.labelled_pictures.Picture` carries the picture's value as its source writes it (a
path, bytes) and its label as the source spells it; reading the picture and naming its class come
later.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np

from sightline.core.errors import DataError, UsageError
from sightline.data.image_tables import hub_dataset, parquet_folder, saved_dataset
from sightline.data.labelled_pictures import LABEL_COLUMNS, Picture, Source, few
from sightline.data.readers import is_folder, read_rows

HUB = "hf://"
SCENE_CLASSES = "scenes-classes:"
DIGITS = "digits:"
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif"})
SPLIT_NAMES = ("train", "val", "valid", "validation", "test")

_PATHS = ("file_name", "filename", "path", "image_path", "file", "image", "img")
_IDS = ("id", "image_id", "key")
_DEFAULT_PICTURES = 600
_MOST_PICTURES = 20_000
_POOL = 200  # of every class, for shots that would ask for more of all
_MAX_DIGITS = 9


def open_source(source: str, images: Path | None = None) -> Source:
    """Opens an image folder, a CoOp split file, a table, a saved dataset or generated pictures.

    A split is chosen by ``?split=NAME`` behind the path. ``hf://NAME`` is a dataset of the hub.

    Args:
        source: What to open.
        images: Folder that picture paths start from; the source's own if None.

    Raises:
        DataError: There is nothing at the path, or nothing that holds labelled pictures.
        UsageError: A split or setting that does not exist.
    """
    if source.startswith((SCENE_CLASSES, DIGITS)):
        return _generated(source)
    if source.startswith(HUB):
        return hub_dataset(source)
    path_text, settings = _settings(source, ("split",))
    path, split = Path(path_text), settings.get("split")
    if not path.exists():
        raise DataError(
            f"{path} does not exist; an image folder, a split file, a table or a saved dataset is "
            "required. Correct the path."
        )
    if is_folder(path):
        return _folder(path, split, images)
    if path.suffix.lower() == ".json" and _is_split_file(path):
        return _coop(path, split, images)
    if path.suffix.lower() in TABLES:
        if split is not None:
            raise UsageError(
                f"{source} asks for a split of a table; a table is one split. Leave it out."
            )
        return Source(path.name, images or path.parent, _table(path))
    raise DataError(
        f"{path} is none of: an image folder with a folder for each class, a split file "
        f"(JSON with train and test), a table ({', '.join(TABLES)}) with a path and a label, a "
        "saved dataset. Convert it."
    )


def support_source(support: str, data: str, shots: int) -> str:
    """The source of support pictures: itself, or another split of the data where it names one.

    Example:
        >>> support_source("train", "digits:test?n=100", 4)
        'digits:train?per_class=16'
        >>> support_source("other.csv", "digits:test", 4)
        'other.csv'

    Raises:
        UsageError: The data is a table, which has no splits.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", support) or Path(support).exists():
        return support
    for prefix in (SCENE_CLASSES, DIGITS):
        if data.startswith(prefix):
            return f"{prefix}{support}?per_class={max(8, min(4 * shots, _POOL), shots)}"
    if data.startswith(HUB):
        name, _, query = data.partition("?")
        return f"{name}?{urlencode({**dict(parse_qsl(query)), 'split': support})}"
    path, _ = _settings(data, ("split",))
    if Path(path).suffix.lower() in TABLES:
        raise UsageError(
            f"--support {support} names a split, and {data} is a table, which has none; a source "
            "of its own is required. Name the file of the support pictures."
        )
    return f"{path}?split={support}"


def _settings(source: str, known: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The path and what stands behind its question mark; a file of that very name goes first."""
    if "?" not in source or Path(source).exists():
        return source, {}
    path, _, query = source.rpartition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(settings) - set(known))
    if unknown or not settings:
        raise UsageError(
            f"{source} sets {unknown[0] if unknown else 'nothing'!r}; only {', '.join(known)} is "
            f"known there. For example: {path}?{known[0]}=test."
        )
    return path, settings


def _folder(path: Path, split: str | None, images: Path | None) -> Source:
    """A saved dataset, a dataset with a split file, or a folder of class folders."""
    for name in ("dataset_dict.json", "dataset_info.json", "state.json"):
        if (path / name).is_file():
            return saved_dataset(path, split)
    if any(path.glob("*.parquet")) or any((path / "data").glob("*.parquet")):
        return parquet_folder(path, split)
    files = [file for file in sorted(path.glob("*.json")) if _is_split_file(file)]
    if len(files) > 1:
        raise DataError(
            f"{path} holds {len(files)} split files, {files[0].name} and {files[1].name} among "
            "them; one is required. Name the file itself."
        )
    if files:
        return _coop(files[0], split, images)
    folders = _folders(path)
    named = {entry.name for entry in folders}
    if split is not None:
        if split not in named:
            raise UsageError(
                f"{path} has no split {split!r}, only the folders {few(sorted(named))}; a folder "
                "of that name is required. Correct ?split=."
            )
        return _class_folders(path / split, f"{path.name}?split={split}")
    if named and named <= set(SPLIT_NAMES):
        raise UsageError(
            f"{path} holds the splits {few(sorted(named))}; one of them is required. Write "
            f"{path}?split={sorted(named)[0]}."
        )
    return _class_folders(path, path.resolve().name)


def _class_folders(path: Path, name: str) -> Source:
    folders = _folders(path)
    if not folders:
        raise DataError(
            f"{path} has no folders; a folder of pictures for every class is required. Sort the "
            "pictures by class, or list them in a CSV with path and label."
        )

    def pictures() -> Iterator[Picture]:
        for folder in folders:
            for parts in sorted(_files_below(str(folder))):
                place = "/".join((folder.name, *parts))
                suffix = os.path.splitext(parts[-1])[1]  # noqa: PTH122 (a Path for every picture)
                wrong = None
                if suffix.lower() not in PICTURE_SUFFIXES:
                    wrong = f"the suffix {suffix!r} is none of a picture"
                yield Picture(place, place, place, folder.name, wrong)

    return Source(name, path, pictures(), {f.name: f.name for f in folders})


def _folders(path: Path) -> list[Path]:
    """The visible folders of a folder.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and _shown(entry))
    except OSError as error:
        raise _closed(path, error) from None


def _files_below(folder: str) -> Iterator[tuple[str, ...]]:
    """Names on the way to each visible file and to each link that leads nowhere.

    Links to folders are not followed.

    Raises:
        DataError: A folder cannot be listed: nobody knows how many pictures it holds.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    for rest in _files_below(entry.path):
                        yield entry.name, *rest
                elif not entry.name.startswith(".") and (
                    entry.is_file(follow_symlinks=False)
                    or (entry.is_symlink() and _file_or_nothing(entry.path))
                ):
                    yield (entry.name,)
    except OSError as error:
        raise _closed(folder, error) from None


def _file_or_nothing(link: str) -> bool:
    return os.path.isfile(link) or not os.path.exists(link)  # noqa: PTH110, PTH113


def _closed(folder: Path | str, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be read ({error.strerror}); every folder of the pictures is required. "
        "Check its permissions, or move it elsewhere."
    )


def _is_split_file(path: Path) -> bool:
    """Whether a JSON file maps splits to lists of [path, label, class name]."""
    try:
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8", "ignore")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); a readable file is required. Check it."
        ) from None
    return re.match(r'\s*\{\s*"(train|val|test)"\s*:\s*\[\s*(\[\s*"|\])', head) is not None


def _coop(path: Path, split: str | None, images: Path | None) -> Source:
    """A split file of CoOp: ``{"train": [[path, label, class name], …], "val": …, "test": …}``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is no readable split file ({' '.join(str(error).split())[:120]}); JSON with "
            "lists of [path, label, class name] is required. Download it again."
        ) from None
    wrong = next((part for part, rows in content.items() if not isinstance(rows, list)), None)
    if wrong is not None:
        raise DataError(
            f"{path}: {wrong!r} is {str(content[wrong])[:40]!r}; nothing but splits, each a list "
            "of [path, label, class name], is required. Remove it."
        )
    split = split or "test"
    if split not in content:
        raise UsageError(
            f"{path} has no split {split!r}, only {few(sorted(content))}; one of these is "
            "required. Correct ?split=."
        )
    names: dict[str, tuple[int, str]] = {}
    by_number: dict[int, str] = {}
    for part, rows in content.items():
        for at, row in enumerate(rows):
            if not _is_split_row(row):
                raise DataError(
                    f"{path}: entry {at} of {part} is {str(row)[:80]!r}; [path, label, class name] "
                    "is required. Correct the file."
                )
            number, name = int(row[1]), str(row[2])
            if names.setdefault(name, (number, name))[0] != number:
                raise DataError(
                    f"{path}: class {name!r} has the labels {names[name][0]} and {number}; one "
                    "label for each class is required. Correct the file."
                )
            if by_number.setdefault(number, name) != name:
                raise DataError(
                    f"{path}: label {number} has the class names {by_number[number]!r} and "
                    f"{name!r}; one name for each label is required. Correct the file."
                )
    rows = content[split]
    if not rows:
        filled = [name for name, entries in content.items() if entries]
        raise DataError(
            f"{path}: split {split!r} is empty; one with pictures is required, such as "
            f"{few(filled)}. Correct ?split=."
        )
    root = images or _picture_root(path.parent, [row[0] for row in rows[:20]])

    def pictures() -> Iterator[Picture]:
        for at, (place, _, name) in enumerate(rows):
            yield Picture(f"{split}[{at}]", str(place), str(place), str(name))

    ordered = [name for _, name in sorted(names.values())]
    return Source(f"{path.name}?split={split}", root, pictures(), {n: n for n in ordered})


def _is_split_row(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and isinstance(row[0], str)
        and isinstance(row[1], int)
        and isinstance(row[2], str)
    )


def _picture_root(folder: Path, places: Sequence[str]) -> Path:
    """The folder, or the one below it, that the paths of a split file start from."""
    below = sorted(entry for entry in folder.rglob("*") if entry.is_dir() and _depth(entry, folder))
    for root in (folder, *below):
        if any((root / place).is_file() for place in places):
            return root
    raise DataError(
        f"{folder} holds none of the pictures that its split file names, such as {places[:1]}; "
        "they are required. Name their folder with --images."
    )


def _depth(entry: Path, folder: Path) -> bool:
    return len(entry.relative_to(folder).parts) <= 2


def _table(path: Path) -> Iterator[Picture]:
    """Rows with a path and a label; the columns are found by their usual names."""
    for row in read_rows(path):
        if row.error is not None:
            yield Picture(row.where, row.where, None, None, row.error)
            continue
        value, label = _first(row.fields, _PATHS), _first(row.fields, LABEL_COLUMNS)
        if value is None:
            columns = ", ".join(map(str, row.fields))[:120]
            wrong = f"no picture: none of the columns {columns} is one of {', '.join(_PATHS)}"
            yield Picture(row.where, row.where, None, None, wrong)
            continue
        given = _first(row.fields, _IDS)
        name = str(given) if given is not None else value if isinstance(value, str) else row.where
        yield Picture(row.where, name, value, None if label is None else str(label))


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    lowered = {str(key).lower(): value for key, value in fields.items()}
    return next((lowered[name] for name in names if lowered.get(name) is not None), None)


def _generated(source: str) -> Source:
    """``scenes-classes:SPLIT?n=…&seed=…&per_class=…``: pictures of one object; ``digits:``."""
    from PIL import Image

    from sightline.data.objects import CLASSES, DIGIT_CLASSES, draw_objects

    kind = SCENE_CLASSES if source.startswith(SCENE_CLASSES) else DIGITS
    split, _, query = source.removeprefix(kind).partition("?")
    chosen = CLASSES if kind == SCENE_CLASSES else DIGIT_CLASSES
    settings = {"n": _DEFAULT_PICTURES, "seed": 0, "per_class": 0}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in settings or not value.isdecimal() or len(value) > _MAX_DIGITS:
            raise UsageError(
                f"{source} sets {key}={value[:40]!r}; only n, seed and per_class, whole numbers, "
                f"are known. For example: {kind}test?n=600&seed=1."
            )
        settings[key] = int(value)
    count = settings["per_class"] * len(chosen) or settings["n"]
    if count > _MOST_PICTURES:
        raise UsageError(
            f"{source} asks for {count} pictures; at most {_MOST_PICTURES} are drawn at a time. "
            "Ask for fewer, or for several seeds."
        )
    codes = np.asarray([CLASSES.index(name) for name in chosen])
    rng = np.random.default_rng([78, settings["seed"]])
    if settings["per_class"]:
        labels = np.repeat(codes, settings["per_class"])
    else:
        labels = rng.choice(codes, max(1, settings["n"]))
    drawn = draw_objects(split, labels, rng)

    def pictures() -> Iterator[Picture]:
        for at, (pixels, code) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, format="PNG")
            name = f"{split}-{settings['seed']}-{at:06d}"
            meta = {"difficulty": round(float(drawn.difficulty[at]), 4)}
            yield Picture(name, name, out.getvalue(), CLASSES[int(code)], meta=meta)

    return Source(source, Path(), pictures(), {name: name for name in chosen})


def _shown(path: Path) -> bool:
    return not path.name.startswith(".")
