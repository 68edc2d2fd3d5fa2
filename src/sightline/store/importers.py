"""Recorded outputs of models that ran elsewhere, turned into runs: one run per model.

Any file is read twice at most and in bounded memory: its rows are checked and sorted on disk, then
written shard by shard. What cannot be used is counted with its line and reason, never guessed.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import DataError, ImageError, StoreError
from sightline.core.printing import printable
from sightline.core.types import Example, ImageRef, Record
from sightline.data.images import hash_image_file, resolve_inside
from sightline.store.import_formats import Source, open_source
from sightline.store.import_spool import UNNAMED, Spool, SpooledRun, open_spool
from sightline.store.layout import is_run, run_path
from sightline.store.run import Manifest, RunStore

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "auto": "one of these, by what the file holds",
        "rows": "JSONL, JSON, CSV, TSV or Parquet: id, question, answer or samples, and signals",
        "lmms-eval": "per-sample log of lmms-eval (--log_samples): *_samples_*.jsonl",
        "vlmevalkit": "predictions or results of VLMEvalKit: XLSX, TSV, CSV or JSON",
        "logits": "NPZ with models, ids, group, answer_index and logits (models, items, choices)",
    }
)
"""Names of the readers, with what each reads."""

RECORDED = "recorded"
MAX_SHARD_SIZE = 256
SHARD_CHARACTERS = 32_000_000


def import_runs(
    path: Path,
    out_root: Path,
    *,
    format: str = "auto",  # noqa: A002
    overwrite: bool = False,
    shard_size: int | None = None,
) -> list[Path]:
    """Imports a file; a killed import continues where it stopped when called again.

    Recorded correctness is stored as the column ``recorded``. Images are not copied: paths are
    looked up beside the file, and what is not there is counted in the run's notes.

    Args:
        path: The file of recorded outputs.
        out_root: Folder that receives one run directory per model, named after file and model.
        format: A name of `FORMATS`.
        overwrite: Replace finished runs of the same name.
        shard_size: Examples per shard; by default as many as make a shard of moderate size.

    Returns:
        The run directories, in the order in which the models appear in the file.

    Raises:
        DataError: The file cannot be read or holds no usable row.
        UsageError: The format is unknown.
        StoreError: A run of that name is there already.
    """
    path, out_root = Path(path), Path(out_root)
    source = open_source(path, format, tuple(FORMATS))
    with open_spool(out_root, _image_finder(path.parent.resolve())) as spool:
        spool.fill(source.rows, model=source.model, dataset=source.dataset)
        if not spool.runs:
            raise DataError(
                f"{path} has no row that can be imported ({spool.rejections.total()} rejected; the "
                f"first is {printable(spool.first_reason) or 'missing'}); at least one usable row "
                "is required. Correct the rows, or choose another --format."
            )
        with path.open("rb") as file:
            source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        targets = [run_path(out_root, name) for name in _run_names(path.stem, spool)]
        finished = set() if overwrite else _finished(targets, source_sha256)
        for run, target in zip(spool.runs, targets, strict=True):
            if target not in finished:
                part = _Import(spool, run, source, path, source_sha256, shard_size)
                _write(target, part, overwrite)
    return targets


class _Import:
    """One model's part of a file, on its way into a run."""

    def __init__(
        self,
        spool: Spool,
        run: SpooledRun,
        source: Source,
        path: Path,
        source_sha256: str,
        shard_size: int | None,
    ) -> None:
        self.spool = spool
        self.run = run
        self._root = path.parent.resolve()
        self._source = source
        self._path = path
        self._source_sha256 = source_sha256
        mean = max(1, run.size // run.examples)
        self._shard_size = shard_size or max(1, min(MAX_SHARD_SIZE, SHARD_CHARACTERS // mean))

    def manifest(self, name: str) -> Manifest:
        """What the run is; its notes say what was left out."""
        run = self.run
        notes = [f"Imported from {self._path.name} ({self._source.format})."]
        own, loose = self.spool.n_rejected(run)
        if own:
            notes.append(f"{own} rows of this model were rejected; see rejected.parquet.")
        if loose:
            notes.append(f"{loose} rows of no model here were rejected; see rejected.parquet.")
        for column, count in run.unused.most_common():
            notes.append(f"{printable(column)} was not imported ({count} rows).")
        if run.without_images:
            notes.append(f"{run.without_images} examples have images that were not found.")
        return Manifest(
            run_id=name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            kind="imported",
            model={"name": run.model},
            dataset={
                "name": ", ".join(run.datasets[:3]) + (", …" if len(run.datasets) > 3 else ""),
                "source": self._path.name,
                "source_sha256": self._source_sha256,
            },
            settings={"import": self._source.format},
            versions={
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("numpy", "pyarrow", "sightline")},
            },
            shard_size=self._shard_size,
            image_root=str(self._root),
            notes=tuple(notes),
        )

    def examples(self) -> Iterator[Example]:
        """The examples in order."""
        return self.spool.examples(self.run)

    def records(self, shard: int) -> list[Record]:
        """The records of one shard."""
        start = shard * self._shard_size
        return list(self.spool.records(self.run, start, start + self._shard_size))


def _image_finder(root: Path) -> Callable[[str], ImageRef | None]:
    """Finds images in the folder beside the file; what lies elsewhere is not read."""

    @lru_cache(maxsize=100_000)
    def find(path: str) -> ImageRef | None:
        try:
            return ImageRef(path, hash_image_file(resolve_inside(path, root)))
        except ImageError:
            return None

    return find


def _write(target: Path, part: _Import, overwrite: bool) -> None:
    manifest = part.manifest(target.name)
    rejected = part.spool.rejected(part.run)
    if is_run(target) and not overwrite:
        store = RunStore.resume(target, manifest, part.examples(), rejected=rejected)
    else:
        store = RunStore.create(
            target, manifest, part.examples(), rejected=rejected, overwrite=overwrite
        )
    graded = list(part.spool.correct(part.run))
    if graded:  # before the shards, so that a run with all of its shards is whole
        column = Column(
            name=RECORDED,
            kind=ColumnKind.CORRECT,
            keys=tuple(key for key, _ in graded),
            values=np.array([value for _, value in graded]),
            spec={"name": RECORDED, "source": manifest.dataset["source"]},
        )
        store.write_column(column, replace=True)
    with store.writer() as writer:
        for shard in range(store.manifest.n_shards or 0):
            if shard not in store.committed():
                writer.commit(shard, part.records(shard))


def _finished(targets: Sequence[Path], source_sha256: str) -> set[Path]:
    """Runs that a killed import of the same file has finished; others that are there are an error.

    Raises:
        StoreError: All runs are finished, or one is of another file.
    """
    finished = set()
    for target in targets:
        if not is_run(target):
            continue
        store = RunStore.open(target)
        same = store.manifest.dataset.get("source_sha256") == source_sha256
        if not same or len(store.committed()) == store.manifest.n_shards:
            finished.add(target)
        if not same or len(finished) == len(targets):
            raise StoreError(
                f"{target} already holds a run; a new import requires a directory of its own. "
                "Choose another output folder, or replace it with --overwrite."
            )
    return finished


def _run_names(stem: str, spool: Spool) -> list[str]:
    """A directory name for each model: the file's name and the model's, made safe and unique."""
    names: list[str] = []
    for run in spool.runs:
        name = _safe(stem, 48) or "import"
        if run.model != UNNAMED:
            name = f"{name}.{_safe(run.model, 64) or 'model'}"
        unique, count = name, 2
        while unique.casefold() in (known.casefold() for known in names):
            unique, count = f"{name}-{count}", count + 1
        names.append(unique)
    return names


def _safe(text: str, limit: int) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+|\.{2,}", "-", text)[:limit].strip(".-")
