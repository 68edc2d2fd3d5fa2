"""Entropy of the answers to equivalent questions: the same asked of other pictures in other words.

Views are conditions that keep the right answer, as `sightline.core.types.Related.views` has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UnscorableError
from sightline.core.features import ARRAY_AXES, Feature
from sightline.core.protocols import Cost
from sightline.core.types import Generation, Record
from sightline.estimators.agreement import cost_of_observed
from sightline.estimators.semantic import Clusters, DiscreteSemanticEntropy, check_threshold
from sightline.estimators.signals import require

EQUIVALENT = (
    "blur:1+wording:1",
    "blur:1+wording:2",
    "blur:2+wording:1",
    "blur:2+wording:2",
    "blur:3+wording:1",
)
"""Five perturbations of picture and question together, blur rising; what is collected for it."""

_PUBLISHED = frozenset({"blur", "wording"})

_READ_AS: Mapping[str, Mapping[Feature, Feature]] = MappingProxyType(
    {
        "canonical": {},
        "words": {},
        "embeddings": {Feature.VIEW_EMBEDDINGS: Feature.EMBEDDINGS},
        "entailment": {
            Feature.VIEW_ENTAILMENT: Feature.ENTAILMENT,
            Feature.VIEW_CONTRADICTION: Feature.CONTRADICTION,
        },
    }
)
"""What is stored of all texts, and what the same is called of the answers that count."""


@dataclass(frozen=True, slots=True)
class VLUncertainty:
    """Entropy of the meanings of the answers under equivalent pictures and questions.

    Attributes:
        over: Blurred pictures and other wordings alone, as published, or every view.
        answers: Which answers under the views count: the greedy ones, or the samples drawn there.
        with_clean: Count the judged answer too.
        clusters: What means the same: canonical forms, words, embeddings (stored) or entailment
            (stored).
        threshold: Least cosine of words or embeddings that mean the same.

    Source: VL-Uncertainty (Zhang et al., 2024): five pairs of a blurred picture and a rewritten
    question, answers clustered by meaning, entropy of the clusters' shares. Ours: what was
    collected counts, five conditions from blur:1+wording:1 to blur:3+wording:1 unless others are
    named; known wordings stand for a language model's rewriting, which may change the question;
    answers mean the same where their canonical forms are equal, for which the paper asks a language
    model (``clusters=entailment`` comes nearest).
    """

    over: Literal["published", "all"] = "published"
    answers: Literal["greedy", "samples"] = "greedy"
    with_clean: bool = False
    clusters: Clusters = "canonical"
    threshold: float = 0.9

    family: ClassVar[str] = "agreement"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer, those under other conditions, and what they are clustered by."""
        return frozenset({Feature.ANSWER, Feature.CONDITIONS, *_READ_AS[self.clusters]})

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Entropy in nats, from 0 (one meaning) to the logarithm of the number of answers.

        Raises:
            UnscorableError: The views of a record hold no answer of the kind that counts, or what
                is stored of their texts is of other texts.
        """
        require(records, self.needs, self)
        answers = [self._counted(record) for record in records]
        bare = [row for row, texts in enumerate(answers) if not texts]
        if bare:
            raise UnscorableError(
                bare,
                f"no {'sample' if self.answers == 'samples' else 'greedy answer'} under "
                + ("any view" if self.over == "all" else "blur or another wording"),
                "Collect them, or count what there is with other settings.",
            )
        entropy = DiscreteSemanticEntropy(self.clusters, self.threshold)
        return entropy.uncertainty(self._gathered(records, answers))

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill per view, and every answer under it."""
        return cost_of_observed([self._views(record) for record in records])

    def _gathered(
        self, records: Sequence[Record], answers: Sequence[Sequence[Generation]]
    ) -> list[Record]:
        """The answers that count as samples of one record, with what is stored of their texts."""
        read_as, gathered, stale = _READ_AS[self.clusters], [], []
        for row, (record, counted) in enumerate(zip(records, answers, strict=True)):
            features = {}
            if read_as:
                place = {text: at for at, text in enumerate(equivalent_texts(record))}
                if any(len(record.array(stored)) != len(place) for stored in read_as):
                    stale.append(row)
                    continue
                at = np.array([place[one.text] for one in (record.answer, *counted)])
                for stored, feature in read_as.items():
                    square = ARRAY_AXES[stored] == ("w", "w")
                    features[feature] = record.array(stored)[np.ix_(at, at) if square else at]
            gathered.append(Record(record.example, samples=tuple(counted), features=features))
        if stale:
            raise UnscorableError(
                stale,
                "what is stored of the answers under the views is of other answers",
                "Run sightline derive with --replace.",
            )
        return gathered

    def _views(self, record: Record) -> tuple[Record, ...]:
        if self.over == "all":
            return record.related.views
        return tuple(v for v in record.related.views if _families(v.condition) <= _PUBLISHED)

    def _counted(self, record: Record) -> list[Generation]:
        views = self._views(record)
        if self.answers == "samples":
            found = [sample for view in views for sample in view.samples]
        else:
            found = [view.greedy for view in views if view.greedy is not None]
        return [record.answer, *found] if self.with_clean and found else found


def equivalent_texts(record: Record) -> list[str]:
    """The different texts among the answer and all answers under its views, alphabetically.

    What is derived of them (`Feature.VIEW_EMBEDDINGS`, `Feature.VIEW_ENTAILMENT`) has this order.
    """
    views = record.related.views
    greedy = {view.greedy.text for view in views if view.greedy is not None}
    samples = {sample.text for view in views for sample in view.samples}
    return sorted({record.answer.text} | greedy | samples)


def _families(condition: str) -> frozenset[str]:
    return frozenset(part.partition(":")[0] for part in condition.split("+"))
