"""Stage 2: the whole model learns to answer questions about the pictures.

    python training/train_vlm.py --out training/runs/seed0 --seed 0

Starts from the tower that train_tower.py left in the same folder, or goes on from the last
checkpoint there. `--steps` may be changed when it goes on: progress is step over steps. With
`--split train-prior --start RUN --language-only` it gives a grounded model a language prior; RUN
may be the directory of a shipped model.
Data depend on (seed, step, process) only. A GPU is used where there is one.
"""

import argparse
import math
import os
import time
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from architecture import ARCHITECTURES, Architecture
from attributes import AttributeHeads, pixels, targets
from mixture import QuestionMixture, severity
from muon import Muon
from packing import Blocks, answer_logits, answer_loss, exact, pack
from parallel import average_gradients, launch
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForImageTextToText
from vocabulary import load_tokenizer

from sightline.data.questions import ask, pictures
from sightline.data.rendering import render
from sightline.data.scenes import BENCHMARK_TYPES, SPLITS, draw_scenes

EXTRA_WEIGHT = 0.15  # of the tower's own losses


def optimisers(kind: Architecture, model, heads, args) -> list[torch.optim.Optimizer]:
    """Muon for the language model's and connector's matrices, AdamW for everything else."""
    language = [*kind.part(model, "language").named_parameters()]
    matrices = [w for n, w in language if w.dim() == 2 and "embed" not in n]
    others = [w for n, w in language if w.dim() != 2 or "embed" in n]
    if not args.language_only:
        connector = [*kind.part(model, "connector").parameters()]
        matrices += [w for w in connector if w.dim() == 2]
        others += [w for w in connector if w.dim() != 2]
    groups = [{"params": others, "lr": args.lr}]
    if not args.language_only:
        vision = [*kind.part(model, "tower").parameters(), *heads.parameters()]
        groups.append({"params": vision, "lr": args.lr / 2})
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    return [Muon(matrices, lr=args.matrix_lr), adam]


def draw(mixture: QuestionMixture, args, step: int, rank: int, n: int) -> tuple:
    """Returns one process's share of a batch."""
    progress = 1.0 if args.language_only else step / args.steps
    rng = np.random.default_rng([args.seed, 2, step, rank])
    difficulty = severity(progress, n, rng)
    if args.language_only:  # a prior is learned where the picture says little
        difficulty = 0.4 + 0.6 * difficulty
    scenes = draw_scenes(args.split, n, rng, difficulty=difficulty)
    images = render(scenes, rng)
    random = Random(int(rng.integers(0, 2**62)))
    rows = [mixture.ids(p, args.questions, progress, random) for p in pictures(scenes)]
    return pixels(images), targets(scenes), rows


def held_out(mixture: QuestionMixture, n: int) -> tuple[torch.Tensor, list[Blocks], list[str]]:
    """Returns calibration pictures with one question of each type, in plain wording."""
    rng = np.random.default_rng(77)
    scenes = draw_scenes("calibration", n, rng)
    images = pixels(render(scenes, rng))
    random = Random(5)
    rows, types = [], []
    for picture in pictures(scenes):
        blocks = []
        for name in (*BENCHMARK_TYPES, "size", "text", "letter"):
            if name == "letter":
                prompt, answer = mixture.letter(random)
            else:
                item = ask(picture, name, random, wordings=3)
                if item is None:
                    continue
                prompt, answer = mixture.formed(item, random, forms=False, text_share=1.0)
            ids = [i for line in prompt.split("\n") for i in mixture.encode(line)]
            ids.append(mixture.assistant)
            blocks.append(([*ids, *mixture.encode(answer), mixture.end], len(ids)))
            types.append(name)
        rows.append(blocks)
    return images, rows, types


def resume(args, kind: Architecture, model, heads, chosen, device: torch.device) -> int:
    """Loads the last checkpoint, or what the run starts from; returns the steps already done."""
    out = Path(args.out)
    last = out / "vlm.pt"
    if not last.exists() and args.start is None:
        state = torch.load(out / "tower.pt", weights_only=True, map_location=device)
        kind.part(model, "tower").load_state_dict(state["tower"])
        heads.load_state_dict(state["heads"])
        return 0
    if not last.exists() and (Path(args.start) / "model.safetensors").exists():
        shipped = AutoModelForImageTextToText.from_pretrained(args.start, dtype=torch.float32)
        model.load_state_dict(shipped.state_dict())
        return 0
    source = last if last.exists() else Path(args.start) / "vlm.pt"
    state = torch.load(source, weights_only=True, map_location=device)
    model.load_state_dict(state["model"])
    heads.load_state_dict(state["heads"])
    if not last.exists():
        return 0
    for optimiser, held in zip(chosen, state["optimisers"], strict=True):
        optimiser.load_state_dict(held)
    return state["step"]


def train(rank: int, processes: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    kind = ARCHITECTURES[args.architecture]
    tokenizer = load_tokenizer(kind)
    prefix = tokenizer.convert_tokens_to_ids(list(kind.prefix))
    mixture = QuestionMixture(tokenizer, yes_share=SPLITS[args.split].yes_share)
    ids = {"pad": tokenizer.pad_token_id, "image": mixture.image, "end": mixture.end}
    model = kind.build(len(tokenizer), ids, seed=args.seed).to(device)
    heads = AttributeHeads(kind.width).to(device)
    chosen = optimisers(kind, model, heads, args)
    first = [[group["lr"] for group in o.param_groups] for o in chosen]
    saved = out / "vlm.pt"
    begin = resume(args, kind, model, heads, chosen, device)
    trained = [p for o in chosen for g in o.param_groups for p in g["params"] if p.requires_grad]
    test_images, test_rows, test_types = held_out(mixture, args.held_out)
    began = time.time()
    for step in range(begin, args.steps):
        progress = step / args.steps
        warm = min(1.0, (step + 1) / 100)
        decay = warm * max(0.5 + 0.5 * math.cos(math.pi * progress), 0.01)
        for optimiser, rates in zip(chosen, first, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * decay
        images, wanted, rows = draw(mixture, args, step, rank, args.batch // processes)
        packed = pack(rows, prefix, mixture.image, ids["pad"])
        if device.type == "cuda":
            images = images.to(device)
            wanted = {name: value.to(device) for name, value in wanted.items()}
            packed = type(packed)(*(v.to(device) for v in vars(packed).values()))
        with torch.set_grad_enabled(not args.language_only):
            patches = kind.patches(model, images)
        logits = answer_logits(kind, model, patches, packed)
        answers = answer_loss(logits, packed)
        loss = answers
        if not args.language_only:
            loss = answers + EXTRA_WEIGHT * heads.loss(patches, wanted)
        for optimiser in chosen:
            optimiser.zero_grad()
        loss.backward()
        average_gradients(trained, processes)
        clip_grad_norm_(trained, 2.0)
        for optimiser in chosen:
            optimiser.step()
        done = step + 1
        if rank == 0 and (done % args.every == 0 or done == args.steps):
            figures = measure(kind, model, prefix, ids, test_images, test_rows, test_types)
            speed = (done - begin) * args.batch / (time.time() - began)
            shown = " ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"step {done} loss {answers.item():.3f} {speed:.0f} img/s | {shown}", flush=True)
            state = {
                "model": model.state_dict(),
                "heads": heads.state_dict(),
                "optimisers": [o.state_dict() for o in chosen],
                "step": done,
            }
            torch.save(state, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)


@torch.no_grad()
def measure(kind: Architecture, model, prefix, ids, images, rows, types) -> dict[str, float]:
    """Exact-match accuracy by question type on the held-out pictures."""
    device = next(model.parameters()).device
    hits: list[bool] = []
    for at in range(0, len(rows), 25):
        packed = pack(rows[at : at + 25], prefix, ids["image"], ids["pad"])
        if device.type == "cuda":
            packed = type(packed)(*(v.to(device) for v in vars(packed).values()))
        seen = images[at : at + 25].to(device)
        logits = answer_logits(kind, model, kind.patches(model, seen), packed)
        hits += exact(logits, packed).tolist()
    names = list(dict.fromkeys(types))
    figures = {
        name: float(np.mean([h for h, t in zip(hits, types, strict=True) if t == name]))
        for name in names
    }
    figures["all"] = float(
        np.mean([h for h, t in zip(hits, types, strict=True) if t in BENCHMARK_TYPES])
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--start", help="folder of a trained run, or of a shipped model")
    parser.add_argument("--split", default="train")
    parser.add_argument("--language-only", action="store_true", help="leave the vision tower as is")
    parser.add_argument("--architecture", choices=tuple(ARCHITECTURES), default="llava")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=40, help="pictures a step")
    parser.add_argument("--questions", type=int, default=8, help="questions a picture")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--matrix-lr", type=float, default=0.02)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--held-out", type=int, default=150, help="calibration pictures")
    launch(train, parser.parse_args().processes, parser.parse_args())
