"""Bands, filters, noise and coherence: Parseval, limits, bad input."""

import numpy as np
import pytest

from sightline.audit.frequency import (
    Band,
    band_edges,
    band_fractions,
    band_means,
    band_noise,
    band_power,
    coherence,
    high_pass,
    low_pass,
    pixels,
    radii,
    spectral_change,
)
from sightline.core.errors import DataError, UnscorableError, UsageError


def pictures(seed=0, n=3, h=16, w=20):
    return np.random.default_rng(seed).random((n, h, w, 3))


def wave(h, w, down, across):
    y, x = np.mgrid[:h, :w]
    return np.cos(2 * np.pi * (down * y / h + across * x / w))[:, :, None]


@pytest.mark.parametrize("spacing", ["log", "equal", "percentile"])
@pytest.mark.parametrize("size", [(16, 20), (15, 9), (1, 8)])
def test_bands_add_up_to_the_total_power(spacing, size):
    h, w = size
    images = pictures(h=h, w=w)
    edges = band_edges(3, spacing, height=h, width=w)
    power = band_power(images, edges)
    assert power.shape == (3, 3)
    assert power.sum(axis=1) == pytest.approx((images**2).sum(axis=(1, 2, 3)), rel=1e-12)


def test_radii_run_from_the_mean_to_the_corner():
    radius = radii(8, 12)
    assert radius[0, 0] == 0
    assert radius[4, 6] == radius.max() == 1
    assert radius[4, 0] == pytest.approx(0.5**0.5)
    assert radii(7, 7).max() < 1


def test_a_wave_lies_in_its_own_band():
    # Four waves down a side of 16: radius 0.25 / 0.707 = 0.354.
    image = wave(16, 16, 4, 0)
    power = band_power(image, np.array([0.0, 0.35, 0.36, 1.0]))
    assert power == pytest.approx([0, 128, 0], abs=1e-20)


def test_the_mean_is_in_the_first_band_and_the_corner_in_the_last():
    edges = band_edges(3)
    assert band_power(np.full((8, 8, 1), 0.5), edges) == pytest.approx([16, 0, 0], abs=1e-20)
    assert band_power(wave(8, 8, 4, 4), edges) == pytest.approx([0, 0, 64], abs=1e-20)


def test_means_are_the_sums_over_the_coefficients_of_every_channel():
    edges = band_edges(3, height=16, width=16)
    image = pictures(0)[0]
    sizes = np.histogram(radii(*image.shape[:2]), edges)[0]
    expected = band_power(image, edges) / (sizes * image.shape[2])
    assert band_means(image, edges) == pytest.approx(expected)
    assert band_means(np.stack([image, image]), edges)[1] == pytest.approx(expected)
    # White noise has the same power at every frequency, however wide the band.
    noise = np.random.default_rng(0).normal(size=(40, 64, 64, 3))
    mean = band_means(noise, band_edges(3, height=64, width=64)).mean(axis=0)
    assert mean == pytest.approx(np.ones(3), abs=0.05)
    # A wave in one of two channels: squares that sum to 8, over 15 coefficients of 2 channels.
    still = np.zeros((4, 4, 2))
    still[..., 0] = wave(4, 4, 1, 0)[..., 0]
    assert band_means(still, np.array([0.0, 0.1, 1.0])) == pytest.approx([0, 8 / 30])


def test_percentile_bands_hold_as_many_coefficients():
    edges = band_edges(4, "percentile", height=32, width=32)
    counts = np.histogram(radii(32, 32), edges)[0]
    assert counts.min() > 0.85 * 32 * 32 / 4


def test_fractions_sum_to_one_and_the_identity_has_none():
    clean, changed = pictures(0), pictures(1)
    edges = band_edges()
    fractions = band_fractions(changed - clean, edges)
    assert fractions.sum(axis=1) == pytest.approx(np.ones(3))
    changed[1] = clean[1]
    with pytest.raises(UnscorableError) as caught:
        band_fractions(changed - clean, edges)
    assert caught.value.rows == (1,)


def test_a_full_cyclic_shift_changes_nothing_and_a_half_one_no_power():
    clean, edges = pictures(), band_edges()
    whole = spectral_change(clean, np.roll(clean, 20, axis=2), edges)
    assert not whole.perturbation.any()
    assert not whole.absolute.any()
    half = spectral_change(clean, np.roll(clean, 10, axis=2), edges)
    assert half.perturbation.sum() > 1
    assert np.abs(half.relative).max() < 1e-12


def test_relative_changes_add_up_to_the_whole_change():
    clean, changed = pictures(0), pictures(1) ** 2
    found = spectral_change(clean, changed, band_edges())
    whole = (changed**2).sum(axis=(1, 2, 3)) / (clean**2).sum(axis=(1, 2, 3)) - 1
    assert found.relative.sum(axis=1) == pytest.approx(whole)
    with pytest.raises(UnscorableError, match="black"):
        spectral_change(np.zeros((1, 4, 4, 3)), changed[:1, :4, :4], band_edges())


@pytest.mark.parametrize("cutoff", [0.0, 0.2, 0.5, 0.99, 1.0])
def test_low_and_high_pass_are_two_halves(cutoff):
    image = pictures()
    low, high = low_pass(image, cutoff), high_pass(image, cutoff, keep_mean=False)
    assert low + high == pytest.approx(image, abs=1e-14)
    assert (low * high).sum() == pytest.approx(0, abs=1e-9)


def test_filters_at_their_ends():
    image = pictures()
    assert np.array_equal(low_pass(image, 1.0), image)
    assert np.array_equal(high_pass(image, 0.0), image)
    mean = image.mean(axis=(1, 2), keepdims=True)
    assert low_pass(image, 0.0) == pytest.approx(np.broadcast_to(mean, image.shape))
    assert high_pass(image, 1.0) == pytest.approx(np.broadcast_to(mean, image.shape))


@pytest.mark.parametrize("band", [Band(0.0, 0.25), Band(0.25, 1.0), Band(0.4, 0.6)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_has_its_size_and_stays_in_its_band(band, norm):
    noise = band_noise((24, 18, 3), band, 0.03, norm=norm, rng=np.random.default_rng(0))
    size = np.abs(noise).max() if norm == "linf" else np.linalg.norm(noise)
    assert size == pytest.approx(0.03)
    assert band.share(noise) == pytest.approx(1, abs=1e-12)
    assert not band_noise((24, 18, 3), band, 0.0, rng=np.random.default_rng(0)).any()


def test_coherence_is_one_for_the_same_and_low_for_unrelated_pictures():
    clean, other = pictures(0, h=64, w=64), pictures(1, h=64, w=64)
    edges = np.array([0.0, 0.01, 0.3, 1.0])
    assert coherence(clean, clean, edges) == pytest.approx(np.ones((3, 3)))
    assert coherence(clean, clean * 0.3, edges) == pytest.approx(np.ones((3, 3)))
    unrelated = coherence(clean, other, edges)
    assert (unrelated[:, 0] > 0.9).all()  # the mean colours
    assert (unrelated[:, 1:] < 0.02).all()


def test_a_shift_keeps_the_power_but_not_the_coherence():
    clean = pictures(h=64, w=64)
    moved = np.roll(clean, 9, axis=2)
    found = coherence(clean, moved, np.array([0.0, 0.01, 0.3, 1.0]))
    assert (found[:, 1:] < 0.05).all()


def test_a_blank_picture_shares_its_mean_alone():
    edges = np.array([0.0, 0.01, 0.5, 1.0])
    blank = np.ones((3, 16, 20, 3))
    found = coherence(pictures(), blank, edges)
    assert (found[:, 0] > 0.9).all()
    assert not found[:, 1:].any()
    assert coherence(blank, blank, edges) == pytest.approx(np.ones((3, 3)))


def test_pictures_are_read_at_the_size_of_the_clean_one():
    from PIL import Image

    image = Image.linear_gradient("L")
    assert pixels(image).shape == (256, 256, 3)
    assert pixels(image, (30, 20)).shape == (20, 30, 3)
    assert pixels(image).min() == 0
    assert pixels(image).max() == 1


def test_settings_that_cannot_be_are_refused():
    for count in (0, 400):
        with pytest.raises(UsageError, match="bands"):
            band_edges(count, "percentile", height=8, width=8)
    with pytest.raises(DataError, match="ascending"):
        band_power(pictures(), np.array([0.0, 0.5]))
    with pytest.raises(DataError, match="NaN"):
        band_power(np.full((4, 4, 1), np.nan), band_edges())
    with pytest.raises(UsageError, match="low < high"):
        Band(0.5, 0.5)
    with pytest.raises(UsageError, match="radius"):
        low_pass(pictures(), 1.2)
    with pytest.raises(UsageError, match="frequency in the band"):
        band_noise((2, 2, 3), Band(0.1, 0.2), 0.1, rng=np.random.default_rng(0))
