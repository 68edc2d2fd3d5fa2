"""Trust computed from ready signals: requests per CPU second, one record at a time and in batches.

Prints one JSON document. Every policy decides the same records; a request is one record handed to
`TrustPolicy.decide` by itself, as a server does. CPU time of one process on one thread; two cores
serve twice as many.

Gate: a log-probability policy decides at least 500 requests per CPU second (1,000 on 2 cores).

Run: OMP_NUM_THREADS=1 python benchmarks/policies.py [--records 2000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from hardware import hardware

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.data.splits import split_groups
from sightline.workflow.policy.evidence import Target
from sightline.workflow.policy.fitting import fit_policy
from sightline.workflow.policy.labelled import Labelled, SetsTarget
from sightline.workflow.policy.trust import TrustPolicy

TOKENS, OPTIONS = 12, 4


def records(count: int) -> tuple[Record, ...]:
    """Answers of 12 tokens with scores of 4 options."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        logprobs = np.log(rng.uniform(0.5, 1.0, TOKENS) ** rng.uniform(0.1, 2.0))
        options = np.log(rng.dirichlet(np.ones(OPTIONS)))
        made.append(
            Record(
                Example(f"{i}", "Which?", choices=("a", "b", "c", "d"), references=("A",)),
                greedy=Generation("0", logprobs=logprobs),
                features={Feature.OPTION_LOGPROBS: options},
            )
        )
    return tuple(made)


def policies(made: tuple[Record, ...]) -> dict[str, TrustPolicy]:
    """One per kind; correctness follows the probability."""
    chance = np.exp([float(record.answer.logprobs.sum()) for record in made])  # type: ignore[union-attr]
    correct = (np.random.default_rng(1).random(len(made)) < 0.3 + 0.6 * chance).astype(float)
    names = [record.example.group for record in made]
    groups = np.arange(len(made))

    def fit(specs: list[str], **more: Any) -> TrustPolicy:
        learns = specs[0].startswith("fusion")
        parts = split_groups(names, (0.4, 0.2, 0.4) if learns else (0.0, 0.4, 0.6))
        return fit_policy(specs, Labelled(made, correct, groups, parts), Target(None, 0.5), **more)

    return {
        "sequence_probability": fit(["sequence_probability"]),
        "sequence_probability with sets": fit(["sequence_probability"], sets=SetsTarget()),
        "fusion of two": fit(["fusion:members=sequence_probability+min_token_probability"]),
    }


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median CPU time of a piece of work, after one unmeasured round."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    made = records(given.records)
    measured: dict[str, dict[str, float]] = {}
    for name, policy in policies(made).items():

        def singly(policy: TrustPolicy = policy) -> None:
            for record in made:
                policy.decide((record,))

        def together(policy: TrustPolicy = policy) -> None:
            for start in range(0, len(made), 32):
                policy.decide(made[start : start + 32])

        measured[name] = {
            "requests_per_cpu_second": given.records / cpu_seconds(singly, given.repeats),
            "in_batches_of_32": given.records / cpu_seconds(together, given.repeats),
        }
    rate = measured["sequence_probability"]["requests_per_cpu_second"]
    document = {
        "hardware": hardware(),
        "records": given.records,
        "policies": measured,
        "gate_500_met": rate >= 500,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
