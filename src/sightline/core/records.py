"""Linking records to one another, so that every estimator looks at one record at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sightline.core.condition_names import ASKED, asked_condition
from sightline.core.types import Example, Key, Record, Related


def link(
    records: Sequence[Record],
    *,
    condition: str,
    other_runs: Iterable[Sequence[Record]] = (),
) -> list[Record]:
    """Returns the records of one condition, each with its related records filled in.

    Args:
        records: One run's records, any conditions.
        condition: Which records to return; the run's other conditions of the same example become
            ``related.conditions``, the replies to questions about the answer under this condition
            ``related.follow_ups``.
        other_runs: Records of other runs; those with the same key become ``related.models``.

    Where the truth of the judged record is not that of the clean question, none of its other
    conditions is known to share its right answer, and their ``truth`` says so.

    Rotations are records with the same group, the same question and the same options in another
    order.
    """
    by_example: dict[str, list[Record]] = defaultdict(list)
    by_question: dict[tuple[str, str, tuple[str, ...]], list[Record]] = defaultdict(list)
    by_key: dict[Key, list[Record]] = defaultdict(list)
    for record in records:
        by_example[record.example.id].append(record)
        if record.condition == condition and record.example.choices is not None:
            by_question[_rotation_key(record.example)].append(record)
    for run in other_runs:
        for record in run:
            if record.condition == condition:
                by_key[record.key].append(record)
    linked = []
    replies = asked_condition("", condition)
    for record in records:
        if record.condition != condition:
            continue
        rotations: tuple[Record, ...] = ()
        if record.example.choices is not None:
            rotations = tuple(
                other
                for other in by_question[_rotation_key(record.example)]
                if other.key != record.key
            )
        others = [o for o in by_example[record.example.id] if o.condition != condition]
        if record.truth != "same":
            others = [replace(other, truth="unknown") for other in others]
        linked.append(
            record.with_related(
                Related(
                    conditions=tuple(o for o in others if not _is_follow_up(o.condition)),
                    rotations=rotations,
                    models=tuple(by_key[record.key]),
                    follow_ups=tuple(o for o in others if o.condition.startswith(replies)),
                )
            )
        )
    return linked


def _is_follow_up(condition: str) -> bool:
    return condition.rsplit("+", maxsplit=1)[-1].startswith(f"{ASKED}:")


def _rotation_key(example: Example) -> tuple[str, str, tuple[str, ...]]:
    return example.group, " ".join(example.question.split()), tuple(sorted(example.choices or ()))
