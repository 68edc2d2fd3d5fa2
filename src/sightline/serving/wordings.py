"""A text taken apart as a prompt style words questions: what it asks, and its options.

A question that already stands as the style words it is what the policy's questions were: nothing is
added to it, and it is judged by what it asks, without the instruction, as its run was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sightline.core.types import Example, choice_letters
from sightline.data.prompts import PromptStyle, user_text
from sightline.serving.questions import Asked

_MOST_OPTIONS = 255


def taken_apart(text: str, style: PromptStyle) -> tuple[str, tuple[str, ...] | None] | None:
    r"""The question and the options that a style words as a text; white space around it aside.

    Returns:
        None where the style words no question so; options None for a free question.

    Example:
        >>> taken_apart("What is it?\nAnswer with a single word or phrase.", PromptStyle())
        ('What is it?', None)
        >>> taken_apart("Who?\nA. Ann\nB. Bo\nAnswer with the option's letter.", PromptStyle())
        ('Who?', ('Ann', 'Bo'))
        >>> taken_apart("What is it?", PromptStyle()) is None
        True
    """
    text = text.strip()
    for question, choices in _readings(text, style):
        if user_text(Example("request", question, choices=choices), style).strip() == text:
            return question, choices
    return None


def as_asked(
    asked: Asked, options: Sequence[str] | None, style: PromptStyle
) -> tuple[Asked, Sequence[str] | None]:
    """What is asked, and its options, so that what the style has worded is not worded twice."""
    found = taken_apart(asked.text, style) if options is None else None
    if found is None:
        return asked, options
    question, choices = found
    return replace(asked, text=question), choices


def missing_wording(text: str, style: PromptStyle) -> str | None:
    """What a question lacks of how a style words questions, for a message; None where nothing."""
    if taken_apart(text, style) is not None:
        return None
    if style.choice_instruction and _without(text.strip(), style.choice_instruction) is not None:
        return f"the options stand otherwise than one a line as {_shown(style.option)}"
    found = f"the question does not end in the line {_shown(style.short_instruction)}"
    if style.choice_instruction not in ("", style.short_instruction):
        found += f" (behind options: {_shown(style.choice_instruction)})"
    return found


def _readings(text: str, style: PromptStyle) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    """What a text may ask; as a free question first where no instruction of its own tells options.

    Questions of data without a column of choices hold their options themselves.
    """
    own = style.choice_instruction not in ("", style.short_instruction)
    free = _without(text, style.short_instruction)
    if free is not None and not own:
        yield free, None
    asked = _without(text, style.choice_instruction)
    found = None if asked is None else _choices(asked.split("\n"), style.option, longer=own)
    if found is not None:
        yield found
    if free is not None and own:
        yield free, None


def _without(text: str, instruction: str) -> str | None:
    """The text before its last line, which is the instruction; None where it is another."""
    end = f"\n{instruction}".rstrip() if instruction else ""
    asked = text.removesuffix(end)
    return asked if text.endswith(end) and asked.strip() else None


def _choices(
    lines: Sequence[str], option: str, *, longer: bool
) -> tuple[str, tuple[str, ...]] | None:
    """The question and the options that stand behind it, each on lines of its own.

    Args:
        lines: What stands before the instruction.
        option: The form of an option.
        longer: Whether an option may have several lines: not where a free question could end so.
    """
    before, _, after = option.partition("{text}")
    if "{text}" not in option or "\n" in option:
        return None
    if "{letter}" in before:
        start = _last(lines, before.replace("{letter}", "A"))
    else:
        start = len(lines)
        while start > 1 and lines[start - 1].startswith(before):
            start -= 1
    if not 0 < start < len(lines) - 1:
        return None
    texts = list[str]()
    letters = choice_letters(_MOST_OPTIONS)
    for line in lines[start:]:
        begins = before.replace("{letter}", letters[len(texts)])
        if line.startswith(begins):
            texts.append(line.removeprefix(begins))
        elif not longer:
            return None
        else:
            texts[-1] += f"\n{line}"
        if len(texts) == _MOST_OPTIONS:
            return None
    ends = [after.replace("{letter}", letter) for letter in letters[: len(texts)]]
    if len(texts) < 2 or not all(map(str.endswith, texts, ends)):
        return None
    choices = tuple(text.removesuffix(end) for text, end in zip(texts, ends, strict=True))
    return "\n".join(lines[:start]), choices


def _last(lines: Sequence[str], begins: str) -> int:
    """Index of the last line that begins so; 0 where none behind the first does."""
    return next((at for at in range(len(lines) - 1, 0, -1) if lines[at].startswith(begins)), 0)


def _shown(line: str) -> str:
    return repr(line if len(line) <= 120 else f"{line[:119]}…")
