"""Tiles and free answers: what the processor hands over, and the scores that were collected."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling
from tiny_models import (
    example,
    idefics3,
    internvl,
    llava,
    llava_next,
    llava_onevision,
    picture,
    qwen2_vl,
)

from sightline.audit.attack import HIGH_BAND, LOW_BAND, PixelAttack, attack
from sightline.audit.probes import flip_thresholds
from sightline.core.errors import ModelError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request
from sightline.core.text import canonical_answer
from sightline.models.pixel_answers import AnswerScorer
from sightline.models.pixel_layouts import pixel_layout
from sightline.models.pixel_scaling import Scaling, across_first, as_pillow
from sightline.models.pixel_tiles import ROUNDED_LEVELS, Tiles
from sightline.models.pixels import PixelScorer

TILED = (llava_next, llava_onevision, idefics3, internvl)
SIZES = ((61, 43), (43, 61), (30, 90), (100, 100), (64, 64), (200, 31))


def black_and_white(seed, size):
    levels = np.random.default_rng(seed).integers(0, 2, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels * 255)


@pytest.fixture(scope="module", params=TILED, ids=lambda build: build.__name__)
def tiny(request):
    return request.param()


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.observer()


def hand_over(model, image):
    prompt = model.parts.inputs.prompt("What is it?", 1, where="The question")
    return model.parts.inputs.tensors([prompt], [(image,)])


def layout_of(model, image):
    processor = model.parts.inputs.processor.image_processor
    return pixel_layout(
        processor, lambda other: hand_over(model, other), image, hand_over(model, image), "it"
    )


@pytest.mark.parametrize("size", SIZES)
def test_pixels_lead_to_what_the_processor_hands_over(model, size):
    """Beside the clean picture itself: any other of its size, to the rounding of Pillow."""
    image = picture(3, size)
    layout = layout_of(model, image)
    assert isinstance(layout, Tiles)
    assert layout.clean == pytest.approx(np.asarray(image) / 255)
    wanted = hand_over(model, image)["pixel_values"]
    found = layout.handed_over(torch.from_numpy(layout.clean[None]), 1)
    assert found.shape == wanted.shape
    assert torch.allclose(found.float(), wanted, atol=1e-5)

    other = black_and_white(7, size)
    wanted = hand_over(model, other)["pixel_values"]
    found = layout.handed_over(torch.from_numpy(np.asarray(other)[None] / 255), 1)
    levels = (found - wanted).abs() * layout.scale.std.max() * 255
    scalings = max(len(view.scalings) for view in layout.views)
    # Both pictures were rounded, the clean one and the other.
    assert float(levels.max()) <= 2 * ROUNDED_LEVELS * scalings
    assert float(levels.mean()) < scalings


def test_pictures_and_repeats_stand_one_after_another(model):
    image = picture(3, (61, 43))
    layout = layout_of(model, image)
    both = torch.from_numpy(np.stack([layout.clean, 1 - layout.clean]))
    together = layout.handed_over(both, 2)
    alone = [layout.handed_over(one[None], 1) for one in both]
    assert torch.allclose(together, torch.cat([alone[0], alone[0], alone[1], alone[1]]))


def test_the_clean_picture_scores_as_collected_and_attacks_lower_the_score(model):
    question = example("1", "What is it?", choices=("a red one", "blue"))
    image = picture(3, (61, 43))
    (record,) = model.observe([question], [(image,)], Request(options=True, max_new_tokens=2))
    scorer = PixelScorer(model, question, image)
    collected = record.features[Feature.OPTION_LOGPROBS]
    clean = scorer.clean[None]
    assert scorer.values(clean)[0] == pytest.approx(collected, abs=2e-4)
    base = int(scorer.labels(clean)[0])

    def loss(pixels):
        return scorer.scores(pixels)[:, base]

    for band in (LOW_BAND, HIGH_BAND):
        found = attack(clean, loss, PixelAttack(steps=2, band=band))
        assert found.loss_after[0] < found.loss_before[0]
        assert found.largest[0] <= 8 / 255 + 1e-12
        assert 0 <= found.leakage[0] < 0.2
        assert found.images.min() >= 0
        assert found.images.max() <= 1
    still = attack(clean, loss, PixelAttack(epsilon=0.0, steps=1))
    assert np.array_equal(still.images, clean)
    assert still.leakage[0] == 0
    assert scorer.labels(still.images)[0] == base


def test_gradients_reach_the_pixels_of_the_picture(model):
    question = example("1", "What is it?", choices=("a red one", "blue"))
    scorer = PixelScorer(model, question, picture(3, (61, 43)))
    pixels = torch.from_numpy(scorer.clean[None]).requires_grad_()
    score = scorer.scores(pixels)[:, 0]
    (slope,) = torch.autograd.grad(score.sum(), pixels)
    assert bool((slope.abs().amax(-1) > 0).float().mean() > 0.9)
    step = 1e-3 * slope / slope.norm()
    with torch.no_grad():
        up, down = (scorer.scores(pixels + way * step)[0, 0] for way in (1, -1))
    assert float(up - down) == pytest.approx(2e-3 * float(slope.norm()), rel=0.1)


def test_another_way_of_cutting_is_refused(model):
    """A processor whose numbers no known way leads to: here, one that mirrors what it cuts."""
    image = picture(3, (61, 43))

    def mirrored(other):
        found = hand_over(model, other)
        return {**found, "pixel_values": found["pixel_values"].flip(-1)}

    processor = model.parts.inputs.processor.image_processor
    with pytest.raises(UsageError, match="no known way from the picture leads to"):
        pixel_layout(processor, mirrored, image, mirrored(image), "it")


def test_a_plain_picture_is_cut_as_any_other_of_its_size(model):
    """Every way of cutting gives the same tiles of one colour: noise tells them apart."""
    plain = layout_of(model, Image.new("RGB", (90, 40), "white"))
    assert plain.views == layout_of(model, picture(5, (90, 40))).views
    clean = torch.ones(1, 40, 90, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(plain.handed_over(clean, 1).sum(), clean)
    assert bool((slope > 0).all())  # values at the bounds can be changed


@pytest.mark.parametrize(
    "resample", [Resampling.BOX, Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS]
)
@pytest.mark.parametrize("want", [(24, 16), (64, 90), (64, 16), (20, 80), (61, 20)])
def test_pictures_are_scaled_as_pillow_does_it(resample, want):
    image = black_and_white(0, (43, 61))
    pixels = torch.from_numpy(np.asarray(image)[None] / 255)
    found = as_pillow((61, 43), want, resample).of(pixels)[0].numpy() * 255
    wanted = np.asarray(image.resize(want[::-1], resample), dtype=float)
    assert np.abs(found - wanted).max() <= ROUNDED_LEVELS
    assert np.abs(found - wanted).mean() < 0.6


def test_scaling_to_the_same_size_and_of_one_colour():
    pixels = torch.rand(2, 5, 7, 3, dtype=torch.float64)
    for down_first in (False, True):
        same = Scaling((5, 7), Resampling.BICUBIC, down_first)
        assert torch.equal(same.of(pixels), pixels)
    grey = torch.full((1, 5, 7, 3), 0.4, dtype=torch.float64)
    larger = across_first((5, 7), (31, 3), Resampling.LANCZOS).of(grey)
    assert larger.shape == (1, 31, 3, 3)
    assert torch.allclose(larger, torch.full_like(larger, 0.4))


def test_halving_by_boxes_is_the_mean_of_four():
    pixels = torch.rand(1, 4, 6, 3, dtype=torch.float64)
    found = across_first((4, 6), (2, 3), Resampling.BOX).of(pixels)
    assert torch.allclose(found, pixels.reshape(1, 2, 2, 3, 2, 3).mean((2, 4)))


def scored(scorer, pixels):
    with torch.inference_mode():
        return scorer.scores(torch.from_numpy(pixels)).numpy()


FREE = (llava, qwen2_vl, *TILED)


@pytest.fixture(scope="module", params=FREE, ids=lambda build: build.__name__)
def asked(request):
    """A model, a free question, its picture, and what was collected."""
    model = request.param().observer()
    question, image = example("1", "What is it?"), picture(3, (61, 43))
    (record,) = model.observe([question], [(image,)], Request(max_new_tokens=6))
    return model, question, image, record


def test_a_free_answer_scores_as_collected(asked):
    model, question, image, record = asked
    scorer = AnswerScorer(model, question, image, max_new_tokens=6)
    assert scorer.answers == (record.answer.text,)
    clean = scorer.clean[None]
    assert scored(scorer, clean)[0, 0] == pytest.approx(record.answer.logprobs.sum(), abs=1e-3)
    assert scorer.labels(clean).tolist() == [0]


def test_a_free_answer_flips_where_decoding_again_says_something_else(asked):
    model, question, image, _ = asked
    scorer = AnswerScorer(model, question, image, max_new_tokens=6)
    noisy = np.random.default_rng(0).random((4, *scorer.clean.shape))
    labels = scorer.labels(noisy)
    assert labels.tolist() == [int(scorer.labels(one[None])[0]) for one in noisy]
    alone = np.concatenate([scored(scorer, one[None]) for one in noisy])
    assert scored(scorer, noisy) == pytest.approx(alone, abs=1e-3)
    assert labels.any()  # random weights answer noise otherwise


def test_a_free_answer_is_attacked_by_its_log_probability(asked):
    model, question, image, _ = asked
    scorer = AnswerScorer(model, question, image, max_new_tokens=4)
    clean = scorer.clean[None]

    def loss(pixels):
        return scorer.scores(pixels)[:, 0]

    found = attack(clean, loss, PixelAttack(steps=3))
    assert found.loss_after[0] < found.loss_before[0]
    assert scored(scorer, found.images)[0, 0] == pytest.approx(found.loss_after[0], abs=1e-3)
    assert 0 <= found.leakage[0] < 0.2
    still = attack(clean, loss, PixelAttack(epsilon=0.0, steps=1))
    assert scorer.labels(still.images).tolist() == [0]
    filtered = flip_thresholds(
        [scorer.clean], np.array([0]), lambda p, _: scorer.labels(np.stack(p)), filtering="low"
    )
    assert filtered.kept[0] == 1  # the whole picture


def test_short_forms_decide_whether_a_free_answer_stays(asked, monkeypatch):
    """Articles and capitals are no flip, another word is: as graders and audits compare."""
    model, question, image, _ = asked
    scorer = AnswerScorer(model, question, image, max_new_tokens=4)
    said = iter(["The Dog.", "dog", "cat"])
    monkeypatch.setattr(AnswerScorer, "_text", lambda *_: next(said))
    scorer.answers = ("a dog",)
    pixels = np.repeat(scorer.clean[None], 3, 0)
    assert scorer.labels(pixels).tolist() == [0, 0, 1]
    assert canonical_answer(question, "The Dog.") == canonical_answer(question, "a dog")


def test_free_answers_that_cannot_be_scored_are_refused(asked):
    model, question, image, _ = asked
    two = replace(question, images=question.images * 2)
    with pytest.raises(UsageError, match="2 pictures"):
        AnswerScorer(model, two, image, max_new_tokens=4)
    scorer = AnswerScorer(model, question, image, max_new_tokens=4)
    with pytest.raises(ModelError, match="image token"):
        scorer._read.require_readable([5, model.parts.image_token_id])
