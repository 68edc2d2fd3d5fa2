"""What a golden run holds, in JSON; and how the one of format version 1 was made.

Golden runs are written once, by the release that introduced their format version, and never again:
``python tests/golden/store/golden_run.py DIRECTORY`` refuses an existing directory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sightline.core.column import Column, ColumnKind
from sightline.core.types import Example, Generation, Key, Record
from sightline.data.collected import Rejected
from sightline.store.images import image_writer
from sightline.store.run import RunStore

IMAGE = b"\x89PNG stands for an embedded image"


def describe(store: RunStore) -> dict[str, Any]:
    """Everything a run holds, each float as its exact hexadecimal form."""
    return {
        "manifest": store.manifest.to_dict(),
        "examples": [_example(example) for example in store.examples()],
        "rejected": [[row.where, row.reason] for row in store.rejected()],
        "records": [_record(record) for record in store.records()],
        "quarantined": [[*row.key, row.reason] for row in store.quarantined()],
        "columns": [_column(store.column(kind, name)) for kind, name in store.columns()],
        "log": store.log(),
    }


def _example(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "question": example.question,
        "images": [[image.path, image.sha256] for image in example.images],
        "choices": None if example.choices is None else list(example.choices),
        "references": list(example.references),
        "group": example.group,
        "question_type": example.question_type,
        "meta": dict(example.meta),
    }


def _generation(generation: Generation | None) -> dict[str, Any] | None:
    if generation is None:
        return None
    return {
        "text": generation.text,
        "token_ids": _array(generation.token_ids),
        "tokens": None if generation.tokens is None else list(generation.tokens),
        "logprobs": _array(generation.logprobs),
        "finish_reason": generation.finish_reason,
        "reasoning": generation.reasoning,
        "answer_start": generation.answer_start,
    }


def _array(array: np.ndarray | None) -> dict[str, Any] | None:
    if array is None:
        return None
    flat = array.reshape(-1).tolist()
    values = [value.hex() if isinstance(value, float) else value for value in flat]
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": values}


def _record(record: Record) -> dict[str, Any]:
    return {
        "key": list(record.key),
        "greedy": _generation(record.greedy),
        "samples": [_generation(sample) for sample in record.samples],
        "layers": list(record.layers),
        "features": {f.value: _array(array) for f, array in record.features.items()},
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind.value,
        "keys": [list(key) for key in column.keys],
        "values": _array(column.values),
        "spec": dict(column.spec),
    }


def make(path: Path) -> RunStore:
    """The run of format version 1: every feature, every optional field, quarantine and columns."""
    from run_plans import make_examples, make_manifest, shard_rows

    manifest = make_manifest(
        shard_size=4,
        partial="--limit 6 of 10",
        image_root="photos",
        notes=("A note. Ä",),
    )
    rejected = [Rejected("line 7", "no image")]
    store = RunStore.create(path, manifest, make_examples(6), rejected=rejected)
    with store.writer() as writer:
        for index in range(2):
            writer.commit(index, *shard_rows(store.shard_examples(index)), {"seconds": 0.5})
    keys = (Key("e0", "clean"), Key("e5", "blank"))
    values = np.array([0.1, 1.0])
    store.write_column(Column("labels", ColumnKind.CORRECT, keys, values, {"grader": "labels"}))
    image_writer(store.path)(IMAGE, "png")
    return store


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "faults" / "store"))
    made = make(Path(sys.argv[1]))
    expected = Path(f"{sys.argv[1]}.json")
    expected.write_text(json.dumps(describe(made), indent=1) + "\n", encoding="utf-8")
