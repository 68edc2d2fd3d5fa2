"""Cost of collecting greedy + 10 samples + 4 layers of hidden states on a random 30 M LLaVA.

Prints one JSON document. Three ways alternate in one run, after one unmeasured round:

- ``collect``: `sightline.workflow.collect.collect` from image files to a committed run, so image
  decoding, log-probabilities, entropies, hidden states and store writes are included.
- ``generate``: the library's ``generate`` greedy and again with ``num_return_sequences=10``, on
  inputs prepared beforehand (their image decoding and processing is not counted).
- ``bare``: prefill and decode loop of the same rows that keeps only the tokens, on the same
  prepared inputs, with the library's own cache (which copies itself for every token).

Gates: collect / generate at most 0.35, collect / bare at most 1.25 (wall time, medians of the
per-round ratios).

Run: python benchmarks/collect.py [--examples 4] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from hardware import hardware
from random_llava import build, questions

from sightline.core.protocols import Request
from sightline.data.examples import Dataset
from sightline.data.images import load_image
from sightline.data.prompts import PromptStyle, user_text
from sightline.workflow.collect import collect

NEW_TOKENS, SAMPLES, LAYERS = 16, 10, (0.25, 0.5, 0.75, 1.0)
REQUEST = Request(max_new_tokens=NEW_TOKENS, n_samples=SAMPLES, layers=LAYERS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    observer, model, processor = build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [folder / f"run{turn}" for turn in range(options.repeats + 1)]
        for run in runs:
            examples = questions(options.examples, run, choices=False)
        dataset = Dataset("random", tuple(examples), (), "0" * 64)
        inputs = prepared(processor, examples, runs[0])
        turn = 0

        def ours() -> None:
            done = collect(
                observer, dataset, runs[turn], request=REQUEST, batch_size=options.examples
            )
            if done.quarantined:
                raise SystemExit(str(done.reasons))

        ways: dict[str, Callable[[], None]] = {
            "collect": ours,
            "generate": lambda: generate(model, inputs),
            "bare": lambda: bare(model, inputs),
        }
        wall: dict[str, list[float]] = {way: [] for way in ways}
        cpu: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.repeats + 1):
            for way in list(ways) if turn % 2 else list(ways)[::-1]:
                before = time.perf_counter(), time.process_time()
                ways[way]()
                if turn:
                    wall[way].append(time.perf_counter() - before[0])
                    cpu[way].append(time.process_time() - before[1])
    print(json.dumps(report(wall, cpu, model, inputs, options.examples), indent=2))


def prepared(processor: Any, examples: list[Any], root: Path) -> dict[str, torch.Tensor]:
    texts = []
    for example in examples:
        content = [{"type": "image"}, {"type": "text", "text": user_text(example, PromptStyle())}]
        texts.append(
            processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
        )
    images = [[load_image(example.images[0], root)] for example in examples]
    return dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))


def generate(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    settings = {"max_new_tokens": NEW_TOKENS, "eos_token_id": 2, "pad_token_id": 0}
    with torch.inference_mode():
        model.generate(**inputs, generation_config=tf.GenerationConfig(do_sample=False, **settings))
        model.generate(
            **inputs,
            generation_config=tf.GenerationConfig(
                do_sample=True, top_k=0, num_return_sequences=SAMPLES, **settings
            ),
        )


@torch.inference_mode()
def bare(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    rows = 1 + SAMPLES
    count = len(inputs["input_ids"])
    mask = inputs["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    outputs = model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
    cache = outputs.past_key_values
    cache.batch_repeat_interleave(rows)
    mask, last = mask.repeat_interleave(rows, 0), positions[:, -1:].repeat_interleave(rows, 0)
    logits = outputs.logits[:, -1].repeat_interleave(rows, 0)
    greedy = torch.arange(count * rows) % rows == 0
    kept = []
    for step in range(NEW_TOKENS):
        tokens = torch.multinomial(logits.softmax(-1), 1)
        tokens[greedy] = logits[greedy].argmax(-1, keepdim=True)
        kept.append(tokens)
        if step + 1 == NEW_TOKENS:
            break
        mask, last = torch.cat([mask, mask.new_ones(len(mask), 1)], 1), last + 1
        logits = model(
            input_ids=tokens, attention_mask=mask, position_ids=last, past_key_values=cache
        ).logits[:, -1]


def report(
    wall: dict[str, list[float]],
    cpu: dict[str, list[float]],
    model: Any,
    inputs: dict[str, torch.Tensor],
    examples: int,
) -> dict[str, Any]:
    def ratio(of: dict[str, list[float]], peer: str) -> float:
        pairs = zip(of["collect"], of[peer], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    gates = {"generate": 0.35, "bare": 1.25}
    return {
        "benchmark": "collect",
        "parameters": sum(p.numel() for p in model.parameters()),
        "prompt_tokens": int(inputs["input_ids"].shape[1]),
        "examples": examples,
        "new_tokens": NEW_TOKENS,
        "samples": SAMPLES,
        "layers": len(LAYERS),
        "median_wall_s": {way: round(statistics.median(v), 3) for way, v in wall.items()},
        "median_cpu_s": {way: round(statistics.median(v), 3) for way, v in cpu.items()},
        "ratios": {
            f"collect_over_{peer}": {
                "wall": ratio(wall, peer),
                "cpu": ratio(cpu, peer),
                "at_most": limit,
                "passed": ratio(wall, peer) <= limit,
            }
            for peer, limit in gates.items()
        },
        "repeats": len(wall["collect"]),
        "hardware": hardware("torch", "transformers", "numpy"),
    }


if __name__ == "__main__":
    main()
