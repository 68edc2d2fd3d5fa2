"""From a choice on the wire to a `Generation`, with its log-probabilities where they fit its text.

Servers differ in whether the token that ends the turn is shown and whether reasoning is among the
tokens, so the tokens are held against the text. Where they do not spell it, or one of them has no
log-probability, the answer is kept and its log-probabilities are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sightline.core.types import FinishReason, Generation
from sightline.models.openai.wire import Choice, Step

_THINK, _THOUGHT = "<think>", "</think>"
_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}
_END_PIECES = 2  # an end token, at most with one line break or space before it


def generation(choice: Choice, *, logprobs: bool = True) -> Generation:
    """Returns the choice as a generation.

    Args:
        choice: As the wire shows it.
        logprobs: Whether its log-probabilities are of the raw distribution; else they are left out.
    """
    text, reasoning = _parted(choice)
    steps = choice.steps
    start = None if steps is None else answer_start(steps, text, reasoned=reasoning is not None)
    finish = _FINISH.get(choice.finish_reason or "", "unknown")
    if steps is None or start is None:
        return Generation(text, finish_reason=finish, reasoning=reasoning)
    values = [step.chosen.logprob for step in steps]
    seen = [value for value in values if value is not None]
    ids = choice.token_ids
    return Generation(
        text=text,
        token_ids=(
            np.asarray(ids, dtype=np.int32) if ids is not None and len(ids) == len(steps) else None
        ),
        tokens=tuple(step.chosen.text for step in steps),
        logprobs=np.asarray(seen) if logprobs and len(seen) == len(values) else None,
        finish_reason=finish,
        reasoning=reasoning,
        answer_start=start,
    )


def answer_start(steps: Sequence[Step], text: str, *, reasoned: bool = False) -> int | None:
    """Index of the first token of the answer; None where the tokens do not spell it at their end.

    What follows the answer may be its end token; what precedes it may be reasoning.
    """
    raw = [step.chosen.raw for step in steps]
    wanted = text.encode("utf-8", errors="replace")
    if not wanted:
        if reasoned:
            return len(raw)
        return 0 if len(raw) <= _END_PIECES else None
    for ended in range(len(raw), max(0, len(raw) - _END_PIECES - 1), -1):
        start = _spelled_from(raw[:ended], wanted)
        if start is None:
            continue
        if not b"".join(raw[:start]).strip() and not reasoned:
            return 0
        return start if reasoned or start == 0 else None
    return None


def _spelled_from(raw: Sequence[bytes], wanted: bytes) -> int | None:
    """Where the last tokens begin to spell a text, white space around it aside."""
    spelled = b""
    for start in range(len(raw) - 1, -1, -1):
        spelled = raw[start] + spelled
        bare = spelled.strip()
        if bare == wanted:
            return start
        if len(bare) > len(wanted):
            return None
    return None


def shows_end(choice: Choice) -> bool:
    """Whether the token that ends the answer is among the tokens shown."""
    if not choice.steps or choice.finish_reason != "stop":
        return False
    last = choice.steps[-1].chosen.raw
    spelled = b"".join(step.chosen.raw for step in choice.steps[:-1]).strip()
    wanted = choice.text.strip().encode("utf-8", errors="replace")
    return spelled.endswith(wanted) and (not last or bool(last.strip()))


def top_logprobs(steps: Sequence[Step], k: int) -> np.ndarray | None:
    """Log-probabilities of the likeliest tokens, (t, k) nats, descending.

    ``k`` shrinks to what every place shows; None where one shows nothing.
    """
    width = min([k, *(len(step.top) for step in steps)])
    if width == 0:
        return None
    return np.array([[piece.logprob for piece in step.top[:width]] for step in steps])


def _parted(choice: Choice) -> tuple[str, str | None]:
    """Answer and reasoning; a server that keeps them together writes the usual tags."""
    text, reasoning = choice.text.strip(), choice.reasoning
    if reasoning is None and text.startswith(_THINK):
        thought, closed, rest = text.partition(_THOUGHT)
        return rest.strip() if closed else "", thought.removeprefix(_THINK).strip()
    if reasoning is None and _THOUGHT in text:  # the prompt had opened it
        thought, _, rest = text.partition(_THOUGHT)
        return rest.strip(), thought.strip()
    return text, None if reasoning is None else reasoning.strip()
