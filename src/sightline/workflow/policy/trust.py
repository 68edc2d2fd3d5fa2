"""TrustPolicy: estimators, their calibrations and certified thresholds, as one value that decides.

A policy has one stage, or several from cheap to expensive (a cascade). A stage that is not the last
settles an answer unless its confidence is undecided; the next then looks at it. The confidence of
the stage that settles is compared with the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.differences import differences
from sightline.core.errors import DataError, UnscorableError, UsageError
from sightline.core.features import ARRAY_AXES, FOLLOW_UPS, Feature
from sightline.core.protocols import Calibration, Cost, Estimator, Request
from sightline.core.types import Record
from sightline.estimators.fusion import FittedFusion
from sightline.estimators.states import layers_read
from sightline.workflow.classifying.scoring import AppliedScore
from sightline.workflow.policy.categories import category_of
from sightline.workflow.policy.decision import Decision
from sightline.workflow.policy.evidence import Evidence
from sightline.workflow.policy.option_sets import PredictionSets
from sightline.workflow.requests import request_of
from sightline.workflow.scoring import settled

NOT_SCORED = -1.0
"""Stands for the confidence of an answer that nothing could score; below every threshold."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One estimator with its calibration.

    Attributes:
        name: The spec it was asked for by.
        spec: Name and settings.
        estimator: Ready to score, fitted where it learns.
        calibration: From its uncertainty to the probability of being right.
        undecided: Confidences from the first up to (not including) the second go on to the next
            stage; None for the last stage.
    """

    name: str
    spec: Mapping[str, Any]
    estimator: Estimator
    calibration: Calibration
    undecided: tuple[float, float] | None = None

    def goes_on(self, confidence: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which confidences are left to the next stage."""
        if self.undecided is None:
            return np.zeros(len(confidence), dtype=bool)
        low, high = self.undecided
        return np.asarray((confidence >= low) & (confidence < high))


@dataclass(slots=True, eq=False)
class Routed:
    """Where each answer was settled, and with what; filled stage by stage.

    Attributes:
        stage: Index of the stage that settled it; -1 where none could score it.
        uncertainty: Raw score there; 0 where there is none.
        confidence: Calibrated there; `NOT_SCORED` where there is none.
        signals: Uncertainty by estimator name, of every stage that looked at it.
        lacking: Why the last stage that was to look at it could not, where it could not.
        pending: Signals that stage needs and the record does not show.
    """

    stage: Int[np.ndarray, " n"]
    uncertainty: Float[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]
    signals: list[dict[str, float]]
    lacking: dict[int, str]
    pending: dict[int, frozenset[Feature]]

    @property
    def final(self) -> Float[np.ndarray, " n"]:
        """Confidence that the threshold is held against: `NOT_SCORED` where a stage lacked it."""
        final = self.confidence.copy()
        final[list(self.lacking)] = NOT_SCORED
        return final

    @classmethod
    def empty(cls, n: int) -> Routed:
        """Nothing scored yet."""
        return cls(
            np.full(n, -1), np.zeros(n), np.full(n, NOT_SCORED), [{} for _ in range(n)], {}, {}
        )


@dataclass(frozen=True, slots=True, eq=False)
class TrustPolicy:
    """Decides which answers of one model, asked in one way, may be used.

    Attributes:
        stages: At least one; the cheapest first.
        evidence: What it was fitted on, what it promises, how that was shown.
        sets: Prediction sets over options or classes; None where it has none.
    """

    stages: tuple[Stage, ...]
    evidence: Evidence
    sets: PredictionSets | None = None

    def __post_init__(self) -> None:
        passing = [stage.undecided is not None for stage in self.stages]
        if not passing or passing[-1] or not all(passing[:-1]):
            raise DataError(
                f"A policy of {len(passing)} stages of which {sum(passing)} leave answers to the "
                "next; every stage but the last does, and there is at least one. Calibrate again."
            )

    @property
    def of_pictures(self) -> bool:
        """Whether it decides a classifier's pictures, not a model's answers to questions."""
        return Feature.IMAGE_VECTOR in self.needs

    def require_questions(self, who: str) -> None:
        """Refuses a policy for a classifier's pictures, with who was to use it (`UsageError`)."""
        if self.of_pictures:
            raise UsageError(
                f"The policy is for a classifier's pictures and {who} answers questions; one "
                "calibrated on a model's answers is required. Use this one with 'sightline "
                "classify' and 'sightline apply'."
            )

    @property
    def needs(self) -> frozenset[Feature]:
        """Signals that its stages and sets read; a cascade's later stages only where undecided."""
        needs = frozenset[Feature]().union(*(s.estimator.needs for s in self.stages))
        return needs if self.sets is None else needs | self.sets.needs

    def needs_of(self, stage: int) -> frozenset[Feature]:
        """Signals to observe so that the stages up to this one, and the sets, can look."""
        upto = self.stages[: stage + 1]
        needs = frozenset[Feature]().union(*(s.estimator.needs for s in upto))
        return needs if self.sets is None else needs | self.sets.needs

    def observed_by(self, request: Request, stage: int) -> Request:
        """The request that observes just what the stages up to this one, and the sets, read.

        Of the hidden layers those that the fitted estimators read; a layer's states do not depend
        on which others are kept.
        """
        kept = narrowed(request, self.needs_of(stage))
        layers = layers_read(each.estimator for each in self.stages[: stage + 1])
        return kept if layers is None or not kept.layers else replace(kept, layers=layers)

    @property
    def thresholds(self) -> dict[str | None, float | None]:
        """Least confidence that is accepted, by category; None where none was certified."""
        return {p.category: p.guarantee.threshold for p in self.evidence.promises}

    def decide(self, records: Sequence[Record]) -> tuple[Decision, ...]:
        """Decides each answer by itself, in the given order.

        The records are linked where the policy's signals are (see `sightline.core.records.link`);
        those that lack a signal, or have another number of pictures than the labelled questions,
        are not accepted, with the reason. The caller has checked that they come from the policy's
        model and were asked as it was (see `check_model` and `check_request`).
        """
        for stage in self.stages:
            if isinstance(stage.estimator, AppliedScore):
                records = stage.estimator.answered(records)
        routed = route(self.stages, records)
        sets = [None] * len(records) if self.sets is None else self.sets.of(records)
        thresholds = self.thresholds
        field = self.evidence.target.per_group
        return tuple(
            self._decision(record, row, routed, sets[row], thresholds, field)
            for row, record in enumerate(records)
        )

    def _decision(
        self,
        record: Record,
        row: int,
        routed: Routed,
        letters: tuple[str, ...] | None,
        thresholds: Mapping[str | None, float | None],
        field: str | None,
    ) -> Decision:
        category = None if field is None else category_of(record, field)
        threshold = thresholds.get(category)
        index = int(routed.stage[row])
        scored = index >= 0
        confidence = float(routed.confidence[row])
        origin = self.evidence.origin
        unlike = None if origin is None else origin.unlike(len(record.example.images))
        accepted = False
        if unlike is not None:
            reason = unlike
        elif row in routed.lacking:
            reason = routed.lacking[row]
        elif field is not None and category is None:
            reason = f"the question has no {field}, which the threshold goes by"
        elif category not in thresholds:
            reason = f"{field} {category!r} was not among the labelled answers"
        elif threshold is None:
            reason = "no threshold is certified: the policy abstains from every answer"
            if field is not None:
                reason = f"no threshold is certified for {field} {category!r}"
        else:
            accepted = confidence >= threshold
            word = "reaches" if accepted else "is below"
            reason = f"confidence {confidence:.4f} {word} the threshold {threshold:.4f}"
        return Decision(
            answer="" if record.greedy is None else record.greedy.text,
            uncertainty=float(routed.uncertainty[row]) if scored else None,
            confidence=confidence if scored and unlike is None else None,
            accepted=accepted,
            reason=reason,
            threshold=threshold,
            signals=routed.signals[row],
            estimator=self.stages[index].name if scored else None,
            prediction_set=letters if unlike is None else None,
            category=category,
            pending=routed.pending.get(row, frozenset()) if unlike is None else frozenset(),
        )

    @property
    def request(self) -> Request | None:
        """How the model must be asked; None where the answers were recorded by another tool."""
        origin = self.evidence.origin
        return None if origin is None or origin.request is None else read_request(origin.request)

    def check_model(self, fingerprint: Mapping[str, Any], where: str = "this model") -> None:
        """Requires the model that the policy was fitted on.

        Args:
            fingerprint: As `VisionLanguageModel.fingerprint` gives it and a run's manifest has it.
            where: What is being judged, for the message.

        Raises:
            UsageError: It is another; the message names what differs, with both values.
        """
        known = {} if self.evidence.origin is None else self.evidence.origin.model
        # A name counts only where no hash of the files decides.
        hashed = known.get("files_xxh3") and fingerprint.get("files_xxh3")
        # A seed decides which samples are drawn, not what they are drawn from.
        ignored = {"capabilities seed", "samples", *(("name",) if hashed else ())}
        differing = differences(known, fingerprint, ignored)
        if differing:
            raise UsageError(
                f"The policy was fitted on {known.get('name', 'an unnamed model')} and {where} is "
                f"{fingerprint.get('name', 'an unnamed model')} (differing in "
                f"{', '.join(differing[:4])}); the same model is required. Calibrate a policy on "
                "labelled answers of this one."
            )

    def check_request(self, request: Request | None, where: str = "this request") -> None:
        """Requires that the model is asked as it was for the policy.

        Only settings that the policy's signals depend on count: how many samples are drawn does
        not matter to a policy that reads none.

        Args:
            request: How it is asked; None for answers that another tool recorded.
            where: What is being judged, for the message.

        Raises:
            UsageError: A setting differs; the message names it with both values.
        """
        known, given = self.request, None if request is None else narrowed(request, self.needs)
        if known == given:
            return
        found = "answers recorded by another tool"
        if known is not None and given is not None:
            names = [f.name for f in fields(Request)]
            names = [n for n in names if getattr(known, n) != getattr(given, n)]
            found = ", ".join(f"{n} {getattr(given, n)} for {getattr(known, n)}" for n in names)
        elif given is not None:
            found = "answers collected here, for a policy on answers recorded by another tool"
        raise UsageError(
            f"The policy was fitted on other decoding settings than {where} has ({found}); the "
            "same are required, since they change what a signal means. Ask with the policy's "
            "settings, or calibrate a policy on these."
        )

    def cost(self, records: Sequence[Record], stage: int = -1) -> Cost:
        """What observing a stage's signals costs per answer, beyond the greedy answer."""
        return self.stages[stage].estimator.cost(records)


def route(stages: Sequence[Stage], records: Sequence[Record]) -> Routed:
    """Scores the records stage by stage; later stages only what earlier ones left undecided."""
    routed = Routed.empty(len(records))
    rows = list(range(len(records)))
    for index, stage in enumerate(stages):
        if not rows:
            break
        rows = _look(stage, index, records, rows, routed)
    return routed


def array_needs(needs: frozenset[Feature]) -> frozenset[Feature]:
    """Array features among needed signals, those that follow-up questions bring included."""
    replies = {Feature.REPLY_LOGPROBS} if needs & FOLLOW_UPS else set[Feature]()
    return frozenset((needs | replies) & ARRAY_AXES.keys())


def narrowed(request: Request, needs: frozenset[Feature]) -> Request:
    """The request without what these signals do not need, and without the seed."""
    asked = tuple(name for name in request.asks if Feature(name.partition(".")[0]) in needs)
    kept = request_of(needs, replace(request, asks=asked))
    if not kept.n_samples:
        kept = replace(kept, temperature=1.0, top_p=1.0)
    return replace(kept, seed=0)


def read_request(values: Mapping[str, Any]) -> Request:
    """Rebuilds a request from JSON."""
    read: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return Request(**read)


def _look(
    stage: Stage, index: int, records: Sequence[Record], rows: list[int], routed: Routed
) -> list[int]:
    """Lets a stage look at rows; returns those that it leaves to the next."""
    needs = stage.estimator.needs
    shown, onward = [], []
    for row in rows:
        missing = records[row].missing(needs)
        if missing:
            routed.lacking[row] = "no " + ", ".join(f.value for f in missing)
            routed.pending[row] = frozenset(missing)
            onward.append(row)
        else:
            shown.append(row)
    shown, uncertainty = _scores(stage.estimator, records, shown, routed, onward)
    if not shown:
        return sorted(onward)
    confidence = stage.calibration.confidence(uncertainty)
    _note_signals(stage, [records[row] for row in shown], shown, uncertainty, routed)
    routed.stage[shown] = index
    routed.uncertainty[shown] = uncertainty
    routed.confidence[shown] = confidence
    for row in shown:
        routed.lacking.pop(row, None)
        routed.pending.pop(row, None)
    onward += [row for row, more in zip(shown, stage.goes_on(confidence), strict=True) if more]
    return sorted(onward)


def _scores(
    estimator: Estimator,
    records: Sequence[Record],
    rows: list[int],
    routed: Routed,
    refused: list[int],
) -> tuple[list[int], Float[np.ndarray, " k"]]:
    """Scores the rows; those that the estimator refuses are noted with its reason."""
    if not rows:
        return rows, np.empty(0)
    try:
        return rows, settled(estimator.uncertainty([records[row] for row in rows]))
    except UnscorableError as error:
        for at in error.rows:
            routed.lacking[rows[at]] = error.reason
            refused.append(rows[at])
        kept = [row for at, row in enumerate(rows) if at not in set(error.rows)]
    return _scores(estimator, records, kept, routed, refused)


def _note_signals(
    stage: Stage,
    records: Sequence[Record],
    rows: Sequence[int],
    uncertainty: Float[np.ndarray, " k"],
    routed: Routed,
) -> None:
    columns = {stage.name: uncertainty}
    if isinstance(stage.estimator, FittedFusion):
        parts = stage.estimator
        for member, spec in zip(parts.members, parts.specs, strict=True):
            columns[str(spec["name"])] = member.uncertainty(records)
    for name, values in columns.items():
        for row, value in zip(rows, values.tolist(), strict=True):
            routed.signals[row][name] = value
