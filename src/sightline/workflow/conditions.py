"""Examples under conditions: what is asked, under which picture, and whether its truth stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sightline.core.condition_names import CLEAN
from sightline.core.text import parse_choice
from sightline.core.types import Example, ImageRef, Key, Record, Refused, Truth
from sightline.data.label_preservation import Decision, decide
from sightline.data.perturbations import Condition, parse_condition
from sightline.data.unrelated import Pictures, Unrelated

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class View:
    """One example under one condition, as the model is to see it.

    Attributes:
        example: The example as it is stored.
        condition: What is done to its pictures and its question.
        option: Letter of the option the clean answer names, where the condition depends on it.
        answer: Token ids of the clean answer, None where they were not observable.
        truth: Whether the right answer stays.
        pictures: Another question's pictures, where the condition is to show those.
    """

    example: Example
    condition: Condition
    option: str | None
    answer: tuple[int, ...] | None
    truth: Truth
    pictures: tuple[ImageRef, ...] | None = None

    @property
    def key(self) -> Key:
        """Key of the record."""
        return Key(self.example.id, self.condition.name)

    @property
    def asked(self) -> Example:
        """The example as the model is asked it.

        Its id names the condition, so that samples under two conditions are independent draws.
        """
        reworded = self.condition.reword(self.example)
        return replace(reworded, id=f"{self.example.id} under {self.condition.name}")

    def render(self, images: Sequence[Image]) -> tuple[Image, ...]:
        """What is shown of the example's pictures; of `pictures` as they are, where it has them."""
        if self.pictures is not None:
            return tuple(images)
        return tuple(
            self.condition.apply(image, self.example, answer=self.option, index=index)
            for index, image in enumerate(images)
        )

    def record(self, shown: Record) -> Record:
        """What the model showed, as the record of this view."""
        return replace(shown, example=self.example, condition=self.condition.name, truth=self.truth)


def views_of(
    clean: Record, conditions: Sequence[Condition], others: Sequence[Pictures] = ()
) -> tuple[list[View], list[Refused]]:
    """The conditions that exist for an example, and those that do not with their reasons.

    Args:
        clean: What the model showed on it under the clean condition.
        conditions: Those asked for, in order.
        others: Pictures of other questions, in the order they were drawn for this one.
    """
    example, answer = clean.example, clean.answer
    ids = None if answer.token_ids is None else tuple(answer.token_ids.tolist())
    found: list[View] = []
    refused: list[Refused] = []
    for condition in conditions:
        option = _chosen(clean) if condition.needs_answer else None
        pictures, lacking = _unrelated(condition, others)
        reason = _refusal(condition, example, option) or lacking
        if reason is not None:
            refused.append(Refused(Key(example.id, condition.name), reason))
            continue
        truth = decide(condition, example, answer=option).truth
        found.append(View(example, condition, option, ids, truth, pictures))
    return found, refused


def decision(record: Record, clean: Record | None) -> Decision:
    """What is known of the right answer under a record's condition.

    Args:
        record: Under any condition of the bank.
        clean: The same example's clean record, which some conditions depend on.

    Raises:
        DataError: The condition depends on the clean answer, and it names no option.
        UsageError: The condition is none of the bank.
    """
    condition = parse_condition(record.condition)
    option = _chosen(clean) if clean is not None and condition.needs_answer else None
    return decide(condition, record.example, answer=option)


def with_own_truth(records: Sequence[Record]) -> tuple[list[Record], Mapping[str, int]]:
    """Records whose right answer is known, each with the references of its own condition.

    Args:
        records: Linked records of one condition.

    Returns:
        The records to grade, and how many of the others there are, by reason.
    """
    kept: list[Record] = []
    without: dict[str, int] = {}
    for record in records:
        if record.truth == "same":
            kept.append(record)
            continue
        references = None
        if record.truth == "changed":
            clean = next((c for c in record.related.conditions if c.condition == CLEAN), None)
            references = decision(record, clean).references
        if references is None:
            reason = f"the right answer under {record.condition} is not known"
            without[reason] = without.get(reason, 0) + 1
        else:
            kept.append(replace(record, example=replace(record.example, references=references)))
    return kept, without


def _chosen(clean: Record) -> str | None:
    """Letter of the option the clean answer names, or None."""
    return parse_choice(clean.answer.text, clean.example.choices or ())


def _unrelated(
    condition: Condition, others: Sequence[Pictures]
) -> tuple[Pictures | None, str | None]:
    """Another question's pictures where the condition shows some; or why there are none."""
    for _, perturbation in condition.steps:
        if isinstance(perturbation, Unrelated):
            if perturbation.level > len(others):
                return None, f"the data set has {len(others)} unrelated pictures for the question"
            return others[perturbation.level - 1], None
    return None, None


def _refusal(condition: Condition, example: Example, option: str | None) -> str | None:
    if condition.changes_image and not example.images:
        return "the question has no picture"
    reason = condition.refusal(example)
    if reason is None and condition.needs_answer and option is None:
        return "the clean answer names none of the options"
    return reason
