"""CPU time of every estimator on 1,000 questions × 10 samples, one thread.

Prints one JSON document. In the same run:

- lexical similarity against `rouge_score`, called for every pair of samples and with stemming, as
  LM-Polygraph calls it (the words used here stem to themselves, so the values must be equal);
- every estimator against reading its signals: the time to check that all records show them
  (`require`), which no estimator can avoid;
- the token scores against one numpy call per record, as a loop over questions would do it.

Gate: lexical similarity at least 10 × (ROUGE-1, ROUGE-2 and ROUGE-L).

Run: pip install rouge-score && OMP_NUM_THREADS=1 python benchmarks/estimators.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import combinations

import numpy as np
from hardware import hardware
from rouge_score import rouge_scorer

from sightline.core.features import Feature
from sightline.core.protocols import LearnedEstimator
from sightline.core.types import Example, Generation, Record, Related
from sightline.estimators import ESTIMATORS
from sightline.estimators.lexical import LexicalSimilarity
from sightline.estimators.signals import require

QUESTIONS, SAMPLES, REPEATS = 1000, 10, 5
WORDS = """
small green black white brown street window garden train truck field river stone train left right
near behind under front two three men children dog cat bus road tree grass sky water boat bird red
"""


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    records = observed(np.random.default_rng(0), choices=None)
    with_choices = observed(np.random.default_rng(0), choices=("red bus", "dog", "tree", "no"))
    lexical = {}
    for metric in ("rouge1", "rouge2", "rougeL"):
        ours_s, ours = timed(lambda m=metric: LexicalSimilarity(m).uncertainty(records))
        theirs_s, theirs = timed(lambda m=metric: peer(records, m), repeats=1)
        lexical[metric] = {
            "ours_cpu_s": round(ours_s, 4),
            "rouge_score_cpu_s": round(theirs_s, 2),
            "times_faster": round(theirs_s / ours_s, 1),
            "largest_difference": float(np.abs(ours - theirs).max()),
        }
    every = {}
    for name, estimator in ESTIMATORS.items():
        rows = with_choices if Feature.CHOICES in estimator.needs else records
        if isinstance(estimator, LearnedEstimator):
            correct = np.arange(len(rows)) % 2 * 1.0
            estimator = estimator.fit(rows, correct, rng=np.random.default_rng(0))  # noqa: PLW2901
        score_s, _ = timed(lambda e=estimator, rows=rows: e.uncertainty(rows))
        read_s, _ = timed(lambda e=estimator, rows=rows: require(rows, e.needs, e))
        every[name] = {
            "cpu_ms": round(1e3 * score_s, 2),
            "reading_cpu_ms": round(1e3 * read_s, 2),
        }
    loop_s, loop = timed(lambda: np.array([-r.answer.logprobs.sum() for r in records]))
    ours_s, ours = timed(lambda: ESTIMATORS["negative_log_likelihood"].uncertainty(records))
    print(
        json.dumps(
            {
                "hardware": hardware("numpy", "rouge-score"),
                "questions": QUESTIONS,
                "samples": SAMPLES,
                "words_per_answer": "4 to 12",
                "lexical_similarity": lexical,
                "gate_lexical_at_least_10x": all(v["times_faster"] >= 10 for v in lexical.values()),
                "negative_log_likelihood": {
                    "ours_cpu_ms": round(1e3 * ours_s, 2),
                    "loop_over_questions_cpu_ms": round(1e3 * loop_s, 2),
                    "largest_difference": float(np.abs(ours - loop).max()),
                },
                "estimators": every,
            },
            indent=1,
        )
    )


def timed(run: Callable[[], np.ndarray | None], repeats: int = REPEATS):
    """Median CPU seconds and the last result; one unmeasured round first where repeated."""
    if repeats > 1:
        run()
    seconds = []
    for _ in range(repeats):
        before = time.process_time()
        result = run()
        seconds.append(time.process_time() - before)
    return statistics.median(seconds), result


def peer(records: list[Record], metric: str) -> np.ndarray:
    """LM-Polygraph's loops: one minus the mean pairwise F1 of `rouge_score`."""
    scorer = rouge_scorer.RougeScorer([metric], use_stemmer=True)
    values = []
    for record in records:
        texts = [sample.text for sample in record.samples]
        f1 = [scorer.score(a, b)[metric].fmeasure for a, b in combinations(texts, 2)]
        values.append(1 - np.mean(f1))
    return np.array(values)


def observed(rng: np.random.Generator, choices: tuple[str, ...] | None) -> list[Record]:
    """Records that show every signal an estimator of the table needs."""
    words = np.array(sorted(set(WORDS.split())))
    records = []
    for i in range(QUESTIONS):
        likely = rng.choice(words, size=15)

        def answer(likely: np.ndarray = likely) -> Generation:
            said = rng.choice(likely, size=rng.integers(4, 13))
            return Generation(" ".join(said), logprobs=-rng.exponential(1.0, size=len(said) + 1))

        greedy = answer()
        t, c = greedy.n_tokens, len(choices or ())
        example = Example(str(i), "What is it?", choices=choices, question_type=f"type {i % 7}")

        def other(condition: str, example: Example = example) -> Record:
            return Record(
                example,
                condition,
                greedy=Generation(str(rng.choice(list("ABCD"))) if choices else answer().text),
            )

        records.append(
            Record(
                example,
                greedy=greedy,
                samples=tuple(answer() for _ in range(SAMPLES)),
                features={
                    Feature.TOKEN_ENTROPY: rng.exponential(size=t),
                    Feature.TOP_LOGPROBS: -np.sort(rng.exponential(size=(t, 20)), axis=1),
                    Feature.LETTER_LOGPROBS: -rng.exponential(size=c),
                    Feature.OPTION_LOGPROBS: -rng.exponential(9.0, size=c),
                    Feature.OPTION_LENGTHS: rng.integers(1, 5, size=c),
                    Feature.BLANK_LOGPROBS: -rng.exponential(size=t),
                    Feature.BLANK_LETTER_LOGPROBS: -rng.exponential(size=c),
                    Feature.RECORDED_CONFIDENCE: np.array(rng.uniform()),
                },
                related=Related(
                    conditions=(
                        *(other(f"jpeg:{level}") for level in range(4)),
                        other("blank"),
                        other("negated"),
                    ),
                    rotations=tuple(other("clean") for _ in range(3)),
                    models=tuple(other("clean") for _ in range(3)),
                ),
            )
        )
    return records


if __name__ == "__main__":
    main()
