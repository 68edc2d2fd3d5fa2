"""Cost of collecting embeddings beside a bare loop that decodes, prepares and embeds the files.

Prints one JSON document. Two models, each with pictures of its kind: the embedded CLIP on small
PNG files (a forward pass of a fraction of a millisecond, so that everything else shows), and a
random CLIP of about 30 million parameters at 224 × 224 on JPEG files of 320 × 240. Three ways
alternate in one run, after one unmeasured round:

- ``command``: what `sightline classify --views none` does once its model is loaded, from a folder
  of files to a committed run: hashes, class texts, the forecast's batch and store writes included.
- ``collect``: the same from pictures already listed and hashed.
- ``bare``: the files found by ``os.walk``, Pillow's decoding, the model's own processor, a forward
  pass and division by the length, in batches of the same size, one array saved at the end.

Gate: command / bare at most 1.15 (medians of the per-round ratios). CPU time is given beside wall
time, since it changes less where other work shares the machine.

Run: python benchmarks/classify.py [--small 8000] [--large 384] [--repeats 5]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from hardware import hardware
from PIL import Image

from sightline.data.image_sets import TEMPLATES, load_image_set
from sightline.data.objects import CLASSES, generate_objects
from sightline.models import load_classifier
from sightline.models.embedded import embedded_model_path
from sightline.workflow.classifying.collecting import classify

BATCH = 64
GATE = 1.15
WAYS = ("command", "collect", "bare")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", type=int, default=8000, help="pictures of the embedded CLIP")
    parser.add_argument("--large", type=int, default=384, help="pictures of the random CLIP")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "benchmark": "classify",
        "batch": BATCH,
        "hardware": hardware("torch", "transformers", "pillow", "numpy"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder / "model")
        write(folder / "small", options.small, (48, 48), "png")
        write(folder / "large", options.large, (320, 240), "jpg")
        document["embedded:clip"] = measured("embedded:clip", folder / "small", options.repeats)
        document["random"] = measured(str(folder / "model"), folder / "large", options.repeats)
    print(json.dumps(document, indent=1))


def build(path: Path) -> None:
    """A random CLIP of ViT-B/32's input and shape but its width, with a small tokenizer."""
    torch.manual_seed(0)
    processor = tf.AutoProcessor.from_pretrained(embedded_model_path("clip"))
    vision = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "image_size": 224,
        "patch_size": 32,
    }
    text = {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": len(processor.tokenizer),
        "max_position_embeddings": 32,
        "bos_token_id": None,
        "eos_token_id": processor.tokenizer.eos_token_id,
    }
    config = tf.CLIPConfig(vision_config=vision, text_config=text, projection_dim=256)
    tf.CLIPModel(config).save_pretrained(path)
    tf.CLIPProcessor(tf.CLIPImageProcessor(), processor.tokenizer).save_pretrained(path)


def write(folder: Path, count: int, size: tuple[int, int], suffix: str) -> None:
    """Pictures in a folder for each class."""
    batch = generate_objects("test", count)
    for at, (pixels, label) in enumerate(zip(batch.images, batch.labels, strict=True)):
        file = folder / CLASSES[int(label)] / f"{at:06d}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file)


def measured(spec: str, folder: Path, repeats: int) -> dict[str, Any]:
    model = load_classifier(spec)
    gc.freeze()  # as the command does
    listed = load_image_set(folder)
    count = len(listed.examples)
    wall: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(repeats + 1):
        for way in WAYS if turn % 2 else WAYS[::-1]:
            with tempfile.TemporaryDirectory() as run:
                work: Callable[[], Any] = {
                    "command": lambda: embed(model, load_image_set(folder), Path(run)),
                    "collect": lambda: embed(model, listed, Path(run)),
                    "bare": lambda: bare(model, folder, Path(run)),
                }[way]
                before = time.perf_counter(), time.process_time()
                work()
                if turn:
                    wall[way].append(time.perf_counter() - before[0])
                    cpu[way].append(time.process_time() - before[1])
    return {
        "parameters": sum(p.numel() for p in model._model.parameters()),
        "pictures": count,
        "median_wall_ms_per_picture": per_picture(wall, count),
        "median_cpu_ms_per_picture": per_picture(cpu, count),
        "ratios": {
            f"{way}_over_bare": {
                "wall": ratio(wall, way),
                "cpu": ratio(cpu, way),
                "at_most": GATE,
                "passed": ratio(wall, way) <= GATE,
            }
            for way in ("command", "collect")
        },
        "repeats": repeats,
    }


def embed(model: Any, images: Any, path: Path) -> None:
    result = classify(model, images, path / "run", templates=TEMPLATES["picture"], batch_size=BATCH)
    if result.images is None or result.images.quarantined:
        raise SystemExit("some pictures could not be embedded")


@torch.inference_mode()
def bare(model: Any, folder: Path, out: Path) -> None:
    files = sorted(f"{where}/{name}" for where, _, names in os.walk(folder) for name in names)
    vectors = []
    for at in range(0, len(files), BATCH):
        pictures = [Image.open(file).convert("RGB") for file in files[at : at + BATCH]]
        inputs = model._processor(images=pictures, return_tensors="pt")
        found = model._model.get_image_features(**inputs).pooler_output
        vectors.append((found / found.norm(dim=-1, keepdim=True)).numpy())
    np.save(out / "vectors.npy", np.concatenate(vectors))


def per_picture(seconds: dict[str, list[float]], count: int) -> dict[str, float]:
    return {way: round(1000 * statistics.median(v) / count, 3) for way, v in seconds.items()}


def ratio(seconds: dict[str, list[float]], way: str) -> float:
    pairs = zip(seconds[way], seconds["bare"], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


if __name__ == "__main__":
    main()
