"""Classifier pictures: seeded, labelled as drawn, unseen combinations kept out."""

import numpy as np
import pytest

from sightline.core.errors import UsageError
from sightline.data.objects import (
    CLASSES,
    DIGIT_CLASSES,
    UNSEEN_CLASSES,
    draw_objects,
    generate_objects,
)


def test_there_are_enough_classes_and_no_two_alike():
    assert len(set(CLASSES)) == len(CLASSES) == 90
    assert set(UNSEEN_CLASSES) < set(CLASSES)
    assert CLASSES[-10:] == DIGIT_CLASSES


def test_the_same_seed_gives_the_same_pictures():
    first, again = generate_objects("test", 30, 4), generate_objects("test", 30, 4)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)


def test_unseen_classes_are_drawn_only_when_named():
    names = {CLASSES[label] for label in generate_objects("train", 2000).labels}
    assert names == set(CLASSES) - set(UNSEEN_CLASSES)
    named = generate_objects("test", 50, classes=UNSEEN_CLASSES)
    assert {CLASSES[label] for label in named.labels} <= set(UNSEEN_CLASSES)


def test_a_label_decides_what_is_drawn():
    red, blue = CLASSES.index("big red circle"), CLASSES.index("big blue circle")
    labels = np.asarray([red] * 20 + [blue] * 20)
    images = draw_objects("test", labels, np.random.default_rng(0), hardest=0.0).images
    surplus = images.astype(float)[..., 0] - images.astype(float)[..., 2]
    assert surplus[:20].max(axis=(1, 2)).min() > 100
    assert surplus[20:].min(axis=(1, 2)).max() < -100


def test_wrong_arguments_are_named():
    with pytest.raises(UsageError, match="'tset'"):
        draw_objects("tset", np.asarray([0]), np.random.default_rng(0))
    with pytest.raises(UsageError, match="'dog'"):
        generate_objects("test", 3, classes=["dog"])
