"""Measures how far a trained run can answer each prompt form, with and without its picture.

    python training/measure_forms.py training/runs/seed0

Test pictures; an answer counts where it equals the canonical one, greedily, token by token.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np
import torch
from architecture import ARCHITECTURES
from attributes import pixels
from mixture import OPTIONS, QuestionMixture
from packing import answer_logits, exact, pack
from vocabulary import load_tokenizer

from sightline.data.questions import ask, pictures
from sightline.data.rendering import render
from sightline.data.scenes import draw_scenes

FORMS = ("p_true", "self_check", "confidence_word", "top_guesses", "rerank")


def blocks_of(mixture: QuestionMixture, picture, random: Random) -> list[tuple[str, str, str]]:
    """Returns (form, prompt, answer) for one picture, one of each form it allows."""
    found = []
    for form in FORMS:
        item = ask(picture, random.choice(tuple(OPTIONS)), random)
        if item is not None and len(OPTIONS[item.question_type]) > 2:
            found.append((form, *mixture.asked(form, item, random)))
    item = ask(picture, "existence", random)
    if item is not None:
        found.append(("negated", *mixture.negated(item)))
    item = ask(picture, "multiple_choice", random)
    if item is not None:
        found.append(("choice letter", *mixture.choice(item, random, text=False)))
        found.append(("choice text", *mixture.choice(item, random, text=True)))
    for name in ("scene", "text"):
        item = ask(picture, name, random)
        if item is not None:
            found.append((name, item.question, item.answer))
    found.append(("letter of a text", *mixture.letter(random, kind=0.9)))
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--architecture", choices=tuple(ARCHITECTURES), default="llava")
    parser.add_argument("--pictures", type=int, default=400)
    args = parser.parse_args()
    kind = ARCHITECTURES[args.architecture]
    tokenizer = load_tokenizer(kind)
    prefix = tokenizer.convert_tokens_to_ids(list(kind.prefix))
    mixture = QuestionMixture(tokenizer)
    ids = {"pad": tokenizer.pad_token_id, "image": mixture.image, "end": mixture.end}
    state = torch.load(args.run / "vlm.pt", weights_only=True, map_location="cpu")
    model = kind.build(len(tokenizer), ids)
    model.load_state_dict(state["model"])
    rng, random = np.random.default_rng(4), Random(4)
    scenes = draw_scenes("test", args.pictures, rng)
    images = render(scenes, rng)
    rows, forms = [], []
    for picture in pictures(scenes):
        blocks = []
        for form, prompt, answer in blocks_of(mixture, picture, random):
            prompt_ids = [i for line in prompt.split("\n") for i in mixture.encode(line)]
            prompt_ids.append(mixture.assistant)
            blocks.append(([*prompt_ids, *mixture.encode(answer), mixture.end], len(prompt_ids)))
            forms.append(form)
        rows.append(blocks)
    results = {}
    for name, shown in (("picture", images), ("blank", np.full_like(images, 128))):
        hits = []
        for at in range(0, len(rows), 40):
            packed = pack(rows[at : at + 40], prefix, ids["image"], ids["pad"])
            patches = kind.patches(model, pixels(shown[at : at + 40]))
            hits += exact(answer_logits(kind, model, patches, packed), packed).tolist()
        results[name] = defaultdict(list)
        for form, hit in zip(forms, hits, strict=True):
            results[name][form].append(hit)
    print("| prompt form | n | accuracy | blank |\n|---|---|---|---|")
    for form, hits in results["picture"].items():
        blank = np.mean(results["blank"][form])
        print(f"| {form} | {len(hits)} | {np.mean(hits):.3f} | {blank:.3f} |")


if __name__ == "__main__":
    main()
