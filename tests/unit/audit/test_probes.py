"""Flip thresholds and noise, asked of label functions whose answers are known."""

import numpy as np
import pytest

from sightline.audit.frequency import Band
from sightline.audit.probes import LOW_PASS_CUTOFFS, flip_thresholds, noise_flips
from sightline.core.errors import DataError, UsageError


def stripes(across, size=16):
    x = np.arange(size)
    row = 0.5 + 0.4 * np.cos(2 * np.pi * across * x / size)
    return np.broadcast_to(row[None, :, None], (size, size, 3)).copy()


def is_striped(pictures, rows):
    """1 where a picture still has contrast."""
    return np.array([int(np.std(picture) > 0.05) for picture in pictures])


def test_a_stripe_is_lost_at_the_first_cutoff_below_its_radius():
    # Radius of a frequency across: across / 16 / 0.707. 2 -> 0.177, 4 -> 0.354, 8 -> 0.707.
    images = [stripes(2), stripes(4), stripes(8)]
    found = flip_thresholds(images, np.ones(3, dtype=int), is_striped, filtering="low")
    assert found.rows.tolist() == [0, 1, 2]
    assert found.cutoffs.tolist() == [0.1, 0.3, 0.7]
    assert found.kept[LOW_PASS_CUTOFFS.index(0.7)] == pytest.approx(2 / 3)
    assert found.kept[-1] == 0


def test_high_pass_loses_the_coarse_stripe_first_and_keeps_the_mean():
    images = [stripes(2), stripes(8)]
    found = flip_thresholds(images, np.ones(2, dtype=int), is_striped, filtering="high")
    assert found.cutoffs.tolist() == [0.2, 0.8]


def test_the_first_flip_counts_although_the_label_would_come_back():
    answers = iter([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    found = flip_thresholds(
        [stripes(2)], np.array([0]), lambda p, r: np.array([next(answers)]), filtering="low"
    )
    assert found.cutoffs.tolist() == [LOW_PASS_CUTOFFS[2]]
    assert found.asked == 3


def test_what_never_flips_has_no_threshold():
    found = flip_thresholds(
        [stripes(2)] * 5, np.zeros(5, dtype=int), lambda p, r: np.zeros(len(p)), filtering="low"
    )
    assert not len(found.rows)
    assert (found.kept == 1).all()
    assert found.asked == 50


def test_rows_and_batches_reach_the_label_function():
    seen = []

    def label_of(pictures, rows):
        seen.append((len(pictures), rows.tolist()))
        assert all(p.min() >= 0 and p.max() <= 1 for p in pictures)
        return rows % 2

    found = flip_thresholds(
        [stripes(8)] * 7,
        np.array([0, 1, 0, 1, 0, 1, 1]),
        label_of,
        filtering="low",
        cutoffs=[0.5, 0.2],
        batch=3,
    )
    assert seen[:3] == [(3, [0, 1, 2]), (3, [3, 4, 5]), (1, [6])]
    assert found.rows.tolist() == [6]
    assert found.cutoffs.tolist() == [0.5]


def test_noise_flips_more_where_it_is_stronger_and_never_at_size_zero():
    images = [np.full((16, 16, 3), 0.5) + i * 0.001 for i in range(6)]

    def label_of(pictures, rows):
        return np.array([int(np.std(p) > 0.02) for p in pictures])

    found = noise_flips(
        images,
        np.zeros(6, dtype=int),
        label_of,
        keys=np.arange(6),
        bands=[Band(0.0, 0.25), Band(0.25, 1.0)],
        sizes=[0.0, 8 / 255, 64 / 255],
        trials=3,
    )
    assert found.shape == (2, 3, 3, 6)
    assert not found[:, 0].any()
    assert found[:, 2].all()
    assert found[:, 1].mean() < 1


def test_noise_depends_on_the_key_alone():
    def label_of(pictures, rows):
        return np.array([int(p[0, 0, 0] > 0.5) for p in pictures])

    images, clean = [np.full((8, 8, 3), 0.5)] * 8, np.zeros(8, dtype=int)
    keys = np.array([5, 3, 9, 1, 0, 2, 7, 4])
    settings = {"bands": [Band(0.0, 1.0)], "sizes": [0.1], "trials": 4}
    found = noise_flips(images, clean, label_of, keys=keys, **settings)
    order = np.argsort(keys)
    again = noise_flips(images, clean, label_of, keys=keys[order], batch=3, **settings)
    assert np.array_equal(found[..., order], again)
    assert 0 < found.mean() < 1


def test_cutoffs_out_of_order_and_missing_labels_are_refused():
    one = ([stripes(2)], np.array([1]), is_striped)
    with pytest.raises(UsageError, match="Falling"):
        flip_thresholds(*one, filtering="low", cutoffs=[0.1, 0.2])
    with pytest.raises(UsageError, match="Rising"):
        flip_thresholds(*one, filtering="high", cutoffs=[0.2, 0.2])
    with pytest.raises(DataError, match="one each"):
        flip_thresholds(one[0], one[1], lambda p, r: np.zeros(2), filtering="low")
