"""What the vision tower is asked for, patch by patch, before and while questions are trained."""

import numpy as np
import torch
from architecture import GRID, PATCH
from torch import nn
from torch.nn import functional

from sightline.data.rendering import CELL, COLORS, DIGIT, EMPTY, SHAPES, WORDS, Scenes

PER_CELL = CELL // PATCH
WORD_KIND = DIGIT + 1
KINDS = len(SHAPES) + 3  # shapes, digit, word, empty
HEADS = {
    "kind": KINDS,
    "color": len(COLORS),
    "size": 2,
    "digit": 10,
    "word": len(WORDS),
    "row": 3,
    "column": 3,
}
NORMAL = (
    torch.tensor([0.48145466, 0.4578275, 0.40821073]),
    torch.tensor([0.26862954, 0.26130258, 0.27577711]),
)


def pixels(images: np.ndarray) -> torch.Tensor:
    """Scales and normalises a batch as the image processor does."""
    mean, spread = NORMAL
    scaled = torch.from_numpy(images).float() / 255.0
    return ((scaled - mean) / spread).permute(0, 3, 1, 2).contiguous()


def targets(scenes: Scenes) -> dict[str, torch.Tensor]:
    """Returns each attribute for each patch, -100 where it does not apply."""
    kind = scenes.kind.copy()
    in_word = (scenes.word >= 0)[:, None] & (np.arange(9)[None] // 3 == scenes.word_row[:, None])
    there = kind != EMPTY
    kind = np.where(in_word, WORD_KIND, np.where(there, kind, KINDS - 1))
    cells = {
        "kind": kind,
        "color": np.where(there, scenes.color, -100),
        "size": np.where(there & (scenes.kind != DIGIT), scenes.size, -100),
        "digit": np.where(scenes.kind == DIGIT, scenes.digit, -100),
        "word": np.where(in_word, scenes.word[:, None], -100),
        "row": np.broadcast_to(np.arange(9) // 3, kind.shape),
        "column": np.broadcast_to(np.arange(9) % 3, kind.shape),
    }
    return {name: torch.from_numpy(_spread(values)) for name, values in cells.items()}


def _spread(cells: np.ndarray) -> np.ndarray:
    grid = cells.reshape(-1, 3, 3).repeat(PER_CELL, axis=1).repeat(PER_CELL, axis=2)
    return np.ascontiguousarray(grid.reshape(len(cells), GRID * GRID)).astype(np.int64)


class AttributeHeads(nn.Module):
    """One linear read-out per attribute on every patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in HEADS.items()})

    def forward(self, patches: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the logits of every attribute for patches (n, p, d)."""
        return {name: head(patches) for name, head in self.heads.items()}

    def loss(self, patches: torch.Tensor, wanted: dict[str, torch.Tensor]) -> torch.Tensor:
        """Sum of the mean losses; background counts 0.3, rows and columns 0.2."""
        total = patches.new_zeros(())
        for name, logits in self(patches).items():
            goal = wanted[name].flatten()
            if not (goal >= 0).any():
                continue
            weight = None
            if name == "kind":
                weight = torch.ones(KINDS)
                weight[-1] = 0.3
            loss = functional.cross_entropy(
                logits.flatten(0, 1), goal, weight=weight, ignore_index=-100
            )
            total = total + loss * (0.2 if name in ("row", "column") else 1.0)
        return total


@torch.no_grad()
def read_outs(
    heads: AttributeHeads, patches: torch.Tensor, wanted: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Accuracy of each attribute, a cell's patches voting; objects only."""
    figures = {}
    for name, logits in heads(patches).items():
        n = len(logits)
        votes = logits.log_softmax(-1).reshape(n, 3, PER_CELL, 3, PER_CELL, -1).sum((2, 4))
        goal = wanted[name].reshape(n, 3, PER_CELL, 3, PER_CELL)[:, :, 0, :, 0]
        shapes = wanted["kind"].reshape(n, 3, PER_CELL, 3, PER_CELL)[:, :, 0, :, 0]
        chosen = goal >= 0 if name != "kind" else shapes < len(SHAPES)
        if chosen.any():
            figures[name] = (votes.argmax(-1) == goal)[chosen].float().mean().item()
    return figures
