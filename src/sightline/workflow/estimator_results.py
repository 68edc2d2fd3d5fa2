"""What a report shows of one estimator beside its figures: cost, curves, tables and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sightline.core.estimates import Estimate
from sightline.core.features import FOLLOW_UPS, Feature
from sightline.core.protocols import Cost
from sightline.core.results import AnswerRow, Curve, EstimatorResult, Skipped
from sightline.core.types import Record
from sightline.metrics import curves
from sightline.workflow.judged import Heldout, JudgedRows
from sightline.workflow.measure import BootstrapSettings, Figures, raw_figures
from sightline.workflow.scoring import Scored

SHOWN_ANSWERS = 8


def estimator_result(
    item: Scored,
    per_seed: Sequence[Heldout],
    figures: Figures,
    rows: JudgedRows,
    settings: BootstrapSettings,
    *,
    raw: dict[str, Estimate] | None = None,
) -> EstimatorResult:
    """Everything the report shows about one estimator; curves are of the first seed.

    ``raw`` replaces the figures of the raw score on all rows.
    """
    first = per_seed[0]
    seen = [rows.records[i] for i in item.rows]
    cost = item.estimator.cost(seen)
    return EstimatorResult(
        name=item.name,
        family=item.estimator.family,
        spec=dict(item.spec),
        control=item.estimator.control,
        scored=len(item.rows),
        skipped=_skipped(item, per_seed),
        forward_passes=cost.forward_passes,
        generations=cost.generations,
        generated_tokens=_generated_tokens(seen, item.estimator.needs, cost),
        seconds=item.seconds,
        raw=raw_figures(item, rows, settings) if raw is None else raw,
        heldout=figures.heldout,
        within_type=figures.within_type,
        by_type=figures.by_type,
        vs_baseline=figures.vs_baseline,
        calibration=_calibration_note(per_seed),
        **_drawn(first, rows, settings.level),
        confident_wrong=_answers(first, rows, wanted=0.0),
        unsure_right=_answers(first, rows, wanted=1.0),
    )


def _skipped(item: Scored, per_seed: Sequence[Heldout]) -> tuple[Skipped, ...]:
    """Rows left out before any fit, and held-out rows refused after one; each row counts once."""
    counts = Counter(item.skipped)
    refused: dict[str, set[int]] = {}
    for held in per_seed:
        for reason, rows in held.refused.items():
            refused.setdefault(reason, set()).update(rows)
    counts.update({reason: len(rows) for reason, rows in refused.items()})
    return tuple(Skipped(reason, n) for reason, n in sorted(counts.items()))


def _calibration_note(per_seed: Sequence[Heldout]) -> str:
    """What became of the calibration over the splits."""
    counts = Counter(held.calibration for held in per_seed)
    if len(counts) == 1:
        return per_seed[0].calibration
    if "fitted" in counts:
        others = sorted(note for note in counts if note != "fitted")
        return f"fitted in {counts['fitted']} of {len(per_seed)} splits, else {'; '.join(others)}"
    return "; ".join(f"{note} in {n} splits" for note, n in sorted(counts.items()))


def _generated_tokens(
    records: Sequence[Record], needs: frozenset[Feature], cost: Cost
) -> float | None:
    """Mean tokens of the extra answers of a record; None where they were not observed.

    Of answers to linked questions, the mean length of all there are times the number that counts.
    """
    if not cost.generations:
        return 0.0
    linked = [_linked(record, needs) for record in records]
    answers = [[g for o in others for g in (o.greedy, *o.samples) if g] for others in linked]
    own = not any(answers) or bool(needs & {Feature.SAMPLES, Feature.SAMPLE_LOGPROBS})
    if own:
        answers = [[*r.samples, *more] for r, more in zip(records, answers, strict=True)]
    lengths = [generation.n_tokens for found in answers for generation in found]
    known = [length for length in lengths if length is not None]
    if not known or len(known) < len(lengths) or (own and not all(answers)):
        return None
    return float(sum(known) / len(records) if own else cost.generations * np.mean(known))


def _linked(record: Record, needs: frozenset[Feature]) -> list[Record]:
    """The linked records whose answers an estimator with these needs reads."""
    related = record.related
    by_need = {
        Feature.CONDITIONS: related.views,
        Feature.BLANK_ANSWER: related.blank,
        Feature.NEGATIONS: related.negations,
        Feature.ROTATIONS: related.rotations,
        Feature.MODELS: related.models,
        **{question: related.asked(question) for question in needs & FOLLOW_UPS},
    }
    return [other for need in by_need if need in needs for other in by_need[need]]


def _drawn(held: Heldout, rows: JudgedRows, level: float) -> dict[str, Any]:
    """Curves, bins and tables; empty where there is nothing to draw."""
    nothing = Curve((), ())
    if not len(held.rows):
        return {
            "reliability": (),
            "risk_coverage": nothing,
            "rejection": nothing,
            "roc": nothing,
            "histogram": None,
            "coverage_table": (),
        }
    correct, groups = held.correct_in(rows), rows.groups[held.rows]
    ranking, confidence = -held.uncertainty, held.confidence
    both = 0 < correct.sum() < len(correct)
    return {
        "reliability": ()
        if confidence is None
        else curves.reliability_bins(confidence, correct, groups, level=level),
        "risk_coverage": Curve(*curves.risk_coverage(ranking, correct)),
        "rejection": Curve(*curves.rejection(ranking, correct)),
        "roc": Curve(*curves.roc(ranking, correct)) if both else nothing,
        "histogram": None if confidence is None else curves.histogram(confidence, correct),
        "coverage_table": curves.coverage_table(
            ranking if confidence is None else confidence, correct, groups, level=level
        ),
    }


def _answers(held: Heldout, rows: JudgedRows, *, wanted: float) -> tuple[AnswerRow, ...]:
    """The answers whose confidence misleads most: sure and wrong, or unsure and right."""
    confidence = held.confidence
    if confidence is None:
        return ()
    chosen = np.flatnonzero(held.correct_in(rows) == wanted)
    sign = -1.0 if wanted == 0.0 else 1.0
    keys = [rows.records[held.rows[i]].key for i in chosen]
    order = sorted(range(len(chosen)), key=lambda j: (sign * confidence[chosen[j]], keys[j]))
    out = []
    for j in order[:SHOWN_ANSWERS]:
        at = chosen[j]
        record = rows.records[held.rows[at]]
        example = record.example
        out.append(
            AnswerRow(
                example_id=example.id,
                question=example.question,
                question_type=example.question_type,
                answer=record.answer.text,
                references=example.references,
                choices=example.choices or (),
                correct=float(rows.correct[held.rows[at]]),
                confidence=float(confidence[at]),
                images=tuple(image.path for image in example.images),
                image_sha256=tuple(image.sha256 for image in example.images),
            )
        )
    return tuple(out)
