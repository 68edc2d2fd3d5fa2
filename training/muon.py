"""Muon in float32: momentum, orthogonalised by Newton-Schulz steps (Jordan et al., 2024)."""

from collections import defaultdict

import torch


class Muon(torch.optim.Optimizer):
    """For matrices inside the network; matrices of one shape are orthogonalised together."""

    def __init__(self, parameters, lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Takes one step."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                held = state["momentum"]
                held.lerp_(weight.grad, 1 - group["momentum"])
                shapes[weight.shape].append((weight, weight.grad.lerp(held, group["momentum"])))
            for shape, pairs in shapes.items():
                updates = orthogonalised(torch.stack([update for _, update in pairs]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for (weight, _), update in zip(pairs, updates, strict=True):
                    weight.add_(update, alpha=-group["lr"] * scale)


def orthogonalised(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Returns matrices (b, rows, columns) with all singular values brought near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x
