"""In what two descriptions of the same kind differ, in words short enough for one line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sightline.core.printing import printable

_SHOWN = 40


def differences(
    known: Mapping[str, Any], found: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """Entries that differ, each as its name, what was found and what is known.

    Args:
        known: What is required; entries may hold further entries.
        found: What is there.
        ignored: Names of entries that may differ, an entry's within another behind its name:
            ``server version``.

    Returns:
        In the order of their names; values are shortened to 40 characters.

    Example:
        >>> differences({"dtype": "float32", "server": {"version": "1"}}, {"server": {}})
        ["dtype missing for 'float32'", "server version missing for '1'"]
    """
    kept = {name for name in {*known, *found} if name not in ignored}
    return [one for name in sorted(kept) for one in _of(name, known, found, ignored)]


def _of(
    name: str, known: Mapping[str, Any], found: Mapping[str, Any], ignored: Collection[str]
) -> Iterator[str]:
    before, now = known.get(name), found.get(name)
    if before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        within = {each.removeprefix(f"{name} ") for each in ignored if each.startswith(f"{name} ")}
        yield from (f"{name} {one}" for one in differences(before, now, within))
    else:
        yield f"{printable(name)[:_SHOWN]} {_shown(now)} for {_shown(before)}"


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    text = printable(repr(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
