"""Applying a policy to another run: its decisions, and whether its promise holds there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sightline.core.errors import DataError, LeakageError, UsageError
from sightline.core.records import link
from sightline.core.types import Record
from sightline.grading import JudgeModel
from sightline.store.disk import write_file
from sightline.store.layout import CLASSES
from sightline.store.run import RunStore
from sightline.workflow.classifying.judging import check_classes_judge, class_column
from sightline.workflow.classifying.reading import (
    is_classification,
    open_classification,
    read_embedded,
    read_texts,
)
from sightline.workflow.evaluate import Settings, correctness
from sightline.workflow.fitted import groups_with
from sightline.workflow.policy.calibrating import request_of_run
from sightline.workflow.policy.decision import Decision
from sightline.workflow.policy.evidence import Achieved
from sightline.workflow.policy.measuring import kept, measured
from sightline.workflow.policy.pictures import (
    decide_pictures,
    require_classifier,
    right_classes,
)
from sightline.workflow.policy.trust import TrustPolicy, array_needs


@dataclass(frozen=True, slots=True)
class Application:
    """A policy's decisions on a run.

    Attributes:
        records: The answers, in the run's order.
        decisions: One per answer.
        correct: 0 or 1 per answer, or None where it has no correctness.
        achieved: On the answers that have one; None where none was graded.
        by_category: The same by category; empty for a policy with one threshold.
        kept: By category (None for a policy with one threshold), whether what is promised held:
            True, False, or None where that cannot be told; only of promises under which the error
            rate has an interval.
        left_out: Answers in groups that the policy was fitted on.
    """

    records: tuple[Record, ...]
    decisions: tuple[Decision, ...]
    correct: tuple[float | None, ...]
    achieved: Achieved | None
    by_category: dict[str, Achieved]
    kept: dict[str | None, bool | None]
    left_out: int


def apply_policy(
    path: Path,
    policy: TrustPolicy,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    unseen: bool = False,
    graded: bool = True,
    judge: JudgeModel | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> Application:
    """Decides every answer of a run, and measures risk and coverage where answers are graded.

    Args:
        path: The run directory; receives graded correctness.
        policy: The policy.
        settings: Grader, threshold of correctness and condition.
        unseen: Leave out groups that the policy was fitted on, in place of refusing the run.
        graded: Grade the answers; if not, only decide.
        judge: The model behind the grader ``judge``.
        announce: Called with lines on what differs from where the policy was fitted.

    Raises:
        UsageError: The run is of another model, or was asked in another way.
        LeakageError: The policy was fitted on some of the run's groups.
        DataError: There is no answer, or none that could be graded.
    """
    store = RunStore.open(path)
    _require_kind(policy, store)
    check_run(policy, store)
    seen = None
    if policy.of_pictures:
        check_classes_judge(settings)
        seen = read_embedded(open_classification(path), read_texts(RunStore.open(path / CLASSES)))
        found = list(seen.records)
    else:
        stored = store.records(features=array_needs(policy.needs))
        linked = link(list(stored), condition=settings.condition)
        found = [record for record in linked if record.greedy is not None]
    rows_unseen = _unseen(policy, found, unseen, path)
    answers = [found[row] for row in rows_unseen]
    correct: list[float | None] = [None] * len(answers)
    if seen is not None:
        if graded:
            class_column(seen)
        decisions = decide_pictures(policy, seen, rows_unseen)
        if graded:
            correct = right_classes(decisions, seen, rows_unseen)
    else:
        if graded:
            column, _ = correctness(store, answers, settings, judge)
            _announce_grader(policy, dict(column.spec) or {"name": column.name}, settings, announce)
            known = dict(zip(column.keys, column.values >= settings.threshold, strict=True))
            correct = [float(known[r.key]) if r.key in known else None for r in answers]
        decisions = policy.decide(answers)
    rows = [row for row, mark in enumerate(correct) if mark is not None]
    achieved = _measured(rows, answers, decisions, correct) if rows else None
    by_category = _by_category(rows, answers, decisions, correct)
    return Application(
        records=tuple(answers),
        decisions=decisions,
        correct=tuple(correct),
        achieved=achieved,
        by_category=by_category,
        kept=_kept(policy, achieved, by_category),
        left_out=len(found) - len(answers),
    )


def _require_kind(policy: TrustPolicy, store: RunStore) -> None:
    """Requires answers for a policy of a model, pictures for one of a classifier."""
    if policy.of_pictures != is_classification(store):
        model, classifier = "a model's answers to questions", "a classifier's pictures"
        known, found = (classifier, model) if policy.of_pictures else (model, classifier)
        how = "classify" if policy.of_pictures else "collect"
        raise UsageError(
            f"{store.path} is a run of {found} and the policy is for {known}; a run made by "
            f"'sightline {how}' is required. Apply it to one, or calibrate a policy on a run like "
            "this."
        )


def check_run(policy: TrustPolicy, store: RunStore) -> None:
    """Requires a run of the policy's model, asked as for the policy, pictures read alike.

    Raises:
        UsageError: Something differs.
    """
    if policy.of_pictures:
        require_classifier(policy, store)
    else:
        policy.check_model(store.manifest.to_dict()["model"], str(store.path))
        policy.check_request(request_of_run(store), str(store.path))
    origin = policy.evidence.origin
    read = store.manifest.to_dict()["settings"].get("decode_policy")
    if origin is not None and read != origin.decode_policy:
        raise UsageError(
            f"{store.path} was collected with pictures decoded by {read!r} and the policy by "
            f"{origin.decode_policy!r}; the same are required. Collect the run again, or calibrate "
            "a policy on it."
        )

    derived = {kind.value: dict(found.source) for kind, found in store.derived().items()}
    for kind, source in ({} if origin is None else origin.derived).items():
        if kind in derived and derived[kind] != source:
            raise UsageError(
                f"{store.path} has {kind} by {derived[kind].get('name')} and the policy was fitted "
                f"on those by {source['name']}, or with another setting; the same are required. "
                f"Run 'sightline derive' with it and --replace."
            )


def write_decisions(path: Path, application: Application) -> None:
    """Writes one JSON object per answer: its id and condition, the decision, its correctness."""
    lines = [
        json.dumps(
            {"id": record.key.example_id, "condition": record.key.condition}
            | decision.to_dict()
            | {"correct": mark},
            allow_nan=False,
        )
        for record, decision, mark in zip(
            application.records, application.decisions, application.correct, strict=True
        )
    ]
    content = "".join(f"{line}\n" for line in lines).encode("ascii")
    write_file(path, lambda file: file.append(memoryview(content)))


def _unseen(policy: TrustPolicy, answers: Sequence[Record], unseen: bool, path: Path) -> list[int]:
    """Rows of the answers in groups that the policy was not fitted on."""
    origin = policy.evidence.origin
    seen = set[str]() if origin is None else groups_with(origin.content, answers)
    if seen and not unseen:
        raise LeakageError(
            f"The policy was fitted on {len(seen):,} group(s) of {path}, {min(seen)!r} among them; "
            "groups that it has not seen are required. Apply it to another run, or leave these "
            "groups out with --unseen."
        )
    kept = [row for row, record in enumerate(answers) if record.example.group not in seen]
    if not answers:
        raise DataError(
            f"{path} has no answer under this condition; at least one is required. "
            "Check --condition."
        )
    if not kept:
        raise DataError(
            f"{path} has {len(answers):,} answers, all of them in groups that the policy was "
            "fitted on; at least one other is required. Apply it to another run, or calibrate "
            "with --hold-out."
        )
    return kept


def _announce_grader(
    policy: TrustPolicy, grader: dict[str, Any], settings: Settings, announce: Callable[[str], None]
) -> None:
    origin = policy.evidence.origin
    if origin is None:
        return
    if grader != origin.grader or settings.threshold != origin.correct_from:
        announce(
            f"Answers are judged by {grader.get('name')} from {settings.threshold:g}, for the "
            f"policy they were by {origin.grader.get('name')} from {origin.correct_from:g}: its "
            "promise is about the latter."
        )


def _measured(
    rows: Sequence[int],
    answers: Sequence[Record],
    decisions: Sequence[Decision],
    correct: Sequence[float | None],
) -> Achieved:
    records = [answers[row] for row in rows]
    groups = np.unique([record.example.group for record in records], return_inverse=True)[1]
    marks: Float[np.ndarray, " n"] = np.array([correct[row] for row in rows], dtype=np.float64)
    return measured([decisions[row] for row in rows], records, marks, groups)


def _kept(
    policy: TrustPolicy, achieved: Achieved | None, by_category: Mapping[str, Achieved]
) -> dict[str | None, bool | None]:
    found: dict[str | None, bool | None] = {}
    for promise in policy.evidence.promises:
        own = achieved if promise.category is None else by_category.get(promise.category)
        if own is not None and own.risk.low is not None:
            found[promise.category] = kept(promise, own)
    return found


def _by_category(
    rows: Sequence[int],
    answers: Sequence[Record],
    decisions: Sequence[Decision],
    correct: Sequence[float | None],
) -> dict[str, Achieved]:
    found: dict[str, list[int]] = {}
    for row in rows:
        category = decisions[row].category
        if category is not None:
            found.setdefault(category, []).append(row)
    return {name: _measured(found[name], answers, decisions, correct) for name in sorted(found)}
