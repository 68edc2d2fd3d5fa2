"""Correctness of answers: `GRADERS`, the one table, and grading of whole runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from sightline.core import specs
from sightline.core.column import Column, ColumnKind
from sightline.core.errors import DataError, ModelError, UsageError
from sightline.core.protocols import Grader
from sightline.core.types import Key, Record
from sightline.grading.graders import Auto, Choice, Exact, Numeric, RougeL, TokenF1, Vqa, YesNo
from sightline.grading.judge import Judge, JudgeModel, ObservedJudge

__all__ = [
    "GRADERS",
    "Auto",
    "Choice",
    "Exact",
    "Judge",
    "JudgeModel",
    "Numeric",
    "ObservedJudge",
    "RougeL",
    "TokenF1",
    "Vqa",
    "YesNo",
    "grade_records",
    "parse_grader",
]

GRADERS: Mapping[str, Grader] = MappingProxyType(
    {
        "auto": Auto(),
        "exact": Exact(),
        "vqa": Vqa(),
        "choice": Choice(),
        "yes_no": YesNo(),
        "numeric": Numeric(),
        "rouge_l": RougeL(),
        "token_f1": TokenF1(),
    }
)
"""Every grader that needs no model, with its default settings; `Judge` needs one."""


def parse_grader(spec: str, *, judge: JudgeModel | None = None) -> Grader:
    """Reads ``name`` or ``name:setting=value:setting=value``, as estimators are written.

    Args:
        spec: Such as ``exact``, ``numeric:relative=0.05`` or ``judge``.
        judge: The model behind ``judge``.

    Raises:
        UsageError: An unknown name or setting, a value of the wrong type, or ``judge`` without a
            model.

    Example:
        >>> parse_grader("numeric:relative=0.05")
        Numeric(relative=0.05, absolute=1e-09)
    """
    if spec.partition(":")[0].strip() == "judge":
        if judge is None or ":" in spec:
            raise UsageError(
                f"The grader {spec!r} was asked for; 'judge' requires a judge model and takes no "
                "settings here. Pass a model, or choose another grader."
            )
        return Judge(judge)
    return specs.parse(spec, GRADERS, "grader")


def grade_records(
    records: Iterable[Record], grader: Grader
) -> tuple[Column, list[tuple[Key, str]]]:
    """Grades every greedy answer.

    Returns:
        The correctness of the answers that could be graded (named after the grader, its settings
        as the spec), and key and reason of those that could not.
    """
    keys: list[Key] = []
    values: list[float] = []
    ungraded: list[tuple[Key, str]] = []
    for record in records:
        if record.greedy is None:
            ungraded.append((record.key, "No greedy answer, samples only."))
            continue
        try:
            value = grader.grade(record.example, record.greedy)
        except (DataError, ModelError) as error:
            ungraded.append((record.key, str(error)))
            continue
        keys.append(record.key)
        values.append(value)
    spec = grader.to_dict()
    column = Column(
        name=str(spec["name"]),
        kind=ColumnKind.CORRECT,
        keys=tuple(keys),
        values=np.array(values, dtype=np.float64),
        spec=spec,
    )
    return column, ungraded
