"""Agreement of the judged answer with other answers to the same question.

Two answers agree when `canonical_answer` gives the same short form for both: the form graders use.
An empty answer is an answer like any other: it agrees with another empty one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.text import canonical_answer, normalise_answer, parse_choice
from sightline.core.types import Example, Record
from sightline.estimators.signals import mean_count, require


@dataclass(frozen=True, slots=True)
class SampleAgreement:
    """Share of the samples that do not agree with the answer.

    Source: self-consistency of Wang et al. (ICLR 2023), used as a confidence.
    """

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.ANSWER, Feature.SAMPLES})
    family: ClassVar[str] = "agreement"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − share, in [0, 1], in steps of one sample."""
        require(records, self.needs, self)
        return _disagreement(records, [[s.text for s in r.samples] for r in records])

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return Cost(generations=mean_count([len(r.samples) for r in records]))


@dataclass(frozen=True, slots=True)
class ConditionAgreement:
    """Share of the answers under other conditions that do not agree with the answer.

    Counts every greedy answer and every sample under conditions that leave the right answer as it
    is (other images of the same scene, other wordings); blank and negated conditions do not count.

    Source: the equivalent-input half of FESTA (Bhattacharya et al., 2025) as an agreement share;
    the paper turns it into a divergence from an ideal answer distribution.
    """

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.ANSWER, Feature.CONDITIONS})
    family: ClassVar[str] = "agreement"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − share, in [0, 1]."""
        require(records, self.needs, self)
        return _disagreement(records, [_answers(r.related.views) for r in records])

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill per condition, and every answer under it."""
        return cost_of_observed([r.related.views for r in records])


@dataclass(frozen=True, slots=True)
class NegationConsistency:
    """Share of the answers to the negated question that fail to change.

    Attributes:
        with_views: Average with the share of answers under other conditions that do change, as
            `condition_agreement` counts them.

    Source: FESTA (Bhattacharya et al., 2025), as shares; the paper uses divergences.
    """

    with_views: bool = False

    family: ClassVar[str] = "agreement"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """Answers under negated conditions, and under the others where they count too."""
        views = {Feature.CONDITIONS} if self.with_views else set()
        return frozenset({Feature.ANSWER, Feature.NEGATIONS} | views)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Share, or mean of the two shares, in [0, 1]."""
        require(records, self.needs, self)
        answers = [_answers(r.related.negations) for r in records]
        unchanged = 1.0 - _disagreement(records, answers)
        if not self.with_views:
            return unchanged
        changed = _disagreement(records, [_answers(r.related.views) for r in records])
        return np.asarray((unchanged + changed) / 2)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill per condition, and every answer under it."""
        views = [r.related.views if self.with_views else () for r in records]
        return cost_of_observed(
            [r.related.negations + v for r, v in zip(records, views, strict=True)]
        )


@dataclass(frozen=True, slots=True)
class RotationAgreement:
    """Share of the option rotations under which the model does not choose the same option.

    Options are compared by their text, since their letters change with the rotation. An answer
    that names no option agrees with nothing.

    Source: permutation consistency of Zheng et al. (ICLR 2024) as a score.
    """

    needs: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.ANSWER, Feature.CHOICES, Feature.ROTATIONS}
    )
    family: ClassVar[str] = "agreement"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − share, in [0, 1]."""
        require(records, self.needs, self)
        shares = []
        known: dict[tuple[tuple[str, ...], str], str | None] = {}
        for record in records:
            others = [o for o in record.related.rotations if o.greedy is not None]
            mine, *theirs = (_chosen_text(one, known) for one in (record, *others))
            same = 0 if mine is None else theirs.count(mine)
            shares.append(same / len(others))
        return 1.0 - np.array(shares, dtype=np.float64)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill and one answer per rotation."""
        return cost_of_observed([r.related.rotations for r in records])


@dataclass(frozen=True, slots=True)
class ModelAgreement:
    """Share of the other models whose answer does not agree with this one's."""

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.ANSWER, Feature.MODELS})
    family: ClassVar[str] = "agreement"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − share, in [0, 1]."""
        require(records, self.needs, self)
        others = [
            [o.greedy.text for o in r.related.models if o.greedy is not None] for r in records
        ]
        return _disagreement(records, others)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill and one answer per model."""
        counts = [sum(o.greedy is not None for o in r.related.models) for r in records]
        return Cost(forward_passes=mean_count(counts), generations=mean_count(counts))


def canonical_forms(example: Example, texts: Sequence[str]) -> list[str]:
    """Canonical form of each text; equal texts are read once."""
    known: dict[str, str] = {}
    for text in texts:
        if text not in known:
            known[text] = canonical_answer(example, text)
    return [known[text] for text in texts]


def _disagreement(
    records: Sequence[Record], others: Sequence[Sequence[str]]
) -> Float[np.ndarray, " n"]:
    """Share of the other answers that differ from each record's own."""
    same = []
    for record, texts in zip(records, others, strict=True):
        mine, *theirs = canonical_forms(record.example, (record.answer.text, *texts))
        same.append(theirs.count(mine))
    total = np.array([len(texts) for texts in others], dtype=np.float64)
    return 1.0 - np.array(same, dtype=np.float64) / total


def _answers(conditions: Sequence[Record]) -> list[str]:
    """Greedy answers and samples under the conditions."""
    greedy = [c.greedy.text for c in conditions if c.greedy is not None]
    return greedy + [sample.text for c in conditions for sample in c.samples]


def _chosen_text(
    record: Record, known: dict[tuple[tuple[str, ...], str], str | None]
) -> str | None:
    """Text of the option the answer names, or None; read once, though many rotations ask."""
    choices = record.example.choices or ()
    key = choices, record.answer.text
    if key not in known:
        letter = parse_choice(record.answer.text, choices)
        at = None if letter is None else record.example.letters.index(letter)
        known[key] = None if at is None else normalise_answer(choices[at])
    return known[key]


def cost_of_observed(observed: Sequence[Sequence[Record]]) -> Cost:
    """One prefill per record observed, and its answers."""
    answers = [sum((o.greedy is not None) + len(o.samples) for o in others) for others in observed]
    return Cost(
        forward_passes=mean_count([len(others) for others in observed]),
        generations=mean_count(answers),
    )
