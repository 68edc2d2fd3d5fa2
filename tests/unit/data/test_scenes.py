"""Generated pictures and questions: seeded, true, disjoint where they must be, fast."""

import time
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import UsageError
from sightline.data.question_writers import POSITIONS, WRITERS
from sightline.data.questions import QUESTION_TYPES, UNSEEN, ask, pictures
from sightline.data.rendering import COLORS, DIGIT, EMPTY, SHAPES, handwritten_digits, render
from sightline.data.scenes import (
    BENCHMARK_TYPES,
    SPLITS,
    demo_examples,
    draw_scenes,
    generate,
    weighted_types,
)


def test_the_same_seed_gives_the_same_pixels_and_questions():
    first, again = generate("test", 40, 3, 2), generate("test", 40, 3, 2)
    assert np.array_equal(first.images, again.images)
    assert first.items == again.items
    assert not np.array_equal(first.images, generate("test", 40, 4, 2).images)
    assert not np.array_equal(first.images, generate("calibration", 40, 3, 2).images)


def test_images_are_small_rgb_pictures():
    images = generate("train", 5).images
    assert images.shape == (5, 48, 48, 3)
    assert images.dtype == np.uint8


def test_the_digits_are_those_of_the_source():
    images, labels, partition = handwritten_digits()
    assert images.shape == (1797, 8, 8)
    assert images.max() == 16
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert set(partition.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_uses_only_its_own_handwriting(split):
    _, labels, partition = handwritten_digits()
    scenes = draw_scenes(split, 300, np.random.default_rng(0))
    glyphs = scenes.glyph[scenes.glyph >= 0]
    assert set(partition[glyphs].tolist()) == {SPLITS[split].partition}
    assert np.array_equal(labels[glyphs], scenes.digit[scenes.kind == DIGIT])


def _combinations(split):
    scenes = draw_scenes(split, 2000, np.random.default_rng(1))
    there = (scenes.kind != EMPTY) & (scenes.kind != DIGIT)
    names = tuple(COLORS)
    kinds, colors = scenes.kind[there].tolist(), scenes.color[there].tolist()
    return Counter((SHAPES[k], names[c]) for k, c in zip(kinds, colors, strict=True))


def test_unseen_combinations_occur_in_their_own_split_only():
    for split in SPLITS:
        found = sum(_combinations(split)[pair] for pair in UNSEEN)
        assert (found > 0) == (split == "unseen")


def test_the_prior_split_gives_shapes_their_usual_color():
    counts = _combinations("train-prior")
    circles = sum(n for (shape, _), n in counts.items() if shape == "circle")
    assert counts["circle", "red"] / circles > 0.55
    counts = _combinations("prior-removed")
    circles = sum(n for (shape, _), n in counts.items() if shape == "circle")
    assert counts["circle", "red"] / circles < 0.2


def test_words_stand_where_no_object_is():
    scenes = draw_scenes("test", 1000, np.random.default_rng(2))
    written = np.flatnonzero(scenes.word >= 0)
    assert len(written) > 50
    rows = scenes.kind.reshape(-1, 3, 3)[written, scenes.word_row[written]]
    assert (rows == EMPTY).all()


def test_yes_and_no_are_equally_common_without_a_prior():
    items = generate("prior-removed", 1500, 0, types=["existence"]).items
    share = np.mean([item.answer == "yes" for item in items])
    assert 0.45 < share < 0.55


def _truth(question, scenes, row):
    """Answers the plain wordings from the arrays, independently of the question writers."""
    kinds, colors = scenes.kind[row], scenes.color[row]
    names = tuple(COLORS)
    words = question.lower().rstrip("?.").split()

    def matches(cell, phrase):
        kind = kinds[cell]
        noun = "digit" if kind == DIGIT else SHAPES[kind] if kind >= 0 else ""
        known = {noun, names[colors[cell]], "object"} if kind >= 0 else set()
        return kind >= 0 and set(phrase) <= known

    if words[:2] == ["is", "there"]:
        return "yes" if any(matches(c, words[3:]) for c in range(9)) else "no"
    if words[:3] == ["where", "is", "the"]:
        (cell,) = [c for c in range(9) if matches(c, words[3:])]
        return POSITIONS[cell]
    if words[:2] == ["how", "many"]:
        phrase = [w.removesuffix("es") if w == "crosses" else w for w in words[2:-2]]
        phrase = [w.removesuffix("s") if w != "cross" else w for w in phrase]
        return str(sum(matches(c, phrase) for c in range(9)))
    if "in the" in question:
        cell = POSITIONS.index(" ".join(words[-2:]))
    else:
        (cell,) = [c for c in range(9) if matches(c, words[4:])]
    if words[1] == "color":
        return names[colors[cell]]
    return SHAPES[kinds[cell]]


@pytest.mark.parametrize("question_type", ["color", "shape", "count", "position", "existence"])
def test_answers_are_true_of_the_scene(question_type):
    scenes = draw_scenes("test", 400, np.random.default_rng(4))
    asked = 0
    for picture in pictures(scenes):
        item = ask(picture, question_type, Random(picture.index), wordings=1)
        if item is not None:
            asked += 1
            assert item.answer == _truth(item.question, scenes, picture.index), item.question
    assert asked > 250


def test_items_carry_what_a_study_needs():
    batch = generate("test", 600, 1, 3)
    assert {item.question_type for item in batch.items} == set(BENCHMARK_TYPES)
    for item in batch.items:
        assert item.references[0] == item.answer
        assert 0 <= item.difficulty <= 1
        assert len(set(item.references)) == len(item.references)
        if item.question_type == "multiple_choice":
            assert item.choices is not None
            assert len(set(item.choices)) == 4
            assert item.answer in "ABCD"
        else:
            assert item.choices is None
    causes = Counter(cause for item in batch.items for cause in item.causes)
    assert set(causes) == {
        "perception_noise",
        "occlusion",
        "ambiguity",
        "rare_combination",
        "prior_conflict",
    }
    assert set(WRITERS) == set(QUESTION_TYPES)


def test_examples_are_written_with_checked_pictures(tmp_path):
    import hashlib

    examples = demo_examples("test", 25, 6, tmp_path / "pictures")
    assert len(examples) == len({example.id for example in examples}) == 25
    for example in examples:
        (image,) = example.images
        content = (tmp_path / "pictures" / image.path.rsplit("/", 1)[1]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == image.sha256
        assert example.id.startswith(example.group)
    assert len({example.group for example in examples}) < 25
    with Image.open(examples[0].images[0].path) as picture:
        assert picture.size == (48, 48)
    again = demo_examples("test", 25, 6, tmp_path / "again")
    assert [e.images[0].sha256 for e in again] == [e.images[0].sha256 for e in examples]


def test_a_weight_makes_a_type_more_common_and_none_leaves_everything_as_it_is():
    assert weighted_types(",".join(BENCHMARK_TYPES)) == BENCHMARK_TYPES
    types = weighted_types(" color, multiple_choice*4 ,count*1")
    assert Counter(types) == {"color": 1, "multiple_choice": 4, "count": 1}
    shares = []
    for weight in (1, 4):
        named = (*BENCHMARK_TYPES[:-2], "description", f"multiple_choice*{weight}")
        own = weighted_types(",".join(named))
        asked = Counter(i.question_type for i in generate("test", 300, 0, 3, types=own).items)
        shares.append(asked["multiple_choice"] / asked.total())
    assert shares[0] == pytest.approx(1 / 9, abs=0.03)
    assert shares[1] == pytest.approx(1 / 3, abs=0.05)


def test_drawing_is_fast_enough_to_train_on_fresh_pictures():
    rng = np.random.default_rng(0)
    render(draw_scenes("train", 50, rng), rng)
    start = time.process_time()
    render(draw_scenes("train", 500, rng), rng)
    assert 500 / (time.process_time() - start) > 500  # 2,000 or more when nothing else runs


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: generate("tset", 1), "'tset'"),
        (lambda: generate("test", 1, types=["colour"]), "colour"),
        (lambda: generate("test", 0), "0 images"),
        (lambda: weighted_types("color,colour*2"), "colour"),
        (lambda: weighted_types(""), "''"),
        (lambda: weighted_types("color*0"), "weight of 1 to 99"),
        (lambda: weighted_types("color*many"), "weight of 1 to 99"),
        (lambda: weighted_types("color*1000"), "weight of 1 to 99"),
        (lambda: demo_examples("test", 0), "0 questions"),
    ],
)
def test_wrong_arguments_are_named(call, said):
    with pytest.raises(UsageError, match=said):
        call()
