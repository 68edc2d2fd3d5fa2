"""Evaluations for the tests of the report: synthetic answers, measured by the metrics floor."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from sightline.core.estimates import Estimate
from sightline.core.results import (
    AnswerRow,
    Curve,
    EstimatorResult,
    Evaluation,
    NotApplicable,
    Protocol,
    RunSummary,
    Skipped,
    TypeSummary,
)
from sightline.metrics import curves
from sightline.metrics.intervals import Sample, cluster_bootstrap, proportion

TYPES = ("colour", "counting", "existence", "left or right", "shape")
RANKING = ("auroc", "prr", "aurc", "auarc", "fpr95")
PROBABILITY = ("ece", "brier")
DRAWN = (
    # name, family, signal, control, forward passes, generations
    ("sequence_probability", "likelihood", 1.5, False, 0, 0),
    ("discrete_semantic_entropy", "semantic", 1.9, False, 0, 10),
    ("sample_agreement", "agreement", 1.7, False, 0, 10),
    ("length_normalised_predictive_entropy", "semantic", 1.35, False, 0, 10),
    ("max_token_entropy", "likelihood", 1.2, False, 0, 0),
    ("visual_uncertainty", "contrast", 0.8, False, 1, 0),
    ("choice_margin", "choice", 1.0, False, 1, 0),
    ("perplexity", "likelihood", 0.7, False, 0, 0),
    ("question_type", "control", 0.55, True, 0, 0),
    ("answer_length", "control", 0.2, True, 0, 0),
    ("random", "control", 0.0, True, 0, 0),
)
BASELINE = "sequence_probability"


@lru_cache
def evaluation(
    *, model: str = "llava-1.5-7b-hf", n: int = 600, seed: int = 0, lift: float = 0.0
) -> Evaluation:
    """A run with every part of an evaluation filled in."""
    rng = np.random.default_rng(seed)
    types = rng.integers(0, len(TYPES), n)
    chance = np.array([0.9, 0.5, 0.8, 0.55, 0.75])[types] + lift
    correct = (rng.uniform(size=n) < chance).astype(float)
    groups = np.arange(n) // 2
    scores = {
        name: signal * correct + rng.normal(size=n) + (3 * chance if name == "question_type" else 0)
        for name, _, signal, *_ in DRAWN
    }
    names = tuple(scores)
    test = np.arange(n) >= n // 2
    raw = np.array([scores[name] for name in names])
    confidence = np.array([_calibrated(s, correct) for s in raw])
    held = Sample(raw[:, test], correct[test], groups[test], types[test])
    ranked = cluster_bootstrap(
        [held], metrics=(*RANKING, "within_type_auroc"), n_resamples=100, rng=rng
    )
    measured = cluster_bootstrap(
        [Sample(confidence[:, test], correct[test], groups[test])],
        metrics=PROBABILITY,
        n_resamples=100,
        rng=rng,
    )
    by_type = _by_type(raw[:, test], correct[test], groups[test], types[test], rng)
    base = names.index(BASELINE)
    results = []
    for i, (name, family, _, control, passes, generations) in enumerate(DRAWN):
        heldout = {m: ranked.estimate(i, m) for m in RANKING}
        heldout |= {m: measured.estimate(i, m) for m in PROBABILITY}
        against = {m: ranked.difference(i, base, m) for m in RANKING[:4]}
        against |= {m: measured.difference(i, base, m) for m in PROBABILITY}
        results.append(
            EstimatorResult(
                name=name,
                family=family,
                spec={"name": name},
                control=control,
                scored=n if name != "choice_margin" else n // 2,
                skipped=(Skipped("no option_logprobs", n - n // 2),)
                if name == "choice_margin"
                else (),
                forward_passes=passes,
                generations=generations,
                generated_tokens=42.3 if generations else 0.0,
                seconds=0.02 if family == "likelihood" else 1.7,
                raw=heldout,
                heldout=heldout,
                within_type=ranked.estimate(i, "within_type_auroc"),
                by_type={t: {"auroc": e} for t, e in by_type[i].items()},
                vs_baseline={} if i == base else against,
                calibration="base rate" if name == "random" else "fitted",
                reliability=curves.reliability_bins(confidence[i, test], correct[test]),
                risk_coverage=Curve(*curves.risk_coverage(raw[i, test], correct[test])),
                rejection=Curve(*curves.rejection(raw[i, test], correct[test])),
                roc=Curve(*curves.roc(raw[i, test], correct[test])),
                histogram=curves.histogram(confidence[i, test], correct[test]),
                coverage_table=curves.coverage_table(confidence[i, test], correct[test]),
                confident_wrong=_answers(i, confidence[i], correct, types, test, wanted=0),
                unsure_right=_answers(i, confidence[i], correct, types, test, wanted=1),
            )
        )
    results.sort(key=lambda r: -(r.heldout["auroc"].value or 0.0))
    return Evaluation(
        format_version=1,
        sightline_version="0.1.0",
        run=RunSummary(
            name=f"run-{seed}",
            path=f"runs/run-{seed}",
            model=model,
            dataset="scenes, test",
            records=n + 3,
            quarantined=2,
            quarantine_reasons=(Skipped("image is damaged or cut short", 2),),
            partial=f"first {n + 5} of 2,000 examples (--limit {n + 5})",
            truncated_answers=4,
            empty_answers=1,
            groups=n // 2,
            created="2026-11-21T02:00:00+00:00",
            decoding={"max_new_tokens": 64, "n_samples": 10, "temperature": 1.0, "seed": 0},
            notes=("Preliminary embedded checkpoint: its figures describe the demo only.",),
            versions={"python": "3.11.7", "transformers": "5.23.0"},
            image_root="",
        ),
        protocol=Protocol(
            condition="clean",
            grader={"name": "exact", "normalise": True},
            threshold=0.5,
            graded=n,
            ungraded=(Skipped("no references", 3),),
            seeds=(0, 1, 2, 3, 4),
            fractions=(0.4, 0.2, 0.4),
            rows=(n // 4, n // 4, n // 2),
            calibrator="platt",
            resamples=1000,
            level=0.95,
            baseline=BASELINE,
        ),
        accuracy=proportion(correct, groups),
        mean_correctness=proportion(correct, groups),
        types=tuple(
            TypeSummary(t, int((types == k).sum()), proportion(correct[types == k]))
            for k, t in enumerate(TYPES)
        ),
        oracle_risk_coverage=Curve(*curves.oracle_risk_coverage(correct[test])),
        oracle_rejection=Curve(*curves.oracle_rejection(correct[test])),
        estimators=tuple(results),
        not_applicable=(
            NotApplicable("model_agreement", (Skipped("no models", n),)),
            NotApplicable(
                "rotation_agreement", (Skipped("no rotations", n - 4), Skipped("no choices", 4))
            ),
            NotApplicable("negation_consistency", (Skipped("no negations", n),)),
            NotApplicable("votes_of_models", (Skipped("no models", n),)),
        ),
    )


def bare(full: Evaluation | None = None) -> Evaluation:
    """A run on which nothing could be measured: one class, no calibration, no types."""
    full = full or evaluation()
    reason = "all answers are right; both right and wrong ones are required"
    missing = Estimate(None, n=3, reason=reason)
    results = tuple(
        replace(
            result,
            scored=3,
            skipped=(),
            raw=dict.fromkeys(result.raw, missing),
            heldout=dict.fromkeys(result.heldout, missing),
            within_type=Estimate(None, reason="some rows have no question type"),
            by_type={},
            vs_baseline={},
            calibration="one class only on the calibration rows",
            reliability=(),
            risk_coverage=Curve((1 / 3, 2 / 3, 1.0), (0.0, 0.0, 0.0)),
            rejection=Curve((0.0, 1 / 3, 2 / 3), (1.0, 1.0, 1.0)),
            roc=Curve((), ()),
            histogram=None,
            coverage_table=(),
            confident_wrong=(),
            unsure_right=(),
        )
        for result in full.estimators
    )
    return replace(
        full,
        run=replace(
            full.run,
            partial=None,
            notes=(),
            records=3,
            groups=3,
            quarantined=0,
            quarantine_reasons=(),
            truncated_answers=0,
            empty_answers=0,
        ),
        protocol=replace(full.protocol, graded=3, ungraded=(), rows=(1, 1, 1), baseline=None),
        accuracy=Estimate(1.0, 0.44, 1.0, n=3),
        mean_correctness=Estimate(1.0, 0.44, 1.0, n=3),
        types=(),
        oracle_risk_coverage=Curve((1.0,), (0.0,)),
        oracle_rejection=Curve((0.0,), (1.0,)),
        estimators=results,
    )


def picture(path: str, _evaluation: Evaluation) -> bytes | None:
    """A small scene drawn from the path's digits; None for paths that say so."""
    if "missing" in path:
        return None
    seed = sum(map(ord, path))
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (320, 240), (236, 232, 222))
    draw = ImageDraw.Draw(image)
    for colour in ("#c0392b", "#2c6fbb", "#2e8b57", "#d4a017")[: 2 + seed % 3]:
        x, y = rng.integers(20, 240), rng.integers(20, 160)
        shape = draw.ellipse if rng.uniform() < 0.5 else draw.rectangle
        shape((int(x), int(y), int(x) + 60, int(y) + 60), fill=colour)
    out = io.BytesIO()
    image.save(out, format="JPEG")
    return out.getvalue()


def _calibrated(score: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """A logistic curve fitted by a few Newton steps; good enough to look real."""
    design = np.stack([score, np.ones_like(score)], axis=1)
    weights = np.zeros(2)
    for _ in range(20):
        p = 1 / (1 + np.exp(-design @ weights))
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        weights += np.linalg.solve(hessian, design.T @ (correct - p))
    return 1 / (1 + np.exp(-design @ weights))


def _by_type(
    raw: np.ndarray,
    correct: np.ndarray,
    groups: np.ndarray,
    types: np.ndarray,
    rng: np.random.Generator,
) -> list[dict[str, Estimate]]:
    out: list[dict[str, Estimate]] = [{} for _ in raw]
    for k, name in enumerate(TYPES):
        chosen = types == k
        sample = Sample(raw[:, chosen], correct[chosen], groups[chosen])
        ranked = cluster_bootstrap([sample], metrics=("auroc",), n_resamples=100, rng=rng)
        for i in range(len(raw)):
            out[i][name] = ranked.estimate(i, "auroc")
    return out


def _answers(
    index: int,
    confidence: np.ndarray,
    correct: np.ndarray,
    types: np.ndarray,
    test: np.ndarray,
    *,
    wanted: int,
) -> tuple[AnswerRow, ...]:
    rows = np.flatnonzero(test & (correct == wanted))
    order = rows[np.argsort(confidence[rows] * (1 if wanted else -1), kind="stable")]
    return tuple(
        AnswerRow(
            example_id=f"scene-{row:05d}",
            question="What colour is the large ball to the left of the cube?",
            question_type=TYPES[types[row]],
            answer="red" if wanted else "dark blue",
            references=("red", "red", "crimson"),
            choices=("red", "dark blue", "green") if row % 3 == 0 else (),
            correct=float(wanted),
            confidence=float(confidence[row]),
            images=(f"images/{'missing' if row % 7 == 0 else 'scene'}-{row}.jpg",),
        )
        for row in order[:8].tolist()
    )
