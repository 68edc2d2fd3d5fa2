"""What conditions are called: the clean question, its perturbations, questions about an answer.

A condition is ``clean``, ``blank``, ``asked:NAME`` or ``family:level``, joined by ``+`` where
several hold.
"""

from __future__ import annotations

CLEAN = "clean"
BLANK = "blank"
NEGATED = "negated"
NOISE = "noise"
INJECTED = "answer_text"
UNRELATED = "unrelated"
ASKED = "asked"


def asked_condition(name: str, about: str = CLEAN) -> str:
    """Condition of a follow-up question's record.

    Args:
        name: The question, such as ``p_true`` or, in its second wording, ``p_true.2``.
        about: Condition of the answer that it asks about.
    """
    return f"{ASKED}:{name}" if about == CLEAN else f"{about}+{ASKED}:{name}"


def has_family(condition: str, family: str) -> bool:
    """Whether a condition, or a part of a composed one, is of a family (``negated``…)."""
    return any(part.split(":")[0].startswith(family) for part in condition.split("+"))


def question_of(condition: str) -> str | None:
    """The follow-up question whose reply a condition holds, whatever its wording; else None."""
    family, _, name = condition.rsplit("+", maxsplit=1)[-1].partition(":")
    return name.partition(".")[0] if family == ASKED else None


def by_level(condition: str) -> tuple[tuple[str, float, str], ...]:
    """Sorts conditions by family and, within it, by level: as a number where it is one."""
    key = []
    for part in condition.split("+"):
        family, _, level = part.partition(":")
        try:
            value = float(level)
        except ValueError:
            value = 0.0
        key.append((family, value, level))
    return tuple(key)
