"""How much the answer owes to the image: the same question with a blank or noised image instead.

An answer that is as likely without the image comes from the language prior, so its uncertainty is
high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from sightline.core.errors import UnscorableError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.agreement import canonical_forms
from sightline.estimators.signals import (
    ONE_MORE_PREFILL,
    Ragged,
    answer_logprobs,
    answer_start,
    per_answer_token,
    per_choice,
    require,
)

Against = Literal["blank", "noise"]
_AGAINST: Mapping[Against, Feature] = {
    "blank": Feature.BLANK_LOGPROBS,
    "noise": Feature.NOISED_LOGPROBS,
}

ChoiceScores = Literal["letters", "options"]

_CHOICE_FEATURES: Mapping[ChoiceScores, tuple[Feature, Feature]] = {
    "letters": (Feature.LETTER_LOGPROBS, Feature.BLANK_LETTER_LOGPROBS),
    "options": (Feature.OPTION_LOGPROBS, Feature.BLANK_OPTION_LOGPROBS),
}


@dataclass(frozen=True, slots=True)
class VisualInformation:
    """Mean log-probability of the answer's tokens without the image minus with the image.

    The negated pointwise mutual information of answer and image, per token.

    Attributes:
        against: What stands for no image: a blank one, or the strongest noise that was collected.
        over: The mean over the answer's tokens, their sum, or the first token alone.

    Source: the contrast of Favero et al. (M3ID, CVPR 2024), as a score.
    """

    over: Literal["mean", "sum", "first"] = "mean"
    against: Against = "blank"

    family: ClassVar[str] = "contrast"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer's log-probabilities with and without the image."""
        return frozenset({Feature.LOGPROBS, _AGAINST[self.against]})

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Log p(answer | no image) − log p(answer | image), in nats, of either sign."""
        require(records, self.needs, self)
        seen, blank = _with_and_without(records, self.against)
        gap = blank.map(lambda values: values - seen.values)
        if self.over == "first":
            return gap.first()
        return gap.mean() if self.over == "mean" else gap.sum()

    def cost(self, records: Sequence[Record]) -> Cost:
        """One more prefill; the answer's tokens are fed behind it, not generated."""
        return ONE_MORE_PREFILL


@dataclass(frozen=True, slots=True)
class VisualUncertainty:
    """One minus the change that taking the image away makes to the first token's probability.

    Attributes:
        against: What stands for no image: a blank one, or the strongest noise that was collected.

    Source: "visual uncertainty" of the VisualUE code by the first author of HARMONY: the absolute
    difference between the probabilities under the image and under a black one, or under one that
    diffusion noise has all but replaced. Ours: Gaussian noise of the perturbation bank, whose
    strongest level still shows the picture's outlines.
    """

    against: Against = "blank"

    family: ClassVar[str] = "contrast"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The answer's log-probabilities with and without the image."""
        return frozenset({Feature.LOGPROBS, _AGAINST[self.against]})

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − |p₁(image) − p₁(no image)|, in [0, 1]."""
        require(records, self.needs, self)
        seen, blank = _with_and_without(records, self.against)
        return np.asarray(1.0 - np.abs(np.exp(seen.first()) - np.exp(blank.first())))

    def cost(self, records: Sequence[Record]) -> Cost:
        """One more prefill."""
        return ONE_MORE_PREFILL


@dataclass(frozen=True, slots=True)
class ChoiceVisualInformation:
    """Log-probability of the favourite option with a blank image minus with the image.

    Attributes:
        scores: Which probabilities of the options count; normalised over the options.
    """

    scores: ChoiceScores = "letters"

    family: ClassVar[str] = "contrast"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """The scores of the options with the image and with a blank one."""
        return frozenset({Feature.CHOICES, *_CHOICE_FEATURES[self.scores]})

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Log p(option | blank) − log p(option | image), in nats; of tied favourites the larger."""
        require(records, self.needs, self)
        with_image, without = _CHOICE_FEATURES[self.scores]
        seen = per_choice(records, with_image).log_softmax()
        blank = per_choice(records, without).log_softmax()
        favourite = seen.values == seen.spread(seen.max())
        chosen = blank.map(lambda values: np.where(favourite, values, -np.inf))
        return np.asarray(chosen.max() - seen.max())

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill with the blank image."""
        return ONE_MORE_PREFILL


@dataclass(frozen=True, slots=True)
class BlankUnchanged:
    """Whether the answer stays the same when the image is blanked."""

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.ANSWER, Feature.BLANK_ANSWER})
    family: ClassVar[str] = "contrast"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 where the canonical answer stays the same, else 0; a share with several blanks."""
        require(records, self.needs, self)
        shares = []
        for record in records:
            blanks = [b.greedy.text for b in record.related.blank if b.greedy is not None]
            mine, *theirs = canonical_forms(record.example, (record.answer.text, *blanks))
            shares.append(theirs.count(mine) / len(theirs))
        return np.array(shares, dtype=np.float64)

    def cost(self, records: Sequence[Record]) -> Cost:
        """One prefill and one answer with the blank image."""
        return Cost(forward_passes=1, generations=1)


def _with_and_without(records: Sequence[Record], against: Against) -> tuple[Ragged, Ragged]:
    seen = answer_logprobs(record.answer for record in records)
    if against == "blank":
        return seen, Ragged.of(per_answer_token(records, Feature.BLANK_LOGPROBS))
    noised = [record.related.noised[-1].array(Feature.CLEAN_LOGPROBS) for record in records]
    wrong = [
        row
        for row, (record, array) in enumerate(zip(records, noised, strict=True))
        if len(array) != record.answer.n_tokens
    ]
    if wrong:
        raise UnscorableError(
            wrong,
            "another answer read under noise than the one judged",
            "Judge the clean condition.",
        )
    return seen, Ragged.of(
        [a[answer_start(r.answer) :] for r, a in zip(records, noised, strict=True)]
    )
