"""Prediction sets over a classifier's classes: names that hold the right one at a stated rate.

Probabilities are the softmax of the classifier's own logits, at its own temperature. Memory holds
those of a block of pictures at a time, so that many classes are no matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration.conformal import (
    ConformalSets,
    fewest_rows,
    right_scores,
    sets_from_scores,
)
from sightline.core.errors import DataError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.workflow.classifying.reading import Embedded
from sightline.workflow.policy.evidence import SetsFit
from sightline.workflow.policy.labelled import SetsTarget
from sightline.zeroshot import BLOCK_ROWS, Block, ClassifierOutputs, ClassTexts

CLASSES = "classes"
"""What the sets' probabilities are of, where those of options are named."""

_MOST = 1 << 19  # probabilities at once; sets take several arrays of that size


@dataclass(frozen=True, slots=True, eq=False)
class ClassSets:
    """Fitted prediction sets with the classes they are over.

    Attributes:
        texts: The classes.
        conformal: The fitted sets.
    """

    texts: ClassTexts
    conformal: ConformalSets

    @property
    def needs(self) -> frozenset[Feature]:
        """The picture's vector."""
        return frozenset({Feature.IMAGE_VECTOR})

    def of(self, records: Sequence[Record]) -> list[tuple[str, ...] | None]:
        """Names of the classes in each picture's set; None where it has no vector."""
        found: list[tuple[str, ...] | None] = [None] * len(records)
        rows = [i for i, record in enumerate(records) if record.has(Feature.IMAGE_VECTOR)]
        if not rows:
            return found
        image = np.stack([records[row].array(Feature.IMAGE_VECTOR) for row in rows])
        names = self.texts.classes
        for at, p in _probabilities(ClassifierOutputs(self.texts, image)):
            for row, inside in zip(rows[at : at + len(p)], self.conformal.sets(p), strict=True):
                found[row] = tuple(names[label] for label in np.flatnonzero(inside))
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form, without the class texts, which lie with the fitted score."""
        return {"scores": CLASSES, "conformal": self.conformal.to_dict()}


def read_class_sets(data: Mapping[str, Any], texts: ClassTexts) -> ClassSets:
    """Rebuilds what `ClassSets.to_dict` wrote."""
    return ClassSets(texts, ConformalSets.from_dict(data["conformal"]))


def fit_sets_over_classes(
    seen: Embedded, rows: Int[np.ndarray, " n"], drawn: Int[np.ndarray, " k"], target: SetsTarget
) -> tuple[ClassSets, SetsFit]:
    """Fits sets on independent pictures, and measures how large they are.

    Args:
        seen: The pictures of the run.
        rows: Those of the third part, whose class is known.
        drawn: A random one of every group among them: what the sets are fitted on.
        target: Level and kind of the sets.

    Raises:
        DataError: So few can be used that every set would hold all classes.
    """
    least = fewest_rows(target.level)
    if len(drawn) < least:
        raise DataError(
            f"{len(drawn)} groups of pictures to fit prediction sets on; {least} are required, so "
            f"that sets at the level {target.level:g} need not hold all classes. Label more, lower "
            "--sets-level, or leave --sets out."
        )
    own = np.concatenate(
        [
            right_scores(p, seen.labels[mine], score=target.kind)
            for mine, p in probabilities(seen, drawn)
        ]
    )
    fitted = ClassSets(seen.texts, sets_from_scores(own, level=target.level, score=target.kind))
    held = sum(int(fitted.conformal.sets(p).sum()) for _, p in probabilities(seen, rows))
    options = float(len(seen.texts.classes))
    return fitted, SetsFit(fitted.conformal.coverage, held / len(rows), options)


def probabilities(
    seen: Embedded, rows: Int[np.ndarray, " n"]
) -> Iterator[tuple[Int[np.ndarray, " b"], Float[np.ndarray, "b c"]]]:
    """Class probabilities of some pictures, a block at a time, with the rows they are of."""
    wanted = np.zeros(len(seen), dtype=bool)
    wanted[rows] = True
    before = 0
    for part in seen.parts(None):
        mine = np.flatnonzero(wanted[before : before + len(part)])
        if len(mine):
            chosen = ClassifierOutputs(seen.texts, part.image[mine])
            for at, p in _probabilities(chosen):
                yield before + mine[at : at + len(p)], p
        before += len(part)


def _probabilities(
    outputs: ClassifierOutputs,
) -> Iterator[tuple[int, Float[np.ndarray, "b c"]]]:
    """Softmax of the logits, a block at a time, with the first row of each."""
    step = max(1, min(BLOCK_ROWS, _MOST // len(outputs.texts.classes)))
    for at in range(0, len(outputs), step):
        block = Block(ClassifierOutputs(outputs.texts, outputs.image[at : at + step]), 0)
        p = np.exp(block.logits.astype(np.float64) - block.top[:, None])
        yield at, p / p.sum(axis=1, keepdims=True)
