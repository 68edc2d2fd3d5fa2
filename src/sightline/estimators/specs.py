"""Naming an estimator with its settings: as text for people, as a dictionary for files."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from sightline.core.errors import UsageError

T = TypeVar("T")


def parse(text: str, table: Mapping[str, T]) -> T:
    """Reads ``name`` or ``name:setting=value:setting=value``."""
    name, *settings = text.split(":")
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key or key in values:
            raise UsageError(
                f"Setting {setting!r} of estimator {text!r}; every setting is written once, as "
                "name=value. Write for example lexical_similarity:metric=rouge1."
            )
        values[key] = value
    return _build(name.strip(), values, table, read=True)


def spec_of(estimator: object, table: Mapping[str, T]) -> dict[str, Any]:
    """Writes an estimator as its name in the table and all its settings."""
    same_class = [name for name, entry in table.items() if type(entry) is type(estimator)]
    if not same_class:
        raise UsageError(
            f"{type(estimator).__name__} is not in the table of estimators; only its entries and "
            "their variants have a spec. Add it to ESTIMATORS."
        )
    name = next((n for n in same_class if table[n] == estimator), same_class[0])
    return {"name": name, **{f.name: getattr(estimator, f.name) for f in _fields(estimator)}}


def from_spec(spec: Mapping[str, Any], table: Mapping[str, T]) -> T:
    """Reads what `spec_of` wrote; settings left out have the values of the table's entry."""
    if not isinstance(spec.get("name"), str):
        raise UsageError(
            f"Estimator spec {dict(spec)!r} has no name; a name from the table is required. "
            'Write for example {"name": "sequence_probability"}.'
        )
    return _build(spec["name"], {k: v for k, v in spec.items() if k != "name"}, table, read=False)


def _build(name: str, values: Mapping[str, Any], table: Mapping[str, T], *, read: bool) -> T:
    if name not in table:
        raise UsageError(
            f"Estimator {name!r} does not exist; {_closest(name, tuple(table))}. "
            "Choose one of these."
        )
    entry = table[name]
    hints = typing.get_type_hints(type(entry))
    allowed = tuple(f.name for f in _fields(entry))
    for key in values:
        if key not in allowed:
            known = _closest(key, allowed) if allowed else "it has no settings"
            raise UsageError(
                f"Estimator {name!r} has no setting {key!r}; {known}. Correct or leave it out."
            )
    typed = {k: _value(f"{name}:{k}", v, hints[k], read=read) for k, v in values.items()}
    return replace(entry, **typed)  # type: ignore[type-var]


def _value(where: str, value: Any, hint: Any, *, read: bool) -> Any:
    """Checks a setting against its declared type, and reads it first where it is text."""
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        if value in options:
            return value
        raise _wrong(where, value, " or ".join(repr(o) for o in options))
    if hint is bool:
        truth = {"true": True, "false": False}.get(value.lower()) if read else value
        if isinstance(truth, bool):
            return truth
        raise _wrong(where, value, "true or false")
    if hint is int or hint is float:
        try:
            number = hint(value) if read else value
        except ValueError:
            number = None
        if hint is float and isinstance(number, int) and not isinstance(number, bool):
            number = float(number)
        if type(number) is hint:
            return number
        raise _wrong(where, value, "a whole number" if hint is int else "a number")
    raise TypeError(f"{where} is declared as {hint}, which no spec can hold")


def _wrong(where: str, value: Any, wanted: str) -> UsageError:
    return UsageError(f"{where} is {value!r}; {wanted} is required. Correct the setting.")


def _closest(name: str, allowed: tuple[str, ...]) -> str:
    close = get_close_matches(name, allowed, n=3, cutoff=0.5)
    if close:
        return "the closest names are " + ", ".join(close)
    return "the names are " + ", ".join(allowed)


def _fields(estimator: Any) -> tuple[Any, ...]:
    return fields(estimator)
