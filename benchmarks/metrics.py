"""Speed of the metrics: the full table with its bootstrap, and single metrics on a million rows.

Prints one JSON document. Ratios are taken in one run: single metrics against one ``numpy.argsort``
of the same array and against scikit-learn, the calibrators against scikit-learn's isotonic fit.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from hardware import hardware
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from sightline.calibration import CALIBRATORS
from sightline.metrics import METRICS
from sightline.metrics.intervals import Sample, cluster_bootstrap

REPEATS = 7


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, taking turns, so that a busy machine slows all alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            taken[name].append(seconds(work))
    return {name: statistics.median(values) for name, values in taken.items()}


def full_table(n: int = 10_000, estimators: int = 10, resamples: int = 1000) -> dict[str, object]:
    rng = np.random.default_rng(0)
    correct = (rng.random(n) < 0.7).astype(float)
    logits = rng.normal(size=(estimators, n)) + 1.2 * correct
    sample = Sample(1 / (1 + np.exp(-logits)), correct, np.arange(n))
    cpu = time.process_time()
    wall = seconds(
        lambda: cluster_bootstrap(
            [sample], metrics=tuple(METRICS), n_resamples=resamples, rng=np.random.default_rng(0)
        )
    )
    return {
        "rows": n,
        "estimators": estimators,
        "metrics": len(METRICS),
        "resamples": resamples,
        "wall_s": round(wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "target_wall_s": 20,
    }


def million_rows(n: int = 1_000_000) -> dict[str, object]:
    rng = np.random.default_rng(0)
    confidence = rng.random(n)
    correct = (rng.random(n) < confidence).astype(float)
    names = ("auroc", "aurc", "prr", "fpr95", "ece", "brier")
    works: dict[str, Callable[[], object]] = {"argsort": lambda: np.argsort(confidence)}
    for name in names:
        works[name] = lambda name=name: METRICS[name].function(confidence, correct)
    works["sklearn_roc_auc_score"] = lambda: roc_auc_score(correct, confidence)
    medians = interleaved(works)
    return {
        "rows": n,
        "median_ms": {name: round(1000 * value, 1) for name, value in medians.items()},
        "times_argsort": {
            name: round(value / medians["argsort"], 2)
            for name, value in medians.items()
            if name != "argsort"
        },
        "target_times_argsort": {"auroc": 3, "aurc": 3, "prr": 3},
    }


def calibrators(n: int = 100_000) -> dict[str, object]:
    rng = np.random.default_rng(0)
    uncertainty = rng.random(n)
    correct = (rng.random(n) > uncertainty).astype(float)
    works: dict[str, Callable[[], object]] = {
        name: lambda calibrator=calibrator: calibrator.fit(uncertainty, correct)
        for name, calibrator in CALIBRATORS.items()
    }
    works["sklearn_isotonic"] = lambda: IsotonicRegression().fit(-uncertainty, correct)
    return {
        "rows": n,
        "median_ms": {name: round(1000 * value, 1) for name, value in interleaved(works).items()},
    }


def main() -> None:
    document = {
        "benchmark": "metrics",
        "hardware": hardware("numpy", "scikit-learn"),
        "full_table": full_table(),
        "million_rows": million_rows(),
        "calibrators": calibrators(),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
