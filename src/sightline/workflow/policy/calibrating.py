"""Calibrating a policy on a run's labelled answers, and writing it to a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
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
from sightline.workflow.classifying.judging import check_classes_judge
from sightline.workflow.classifying.reading import is_classification
from sightline.workflow.evaluate import Judged, Settings, check, read_judged
from sightline.workflow.fitted import content
from sightline.workflow.policy.certifying import categories, part_of
from sightline.workflow.policy.deriving import derived_kinds
from sightline.workflow.policy.evidence import Achieved, Origin, Target
from sightline.workflow.policy.fitting import check_stages, fit_policy, named
from sightline.workflow.policy.labelled import Labelled, SetsTarget
from sightline.workflow.policy.measuring import measured
from sightline.workflow.policy.option_sets import option_needs
from sightline.workflow.policy.pictures import (
    Pictures,
    decide_pictures,
    read_pictures,
    refuse_true_labels,
)
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
        support: Of a classifier's run: another run whose support pictures the score learns from.
        shots: Likewise: fewer support pictures of every class than were drawn.
    """

    calibrator: str = "platt"
    sets: SetsTarget | None = None
    fractions: tuple[float, float, float] | None = None
    hold_out: float = 0.0
    budget: float | None = None
    support: Path | None = None
    shots: int | None = None

    @property
    def of_classifier(self) -> bool:
        """Whether it asks for what only a classifier's run has."""
        return self.support is not None or self.shots is not None


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
        path: The run directory, of a model's answers or of a classifier; receives correctness.
        specs: Spec of the estimator; several make a cascade, the cheapest first. Of a classifier's
            run one score, as `sightline.zeroshot` has them.
        output: Receives the policy; holds nothing yet.
        target: What to promise.
        plan: Calibrator, sets and shares.
        settings: Grader, threshold of correctness, condition and seed.
        given_split: Split name (train, calibration or test) by group; replaces the shuffle.
        judge: The model behind the grader ``judge``.
        announce: Called with lines on what the promise takes, before anything is fitted.

    Raises:
        UsageError: An unknown name, shares that cannot be used, or what this kind of run has not.
        LeakageError: A picture is both learned from and judged, or in two parts.
        DataError: No answer could be graded, the rows are too few, or ``output`` is taken.
        MissingFeatureError: No answer shows the estimator's signals.
        AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
        DiskError: The operating system refused to write.
    """
    store = RunStore.open(path)
    pictured = plan.of_classifier or is_classification(store)
    check_stages(specs, plan.budget)
    estimators = [] if pictured else [parse_estimator(spec) for spec in specs]
    named(plan.calibrator)
    fractions = plan.fractions
    if fractions is None:
        # A classifier's score learns from support pictures, which are in none of the parts.
        learns = any(isinstance(e, LearnedEstimator) for e in estimators)
        fractions = LEARNS if learns else LEARNS_NOT
    settings = replace(settings, fractions=fractions, seeds=1)
    check(settings)
    if not 0 <= plan.hold_out < 1:
        raise UsageError(
            f"Hold-out {plan.hold_out:g}; a share from 0 to below 1 is required. For example 0.3."
        )
    require_no_policy(output)
    pictures = _pictures(path, specs, target, plan, settings) if pictured else None
    _announce_smallest(target, announce)
    if pictures is None:
        needs = frozenset[Feature]().union(*(e.needs for e in estimators))
        if plan.sets is not None:
            needs |= option_needs(plan.sets.scores)
        arrays = array_needs(needs)
        judged = read_judged(store, settings, arrays, given_split=given_split, judge=judge)
    else:
        judged = pictures.judged(settings, given_split, announce)
    parts, held = _parts(judged, settings, plan.hold_out, given=given_split is not None)
    data = Labelled(judged.rows.records, judged.rows.correct, judged.rows.groups, parts)
    _announce_parts(data, target, announce)
    fit = partial(fit_policy, specs, budget=plan.budget) if pictures is None else pictures.fit
    policy = fit(data, target, calibrator=plan.calibrator, sets=plan.sets, seed=settings.seed)
    used = np.concatenate([parts.train, parts.calibration, parts.test])
    split: dict[str, Any] = {"given": True}
    if given_split is None:
        split = {
            "seed": settings.seed,
            "fractions": list(fractions),
            "hold_out": plan.hold_out,
        }
    origin = _origin(store, judged, settings, policy.needs, used, split)
    if pictures is not None:
        learned = sorted({*origin.content, *pictures.learned_from})
        origin = replace(origin, content=tuple(learned), classifier=pictures.origin)
    evidence = replace(policy.evidence, origin=origin, tested=_tested(policy, data, held, pictures))
    policy = TrustPolicy(policy.stages, evidence, policy.sets)
    save_policy(output, policy)
    return policy


def _pictures(
    path: Path, specs: Sequence[str], target: Target, plan: Plan, settings: Settings
) -> Pictures:
    """A classifier's run with its score, where what is asked for means something there."""
    check_classes_judge(settings)
    refuse_true_labels(target.per_group)
    if plan.sets is not None and plan.sets.scores != SetsTarget().scores:
        raise UsageError(
            f"--sets-scores {plan.sets.scores} with {path}, a run of a classifier, whose sets are "
            "over its classes; no scores of options are required. Leave it out."
        )
    return read_pictures(path, specs, support=plan.support, shots=plan.shots, seed=settings.seed)


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


def _tested(
    policy: TrustPolicy, data: Labelled, held: Int[np.ndarray, " h"], pictures: Pictures | None
) -> Achieved | None:
    if not len(held):
        return None
    held = np.sort(held)
    records = [data.records[i] for i in held]
    if pictures is None:
        decisions = policy.decide(records)
    else:
        rows = np.flatnonzero(pictures.seen.labels >= 0)[held]
        decisions = decide_pictures(policy, pictures.seen, rows)
    return measured(decisions, records, data.correct[held], data.groups[held])


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
        found = "1 image is" if shared == 1 else f"{shared:,} images are"
        announce(
            f"{found} in more than one group, so that the parts are not wholly apart; a group "
            "column that joins the questions about an image would part them."
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
    request = None if is_classification(store) else request_of_run(store)
    counts = [len(record.example.images) for record in chosen]
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
        pictures=None if request is None else (min(counts), max(counts)),
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
