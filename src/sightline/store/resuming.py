"""Whether a stored run is the one that is asked for, and may go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import SettingsDifferError
from sightline.store.schema import RESULT_FIELDS, Manifest, canonical_json

_LISTED = 8
"""Entries of a long list that are shown."""


def require_same(path: Path, stored: Manifest, asked: Manifest) -> None:
    """Requires that nothing that decides results differs.

    Raises:
        SettingsDifferError: Something does; the message names it, and both values.
    """
    before, now = stored.deciding(), asked.deciding()
    for name in RESULT_FIELDS:
        found = _first_difference(name, before[name], now[name])
        if found is not None:
            where, old, new = _as_people_name_it(name, stored, asked) or found
            raise SettingsDifferError(
                f"{path} was made with {where} = {old} and is now asked for with {new}; a run "
                "resumes only with the same. Choose another folder, or start again with "
                "--overwrite."
            )


def _as_people_name_it(name: str, stored: Manifest, asked: Manifest) -> tuple[str, str, str] | None:
    """Another model or data set by its name, or another number of examples, before any hash."""
    before, now = getattr(stored, name), getattr(asked, name)
    known = {"model": ("name",), "dataset": ("name", "n")}.get(name, ())
    for key in known:
        old, new = before.get(key), now.get(key)
        if None not in (old, new) and old != new:
            return f"{name}.{key}", canonical_json(old), canonical_json(new)
    return None


def _first_difference(name: str, before: Any, now: Any) -> tuple[str, str, str] | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if key not in before or key not in now:
                old = canonical_json(before[key]) if key in before else "nothing"
                new = canonical_json(now[key]) if key in now else "nothing"
                return f"{name}.{key}", old, new
            if found := _first_difference(f"{name}.{key}", before[key], now[key]):
                return found
        return None
    if isinstance(before, list) and isinstance(now, list) and max(len(before), len(now)) > _LISTED:
        gone = [entry for entry in before if entry not in now]
        come = [entry for entry in now if entry not in before]
        if gone or come:
            return f"{name} (those that differ)", _listed(gone), _listed(come)
    return None if before == now else (name, canonical_json(before), canonical_json(now))


def _listed(entries: Sequence[Any]) -> str:
    """The first entries, and how many more there are."""
    more = len(entries) - _LISTED
    shown = canonical_json(list(entries[:_LISTED])) if entries else "nothing"
    return f"{shown} and {more} more" if more > 0 else shown
