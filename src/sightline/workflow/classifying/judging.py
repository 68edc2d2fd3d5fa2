"""Right and wrong of a classifier's pictures: whether it names their class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sightline.core.column import Column, ColumnKind
from sightline.core.condition_names import CLEAN
from sightline.core.errors import DataError, UsageError
from sightline.core.results import Skipped
from sightline.core.types import Generation
from sightline.data.splits import assert_no_leakage
from sightline.workflow.classifying.reading import Embedded
from sightline.workflow.classifying.scoring import Drawn
from sightline.workflow.evaluate import Judged, Settings, judged_rows
from sightline.workflow.judged import JudgedRows


def check_classes_judge(settings: Settings) -> None:
    """Requires settings under which pictures are judged by their class.

    Raises:
        UsageError: A condition, a grader or an estimator that was fitted before.
    """
    if settings.condition != CLEAN or settings.grader not in ("auto", "class") or settings.fitted:
        raise UsageError(
            "A classifier's run was to be judged with another condition, grader or a fitted "
            "estimator; its pictures are judged by their class. Leave --condition, --grader and "
            "--fitted out."
        )


def class_column(seen: Embedded) -> Column:
    """Whether the classifier names the class, of every picture that has one of them.

    Stored in the run.

    Raises:
        DataError: No picture has one.
    """
    named = [i for i, label in enumerate(seen.labels) if label >= 0]
    if not named:
        raise DataError(
            f"None of {len(seen.records)} pictures of {seen.store.path} has a label among the "
            f"{len(seen.texts.classes)} classes; at least one is required. Correct --classes."
        )
    column = Column(
        name="class",
        kind=ColumnKind.CORRECT,
        keys=tuple(seen.records[i].key for i in named),
        values=np.array(
            [seen.records[i].answer.text == seen.texts.classes[seen.labels[i]] for i in named],
            dtype=np.float64,
        ),
        spec={"name": "class"},
    )
    seen.store.write_column(column, replace=True)
    return column


def judged_pictures(
    seen: Embedded,
    settings: Settings,
    given_split: Mapping[str, str] | None,
    *,
    draws: int,
) -> Judged:
    """The pictures whose class is known, right where the classifier says it.

    Args:
        seen: The pictures; their run receives the correctness.
        settings: Splits.
        given_split: Split name by group; replaces the seeds.
        draws: Least number of splits, so that every support draw has one.

    Raises:
        DataError: No picture can be judged, or the split leaves a part empty.
        LeakageError: The given split has one picture in two parts.
    """
    column = class_column(seen)
    without = len(seen.records) - len(column)
    reason = "its label is none of the classes"
    splits = max(settings.seeds, draws)
    rows = judged_rows(seen.records, column, replace(settings, seeds=splits), given_split)
    if given_split is not None:
        assert_no_leakage([record.example for record in rows.records], rows.splits[0])
        rows = replace(rows, splits=rows.splits * draws)
    return Judged(seen.records, column, (Skipped(reason, without),) if without else (), rows)


def relabelled(rows: JudgedRows, one: Drawn, seen: Embedded) -> JudgedRows:
    """The judged rows with the labels of a score's first draw as answers."""
    keep = np.flatnonzero(seen.labels >= 0)
    labels = one.results[0].label[keep]
    correct = (labels == seen.labels[keep]).astype(np.float64)
    records = tuple(
        replace(record, greedy=Generation(text=seen.texts.classes[label]))
        for record, label in zip(rows.records, labels.tolist(), strict=True)
    )
    return replace(rows, records=records, correct=correct, correctness=correct)
