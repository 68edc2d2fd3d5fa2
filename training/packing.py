"""Several questions behind one picture: the picture is read once for all of them.

A row is the architecture's prefix with the picture's tokens, then question blocks. Each block sees
the picture and itself, and its positions restart behind the picture, so that every block has the
loss it would have alone.
"""

from dataclasses import dataclass

import torch
from architecture import Architecture
from torch.nn import functional
from transformers import PreTrainedModel

Blocks = list[tuple[list[int], int]]


@dataclass(frozen=True)
class Packed:
    """A batch of rows.

    ``ids`` (b, t); ``image`` (b, t), True at the picture's tokens; ``mask`` (b, 1, t, t), True
    where attended; ``places`` (b, t) positions.
    The rest is one entry per answer token: the flat place that predicts it, the token, its weight,
    and the number of its question.
    """

    ids: torch.Tensor
    image: torch.Tensor
    mask: torch.Tensor
    places: torch.Tensor
    sources: torch.Tensor
    goals: torch.Tensor
    weights: torch.Tensor
    questions: torch.Tensor


def pack(rows: list[Blocks], prefix: list[int], image: int, pad: int) -> Packed:
    """Lays out one row per picture, behind the ids of the architecture's prefix."""
    begin = len(prefix)
    length = begin + max(sum(len(ids) for ids, _ in blocks) for blocks in rows)
    ids = torch.full((len(rows), length), pad)
    ids[:, :begin] = torch.tensor(prefix)
    places = torch.zeros((len(rows), length), dtype=torch.long)
    places[:, :begin] = torch.arange(begin)
    owner = torch.full((len(rows), length), -1)
    owner[:, :begin] = 0
    sources, goals, weights, questions = [], [], [], []
    number = 0
    for row, blocks in enumerate(rows):
        at = begin
        for block, (tokens, start) in enumerate(blocks):
            end = at + len(tokens)
            ids[row, at:end] = torch.tensor(tokens)
            places[row, at:end] = torch.arange(begin, begin + len(tokens))
            owner[row, at:end] = block + 1
            answer = len(tokens) - start
            sources += range(row * length + at + start - 1, row * length + end - 1)
            goals += tokens[start:]
            weights += [answer**-0.5] * answer
            questions += [number] * answer
            number += 1
            at = end
    same = owner[:, :, None] == owner[:, None, :]
    mask = (same | (owner[:, None, :] == 0)) & torch.ones(length, length, dtype=torch.bool).tril()
    mask |= torch.eye(length, dtype=torch.bool)
    return Packed(
        ids,
        ids == image,
        mask[:, None],
        places,
        torch.tensor(sources),
        torch.tensor(goals),
        torch.tensor(weights),
        torch.tensor(questions),
    )


def answer_logits(
    kind: Architecture, model: PreTrainedModel, patches: torch.Tensor, packed: Packed
) -> torch.Tensor:
    """Returns the logits of every answer token, given the vision tower's patches (b, p, d)."""
    embedded = model.get_input_embeddings()(packed.ids)
    seen = kind.part(model, "connector")(patches)
    embedded = embedded.masked_scatter(packed.image[:, :, None], seen)
    states = kind.part(model, "language")(
        inputs_embeds=embedded,
        attention_mask=packed.mask,
        position_ids=packed.places,
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(states.flatten(0, 1)[packed.sources])


def answer_loss(logits: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Weighted mean cross-entropy of the answer tokens."""
    losses = functional.cross_entropy(logits, packed.goals, reduction="none")
    return (losses * packed.weights).sum() / packed.weights.sum()


@torch.no_grad()
def exact(logits: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Returns per question whether the greedy answer is the canonical one."""
    missed = (logits.argmax(-1) != packed.goals).float()
    misses = torch.zeros(int(packed.questions[-1]) + 1, device=logits.device)
    return misses.index_add(0, packed.questions, missed) == 0
