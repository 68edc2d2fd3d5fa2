"""Zero-shot classifiers and image encoders: vectors agree with the model's own forward pass."""

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import UsageError
from sightline.data.objects import CLASSES, generate_objects
from sightline.models import load_classifier, load_image_encoder
from sightline.models.classifiers import class_logits

torch = pytest.importorskip("torch", reason="the models extra is not installed")
transformers = pytest.importorskip("transformers", reason="the models extra is not installed")

TEXTS = ("a picture of a small red circle", "digit 3", "a big blue ring")
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def pictures():
    return [Image.fromarray(x) for x in generate_objects("test", 5).images]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """A random SigLIP with the tokenizer of the embedded CLIP."""
    from sightline.models.embedded import embedded_model_path

    torch.manual_seed(0)
    processor = transformers.AutoProcessor.from_pretrained(embedded_model_path("clip"))
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(processor.tokenizer),
        "max_position_embeddings": 16,
        "projection_size": 16,
    }
    model = transformers.SiglipModel(
        transformers.SiglipConfig(vision_config=VISION, text_config=text)
    )
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
        model.logit_bias.fill_(-3.0)
    images = transformers.SiglipImageProcessor(size={"height": 48, "width": 48})
    path = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(path)
    transformers.SiglipProcessor(images, processor.tokenizer).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder")
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).save_pretrained(path)
    transformers.CLIPImageProcessor(
        size={"height": 48, "width": 48}, do_center_crop=False
    ).save_pretrained(path)
    return path


def _own_logits(path, pictures, **padding):
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    processor = transformers.AutoProcessor.from_pretrained(path)
    inputs = processor(text=list(TEXTS), images=pictures, return_tensors="pt", **padding)
    with torch.no_grad():
        return model(**inputs).logits_per_image.numpy()


def test_clip_logits_are_those_of_the_forward_pass(pictures):
    from sightline.models.embedded import embedded_model_path

    model = load_classifier("embedded:clip")
    ours = class_logits(model, model.image_vectors(pictures), model.text_vectors(TEXTS))
    assert np.allclose(
        ours, _own_logits(embedded_model_path("clip"), pictures, padding=True), atol=1e-4
    )
    assert not model.sigmoid
    assert model.bias == 0.0


def test_siglip_logits_are_those_of_the_forward_pass(siglip, pictures):
    model = load_classifier(str(siglip))
    ours = class_logits(model, model.image_vectors(pictures), model.text_vectors(TEXTS))
    theirs = _own_logits(siglip, pictures, padding="max_length")
    assert np.allclose(ours, theirs, atol=1e-4)
    assert model.sigmoid
    assert model.bias == pytest.approx(-3.0)


def test_vectors_have_length_one_and_do_not_depend_on_their_batch(pictures):
    model = load_classifier("embedded:clip")
    together, alone = model.image_vectors(pictures), model.image_vectors(pictures[:1])
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    assert np.allclose(together[:1], alone, atol=1e-5)
    texts = model.text_vectors(CLASSES)
    assert texts.shape == (len(CLASSES), together.shape[1])
    assert np.allclose(texts[3], model.text_vectors([CLASSES[3]])[0], atol=1e-5)


def test_a_text_longer_than_the_model_reads_is_cut():
    model = load_classifier("embedded:clip")
    assert np.isfinite(model.text_vectors(["red " * 500])).all()


def test_an_image_encoder_gives_its_pooled_output(encoder, pictures):
    vectors = load_image_encoder(str(encoder)).vectors(pictures)
    model = transformers.AutoModel.from_pretrained(encoder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(encoder)
    with torch.no_grad():
        theirs = model(**processor(images=pictures, return_tensors="pt")).pooler_output.numpy()
    assert vectors.shape == (len(pictures), 16)
    assert np.allclose(vectors, theirs, atol=1e-5)


def saved(path, model, size=48):
    torch.manual_seed(0)
    model.eval().save_pretrained(path)
    sides = {"height": size, "width": size}
    transformers.ViTImageProcessorPil(size=sides).save_pretrained(path)
    return path


def resnet():
    return transformers.ResNetModel(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        )
    )


def masked():
    return transformers.ViTMAEModel(transformers.ViTMAEConfig(**VISION))


def inputs_of(path, pictures):
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    return processor(images=pictures, return_tensors="pt")


class TestPooling:
    """Models that pool over places, by tokens only, or not at all."""

    def test_a_spatial_pooled_output_is_one_vector(self, tmp_path, pictures):
        encoder = load_image_encoder(str(saved(tmp_path / "resnet", resnet())))
        vectors = encoder.vectors(pictures)
        model = transformers.AutoModel.from_pretrained(tmp_path / "resnet").eval()
        with torch.no_grad():
            theirs = model(**inputs_of(tmp_path / "resnet", pictures)).pooler_output
        assert theirs.shape == (len(pictures), 16, 1, 1)
        np.testing.assert_allclose(vectors, theirs[:, :, 0, 0].numpy(), atol=1e-6)

    def test_the_mean_of_a_feature_map_is_over_its_places(self, tmp_path, pictures):
        path = saved(tmp_path / "resnet", resnet())
        vectors = load_image_encoder(str(path), pool="mean").vectors(pictures)
        np.testing.assert_allclose(
            vectors, load_image_encoder(str(path)).vectors(pictures), atol=1e-6
        )
        with pytest.raises(UsageError, match="ResNetModel without a class token"):
            load_image_encoder(str(path), pool="cls")

    def test_a_model_of_tokens_gives_its_class_token_with_no_patch_dropped(
        self, tmp_path, pictures
    ):
        path = saved(tmp_path / "mae", masked())
        encoder = load_image_encoder(str(path))
        vectors = encoder.vectors(pictures)
        np.testing.assert_array_equal(vectors, encoder.vectors(pictures))
        model = transformers.AutoModel.from_pretrained(path, mask_ratio=0.0).eval()
        with torch.no_grad():
            tokens = model(**inputs_of(path, pictures)).last_hidden_state
        assert tokens.shape[1] == 1 + (48 // 8) ** 2
        np.testing.assert_allclose(vectors, tokens[:, 0].numpy(), atol=1e-5)
        mean = load_image_encoder(str(path), pool="mean").vectors(pictures)
        np.testing.assert_allclose(mean, tokens.mean(dim=1).numpy(), atol=1e-5)

    def test_the_mean_of_all_tokens_has_the_class_token_among_them(self, tmp_path, pictures):
        """As TrustVLM's released code does with DINOv2."""
        config = transformers.Dinov2Config(**VISION)
        path = saved(tmp_path / "dino", transformers.Dinov2Model(config))
        model = transformers.AutoModel.from_pretrained(path).eval()
        with torch.no_grad():
            tokens = model(**inputs_of(path, pictures)).last_hidden_state
        mean = load_image_encoder(str(path), pool="mean")
        np.testing.assert_allclose(mean.vectors(pictures), tokens.mean(dim=1), atol=1e-6)
        first = load_image_encoder(str(path), pool="cls")
        np.testing.assert_allclose(first.vectors(pictures), tokens[:, 0], atol=1e-6)
        own = load_image_encoder(str(path)).fingerprint()
        assert "pool" not in own
        assert mean.fingerprint() == {**own, "pool": "mean"}

    def test_weights_without_those_of_the_pooler_give_the_class_token(self, tmp_path, pictures):
        """Published ViT weights of DINO are saved so."""
        model = transformers.ViTModel(transformers.ViTConfig(**VISION), add_pooling_layer=False)
        path = saved(tmp_path / "vit", model)
        with torch.no_grad():
            tokens = model.eval()(**inputs_of(path, pictures)).last_hidden_state
        vectors = load_image_encoder(str(path)).vectors(pictures)
        np.testing.assert_allclose(vectors, tokens[:, 0], atol=1e-6)

    def test_a_model_without_any_is_named(self, tmp_path, pictures, monkeypatch):
        path = saved(tmp_path / "resnet", resnet())
        nothing = transformers.modeling_outputs.BaseModelOutput
        monkeypatch.setattr(transformers.ResNetModel, "forward", lambda *a, **k: nothing())
        with pytest.raises(UsageError, match=r"ResNetModel, which gives nothing.*is required"):
            load_image_encoder(str(path))


class TestTheClassifiersPreparation:
    def test_the_encoder_is_given_the_classifiers_pixels(self, encoder, pictures):
        classifier = load_classifier("embedded:clip")
        shared = load_image_encoder(str(encoder), prepare=classifier.prepare)
        own = load_image_encoder(str(encoder))
        model = transformers.AutoModel.from_pretrained(encoder).eval()
        with torch.no_grad():
            theirs = model(**classifier.prepare(pictures)).pooler_output
        np.testing.assert_allclose(shared.vectors(pictures), theirs, atol=1e-5)
        assert shared.fingerprint() == {**own.fingerprint(), "preprocessing": "classifier"}

    def test_another_size_is_refused(self, tmp_path):
        config = transformers.ViTConfig(**{**VISION, "image_size": 32})
        path = saved(tmp_path / "vit", transformers.ViTModel(config), size=32)
        with pytest.raises(UsageError, match="cannot read pictures as the classifier prepares"):
            load_image_encoder(str(path), prepare=load_classifier("embedded:clip").prepare)


def test_fingerprints_tell_models_apart(encoder):
    left, right = load_classifier("embedded:clip"), load_image_encoder(str(encoder))
    assert left.fingerprint() != right.fingerprint()
    assert left.fingerprint() == load_classifier("embedded:clip").fingerprint()


def test_other_models_are_refused(encoder):
    with pytest.raises(UsageError, match="an image and a text tower"):
        load_classifier(str(encoder))
    with pytest.raises(UsageError, match="reads pictures alone"):
        load_image_encoder("embedded:clip")
    with pytest.raises(UsageError, match="does not exist"):
        load_classifier("./nowhere")


def test_nothing_to_classify_is_refused():
    with pytest.raises(UsageError, match="at least one is required"):
        load_classifier("embedded:clip").image_vectors([])
