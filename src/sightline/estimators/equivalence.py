"""Entropy of the answers to equivalent questions: the same asked of other pictures in other words.

Views are conditions that keep the right answer, as `sightline.core.types.Related.views` has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UnscorableError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Generation, Record
from sightline.estimators.agreement import cost_of_observed
from sightline.estimators.semantic import DiscreteSemanticEntropy
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


@dataclass(frozen=True, slots=True)
class VLUncertainty:
    """Entropy of the meanings of the answers under equivalent pictures and questions.

    Attributes:
        over: Blurred pictures and other wordings alone, as published, or every view.
        answers: Which answers under the views count: the greedy ones, or the samples drawn there.
        with_clean: Count the judged answer too.

    Source: VL-Uncertainty (Zhang et al., 2024): five pairs of a blurred picture and a rewritten
    question, answers clustered by meaning, entropy of the clusters' shares. Ours: what was
    collected counts, `EQUIVALENT` by default; known wordings stand for a language model's
    rewriting, which may change the question; answers mean the same where their canonical forms are
    equal, for which the paper asks a language model.
    """

    over: Literal["published", "all"] = "published"
    answers: Literal["greedy", "samples"] = "greedy"
    with_clean: bool = False

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.ANSWER, Feature.CONDITIONS})
    family: ClassVar[str] = "agreement"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Entropy in nats, from 0 (one meaning) to the logarithm of the number of answers.

        Raises:
            UnscorableError: The views of a record hold no answer of the kind that counts.
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
        gathered = [
            Record(record.example, samples=tuple(texts))
            for record, texts in zip(records, answers, strict=True)
        ]
        return DiscreteSemanticEntropy().uncertainty(gathered)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill per view, and every answer under it."""
        return cost_of_observed([self._views(record) for record in records])

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


def _families(condition: str) -> frozenset[str]:
    return frozenset(part.partition(":")[0] for part in condition.split("+"))
