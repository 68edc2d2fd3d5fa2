"""The control of the bank: the same question about another question's picture.

``unrelated:1`` is no perturbation. It says how far a representation lies from itself when nothing
but the words is shared, which drift is held against (`sightline.audit.controls.other_images`) also
where every question of a data set is asked once. Its answers are in no flip rate, no figure of all
pairs and no estimate; what is right under it is not asked. It is asked for like a perturbation and
stands alone: no other step goes with it.

The N-th picture of a question is drawn among those of all questions that are collected, of as many
pictures each, where neither a file's content nor the group is the question's own. The draw depends
on the question's id and on these pictures alone: neither on their order, nor on batches, shards, or
where a collection was interrupted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from sightline.core.errors import UsageError
from sightline.core.types import Example, ImageRef
from sightline.data.perturb_geometry import Magnitude, Size

Pictures = tuple[ImageRef, ...]


@dataclass(frozen=True, slots=True)
class Unrelated:
    """A control: the same question about another question's picture, drawn by chance.

    Attributes:
        level: Which of the pictures drawn for the question, from 1.
    """

    level: int = 1
    levels: ClassVar[tuple[str, ...]] = ("1", "2", "3")
    kind: ClassVar[str] = "unrelated picture"

    def __post_init__(self) -> None:
        if self.level < 1:
            raise UsageError(
                f"The unrelated picture is number {self.level}; 1 or more is required. Correct the "
                "level."
            )

    def magnitude(self, size: Size) -> Magnitude:
        """Which of the pictures it is; all of the question's own is gone."""
        return Magnitude(self.level, "picture", max(size), 1.0)


@dataclass(slots=True)
class _Ring:
    """Pictures in an order that says nothing about them, and the groups each belongs to."""

    pictures: dict[tuple[str, ...], Pictures] = field(default_factory=dict)
    groups: dict[tuple[str, ...], set[str]] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        key = _key(example)
        known = self.pictures.setdefault(key, example.images)
        self.pictures[key] = min(known, example.images, key=lambda own: [ref.path for ref in own])
        self.groups.setdefault(key, set()).add(example.group)


def unrelated_pictures(examples: Sequence[Example], count: int) -> Mapping[str, Sequence[Pictures]]:
    """Draws pictures of other questions for every question that has some of its own.

    Args:
        examples: All questions that are collected.
        count: Pictures for each.

    Returns:
        By example id, the first, second, … set of pictures, all different; fewer where there are
        fewer.
    """
    rings: dict[int, _Ring] = {}
    asked = [example for example in examples if example.images] if count else []
    for example in asked:
        rings.setdefault(len(example.images), _Ring()).add(example)
    ordered = {n: sorted(ring.pictures, key=_digest) for n, ring in rings.items()}
    shares = {
        n: Counter(g for own in ring.groups.values() for g in own) for n, ring in rings.items()
    }
    found: dict[str, Sequence[Pictures]] = {}
    for example in asked:
        n = len(example.images)
        if shares[n][example.group] < len(ordered[n]):
            found[example.id] = _drawn(example, rings[n], ordered[n], count)
    return found


def _drawn(
    example: Example, ring: _Ring, order: Sequence[tuple[str, ...]], count: int
) -> Sequence[Pictures]:
    """Walks the ring from a place that the question's id names, once for each picture."""
    own, taken = set(_key(example)), dict[tuple[str, ...], Pictures]()
    for number in range(1, min(count, len(order)) + 1):
        start = int(_digest((example.id, str(number))), 16)
        walk = (order[(start + step) % len(order)] for step in range(len(order)))
        key = next(
            (
                key
                for key in walk
                if key not in taken
                and own.isdisjoint(key)
                and example.group not in ring.groups[key]
            ),
            None,
        )
        if key is None:
            break
        taken[key] = ring.pictures[key]
    return tuple(taken.values())


def _key(example: Example) -> tuple[str, ...]:
    return tuple(image.sha256 for image in example.images)


def _digest(parts: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
