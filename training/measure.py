"""Measures a model directory on a scene split and prints the tables of its card.

python training/measure.py src/sightline/models/embedded_weights/vlm --split test --n 3000
"""

import argparse
import time

from sightline.models import load_model
from sightline.workflow.gates import measure_split, split_gates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--split", default="test")
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.time()
    report = measure_split(load_model(args.model), split=args.split, n=args.n, seed=args.seed)
    print(
        f"{report.split}: {report.n} questions, three pictures each, {time.time() - began:.0f} s\n"
    )
    print("| type | n | accuracy | blank | shuffled | gain | AUROC of log-probability |")
    print("|---|---|---|---|---|---|---|")
    for row in report.types:
        ranking = "–" if row.auroc is None else f"{row.auroc:.3f}"
        print(
            f"| {row.question_type} | {row.n} | {row.accuracy:.3f} | {row.blank:.3f} | "
            f"{row.shuffled:.3f} | {row.gain:+.3f} | {ranking} |"
        )
    print(
        f"| all | {report.n} | {report.accuracy:.3f} | {report.blank:.3f} | {report.shuffled:.3f} "
        f"| | pooled {report.auroc_pooled:.3f}, within types {report.auroc_within:.3f}, "
        f"type alone {report.auroc_type_only:.3f} |\n"
    )
    print(
        f"Wrong with a probability above .8: {report.confident_wrong:.3f} of all, "
        f"{report.confident_wrong_conflict:.3f} of questions on unusual colours.\n"
    )
    for gate in split_gates(report):
        state = "passed" if gate.passed else "not passed"
        print(f"- {gate.name} ({gate.required}): {gate.measured}, {state}")


if __name__ == "__main__":
    main()
