"""Speed of scoring a zero-shot classifier from stored vectors.

Prints one JSON document. Throughput is held against the machine's single-precision matrix product
of the same shapes, timed between the passes of the same run: in wall time, which is what counts on
a quiet machine, and in CPU time, which changes less where other work shares it.

- ``streamed``: maximum softmax and κ of stored float16 vectors that are read from files of 100,000
  images, each mapped, checked and scored before the next one is opened. Checks are timed apart.
- ``together``: all scores at once, with 16 support pictures a class. What cannot be fitted to so
  many classes is named.

Blocks are scored on all processors at once; the matrix library needs no threads of its own, and
its waiting for each other costs much where other work shares the machine.

Usage: OMP_NUM_THREADS=1 python benchmarks/zeroshot.py [1000000 images streamed] [50000 for all]
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hardware import hardware

from sightline.core.errors import DataError
from sightline.zeroshot import ZERO_SHOT_SCORES, ClassifierOutputs, ClassTexts, Support, score_all

WIDTH, CLASSES, SHOTS = 512, 1000, 16
PART = 100_000
REPEATS = 3


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Seconds:
    """What something took."""

    wall: float
    cpu: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)


def timed(work: Callable[[], object]) -> Seconds:
    start = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - start[0], time.process_time() - start[1])


def product() -> Seconds:
    """The fastest of several large products on all processors, per image."""
    rng = np.random.default_rng(0)
    a, b = unit(rng, 8192, WIDTH), unit(rng, CLASSES, WIDTH)
    count = os.cpu_count() or 1
    outs = [np.empty((8192, CLASSES), dtype=np.float32) for _ in range(count)]
    with ThreadPoolExecutor(count) as threads:
        # The library's own threads would need no others; with one of its own, these fill the rest.
        took = [
            timed(lambda: list(threads.map(lambda out: np.matmul(a, b.T, out=out), outs)))
            for _ in range(5)
        ]
    n = 8192 * count
    return Seconds(min(t.wall for t in took) / n, min(t.cpu for t in took) / n)


def texts_and_support() -> tuple[ClassTexts, Support]:
    rng = np.random.default_rng(1)
    texts = ClassTexts(
        tuple(map(str, range(CLASSES))),
        unit(rng, CLASSES, WIDTH),
        logit_scale=100.0,
        templates=unit(rng, 4, CLASSES, WIDTH),
    )
    labels = np.repeat(np.arange(CLASSES), SHOTS)
    # Noisy enough that the classifier is wrong on some.
    noise = 4.0 * unit(rng, len(labels), WIDTH) * np.sqrt(rng.random((len(labels), 1)) + 3)
    images = texts.vectors[labels] + noise
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    views = np.stack([images, images])
    return texts, Support(
        images.astype(np.float32), labels, unit(rng, len(labels), WIDTH), views.astype(np.float32)
    )


def write_part(directory: Path, start: int, count: int, rng: np.random.Generator) -> None:
    for name in ("image", "aux"):
        with (directory / f"{name}{start}").open("wb") as file:
            for at in range(0, count, 10_000):
                file.write(unit(rng, min(10_000, count - at), WIDTH).astype(np.float16).tobytes())


def streamed(n: int) -> dict[str, object]:
    """MSP and κ over float16 files that are written first."""
    texts, support = texts_and_support()
    rng = np.random.default_rng(2)
    names = {"msp": "msp", "kappa": "trustvlm_aux"}
    fitted = {k: ZERO_SHOT_SCORES[v].fit(texts, support, rng) for k, v in names.items()}
    starts = range(0, n, PART)
    shares: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for start in starts:
            write_part(directory, start, min(PART, n - start), rng)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        checks = Seconds(0.0, 0.0)
        for turn in range(REPEATS):
            for name, one in fitted.items():
                took, bare = Seconds(0.0, 0.0), []
                for start in starts:
                    shape = (min(PART, n - start), WIDTH)
                    image, aux = (
                        np.memmap(directory / f"{kind}{start}", np.float16, "r", shape=shape)
                        for kind in ("image", "aux")
                    )
                    begun = time.perf_counter(), time.process_time()
                    outputs = ClassifierOutputs(texts, image, aux)
                    if not turn:
                        checks += Seconds(
                            time.perf_counter() - begun[0], time.process_time() - begun[1]
                        )
                    bare.append(product())
                    took += timed(lambda o=outputs, n=name, f=one: score_all({n: f}, o))
                shares[name].append(
                    (
                        statistics.median(p.wall for p in bare) * n / took.wall,
                        statistics.median(p.cpu for p in bare) * n / took.cpu,
                    )
                )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rate = product()
    return {
        "images": n,
        "classes": CLASSES,
        "width": WIDTH,
        "share_of_product_rate": {
            k: {
                "wall": round(statistics.median(w for w, _ in v), 3),
                "cpu": round(statistics.median(c for _, c in v), 3),
            }
            for k, v in shares.items()
        },
        "each_pass_wall": {k: [round(w, 3) for w, _ in v] for k, v in shares.items()},
        "product_gflops": round(2 * WIDTH * CLASSES / rate.wall / 1e9, 1),
        "check_s": {
            "wall": round(checks.wall / len(names), 2),
            "cpu": round(checks.cpu / len(names), 2),
        },
        "peak_rss_mib": round(peak / 1024),
        "peak_rss_before_scoring_mib": round(before / 1024),
        "target": "at least 0.6 of the product rate, at most 2048 MiB",
    }


def together(n: int) -> dict[str, object]:
    """All scores of the table that can be fitted to this many classes."""
    texts, support = texts_and_support()
    rng = np.random.default_rng(3)
    outputs = ClassifierOutputs(
        texts, unit(rng, n, WIDTH), unit(rng, n, WIDTH), unit(rng, 2, n, WIDTH)
    )
    fits: dict[str, float] = {}
    fitted = {}
    refused = {}
    for name, entry in ZERO_SHOT_SCORES.items():
        start = time.process_time()
        try:
            fitted[name] = entry.fit(texts, support, rng)
        except DataError as error:
            refused[name] = str(error)
            continue
        fits[name] = round(time.process_time() - start, 2)
    took = timed(lambda: score_all(fitted, outputs))
    alone = {}
    small = ClassifierOutputs(
        texts, outputs.image[:4096], outputs.aux[:4096], outputs.views[:, :4096]
    )
    for name, one in fitted.items():
        alone[name] = round(timed(lambda one=one: score_all({"": one}, small)).cpu / 4.096, 3)
    return {
        "images": n,
        "classes": CLASSES,
        "shots": SHOTS,
        "templates": 4,
        "views": 2,
        "scores": len(fitted),
        "refused": refused,
        "wall_s": round(took.wall, 1),
        "cpu_s": round(took.cpu, 1),
        "target": "50,000 images in less than 15 s on 2 cores",
        "cpu_ms_per_image_alone": alone,
        "fit_cpu_s": fits,
    }


def main() -> None:
    sizes = [int(value) for value in sys.argv[1:]]
    document = {
        "benchmark": "zeroshot",
        "hardware": hardware("numpy"),
        "streamed": streamed(sizes[0] if sizes else 1_000_000),
        "together": together(sizes[1] if len(sizes) > 1 else 50_000),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
