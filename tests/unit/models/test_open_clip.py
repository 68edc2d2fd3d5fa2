"""Classifiers of open_clip: vectors agree with the model's own; what cannot be loaded is one line.

The agreement is tested where open_clip is installed, on random weights.
"""

import sys

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import MissingExtraError, UsageError
from sightline.models import load_classifier

ARCHITECTURE = "ViT-S-32-alt"


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"sightline\[open-clip\]"):
        load_classifier("open_clip:ViT-B-32/openai")


class TestInstalled:
    @pytest.fixture(scope="class")
    @classmethod
    def open_clip(cls):
        return pytest.importorskip("open_clip", reason="the open-clip extra is not installed")

    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, open_clip, tmp_path_factory):
        import torch

        torch.manual_seed(0)
        model, _, preprocess = open_clip.create_model_and_transforms(ARCHITECTURE, pretrained=None)
        path = tmp_path_factory.mktemp("open_clip") / "weights.pt"
        torch.save(model.state_dict(), path)
        return path, model.eval(), preprocess

    def test_vectors_are_the_models_own(self, open_clip, weights):
        import torch

        path, model, preprocess = weights
        pictures = [
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (60, 50, 3), dtype=np.uint8))
            for i in range(3)
        ]
        loaded = load_classifier(f"open_clip:{ARCHITECTURE}/{path}")
        with torch.inference_mode():
            images = model.encode_image(
                torch.stack([preprocess(p) for p in pictures]), normalize=True
            )
            texts = model.encode_text(
                open_clip.get_tokenizer(ARCHITECTURE)(["a cat", "a dog"]), normalize=True
            )
        prepared = torch.stack([preprocess(p) for p in pictures])
        torch.testing.assert_close(loaded.prepare(pictures)["pixel_values"], prepared)
        np.testing.assert_allclose(loaded.image_vectors(pictures), images.numpy(), atol=1e-6)
        np.testing.assert_allclose(
            loaded.text_vectors(["a cat", "a dog"]), texts.numpy(), atol=1e-6
        )
        assert loaded.scale == pytest.approx(float(model.logit_scale.detach().exp()))
        assert not loaded.sigmoid

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("open_clip:nope/x", "architecture 'nope'"),
            ("open_clip:ViT-B-32/zzz", "weights 'zzz'"),
            ("open_clip:ViT-B-32", "weights ''"),
        ],
    )
    def test_what_does_not_exist(self, open_clip, spec, said):
        with pytest.raises(UsageError, match=said):
            load_classifier(spec)

    def test_weights_of_another_architecture(self, weights):
        with pytest.raises(UsageError, match="cannot be loaded"):
            load_classifier(f"open_clip:ViT-B-32/{weights[0]}")
