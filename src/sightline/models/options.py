"""Scoring the options of multiple-choice questions as continuations of one prefill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.core.types import Example, Feature
from sightline.models.decoding import score
from sightline.models.inputs import AnswerForm, InputBuilder, as_int32
from sightline.models.prefill import Prefill

BLANK_OF = {
    Feature.OPTION_LOGPROBS: Feature.BLANK_OPTION_LOGPROBS,
    Feature.LETTER_LOGPROBS: Feature.BLANK_LETTER_LOGPROBS,
}
"""What the option features are called when observed under the blank image."""


@dataclass(frozen=True, slots=True)
class _Texts:
    """Option tokens of one row, and each letter's forms; ``letters`` is None where unobservable."""

    row: int
    options: list[list[int]]
    letters: list[set[tuple[int, ...]]] | None


def option_features(
    inputs: InputBuilder,
    form: AnswerForm,
    start: Prefill,
    *,
    examples: Sequence[Example],
    prompts: Sequence[str],
) -> dict[int, dict[Feature, np.ndarray]]:
    """Scores option texts and letters of the rows that have choices, by row.

    An option's score is the log-probability of its text, as it would follow the prompt, and of
    the token that ends the turn, summed; its length counts both. A letter's score is the
    log-probability that the answer begins with the letter: summed over the letter as it follows
    the prompt and its other one-token spellings (by itself, after a space). Letter scores are
    left out where a letter has no spelling of its own in the vocabulary.
    """
    asked = [
        _Texts(
            row,
            [
                [*ids, form.end_id]
                for ids in inputs.continuations(prompt, [c.strip() for c in example.choices], form)
            ],
            _letter_forms(inputs, form, prompt, example.letters),
        )
        for row, (example, prompt) in enumerate(zip(examples, prompts, strict=True))
        if example.choices is not None
    ]
    wanted: dict[tuple[int, tuple[int, ...]], None] = {}
    for texts in asked:
        for ids in texts.options:
            wanted[texts.row, tuple(ids)] = None
        for spelling in set().union(*(texts.letters or ())):
            wanted[texts.row, spelling] = None
    if not wanted:
        return {}
    scored = score(start, [row for row, _ in wanted], [ids for _, ids in wanted])
    total = {key: float(values.sum()) for key, values in zip(wanted, scored, strict=True)}
    found: dict[int, dict[Feature, np.ndarray]] = defaultdict(dict)
    for texts in asked:
        row = texts.row
        found[row][Feature.OPTION_LOGPROBS] = np.array(
            [total[row, tuple(ids)] for ids in texts.options]
        )
        found[row][Feature.OPTION_LENGTHS] = as_int32([len(ids) for ids in texts.options])
        if texts.letters is not None:
            found[row][Feature.LETTER_LOGPROBS] = np.array(
                [
                    min(0.0, np.logaddexp.reduce([total[row, ids] for ids in sorted(spellings)]))
                    for spellings in texts.letters
                ]
            )
    return found


def _letter_forms(
    inputs: InputBuilder, form: AnswerForm, prompt: str, letters: Sequence[str]
) -> list[set[tuple[int, ...]]] | None:
    tokenizer = inputs.tokenizer
    joined = inputs.continuations(prompt, letters, form)
    alone = tokenizer(list(letters), add_special_tokens=False)["input_ids"]
    spaced = tokenizer([f" {letter}" for letter in letters], add_special_tokens=False)["input_ids"]
    forms = [
        {tuple(ids) for ids in (own, *others) if ids is own or len(ids) == 1}
        for own, *others in zip(joined, alone, spaced, strict=True)
    ]
    unknown = tokenizer.unk_token_id
    spelled = [{ids for ids in own if unknown not in ids} for own in forms]
    if not all(spelled) or len(set().union(*spelled)) < sum(map(len, spelled)):
        return None
    return spelled
