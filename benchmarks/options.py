"""Cost of scoring four options of one question on a random 30 M LLaVA with 576 image tokens.

Prints one JSON document. Two ways alternate in one run on the same prepared inputs, after one
unmeasured round; both give the same scores, which is checked:

- ``shared``: one prefill, then all options as continuations of its cache.
- ``separate``: one full forward pass over image, prompt and option for each option, asking only
  for the logits of the option's positions.

Gate: shared / separate at most 0.45 (wall time, median of the per-round ratios).

Run: python benchmarks/options.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from hardware import hardware
from PIL import Image
from random_llava import CHOICES, build

from sightline.core.types import Example
from sightline.data.prompts import PromptStyle, user_text
from sightline.models.decoding import score
from sightline.models.prefill import prefill

LIMIT = 0.45


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    _, model, processor = build()
    text = user_text(Example(id="q", question="What is it?", choices=CHOICES), PromptStyle())
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    image = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    inputs = dict(processor(text=[prompt], images=[[image]], return_tensors="pt"))
    tokenizer = processor.tokenizer
    answers = [[*tokenizer(f" {c}", add_special_tokens=False)["input_ids"], 2] for c in CHOICES]

    def shared() -> list[float]:
        image_id = model.config.image_token_id
        start = prefill(model, inputs, image_token_id=image_id)
        return [float(v.sum()) for v in score(start, [0] * len(answers), answers)]

    def separate() -> list[float]:
        totals = []
        for answer in answers:
            tail = torch.tensor([answer])
            ids = torch.cat([inputs["input_ids"], tail], 1)
            logits = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=inputs["pixel_values"],
                logits_to_keep=len(answer) + 1,
                use_cache=False,
            ).logits[0, :-1]
            table = torch.log_softmax(logits.float(), -1)
            totals.append(float(table.gather(1, tail.T).sum()))
        return totals

    ways: dict[str, Callable[[], list[float]]] = {"shared": shared, "separate": separate}
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    scores: dict[str, list[float]] = {}
    with torch.inference_mode():
        for turn in range(options.repeats + 1):
            for way in list(ways) if turn % 2 else list(ways)[::-1]:
                before = time.perf_counter(), time.process_time()
                scores[way] = ways[way]()
                if turn:
                    wall[way].append(time.perf_counter() - before[0])
                    cpu[way].append(time.process_time() - before[1])
    np.testing.assert_allclose(scores["shared"], scores["separate"], atol=1e-3)

    def ratio(of: dict[str, list[float]]) -> float:
        pairs = zip(of["shared"], of["separate"], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    document = {
        "benchmark": "options",
        "parameters": sum(p.numel() for p in model.parameters()),
        "prompt_tokens": int(inputs["input_ids"].shape[1]),
        "option_tokens": [len(answer) for answer in answers],
        "median_wall_s": {way: round(statistics.median(v), 3) for way, v in wall.items()},
        "median_cpu_s": {way: round(statistics.median(v), 3) for way, v in cpu.items()},
        "shared_over_separate": {
            "wall": ratio(wall),
            "cpu": ratio(cpu),
            "at_most": LIMIT,
            "passed": ratio(wall) <= LIMIT,
        },
        "repeats": options.repeats,
        "hardware": hardware("torch", "transformers", "numpy"),
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
