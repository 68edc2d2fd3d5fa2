"""Categories of answers, each of which may have a threshold of its own."""

from __future__ import annotations

from dataclasses import replace

from sightline.core.types import Example, Record

PREDICTED_CLASS = "predicted_class"
"""Field by which every class that a classifier may name gets a threshold of its own."""


def category_of(record: Record, field: str) -> str | None:
    """The value that decides which threshold an answer gets, as text; None where it has none."""
    if field == "question_type" and record.example.question_type is not None:
        return record.example.question_type
    value = record.example.meta.get(field)
    if value is None and field == PREDICTED_CLASS and record.greedy is not None:
        value = record.greedy.text
    return None if value is None else str(value)


def in_category(example: Example, field: str, category: str) -> Example:
    """The example with the value that decides which threshold its answer gets."""
    if field == "question_type":
        return replace(example, question_type=category)
    return replace(example, meta={**example.meta, field: category})
