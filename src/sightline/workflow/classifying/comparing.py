"""What two runs of a classifier must share, and what they must not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import LeakageError, UsageError
from sightline.core.types import Example
from sightline.store.run import RunStore


def same_classifier(
    run: Path, model: Mapping[str, Any], tested: RunStore, *, what: str = "support pictures"
) -> None:
    """Requires one classifier, one set of classes and the same encoders for both.

    Args:
        run: The other run.
        model: Its classifier.
        tested: The run of the pictures to judge.
        what: What is taken from the other run.

    Raises:
        UsageError: They differ.
    """
    differing = differing_in(model, tested.manifest.model)
    if differing:
        raise UsageError(
            f"The {what} of {run} and the pictures of {tested.path} differ in "
            f"{', '.join(differing)}; one classifier, the same classes, templates, "
            "encoders and views are required. Classify both with the same flags, one with the "
            "other run as --classes."
        )


def differing_in(
    one: Mapping[str, Any], other: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """Names of what two classifiers differ in, of what scores depend on."""
    mine, theirs = _comparable(one), _comparable(other)
    return sorted(
        {
            key.removesuffix("_sha256")
            for key in {*mine, *theirs} - {*ignored}
            if mine.get(key) != theirs.get(key)
        }
    )


def _comparable(model: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same; of vectors computed elsewhere their width, not their file."""
    encoders = [
        {k: v for k, v in entry.items() if k != "model" or "sha256" not in entry["model"]}
        for entry in model.get("encoders", ())
    ]
    return {**model, "encoders": encoders}


def refuse_leakage(
    support: Sequence[Example],
    tested: Sequence[Example],
    pool: str,
    name: str,
    *,
    what: str = "support pictures",
    among: str = "test pictures",
) -> None:
    """Requires that no picture is both learned from and tested on, by the hash of its bytes.

    Args:
        support: Pictures of one kind.
        tested: Pictures of another.
        pool: Where the first are from.
        name: Where the others are from.
        what: What the first are.
        among: What the others are.

    Raises:
        LeakageError: One is.
    """
    there = {image.sha256: e.id for e in tested for image in e.images}
    both = [e for e in support if any(image.sha256 in there for image in e.images)]
    if both:
        first = both[0]
        raise LeakageError(
            f"{len(both)} {what} of {pool} are among the {among} of {name}, such as {first.id!r} "
            f"({there[first.images[0].sha256]!r} there); pictures that are no {among} are "
            "required. Take them from another split, or remove them from one."
        )
