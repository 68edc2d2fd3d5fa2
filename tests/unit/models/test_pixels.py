"""The differentiable way from pixels to scores: the same numbers as collected, and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import example as drawn
from tiny_models import (
    instructblip,
    llava,
    paligemma,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_vl,
)
from tiny_models import picture as noise

from sightline.audit.attack import LOW_BAND, PixelAttack, attack
from sightline.audit.probes import flip_thresholds, noise_flips
from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.types import ImageRef
from sightline.data.examples import load_dataset
from sightline.data.perturbations import parse_condition
from sightline.models import load_model
from sightline.models.pixels import PixelScorer
from sightline.store.images import image_writer


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A multiple-choice question about a drawn scene, and its picture."""
    folder = tmp_path_factory.mktemp("scenes")
    dataset = load_dataset("scenes:test", limit=20, store_image=image_writer(folder))
    example = next(e for e in dataset.examples if e.choices)
    return example, Image.open(folder / example.images[0].path).convert("RGB")


@pytest.fixture(scope="module", params=["vlm", "vlm-small"])
def model(request):
    return load_model(f"embedded:{request.param}")


def test_the_clean_picture_scores_as_collected(model, asked):
    example, image = asked
    for picture in (image, image.resize((70, 70))):  # the processor scales the second
        (record,) = model.observe([example], [(picture,)], Request(options=True, max_new_tokens=4))
        scorer = PixelScorer(model, example, picture)
        assert scorer.clean.shape == (48, 48, 3)
        assert 0 <= scorer.clean.min() <= scorer.clean.max() <= 1
        collected = record.features[Feature.OPTION_LOGPROBS]
        assert scorer.values(scorer.clean[None])[0] == pytest.approx(collected, abs=1e-4)
        assert scorer.labels(scorer.clean[None])[0] == collected.argmax()


def test_pictures_of_a_batch_do_not_see_one_another(model, asked):
    scorer = PixelScorer(model, *asked)
    other = 1 - scorer.clean
    both = scorer.values(np.stack([scorer.clean, other]))
    assert both[0] == pytest.approx(scorer.values(scorer.clean[None])[0], abs=1e-4)
    assert both[1] == pytest.approx(scorer.values(other[None])[0], abs=1e-4)


def test_answers_of_ones_own_are_scored(model, asked):
    example, image = asked
    free = PixelScorer(
        model, replace(example, choices=None, references=("red",)), image, ["yes", "no"]
    )
    assert free.answers == ("yes", "no")
    assert (free.values(free.clean[None]) < 0).all()


def test_an_attack_lowers_the_margin_and_epsilon_zero_does_nothing(model, asked):
    scorer = PixelScorer(model, *asked)
    clean = scorer.clean[None]
    base = int(scorer.labels(clean)[0])

    def loss(pixels):
        return scorer.margin(pixels, base)

    found = attack(clean, loss, PixelAttack(steps=3, band=LOW_BAND))
    assert found.loss_after[0] < found.loss_before[0] - 0.1
    assert found.largest[0] <= 8 / 255 + 1e-12
    assert 0 <= found.leakage[0] < 0.1
    scores = scorer.values(found.images)[0]
    margin = scores[base] - np.delete(scores, base).max()
    assert margin == pytest.approx(found.loss_after[0], abs=1e-4)

    still = attack(clean, loss, PixelAttack(epsilon=0.0, steps=1))
    assert np.array_equal(still.images, clean)
    assert scorer.labels(still.images)[0] == base


def test_a_full_cyclic_shift_flips_nothing_and_moves_no_score(model, asked):
    example, image = asked
    shifted = parse_condition(f"translate:{image.width}").apply(image, example)
    clean, moved = (PixelScorer(model, example, picture) for picture in (image, shifted))
    assert np.array_equal(clean.clean, moved.clean)
    assert np.array_equal(clean.values(clean.clean[None]), moved.values(moved.clean[None]))
    half = parse_condition(f"translate:{image.width // 2}").apply(image, example)
    assert not np.array_equal(clean.clean, PixelScorer(model, example, half).clean)


def test_probes_ask_the_model_in_its_own_pixel_space(model, asked):
    scorer = PixelScorer(model, *asked)
    base = scorer.labels(scorer.clean[None])

    def label_of(pictures, rows):
        return scorer.labels(np.stack(pictures))

    images = [scorer.clean]
    low = flip_thresholds(images, base, label_of, filtering="low", cutoffs=[1.0, 0.5, 0.0])
    assert low.kept[0] == 1  # the whole picture
    blank = np.broadcast_to(scorer.clean.mean(axis=(0, 1)), scorer.clean.shape)
    assert (low.kept[2] == 1) <= (scorer.labels(blank[None].copy())[0] == base[0])
    settings = {"keys": np.array([3]), "bands": [LOW_BAND], "trials": 2, "sizes": [0.0, 0.9]}
    flips = noise_flips(images, base, label_of, **settings)
    assert not flips[:, 0].any()


def test_the_gradient_points_where_the_margin_goes(model, asked):
    scorer = PixelScorer(model, *asked)
    pixels = torch.from_numpy(scorer.clean[None]).requires_grad_()
    margin = scorer.margin(pixels, 0)
    (slope,) = torch.autograd.grad(margin.sum(), pixels)
    step = 1e-3 * slope / slope.norm()
    with torch.no_grad():
        up, down = scorer.margin(pixels + step, 0), scorer.margin(pixels - step, 0)
    assert float(up - down) == pytest.approx(2e-3 * float(slope.norm()), rel=0.05)


@pytest.mark.parametrize("build", [llava, paligemma, instructblip])
def test_answers_follow_the_prompt_as_the_model_reads_them(build):
    """Prefixes that are read both ways, queries, plain channels: the collected scores come out."""
    model = build().observer()
    question = drawn("1", "What is it?", choices=("a red one", "blue"))
    image = noise(3, (61, 43))
    (record,) = model.observe([question], [(image,)], Request(options=True, max_new_tokens=2))
    scorer = PixelScorer(model, question, image)
    collected = record.features[Feature.OPTION_LOGPROBS]
    assert scorer.values(scorer.clean[None])[0] == pytest.approx(collected, abs=2e-4)


@pytest.mark.parametrize("build", [qwen2_vl, qwen2_5_vl, qwen3_vl])
def test_patches_lead_back_to_the_picture(build):
    """Models whose processor cuts freely: the pixels are found again, scores and gradients too."""
    model = build().observer()
    question = drawn("1", "What is it?", choices=("a red one", "blue"))
    image = noise(3, (61, 43))
    (record,) = model.observe([question], [(image,)], Request(options=True, max_new_tokens=2))
    scorer = PixelScorer(model, question, image)
    assert scorer.clean.shape[2] == 3
    assert scorer.clean.shape[0] % 16 == scorer.clean.shape[1] % 16 == 0
    own = np.asarray(image.resize(scorer.clean.shape[1::-1], Image.Resampling.BICUBIC)) / 255
    assert np.abs(scorer.clean - own).max() < 0.01
    collected = record.features[Feature.OPTION_LOGPROBS]
    both = scorer.values(np.stack([scorer.clean, 1 - scorer.clean]))
    assert both[0] == pytest.approx(collected, abs=2e-4)
    assert np.abs(both[1] - both[0]).max() > 1e-3
    base = int(both[0].argmax())
    found = attack(
        scorer.clean[None], lambda pixels: scorer.scores(pixels)[:, base], PixelAttack(steps=2)
    )
    assert found.loss_after[0] < found.loss_before[0]


def test_yes_and_no_are_scored_as_replies(model, asked):
    example, image = asked
    question = replace(example, choices=None, question="Is it red?", references=("yes",))
    (record,) = model.observe(
        [question], [(image,)], Request(max_new_tokens=2, layers=(1.0,), channels=True)
    )
    scorer = PixelScorer(model, question, image)
    assert scorer.answers == ("no", "yes")
    collected = record.features[Feature.YES_NO_LOGPROBS][::-1]
    assert scorer.values(scorer.clean[None])[0] == pytest.approx(collected, abs=1e-4)


def test_what_has_no_pixels_to_attack_is_refused(asked):
    example, image = asked
    with pytest.raises(UsageError, match="FakeModel"):
        PixelScorer(load_model("fake"), example, image)
    tiny = llava().observer()
    two = (*example.images, ImageRef("b.png", "0" * 64))
    with pytest.raises(UsageError, match="2 pictures"):
        PixelScorer(tiny, replace(example, images=two), image)
    with pytest.raises(UsageError, match="0 answers"):
        PixelScorer(tiny, replace(example, choices=None, references=("red",)), image)
