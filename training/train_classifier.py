"""Zero-shot classifiers: a tiny CLIP, a tiny SigLIP, or the stronger image-only encoder.

    python training/train_classifier.py clip --out training/runs/clip0
    python training/train_classifier.py siglip --out training/runs/siglip0
    python training/train_classifier.py encoder --out training/runs/encoder0

Each writes a model directory in half precision to OUT/model when it is done and prints its gates.
Run again with the same arguments it goes on from its last checkpoint. The unseen combinations of
shape and colour are never shown. The encoder is trained on attributes, not on class names.
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
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

from sightline.data.objects import (
    CLASSES,
    DIGIT_CLASSES,
    SHAPE_CLASSES,
    TEMPLATES,
    UNSEEN_CLASSES,
    draw_objects,
    generate_objects,
)
from sightline.data.rendering import COLORS, SHAPES

SIDE, LENGTH = 48, 16
SEEN = [i for i, name in enumerate(CLASSES) if name not in UNSEEN_CLASSES]
MEAN, SPREAD = 0.5, 0.25
DIGIT_SHARE = 0.3  # of the training pictures: handwriting is learned last


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the class names and templates."""
    words = {word for name in (*CLASSES, *TEMPLATES) for word in name.split()} - {"{}"}
    special = ["<pad>", "<unk>", "<start>", "<end>"]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )


def draw_labels(rng: np.random.Generator, n: int) -> np.ndarray:
    """Classes of a training batch: a fixed share of digits, all seen classes alike otherwise."""
    digits = [label for label in SEEN if label >= len(SHAPE_CLASSES)]
    shapes = [label for label in SEEN if label < len(SHAPE_CLASSES)]
    return np.where(rng.random(n) < DIGIT_SHARE, rng.choice(digits, n), rng.choice(shapes, n))


def build(kind: str, seed: int, vocabulary: int) -> nn.Module:
    torch.manual_seed(seed)
    if kind == "encoder":
        return CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=SIDE,
                patch_size=8,
            )
        )
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": vocabulary,
        "max_position_embeddings": LENGTH,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    if kind == "clip":
        return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=64))
    text["projection_size"] = 64
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-4.0)
    return model


def pixels(images: np.ndarray) -> torch.Tensor:
    scaled = torch.from_numpy(images).float() / 255.0
    return ((scaled - MEAN) / SPREAD).permute(0, 3, 1, 2).contiguous()


def texts(tokenizer: PreTrainedTokenizerFast, template: str) -> dict[str, torch.Tensor]:
    """Every class in one template; padded to full length, as SigLIP reads its last place."""
    prompts = [template.format(name) for name in CLASSES]
    return dict(tokenizer(prompts, padding="max_length", max_length=LENGTH, return_tensors="pt"))


def logits(kind: str, model: nn.Module, images: torch.Tensor, words: dict) -> torch.Tensor:
    if kind == "siglip":
        words = {"input_ids": words["input_ids"]}
    return model(pixel_values=images, **words).logits_per_image


def attributes(labels: np.ndarray) -> dict[str, torch.Tensor]:
    """Shape or digit, colour and size of each class, -100 where it has none."""
    digit = labels >= len(SHAPE_CLASSES)
    shape = labels // (2 * len(COLORS))
    kind = np.where(digit, len(SHAPES) + labels - len(SHAPE_CLASSES), shape)
    color = np.where(digit, -100, labels // 2 % len(COLORS))
    size = np.where(digit, -100, labels % 2)
    return {n: torch.from_numpy(v) for n, v in (("kind", kind), ("color", color), ("size", size))}


class ReadOuts(nn.Module):
    """What the image-only encoder is trained on."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"kind": len(SHAPES) + 10, "color": len(COLORS), "size": 2}
        self.heads = nn.ModuleDict({name: nn.Linear(128, n) for name, n in sizes.items()})

    def loss(self, pooled: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        """Sum of the mean losses."""
        wanted = attributes(labels)
        return sum(
            functional.cross_entropy(head(pooled), wanted[name])
            for name, head in self.heads.items()
        )


def step_loss(kind, model, heads, words, labels, images) -> torch.Tensor:
    if kind == "encoder":
        return heads.loss(model(pixel_values=images).pooler_output, labels)
    scores = logits(kind, model, images, words)[:, SEEN]
    place = torch.tensor([SEEN.index(label) for label in labels])
    if kind == "clip":
        return functional.cross_entropy(scores, place)
    signs = -torch.ones_like(scores)
    signs[torch.arange(len(place)), place] = 1.0
    return -functional.logsigmoid(signs * scores).sum(1).mean()


@torch.no_grad()
def gates(kind: str, model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Top-1 on test pictures, on unseen combinations, on held-out digits; prototypes."""
    model.eval()
    figures = {}
    sets = {
        "top1": generate_objects("test", 2500),
        "unseen": generate_objects("test", 800, 1, classes=UNSEEN_CLASSES),
        "digits": generate_objects("test", 600, 2, classes=DIGIT_CLASSES),
        "shifted": generate_objects("shifted", 1000, 3),
    }
    if kind == "encoder":
        support = np.repeat(SEEN, 16)
        shots = draw_objects("train", support, np.random.default_rng(5))
        vectors = functional.normalize(model(pixels(shots.images)).pooler_output, dim=-1)
        prototypes = vectors.reshape(len(SEEN), 16, -1).mean(1)
        prototypes = functional.normalize(prototypes - prototypes.mean(0), dim=-1)
        middle = vectors.mean(0)
        for name in ("top1", "shifted"):
            seen = functional.normalize(model(pixels(sets[name].images)).pooler_output, dim=-1)
            guess = (functional.normalize(seen - middle, dim=-1) @ prototypes.T).argmax(-1)
            right = np.asarray(SEEN)[guess.numpy()] == sets[name].labels
            figures["prototype " + name] = float(right.mean())
        return figures
    words = texts(tokenizer, TEMPLATES[0])
    for name, batch in sets.items():
        scores = logits(kind, model, pixels(batch.images), words)
        if name == "digits":
            scores[:, : len(SHAPE_CLASSES)] = -torch.inf
        figures[name] = float((scores.argmax(-1).numpy() == batch.labels).mean())
    model.train()
    return figures


def export(kind: str, model: nn.Module, tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    model.half().save_pretrained(target)
    settings = {
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [MEAN] * 3,
        "image_std": [SPREAD] * 3,
    }
    if kind == "siglip":
        SiglipProcessor(SiglipImageProcessor(**settings), tokenizer).save_pretrained(target)
        return
    pictures = CLIPImageProcessor(do_center_crop=False, **settings)
    if kind == "encoder":
        pictures.save_pretrained(target)
    else:
        CLIPProcessor(pictures, tokenizer).save_pretrained(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("clip", "siglip", "encoder"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=15000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model, heads = build(args.kind, args.seed, len(tokenizer)), ReadOuts()
    parameters = [*model.parameters(), *(heads.parameters() if args.kind == "encoder" else ())]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.05)
    saved, begin = args.out / "classifier.pt", 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        begin = state["step"]
    prompts = [texts(tokenizer, template) for template in TEMPLATES]
    began = time.time()
    for step in range(begin, args.steps):
        rate = min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / args.steps))
        for group in optimiser.param_groups:
            group["lr"] = args.lr * rate
        rng = np.random.default_rng([args.seed, 3, step])
        hardest = min(1.0, 0.3 + 1.5 * step / args.steps)
        batch = draw_objects("train", draw_labels(rng, args.batch), rng, hardest=hardest)
        loss = step_loss(
            args.kind,
            model,
            heads,
            prompts[step % len(prompts)],
            batch.labels,
            pixels(batch.images),
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        done = step + 1
        if done % 1000 == 0 or done == args.steps:
            figures = gates(args.kind, model, tokenizer)
            shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
            speed = (done - begin) * args.batch / (time.time() - began)
            print(f"step {done} loss {loss.item():.3f} {speed:.0f} img/s | {shown}", flush=True)
            state = {
                "model": model.state_dict(),
                "heads": heads.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": done,
            }
            torch.save(state, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)
    export(args.kind, model, tokenizer, args.out / "model")


if __name__ == "__main__":
    main()
