"""Fast preparation of pictures: bit for bit the processor's, or the processor itself."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.models.preprocessing import picture_preparation

torch = pytest.importorskip("torch", reason="the models extra is not installed")
transformers = pytest.importorskip("transformers", reason="the models extra is not installed")
backends = pytest.importorskip(
    "transformers.image_processing_backends", reason="this version prepares pictures otherwise"
)

SIDE = 24
SQUARE = {"height": SIDE, "width": SIDE}
CLIP = {
    "size": {"shortest_edge": SIDE},
    "do_resize": True,
    "do_center_crop": True,
    "crop_size": SQUARE,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "resample": Image.Resampling.BICUBIC,
}
KNOWN = {
    "clip": CLIP,
    "siglip": CLIP | {"size": SQUARE, "do_center_crop": False, "image_mean": [0.5, 0.5, 0.5]},
    "oblong": CLIP | {"size": {"height": 20, "width": 31}, "do_center_crop": False},
    "cropped small": CLIP
    | {"size": {"shortest_edge": 17}, "crop_size": {"height": 20, "width": 23}},
    "no rescaling": CLIP | {"do_rescale": False, "resample": Image.Resampling.NEAREST},
}
UNKNOWN = {
    "padding": CLIP | {"do_pad": True, "pad_size": {"height": 30, "width": 30}},
    "longest edge": CLIP | {"size": {"shortest_edge": SIDE, "longest_edge": 30}},
    "whole numbers": CLIP | {"do_rescale": False, "do_normalize": False},
    "no scaling": CLIP | {"do_resize": False},
}


def processor(name):
    return backends.PilBackend(**{**KNOWN, **UNKNOWN}[name])


def picture(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


SIDES = st.integers(1, 70)


@pytest.mark.parametrize("name", KNOWN)
@given(sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4), seed=st.integers(0, 99))
@example(sizes=[(SIDE, SIDE)], seed=0)
@example(sizes=[(1, 70), (70, 1)], seed=0)
@settings(max_examples=15, deadline=None)
def test_pixels_are_those_of_the_processor_bit_for_bit(name, sizes, seed):
    slow = processor(name)
    fast = picture_preparation(slow)
    assert type(fast).__name__ == "_TableLookUp"
    pictures = [picture(width, height, seed) for width, height in sizes]
    theirs = slow(images=pictures, return_tensors="pt")
    ours = fast(pictures)
    assert set(ours) == set(theirs)
    assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
    assert ours["pixel_values"].dtype == theirs["pixel_values"].dtype


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_settings_are_left_to_the_processor(name):
    slow = processor(name)
    pictures = [picture(30, 30, 0)]
    ours = picture_preparation(slow)(pictures)
    assert type(picture_preparation(slow)).__name__ == "function"
    assert torch.equal(ours["pixel_values"], slow(pictures, return_tensors="pt")["pixel_values"])


def test_a_processor_that_does_more_than_its_settings_say_is_used_itself():
    class Inverting(backends.PilBackend):
        def normalize(self, image, mean, std, **rest):
            return -super().normalize(image, mean, std, **rest)

    slow = Inverting(**CLIP)
    pictures = [picture(40, 30, 0)]
    ours = picture_preparation(slow)(pictures)["pixel_values"]
    assert torch.equal(ours, slow(pictures, return_tensors="pt")["pixel_values"])
