"""A policy without a run: confidence is the answer's probability, accepted from one half on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Record
from sightline.estimators import ESTIMATORS
from sightline.serving.trust import Judgement


@dataclass(frozen=True)
class HalfJudge:
    """Accepts from a confidence on; what shows no log-probabilities is not accepted."""

    threshold: float = 0.5
    samples: int = 0
    max_new_tokens: int = 64
    top_k: int = 0
    per_group: str | None = None

    @property
    def requests(self) -> tuple[Request, ...]:
        request = Request(
            max_new_tokens=self.max_new_tokens,
            n_samples=self.samples,
            top_k_logprobs=self.top_k,
        )
        return (request,)

    @property
    def calibrator(self) -> str:
        return "half@sha256:0"

    def judge(self, records: Sequence[Record]) -> list[Judgement]:
        return [self._one(record) for record in records]

    def _one(self, record: Record) -> Judgement:
        if not record.has(Feature.LOGPROBS) or len(record.samples) < self.samples:
            return Judgement(
                abstain=True,
                threshold=self.threshold,
                warnings=("no logprobs",),
                reason="no logprobs",
            )
        found = ESTIMATORS["sequence_probability"].uncertainty([record])  # type: ignore[union-attr]
        raw = float(found[0])
        return Judgement(
            confidence=1 - raw,
            raw_score=raw,
            abstain=1 - raw < self.threshold,
            threshold=self.threshold,
            signals={"sequence_probability": raw},
            reason=f"confidence {1 - raw:.4f} against the threshold {self.threshold:.4f}",
        )

    def describe(self) -> Mapping[str, Any]:
        bins = [
            {
                "low": i / 5,
                "high": (i + 1) / 5,
                "confidence": i / 5 + 0.1,
                "accuracy": i / 5 + 0.1,
                "accuracy_low": i / 5,
                "accuracy_high": i / 5 + 0.2,
                "n": 40,
            }
            for i in range(5)
        ]
        return {
            "digest": "0",
            "estimators": ["sequence_probability"],
            "risk": 0.05,
            "coverage": None,
            "delta": 0.05,
            "thresholds": {"all": self.threshold},
            "certified": True,
            "labelled": 200,
            "unit": "one_per_group",
            "units": 80,
            "per_group": self.per_group,
            "sets_level": None,
            "auroc": 0.8,
            "ece": 0.02,
            "reliability": bins,
        }
