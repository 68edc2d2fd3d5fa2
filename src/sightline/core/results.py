"""Typed results of an evaluation: all that a report may read.

`Evaluation` is written as results.json and read back with `load_evaluation`; a report renders it
and never computes a figure of its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sightline.core.errors import DataError
from sightline.core.estimates import Estimate

FORMAT_VERSION = 1
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class ReliabilityBin:
    """One bin of a reliability diagram over calibrated confidence.

    Attributes:
        low: Lower edge, excluded (included for the first bin).
        high: Upper edge, included.
        confidence: Mean confidence of the bin's rows, or None if empty.
        accuracy: Share right with its interval.
        n: Rows in the bin.
    """

    low: float
    high: float
    confidence: float | None
    accuracy: Estimate
    n: int


@dataclass(frozen=True, config=_STRICT)
class Curve:
    """A curve to draw: x and y of equal length, at most a few hundred points."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise DataError(
                f"Curve with {len(self.x)} x and {len(self.y)} y values; as many of both are "
                "required. Evaluate the run again."
            )


@dataclass(frozen=True, config=_STRICT)
class CoverageRow:
    """Accuracy when only the most confident share of answers is kept."""

    coverage: float
    accuracy: Estimate
    threshold: float | None


@dataclass(frozen=True, config=_STRICT)
class Histogram:
    """Counts of confidence in equal-width bins over [0, 1], by correctness."""

    edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.edges) - 1 == len(self.right) == len(self.wrong):
            raise DataError(
                f"Histogram with {len(self.edges)} edges, {len(self.right)} right and "
                f"{len(self.wrong)} wrong counts; one count less than edges is required. "
                "Evaluate the run again."
            )


@dataclass(frozen=True, config=_STRICT)
class Skipped:
    """Rows an estimator could not score, and why."""

    reason: str
    n: int


@dataclass(frozen=True, config=_STRICT)
class NotApplicable:
    """An estimator that could score no row of the run: why, and for how many rows."""

    name: str
    reasons: tuple[Skipped, ...]


@dataclass(frozen=True, config=_STRICT)
class AnswerRow:
    """One answer shown in the report; a picture is shown only where its hash still holds."""

    example_id: str
    question: str
    question_type: str | None
    answer: str
    references: tuple[str, ...]
    choices: tuple[str, ...]
    correct: float
    confidence: float
    images: tuple[str, ...]
    image_sha256: tuple[str, ...] = ()


@dataclass(frozen=True, config=_STRICT)
class DrawFigures:
    """A zero-shot classifier's score over repeated support draws, on all judged pictures.

    Attributes:
        uses_support: Whether it learns from labelled support pictures; else it is zero-shot.
        may_relabel: Whether its label may differ from the classifier's.
        draws: Support draws; 1 for a score that uses none.
        mean: Accuracy of its own labels, AUROC, AURC, FPR95, and ``fpr95_nearest`` (FPR95 by the
            rule of TrustVLM's released code) by metric, mean over the draws; None where no draw
            defines it.
        spread: Standard deviation over the draws; None below two.
    """

    uses_support: bool
    may_relabel: bool
    draws: int
    mean: dict[str, float | None]
    spread: dict[str, float | None]


@dataclass(frozen=True, config=_STRICT)
class OutOfDistribution:
    """How well each score tells the run's pictures from those of none of its classes.

    Attributes:
        run: The other run.
        pictures: Its pictures.
        figures: AUROC, AUPR and FPR95 by score, then by metric; right = in distribution. Mean over
            the support draws.
    """

    run: str
    pictures: int
    figures: dict[str, dict[str, Estimate]]


@dataclass(frozen=True, config=_STRICT)
class ClassifierSummary:
    """What a zero-shot classifier was given.

    Attributes:
        classes: Number of classes.
        templates: Prompt templates.
        encoders: Auxiliary image encoders.
        support: Run whose labelled pictures were learned from, or None.
        shots: Most pictures of a class in a draw.
        draws: Number of draws.
        unreadable: Support pictures that could not be used: unreadable, or without a usable vector.
        scores: Figures over the draws, by score.
        out_of_distribution: A second task for the same scores, or None.
        fewest_shots: Fewest pictures of a class in a draw; None in results of earlier versions,
            which do not say.
    """

    classes: int
    templates: tuple[str, ...]
    encoders: tuple[str, ...]
    support: str | None
    shots: int
    draws: int
    unreadable: int
    scores: dict[str, DrawFigures]
    out_of_distribution: OutOfDistribution | None = None
    fewest_shots: int | None = None


@dataclass(frozen=True, config=_STRICT)
class EstimatorResult:
    """Everything measured about one estimator.

    Attributes:
        name: As in the table of estimators.
        family: Module of the estimator, or ``control``.
        spec: Settings that produced the scores.
        control: Whether it must not work by design (question type only, answer length, random).
        scored: Rows scored in the whole run.
        skipped: Rows not scored, by reason.
        forward_passes: Extra prefills per answer.
        generations: Extra generated answers per answer.
        generated_tokens: Mean extra generated tokens per answer, or None if unknown.
        seconds: Seconds to compute the score for all rows (from the store).
        raw: Figures of the raw score on all scored rows, by metric; for a score that is itself a
            probability also calibration error. Empty for an estimator that fits on labels.
        heldout: Figures on held-out rows after calibration, mean over seeds, by metric.
        within_type: AUROC within question type on held-out rows, mean over types.
        by_type: Figures on held-out rows by question type, then by metric.
        vs_baseline: Paired difference to the best simple baseline, by metric; empty for itself.
        calibration: ``fitted`` or, where the score carries no signal, ``base rate``, or why there
            is none; with counts where the splits differ.
        reliability: Bins over held-out calibrated confidence of the first seed.
        risk_coverage: Selective risk against coverage.
        rejection: Accuracy of the kept answers against the rejected share.
        roc: True against false positive rate (positive = right).
        histogram: Held-out calibrated confidence by correctness.
        coverage_table: Accuracy at coverages from 50 % to 100 %.
        confident_wrong: The most confident wrong answers.
        unsure_right: The least confident right answers.
    """

    name: str
    family: str
    spec: dict[str, Any]
    control: bool
    scored: int
    skipped: tuple[Skipped, ...]
    forward_passes: int
    generations: int
    generated_tokens: float | None
    seconds: float
    raw: dict[str, Estimate]
    heldout: dict[str, Estimate]
    within_type: Estimate
    by_type: dict[str, dict[str, Estimate]]
    vs_baseline: dict[str, Estimate]
    calibration: str
    reliability: tuple[ReliabilityBin, ...]
    risk_coverage: Curve
    rejection: Curve
    roc: Curve
    histogram: Histogram | None
    coverage_table: tuple[CoverageRow, ...]
    confident_wrong: tuple[AnswerRow, ...]
    unsure_right: tuple[AnswerRow, ...]


@dataclass(frozen=True, config=_STRICT)
class RunSummary:
    """What was evaluated."""

    name: str
    path: str
    model: str
    dataset: str
    records: int
    quarantined: int
    quarantine_reasons: tuple[Skipped, ...]
    partial: str | None
    truncated_answers: int
    empty_answers: int
    groups: int
    created: str
    decoding: dict[str, Any]
    notes: tuple[str, ...]
    image_root: str
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class Protocol:
    """How it was measured.

    Attributes:
        condition: Which records were judged.
        grader: The correctness column's spec.
        threshold: An answer counts as right when its correctness reaches it.
        graded: Rows with a correctness.
        ungraded: Rows without one, by reason.
        seeds: Split seeds.
        fractions: Shares of groups for train, calibration and test.
        rows: Rows in train, calibration and test of the first seed.
        calibrator: Name of the calibrator every estimator was given.
        resamples: Bootstrap resamples, drawn by group.
        level: Coverage of the intervals.
        baseline: Name of the best simple baseline, or None.
    """

    condition: str
    grader: dict[str, Any]
    threshold: float
    graded: int
    ungraded: tuple[Skipped, ...]
    seeds: tuple[int, ...]
    fractions: tuple[float, float, float]
    rows: tuple[int, int, int]
    calibrator: str
    resamples: int
    level: float
    baseline: str | None


@dataclass(frozen=True, config=_STRICT)
class TypeSummary:
    """One question type of the run."""

    name: str
    n: int
    accuracy: Estimate


@dataclass(frozen=True, config=_STRICT)
class Evaluation:
    """One run, evaluated.

    `accuracy` counts answers whose correctness reaches the protocol's threshold;
    `mean_correctness` is the mean before it, which differs where graders give part marks (VQA
    soft accuracy).

    `estimators` is ordered by held-out AUROC, best first; those that can score less than half of
    the answers come after the others. `not_applicable` are those that can score none. `classifier`
    is there for runs of zero-shot classifiers.
    """

    format_version: Literal[1]
    sightline_version: str
    run: RunSummary
    protocol: Protocol
    accuracy: Estimate
    mean_correctness: Estimate
    types: tuple[TypeSummary, ...]
    oracle_risk_coverage: Curve
    oracle_rejection: Curve
    estimators: tuple[EstimatorResult, ...]
    not_applicable: tuple[NotApplicable, ...] = ()
    classifier: ClassifierSummary | None = None


def evaluation_json(evaluation: Evaluation) -> str:
    """Returns the text of results.json, readable by people and by `load_evaluation`."""
    return json.dumps(asdict(evaluation), indent=1, allow_nan=False) + "\n"


def load_evaluation(path: Path) -> Evaluation:
    """Reads results.json.

    Raises:
        DataError: The file cannot be read, or is not an evaluation of this format version with
            finite figures.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; the results of an evaluated run are required. "
            "Run 'sightline evaluate' first."
        ) from None
    try:
        evaluation = TypeAdapter(Evaluation).validate_json(content)
        json.dumps(asdict(evaluation), allow_nan=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise DataError(
            f"{path}: {first['msg']} at {where}; an evaluation of format version "
            f"{FORMAT_VERSION} is required. Run 'sightline evaluate' again."
        ) from None
    except ValueError:
        raise DataError(
            f"{path}: a figure is NaN or infinite; finite figures, or null with a reason, are "
            "required. Run 'sightline evaluate' again."
        ) from None
    return evaluation
