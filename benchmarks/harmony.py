"""Cost of HARMONY: fitting on 2,000 answers, and scoring an answer beside generating it.

Prints one JSON document. Processor seconds are given beside wall seconds, since other work slows
the latter; shares are of processor time.

- ``fit``: `Harmony` with its defaults on graded answers of the embedded model, layer and penalty
  chosen; and LARS.
- ``embedded``, ``random_30m``: greedy answers collected with hidden states, one question at a time
  as a server answers them, and each scored by itself. The answers of the random model have 10
  tokens, its images 576; nothing can be learned from it, only the cost is of interest.
- ``flops_7b``: multiply-adds counted twice, of a model of 7 billion parameters with states 4,096
  wide that reads 650 positions and generates 10 tokens, and of a score of that answer.

Gates: fit at most 120 s on two processors; share of scoring at most 2 % on the random model and
by FLOPs.

Run: python benchmarks/harmony.py [--answers 2000] [--questions 10] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware
from random_llava import build, questions

from sightline.core.features import Feature
from sightline.core.protocols import LearnedEstimator, Request
from sightline.core.types import Record
from sightline.data.examples import Dataset, load_dataset
from sightline.estimators import ESTIMATORS
from sightline.estimators.token_sequence import ANSWER_TOKENS, QUESTION_WORDS
from sightline.estimators.token_transformer import DEPTH, WIDTH
from sightline.models import load_model
from sightline.store.images import image_writer
from sightline.store.run import RunStore
from sightline.workflow.collect import collect
from sightline.workflow.evaluate import Settings, read_judged
from sightline.workflow.judged import JudgedRows

NEEDED = (Feature.HIDDEN,)
TOKENS, PARAMETERS, STATE, PROMPT = 10, 7e9, 4096, 650


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def request(tokens: int) -> Request:
    return Request(max_new_tokens=tokens, layers=(0.25, 0.5, 0.75, 1.0))


def embedded(folder: Path, count: int) -> tuple[Any, JudgedRows]:
    """The embedded model, and its graded answers."""
    model = load_model("embedded:vlm-prior")
    dataset = load_dataset(f"scenes:calibration?n={count}", store_image=image_writer(folder))
    collect(model, dataset, folder, request=request(24), batch_size=32, shard_size=256)
    return model, read_judged(RunStore.open(folder), Settings(seeds=1), NEEDED).rows


def fitting(rows: JudgedRows) -> tuple[dict[str, object], dict[str, Any]]:
    document: dict[str, object] = {"answers": len(rows.records), "gate_s": 120}
    fitted = {}
    for name in ("harmony", "lars"):
        estimator = ESTIMATORS[name]
        assert isinstance(estimator, LearnedEstimator)
        rng = np.random.default_rng(0)
        fitted[name], wall, cpu = timed(
            lambda e=estimator, r=rng: e.fit(rows.records, rows.correct, rng=r)
        )
        document[name] = {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}
    return document, fitted


def one_at_a_time(
    model: Any, load: Callable[[Path], Dataset], path: Path, tokens: int
) -> tuple[float, list[Record]]:
    """Processor seconds of an answer, generated in batches of one and stored; and the answers."""
    dataset = load(path)
    collecting = timed(lambda: collect(model, dataset, path, request=request(tokens), batch_size=1))
    return collecting[2] / len(dataset.examples), list(RunStore.open(path).records(features=NEEDED))


def shares(rounds: Sequence[tuple[float, list[Record]]], fitted: Any) -> dict[str, object]:
    """Medians over the rounds; within a round the median answer's score, each scored by itself."""
    scored, together = [], []
    for _, records in rounds:
        fitted.uncertainty(records[:2])
        alone = [timed(lambda r=r: fitted.uncertainty([r]))[2] for r in records]
        scored.append(statistics.median(alone))
        together.append(timed(lambda r=records: fitted.uncertainty(r))[2] / len(records))
    lengths = [len(r.answer.logprobs) for r in rounds[0][1] if r.answer.logprobs is not None]
    return {
        "rounds": len(rounds),
        "questions": len(rounds[0][1]),
        "tokens": statistics.median(lengths),
        "generate_cpu_ms": round(1e3 * statistics.median(s for s, _ in rounds), 2),
        "score_cpu_ms": round(1e3 * statistics.median(scored), 2),
        "score_of_many_cpu_ms": round(1e3 * statistics.median(together), 2),
        "share": round(
            statistics.median(s / g for s, (g, _) in zip(scored, rounds, strict=True)), 4
        ),
    }


def flops() -> dict[str, float]:
    """Counts a score of the longest question and of ten tokens with three positions each."""
    generate = 2 * PARAMETERS * (PROMPT + TOKENS)
    positions = 3 + QUESTION_WORDS + 3 * TOKENS
    project = 2 * TOKENS * STATE * WIDTH
    block = 2 * positions * (4 * WIDTH**2 + 4 * WIDTH**2) + 4 * positions**2 * WIDTH
    start = 2 * (STATE + 2 * (QUESTION_WORDS + ANSWER_TOKENS))
    score = project + DEPTH * block + start
    return {"generate": generate, "score": score, "share": score / generate, "gate": 0.02}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    document: dict[str, object] = {
        "benchmark": "harmony",
        "hardware": hardware("numpy", "torch", "scikit-learn"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, rows = embedded(folder / "fit", options.answers)
        document["fit"], fitted = fitting(rows)
        count = options.questions

        def scenes(path: Path) -> Dataset:
            return load_dataset(f"scenes:calibration?n={count}", store_image=image_writer(path))

        def noise(path: Path) -> Dataset:
            return Dataset("random", tuple(questions(count, path, choices=False)), (), "0" * 64)

        def rounds(of: Any, load: Callable[[Path], Dataset], tokens: int) -> list[Any]:
            names = [f"{load.__name__}{i}" for i in range(options.rounds)]
            return [one_at_a_time(of, load, folder / name, tokens) for name in names]

        document["embedded"] = shares(rounds(model, scenes, 24), fitted["harmony"])
        random = rounds(build()[0], noise, TOKENS)
        records = random[0][1]
        labels = (np.arange(len(records)) % 2).astype(float)
        scorer = ESTIMATORS["harmony"].fit(records, labels, rng=np.random.default_rng(0))
        document["random_30m"] = {**shares(random, scorer), "gate": 0.02}
    document["flops_7b"] = flops()
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
