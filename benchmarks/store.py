"""Speed and memory of the store: 2,000 examples x 20 tokens x 4 layers x 4096 fp16 (1.31 GB).

Prints one JSON document. Speeds are GB of array bytes per second of CPU time (user + system) of
this process; wall time stands beside it. Writing is timed from records to committed shards, reading
from a closed run to checked records. The peer is a plain ``np.save``/``np.load`` of the same
bytes, one file a shard, no checksum, no rows, no fsync; store and peer alternate in one run, in
changing order, after one unmeasured round that touches the memory.

Run: python benchmarks/store.py [--examples 2000] [--directory /dev/shm] [--repeats 5]
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.store.run import Manifest, RunStore

TOKENS, LAYERS, WIDTH, SHARD = 20, (8, 16, 24, 32), 4096, 50
BYTES_EACH = TOKENS * len(LAYERS) * WIDTH * 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.grow is not None:
        print(json.dumps(grow(options.directory, options.grow)))
        return
    where = options.directory if options.directory.is_dir() else Path(tempfile.gettempdir())
    records = list(shards_of_records(options.examples))
    tasks: dict[str, Callable[[Path], float]] = {
        "numpy_write": lambda folder: numpy_write(folder, len(records)),
        "store_write": lambda folder: store_write(folder, options.examples, records),
        "numpy_read": lambda folder: numpy_read(folder, len(records)),
        "store_read": store_read,
        "store_read_one_layer": store_read_one_layer,
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for turn in range(options.repeats + 1):
        folder = Path(tempfile.mkdtemp(dir=where))
        names = list(tasks)
        if turn % 2:
            names[0:4] = ["store_write", "numpy_write", "store_read", "numpy_read"]
        for name in names:
            cpu, wall = time.process_time(), time.perf_counter()
            gigabytes = tasks[name](folder) / 1e9
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn > 0:
                seen[name].append((gigabytes / cpu, gigabytes / wall))
        shutil.rmtree(folder)
    result: dict[str, Any] = {
        name: {
            "gb_per_cpu_s": round(statistics.median(cpu for cpu, _ in runs), 3),
            "gb_per_wall_s": round(statistics.median(wall for _, wall in runs), 3),
            "repeats": [round(cpu, 3) for cpu, _ in runs],
        }
        for name, runs in seen.items()
    }
    for kind in ("write", "read"):
        ratios = [
            ours[0] / theirs[0]
            for ours, theirs in zip(seen[f"store_{kind}"], seen[f"numpy_{kind}"], strict=True)
        ]
        result[f"{kind}_speed_relative_to_numpy"] = round(statistics.median(ratios), 3)
    result["memory_while_growing"] = growth(where, options.examples)
    result["gates"] = {
        "write_at_least_0.8": result["store_write"]["gb_per_cpu_s"] >= 0.8,
        "read_at_least_1.0": result["store_read"]["gb_per_cpu_s"] >= 1.0,
    }
    document = {
        "benchmark": "store",
        "hardware": hardware("numpy", "pyarrow", "xxhash", "safetensors"),
        "examples": options.examples,
        "gigabytes": options.examples * BYTES_EACH / 1e9,
        "directory": str(where),
        **result,
    }
    print(json.dumps(document, indent=1))


@functools.cache
def states() -> np.ndarray:
    """The hidden states of one shard, used for all: drawn once, before any clock starts."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((SHARD, len(LAYERS), TOKENS, WIDTH), dtype=np.float32)
    drawn = drawn.astype(np.float16)
    drawn.setflags(write=False)
    return drawn


def make_example(number: int) -> Example:
    return Example(f"e{number}", f"What is in picture {number}?")


def shards_of_records(examples: int) -> Iterator[list[Record]]:
    for start in range(0, examples, SHARD):
        yield [
            Record(
                make_example(start + i),
                greedy=Generation(
                    "a red cube",
                    token_ids=np.arange(TOKENS),
                    tokens=("t",) * TOKENS,
                    logprobs=np.full(TOKENS, -0.5),
                    finish_reason="stop",
                ),
                features={Feature.HIDDEN: states()[i]},
                layers=LAYERS,
            )
            for i in range(min(SHARD, examples - start))
        ]


def new_store(path: Path, examples: int) -> RunStore:
    manifest = Manifest(
        run_id="benchmark",
        created="2026-01-01T00:00:00+00:00",
        kind="collected",
        model={"name": "none"},
        dataset={"name": "none"},
        settings={},
        versions={},
        shard_size=SHARD,
    )
    return RunStore.create(path, manifest, map(make_example, range(examples)))


def store_write(folder: Path, examples: int, shards: Iterable[list[Record]]) -> float:
    store = new_store(folder / "run", examples)
    with store.writer() as writer:
        for index, records in enumerate(shards):
            writer.commit(index, records)
    return examples * BYTES_EACH


def store_read(folder: Path) -> float:
    records = RunStore.open(folder / "run").records()
    return float(sum(record.features[Feature.HIDDEN].nbytes for record in records))


def store_read_one_layer(folder: Path) -> float:
    records = RunStore.open(folder / "run").records(features=[Feature.HIDDEN], layers=[16])
    return float(sum(record.features[Feature.HIDDEN].nbytes for record in records))


def numpy_write(folder: Path, shards: int) -> float:
    for index in range(shards):
        np.save(folder / f"{index}.npy", states())
    return shards * states().nbytes


def numpy_read(folder: Path, shards: int) -> float:
    return float(sum(np.load(folder / f"{index}.npy").nbytes for index in range(shards)))


def growth(where: Path, examples: int) -> dict[str, float]:
    """Peak memory of fresh processes that write and read a run of a tenth and of the full size."""
    peaks = {}
    for size in (examples // 10, examples):
        done = subprocess.run(
            [sys.executable, __file__, "--grow", str(size), "--directory", str(where)],
            check=True,
            capture_output=True,
        )
        peaks[f"peak_mb_{size}_examples"] = json.loads(done.stdout)
    return peaks


def grow(where: Path, examples: int) -> float:
    folder = Path(tempfile.mkdtemp(dir=where))
    try:
        store_write(folder, examples, shards_of_records(examples))
        store_read(folder)
    finally:
        shutil.rmtree(folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
