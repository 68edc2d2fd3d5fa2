"""Asking a model about the answer it has just given, under the same images.

A follow-up question is a new prompt in the model's own chat template, with the question and the
answer as text; it is decoded greedily, and where the replies are fixed, each of them is scored as
the beginning of the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.core.condition_names import asked_condition
from sightline.core.errors import ModelError
from sightline.core.features import FIXED_REPLIES, Feature
from sightline.core.types import Example, Record
from sightline.data.prompt_forms import FOLLOW_UP_FORMS, follow_up_of
from sightline.data.prompts import PromptStyle, follow_up_text
from sightline.models.answers import AnswerReader
from sightline.models.decoding import Sampling, decode, score
from sightline.models.inputs import AnswerForm, InputBuilder
from sightline.models.prefill import Prefill

if TYPE_CHECKING:
    from PIL.Image import Image

Spellings = list[set[tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one model follow-up questions.

    Attributes:
        inputs: Builds its prompts.
        form: How an answer follows a prompt.
        style: Its wordings, and which questions it can read.
        reader: Reads its replies.
        eos_ids: Its end tokens.
        prefill: Reads prompts and images once.
    """

    inputs: InputBuilder
    form: AnswerForm
    style: PromptStyle
    reader: AnswerReader
    eos_ids: tuple[int, ...]
    prefill: Callable[[Sequence[str], Sequence[tuple[Image, ...]]], Prefill]

    def ask(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        answers: Sequence[str],
    ) -> list[list[Record]]:
        """Asks every example each question about its answer.

        Returns:
            The replies of each example, in the order of the names. Missing are questions that the
            model was not trained to read, and those about an answer that spells one of the
            model's special tokens.
        """
        found: list[list[Record]] = [[] for _ in examples]
        for name in filter(self.style.can_ask, names):
            prompts = [
                self._prompt(name, example, answer, len(own))
                for example, answer, own in zip(examples, answers, images, strict=True)
            ]
            rows = [row for row, prompt in enumerate(prompts) if prompt is not None]
            if rows:
                replies = self._reply(
                    name,
                    [examples[row] for row in rows],
                    [prompt for prompt in prompts if prompt is not None],
                    [images[row] for row in rows],
                )
                for row, reply in zip(rows, replies, strict=True):
                    found[row].append(reply)
        return found

    def _prompt(self, name: str, example: Example, answer: str, images: int) -> str | None:
        text = follow_up_text(name, example, answer, self.style)
        try:
            return self.inputs.prompt(text, images, where=f"The answer to {example.id!r}")
        except ModelError:
            return None  # the answer spells a special token: its row goes without this reply

    def _reply(
        self,
        name: str,
        examples: Sequence[Example],
        prompts: Sequence[str],
        images: Sequence[tuple[Image, ...]],
    ) -> list[Record]:
        question, _ = follow_up_of(name)
        start = self.prefill(prompts, images)
        decoded, _, _ = decode(
            start,
            uniforms=np.empty((len(prompts), 0, 0)),
            max_new_tokens=FOLLOW_UP_FORMS[question].max_new_tokens,
            eos_ids=self.eos_ids,
            sampling=Sampling(1.0, 1.0),
        )
        scores = reply_logprobs(
            start,
            [
                reply_spellings(self.inputs, self.form, prompt, FIXED_REPLIES.get(question, ()))
                for prompt in prompts
            ],
        )
        return [
            Record(
                example,
                condition=asked_condition(name),
                greedy=self.reader.generation(row, prompt),
                features={} if own is None else {Feature.REPLY_LOGPROBS: own},
            )
            for example, prompt, row, own in zip(examples, prompts, decoded, scores, strict=True)
        ]


def reply_spellings(
    inputs: InputBuilder, form: AnswerForm, prompt: str, replies: Sequence[str]
) -> Spellings | None:
    """Tokens of each reply in all its spellings, none of which begins another.

    A reply is spelled as declared, with a capital letter and in capitals: each as it follows the
    prompt, and by itself or after a space where that is one token.

    Returns:
        None where there are no replies, one of them has no spelling in the vocabulary, or two
        share one, so that their probabilities could not be told apart.
    """
    tokenizer = inputs.tokenizer
    found: Spellings = []
    for reply in replies:
        cases = list(dict.fromkeys((reply, reply.capitalize(), reply.upper())))
        following = inputs.continuations(prompt, cases, form)
        alone = tokenizer([*cases, *(f" {c}" for c in cases)], add_special_tokens=False)
        spelled = {tuple(ids) for ids in following}
        spelled |= {tuple(ids) for ids in alone["input_ids"] if len(ids) == 1}
        known = {ids for ids in spelled if tokenizer.unk_token_id not in ids}
        found.append({ids for ids in known if not _begins(known, ids)})
    every = set().union(*found)
    apart = sum(map(len, found)) == len(every) and not any(_begins(every, ids) for ids in every)
    return found if found and all(found) and apart else None


def reply_logprobs(
    start: Prefill, spellings: Sequence[Spellings | None]
) -> list[np.ndarray | None]:
    """Log-probability that the reply begins with each of the fixed ones, in nats, by row."""
    wanted = [
        (row, ids) for row, own in enumerate(spellings) for ids in sorted(set().union(*(own or ())))
    ]
    single = [one for one in wanted if len(one[1]) == 1]
    longer = [one for one in wanted if len(one[1]) > 1]
    # Every scored row copies its prompt's cache: no more at once than there are prompts.
    parts = [longer[i : i + len(spellings)] for i in range(0, len(longer), len(spellings))]
    total: dict[tuple[int, tuple[int, ...]], float] = {}
    for part in filter(None, (single, *parts)):
        scored = score(start, [row for row, _ in part], [ids for _, ids in part])
        total |= {key: float(values.sum()) for key, values in zip(part, scored, strict=True)}
    return [
        None
        if own is None
        else np.array(
            [
                min(0.0, np.logaddexp.reduce([total[row, ids] for ids in sorted(reply)]))
                for reply in own
            ]
        )
        for row, own in enumerate(spellings)
    ]


def _begins(known: set[tuple[int, ...]], ids: tuple[int, ...]) -> bool:
    """Whether another of the sequences is a beginning of this one."""
    return any(ids[:n] in known for n in range(1, len(ids)))
