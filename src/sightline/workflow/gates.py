"""Whether an embedded model deserves to be studied: does it look at the picture, and does it show?

A model that ignores its picture makes every uncertainty estimate look alike, so each gate compares
what the model does with the picture to what it does without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
_SURE = 0.8  # probability of an answer from which a wrong one counts as confidently wrong


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
class SplitFigures:
    """Everything measured on one split.

    An AUROC is None where all answers are right or all are wrong.

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
        confident_wrong: Share of all answers that are wrong with a probability above 0.8.
        confident_wrong_conflict: The same among questions on an object whose colour is not the
            usual one of its shape; None where there are none.
        seconds_per_500: Time of 500 greedy answers.
    """

    split: str
    n: int
    accuracy: float
    blank: float
    shuffled: float
    types: tuple[TypeFigures, ...]
    quartiles: tuple[float, ...]
    auroc_pooled: float | None
    auroc_within: float | None
    auroc_type_only: float | None
    confident_wrong: float
    confident_wrong_conflict: float | None
    seconds_per_500: float


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


def measure_split(
    model: VisionLanguageModel,
    *,
    split: str = "test",
    n: int = 2000,
    seed: int = 0,
    types: Sequence[str] = BENCHMARK_TYPES,
) -> SplitFigures:
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
    began = time.perf_counter()
    correct, logprob = _graded(model, examples, images)
    seconds = time.perf_counter() - began
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
    misled = np.asarray(["prior_conflict" in item.causes for item in items])
    sure = (correct < 1) & (logprob > math.log(_SURE))
    return SplitFigures(
        split=split,
        n=len(items),
        accuracy=float(correct.mean()),
        blank=float(blank.mean()),
        shuffled=float(shuffled.mean()),
        types=tuple(figures),
        quartiles=tuple(float(quarter.mean()) for quarter in quarters),
        auroc_pooled=_ranking(logprob, correct),
        auroc_within=float(np.mean(within)) if within else None,
        auroc_type_only=_ranking(np.asarray([by_type[k] for k in kinds.tolist()]), correct),
        confident_wrong=float(sure.mean()),
        confident_wrong_conflict=float(sure[misled].mean()) if misled.any() else None,
        seconds_per_500=500 * seconds / len(items),
    )


def split_gates(figures: SplitFigures, *, weak: Sequence[str] = ()) -> tuple[Gate, ...]:
    """What a model must show on one split.

    Args:
        figures: What was measured.
        weak: Question types that need not be grounded in the picture, since the model is known not
            to read them well enough.
    """
    weakest = min(
        (row for row in figures.types if row.question_type not in weak), key=lambda row: row.gain
    )
    every = f"every type but {', '.join(weak)}" if weak else "every type"
    quartiles = figures.quartiles
    quarter = figures.n / 4
    falls = all(
        harder - easier
        <= 1.96 * math.sqrt((easier * (1 - easier) + harder * (1 - harder)) / quarter)
        for easier, harder in pairwise(quartiles)
    )
    within = figures.auroc_within
    return (
        Gate(
            f"accuracy on {figures.split}",
            "between 0.70 and 0.90",
            f"{figures.accuracy:.3f}",
            0.70 <= figures.accuracy <= 0.90,
        ),
        Gate(
            f"grounded in {every} on {figures.split}",
            "at least 0.15 above blank and shuffled pictures",
            f"weakest {weakest.question_type} {weakest.gain:+.3f}",
            weakest.gain >= 0.15,
        ),
        Gate(
            f"harder is worse on {figures.split}",
            "no rise over difficulty quartiles beyond chance, fall by at least 0.15",
            " > ".join(f"{value:.3f}" for value in quartiles),
            falls and quartiles[0] - quartiles[-1] >= 0.15,
        ),
        Gate(
            f"log-probability informs within types on {figures.split}",
            "mean AUROC of at least 0.70",
            "not defined" if within is None else f"{within:.3f}",
            within is not None and within >= 0.70,
        ),
        Gate(
            f"speed on {figures.split}",
            "500 greedy answers in at most 10 s",
            f"{figures.seconds_per_500:.1f} s",
            figures.seconds_per_500 <= 10,
        ),
    )


def prior_gate(prior: SplitFigures, grounded: SplitFigures) -> Gate:
    """Whether a language prior makes a model confidently wrong more often, beyond chance.

    Both models are asked the same questions; the interval is that of two independent shares, which
    is the wider one.
    """
    shares = prior.confident_wrong, grounded.confident_wrong
    variance = sum(
        share * (1 - share) / figures.n
        for share, figures in zip(shares, (prior, grounded), strict=True)
    )
    lowest = shares[0] - shares[1] - 1.96 * math.sqrt(variance)
    return Gate(
        f"misled by its prior on {prior.split}",
        "confidently wrong more often than the grounded model, beyond chance",
        f"{shares[0]:.3f} against {shares[1]:.3f}, at least {lowest:+.3f} with 95 % confidence",
        lowest > 0,
    )


def size_gate(size_bytes: int, limit: int) -> Gate:
    """Whether a model's files are small enough to ship."""
    return Gate(
        "size", f"at most {limit / 1e6:.0f} MB", f"{size_bytes / 1e6:.1f} MB", size_bytes <= limit
    )
