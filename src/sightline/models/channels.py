"""The channels of the audit: what a model holds of question, picture and answer, at kept layers.

One pass of the vision encoder serves two prompts, the one that was asked and the open one (the same
question without its options); behind the prefill of each, options and answers are read by
continuing its cache. An answer's state is the mean over the positions at which its tokens are read,
the token that ends the turn among them, the first `POOLED_TOKENS` at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from sightline.core.errors import ModelError, UsageError
from sightline.core.features import Feature
from sightline.core.text import answer_form
from sightline.core.types import Example
from sightline.data.prompts import PromptStyle, user_text
from sightline.models.asking import reply_logprobs, reply_spellings
from sightline.models.decoding import Sampling, decode, log_probabilities, padded_tokens
from sightline.models.inputs import AnswerForm, InputBuilder
from sightline.models.options import OptionTexts
from sightline.models.prefill import Prefill

if TYPE_CHECKING:
    from PIL.Image import Image

POOLED_TOKENS = 32
"""Tokens of an answer that its state is averaged over at most, as published."""

YES_NO = ("yes", "no")

Tokens = tuple[int, ...]


@dataclass(slots=True)
class AnswerStates:
    """Scores continuations of one prefill and keeps what was found, by row and tokens.

    Attributes:
        pooled: Mean state over the continuation, (l, d).
        total: Its log-probability, in nats.
    """

    pooled: dict[tuple[int, Tokens], torch.Tensor] = field(default_factory=dict)
    total: dict[tuple[int, Tokens], float] = field(default_factory=dict)

    def score(
        self, start: Prefill, rows: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> list[np.ndarray]:
        """As `sightline.models.decoding.score`; every token is read, the last one too."""
        index = torch.as_tensor(list(rows), device=start.log_probs.device)
        padded = padded_tokens(continuations).to(index.device)
        lengths = torch.as_tensor([len(ids) for ids in continuations], device=index.device)
        place = torch.arange(padded.shape[1], device=index.device)
        pool = place < lengths[:, None].clamp_max(POOLED_TOKENS)
        outputs = start.continued(index, room=padded.shape[1]).feed(padded, pool=pool)
        scored = log_probabilities(start, index, padded, outputs.logits[:, :-1], lengths.tolist())
        means = () if outputs.pooled is None else outputs.pooled
        for row, ids, mean, found in zip(rows, continuations, means, scored, strict=True):
            self.pooled[row, tuple(ids)] = mean
            self.total[row, tuple(ids)] = float(found.sum())
        return scored


@dataclass(frozen=True, slots=True)
class ChannelReader:
    """Reads the channels of one model.

    Attributes:
        inputs: Builds its prompts.
        form: How an answer follows a prompt.
        style: Its wordings.
        eos_ids: Its end tokens.
        prefill: Reads prompts and images once, keeping states of layers.
    """

    inputs: InputBuilder
    form: AnswerForm
    style: PromptStyle
    eos_ids: tuple[int, ...]
    prefill: Callable[[Sequence[str], Sequence[tuple[Image, ...]], tuple[int, ...]], Prefill]

    def asked(
        self,
        start: Prefill,
        states: AnswerStates,
        examples: Sequence[Example],
        answers: Sequence[Sequence[int]],
        given: Sequence[Sequence[int] | None],
        options: Sequence[OptionTexts],
    ) -> list[dict[Feature, torch.Tensor]]:
        """Channels of the prompt that was asked.

        Args:
            start: Its prefill.
            states: Holds the states of options and given answers already.
            examples: One per row.
            answers: Tokens of the greedy answers.
            given: Tokens of answers from elsewhere, None where there are none.
            options: Tokens of the options of the rows that have some.
        """
        states.score(start, range(len(answers)), answers)
        texts = {own.row: own.options for own in options}
        found = []
        for row, example in enumerate(examples):
            open_asked = example.choices is None
            channels = {
                Feature.CTX_OPEN if open_asked else Feature.CTX_MCQ: _hidden(start, row),
                Feature.ANS_OPEN if open_asked else Feature.ANS_MCQ_FREE: states.pooled[
                    row, tuple(answers[row])
                ],
            }
            own_given = given[row]
            if row in texts:
                totals = {ids: states.total[row, ids] for ids in texts[row]}
                best = max(totals, key=totals.__getitem__)
                channels[Feature.ANS_MCQ] = states.pooled[row, best]
            if own_given is not None:
                channels[Feature.ANS_FIXED] = states.pooled[row, tuple(own_given)]
            found.append(channels)
        return found

    def opened(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        layers: tuple[int, ...],
    ) -> list[dict[Feature, torch.Tensor]]:
        """Channels of the open prompt, of questions that were asked with their options."""
        prompts = [
            self.inputs.prompt(
                user_text(replace(example, choices=None), self.style),
                len(own),
                where=f"Example {example.id!r}",
            )
            for example, own in zip(examples, images, strict=True)
        ]
        start = self.prefill(prompts, images, layers)
        answers, _, _ = decode(
            start,
            uniforms=np.empty((len(prompts), 0, 0)),
            max_new_tokens=POOLED_TOKENS,
            eos_ids=self.eos_ids,
            sampling=Sampling(1.0, 1.0),
        )
        states = AnswerStates()
        states.score(start, range(len(answers)), [row.ids for row in answers])
        return [
            {
                Feature.CTX_OPEN: _hidden(start, row),
                Feature.ANS_OPEN: states.pooled[row, tuple(answer.ids)],
            }
            for row, answer in enumerate(answers)
        ]

    def yes_no(
        self, start: Prefill, examples: Sequence[Example], prompts: Sequence[str]
    ) -> list[dict[Feature, np.ndarray]]:
        """Log-probabilities of yes and no where the question is answered by them, in nats."""
        spellings = [
            reply_spellings(self.inputs, self.form, prompt, YES_NO)
            if answer_form(example) == "yes_no"
            else None
            for example, prompt in zip(examples, prompts, strict=True)
        ]
        return [
            {} if scores is None else {Feature.YES_NO_LOGPROBS: scores}
            for scores in reply_logprobs(start, spellings)
        ]


def require_layers(layers: Sequence[int]) -> None:
    """Raises unless there are layers to keep channels of.

    Raises:
        UsageError: There are none.
    """
    if not layers:
        raise UsageError(
            "Channels without layers; at least one layer is required to keep their states. Give "
            "--layers 0.25,0.5,0.75,1.0."
        )


def _hidden(start: Prefill, row: int) -> torch.Tensor:
    if start.hidden is None:
        raise ModelError(
            "The model shows no hidden states; they are required for channels. Collect without "
            "--channels."
        )
    return start.hidden[row]
