"""Questions about the same images: read once, with the numbers of reading each by itself."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.models.shared_prefix import by_images

pytest.importorskip("torch", reason="the models extra is not installed")

from sightline.models.loading import load_model

QUESTIONS = ("What colour is the circle?", "Is it red?", "How many?", "How many?")


@pytest.fixture(scope="module", params=["embedded:vlm", "embedded:vlm-small"])
def model(request):
    return load_model(request.param)


def test_the_numbers_are_those_of_reading_each_by_itself(model):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (96, 96, 3)).astype(np.uint8))
    examples = [Example(str(i), question) for i, question in enumerate(QUESTIONS)]
    request = Request(max_new_tokens=8, n_samples=2, layers=(0.5, 1.0), blank=True)
    plain = model.observe(examples, [(image.copy(),) for _ in examples], request)
    assert model._prompts.sharing._exact is None, "different objects are never shared"
    same = [(image,) for _ in examples]
    model.observe(examples, same, request)
    assert model._prompts.sharing._exact is True
    shared = model.observe(examples, same, request)
    for one, other in zip(plain, shared, strict=True):
        assert one.key == other.key
        assert one.answer.text == other.answer.text
        assert [s.text for s in one.samples] == [s.text for s in other.samples]
        np.testing.assert_allclose(one.answer.logprobs, other.answer.logprobs, atol=1e-4)
        for feature, array in one.features.items():
            if feature.value != "top_token_ids":
                np.testing.assert_allclose(
                    array.astype(float), other.features[feature].astype(float), atol=5e-2
                )


def test_other_images_in_the_batch_are_read_by_themselves(model):
    rng = np.random.default_rng(1)
    images = [Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)) for _ in range(2)]
    rows = [(images[0],), (images[1],), (images[0],), ()]
    examples = [Example(str(i), "Is it red?") for i in range(4)]
    request = Request(max_new_tokens=4)
    together = model.observe(examples, rows, request)
    for example, own, record in zip(examples, rows, together, strict=True):
        (alone,) = model.observe([example], [own], request)
        np.testing.assert_allclose(alone.answer.logprobs, record.answer.logprobs, atol=1e-4)


def test_rows_are_told_apart_by_their_images():
    a, b = Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2))
    assert by_images([(a,), (b,), (a,), (), ()]) == [1, 0, 1, 0, 0]
    assert by_images([(a, b), (b, a), (a, b)]) == [1, 0, 1]
