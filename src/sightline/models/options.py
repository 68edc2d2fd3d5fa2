"""Scoring options of multiple choice, and given answers, as continuations of one prefill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sightline.core.features import Feature
from sightline.core.types import Example
from sightline.models.decoding import score
from sightline.models.inputs import AnswerForm, InputBuilder, as_int32
from sightline.models.prefill import Prefill

Scorer = Callable[[Prefill, Sequence[int], Sequence[Sequence[int]]], list[np.ndarray]]
"""Log-probabilities of continuations of prefill rows, as `sightline.models.decoding.score`."""

BLANK_OF = {
    Feature.OPTION_LOGPROBS: Feature.BLANK_OPTION_LOGPROBS,
    Feature.LETTER_LOGPROBS: Feature.BLANK_LETTER_LOGPROBS,
}
"""What the option features are called when observed under the blank image."""


@dataclass(frozen=True, slots=True)
class OptionTexts:
    """The tokens of one row's options, end token included, and the spellings of each letter.

    ``letters`` is None where letters are not asked for, or one has no spelling of its own in the
    vocabulary.
    """

    row: int
    options: list[tuple[int, ...]]
    letters: list[set[tuple[int, ...]]] | None


def option_texts(
    inputs: InputBuilder,
    form: AnswerForm,
    examples: Sequence[Example],
    prompts: Sequence[str],
    *,
    letters: bool,
) -> list[OptionTexts]:
    """Tokenises options and letters of the rows that have choices, as they follow the prompt.

    Letters only where the prompt asks for one; elsewhere their probabilities say nothing. A
    letter's spellings are the letter as it follows the prompt, and by itself or after a space where
    that is one token.
    """
    asked = []
    for row, (example, prompt) in enumerate(zip(examples, prompts, strict=True)):
        if example.choices is None:
            continue
        asked_for = example.letters if letters else ()
        texts = [*(choice.strip() for choice in example.choices), *asked_for]
        following = inputs.continuations(prompt, texts, form)
        count = len(example.choices)
        options = [(*ids, form.end_id) for ids in following[:count]]
        spellings = _spellings(inputs, asked_for, following[count:]) if letters else None
        asked.append(OptionTexts(row, options, spellings))
    return asked


def option_features(
    start: Prefill, asked: Sequence[OptionTexts], scorer: Scorer = score
) -> dict[int, dict[Feature, np.ndarray]]:
    """Scores options and letters, by row.

    An option's score is the log-probability of its text and of the token that ends the turn,
    summed; its length counts both. A letter's score is the log-probability that the answer begins
    with one of its spellings.
    """
    wanted: dict[tuple[int, tuple[int, ...]], None] = {}
    for texts in asked:
        for ids in (*texts.options, *set().union(*(texts.letters or ()))):
            wanted[texts.row, ids] = None
    if not wanted:
        return {}
    scored = scorer(start, [row for row, _ in wanted], [ids for _, ids in wanted])
    total = {key: float(values.sum()) for key, values in zip(wanted, scored, strict=True)}
    found: dict[int, dict[Feature, np.ndarray]] = {}
    for texts in asked:
        row = texts.row
        found[row] = {
            Feature.OPTION_LOGPROBS: np.array([total[row, ids] for ids in texts.options]),
            Feature.OPTION_LENGTHS: as_int32([len(ids) for ids in texts.options]),
        }
        if texts.letters is not None:
            found[row][Feature.LETTER_LOGPROBS] = np.array(
                [
                    min(0.0, np.logaddexp.reduce([total[row, ids] for ids in sorted(spellings)]))
                    for spellings in texts.letters
                ]
            )
    return found


def given_features(
    start: Prefill, given: Sequence[Sequence[int] | None], scorer: Scorer = score
) -> dict[int, dict[Feature, np.ndarray]]:
    """Scores an answer from elsewhere behind each prompt that has one, by row; nats per token."""
    rows = [(row, ids) for row, ids in enumerate(given) if ids is not None]
    if not rows:
        return {}
    scored = scorer(start, [row for row, _ in rows], [ids for _, ids in rows])
    return {
        row: {Feature.CLEAN_LOGPROBS: values} for (row, _), values in zip(rows, scored, strict=True)
    }


def _spellings(
    inputs: InputBuilder, letters: Sequence[str], following: Sequence[list[int]]
) -> list[set[tuple[int, ...]]] | None:
    tokenizer = inputs.tokenizer
    texts = [*letters, *(f" {letter}" for letter in letters)]
    others = tokenizer(texts, add_special_tokens=False)["input_ids"]
    found: list[set[tuple[int, ...]]] = []
    for i, own in enumerate(following):
        single = {tuple(ids) for ids in others[i :: len(letters)] if len(ids) == 1}
        spelled = {tuple(own), *single}
        found.append({ids for ids in spelled if tokenizer.unk_token_id not in ids})
    if not all(found) or len(set().union(*found)) < sum(map(len, found)):
        return None
    return found
