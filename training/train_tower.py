"""Stage 1: the vision tower learns what is in each cell, without any words.

    python training/train_tower.py --out training/runs/seed0 --seed 0

Run again with the same arguments it goes on from its last checkpoint. Two single-thread processes
share every batch; `--processes 1` runs alone. Data depend on (seed, step, process) only.
"""

import argparse
import math
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from architecture import ARCHITECTURES
from attributes import AttributeHeads, pixels, read_outs, targets
from parallel import average_gradients, launch
from torch.nn.utils import clip_grad_norm_

from sightline.data.rendering import render
from sightline.data.scenes import draw_scenes

PLACEHOLDER_IDS = {"pad": 0, "image": 1, "end": 2}


def batch(seed: int, step: int, rank: int, n: int, progress: float) -> tuple:
    rng = np.random.default_rng([seed, 1, step, rank])
    ceiling = min(1.0, 0.2 + 1.6 * progress)
    scenes = draw_scenes("train", n, rng, difficulty=rng.uniform(0, ceiling, n))
    return pixels(render(scenes, rng)), targets(scenes)


def train(rank: int, processes: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    kind = ARCHITECTURES[args.architecture]
    model, heads = kind.build(8, PLACEHOLDER_IDS, seed=args.seed), AttributeHeads(kind.width)
    tower = kind.part(model, "tower")
    parameters = [p for p in (*tower.parameters(), *heads.parameters()) if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02)
    saved, start = out / "tower.pt", 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        tower.load_state_dict(state["tower"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    began = time.time()
    for step in range(start, args.steps):
        progress = step / args.steps
        warm = min(1.0, (step + 1) / 100)
        for group in optimiser.param_groups:
            group["lr"] = args.lr * warm * (0.5 + 0.5 * math.cos(math.pi * progress))
        images, wanted = batch(args.seed, step, rank, args.batch // processes, progress)
        patches = kind.patches(model, images)
        loss = heads.loss(patches, wanted)
        optimiser.zero_grad()
        loss.backward()
        average_gradients(parameters, processes)
        clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        done = step + 1
        if rank == 0 and (done % 250 == 0 or done == args.steps):
            rng = np.random.default_rng([99, done])
            scenes = draw_scenes("calibration", 500, rng, difficulty=rng.uniform(0, 1, 500))
            with torch.no_grad():
                patches = kind.patches(model, pixels(render(scenes, rng)))
            figures = read_outs(heads, patches, targets(scenes))
            speed = (done - start) * args.batch / (time.time() - began)
            shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
            print(f"step {done} loss {loss.item():.3f} {speed:.0f} img/s | {shown}", flush=True)
            state = {
                "tower": tower.state_dict(),
                "heads": heads.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": done,
            }
            torch.save(state, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--architecture", choices=tuple(ARCHITECTURES), default="llava")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    launch(train, arguments.processes, arguments)
