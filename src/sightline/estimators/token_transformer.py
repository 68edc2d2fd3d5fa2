"""The networks that score a laid-out answer. Imports torch: import this module where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sightline.estimators.learning import standardiser
from sightline.estimators.token_codes import few_hot
from sightline.estimators.token_sequence import (
    ANSWER,
    KINDS,
    POSITIONS,
    PROBABILITY,
    QUESTION,
    STATE,
    TokenSequence,
)
from sightline.estimators.token_start import StartInputs, start_numbers, word_rows
from sightline.estimators.token_text import BUCKETS

WIDTH, DEPTH, HEADS = 64, 2, 4
"""The compact transformer: entries of a position, blocks, attention heads."""

SMALL = 0.02
"""Standard deviation that vectors for the kind and the number of a position are drawn with."""

FAR = 10.0
"""Standardised numbers are held within this of 0, so that no state is too large to be scored."""

DROPOUT = 0.1
STATE_DROPOUT = 0.2
"""Share of a state's entries that are left out at a time while training."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Laid-out answers side by side, padded to the longest.

    Attributes:
        text: Rows of the text table, (n, p, g).
        probability: 1 + bin, (n, p).
        state: 1 + row of ``states``, (n, p).
        kind: What each position holds, (n, p).
        number: Number of each position, (n, p).
        mask: Whether a position is there, (n, p).
        states: States of all answers, (s, d).
        image: Mean states over the images, (n, e).
        numbers: What the start reads, but for words, (n, f).
        words: 1 + what `word_rows` calls each word, 0 for none, (n, w).
    """

    text: torch.Tensor
    probability: torch.Tensor
    state: torch.Tensor
    kind: torch.Tensor
    number: torch.Tensor
    mask: torch.Tensor
    states: torch.Tensor
    image: torch.Tensor
    numbers: torch.Tensor
    words: torch.Tensor


def batch(answers: Sequence[TokenSequence], table_rows: int, device: torch.device) -> Batch:
    """Puts laid-out answers side by side.

    Args:
        answers: The answers.
        table_rows: Rows of the text table.
        device: Where to put them.
    """
    first = np.cumsum([0, *(len(answer.states) for answer in answers)])

    def padded(arrays: Sequence[np.ndarray]) -> torch.Tensor:
        return _padded(arrays, device)

    held = [word_rows(answer, table_rows) for answer in answers]
    numbers, words = start_tensors(answers, held, device)
    return Batch(
        text=padded([a.text for a in answers]),
        probability=padded([a.probability for a in answers]),
        state=padded(
            [np.where(a.state > 0, a.state + i, 0) for a, i in zip(answers, first, strict=False)]
        ),
        kind=padded([a.kind for a in answers]),
        number=padded([a.number for a in answers]),
        mask=padded([np.ones(len(a), dtype=np.int64) for a in answers]).bool(),
        states=_float(np.concatenate([a.states for a in answers])).to(device),
        image=_float(np.stack([a.image for a in answers])).to(device),
        numbers=numbers,
        words=words,
    )


def start_tensors(
    answers: Sequence[TokenSequence], words: Sequence[np.ndarray], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the start reads of each answer, as `Batch.numbers` and `Batch.words`.

    Args:
        answers: The answers.
        words: What `word_rows` gives of each.
        device: Where to put them.
    """
    numbers = _float(np.stack([start_numbers(answer) for answer in answers])).to(device)
    return numbers, _padded([1 + own for own in words], device)


class Projection(nn.Module):
    """Linear → LayerNorm of a recorded state, each entry standardised by the training rows.

    Args:
        states: Training states.
        width: Entries of a position.
        size: Size of its entries at first, that of the text embeddings beside them.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, states: np.ndarray, width: int, size: float) -> None:
        super().__init__()
        scale = states.std(axis=0, dtype=np.float64)
        self.register_buffer("mean", _float(states.mean(axis=0, dtype=np.float64)))
        self.register_buffer("scale", _float(np.where(scale > 0, scale, 1.0)))
        self.linear = nn.Linear(states.shape[1], width)
        self.after = nn.LayerNorm(width)
        nn.init.constant_(self.after.weight, size)
        self.dropout = nn.Dropout(STATE_DROPOUT)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Each state as a vector of the positions' width."""
        standardised = ((states - self.mean) / self.scale).clamp(-FAR, FAR)
        return self.after(self.linear(self.dropout(standardised)))


class Block(nn.Module):
    """One block of a transformer, normalised before attention and before its network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.normed = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The positions after this block."""
        rows, places, width = x.shape
        parts = self.attend(self.normed(x)).view(rows, places, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :]
        )
        x = x + self.dropout(self.mix(seen.transpose(1, 2).reshape(rows, places, width)))
        return x + self.dropout(self.network(x))


class Transformer(nn.Module):
    """The compact body, trained from scratch; returns the mean over the positions.

    Positions are normalised before the first block, so that text, probability and state weigh alike
    whatever the size of their vectors.
    """

    def __init__(self, width: int = WIDTH, depth: int = DEPTH, heads: int = HEADS) -> None:
        super().__init__()
        self.number = nn.Embedding(POSITIONS, width)
        nn.init.normal_(self.number.weight, std=SMALL)
        self.before = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.normed = nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """One vector for each answer."""
        x = self.dropout(self.before(x + self.number(inputs.number)))
        for block in self.blocks:
            x = block(x, inputs.mask)
        here = inputs.mask[:, :, None].to(x.dtype)
        return self.normed((x * here).sum(1) / here.sum(1))


class Pretrained(nn.Module):
    """A pretrained text encoder, fed embeddings; returns the state of the first position."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """One vector for each answer."""
        out = self.encoder(inputs_embeds=x, attention_mask=inputs.mask.long())
        return out.last_hidden_state[:, 0]


class Pooled(nn.Module):
    """Means over the positions of each kind, end to end, through one hidden layer."""

    KINDS_POOLED = (QUESTION, ANSWER, PROBABILITY, STATE)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(len(self.KINDS_POOLED) * width, width), nn.GELU(), nn.Dropout(DROPOUT)
        )

    def forward(self, x: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """One vector for each answer."""
        means = []
        for kind in self.KINDS_POOLED:
            here = ((inputs.kind == kind) & inputs.mask)[:, :, None].to(x.dtype)
            means.append((x * here).sum(1) / here.sum(1).clamp(min=1))
        return self.network(torch.cat(means, 1))


class Start(nn.Module):
    """The fitted regression as a part of a scorer; nothing in it is trained any further.

    Args:
        table_rows: Rows of the text table.
        numbers: Numbers that it reads of an answer.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    numbers: torch.Tensor
    words: torch.Tensor
    bias: torch.Tensor

    def __init__(self, table_rows: int, numbers: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("scale", torch.ones(numbers))
        self.register_buffer("numbers", torch.zeros(numbers))
        self.register_buffer("words", torch.zeros(2 * table_rows + 1))
        self.register_buffer("bias", torch.zeros(1))

    def forward(self, numbers: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Log-odds of being right by answer."""
        standardised = ((numbers - self.mean) / self.scale).clamp(-FAR, FAR)
        told = (standardised * self.numbers).sum(1)
        return told + self.words[words].sum(1) + self.bias

    def set_to(
        self, inputs: StartInputs, chosen: np.ndarray, correct: np.ndarray, strength: float
    ) -> None:
        """Fits it on the chosen rows."""
        weights, bias = inputs.fit(chosen, correct, strength)
        count = inputs.numbers.shape[1]
        mean, scale = standardiser(inputs.numbers[chosen])
        self.mean[:] = torch.from_numpy(mean)
        self.scale[:] = torch.from_numpy(scale)
        self.numbers[:] = torch.from_numpy(weights[:count] * scale)
        self.words.zero_()
        self.words[torch.from_numpy(1 + inputs.rows)] = torch.from_numpy(weights[count:]).float()
        self.bias[:] = bias + float(mean @ weights[:count])


class Scorer(nn.Module):
    """From laid-out answers to the log-odds of being right.

    Args:
        table: Text embeddings.
        body: What reads the positions.
        states: Training states that the projection is standardised by, None to read none.
        images: Training mean states over the image, None to read none.
        start: Numbers that a linear start reads of an answer; None for no such start.
    """

    codes: torch.Tensor

    def __init__(
        self,
        table: nn.Embedding,
        body: nn.Module,
        states: np.ndarray | None,
        images: np.ndarray | None,
        start: int | None,
    ) -> None:
        super().__init__()
        width = table.embedding_dim
        self.table = table
        self.kind = nn.Embedding(KINDS, width)
        nn.init.normal_(self.kind.weight, std=SMALL)
        size = float(table.weight.detach().abs().mean())
        self.register_buffer("codes", _float(few_hot(width, size)))
        self.states = None if states is None else Projection(states, width, size)
        self.images = None if images is None else Projection(images, width, size)
        self.body = body
        self.head = nn.Linear(width, 1)
        self.start = None if start is None else Start(table.num_embeddings, start)

    def embed(self, inputs: Batch) -> torch.Tensor:
        """The vector of every position."""
        rows = inputs.text.flatten(0, 1)
        there = (rows > 0).to(self.table.weight.dtype)
        text = functional.embedding_bag(
            (rows - 1).clamp(min=0),
            self.table.weight,
            mode="sum",
            per_sample_weights=there / there.sum(1, keepdim=True).clamp(min=1),
        )
        x = text.view(*inputs.kind.shape, -1) + self.kind(inputs.kind)
        x = x + functional.pad(self.codes, (0, 0, 1, 0))[inputs.probability]
        if self.states is not None:
            x = x + functional.pad(self.states(inputs.states), (0, 0, 1, 0))[inputs.state]
        if self.images is not None:
            at = (inputs.kind == KINDS - 1)[:, :, None].to(x.dtype)
            x = x + self.images(inputs.image)[:, None, :] * at
        return x

    def is_start_alone(self) -> bool:
        """Whether the network adds nothing to the start: its head is as it was before training."""
        return self.start is not None and not bool(self.head.weight.any())

    def from_start(self, numbers: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Log-odds of being right by answer, where the network adds nothing."""
        if self.start is None:
            raise ValueError("a scorer without a start has nothing but its network to score with")
        return self.start(numbers, words) + self.head.bias

    def forward(self, inputs: Batch) -> torch.Tensor:
        """Log-odds of being right by answer."""
        out = self.head(self.body(self.embed(inputs), inputs))[:, 0]
        return out if self.start is None else out + self.start(inputs.numbers, inputs.words)


def compact_table() -> nn.Embedding:
    """Text embeddings of the compact scorer, drawn at random."""
    table = nn.Embedding(BUCKETS, WIDTH)
    nn.init.normal_(table.weight, std=WIDTH**-0.5)
    return table


def _float(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _padded(arrays: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """Whole numbers side by side, filled up with 0 to the longest."""
    longest = max(len(array) for array in arrays)
    out = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype=np.int64)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
    return torch.from_numpy(out).to(device)
