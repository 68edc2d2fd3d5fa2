"""A classifier of colours without weights, and pictures whose colour it can mistake."""

import io

import numpy as np
import pytest
from PIL import Image

from sightline.data.image_sets import load_image_set
from sightline.workflow.classifying.collecting import SupportPlan, classify
from sightline.workflow.classifying.embedding import ModelEncoder

COLOURS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 1.0, 0.1), "blue": (0.1, 0.1, 1.0)}


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class ColourClassifier:
    """Reads the mean colour of a picture, and colours by their names."""

    scale, bias, sigmoid = 20.0, 0.0, False

    def __init__(self):
        self.seen = 0

    def fingerprint(self):
        return {"name": "colours"}

    def image_vectors(self, images):
        self.seen += len(images)
        return unit([np.asarray(i, dtype=np.float64).mean(axis=(0, 1)) + 1.0 for i in images])

    def text_vectors(self, texts):
        return unit(
            [next((c for name, c in COLOURS.items() if name in t), (1, 1, 1)) for t in texts]
        )


class Patches:
    """An image encoder that sees the corners, where the colour is purest."""

    def fingerprint(self):
        return {"name": "patches"}

    def vectors(self, images):
        rows = [np.asarray(i, dtype=np.float32)[:2, :2].mean(axis=(0, 1)) for i in images]
        return np.stack(rows) + np.float32(1.0)


def png(colour, rng):
    """A patch of the colour in a corner; the rest is the colour under noise of another."""
    base = np.array(COLOURS[colour]) * 255
    other = np.array(list(COLOURS.values())[rng.integers(3)]) * 255
    mixed = base + (other - base) * rng.uniform(0, 0.85)
    pixels = mixed + rng.normal(0, 20, (8, 8, 3))
    pixels[:2, :2] = base + (other - base) * rng.uniform(0, 0.5) + rng.normal(0, 50, (2, 2, 3))
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, format="PNG")
    return out.getvalue()


def write_pictures(folder, counts, seed=0):
    """A folder of pictures for every class."""
    rng = np.random.default_rng(seed)
    for colour, n in counts.items():
        (folder / colour).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (folder / colour / f"{i:03d}.png").write_bytes(png(colour, rng))
    return folder


def patches():
    return ModelEncoder.of("patches", Patches())


def colour_run(path, tested, pool=None, *, shots=4, draws=3, seed=0, model=None, **more):
    settings = {"templates": ("a photo of {}", "{}"), "views": ("mirror",), "shard_size": 32}
    plan = None
    if pool is not None:
        plan = SupportPlan(load_image_set(pool), shots, draws, seed)
    return classify(
        model or ColourClassifier(),
        load_image_set(tested),
        path,
        encoders=more.pop("encoders", [patches()]),
        support=plan,
        **{**settings, **more},
    )


@pytest.fixture(scope="session")
def tested(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("test"), dict.fromkeys(COLOURS, 60), seed=1)


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("train"), dict.fromkeys(COLOURS, 12), seed=2)


@pytest.fixture(scope="session")
def run(tmp_path_factory, tested, pool):
    path = tmp_path_factory.mktemp("runs") / "colours"
    colour_run(path, tested, pool)
    return path
