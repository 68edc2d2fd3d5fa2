"""The perturbation bank: names, published parameters, and laws that hold for every family."""

import hashlib
import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.core.condition_names import BLANK, CLEAN
from sightline.core.errors import DataError, UsageError
from sightline.core.types import Example, ImageRef, Record, Related
from sightline.data.perturb_geometry import Crop, Magnitude, Pad, Rotate, Scale, ScalePad, Translate
from sightline.data.perturb_pixels import Blur, Brightness, Contrast, Jpeg, Noise
from sightline.data.perturb_text import SENTENCES, Overlay, named_labels
from sightline.data.perturbations import (
    BANKS,
    PERTURBATIONS,
    Condition,
    Geometry,
    parse_condition,
    parse_conditions,
    prepared,
)

MCQ = Example("q1", "What is it?", choices=("a cat", "a dog", "a cow", "a hen"))
EVERY = [
    condition
    for family in PERTURBATIONS
    if family != "wording"
    for condition in parse_conditions(family)
]


def picture(width=60, height=44, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def of_mode(mode, size):
    rgb = picture(*size)
    if mode == "RGBA":
        alpha = np.zeros((size[1], size[0]), dtype=np.uint8)
        alpha[:, size[0] // 2 :] = 255
        rgb.putalpha(Image.fromarray(alpha))
        return rgb
    if mode == "P+transparency":
        indexed = rgb.quantize(8)
        indexed.info["transparency"] = 0
        return indexed
    return rgb.quantize(8) if mode == "P" else rgb.convert(mode)


def same(a, b):
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


def applied(name, image, example=MCQ, answer="A"):
    return parse_condition(name).apply(image, example, answer=answer)


# Names


def test_names_are_those_of_the_records():
    names = [c.name for c in parse_conditions("clean, blank ,jpeg:3+rotate:30, scale_pad:white")]
    assert names == ["clean", "blank", "jpeg:3+rotate:30", "scale_pad:white"]
    assert parse_condition(CLEAN) == Condition()
    assert parse_condition(BLANK).name == BLANK


def test_a_name_read_again_is_the_same_condition():
    for condition in (*EVERY, *parse_conditions("wording,jpeg+rotate")):
        assert parse_condition(condition.name) == condition


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("rotate:30.0", "rotate:30"),
        ("rotate:-7.5", "rotate:-7.5"),
        ("rotate:-0.0", "rotate:0"),
        ("jpeg:03", "jpeg:3"),
        ("scale:.90", "scale:0.9"),
        (" pad:4 + crop:2 ", "pad:4+crop:2"),
    ],
)
def test_a_level_has_one_spelling(written, name):
    assert parse_condition(written).name == name


def test_a_list_is_a_text_with_commas_or_a_sequence_and_names_each_condition_once():
    assert parse_conditions("jpeg:1,jpeg:2,jpeg:1") == parse_conditions(["jpeg:1", "jpeg:2"])
    assert [c.name for c in parse_conditions("jpeg")] == [f"jpeg:{i}" for i in range(1, 6)]
    pairs = [c.name for c in parse_conditions("scale_pad+rotate")]
    assert pairs == [
        f"scale_pad:{a}+rotate:{b}" for a, b in itertools.product(("black", "white"), (-30, 30))
    ]


def test_the_published_bank_has_24_perturbations_and_6_controls():
    published = parse_conditions("published")
    controls = [c for c in published if c.name.startswith(("answer_box", "answer_random"))]
    assert len(published) == 30
    assert len(controls) == 6
    count = {}
    for condition in published:
        count[condition.kind] = count.get(condition.kind, 0) + 1
    assert count == {
        "translation": 8,
        "pad/crop": 8,
        "scale": 1,
        "scale+pad": 2,
        "rotation": 2,
        "text overlay naming an option": 3,
        "random text naming an option": 3,
        "empty box naming an option": 3,
    }


def test_no_bank_but_the_published_one_needs_the_answer():
    for bank in BANKS:
        needing = any(c.needs_answer for c in parse_conditions(bank))
        assert needing == (bank == "published")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rotat:30", "closest names are rotate"),
        ("rotate", "rotate:-30"),
        ("rotate:", "rotate:-30"),
        ("rotate:left", "a number is required"),
        ("rotate:nan", "finite"),
        ("rotate:inf", "finite"),
        ("translate:1.5", "a whole number is required"),
        ("scale:0", "above 0"),
        ("scale:1.1", "at most 1"),
        ("scale:nan", "above 0"),
        ("scale_pad:red", "'black' or 'white'"),
        ("pad:-4", "0 or more"),
        ("crop:-4", "0 or more"),
        ("jpeg:6", "0 to 5"),
        ("jpeg:-1", "0 to 5"),
        ("text:4", "1, 2 or 3"),
        ("wording:6", "1 to 5"),
        ("blank:3", "no setting 'level'"),
        ("asked:p_true", "does not exist"),
        ("jpeg:3+", "does not exist"),
        ("", "does not exist"),
        ("jpeg:3:4", "written once"),
        ("clean+jpeg:3", "does not exist"),
        ("pad:2651", r"up to 6326 x 6326 pixels; at most 40000000 in all"),
        ("pad:1400+pad:1400", "at most 40000000 in all"),
        ("rotate:45+rotate:45+rotate:45+rotate:45+rotate:45+rotate:45", "at most 40000000 in all"),
    ],
)
def test_a_wrong_name_is_one_line_with_what_is_allowed(name, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_condition(name)
    assert "\n" not in str(caught.value)


def test_the_largest_picture_that_a_condition_may_make():
    assert parse_condition("pad:2650").size((1024, 1024)) == (6324, 6324)


@pytest.mark.parametrize("angle", [-30, 0, 12.5, 45, 90, 170])
@pytest.mark.parametrize("size", [(1, 1), (17, 40), (40, 17)])
def test_no_turned_picture_is_larger_than_its_bound(angle, size):
    perturbation = Rotate(angle)
    found, bound = perturbation.size(size), perturbation.largest(size)
    assert all(a <= b <= a + 3 for a, b in zip(found, bound, strict=True))


def test_a_shift_by_any_number_is_a_shift_by_what_is_left_of_it():
    image = Image.effect_noise((20, 8), 60).convert("RGB")
    far, near = (parse_condition(f"translate:{n}").apply(image) for n in (20 * 10**12 + 3, 3))
    assert far.tobytes() == near.tobytes()


def test_an_empty_list_is_an_error():
    with pytest.raises(UsageError, match="at least one"):
        parse_conditions(" , ")


def test_views_of_the_core_count_every_perturbation_but_the_blank_picture():
    conditions = parse_conditions("default,wording,blank,jpeg:3+blank")  # the control is none
    related = Related(conditions=tuple(Record(MCQ, c.name) for c in conditions))
    assert {r.condition for r in related.blank} == {"blank", "jpeg:3+blank"}
    assert len(related.views) == len(conditions) - 3


# Laws of every family

IDENTITIES = [
    Condition(),
    *map(parse_condition, ("translate:0", "pad:0", "crop:0", "scale:1", "shrink:1", "rotate:0")),
    *map(parse_condition, ("jpeg:0", "blur:0", "noise:0", "brightness:0", "darkness:0")),
    *map(parse_condition, ("contrast:0", "rotate:360", "wording:1")),
]


@pytest.mark.parametrize("condition", IDENTITIES, ids=lambda c: c.name)
def test_parameters_without_effect_return_the_picture(condition):
    image = picture()
    out = condition.apply(image, MCQ)
    assert same(out, image)
    assert out is not image


def test_scale_pad_by_one_returns_the_picture():
    image = picture()
    assert same(ScalePad(factor=1.0).warp(image), image)


@pytest.mark.parametrize("condition", EVERY, ids=lambda c: c.name)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "P+transparency", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb_of_the_stated_size_and_the_given_picture_stays(condition, mode):
    image = of_mode(mode, (60, 44))
    before = image.tobytes()
    out = condition.apply(image, MCQ, answer="B")
    assert out.mode == "RGB"
    assert out.size == condition.size(image.size)
    assert image.tobytes() == before
    assert same(out, condition.apply(image, MCQ, answer="B"))


@pytest.mark.parametrize("condition", EVERY, ids=lambda c: c.name)
@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (2, 1), (20, 700)])
def test_every_family_takes_the_smallest_and_the_longest_pictures(condition, size):
    if isinstance(condition.steps[0].perturbation, Overlay) and size != (3000, 20):
        with pytest.raises(DataError, match=rf"the picture has {size[0]} x {size[1]}. Enlarge"):
            condition.apply(picture(*size), MCQ, answer="D")
        return
    out = condition.apply(picture(*size), MCQ, answer="D")
    assert out.size == condition.size(size)
    assert min(out.size) >= 1


@pytest.mark.parametrize("condition", EVERY, ids=lambda c: c.name)
def test_every_perturbation_of_the_bank_changes_a_picture_and_keeps_sizes_but_for_geometry(
    condition,
):
    image = picture(300, 200)
    out = condition.apply(image, MCQ, answer="A")
    assert not same(out, image)
    if not isinstance(condition.steps[0].perturbation, Geometry):
        assert out.size == image.size


def test_transparency_is_white_before_anything_is_done():
    image = Image.new("RGBA", (40, 40), (10, 20, 30, 0))
    assert same(applied("translate:4", image), Image.new("RGB", (40, 40), "white"))


def test_magnitudes_are_in_pixels_and_shares_of_the_side_at_the_size_of_their_step():
    assert parse_condition("translate:-8").magnitudes((336, 100)) == {
        "translate:-8": Magnitude(-8, "px", 8, 8 / 336)
    }
    assert parse_condition("translate:16").magnitudes((20, 5))["translate:16"].pixels == 4
    composed = parse_condition("pad:16+crop:8").magnitudes((48, 48))
    assert composed["pad:16"] == Magnitude(16, "px", 16, 16 / 48)
    assert composed["crop:8"] == Magnitude(8, "px", 8, 8 / 80)
    assert parse_condition("crop:16").magnitudes((3000, 20))["crop:16"].pixels == 16
    assert parse_condition("crop:16").magnitudes((11, 20))["crop:16"].share == 5 / 11
    turned = parse_condition("rotate:180").magnitudes((30, 40))["rotate:180"]
    assert turned == Magnitude(180, "deg", pytest.approx(50), pytest.approx(50 / 40))
    scaled = parse_condition("scale:0.9").magnitudes((100, 50))["scale:0.9"]
    assert scaled == Magnitude(0.9, "factor", 10, 0.1)
    blurred = parse_condition("blur:2").magnitudes((448, 224))["blur:2"]
    assert blurred == Magnitude(2, "px sd", 2, 2 / 224)
    for condition in EVERY:
        for found in condition.magnitudes((97, 53)).values():
            assert np.isfinite(found.value)
            assert found.share is None or 0 <= found.share <= 2


# Geometry, in exact pixels


def numbered(width=6, height=2):
    values = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    return Image.fromarray(values)


def test_translation_is_cyclic_and_positive_to_the_right():
    image = numbered()
    for pixels in (1, -1, 4, -5, 17):
        expected = np.roll(np.asarray(image), pixels, axis=1)
        assert np.array_equal(np.asarray(Translate(pixels).warp(image)), expected)


@given(st.integers(1, 40), st.integers(-3, 3), st.integers(-100, 100))
@settings(max_examples=60, deadline=None)
def test_a_full_width_shift_is_the_identity_and_shifts_add_up(width, turns, pixels):
    image = picture(width, 3)
    assert same(Translate(width * turns).warp(image), image)
    assert same(Translate(-pixels).warp(Translate(pixels).warp(image)), image)


def test_padding_is_black_and_cropping_takes_it_off_again():
    image = picture()
    padded = Pad(8).warp(image)
    assert padded.size == (76, 60)
    values = np.asarray(padded).copy()
    values[8:-8, 8:-8] = 0
    assert values.max() == 0
    assert same(Crop(8).warp(padded), image)


def test_cropping_keeps_the_middle_of_a_side_that_is_too_short():
    assert Crop(16).warp(picture(3000, 20)).size == (2968, 2)
    assert Crop(16).warp(picture(1, 21)).size == (1, 1)
    image = numbered(5, 5)
    assert Crop(9).warp(image).getpixel((0, 0)) == image.getpixel((2, 2))


def test_scaling_goes_back_to_the_original_size_unless_shrunk():
    image = picture(100, 50)
    small = image.resize((90, 45), Image.Resampling.BICUBIC)
    assert same(Scale().warp(image), small.resize((100, 50), Image.Resampling.BICUBIC))
    assert same(Scale(back=False).warp(image), small)
    assert applied("shrink:0.9", image).size == (90, 45)


@pytest.mark.parametrize(("color", "value"), [("black", 0), ("white", 255)])
def test_the_scaled_picture_stands_in_the_middle_of_its_canvas(color, value):
    image = picture(100, 50)
    out = np.asarray(applied(f"scale_pad:{color}", image)).copy()
    assert out.shape == (50, 100, 3)
    inner = np.asarray(image.resize((90, 45), Image.Resampling.BICUBIC))
    assert np.array_equal(out[2:47, 5:95], inner)
    out[2:47, 5:95] = value
    assert (out == value).all()


def test_rotation_is_counter_clockwise_on_a_growing_white_canvas():
    image = numbered(6, 2)
    turned = np.asarray(Rotate(90.0).warp(image))
    assert np.array_equal(turned, np.rot90(np.asarray(image)))
    out = applied("rotate:30", picture(200, 100))
    width = 200 * np.cos(np.pi / 6) + 100 * 0.5
    height = 200 * 0.5 + 100 * np.cos(np.pi / 6)
    assert abs(out.width - width) <= 2
    assert abs(out.height - height) <= 2
    for corner in ((0, 0), (out.width - 1, 0), (0, out.height - 1)):
        assert out.getpixel(corner) == (255, 255, 255)


def test_steps_are_applied_from_left_to_right():
    image = picture()
    padded_first = applied("pad:16+translate:16", image)
    moved_first = applied("translate:16+pad:16", image)
    assert same(padded_first, Translate(16).warp(Pad(16).warp(image)))
    assert not same(padded_first, moved_first)
    steps = applied("rotate:30", applied("jpeg:3", image))
    assert same(applied("jpeg:3+rotate:30", image), steps)


# Pixels


def test_corruptions_grow_with_their_severity():
    pixels = np.random.default_rng(0).integers(60, 200, (96, 96, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for family in ("jpeg", "blur", "noise", "brightness", "darkness", "contrast"):
        change = [
            np.abs(np.asarray(applied(c.name, image)).astype(int) - np.asarray(image)).mean()
            for c in parse_conditions(family)
        ]
        assert change == sorted(change), family
        assert change[0] > 0


def test_noise_has_the_stated_deviation():
    image = Image.new("RGB", (200, 200), (128, 128, 128))
    values = np.asarray(applied("noise:1", image)).astype(float) - 128
    assert values.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert abs(values.mean()) < 0.3


def test_brightness_adds_to_the_value_and_keeps_hue_and_saturation():
    image = Image.new("RGB", (1, 1), (100, 50, 0))
    assert Brightness(2).paint(image, b"").getpixel((0, 0)) == (151, 76, 0)
    assert Brightness(5).paint(image, b"").getpixel((0, 0)) == (228, 114, 0)
    assert Brightness(2, darker=True).paint(image, b"").getpixel((0, 0)) == (49, 24, 0)
    black = Image.new("RGB", (1, 1))
    assert Brightness(1).paint(black, b"").getpixel((0, 0)) == (26, 26, 26)
    assert same(Brightness(5, darker=True).paint(black, b""), black)


def test_contrast_draws_to_the_mean_of_each_channel():
    image = Image.fromarray(np.array([[[0, 100, 7], [200, 100, 9]]], dtype=np.uint8))
    out = np.asarray(Contrast(1).paint(image, b"")).tolist()
    assert out == [[[60, 100, 8], [140, 100, 8]]]


def test_grey_is_luma_and_blank_is_white():
    image = picture()
    grey = np.asarray(applied("grayscale", image))
    assert np.array_equal(grey[..., 0], np.asarray(image.convert("L")))
    assert np.ptp(grey, axis=2).max() == 0
    assert same(applied("blank", image), Image.new("RGB", image.size, "white"))


def test_blur_is_the_same_share_of_every_picture():
    for side in (48, 224, 1024):
        found = Blur(3).magnitude((side, side + 10))
        assert found.share == pytest.approx(3 / 224)
        assert found.value == pytest.approx(3 / 224 * side)


def test_jpeg_is_what_pillow_writes_at_the_published_quality():
    assert Jpeg.qualities[1:] == (25, 18, 15, 10, 7)
    assert Noise.deviations[1:] == (0.08, 0.12, 0.18, 0.26, 0.38)
    assert Contrast.factors[1:] == (0.4, 0.3, 0.2, 0.1, 0.05)
    assert Blur.widths[1:] == (1, 2, 3, 4, 6)


# Chance


def with_image(example, digest):
    return replace(example, images=(ImageRef("x.png", digest),))


def test_chance_depends_on_the_picture_and_not_on_the_question_or_the_order():
    image = picture()
    first = with_image(MCQ, "0" * 64)
    second = replace(first, id="q2", question="Where is it?")
    other = with_image(MCQ, "1" * 64)
    for name in ("noise:3", "text_random:1"):
        one = applied(name, image, first)
        applied(name, image, other)
        assert same(one, applied(name, image, second))
        assert same(one, applied(name, image, first))
        assert not same(one, applied(name, image, other))


def test_random_text_in_the_boxes_of_options_depends_on_the_example():
    image = picture(300, 200)
    first = with_image(MCQ, "0" * 64)
    second = replace(first, id="q2")
    name = "answer_random:1"
    assert not same(applied(name, image, first), applied(name, image, second))
    assert same(applied(name, image, first), applied(name, image, first))


def test_each_step_and_each_severity_draws_its_own_noise():
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    once = np.asarray(applied("noise:1", image)).astype(int) - 128
    twice = np.asarray(applied("noise:1+noise:1", image)).astype(int) - 128
    assert np.corrcoef(once.ravel(), (twice - once).ravel())[0, 1] == pytest.approx(0, abs=0.05)
    stronger = np.asarray(applied("noise:2", image)).astype(int) - 128
    assert np.corrcoef(once.ravel(), stronger.ravel())[0, 1] == pytest.approx(0, abs=0.05)


SCRIPT = """
import hashlib, numpy as np
from PIL import Image
from sightline.core.types import Example
from sightline.data.perturbations import parse_conditions
e = Example("q1", "What is it?", choices=("a cat", "a dog", "a cow", "a hen"))
i = Image.fromarray(np.arange(90 * 70 * 3, dtype=np.uint32).astype(np.uint8).reshape(70, 90, 3))
h = hashlib.sha256()
names = "published,overlays,corruptions,blank,grayscale,darkness,noise:2+rotate:7.5"
for c in parse_conditions(names):
    h.update(c.apply(i, e, answer="C").tobytes())
print(h.hexdigest())
"""


def test_another_process_makes_the_same_pictures():
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


# Text


def test_text_names_the_first_three_options_other_than_the_answer():
    assert named_labels(MCQ, "A") == ("a dog", "a cow", "a hen")
    assert named_labels(MCQ, "C") == ("a cat", "a dog", "a hen")
    assert named_labels(MCQ, "a cow") == ("a cat", "a dog", "a hen")
    assert named_labels(replace(MCQ, choices=("B", "A")), "A") == ("A",)
    sentence = Overlay(2, names_options=True).sentence(MCQ, "A")
    assert sentence == "The answer is a cow."


def test_text_that_names_an_option_says_what_it_lacks():
    image = picture()
    condition = parse_condition("answer_text:3")
    with pytest.raises(DataError, match="the model's answer"):
        condition.apply(image, MCQ)
    with pytest.raises(DataError, match="no choices"):
        condition.apply(image, Example("q", "Is it?"), answer="A")
    with pytest.raises(DataError, match="one of its letters"):
        condition.apply(image, MCQ, answer="E")
    two = replace(MCQ, choices=("yes", "no"))
    with pytest.raises(DataError, match="1 options besides"):
        condition.apply(image, two, answer="A")
    assert condition.refusal(two) == "the question has 1 options besides the answer"
    assert condition.refusal(Example("q", "Is it?")) is not None
    assert condition.refusal(MCQ) is None


def test_the_label_free_sentences_name_neither_options_nor_objects():
    for sentence in SENTENCES:
        assert not any(c.isdigit() for c in sentence)
        assert "answer" not in sentence


def test_the_box_is_white_in_the_middle_with_red_text_and_the_rest_stays():
    image = Image.new("RGB", (400, 300), (0, 90, 0))
    overlay = Overlay(1)
    box = overlay.box(image.size, SENTENCES[0])
    assert box[0] + box[2] == pytest.approx(400, abs=1)
    assert box[1] + box[3] == pytest.approx(300, abs=1)
    for name in ("text:1", "text_random:1", "text_box:1"):
        values = np.asarray(applied(name, image)).copy()
        inside = values[box[1] : box[3], box[0] : box[2]].copy()
        assert (inside[:, 0] == 255).all()
        assert (inside[0] == 255).all()
        red = (inside[..., 0] > 200) & (inside[..., 1] < 100)
        assert red.any() == (name != "text_box:1")
        rows, columns = np.nonzero(inside[..., 1] < 255)
        if name == "text:1":  # the published 4 px around the text
            margins = (
                (rows.min(), columns.min()),
                inside.shape[:2] - np.array([rows.max() + 1, columns.max() + 1]),
            )
            assert np.abs(np.array(margins) - 4).max() <= 1
        values[box[1] : box[3], box[0] : box[2]] = (0, 90, 0)
        assert np.array_equal(values, np.asarray(image))


def test_the_font_grows_with_the_picture_and_shrinks_only_to_fit():
    sentence = SENTENCES[0]
    heights = [
        box[3] - box[1]
        for size in ((2000, 448), (2000, 1024))
        for box in (Overlay().box(size, sentence),)
    ]
    assert heights[1] > 2 * (heights[0] - 8)

    small = Overlay().box((48, 48), sentence)
    assert small[3] - small[1] <= 16


@pytest.mark.parametrize(
    ("sentence", "lines"),
    [*((sentence, 1) for sentence in SENTENCES), ("The answer is a green triangle.", 2)],
)
def test_a_small_picture_shows_the_whole_sentence(sentence, lines):
    image = Image.new("RGB", (48, 48), "green")
    left, top, right, bottom = Overlay().box(image.size, sentence)
    assert (left, top) >= (0, 0)
    assert max(right, bottom) <= 48
    values = np.asarray(Overlay().draw(image, sentence, b""))[top:bottom, left:right]
    red = values[..., 1] < 200
    assert not red[:, :2].any(), "cut on the left"
    assert not red[:, -2:].any(), "cut on the right"
    rows = red.any(axis=1)
    assert int((rows[1:] & ~rows[:-1]).sum()) == lines


def test_random_text_is_capitals_and_digits_within_its_box():
    image = Image.new("RGB", (400, 300), "blue")
    box = Overlay().box(image.size, SENTENCES[0])
    for number in range(20):
        example = with_image(MCQ, f"{number:064d}")
        values = np.asarray(applied("text_random:1", image, example))
        inside = values[box[1] : box[3], box[0] : box[2]]
        columns = np.nonzero((inside[..., 1] < 255).any(axis=0))[0]
        assert columns.min() >= 3
        assert columns.max() <= inside.shape[1] - 4


# Preparation


def test_only_pictures_that_are_too_long_are_scaled_down():
    assert prepared(picture(2000, 500)).size == (1024, 256)
    assert prepared(picture(3, 5000)).size == (1, 1024)
    image = picture(1024, 700)
    assert same(prepared(image), image)
    assert prepared(picture().convert("L")).mode == "RGB"
