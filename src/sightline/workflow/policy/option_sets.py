"""Prediction sets for multiple choice: the options that hold the right one at a stated rate.

Those of a classifier, over its classes, are in `sightline.workflow.policy.class_sets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int
from pydantic import TypeAdapter

from sightline.calibration.conformal import (
    ConformalSets,
    Score,
    fewest_rows,
    fit_conformal_sets,
)
from sightline.calibration.risk_control import one_of_each
from sightline.core.errors import DataError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.estimators.choice import ChoiceMaxProbability, Scores, choice_logprobs
from sightline.workflow.policy.evidence import SetsFit
from sightline.workflow.policy.labelled import Labelled, SetsTarget

_SCORES: TypeAdapter[Scores] = TypeAdapter(Scores)


class PredictionSets(Protocol):
    """Fitted sets of possible answers; nothing inherits from it."""

    @property
    def conformal(self) -> ConformalSets:
        """The fitted quantile and how it was fitted."""
        ...

    @property
    def needs(self) -> frozenset[Feature]:
        """Signals they read."""
        ...

    def of(self, records: Sequence[Record]) -> list[tuple[str, ...] | None]:
        """The answers in each record's set; None where it lacks the signals."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        ...


SetsFitter = Callable[[Labelled, np.random.Generator], tuple[PredictionSets, SetsFit]]
"""Fits sets on the third part, and measures how far they can be relied on."""


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
    records: Sequence[Record],
    groups: Int[np.ndarray, " n"],
    *,
    scores: Scores,
    level: float,
    score: Score,
    rng: np.random.Generator,
) -> OptionSets:
    """Fits sets on one random record of every group that has one with options and one answer.

    Args:
        records: Those without scored options, or without one right option, are left out.
        groups: Records that share a number are not independent.
        scores: Which probabilities of the options count.
        level: Share of sets that must hold the right option.
        score: How an option's place is scored.
        rng: Draws the record of every group.

    Raises:
        DataError: So few groups can be used that every set would hold all options.
    """
    right = np.array([right_option(record) for record in records], dtype=np.int64)
    needs = option_needs(scores)
    of_choice = [record for record, index in zip(records, right, strict=True) if index >= 0]
    lacking = sorted({feature.value for r in of_choice for feature in r.missing(needs)})
    usable = np.array(
        [i for i, r in enumerate(records) if right[i] >= 0 and not r.missing(needs)], dtype=np.int64
    )
    rows = usable[one_of_each(groups[usable], rng)]
    least = fewest_rows(level)
    if len(rows) < least:
        why = f" (multiple choice here lacks {', '.join(lacking)})" if lacking else ""
        raise DataError(
            f"{len(rows)} of {len(np.unique(groups))} groups on which prediction sets are fitted "
            f"have a row with scored options and one right answer{why}; {least} are required, so "
            f"that sets at the level {level:g} need not hold all options. Collect multiple choice "
            "with --options, choose other --sets-scores, label more, lower --sets-level, or leave "
            "--sets out."
        )
    probabilities = _probabilities([records[row] for row in rows], scores)
    return OptionSets(
        scores, fit_conformal_sets(probabilities, right[rows], level=level, score=score)
    )


def fit_sets_over_options(
    target: SetsTarget, data: Labelled, rng: np.random.Generator
) -> tuple[OptionSets, SetsFit]:
    """Sets fitted on the third part, and how far they can be relied on."""
    test = data.parts.test
    records = [data.records[i] for i in test]
    fitted = fit_option_sets(
        records,
        data.groups[test],
        scores=target.scores,
        level=target.level,
        score=target.kind,
        rng=rng,
    )
    found = [
        (len(letters), len(record.example.letters))
        for record, letters in zip(records, fitted.of(records), strict=True)
        if letters is not None
    ]
    size, options = np.mean(found, axis=0).tolist()
    return fitted, SetsFit(fitted.conformal.coverage, size, options)


def right_member(record: Record) -> str | None:
    """What a prediction set must hold to be right: a letter, or a picture's class.

    None where there is none, or not exactly one.
    """
    if record.example.choices is None:
        names = set(record.example.references)
        return names.pop() if len(names) == 1 else None
    index = right_option(record)
    return record.example.letters[index] if index >= 0 else None


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
    return OptionSets(
        _SCORES.validate_python(data["scores"]), ConformalSets.from_dict(data["conformal"])
    )
