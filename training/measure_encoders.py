"""Measures how well sentence vectors tell the same meaning from another one, on short answers.

    python training/measure_encoders.py [--encoder words] [--transformer DIRECTORY]

Pairs are two references of one question (same meaning) or references of two questions of one type
with no reference in common. FRAMES were written after the encoder was finished; `--framed` is the
share of answers put into one of them. Prints AUROC of the cosine, pooled and by question type.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from sightline.data.scenes import BENCHMARK_TYPES, generate
from sightline.estimators.encoders import ENCODERS
from sightline.metrics.discrimination import auroc

FRAMES = (
    "Well, {x}.",
    "I'd go with {x}",
    "Based on what is visible, {x}",
    "{x} would be my answer",
    "Definitely {x}",
    "To me this is {x}",
    "The correct response is {x}",
)
Pair = tuple[str, str, str, bool]
Embed = Callable[[Sequence[str]], np.ndarray]


def answer_pairs(pictures: int, framed: float, seed: int = 3) -> list[Pair]:
    """Returns (question type, text, text, whether they mean the same)."""
    types = tuple(name for name in BENCHMARK_TYPES if name != "multiple_choice")
    random = Random(seed)
    items: dict[str, list] = {}
    for item in generate("test", pictures, seed, 4, types=types).items:
        items.setdefault(item.question_type, []).append(item)

    def said(text: str) -> str:
        return random.choice(FRAMES).format(x=text) if random.random() < framed else text

    pairs = []
    for name, members in items.items():
        for item in members:
            own = list(item.references)
            left, right = random.sample(own, 2) if len(own) > 1 else (own[0], own[0])
            pairs.append((name, said(left), said(right), True))
            others = [o for o in random.sample(members, 10) if not {*o.references} & {*own}]
            if others:
                pairs.append((name, said(left), said(random.choice(others[0].references)), False))
    return pairs


def transformer(directory: str) -> Embed:
    """Mean-pooled sentence vectors of a transformers encoder."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> np.ndarray:
        vectors = []
        for at in range(0, len(texts), 128):
            batch = tokenizer(list(texts[at : at + 128]), return_tensors="pt", padding=True)
            weight = batch["attention_mask"][..., None]
            pooled = (model(**batch).last_hidden_state * weight).sum(1) / weight.sum(1)
            vectors.append(torch.nn.functional.normalize(pooled, dim=-1))
        return torch.cat(vectors).double().numpy()

    return embed


def figures(embed: Embed, pairs: Sequence[Pair]) -> dict[str, float]:
    """AUROC of the cosine over all pairs and within each question type."""
    texts = sorted({text for pair in pairs for text in pair[1:3]})
    place = {text: i for i, text in enumerate(texts)}
    vectors = embed(texts)
    cosine = np.array([vectors[place[a]] @ vectors[place[b]] for _, a, b, _ in pairs])
    same = np.array([float(pair[3]) for pair in pairs])
    kinds = np.array([pair[0] for pair in pairs])
    found = {"all": auroc(cosine, same)}
    found |= {
        kind: auroc(cosine[kinds == kind], same[kinds == kind]) for kind in sorted(set(kinds))
    }
    return {str(kind): round(value, 3) for kind, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="words")
    parser.add_argument("--transformer", help="directory of an encoder to compare with")
    parser.add_argument("--pictures", type=int, default=1000)
    args = parser.parse_args()
    encoders: dict[str, Embed] = {args.encoder: ENCODERS[args.encoder].embed}
    if args.transformer:
        encoders[args.transformer] = transformer(args.transformer)
    results = {}
    for framed in (0.0, 0.5, 1.0):
        pairs = answer_pairs(args.pictures, framed)
        results[f"framed {framed}"] = {
            "pairs": len(pairs),
            **{name: figures(embed, pairs) for name, embed in encoders.items()},
        }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
