"""Correctness of answers: `GRADERS`, the one table, and grading of whole runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import get_type_hints

import numpy as np

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
    """Reads ``name`` or ``name:key=value,key=value``.

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
    name, _, rest = spec.partition(":")
    if name == "judge":
        if judge is None or rest:
            raise UsageError(
                f"The grader {spec!r} was asked for; 'judge' requires a judge model and takes no "
                "settings here. Pass a model, or choose another grader."
            )
        return Judge(judge)
    if name not in GRADERS:
        raise UsageError(
            f"Grader {name!r} is unknown; one of {', '.join((*GRADERS, 'judge'))} is required. "
            "Choose one of them."
        )
    kind = type(GRADERS[name])
    return kind(**_settings(kind, spec, rest))


def _settings(kind: type, spec: str, rest: str) -> dict[str, float | int]:
    types = {n: t for n, t in get_type_hints(kind).items() if t in (float, int)}
    known = [field.name for field in fields(kind) if field.name in types]
    out: dict[str, float | int] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise UsageError(
                f"Grader {spec!r} has the setting {part!r}; "
                f"{'name=value with one of ' + ', '.join(known) if known else 'no setting'} is "
                "allowed. Correct it."
            )
        try:
            out[name] = types[name](value)
        except ValueError:
            raise UsageError(
                f"Grader {spec!r} sets {name} to {value!r}; a number is required. Correct it."
            ) from None
    return out


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
