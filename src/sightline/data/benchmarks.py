"""Published benchmarks from local files in the layout they are distributed in.

A source is ``NAME:PATH?SETTING=VALUE``, such as ``pope:coco_pope_adversarial.json``. Which rows are
asked is a rule of each benchmark; those it leaves out are counted by rule and shown with every
result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qsl

from sightline.core.errors import DataError, UsageError
from sightline.data.benchmark_rows import (
    Settings,
    aokvqa_row,
    mmbench_row,
    mmmu_row,
    pope_row,
    seedbench_row,
    vizwiz_row,
)
from sightline.data.readers import Row, is_folder, read_rows

Files = Callable[[Path, Settings], Iterator[tuple[Path, str | None, Settings]]]

_POPE = re.compile(r"pope_(random|popular|adversarial)\.jsonl?")
_NAMED = 8


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How one benchmark is distributed.

    Attributes:
        title: Its name.
        columns: Columns that every row has; ``a|b`` is either.
        read: Makes a row of recognised columns of one of its rows.
        files: The files of a path, the form of each where its suffix does not say it, and settings.
        settings: The values of each setting, the default first.
        folders: Where its images lie beside the file, the first that exists; ``{stem}`` is the
            file's name without its suffix.
    """

    title: str
    columns: tuple[str, ...]
    read: Callable[[Row, Settings], Row]
    files: Files
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    folders: tuple[str, ...] = ()


def is_benchmark(source: str) -> bool:
    """Whether a source names a benchmark, as ``pope:FILE`` does."""
    name, colon, _ = source.partition(":")
    return bool(colon) and name in BENCHMARKS


def open_benchmark(source: str, images: Path | None) -> tuple[str, Iterator[Row], Path]:
    """Opens ``NAME:PATH?SETTING=VALUE``.

    Args:
        source: What `is_benchmark` recognises.
        images: Folder of the images, or one that holds the folder they are distributed in; the
            file's own if None.

    Returns:
        The name of the source, its rows, and the folder that image paths start from.

    Raises:
        UsageError: A setting or value that does not exist.
        DataError: The path holds no file of the benchmark.
    """
    name, _, rest = source.partition(":")
    benchmark = BENCHMARKS[name]
    path, settings, given = _settings(benchmark, rest, source)
    files = list(benchmark.files(path, settings))
    home = images or (path if is_folder(path) else path.parent)
    folders = (home / folder.format(stem=path.stem) for folder in benchmark.folders)
    root = next(filter(is_folder, folders), home)
    label = (path.name or path.resolve().name).encode(errors="replace").decode()
    return f"{name}:{label}{given}", _rows(benchmark, path, files), root


def _settings(benchmark: Benchmark, rest: str, source: str) -> tuple[Path, dict[str, str], str]:
    """The path, every setting with its value, and those given, as text."""
    text, _, query = rest.partition("?")
    settings = {key: values[0] for key, values in benchmark.settings.items()}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if value not in benchmark.settings.get(key, ()):
            known = [f"{k}={'|'.join(v)}" for k, v in benchmark.settings.items()]
            raise UsageError(
                f"{source} sets {key[:40]}={value[:40]!r}; {benchmark.title} knows "
                f"{', '.join(known) or 'no settings'}. Correct or leave out what follows the '?'."
            )
        settings[key] = value
    if not text:
        raise UsageError(
            f"{source} names no file; the files of {benchmark.title} are required. Write "
            f"{source.partition(':')[0]}:PATH."
        )
    return Path(text), settings, f"?{query}" if query else ""


def _rows(
    benchmark: Benchmark, path: Path, files: list[tuple[Path, str | None, Settings]]
) -> Iterator[Row]:
    for file, form, settings in files:
        prefix = "" if file == path else f"{file.relative_to(path)} "
        for row in read_rows(file, form):
            found = row if row.error is not None else _row(benchmark, row, settings)
            yield Row(f"{prefix}{row.where}", found.fields, found.error, found.left_out)


def _row(benchmark: Benchmark, row: Row, settings: Settings) -> Row:
    names = row.fields.keys()
    for column in benchmark.columns:
        if names.isdisjoint(column.split("|")):
            found = ", ".join(map(repr, [*names][:_NAMED]))
            wanted = column.replace("|", "' or '")
            reason = f"no column '{wanted}' of {benchmark.title}, only {found}"
            return Row(row.where, {}, error=reason)
    return benchmark.read(row, settings)


def _one_file(path: Path, settings: Settings) -> Iterator[tuple[Path, str | None, Settings]]:
    if is_folder(path):
        raise DataError(
            f"{path} is a folder; the benchmark's file is required. Name the file in it."
        )
    yield path, None, settings


def _pope_files(path: Path, settings: Settings) -> Iterator[tuple[Path, str | None, Settings]]:
    """A file of questions, or those of a folder; their suffix says JSON, but they hold lines."""
    files = [path]
    if is_folder(path):
        files = sorted(file for file in path.iterdir() if _POPE.search(file.name))
        if not files:
            raise DataError(
                f"{path} has no file named …pope_random.json, …pope_popular.json or "
                "…pope_adversarial.json; one is required. Name the file itself."
            )
    for file in files:
        named = _POPE.search(file.name)
        own = settings if named is None else {**settings, "negatives": named[1]}
        yield file, _json_form(file), own


def _json_form(path: Path) -> str | None:
    """JSON that begins with an object is read by lines; a list as a whole."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return None  # reading it will say why
    return ".json" if start.startswith(b"[") else ".jsonl"


def _mmmu_files(path: Path, settings: Settings) -> Iterator[tuple[Path, str | None, Settings]]:
    """A table, or those of a split in a folder: beside one another, or in a folder a subject."""
    if not is_folder(path):
        yield path, None, settings
        return
    split = settings["split"]
    of_split = re.compile(rf"(?:.*[/-])?{split}[-./].*\.(?:parquet|arrow)")
    files = [file for file in path.rglob("*") if file.suffix in (".parquet", ".arrow")]
    chosen = [file for file in files if of_split.fullmatch(file.relative_to(path).as_posix())]
    if not chosen:
        raise DataError(
            f"{path} has {len(files)} Parquet or Arrow files, none of them of the split {split}; "
            f"files named like {split}-00000-of-00001.parquet are required. Check the folder or "
            "set ?split=."
        )
    for file in sorted(chosen):
        yield file, None, settings


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "seedbench": Benchmark(
            title="SEED-Bench",
            columns=(
                *("question_id", "question", "choice_a", "choice_b", "choice_c", "choice_d"),
                *("answer", "data_type", "question_type_id", "data_id|image"),
            ),
            read=seedbench_row,
            files=_one_file,
            folders=("SEED-Bench-image",),
        ),
        "mmbench": Benchmark(
            title="MMBench",
            columns=("index", "question", "A", "B", "image|image_path"),
            read=mmbench_row,
            files=_one_file,
            settings=MappingProxyType({"circular": ("drop", "keep")}),
        ),
        "mmmu": Benchmark(
            title="MMMU",
            columns=("id", "question", "options", "question_type", "image_1"),
            read=mmmu_row,
            files=_mmmu_files,
            settings=MappingProxyType(
                {"split": ("validation", "dev", "test"), "images": ("any", "one")}
            ),
        ),
        "pope": Benchmark(
            title="POPE",
            columns=("question_id", "image", "text", "label"),
            read=pope_row,
            files=_pope_files,
            folders=("val2014",),
        ),
        "aokvqa": Benchmark(
            title="A-OKVQA",
            columns=("question_id", "question", "choices", "image_id|image", "split|image"),
            read=aokvqa_row,
            files=_one_file,
            settings=MappingProxyType({"form": ("choices", "direct")}),
        ),
        "vizwiz": Benchmark(
            title="VizWiz",
            columns=("image", "question"),
            read=vizwiz_row,
            files=_one_file,
            settings=MappingProxyType({"unanswerable": ("keep", "drop")}),
            folders=("{stem}", "images/{stem}", "Images/{stem}"),
        ),
    }
)
"""Every benchmark that is read by its own rules, by the name its sources begin with."""
