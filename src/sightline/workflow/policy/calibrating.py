"""Calibrating a policy on a run's labelled answers, and writing it to a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

import sightline
from sightline.calibration.risk_control import MOST_TESTS
from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.printing import percent, printable
from sightline.core.protocols import LearnedEstimator, Request
from sightline.core.types import Record
from sightline.data.splits import Split, images_across_groups, split_groups
from sightline.estimators import parse_estimator
from sightline.grading import JudgeModel
from sightline.metrics.intervals import proportion
from sightline.store.run import RunStore
from sightline.workflow.classifying.reading import open_answers
from sightline.workflow.evaluate import Judged, Settings, check, read_judged
from sightline.workflow.fitted import content
from sightline.workflow.policy.certifying import categories, part_of
from sightline.workflow.policy.deriving import derived_kinds
from sightline.workflow.policy.evidence import Achieved, Origin, Target
from sightline.workflow.policy.fitting import check_stages, fit_policy, named
from sightline.workflow.policy.labelled import Labelled, SetsTarget
from sightline.workflow.policy.measuring import measured
from sightline.workflow.policy.option_sets import option_needs
from sightline.workflow.policy.saved import require_no_policy, save_policy
from sightline.workflow.policy.trust import TrustPolicy, array_needs, narrowed, read_request

LEARNS = (0.4, 0.2, 0.4)
LEARNS_NOT = (0.0, 0.3, 0.7)
"""Shares of the groups for fitting, calibrating and certifying."""

_NAMED = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What to fit, beyond the target.

    Attributes:
        calibrator: Name in `sightline.calibration.CALIBRATORS`.
        sets: Prediction sets for multiple choice; None for none.
        fractions: Shares of groups for fitting, calibrating and certifying; None for `LEARNS` or
            `LEARNS_NOT`.
        hold_out: Share of groups kept from all of these, to measure the finished policy on.
        budget: Most that a cascade may cost per answer, on average; None for no limit.
    """

    calibrator: str = "platt"
    sets: SetsTarget | None = None
    fractions: tuple[float, float, float] | None = None
    hold_out: float = 0.0
    budget: float | None = None


def calibrate(
    path: Path,
    specs: Sequence[str],
    output: Path,
    target: Target,
    plan: Plan = Plan(),
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    given_split: Mapping[str, str] | None = None,
    judge: JudgeModel | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> TrustPolicy:
    """Fits a policy on a run and writes it to a directory.

    Where nothing can be certified the policy is written all the same: its confidences hold, and it
    abstains from every answer.

    Args:
        path: The run directory; receives graded correctness.
        specs: Spec of the estimator; several make a cascade, the cheapest first.
        output: Receives the policy; holds nothing yet.
        target: What to promise.
        plan: Calibrator, sets and shares.
        settings: Grader, threshold of correctness, condition and seed.
        given_split: Split name (train, calibration or test) by group; replaces the shuffle.
        judge: The model behind the grader ``judge``.
        announce: Called with lines on what the promise takes, before anything is fitted.

    Raises:
        UsageError: An unknown name, shares that cannot be used, or a run of a classifier.
        DataError: No answer could be graded, the rows are too few, or ``output`` is taken.
        MissingFeatureError: No answer shows the estimator's signals.
        AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
        DiskError: The operating system refused to write.
    """
    store = open_answers(path)
    check_stages(specs, plan.budget)
    estimators = [parse_estimator(spec) for spec in specs]
    named(plan.calibrator)
    fractions = plan.fractions
    if fractions is None:
        learns = any(isinstance(e, LearnedEstimator) for e in estimators)
        fractions = LEARNS if learns else LEARNS_NOT
    settings = replace(settings, fractions=fractions, seeds=1)
    check(settings)
    if not 0 <= plan.hold_out < 1:
        raise UsageError(
            f"Hold-out {plan.hold_out:g}; a share from 0 to below 1 is required. For example 0.3."
        )
    require_no_policy(output)
    _announce_smallest(target, announce)
    needs = frozenset[Feature]().union(*(e.needs for e in estimators))
    if plan.sets is not None:
        needs |= option_needs(plan.sets.scores)
    judged = read_judged(store, settings, array_needs(needs), given_split=given_split, judge=judge)
    parts, held = _parts(judged, settings, plan.hold_out, given=given_split is not None)
    data = Labelled(judged.rows.records, judged.rows.correct, judged.rows.groups, parts)
    _announce_parts(data, target, announce)
    policy = fit_policy(
        specs,
        data,
        target,
        calibrator=plan.calibrator,
        sets=plan.sets,
        budget=plan.budget,
        seed=settings.seed,
    )
    used = np.concatenate([parts.train, parts.calibration, parts.test])
    split: dict[str, Any] = {"given": True}
    if given_split is None:
        split = {
            "seed": settings.seed,
            "fractions": list(fractions),
            "hold_out": plan.hold_out,
        }
    origin = _origin(store, judged, settings, policy.needs, used, split)
    evidence = replace(policy.evidence, origin=origin, tested=_tested(policy, data, held))
    policy = TrustPolicy(policy.stages, evidence, policy.sets)
    save_policy(output, policy)
    return policy


def _parts(
    judged: Judged, settings: Settings, hold_out: float, *, given: bool
) -> tuple[Split, Int[np.ndarray, " h"]]:
    """The three parts, and the rows held out of them."""
    nothing = np.empty(0, dtype=np.int64)
    if not hold_out:
        return judged.rows.splits[0], nothing
    if given:
        raise UsageError(
            "--hold-out with --split; a given split names every group's part. Leave out one of "
            "them."
        )
    names = [record.example.group for record in judged.rows.records]
    outer = split_groups(names, (1.0 - hold_out, 0.0, hold_out), seed=settings.seed)
    inner = split_groups([names[i] for i in outer.train], settings.fractions, seed=settings.seed)
    kept = (outer.train[part] for part in (inner.train, inner.calibration, inner.test))
    return Split(*kept), outer.test


def _tested(policy: TrustPolicy, data: Labelled, held: Int[np.ndarray, " h"]) -> Achieved | None:
    if not len(held):
        return None
    records = [data.records[i] for i in held]
    return measured(policy.decide(records), records, data.correct[held], data.groups[held])


def _announce_smallest(target: Target, announce: Callable[[str], None]) -> None:
    if target.risk is None:
        return
    of = "" if target.per_group is None else f" of every {printable(target.per_group)}"
    what = {
        "one_per_group": f"accepted answers{of} to test on, one per group, if all are right",
        "groups": f"groups{of} to test on, if all of their answers are accepted and right",
        "rows": f"accepted answers{of} to test on, if all are right",
    }
    more = ""
    if target.method == "bonferroni":
        most = target.smallest(MOST_TESTS)
        more = (
            f", and {most:,} where {MOST_TESTS} thresholds share the {target.delta:g} between them"
        )
    announce(
        f"A risk of {percent(target.risk)} with {percent(1 - target.delta, 0)} certainty takes at "
        f"least {target.smallest():,} {what[target.unit]}{more}."
    )


def _announce_parts(data: Labelled, target: Target, announce: Callable[[str], None]) -> None:
    parts = (data.parts.train, data.parts.calibration, data.parts.test)
    sizes = [f"{len(p):,} ({_groups(data, p):,} groups)" for p in parts]
    announce(
        f"Answers to fit on: {sizes[0]}; to calibrate on: {sizes[1]}; to certify on: {sizes[2]}."
    )
    for line in (*_few_to_certify(data, target), *_few_to_fit(data)):
        announce(line)
    shared = images_across_groups([record.example for record in data.records])
    if shared:
        announce(
            f"{shared:,} images are in more than one group, so that the parts are not wholly "
            "apart; a group column that joins their questions would part them."
        )


def _few_to_certify(data: Labelled, target: Target) -> Iterator[str]:
    """What cannot be certified whatever is fitted, by the number of groups alone."""
    smallest = target.smallest()
    sizes = {name: _groups(data, test) for name, (_, test) in categories(data, target)}
    few = {name: n for name, n in sizes.items() if smallest is not None and n < smallest}
    if target.per_group is None and few:
        yield f"{few[None]:,} groups to certify on are too few for this risk whatever is fitted."
    elif few:
        names = ", ".join(f"{printable(str(name))} ({n:,})" for name, n in [*few.items()][:_NAMED])
        rest = f" and {len(few) - _NAMED:,} more" if len(few) > _NAMED else ""
        yield (
            f"{len(few):,} of {len(sizes):,} values of {printable(target.per_group or '')} have "
            f"too few groups to certify on whatever is fitted: {names}{rest}."
        )


def _few_to_fit(data: Labelled) -> Iterator[str]:
    """Parts of so few groups, right or wrong, that what is fitted on them is loose."""
    for rows, what in (
        (data.parts.train, "fit an estimator on"),
        (data.parts.calibration, "calibrate probabilities on"),
    ):
        few = part_of(rows, data).few
        if few is not None:
            share = proportion(data.correct[rows], data.groups[rows])
            within = (
                ""
                if share.low is None or share.high is None
                else (
                    f": the share of right answers there is known as {percent(share.low, 0)} to "
                    f"{percent(share.high, 0)}"
                )
            )
            yield f"With {few} to {what}, what is fitted is loose{within}."


def _groups(data: Labelled, rows: Int[np.ndarray, " k"]) -> int:
    return len(np.unique(data.groups[rows]))


def _origin(
    store: RunStore,
    judged: Judged,
    settings: Settings,
    needs: frozenset[Feature],
    used: Int[np.ndarray, " k"],
    split: dict[str, Any],
) -> Origin:
    manifest = store.manifest.to_dict()
    chosen: list[Record] = [judged.rows.records[i] for i in used]
    request = request_of_run(store)
    return Origin(
        run=store.path.resolve().name,
        run_hash=store.manifest.run_hash(),
        model=manifest["model"],
        request=None if request is None else request_json(narrowed(request, needs)),
        decode_policy=manifest["settings"].get("decode_policy"),
        dataset=str(manifest["dataset"].get("name", "unknown")),
        grader=dict(judged.column.spec) or {"name": judged.column.name},
        correct_from=settings.threshold,
        condition=settings.condition,
        split=split,
        content=tuple(sorted({digest for r in chosen for digest in content(r.example)})),
        sightline_version=sightline.__version__,
        derived={
            kind.value: dict(found.source)
            for kind, found in store.derived().items()
            if kind in derived_kinds(needs)
        },
    )


def request_of_run(store: RunStore) -> Request | None:
    """How a run's model was asked; None for answers that another tool recorded."""
    stored = store.manifest.to_dict()["settings"].get("request")
    if not isinstance(stored, Mapping):
        return None
    known = {field.name for field in fields(Request)}
    return read_request({name: value for name, value in stored.items() if name in known})


def request_json(request: Request) -> dict[str, Any]:
    """The request as JSON has it."""
    return {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(request).items()}
