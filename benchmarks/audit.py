"""Cost of auditing one picture: 30 perturbations × 4 options on a random 30 M LLaVA.

Prints one JSON document. Two ways alternate in one run, after an unmeasured picture under two
perturbations:

- ``collect``: `sightline.workflow.collect.collect` under 30 perturbations (every shift, border,
  crop, scale and rotation of the bank, and the overlays that name no option), from the image file
  to a committed run: decoding, rendering, answers, options, all channels and store writes are
  included.
- ``loop``: one full forward pass per option and per channel, and the library's ``generate`` for
  each of the two free answers, picture by picture; rendering is included, nothing is stored. Its
  parts are timed. ``thrifty`` is what remains of it where states that an earlier pass has shown
  (both contexts, the likeliest option) are not asked for again.

Option scores and states at the last layer must be equal. Then many pictures are collected one after
another, with the smallest embedded model and three perturbations, and the process's memory is read
after each: what a picture leaves behind shows over hundreds of them, not over the few that a large
model reads while the allocator warms up.

Gates: collect / loop at most 0.4 (wall time, median of the per-round ratios), rendering at most
10 % of collect, memory at the end at most 1.02 × that after the first quarter of the pictures.

Run: OMP_NUM_THREADS=1 python benchmarks/audit.py [--repeats 2] [--pictures 200]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from hardware import hardware
from PIL import Image
from random_llava import CHOICES, build, questions

from sightline.core.condition_names import CLEAN
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import Example, Record
from sightline.data.examples import Dataset
from sightline.data.images import load_image
from sightline.data.perturbations import parse_condition, parse_conditions
from sightline.data.prompts import PromptStyle, user_text
from sightline.models import load_model
from sightline.store.run import RunStore
from sightline.workflow.collect import CollectProgress, collect

NEW_TOKENS, LAYERS, BATCH = 32, (0.25, 0.5, 0.75, 1.0), 8
CONDITIONS = tuple(condition.name for condition in parse_conditions("geometry,overlays"))
REQUEST = Request(
    max_new_tokens=NEW_TOKENS,
    n_samples=0,
    layers=LAYERS,
    options=True,
    channels=True,
)
REPEATED = ("ctx_open", "ctx_mcq", "ans_mcq")
"""States that passes of the loop for something else have shown already."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=200)
    options = parser.parse_args()
    observer, model, processor = build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loop = Loop(model, processor)
        wall: dict[str, list[float]] = {"collect": [], "loop": []}
        cpu: dict[str, list[float]] = {"collect": [], "loop": []}
        thrifty: list[float] = []
        for turn in range(options.repeats + 1):
            run = folder / f"run{turn}"
            (example,) = questions(1, run, choices=True)
            names = CONDITIONS if turn else CONDITIONS[:2]
            ways: dict[str, Callable[[], Any]] = {
                "collect": lambda r=run, e=example, n=names: collected(observer, [e], r, n),
                "loop": lambda r=run, e=example, n=names: loop.audit(e, r, n),
            }
            for way in list(ways) if turn % 2 else list(ways)[::-1]:
                before = time.perf_counter(), time.process_time()
                ways[way]()
                if turn:
                    wall[way].append(time.perf_counter() - before[0])
                    cpu[way].append(time.process_time() - before[1])
            if turn:
                thrifty.append(wall["loop"][-1] - sum(loop.seconds[part] for part in REPEATED))
            equal(loop.found, RunStore.open(run).records())
        log = RunStore.open(run).log()[0]
        memory = resident(folder / "many", options.pictures)
        size = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    print(json.dumps(report(wall, cpu, thrifty, loop, log, memory, size, model), indent=2))


def collected(
    observer: Any,
    examples: list[Example],
    run: Path,
    names: tuple[str, ...],
    progress: Callable[[CollectProgress], None] = lambda _: None,
) -> None:
    done = collect(
        observer,
        Dataset("random", tuple(examples), (), "0" * 64),
        run,
        request=replace(REQUEST, conditions=names),
        batch_size=BATCH,
        shard_size=1,
        progress=progress,
    )
    if done.quarantined or done.refused:
        raise SystemExit(f"{done.reasons} {done.refused}")


class Loop:
    """The straightforward audit: a forward pass for everything that is to be known."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.seconds: dict[str, float] = {}
        self.found: dict[str, dict[str, np.ndarray]] = {}
        self.clean: list[int] = []
        tokenizer = processor.tokenizer
        self.options = [
            [*tokenizer(f" {choice}", add_special_tokens=False)["input_ids"], 2]
            for choice in CHOICES
        ]

    @torch.inference_mode()
    def audit(self, example: Example, root: Path, names: tuple[str, ...]) -> None:
        """Fills `found` and `seconds` for one example under the named conditions."""
        self.seconds, self.found = defaultdict(float), {}
        image = load_image(example.images[0], root)
        for name in (CLEAN, *names):
            with self._timed("rendering"):
                seen = image if name == CLEAN else parse_condition(name).apply(image, example)
            self.found[name] = self._picture(example, seen)

    def _picture(self, example: Example, image: Image.Image) -> dict[str, np.ndarray]:
        with self._timed("processing"):
            asked = self._inputs(example, image)
            opened = self._inputs(replace(example, choices=None), image)
        with self._timed("options"):
            scores = np.array([self._score(asked, option) for option in self.options])
        best = self.options[int(np.argmax(scores))]
        with self._timed("generate"):
            free, plain = self._generate(asked), self._generate(opened)
        found = {"options": scores}
        states = [
            ("ctx_mcq", asked, []),
            ("ctx_open", opened, []),
            ("ans_mcq", asked, best),
            ("ans_mcq_free", asked, free),
            ("ans_open", opened, plain),
        ]
        if self.found:
            states.append(("ans_fixed", asked, self.clean))
        else:
            self.clean = free  # read again under every other picture
        for name, inputs, tokens in states:
            with self._timed(name):
                found[name] = self._state(inputs, tokens)
        with self._timed("vision"):
            tokens = self.model.get_image_features(asked["pixel_values"]).pooler_output[0]
            found["vision_projected"] = tokens.mean(0).numpy()
        return found

    def _inputs(self, example: Example, image: Image.Image) -> dict[str, torch.Tensor]:
        content = [{"type": "image"}, {"type": "text", "text": user_text(example, PromptStyle())}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return dict(self.processor(text=[prompt], images=[[image]], return_tensors="pt"))

    def _pass(self, inputs: dict[str, torch.Tensor], tokens: list[int], **how: Any) -> Any:
        tail = torch.tensor([tokens], dtype=torch.int64)
        ids = torch.cat([inputs["input_ids"], tail], 1)
        return self.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=inputs["pixel_values"],
            use_cache=False,
            **how,
        )

    def _score(self, inputs: dict[str, torch.Tensor], tokens: list[int]) -> float:
        logits = self._pass(inputs, tokens, logits_to_keep=len(tokens) + 1).logits[0, :-1]
        table = torch.log_softmax(logits.float(), -1)
        return float(table.gather(1, torch.tensor(tokens)[:, None]).sum())

    def _state(self, inputs: dict[str, torch.Tensor], tokens: list[int]) -> np.ndarray:
        """Last state of the prompt, or the mean over an answer's positions."""
        states = self._pass(inputs, tokens, output_hidden_states=True, logits_to_keep=1)
        last = states.hidden_states[-1][0]
        chosen = last[-1] if not tokens else last[-len(tokens) :].mean(0)
        return np.asarray(chosen.float().numpy())

    def _generate(self, inputs: dict[str, torch.Tensor]) -> list[int]:
        settings = tf.GenerationConfig(
            do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=2, pad_token_id=0
        )
        ids = self.model.generate(**inputs, generation_config=settings)
        return [int(token) for token in ids[0, inputs["input_ids"].shape[1] :]]

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - before


def equal(found: dict[str, dict[str, np.ndarray]], records: Iterator[Record]) -> None:
    """Raises unless both ways saw the same."""
    seen = {record.condition: record for record in records}
    if seen.keys() != found.keys():
        raise SystemExit(f"conditions differ: {sorted(seen.keys() ^ found.keys())}")
    for name, own in found.items():
        record = seen[name]
        np.testing.assert_allclose(
            record.array(Feature.OPTION_LOGPROBS), own["options"], atol=2e-3, err_msg=name
        )
        for feature in map(Feature, own.keys() - {"options"}):
            stored = record.array(feature).astype(np.float32)
            last = stored[-1] if stored.ndim == 2 else stored
            np.testing.assert_allclose(
                last, own[feature.value], rtol=5e-3, atol=5e-3, err_msg=f"{name} {feature.value}"
            )


def resident(run: Path, pictures: int) -> list[float]:
    """MiB of the process after each picture, of pictures collected one after another."""
    after: list[float] = []

    def keep(progress: CollectProgress) -> None:
        if progress.observed:
            after.append(resident_mib())

    model = load_model("embedded:vlm-small")
    collected(model, questions(pictures, run, choices=True), run, CONDITIONS[::10], keep)
    return after


def resident_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmRSS"))
    return int(kib) / 1024


def report(
    wall: dict[str, list[float]],
    cpu: dict[str, list[float]],
    thrifty: list[float],
    loop: Loop,
    log: dict[str, Any],
    memory: list[float],
    size: int,
    model: Any,
) -> dict[str, Any]:
    def ratio(ours: list[float], theirs: list[float]) -> float:
        return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)

    share = log["rendering_seconds"] / log["seconds"]
    quarter, end = memory[max(0, len(memory) // 4 - 1)], memory[-1]
    return {
        "benchmark": "audit",
        "parameters": sum(p.numel() for p in model.parameters()),
        "perturbations": len(CONDITIONS),
        "options": len(CHOICES),
        "new_tokens": NEW_TOKENS,
        "layers": len(LAYERS),
        "median_wall_s": {way: round(statistics.median(v), 3) for way, v in wall.items()},
        "median_cpu_s": {way: round(statistics.median(v), 3) for way, v in cpu.items()},
        "loop_parts_s": {part: round(seconds, 3) for part, seconds in loop.seconds.items()},
        "collect_over_loop": {
            "wall": ratio(wall["collect"], wall["loop"]),
            "cpu": ratio(cpu["collect"], cpu["loop"]),
            "at_most": 0.4,
            "passed": ratio(wall["collect"], wall["loop"]) <= 0.4,
        },
        "collect_over_thrifty_loop": {"wall": ratio(wall["collect"], thrifty)},
        "rendering_share": {
            "value": round(share, 4),
            "at_most": 0.1,
            "passed": share <= 0.1,
        },
        "resident_mib": {
            "pictures": len(memory),
            "after_every_tenth": [round(value, 1) for value in memory[9::10]],
            "end_over_first_quarter": round(end / quarter, 3),
            "at_most": 1.02,
            "passed": end / quarter <= 1.02,
        },
        "stored_bytes": size,
        "repeats": len(wall["loop"]),
        "hardware": hardware("torch", "transformers", "numpy", "pillow"),
    }


if __name__ == "__main__":
    main()
