"""Trust policies: calibrated, loaded, applied, asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.api.judging import observed_judge
from sightline.core.errors import UsageError

if TYPE_CHECKING:
    from sightline.calibration.conformal import Score
    from sightline.calibration.risk_control import Method, Unit
    from sightline.core.protocols import VisionLanguageModel
    from sightline.estimators.choice import Scores
    from sightline.workflow.asking import Answer
    from sightline.workflow.evaluate import Settings
    from sightline.workflow.policy import TrustPolicy
    from sightline.workflow.policy.applying import Application


def calibrate(
    run: str | Path,
    estimator: str | Sequence[str],
    output: str | Path,
    *,
    risk: float | None = None,
    coverage: float | None = None,
    delta: float = 0.05,
    method: Method = "fixed_sequence",
    unit: Unit = "one_per_group",
    per_group: str | None = None,
    calibrator: str = "platt",
    sets: Score | None = None,
    sets_level: float = 0.9,
    sets_scores: Scores = "options",
    fractions: tuple[float, float, float] | None = None,
    hold_out: float = 0.0,
    budget: float | None = None,
    settings: Settings | None = None,
    given_split: Mapping[str, str] | None = None,
    judge: str | None = None,
    support: str | Path | None = None,
    shots: int | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> TrustPolicy:
    """Fits a policy on a run's graded answers and writes it to a directory; see docs/policies.md.

    Args:
        run: The run directory, of a model's answers or of a classifier.
        estimator: Name or spec; several make a cascade, the cheapest first. Of a classifier's run
            one score, such as ``msp`` (docs/classifiers.md).
        output: Receives the policy; holds nothing yet.
        risk: Largest error rate among accepted answers; 0.05 where no coverage is given.
        coverage: In place of risk: share of answers to accept; their error rate is bounded.
        delta: Chance that the promise does not hold.
        method: How errors over all tested thresholds are held at delta.
        unit: What is independent.
        per_group: Field whose every value gets a threshold of its own.
        calibrator: Name in `sightline.calibration.CALIBRATORS`.
        sets: Kind of prediction sets over options or classes; None for none.
        sets_level: Share of sets that hold the right option.
        sets_scores: Which probabilities of the options the sets read.
        fractions: Shares of groups to fit, to calibrate and to certify on.
        hold_out: Share of groups kept apart, to measure the finished policy on.
        budget: Most that a cascade may cost per answer, on average, in extra passes over the image
            and extra generated answers; None for no limit.
        settings: Grader, threshold of correctness, condition and seed; the defaults if None.
        given_split: Split name (train, calibration or test) by group; replaces the shuffle.
        judge: Model that answers for the grader ``judge``.
        support: Of a classifier's run: another run whose support pictures the score learns from.
        shots: Likewise: fewer support pictures of every class than were drawn.
        announce: Called with lines on what the promise takes, before anything is fitted.

    Raises:
        UsageError: A number is not finite or out of its bounds, or settings contradict.
    """
    from sightline.workflow.evaluate import Settings
    from sightline.workflow.policy.calibrating import Plan
    from sightline.workflow.policy.calibrating import calibrate as run_calibrate
    from sightline.workflow.policy.evidence import Target
    from sightline.workflow.policy.labelled import SetsTarget

    numbers = {
        "risk": risk,
        "coverage": coverage,
        "delta": delta,
        "sets_level": sets_level,
        "hold_out": hold_out,
        "budget": budget,
    }
    _require_numbers({name: value for name, value in numbers.items() if value is not None})
    if fractions is not None:
        _require_three("fractions", fractions)
    settings = settings or Settings()
    _require_own_numbers(settings)
    if risk is None and coverage is None:
        risk = 0.05
    return run_calibrate(
        Path(run),
        (estimator,) if isinstance(estimator, str) else tuple(estimator),
        Path(output),
        Target(risk, coverage, delta, method, unit, per_group),
        Plan(
            calibrator=calibrator,
            sets=None if sets is None else SetsTarget(sets_scores, sets, sets_level),
            fractions=fractions,
            hold_out=hold_out,
            budget=budget,
            support=None if support is None else Path(support),
            shots=shots,
        ),
        settings,
        given_split=given_split,
        judge=None if judge is None else observed_judge(judge),
        announce=announce,
    )


def load_policy(path: str | Path) -> TrustPolicy:
    """Reads a policy that `calibrate` wrote; damaged files and other versions are refused."""
    from sightline.workflow.policy import load_policy as read

    return read(path)


def apply_policy(
    run: str | Path,
    policy: str | Path | TrustPolicy,
    output: str | Path | None = None,
    *,
    settings: Settings | None = None,
    unseen: bool = False,
    graded: bool = True,
    judge: str | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> Application:
    """Decides every answer of a run by a policy, and measures risk and coverage there.

    Args:
        run: The run directory; of the policy's model, asked as for the policy.
        policy: The policy, or its directory.
        output: Receives every decision, one JSON object a line.
        settings: Grader, threshold of correctness and condition; the defaults if None.
        unseen: Leave out groups that the policy was fitted on, in place of refusing the run.
        graded: Grade the answers; if not, only decide.
        judge: Model that answers for the grader ``judge``.
        announce: Called with lines on what differs from where the policy was fitted.
    """
    from sightline.workflow.evaluate import Settings
    from sightline.workflow.policy import applying

    settings = settings or Settings()
    _require_own_numbers(settings)
    known = load_policy(policy) if isinstance(policy, str | Path) else policy
    result = applying.apply_policy(
        Path(run),
        known,
        settings,
        unseen=unseen,
        graded=graded,
        judge=None if judge is None else observed_judge(judge),
        announce=announce,
    )
    if output is not None:
        applying.write_decisions(Path(output), result)
    return result


def ask(
    images: str | Path | Sequence[str | Path],
    question: str,
    *,
    model: str | VisionLanguageModel,
    policy: str | Path | TrustPolicy | None = None,
    choices: Sequence[str] | None = None,
    question_type: str | None = None,
    category: str | None = None,
    explain: bool = False,
    text_models: str | Path | None = None,
    model_options: Mapping[str, Any] | None = None,
) -> Answer:
    """Asks a model one question about pictures; says whether to trust the answer.

    Args:
        images: One file or several, in the order the question refers to them.
        question: The question, without an instruction how to answer.
        model: The model, or its name as for `collect`; load it once to ask often.
        policy: The policy, or its directory; None shows raw scores, which are no probabilities.
        choices: Option texts for multiple choice.
        question_type: For a policy whose thresholds or estimators go by it.
        category: Value of the field that the policy's thresholds go by, whichever that is.
        explain: Also observe what moves the answer, at several times the cost.
        text_models: Directory of the local text models that computed the policy's derived signals.
        model_options: Passed to `sightline.models.load_model`.
    """
    from sightline.models import load_model
    from sightline.workflow import asking

    known = load_policy(policy) if isinstance(policy, str | Path) else policy
    pictures = [images] if isinstance(images, str | Path) else images
    asking.require_askable(pictures, question, known)
    loaded = load_model(model, **(model_options or {})) if isinstance(model, str) else model
    return asking.ask(
        loaded,
        pictures,
        question,
        policy=known,
        choices=choices,
        question_type=question_type,
        category=category,
        explained=explain,
        text_models=None if text_models is None else Path(text_models),
    )


def _require_own_numbers(settings: Settings) -> None:
    _require_numbers(
        {f"settings.{name}": getattr(settings, name) for name in ("threshold", "seed")}
    )


def _require_numbers(values: Mapping[str, object]) -> None:
    """Requires finite numbers, since what is no number fails far from where it was given.

    Raises:
        UsageError: One is none; the message names it.
    """
    for name, value in values.items():
        if not _is_number(value):
            raise UsageError(
                f"{name} is {repr(value)[:60]}; a finite number is required. Correct it, or leave "
                "it out."
            )


def _require_three(name: str, value: object) -> None:
    if not isinstance(value, Sequence) or len(value) != 3 or not all(map(_is_number, value)):
        raise UsageError(
            f"{name} is {repr(value)[:60]}; three finite numbers are required. For example "
            "(0.4, 0.2, 0.4)."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
