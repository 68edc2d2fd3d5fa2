"""Speed and memory of the store: 2,000 examples x 20 tokens x 4 layers x 4096 fp16 (1.31 GB).

Prints one JSON document. Speeds are GB of array bytes per second of CPU time (user + system) of
this process; wall time stands beside it. The peer is a plain ``np.save``/``np.load`` of the same
bytes, one file a shard, no checksum, no rows, no fsync; store and peer alternate in one run, in
changing order, after one unmeasured round that touches the memory.

Run: python benchmarks/store.py [--examples 2000] [--directory /dev/shm] [--repeats 5]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from sightline.core.types import Example, Feature, Generation, Record
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
    tasks: dict[str, Callable[[Path, int], float]] = {
        "numpy_write": numpy_write,
        "store_write": store_write,
        "numpy_read": numpy_read,
        "store_read": store_read,
        "store_read_one_layer": store_read_one_layer,
    }
    drawn_states()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for turn in range(options.repeats + 1):
        folder = Path(tempfile.mkdtemp(dir=where))
        names = list(tasks)
        if turn % 2:
            names[0:4] = ["store_write", "numpy_write", "store_read", "numpy_read"]
        for name in names:
            task = tasks[name]
            cpu, wall = time.process_time(), time.perf_counter()
            gigabytes = task(folder, options.examples) / 1e9
            speeds = (
                gigabytes / (time.process_time() - cpu),
                gigabytes / (time.perf_counter() - wall),
            )
            if turn > 0:
                seen[name].append(speeds)
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
    print(json.dumps({**described(where, options.examples), **result}, indent=1))


def described(where: Path, examples: int) -> dict[str, Any]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "benchmark": "store",
        "examples": examples,
        "gigabytes": examples * BYTES_EACH / 1e9,
        "directory": str(where),
        "cpu": model,
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            name: metadata.version(name) for name in ("numpy", "pyarrow", "xxhash", "safetensors")
        },
    }


def shard_states(examples: int) -> Iterator[tuple[int, np.ndarray]]:
    """The states of each shard: drawn once, before any clock starts."""
    for index in range(-(-examples // SHARD)):
        yield index, drawn_states()


@functools.cache
def drawn_states() -> np.ndarray:
    rng = np.random.default_rng(0)
    block = rng.standard_normal((SHARD, len(LAYERS), TOKENS, WIDTH), dtype=np.float32)
    states = block.astype(np.float16)
    states.setflags(write=False)
    return states


def shard_records(store: RunStore, index: int, states: np.ndarray) -> list[Record]:
    return [
        Record(
            example,
            greedy=Generation(
                "a red cube",
                token_ids=np.arange(TOKENS),
                tokens=("t",) * TOKENS,
                logprobs=np.full(TOKENS, -0.5),
                finish_reason="stop",
            ),
            features={Feature.HIDDEN: states[i]},
            layers=LAYERS,
        )
        for i, example in enumerate(store.shard_examples(index))
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
    return RunStore.create(
        path, manifest, (Example(f"e{i}", f"What is in picture {i}?") for i in range(examples))
    )


def store_write(folder: Path, examples: int) -> float:
    store = new_store(folder / "run", examples)
    with store.writer() as writer:
        for index, states in shard_states(examples):
            writer.commit(index, shard_records(store, index, states))
    return examples * BYTES_EACH


def store_read(folder: Path, examples: int) -> float:
    total = sum(r.features[Feature.HIDDEN].nbytes for r in RunStore.open(folder / "run").records())
    assert total == examples * BYTES_EACH
    return total


def store_read_one_layer(folder: Path, examples: int) -> float:
    records = RunStore.open(folder / "run").records(features=[Feature.HIDDEN], layers=[16])
    return float(sum(record.features[Feature.HIDDEN].nbytes for record in records))


def numpy_write(folder: Path, examples: int) -> float:
    for index, states in shard_states(examples):
        np.save(folder / f"{index}.npy", states)
    return examples * BYTES_EACH


def numpy_read(folder: Path, examples: int) -> float:
    total = 0
    for index in range(-(-examples // SHARD)):
        total += np.load(folder / f"{index}.npy").nbytes
    return total


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
        store_write(folder, examples)
        store_read(folder, examples)
    finally:
        shutil.rmtree(folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
