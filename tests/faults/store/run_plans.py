"""A deterministic run to write, kill, damage and compare; also run as a writer process.

Usage: python run_plans.py DIRECTORY [examples]   (prints the index of every acknowledged shard)
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sightline.core.features import ARRAY_AXES, INTEGER_FEATURES, LAYERED
from sightline.core.types import Example, Generation, ImageRef, Key, Quarantined, Record
from sightline.store.run import Manifest, RunStore

N, SHARD = 10, 3
LAYERS = (2, 5)


def make_manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "run_id": "plan",
        "created": "2026-01-01T00:00:00+00:00",
        "kind": "collected",
        "model": {"name": "tiny", "revision": "1"},
        "dataset": {"name": "plan"},
        "settings": {"request": {"temperature": 1.0, "layers": [2, 5]}, "seed": 0},
        "versions": {"sightline": "0.1.0"},
        "shard_size": SHARD,
        "conditions": ("clean", "blank"),
    }
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


def make_examples(n: int = N) -> list[Example]:
    return [
        Example(
            id=f"e{i}",
            question=f"Wie viele Äpfel? {i} 🍎",
            images=(ImageRef(f"{i}.png", f"{i:064x}"),) * (i % 3),
            choices=("cat", "dog", "") if i % 2 else None,
            references=("B",) * (i % 4),
            group=f"g{i // 2}",
            question_type="count" if i % 3 else None,
            meta={"difficulty": i / 7, "hard": i % 2 == 0, "level": i, "tag": "x"},
        )
        for i in range(n)
    ]


def make_generation(rng: np.random.Generator, tokens: int) -> Generation:
    return Generation(
        text="" if tokens == 1 else "an answer\n\x00<b>é</b>",
        token_ids=rng.integers(0, 50_000, tokens),
        tokens=tuple(f"t{i}" for i in range(tokens)),
        logprobs=-rng.exponential(size=tokens),
        finish_reason="stop",
        reasoning="because" if tokens == 3 else None,
        answer_start=1 if tokens == 3 else 0,
    )


def make_record(example: Example, condition: str) -> Record:
    rng = np.random.default_rng(zlib.crc32(f"{example.id} {condition}".encode()))
    tokens = int(rng.integers(1, 5))
    samples = int(rng.integers(0, 4))
    sizes = {
        "t": tokens,
        "k": 4,
        "l": len(LAYERS),
        "d": 6,
        "c": len(example.choices or ()),
        "m": samples,
        "a": 1 + samples,
        "r": tokens,
        "s": 1 + tokens,
        "v": 2,
        "p": 3,
        "y": 3,
        "x": 2,
        "q": 2,
        "w": 1 + tokens,
    }
    features = {}
    for feature, axes in ARRAY_AXES.items():
        shape = tuple(sizes[axis] for axis in axes)
        if feature in INTEGER_FEATURES:
            features[feature] = rng.integers(0, 1000, shape).astype(np.int32)
        else:
            dtype = np.float16 if feature in LAYERED else np.float32
            features[feature] = np.asarray(rng.standard_normal(shape), dtype=dtype)
    return Record(
        example=example,
        condition=condition,
        greedy=make_generation(rng, tokens),
        samples=tuple(make_generation(rng, int(rng.integers(1, 4))) for _ in range(samples)),
        features=features,
        layers=LAYERS,
    )


def shard_rows(examples: Iterable[Example]) -> tuple[list[Record], list[Quarantined]]:
    records, quarantined = [], []
    for example in examples:
        if example.id == "e4":
            quarantined.append(Quarantined(Key("e4", "clean"), "the image is no image"))
            continue
        records += [make_record(example, condition) for condition in ("clean", "blank")]
    return records, quarantined


def write_run(path: Path, n: int = N, acknowledge: bool = False) -> RunStore:
    """Creates or resumes the run and commits what is missing, as a collect does."""
    store = RunStore.resume(path, make_manifest(), make_examples(n))
    with store.writer() as writer:
        for index in range(store.manifest.n_shards or 0):
            if index in store.committed():
                continue
            writer.commit(index, *shard_rows(store.shard_examples(index)), {"seconds": 0.5})
            if acknowledge:
                print(index, flush=True)
    return store


def compared_bytes(path: Path) -> dict[str, bytes]:
    """The files whose bytes a resumed run shares with an uninterrupted one."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in ("log.jsonl", "lock")
    }


def assert_same_generation(one: Generation | None, two: Generation | None) -> None:
    assert (one is None) == (two is None)
    if one is None or two is None:
        return
    for name in ("text", "tokens", "finish_reason", "reasoning", "answer_start"):
        assert getattr(one, name) == getattr(two, name)
    for name in ("token_ids", "logprobs"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()


def assert_same_record(one: Record, two: Record) -> None:
    """Equal to the last bit, dtypes and shapes included."""
    assert one.example == two.example
    assert (one.condition, one.truth) == (two.condition, two.truth)
    assert one.layers == two.layers
    assert_same_generation(one.greedy, two.greedy)
    assert len(one.samples) == len(two.samples)
    for a, b in zip(one.samples, two.samples, strict=True):
        assert_same_generation(a, b)
    assert one.features.keys() == two.features.keys()
    for feature, array in one.features.items():
        other = two.features[feature]
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
        assert array.tobytes() == other.tobytes()
        assert not array.flags.writeable


if __name__ == "__main__":
    write_run(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else N, acknowledge=True)
