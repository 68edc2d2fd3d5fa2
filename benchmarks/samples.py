"""CPU time of the sample-based estimators on 1,000 questions × 10 samples, one thread.

Prints one JSON document. Every estimator is given what its peer is given: one-way probabilities of
entailment, vectors, or texts for lexical similarity. It is timed in the same run as LM-Polygraph
0.7.0 where that can be imported, otherwise as its algorithm written out below, one question at a
time. Values must be equal. Beside it stands the time from records, which includes reading and
checking the signals.

Gates: kernel language entropy, eccentricity and Laplacian eigenvalues at least 3 × faster; degree
and EigenScore 8 × (80 × at d = 3,584); ROUGE-L and ROUGE-1 10 ×.

Run: pip install rouge-score scipy && OMP_NUM_THREADS=1 python benchmarks/samples.py
With the peer: pip install --no-deps --target peer lm-polygraph==0.7.0, then PYTHONPATH=peer.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from itertools import combinations

import numpy as np
import scipy.linalg
from hardware import hardware
from rouge_score import rouge_scorer

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators import ESTIMATORS
from sightline.estimators.graph import (
    Degree,
    Eccentricity,
    LaplacianEigenvalues,
    eccentricity,
    eigenvalue_sum,
    mean_distance,
)
from sightline.estimators.kernel import KernelLanguageEntropy
from sightline.estimators.lexical import LexicalSimilarity
from sightline.estimators.spectral import EigenScore, eigenscore

QUESTIONS, SAMPLES, REPEATS = 1000, 10, 5
ALPHA, HEAT, THRESHOLD = 0.001, 0.3, 0.9
WORDS = "small green black white brown street window garden train truck field river stone left near"


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rng = np.random.default_rng(0)
    entailment, contradiction = judged(rng)
    texts = spoken(rng)
    records = observed(texts, entailment, contradiction)
    stats = {
        "sample_texts": texts,
        "semantic_matrix_entail": entailment,
        "semantic_matrix_contra": contradiction,
    }
    kernel = KernelLanguageEntropy(t=HEAT, similarity="nli")
    out = {
        "degree": compared(
            lambda: mean_distance(both_ways(entailment)),
            lambda: PEER["degree"](stats),
            8,
            lambda: Degree("entailment").uncertainty(records),
        ),
        "eccentricity": compared(
            lambda: eccentricity(both_ways(entailment), THRESHOLD),
            lambda: PEER["eccentricity"](stats),
            3,
            lambda: Eccentricity(THRESHOLD, "entailment").uncertainty(records),
        ),
        "laplacian_eigenvalues": compared(
            lambda: eigenvalue_sum(both_ways(entailment)),
            lambda: PEER["laplacian_eigenvalues"](stats),
            3,
            lambda: LaplacianEigenvalues("entailment").uncertainty(records),
        ),
        "kernel_language_entropy": compared(
            lambda: kernel.entropy(both_ways((1 + entailment - contradiction) / 2)),
            lambda: PEER["kernel_language_entropy"](stats),
            3,
            lambda: kernel.uncertainty(records),
        ),
    }
    for width, gate in ((768, 8), (3584, 80)):
        vectors = rng.normal(size=(QUESTIONS, SAMPLES, width))
        deep = observed(texts, hidden=vectors.astype(np.float16))
        rounded = vectors.astype(np.float16).astype(np.float64)
        out[f"eigenscore_{width}_wide"] = compared(
            lambda v=rounded: eigenscore(v, ALPHA),
            lambda v=rounded: PEER["eigenscore"]({"sample_embeddings": v}),
            gate,
            lambda r=deep: EigenScore(alpha=ALPHA).uncertainty(r),
        )
    for metric in ("rougeL", "rouge1"):
        ours = LexicalSimilarity(metric)
        out[f"lexical_similarity_{metric}"] = compared(
            lambda o=ours: o.uncertainty(records), lambda m=metric: rouge(texts, m), 10
        )
    print(
        json.dumps(
            {
                "hardware": hardware("numpy", "scipy", "rouge-score"),
                "questions": QUESTIONS,
                "samples": SAMPLES,
                "peer": PEER_NAME,
                "estimators": out,
                "all_gates_met": all(row["gate_met"] for row in out.values()),
                "from_words_alone_cpu_ms": from_words(records),
            },
            indent=1,
        )
    )


def both_ways(one_way: np.ndarray) -> np.ndarray:
    """Mean of both directions, which the peer takes too."""
    return (one_way + one_way.transpose(0, 2, 1)) / 2


def compared(
    ours: Callable[[], np.ndarray],
    theirs: Callable[[], np.ndarray],
    gate: float,
    from_records: Callable[[], np.ndarray] | None = None,
) -> dict[str, float | bool]:
    """Both times, how many times faster, and how far apart the values are."""
    ours_s, own = timed(ours)
    theirs_s, peer = timed(theirs)
    row = {
        "ours_cpu_ms": round(1e3 * ours_s, 2),
        "peer_cpu_ms": round(1e3 * theirs_s, 1),
        "times_faster": round(theirs_s / ours_s, 1),
        "gate_times_faster": gate,
        "gate_met": theirs_s / ours_s >= gate,
        "largest_difference": float(np.abs(own - peer).max()),
    }
    if from_records is not None:
        seconds, _ = timed(from_records)
        row["from_records_cpu_ms"] = round(1e3 * seconds, 2)
    return row


def timed(run: Callable[[], np.ndarray]):
    """CPU seconds and the last result.

    The median of several rounds after an unmeasured one; the first alone where it took a second.
    """
    seconds = []
    for _ in range(1 + REPEATS):
        before = time.process_time()
        result = run()
        seconds.append(time.process_time() - before)
        if seconds[0] >= 1:
            return seconds[0], np.asarray(result)
    return statistics.median(seconds[1:]), np.asarray(result)


def from_words(records: list[Record]) -> dict[str, float]:
    """Time of every sample-based entry of the table as it stands, texts alone given."""
    names = [n for n, e in ESTIMATORS.items() if getattr(e, "similarity", "") == "words"]
    known = {f for r in records[:1] for f in Feature if r.has(f)}
    return {
        name: round(1e3 * timed(lambda n=name: ESTIMATORS[n].uncertainty(records))[0], 1)
        for name in names
        if hasattr(ESTIMATORS[name], "uncertainty") and ESTIMATORS[name].needs <= known
    }


def spoken(rng: np.random.Generator) -> list[list[str]]:
    """Answers of 4 to 12 words that stem to themselves; none said twice for one question."""
    words = np.array(WORDS.split())
    return [
        [" ".join(rng.choice(words, size=rng.integers(4, 13))) + f" {i}" for i in range(SAMPLES)]
        for _ in range(QUESTIONS)
    ]


def judged(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of entailment and contradiction of all pairs, each answer entailing itself."""
    three = rng.dirichlet((0.6, 0.6, 0.6), size=(QUESTIONS, SAMPLES, SAMPLES))
    entailment, contradiction = three[..., 0], three[..., 1]
    diagonal = np.arange(SAMPLES)
    entailment[:, diagonal, diagonal], contradiction[:, diagonal, diagonal] = 1.0, 0.0
    return entailment, contradiction


def observed(texts, entailment=None, contradiction=None, hidden=None) -> list[Record]:
    """Records of the texts with the given arrays."""
    records = []
    for i, own in enumerate(texts):
        features = {}
        if entailment is not None:
            features[Feature.ENTAILMENT] = np.pad(entailment[i], (1, 0))
            features[Feature.CONTRADICTION] = np.pad(contradiction[i], (1, 0))
        if hidden is not None:
            features[Feature.SAMPLE_HIDDEN] = hidden[i][None]
        samples = tuple(Generation(t, logprobs=np.full(len(t.split()), -0.5)) for t in own)
        records.append(
            Record(
                Example(str(i), "What is it?"),
                greedy=Generation(own[0], logprobs=np.array([-0.5])),
                samples=samples,
                features=features,
                layers=(16,) if hidden is not None else (),
            )
        )
    return records


def rouge(texts: list[list[str]], metric: str) -> np.ndarray:
    """LM-Polygraph's lexical similarity: every pair of samples through `rouge_score`, stemmed."""
    scorer = rouge_scorer.RougeScorer([metric], use_stemmer=True)
    values = []
    for own in texts:
        f1 = [scorer.score(a, b)[metric].fmeasure for a, b in combinations(own, 2)]
        values.append(1 - np.mean(f1))
    return np.array(values)


def laplacian(one_way: np.ndarray) -> np.ndarray:
    """The peer's normalised Laplacian of one question."""
    similarity = (one_way + one_way.T) / 2
    root = np.linalg.inv(np.sqrt(np.diag(similarity.sum(axis=1))))
    return np.eye(len(similarity)) - root @ similarity @ root


def degree_loop(stats) -> np.ndarray:
    values = []
    for one_way in stats["semantic_matrix_entail"]:
        similarity = (one_way + one_way.T) / 2
        m = len(similarity)
        values.append(np.trace(m - np.diag(similarity.sum(axis=1))) / m**2)
    return np.array(values)


def eccentricity_loop(stats) -> np.ndarray:
    values = []
    for one_way in stats["semantic_matrix_entail"]:
        eigenvalues, vectors = scipy.linalg.eigh(laplacian(one_way))
        kept = vectors[:, eigenvalues < THRESHOLD].T
        values.append(np.linalg.norm([np.linalg.norm(v - v.mean(0), 2) for v in kept], 2))
    return np.array(values)


def eigenvalues_loop(stats) -> np.ndarray:
    return np.array(
        [
            sum(max(0, 1 - v) for v in scipy.linalg.eigh(laplacian(one_way), eigvals_only=True))
            for one_way in stats["semantic_matrix_entail"]
        ]
    )


def kernel_loop(stats) -> np.ndarray:
    values = []
    pairs = (stats["semantic_matrix_entail"], stats["semantic_matrix_contra"])
    for entailment, contradiction in zip(*pairs, strict=True):
        entailed, denied = entailment + entailment.T, contradiction + contradiction.T
        weights = entailed + 0.5 * (2 - entailed - denied)
        kernel = scipy.linalg.expm(-HEAT * (np.diag(weights.sum(axis=0)) - weights))
        root = np.sqrt(np.diag(kernel)) + 1e-12
        kernel = kernel / np.outer(root, root) / len(kernel)
        eigenvalues = np.linalg.eig(kernel)[0].astype(np.float64)
        entropy = -sum(v * np.log(v) for v in eigenvalues if abs(v) > 1e-8)
        values.append(entropy / np.log(len(kernel)))
    return np.array(values)


def eigenscore_loop(stats) -> np.ndarray:
    values, centring = [], None
    for vectors in stats["sample_embeddings"]:
        if centring is None:
            d = vectors.shape[-1]
            centring = np.eye(d) - 1 / d * np.ones((d, d))
        covariance = vectors @ centring @ vectors.T + ALPHA * np.eye(len(vectors))
        eigenvalues = scipy.linalg.eigh(covariance, eigvals_only=True)
        values.append(np.mean(np.log([v if v > 0 else 1e-10 for v in eigenvalues])))
    return np.array(values)


LOOPS = {
    "degree": degree_loop,
    "eccentricity": eccentricity_loop,
    "laplacian_eigenvalues": eigenvalues_loop,
    "kernel_language_entropy": kernel_loop,
    "eigenscore": eigenscore_loop,
}


def installed_peer() -> tuple[str, dict[str, Callable]]:
    """LM-Polygraph's estimators where it is installed, the loops above elsewhere.

    Its modules are imported one by one: the package itself imports models and web clients.
    """
    spec = importlib.util.find_spec("lm_polygraph")
    if spec is None:
        return "LM-Polygraph 0.7.0's algorithms, written out", LOOPS
    root = spec.submodule_search_locations[0]
    for name in ("", ".estimators", ".utils"):
        package = types.ModuleType("lm_polygraph" + name)
        package.__path__ = [root + name.replace(".", "/")]
        sys.modules["lm_polygraph" + name] = package

    def module(name: str):
        return importlib.import_module("lm_polygraph.estimators." + name)

    def eigenscore_anew(stats):
        """An instance keeps the centring of the first width it sees."""
        return module("eigenscore").EigenScore(alpha=ALPHA)(stats)

    return "LM-Polygraph 0.7.0", {
        "degree": module("deg_mat").DegMat(),
        "eccentricity": module("eccentricity").Eccentricity(thres=THRESHOLD),
        "laplacian_eigenvalues": module("eig_val_laplacian").EigValLaplacian(),
        "kernel_language_entropy": module("kernel_language_entropy").KernelLanguageEntropy(t=HEAT),
        "eigenscore": eigenscore_anew,
    }


PEER_NAME, PEER = installed_peer()

if __name__ == "__main__":
    main()
