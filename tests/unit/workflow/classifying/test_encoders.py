"""Encoders by what the user names, and the published code's way of using them."""

import random

import numpy as np
import pytest

from sightline import api
from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.data.image_sets import load_image_set
from sightline.models import load_classifier
from sightline.store.images import image_writer
from sightline.store.layout import CLASSES, SUPPORT
from sightline.store.run import RunStore
from sightline.workflow.classifying.encoders import load_encoders
from sightline.workflow.classifying.reading import read_embedded, read_support, read_texts
from sightline.workflow.classifying.scoring import score_embedded

torch = pytest.importorskip("torch", reason="the models extra is not installed")
transformers = pytest.importorskip("transformers", reason="the models extra is not installed")

DATA, POOL = "digits:test?n=60", "digits:train?per_class=8"


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    """A random DINOv2 that reads pictures of the classifier's size, normalised in its own way."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoders") / "dino"
    config = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=48,
        patch_size=8,
    )
    transformers.Dinov2Model(config).eval().save_pretrained(path)
    transformers.ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def vectors_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "far.npz"
    np.savez(path, keys=["a"], vectors=np.ones((1, 3), np.float32))
    return path


@pytest.fixture(scope="module")
def released(tmp_path_factory, dino):
    """A run made as the published code does it."""
    path = tmp_path_factory.mktemp("released") / "run"
    api.classify(
        "embedded:clip",
        DATA,
        path,
        encoders=[f"{dino}?pool=mean"],
        encoder_preprocessing="classifier",
        support=POOL,
        support_rule="compat",
        shots=4,
        views=(),
    )
    return path


def seen_of(run):
    return read_embedded(RunStore.open(run), read_texts(RunStore.open(run / CLASSES)))


class TestNames:
    def test_pooling_stands_behind_the_question_mark(self, dino):
        own, mean = load_encoders([str(dino), f"{dino}?pool=mean"], {})
        assert (own.name, mean.name) == ("dino", "dino-mean")
        assert mean.fingerprint() == {**own.fingerprint(), "pool": "mean"}

    @pytest.mark.parametrize("query", ["", "pool", "pool=max", "pool=mean&x=1", "x=mean"])
    def test_nothing_else_does(self, dino, query):
        with pytest.raises(UsageError, match="one of model, cls, mean"):
            load_encoders([f"{dino}?{query}"], {})

    def test_a_file_of_vectors_has_no_tokens(self, vectors_file):
        with pytest.raises(UsageError, match="only a model has tokens"):
            load_encoders([f"{vectors_file}?pool=mean"], {})

    def test_a_folder_of_that_very_name_goes_first(self, dino, tmp_path):
        odd = tmp_path / "dino?pool=mean"
        odd.symlink_to(dino)
        (encoder,) = load_encoders([str(odd)], {})
        assert "pool" not in encoder.fingerprint()


class TestPreprocessing:
    def test_the_classifiers_needs_an_encoder_that_looks(self, vectors_file):
        clip = load_classifier("embedded:clip")
        for specs in ([], [str(vectors_file)]):
            with pytest.raises(UsageError, match="none of which looks at pictures"):
                load_encoders(specs, {}, preprocessing="classifier", classifier=clip)

    def test_another_word_is_refused(self, unchecked):
        encoders = unchecked("sightline.workflow.classifying.encoders")
        with pytest.raises(UsageError, match="one of own, classifier is required"):
            encoders.load_encoders([], {}, preprocessing="theirs")

    def test_it_is_part_of_what_a_run_is(self, released):
        (entry,) = RunStore.open(released).manifest.model["encoders"]
        assert entry["encoder"] == "dino-mean"
        assert entry["model"]["pool"] == "mean"
        assert entry["model"]["preprocessing"] == "classifier"


def test_every_step_is_the_published_codes(released, dino, tmp_path):
    """Pictures to scores anew: one draw, shared pixels, mean of tokens, raw averages, κ."""
    clip = load_classifier("embedded:clip")
    model = transformers.AutoModel.from_pretrained(dino).eval()
    seen, writer = seen_of(released), image_writer(tmp_path)
    draws = read_support(released, seen, None)
    assert RunStore.open(released / SUPPORT).manifest.settings["rule"] == "compat"

    pool = load_image_set(POOL, store_image=writer)
    classes = [e.references[0] for e in pool.examples]
    drawn = []
    for name in seen.texts.classes:
        random.seed(0)
        drawn += random.sample([i for i, c in enumerate(classes) if c == name], 4)
    (rows,) = draws.rows
    ids = [draws.pictures.records[row].example.id for row in rows]
    assert ids == [pool.examples[i].id for i in drawn]

    def tokens(images):
        with torch.no_grad():
            given = clip.prepare([picture(tmp_path, e) for e in images])
            return model(**given).last_hidden_state.mean(dim=1).numpy().astype(float)

    test = load_image_set(DATA, store_image=writer).examples
    assert [r.example.id for r in seen.records] == [e.id for e in test]
    shots = tokens([pool.examples[i] for i in drawn]).reshape(10, 4, -1)
    prototypes = shots.mean(axis=1)
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    query = tokens(test)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    image = np.stack([r.array(Feature.IMAGE_VECTOR) for r in RunStore.open(released).records()])
    logits = seen.texts.logit_scale * image.astype(float) @ seen.texts.vectors.astype(float).T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    each, label = np.arange(len(p)), p.argmax(1)
    kappa = p.max(1) + np.einsum("nd,nd->n", query, prototypes[label])

    (scored,), _, _ = score_embedded(seen, [], draws, ("trustvlm_aux_compat",))
    assert p[each, label].min() > 0
    np.testing.assert_allclose(2 - scored.results[0].uncertainty, kappa, rtol=0, atol=1e-5)


def picture(folder, example):
    from PIL import Image

    with Image.open(folder / example.images[0].path) as opened:
        return opened.convert("RGB")
