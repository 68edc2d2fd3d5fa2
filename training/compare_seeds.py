"""Compares two model directories type by type on the same questions, paired, with intervals.

    python training/compare_seeds.py DIR_A DIR_B --n 1000

Draws questions until every type has at least ``--n``. The interval of a difference resamples
pictures (2,000 times). A difference counts as beyond the margin where its whole interval does.
"""

import argparse

import numpy as np
from PIL import Image

from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.data.scenes import BENCHMARK_TYPES, generate
from sightline.grading import Auto
from sightline.models import load_model

MARGIN = 0.04
BATCH = 48


def drawn(split: str, n: int, kind: str) -> tuple[list[Example], list[Image.Image]]:
    batch = generate(split, 4 * n, 7, 1, types=(kind,))  # not every picture allows every type
    examples, images = [], []
    for number, item in enumerate(batch.items[:n]):
        examples.append(
            Example(
                id=f"{kind}-{number}",
                question=item.question,
                choices=item.choices,
                references=item.references,
                group=f"{kind}-{item.picture}",
                question_type=kind,
            )
        )
        images.append(Image.fromarray(batch.images[item.picture]))
    return examples, images


def correctness(model, examples: list[Example], images: list[Image.Image]) -> np.ndarray:
    request = Request(max_new_tokens=24, top_k_logprobs=0)
    marks = []
    for at in range(0, len(examples), BATCH):
        own = [(image,) for image in images[at : at + BATCH]]
        for record in model.observe(examples[at : at + BATCH], own, request):
            marks.append(Auto().grade(record.example, record.answer))
    return np.array(marks)


def interval(difference: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    _, code = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(code, weights=difference), np.bincount(code)
    chosen = rng.integers(0, len(sums), (2000, len(sums)))
    return np.quantile(sums[chosen].sum(1) / counts[chosen].sum(1), [0.025, 0.975])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--split", default="test")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--types", nargs="+", default=BENCHMARK_TYPES, choices=BENCHMARK_TYPES)
    args = parser.parse_args()
    models = [load_model(path) for path in (args.first, args.second)]
    rng = np.random.default_rng(0)
    print("| type | n | first | second | difference | 95 % interval | beyond 4 points |")
    print("|---|---|---|---|---|---|---|")
    for kind in args.types:
        examples, images = drawn(args.split, args.n, kind)
        first, second = (correctness(model, examples, images) for model in models)
        gap = second - first
        low, high = interval(gap, np.array([e.group for e in examples]), rng)
        beyond = "yes" if low > MARGIN or high < -MARGIN else "no"
        print(
            f"| {kind} | {len(gap)} | {first.mean():.3f} | {second.mean():.3f} | "
            f"{gap.mean():+.3f} | {low:+.3f} to {high:+.3f} | {beyond} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
