"""Time and memory of classifying and evaluating with very many classes.

Prints one JSON document. A stand-in for a model (width 512, noisy directions of classes) embeds
tiny pictures, so that what is measured is everything but the model: reading, storing, scoring with
support sets, calibrating, intervals.

Usage: python benchmarks/classifier_scale.py [--classes 10000] [--pictures 20000] [--draws 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware
from PIL import Image

from sightline.data.image_sets import load_image_set, with_classes
from sightline.workflow.classifying.collecting import SupportPlan, classify
from sightline.workflow.classifying.embedding import ModelEncoder
from sightline.workflow.classifying.evaluating import evaluate_classifier
from sightline.workflow.evaluate import Settings

WIDTH, NOISE = 512, 4.0


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class StandIn:
    """Directions of classes; a picture's middle pixel is its class, its first seeds the noise."""

    directions: np.ndarray
    noise: float
    scale: float = 100.0
    bias: float = 0.0
    sigmoid: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """What stands for a model's own."""
        return {"name": "stand-in", "noise": self.noise}

    def image_vectors(self, images: list[Image.Image]) -> np.ndarray:
        """The class's direction with noise."""
        codes = np.array([np.asarray(i, dtype=np.int64)[0] @ (65536, 256, 1) for i in images])
        noise = [np.random.default_rng(int(s)).normal(size=WIDTH) for s in codes[:, 0]]
        rows = self.directions[codes[:, 1]] + self.noise * unit(np.array(noise))
        return unit(rows).astype(np.float32)

    vectors = image_vectors

    def text_vectors(self, texts: list[str]) -> np.ndarray:
        """The directions of the classes named."""
        return self.directions[[int(text.split()[-1]) for text in texts]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument(
        "--scores", help="Names joined by commas; all that are not slow if left out."
    )
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    directions = unit(rng.normal(size=(options.classes, WIDTH))).astype(np.float32)
    model, better = StandIn(directions, NOISE), StandIn(directions, NOISE / 2)
    steps: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [f"class {i}" for i in range(options.classes)]
        step(steps, "write pictures", lambda: write(folder, options.pictures, names, rng))
        found: dict[str, Any] = {}

        def read() -> None:
            for part in ("test", "pool"):
                found[part] = load_image_set(folder / f"{part}.csv", classes=names)

        def embed() -> None:
            encoders = [ModelEncoder("better", better, WIDTH)]
            plan = SupportPlan(with_classes(found["pool"], names), shots=2, draws=options.draws)
            classify(
                model, found["test"], folder / "run", templates=("{}",), encoders=encoders,
                views=("mirror",), support=plan,
            )  # fmt: skip

        def evaluate() -> None:
            scores = None if options.scores is None else tuple(options.scores.split(","))
            settings = Settings(estimators=scores)
            found["result"] = evaluate_classifier(folder / "run", settings).evaluation

        step(steps, "read and hash pictures", read)
        step(steps, "classify", embed)
        step(steps, "evaluate", evaluate)
    result = found["result"]
    document = {
        "benchmark": "classifier_scale",
        "hardware": hardware("numpy", "pyarrow"),
        "classes": options.classes,
        "pictures": options.pictures,
        "support_pictures": 3 * options.classes,
        "draws": options.draws,
        "scores": len(result.classifier.scores),
        "not_computed": {row.name: row.reasons[0].reason[:120] for row in result.not_applicable},
        "steps": steps,
    }
    print(json.dumps(document, indent=1))


def write(folder: Path, count: int, names: list[str], rng: np.random.Generator) -> None:
    """Pictures of random classes, and three of every class to draw support from."""
    every = np.arange(len(names))
    for part, labels in (
        ("test", rng.integers(len(names), size=count)),
        ("pool", np.concatenate([every, every, every])),
    ):
        (folder / part).mkdir()
        lines = ["path,label"]
        for at, label in enumerate(labels.tolist()):
            pixels = np.zeros((1, 3, 3), dtype=np.uint8)
            seed = at + (1 << 20 if part == "pool" else 0)
            for x, code in enumerate((seed, label, seed + (1 << 21))):
                pixels[0, x] = code >> 16, code >> 8 & 255, code & 255
            Image.fromarray(pixels).save(folder / part / f"{at}.png")
            lines.append(f"{part}/{at}.png,{names[label]}")
        (folder / f"{part}.csv").write_text("\n".join(lines))


def step(steps: dict[str, dict[str, float]], name: str, work: Callable[[], object]) -> None:
    start = time.perf_counter(), time.process_time()
    work()
    steps[name] = {
        "wall_s": round(time.perf_counter() - start[0], 1),
        "cpu_s": round(time.process_time() - start[1], 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    main()
