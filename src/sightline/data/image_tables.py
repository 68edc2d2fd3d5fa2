"""Datasets of pictures in tables: saved by the datasets library, as Parquet files, on the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError, UsageError
from sightline.data.labelled_pictures import LABEL_COLUMNS, Picture, Source, few


def saved_dataset(path: Path, split: str | None) -> Source:
    """A dataset that the datasets library wrote to disk, read without that library."""
    if (path / "dataset_dict.json").is_file():
        splits = _json(path / "dataset_dict.json").get("splits", [])
        if not isinstance(splits, list) or not all(isinstance(one, str) for one in splits):
            raise _not_saved(path / "dataset_dict.json", "splits")
        if split not in splits:
            raise _no_split(path, split, splits)
        return _saved_split(path / str(split), f"{path.name}?split={split}")
    own = _json(path / "state.json").get("_split")
    if split not in (None, own):
        raise UsageError(
            f"{path} is the one split {own or 'that was saved'}, and {split!r} is asked for; that "
            "split's own folder is required. Name it instead."
        )
    return _saved_split(path, path.name)


def _no_split(path: Path, split: str | None, splits: Sequence[str]) -> UsageError:
    asked = "none was named" if split is None else f"not {split!r}"
    return UsageError(
        f"{path} holds the splits {few(splits)}, {asked}; one of them is required. Write "
        f"{path}?split={splits[0] if splits else 'test'}."
    )


def _saved_split(path: Path, name: str) -> Source:
    features = _json(path / "dataset_info.json").get("features")
    if not isinstance(features, dict):
        raise _not_saved(path / "dataset_info.json", "features")
    listed = _json(path / "state.json").get("_data_files")
    entries = listed if isinstance(listed, list) else [listed]
    files = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    if not all(isinstance(file, str) for file in files):
        raise _not_saved(path / "state.json", "_data_files")

    def tables(file: Path) -> Iterator[Any]:
        import pyarrow as pa

        with pa.memory_map(str(file)) as mapped:
            yield from pa.ipc.open_stream(mapped)

    paths = [path / str(file) for file in files]
    return _rows_of_features(name, path, features, lambda wanted: _rows(paths, tables, wanted))


def _not_saved(path: Path, entry: str) -> DataError:
    return DataError(
        f"{path} has no usable {entry!r}; a dataset written by save_to_disk is required. Save it "
        "again."
    )


def _rows(
    files: Sequence[Path], tables: Callable[[Path], Iterator[Any]], columns: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Rows of some columns of one file after another.

    Raises:
        DataError: A file is damaged, or lacks a column.
    """
    import pyarrow as pa

    for file in files:
        try:
            for table in tables(file):
                lacking = [column for column in columns if column not in table.schema.names]
                if lacking:
                    raise DataError(
                        f"{file} has the columns {few(table.schema.names)} and no {lacking[0]!r}, "
                        "which the description of the dataset names; it is required. Save or "
                        "download the dataset again."
                    )
                yield from table.select(columns).to_pylist()
        except (OSError, ValueError, pa.ArrowException):
            raise DataError(
                f"{file} is damaged or no file of a dataset's table; an undamaged one is "
                "required. Save or download the dataset again."
            ) from None


def hub_dataset(source: str) -> Source:
    """A dataset of the hub by name (extra ``datasets``); see `sightline.data.hub.open_hub`."""
    from sightline.data.hub import open_hub

    found = open_hub(source)
    features = found.table.features.to_dict()
    return _rows_of_features(found.name, found.folder, features, found.table.select_columns)


def parquet_folder(path: Path, split: str | None) -> Source:
    """Parquet files as the hub stores them: ``data/SPLIT-00000-of-00001.parquet``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((*path.glob("*.parquet"), *(path / "data").glob("*.parquet")))
    splits = sorted({file.name.partition("-")[0].partition(".")[0] for file in files})
    if split is None and len(splits) == 1:
        split = splits[0]
    chosen = [f for f in files if f.name.partition("-")[0].partition(".")[0] == split]
    if not chosen:
        raise _no_split(path, split, splits)
    try:
        metadata = pq.read_schema(chosen[0]).metadata or {}
        stored = json.loads(metadata.get(b"huggingface", b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        raise DataError(
            f"{chosen[0]} is no readable Parquet file; an undamaged one is required. Download it "
            "again."
        ) from None
    info = stored.get("info") if isinstance(stored, dict) else None
    features = info.get("features") if isinstance(info, dict) else None

    def tables(file: Path) -> Iterator[Any]:
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(batch_size=64)

    return _rows_of_features(
        f"{path.name}?split={split}",
        path,
        features if isinstance(features, dict) else {},
        lambda wanted: _rows(chosen, tables, wanted),
    )


def _rows_of_features(
    name: str,
    root: Path,
    features: Mapping[str, Any],
    rows: Callable[[list[str]], Iterable[Mapping[str, Any]]],
) -> Source:
    """Rows of a table whose features say which column holds pictures and which labels.

    Args:
        name: Of the source.
        root: Folder that picture paths start from.
        features: Kind of each column, as the datasets library writes them.
        rows: Gives the rows of some columns.
    """
    kinds = {
        column: kind.get("_type") if isinstance(kind, dict) else None
        for column, kind in features.items()
    }
    picture = next((c for c, kind in kinds.items() if kind == "Image"), None)
    labelled = [c for c, kind in kinds.items() if kind == "ClassLabel"]
    label = next((c for c in LABEL_COLUMNS if c in labelled), labelled[0] if labelled else None)
    if picture is None or label is None:
        raise DataError(
            f"{name} has the columns {few(list(features))} and no Image beside a ClassLabel; an "
            "image-classification dataset is required. Choose another, or write a CSV."
        )
    named = features[label].get("names") or []
    if not isinstance(named, list):
        raise DataError(
            f"{name}: the names of column {label!r} are {str(named)[:40]!r}; a list of class names "
            "is required. Save or download the dataset again."
        )
    names = [str(entry) for entry in named]

    def pictures() -> Iterator[Picture]:
        for number, row in enumerate(rows([picture, label]), start=1):
            where, code = f"row {number}", row[label]
            known = isinstance(code, int) and 0 <= code < len(names)
            yield Picture(where, where, row[picture], names[code] if known else None)

    return Source(name, root, pictures(), {entry: entry for entry in names})


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise DataError(
            f"{path} is not there or holds no JSON object; a dataset written by save_to_disk is "
            "required. Save it again."
        )
    return content
