"""Prediction sets for multiple choice: the options that hold the right one at a stated rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration.conformal import ConformalSets, Score, fit_conformal_sets
from sightline.core.errors import DataError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.estimators.choice import ChoiceMaxProbability, Scores, choice_logprobs


@dataclass(frozen=True, slots=True)
class OptionSets:
    """Fitted prediction sets with the signal they read.

    Attributes:
        scores: Which probabilities of the options count.
        conformal: The fitted sets.
    """

    scores: Scores
    conformal: ConformalSets

    @property
    def needs(self) -> frozenset[Feature]:
        """The options and their scores."""
        return option_needs(self.scores)

    def of(self, records: Sequence[Record]) -> list[tuple[str, ...] | None]:
        """Letters in each record's set; None where it has no scores of options."""
        found: list[tuple[str, ...] | None] = [None] * len(records)
        rows = [i for i, record in enumerate(records) if not record.missing(self.needs)]
        if not rows:
            return found
        chosen = [records[row] for row in rows]
        inside = self.conformal.sets(_probabilities(chosen, self.scores))
        for row, record, mask in zip(rows, chosen, inside, strict=True):
            letters = record.example.letters
            found[row] = tuple(x for x, held in zip(letters, mask, strict=False) if held)
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {"scores": self.scores, "conformal": self.conformal.to_dict()}


def option_needs(scores: Scores) -> frozenset[Feature]:
    """Signals from which the options' probabilities are read."""
    return ChoiceMaxProbability(scores=scores).needs


def fit_option_sets(
    records: Sequence[Record], *, scores: Scores, level: float, score: Score
) -> OptionSets:
    """Fits sets on independent records, those that show no options or no one answer left out.

    Raises:
        DataError: So few records can be used that every set would hold all options.
    """
    right = np.array([right_option(record) for record in records], dtype=np.int64)
    needs = option_needs(scores)
    rows = [i for i, r in enumerate(records) if right[i] >= 0 and not r.missing(needs)]
    least = math.ceil(level / (1 - level) - 1e-9) if 0 < level < 1 else 1
    if len(rows) < least:
        raise DataError(
            f"{len(rows)} of {len(records)} groups on which prediction sets are fitted have a row "
            f"with scored options and one right answer; {least} are required, so that sets that "
            f"hold the right option in {level:.0%} need not hold all options. Collect multiple "
            "choice with --options, label more, lower --sets-level, or leave --sets out."
        )
    probabilities = _probabilities([records[row] for row in rows], scores)
    return OptionSets(
        scores, fit_conformal_sets(probabilities, right[rows], level=level, score=score)
    )


def right_option(record: Record) -> int:
    """Index of the option that is right; -1 where there is none, or not exactly one."""
    letters = {reference.strip().upper() for reference in record.example.references}
    known = record.example.letters
    (letter,) = letters if len(letters) == 1 else ("",)
    return known.index(letter) if letter in known else -1


def _probabilities(records: Sequence[Record], scores: Scores) -> Float[np.ndarray, "n c"]:
    """Probabilities over options, zeros behind the last option of a shorter list."""
    logprobs = choice_logprobs(records, scores)
    counts: Int[np.ndarray, " n"] = logprobs.lengths
    padded = np.zeros((len(records), int(counts.max())))
    padded[np.arange(padded.shape[1])[None, :] < counts[:, None]] = np.exp(logprobs.values)
    return padded / padded.sum(axis=1, keepdims=True)


def read_option_sets(data: Mapping[str, Any]) -> OptionSets:
    """Rebuilds what `OptionSets.to_dict` wrote."""
    return OptionSets(data["scores"], ConformalSets.from_dict(data["conformal"]))
