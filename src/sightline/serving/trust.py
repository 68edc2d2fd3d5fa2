"""From what was observed to the ``trust`` object of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from sightline.core.errors import UnscorableError
from sightline.core.features import Feature
from sightline.core.protocols import Estimator, Request
from sightline.core.types import Example, Generation, Record
from sightline.estimators import parse_estimator
from sightline.workflow.policy.categories import in_category
from sightline.workflow.requests import request_for

RAW_SCORES = ("sequence_probability", "mean_token_entropy", "min_token_probability")
"""Estimators whose raw scores are shown where there is no policy."""

SAMPLES, LAYERS = 10, (0.25, 0.5, 0.75, 1.0)
"""What raw scores read that read samples or hidden states; collect takes the same."""

NOT_PROBABILITIES = (
    "no policy: signals are raw uncertainties, higher is worse; they are not probabilities"
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of one answer's trustworthiness.

    Attributes:
        confidence: Calibrated probability of being right, or None where there is none.
        raw_score: The uncertainty it was computed from, higher is worse, or None.
        abstain: Whether the policy says not to use the answer; None where there is no policy.
        threshold: Least confidence that is accepted, or None.
        signals: Raw uncertainties by estimator.
        warnings: What the client must know to read the others.
        reason: Why the policy accepts the answer or abstains, in one line; None without one.
        prediction_set: Letters of the options that hold the right one at the policy's stated rate;
            None for a free answer, or where there are no sets.
        category: Whose threshold was held against it; None where one is for all.
        undecided: Whether a costlier observation would settle it.
    """

    confidence: float | None = None
    raw_score: float | None = None
    abstain: bool | None = None
    threshold: float | None = None
    signals: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reason: str | None = None
    prediction_set: tuple[str, ...] | None = None
    category: str | None = None
    undecided: bool = False


class Judge(Protocol):
    """Judges the records of answers."""

    @property
    def requests(self) -> tuple[Request, ...]:
        """What to observe, stage by stage, so that answers are judged as where it was fitted."""
        ...

    @property
    def calibrator(self) -> str | None:
        """What made the confidences, with a digest, or None where there are none."""
        ...

    @property
    def per_group(self) -> str | None:
        """Field of the example that thresholds go by, or None where one is for all."""
        ...

    def judge(self, records: Sequence[Record]) -> list[Judgement]:
        """Judges each record by itself."""
        ...

    def describe(self) -> Mapping[str, Any] | None:
        """What the page shows of the policy: its size, its figures, its reliability diagram."""
        ...


@dataclass(frozen=True, slots=True)
class RawScores:
    """Raw scores without a policy: shown, and said not to be probabilities.

    Attributes:
        estimators: Specs of estimators that fit nothing.
        max_new_tokens: Limit on generated tokens per answer.
        named: Whether the operator named them; then each that gives no score says why.
    """

    estimators: tuple[str, ...] = RAW_SCORES
    max_new_tokens: int = 64
    named: bool = False

    @property
    def requests(self) -> tuple[Request, ...]:
        """Just what the estimators need, in the numbers that collect takes."""
        defaults = Request(max_new_tokens=self.max_new_tokens, n_samples=SAMPLES, layers=LAYERS)
        return (request_for(self.estimators, defaults),)

    @property
    def calibrator(self) -> str | None:
        """None: nothing is calibrated."""
        return None

    @property
    def per_group(self) -> str | None:
        """None: there are no thresholds."""
        return None

    def judge(self, records: Sequence[Record]) -> list[Judgement]:
        """The scores of each record, where it shows what they need."""
        return [self._judge_one(record) for record in records]

    def describe(self) -> Mapping[str, Any] | None:
        """None: there is no policy."""
        return None

    def _judge_one(self, record: Record) -> Judgement:
        signals: dict[str, float] = {}
        unscored: list[str] = []
        for spec in self.estimators:
            estimator = parse_estimator(spec)
            if not isinstance(estimator, Estimator):
                continue
            missing = sorted(feature.value for feature in record.missing(estimator.needs))
            if missing:
                unscored.append(f"no {spec}: the answer came without {', '.join(missing)}")
                continue
            try:
                signals[spec] = float(np.asarray(estimator.uncertainty([record]))[0])
            except UnscorableError as error:
                unscored.append(f"no {spec}: {' '.join(str(error).split())}")
        raw = signals.get(self.estimators[0]) if self.estimators else None
        said = unscored if self.named or not signals else ()
        return Judgement(raw_score=raw, signals=signals, warnings=(NOT_PROBABILITIES, *said))


Receipt = Callable[[str, float], str]
"""Signs (id of an answer, its confidence), for feedback."""


@dataclass(frozen=True, slots=True)
class Trusting:
    """Writes the ``trust`` objects of one judge's answers.

    Attributes:
        judge: Says what is thought of an answer.
        receipt: Signs confidences; None where no feedback is kept.
    """

    judge: Judge
    receipt: Receipt | None

    def trust(
        self, record: Record, judgement: Judgement, key: str, warnings: Sequence[str]
    ) -> dict[str, Any]:
        """The ``trust`` object of a choice.

        Args:
            record: What was observed of the answer.
            judgement: What the judge says of it.
            key: Names the answer in its receipt.
            warnings: Further warnings about the request.
        """
        sign, confidence = self.receipt, judgement.confidence
        letters = judgement.prediction_set
        return {
            "confidence": confidence,
            "raw_score": judgement.raw_score,
            "abstain": judgement.abstain,
            "reason": judgement.reason,
            "threshold": judgement.threshold,
            "category": judgement.category,
            "prediction_set": None if letters is None else list(letters),
            "signals": dict(judgement.signals),
            "calibrator": None if confidence is None else self.judge.calibrator,
            "backend_level": level_of(record),
            "receipt": None if sign is None or confidence is None else sign(key, confidence),
            "warnings": [*judgement.warnings, *warnings],
        }


def without_confidence(judgement: Judgement, reason: str) -> Judgement:
    """The judgement where its confidence does not hold; the policy then abstains."""
    abstain = None if judgement.abstain is None else True
    return replace(
        judgement,
        confidence=None,
        abstain=abstain,
        warnings=(*judgement.warnings, reason),
        reason=None if abstain is None else reason,
        prediction_set=None,
        undecided=False,
    )


def of_category(example: Example, judge: Judge, category: str | None) -> Example:
    """The example as it belongs to the category that a client names, where thresholds go by one."""
    if judge.per_group is None or category is None:
        return example
    return in_category(example, judge.per_group, category)


def category_warnings(judge: Judge, category: str | None) -> tuple[str, ...]:
    """Says that a category was named for nothing."""
    if judge.per_group is not None or category is None:
        return ()
    return ("trust.category is not used: no threshold goes by it",)


def held_to_limit(judgement: Judgement, record: Record, asked: int, fitted: int) -> Judgement:
    """The judgement, without its confidence where another token limit changed what was judged.

    Args:
        judgement: What the judge says.
        record: What was observed.
        asked: Tokens that the answer could have.
        fitted: Tokens that the policy's answers could have.
    """
    if asked == fitted or judgement.confidence is None:
        return judgement
    within = min(asked, fitted)
    if all(_ended(one, within) for one in (record.answer, *record.samples)):
        return judgement
    return without_confidence(
        judgement, f"cut at {asked} tokens where the policy was fitted at {fitted}"
    )


def _ended(generation: Generation, within: int) -> bool:
    """Whether a generation ended by itself within so many tokens."""
    tokens = generation.n_tokens
    return generation.finish_reason == "stop" and tokens is not None and tokens <= within


def level_of(record: Record) -> str:
    """How much the backend shows: L0 text, L1 token log-probabilities, L2 most likely tokens,
    L3 one layer's states, L4 several.
    """  # noqa: D205 (one sentence over two lines)
    if record.has(Feature.HIDDEN):
        return "L4" if len(record.layers) > 1 else "L3"
    if record.has(Feature.TOP_LOGPROBS):
        return "L2"
    return "L1" if record.has(Feature.LOGPROBS) else "L0"
