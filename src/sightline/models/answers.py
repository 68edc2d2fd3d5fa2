"""From decoded token ids to a `Generation`: text, tokens, and a reasoning prefix kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sightline.core.types import Generation
from sightline.models.decoding import Decoded

_THINK, _THOUGHT = "<think>", "</think>"


class AnswerReader:
    """Reads decoded rows with one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}

    def generation(self, row: Decoded, prompt: str) -> Generation:
        """Returns the row as a generation; the text has no end token and no reasoning prefix."""
        ids = row.ids[:-1] if row.stopped else row.ids
        start = self._answer_start(ids, prompt)
        reasoning = None
        if start is not None:
            thought = self._text(ids[:start])
            reasoning = thought.replace(_THINK, "").replace(_THOUGHT, "").strip()
        return Generation(
            text=self._text(ids[start or 0 :]),
            token_ids=np.asarray(row.ids, dtype=np.int32),
            tokens=tuple(self._piece(token) for token in row.ids),
            logprobs=np.asarray(row.logprobs, dtype=np.float64),
            finish_reason="stop" if row.stopped else "length",
            reasoning=reasoning,
            answer_start=start or 0,
        )

    def so_far(self, row: Decoded, prompt: str) -> str:
        """The beginning of the text that the row will have as a generation.

        Empty while it reasons; without white space and halves of characters at its end, which the
        next token may make part of something else.
        """
        ids = row.ids[:-1] if row.stopped else row.ids
        text = self._text(ids[self._answer_start(ids, prompt) or 0 :])
        return text if row.stopped else text.rstrip("\ufffd").rstrip()

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        return [self._piece(token) for token in ids]

    def _answer_start(self, ids: list[int], prompt: str) -> int | None:
        """Index of the first answer token after a reasoning prefix; None without a prefix.

        A prompt may end by opening the reasoning. White space between reasoning and answer belongs
        to the reasoning. Reasoning that was never closed leaves no answer: the index is the number
        of ids.
        """
        whole = self._tokenizer.decode(ids, skip_special_tokens=False)
        opened = whole.lstrip().startswith(_THINK) or prompt.rstrip().endswith(_THINK)
        if _THOUGHT not in whole:
            return len(ids) if opened else None
        start = next(
            i
            for i in range(1, len(ids) + 1)
            if _THOUGHT in self._tokenizer.decode(ids[:i], skip_special_tokens=False)
        )
        while start < len(ids) and not self._piece(ids[start]).strip():
            start += 1
        return start

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._tokenizer.decode([token])
        return self._pieces[token]
