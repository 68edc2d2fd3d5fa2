"""Merging runs of one model into one run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import StoreError
from sightline.core.features import ARRAY_AXES, Feature
from sightline.core.types import Example, Key, Quarantined, Record, Refused
from sightline.store.derived import DERIVED_FEATURES, Derivation
from sightline.store.run import RunStore
from sightline.store.schema import Manifest, canonical_json


def merge_runs(paths: Sequence[Path], out: Path, *, overwrite: bool = False) -> RunStore:
    """Writes one run that holds the rows, arrays and columns of several.

    Examples of the runs are disjoint, or the same examples under other conditions; no key may be
    in two runs. The examples keep the order of the runs. Memory holds one shard of each run.

    Args:
        paths: Complete runs of one model with the same settings.
        out: Directory of the new run.
        overwrite: Remove the run that is there.

    Raises:
        StoreError: Fewer than two runs, an unfinished one, another model or other settings, two
            examples of one id that differ, or one key in two runs.
    """
    if len({Path(path).resolve() for path in paths} - {Path(out).resolve()}) != len(paths):
        raise StoreError(
            f"Merging {', '.join(map(str, paths))} into {out}; different runs and another "
            "directory are required. Name each run once."
        )
    if len(paths) < 2:
        raise StoreError("Fewer than two runs to merge; at least two are required. Name them all.")
    runs = [RunStore.open(Path(path)) for path in paths]
    for run in runs:
        _require_mergeable(runs[0], run)
    derived, left_out = _common_derivations(runs)
    roots = {_image_root(run) for run in runs}
    examples, sources = _merged_examples(runs, absolute=len(roots) > 1)
    merged = RunStore.create(
        Path(out),
        _merged_manifest(runs, Path(out), "" if len(roots) > 1 else str(roots.pop()), left_out),
        examples,
        rejected=[row for run in runs for row in run.rejected()],
        overwrite=overwrite,
    )
    recorded = ARRAY_AXES.keys() - {f for kind in Derivation for f in DERIVED_FEATURES[kind]}
    recorded |= {f for run in runs for _, shard in run.summaries() for f in shard.features}
    shards = _ShardReader(runs, recorded)
    with merged.writer() as writer:
        for index in range(merged.manifest.n_shards or 0):
            records: list[Record] = []
            quarantined: list[Quarantined] = []
            refused: list[Refused] = []
            for example in merged.shard_examples(index):
                for number, shard in sources[example.id]:
                    for row in shards.rows(number, shard, example.id):
                        if isinstance(row, Record):
                            records.append(replace(row, example=example))
                        elif isinstance(row, Refused):
                            refused.append(row)
                        else:
                            quarantined.append(row)
            kinds = (records, quarantined, refused)
            _require_distinct([row.key for rows in kinds for row in rows], paths)
            writer.commit(index, records, quarantined, refused=refused)
    for kind, source in derived.items():
        _merge_derived(runs, merged, kind, source, sources)
    for column in _merged_columns(runs):
        merged.write_column(column)
    return merged


def _common_derivations(
    runs: Sequence[RunStore],
) -> tuple[dict[Derivation, Mapping[str, Any]], tuple[str, ...]]:
    """Sources of what every run holds whole and from one source; a note on each other one."""
    held = [run.derived() for run in runs]
    common: dict[Derivation, Mapping[str, Any]] = {}
    notes = []
    for kind in Derivation:
        found = [mine[kind] for mine in held if kind in mine]
        whole = len(found) == len(runs) and all(
            mine.shards == run.committed() for mine, run in zip(found, runs, strict=True)
        )
        if whole and len({canonical_json(dict(mine.source)) for mine in found}) == 1:
            common[kind] = found[0].source
        elif found:
            notes.append(
                f"Derived {kind.value} were left out when merging: not every run had all of them "
                "from one source."
            )
    return common, tuple(notes)


def _merge_derived(
    runs: Sequence[RunStore],
    merged: RunStore,
    kind: Derivation,
    source: Mapping[str, Any],
    sources: Mapping[str, list[tuple[int, int]]],
) -> None:
    features = DERIVED_FEATURES[kind]
    shards = _ShardReader(runs, features)
    with merged.deriver(kind, source) as writer:
        for index in writer.pending:
            records = [
                replace(row, example=example, layers=())
                for example in merged.shard_examples(index)
                for number, shard in sources[example.id]
                for row in shards.rows(number, shard, example.id)
                if isinstance(row, Record) and row.features
            ]
            writer.commit(index, records)


_Row = Record | Quarantined | Refused


class _ShardReader:
    """Rows of the source runs by example, with some features; keeps the last shard of each run."""

    def __init__(self, runs: Sequence[RunStore], features: Collection[Feature]) -> None:
        self._runs, self._features = runs, features
        self._kept: dict[int, tuple[int, dict[str, list[_Row]]]] = {}

    def rows(self, number: int, shard: int, example_id: str) -> Iterator[_Row]:
        if self._kept.get(number, (-1, {}))[0] != shard:
            self._kept.pop(number, None)
            rows: dict[str, list[_Row]] = {}
            for record in self._runs[number].records(shard=shard, features=self._features):
                rows.setdefault(record.example.id, []).append(record)
            run = self._runs[number]
            for failed in run.quarantined(shard=shard):
                rows.setdefault(failed.key.example_id, []).append(failed)
            for refused in run.refused(shard=shard):
                rows.setdefault(refused.key.example_id, []).append(refused)
            self._kept[number] = shard, rows
        yield from self._kept[number][1].get(example_id, ())


def _require_mergeable(first: RunStore, run: RunStore) -> None:
    missing = (run.manifest.n_shards or 0) - len(run.committed())
    if missing:
        raise StoreError(
            f"{run.path} lacks {missing} of {run.manifest.n_shards} shards; complete runs are "
            "required. Resume it first."
        )
    for name in ("model", "settings"):
        one, other = getattr(first.manifest, name), getattr(run.manifest, name)
        if canonical_json(one) != canonical_json(other):
            differing = sorted(
                key for key in one.keys() | other.keys() if one.get(key) != other.get(key)
            )
            raise StoreError(
                f"{first.path} and {run.path} differ in {name} ({', '.join(differing)}); runs of "
                "one model with the same settings are required. Compare them in one report instead."
            )


def _image_root(run: RunStore) -> Path:
    return Path(run.manifest.image_root or run.path).resolve()


def _merged_examples(
    runs: Sequence[RunStore], *, absolute: bool
) -> tuple[list[Example], dict[str, list[tuple[int, int]]]]:
    merged: dict[str, Example] = {}
    sources: dict[str, list[tuple[int, int]]] = {}
    for number, run in enumerate(runs):
        root = _image_root(run)
        for position, example in enumerate(run.examples()):
            known = merged.get(example.id)
            if known is not None and _content(known) != _content(example):
                raise StoreError(
                    f"Example {example.id!r} of {run.path} differs from the one of another run; "
                    "examples of one id must be the same. Merge runs of one data set."
                )
            if known is None:
                images = tuple(
                    replace(image, path=str(root / image.path)) if absolute else image
                    for image in example.images
                )
                merged[example.id] = replace(example, images=images)
            source = number, position // run.manifest.shard_size
            sources.setdefault(example.id, []).append(source)
    return list(merged.values()), sources


def _content(example: Example) -> tuple[Any, ...]:
    images = tuple(image.sha256 for image in example.images)
    meta = canonical_json(dict(example.meta))
    return replace(example, images=(), meta={}), images, meta


def _merged_manifest(
    runs: Sequence[RunStore], out: Path, image_root: str, left_out: Sequence[str]
) -> Manifest:
    manifests = [run.manifest for run in runs]
    conditions: tuple[str, ...] = ()
    if all(manifest.conditions for manifest in manifests):
        conditions = tuple(dict.fromkeys(name for m in manifests for name in m.conditions))
    partial = [m.partial for m in manifests if m.partial is not None]
    names = dict.fromkeys(str(m.dataset.get("name", "unknown")) for m in manifests)
    return Manifest(
        run_id=out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kind="merged",
        model=manifests[0].model,
        dataset={"name": " + ".join(names)},
        settings=manifests[0].settings,
        versions=manifests[0].versions,
        shard_size=manifests[0].shard_size,
        conditions=conditions,
        partial="; ".join(dict.fromkeys(partial)) or None,
        image_root=image_root,
        notes=(
            *dict.fromkeys(note for m in manifests for note in m.notes),
            f"Merged from {', '.join(str(run.path) for run in runs)}.",
            *left_out,
        ),
    )


def _require_distinct(keys: Sequence[Key], paths: Sequence[Path]) -> None:
    seen: set[Key] = set()
    for key in keys:
        if key in seen:
            raise StoreError(
                f"Key {key} is in two of {', '.join(map(str, paths))}; a key must be in one run "
                "only. Merge runs of other examples or other conditions."
            )
        seen.add(key)


def _merged_columns(runs: Sequence[RunStore]) -> Iterator[Column]:
    names: dict[tuple[ColumnKind, str], list[Column]] = {}
    for run in runs:
        for kind, name in run.columns():
            names.setdefault((kind, name), []).append(run.column(kind, name))
    for (kind, name), columns in sorted(names.items()):
        specs = list({canonical_json(dict(c.spec)): dict(c.spec) for c in columns}.values())
        yield Column(
            name=name,
            kind=kind,
            keys=tuple(key for column in columns for key in column.keys),
            values=np.concatenate([column.values for column in columns]),
            spec=specs[0] if len(specs) == 1 else {"merged": specs},
        )
