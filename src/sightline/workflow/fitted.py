"""Estimators fitted before, on this run or another: what they may score, and what they may not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from sightline.core.errors import DataError, LeakageError, UsageError
from sightline.core.types import Example, Record
from sightline.data.splits import Split
from sightline.estimators.saved import Saved, load_fitted

_DIGITS = 16
_ORIGIN = {"model", "dataset", "run", "n", "accuracy", "part", "content"}


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted estimator as it joins the table.

    Attributes:
        name: The learned estimator's name and, in brackets, that of its directory.
        saved: The estimator and where it comes from.
    """

    name: str
    saved: Saved

    @property
    def spec(self) -> dict[str, Any]:
        """The learned estimator's settings, and on what it was fitted."""
        origin = self.saved.origin
        fitted_on = {key: origin[key] for key in ("model", "dataset", "run", "n", "accuracy")}
        return {**self.saved.spec, "fitted_on": fitted_on}

    def unseen(self, records: Sequence[Record]) -> Int[np.ndarray, " rows"]:
        """Indices of the records in groups of which it was fitted on none."""
        seen = self._seen_groups(records)
        return np.flatnonzero([record.example.group not in seen for record in records])

    def check_model(self, run: Path, model: Mapping[str, Any], *, transfer: bool) -> None:
        """Requires that it was fitted on this model.

        Raises:
            UsageError: It was fitted on another, and ``transfer`` does not allow that.
        """
        known = self.saved.origin["model"]
        if transfer or known == dict(model):
            return
        differing = sorted(
            key for key in {*known, *model} if known.get(key) != model.get(key) and key != "name"
        )
        raise UsageError(
            f"{self.name} was fitted on {known.get('name', 'an unnamed model')} and {run} is of "
            f"{model.get('name', 'an unnamed model')} (differing in "
            f"{', '.join(differing[:4]) or 'name'}); the same model is required. Fit on a run of "
            "this model, or say --transfer."
        )

    def check_splits(self, records: Sequence[Record], splits: Iterable[Split]) -> None:
        """Requires that no row it was fitted on is calibrated or measured on.

        Raises:
            LeakageError: One is.
        """
        seen = self._seen_groups(records)
        leaked = {
            records[row].example.group
            for split in splits
            for part in (split.calibration, split.test)
            for row in part
        } & seen
        if leaked:
            part = self.saved.origin["part"]
            remedy = "Put these groups into train with --split, or fit on other rows."
            if "seed" in part:
                shares = ",".join(f"{share:g}" for share in part["fractions"])
                remedy = (
                    f"On the run it was fitted on say --seeds 1 --seed {part['seed']} --fractions "
                    f"{shares}; on another put these groups into train with --split, or fit on "
                    "other rows."
                )
            raise LeakageError(
                f"{self.name} was fitted on {len(leaked)} group(s) of the calibration or test "
                f"rows, {min(leaked)!r} among them; rows that it has not seen are required. "
                f"{remedy}"
            )

    def _seen_groups(self, records: Sequence[Record]) -> set[str]:
        """Groups with a record whose content it was fitted on."""
        return groups_with(self.saved.origin["content"], records)


def groups_with(known: Iterable[str], records: Iterable[Record]) -> set[str]:
    """Groups of records of which the content of one at least is known; see `content`."""
    hashes = set(known)
    return {r.example.group for r in records if not hashes.isdisjoint(content(r.example))}


def content(example: Example) -> tuple[str, ...]:
    """Hashes by which an example is known again: its question within its group, and its images."""
    asked = hashlib.sha256(f"{example.group}\0{example.question}".encode("utf-8", "surrogatepass"))
    return (asked.hexdigest()[:_DIGITS], *(image.sha256[:_DIGITS] for image in example.images))


def load_all(folders: Sequence[str | Path]) -> tuple[Fitted, ...]:
    """Reads fitted estimators, each under a name of its own.

    Raises:
        DataError: A directory holds none, or one that does not say what it was fitted on.
        UsageError: Two have the same name.
    """
    found: dict[str, Fitted] = {}
    for folder in folders:
        saved = load_fitted(folder)
        lacking = sorted(_ORIGIN - saved.origin.keys())
        if lacking:
            raise DataError(
                f"Fitted estimator {folder} does not say its {', '.join(lacking)}; that is "
                "required, to know which rows it may score. Fit it with sightline fit."
            )
        label = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(folder).resolve().name)[:60]
        one = Fitted(f"{saved.spec['name']}[{label}]", saved)
        if one.name in found:
            raise UsageError(
                f"Two fitted estimators are called {one.name}; directories of different names are "
                "required. Rename one."
            )
        found[one.name] = one
    return tuple(found.values())
