"""Whether an embedded model deserves to be studied: does it look at the picture, and does it show?

A model that ignores its picture makes every uncertainty estimate look alike, so each gate compares
what the model does with the picture to what it does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from PIL import Image

from sightline.core.errors import MissingFeatureError
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.types import Example, Record
from sightline.data.scenes import BENCHMARK_TYPES, generate
from sightline.grading import Auto
from sightline.metrics.discrimination import auroc

_BATCH = 64


@dataclass(frozen=True, slots=True)
class TypeFigures:
    """One question type's accuracies and the AUROC of log-probability within it.

    ``auroc`` is None where all answers are right or all are wrong.
    """

    question_type: str
    n: int
    accuracy: float
    blank: float
    shuffled: float
    auroc: float | None

    @property
    def gain(self) -> float:
        """Accuracy above the better of blank and shuffled pictures."""
        return self.accuracy - max(self.blank, self.shuffled)


@dataclass(frozen=True, slots=True)
class Gate:
    """One requirement, what was measured, and whether it is met."""

    name: str
    required: str
    measured: str
    passed: bool


@dataclass(frozen=True, slots=True)
class GateReport:
    """Everything measured on one split.

    Attributes:
        split: Which scenes.
        n: Number of questions.
        accuracy: Share of right greedy answers.
        blank: The same with a grey picture.
        shuffled: The same with another question's picture.
        types: Figures by question type.
        quartiles: Accuracy from the easiest to the hardest quarter.
        auroc_pooled: AUROC of the answer's log-probability over all questions.
        auroc_within: Mean over types of the AUROC within the type.
        auroc_type_only: AUROC of the type's accuracy alone, the control.
        gates: The requirements.
    """

    split: str
    n: int
    accuracy: float
    blank: float
    shuffled: float
    types: tuple[TypeFigures, ...]
    quartiles: tuple[float, ...]
    auroc_pooled: float
    auroc_within: float
    auroc_type_only: float
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate is."""
        return all(gate.passed for gate in self.gates)


def _observed(
    model: VisionLanguageModel, examples: Sequence[Example], images: Sequence[Image.Image]
) -> list[Record]:
    request = Request(max_new_tokens=24, top_k_logprobs=0)
    records: list[Record] = []
    for at in range(0, len(examples), _BATCH):
        own = [(image,) for image in images[at : at + _BATCH]]
        records += model.observe(examples[at : at + _BATCH], own, request)
    return records


def _graded(
    model: VisionLanguageModel, examples: Sequence[Example], images: Sequence[Image.Image]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Correctness and log-probability of every greedy answer."""
    correct, logprob = [], []
    for record in _observed(model, examples, images):
        greedy = record.answer
        if greedy.logprobs is None:
            raise MissingFeatureError(
                f"Record {record.key} has no log-probabilities; the gates require them. "
                "Measure a model that shows them."
            )
        correct.append(Auto().grade(record.example, greedy))
        logprob.append(float(np.sum(greedy.logprobs)))
    return np.asarray(correct), np.asarray(logprob)


def _ranking(confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]) -> float | None:
    return auroc(confidence, correct) if 0 < correct.mean() < 1 else None


def measure_gates(
    model: VisionLanguageModel,
    *,
    split: str = "test",
    n: int = 2000,
    seed: int = 0,
    types: Sequence[str] = BENCHMARK_TYPES,
) -> GateReport:
    """Asks the model generated questions with the right, a blank and a wrong picture.

    Args:
        model: Such as ``load_model("embedded:vlm")``.
        split: Scene split.
        n: Number of questions.
        seed: Seed of the scenes.
        types: Question types.

    Raises:
        MissingFeatureError: The model shows no log-probabilities.
    """
    batch = generate(split, -(-n // 3) + n // 20 + 2, seed, 3, types=types)
    items = batch.items[:n]
    examples = [
        Example(
            id=f"{split}-{seed}-{number}",
            question=item.question,
            choices=item.choices,
            references=item.references,
            group=f"{split}-{seed}-picture-{item.picture}",
            question_type=item.question_type,
        )
        for number, item in enumerate(items)
    ]
    images = [Image.fromarray(batch.images[item.picture]) for item in items]
    grey = [Image.new("RGB", images[0].size, (128, 128, 128))] * len(images)
    kinds = np.asarray([item.question_type for item in items])
    order = np.arange(len(items))
    for kind in set(kinds.tolist()):
        members = np.flatnonzero(kinds == kind)
        order[members] = np.roll(members, 1 + len(members) // 2)
    correct, logprob = _graded(model, examples, images)
    blank, _ = _graded(model, examples, grey)
    shuffled, _ = _graded(model, examples, [images[i] for i in order])
    figures = []
    for kind in types:
        chosen = kinds == kind
        if not chosen.any():
            continue
        figures.append(
            TypeFigures(
                question_type=kind,
                n=int(chosen.sum()),
                accuracy=float(correct[chosen].mean()),
                blank=float(blank[chosen].mean()),
                shuffled=float(shuffled[chosen].mean()),
                auroc=_ranking(logprob[chosen], correct[chosen]),
            )
        )
    difficulty = np.asarray([item.difficulty for item in items])
    quarters = np.array_split(correct[np.argsort(difficulty, kind="stable")], 4)
    by_type = {figure.question_type: figure.accuracy for figure in figures}
    within = [figure.auroc for figure in figures if figure.auroc is not None]
    report = GateReport(
        split=split,
        n=len(items),
        accuracy=float(correct.mean()),
        blank=float(blank.mean()),
        shuffled=float(shuffled.mean()),
        types=tuple(figures),
        quartiles=tuple(float(quarter.mean()) for quarter in quarters),
        auroc_pooled=_ranking(logprob, correct) or 0.5,
        auroc_within=float(np.mean(within)) if within else 0.5,
        auroc_type_only=_ranking(np.asarray([by_type[k] for k in kinds.tolist()]), correct) or 0.5,
        gates=(),
    )
    return _with_gates(report)


def _with_gates(report: GateReport) -> GateReport:
    weakest = min(report.types, key=lambda figure: figure.gain)
    falls = all(a >= b for a, b in zip(report.quartiles, report.quartiles[1:], strict=False))
    drop = report.quartiles[0] - report.quartiles[-1]
    gates = (
        Gate(
            "accuracy",
            "between 0.70 and 0.90",
            f"{report.accuracy:.3f}",
            0.70 <= report.accuracy <= 0.90,
        ),
        Gate(
            "grounded in every type",
            "at least 0.15 above blank and shuffled pictures",
            f"weakest {weakest.question_type} {weakest.gain:+.3f}",
            weakest.gain >= 0.15,
        ),
        Gate(
            "harder is worse",
            "falls over difficulty quartiles, by at least 0.15",
            " > ".join(f"{value:.3f}" for value in report.quartiles),
            falls and drop >= 0.15,
        ),
        Gate(
            "log-probability informs within types",
            "mean AUROC of at least 0.70",
            f"{report.auroc_within:.3f}",
            report.auroc_within >= 0.70,
        ),
    )
    return replace(report, gates=gates)
