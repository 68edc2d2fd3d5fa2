"""What a model, a data set or a results file could say to break out of a page or a terminal."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from sightline.core.results import Evaluation

LONG = "A" * 20_000
TEXTS = (
    "</script><img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(2)</script>",
    '"><a href="javascript:alert(1)">click</a>',
    "javascript:alert(1)",
    "{{7*7}}{% raw %}{{ ''.__class__ }}",
    "\u202egnp.exe\u202c \u2066right\u2069 \u200fלא",
    "\x1b[2J\x1b]52;c;aGk=\x07\x00\x9b31m\r\n",
    "$\\frac{1}{0}$ $x",
    "</title></style><!-- ]]> --><base href=http://example.test/>",
    "\ud800 lone \udfff",
    "https://example.test/x.png",
    LONG,
)


def everywhere(value: Any, text: str) -> Any:
    """The same results with every text in them followed by ``text``."""
    if isinstance(value, str):
        return value + text
    if isinstance(value, dict):
        return {everywhere(k, text): everywhere(v, text) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(everywhere(item, text) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: everywhere(getattr(value, f.name), text) for f in fields(value)}
        return replace(value, **changed)
    return value


def hostile(evaluation: Evaluation, text: str) -> Evaluation:
    """An evaluation all of whose texts end in ``text``; figures stay where they are found."""
    loud = everywhere(evaluation, text)
    estimators = tuple(
        replace(
            changed,
            raw=original.raw,
            heldout=original.heldout,
            vs_baseline=original.vs_baseline,
            by_type={
                name + text: dict(values.items()) for name, values in original.by_type.items()
            },
        )
        for changed, original in zip(loud.estimators, evaluation.estimators, strict=True)
    )
    return replace(loud, estimators=estimators)
