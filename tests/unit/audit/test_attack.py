"""Band-limited attacks against losses whose minimum is known."""

import numpy as np
import pytest

from sightline.audit.attack import (
    HIGH_BAND,
    LOW_BAND,
    PixelAttack,
    attack,
    attack_rates,
)
from sightline.audit.frequency import Band
from sightline.core.errors import DataError, UsageError

torch = pytest.importorskip("torch", reason="the models extra is not installed")


def pictures(n=2, seed=0, low=0.2, high=0.8):
    return np.random.default_rng(seed).uniform(low, high, (n, 16, 16, 3))


def toward(target):
    """Squared distance from a picture to be reached."""
    goal = torch.from_numpy(target)
    return lambda images: ((images - goal) ** 2).sum((1, 2, 3))


def test_epsilon_zero_returns_the_clean_picture():
    images = pictures()
    found = attack(images, toward(np.ones((16, 16, 3))), PixelAttack(epsilon=0.0))
    assert np.array_equal(found.images, images)
    assert np.array_equal(found.loss_before, found.loss_after)
    assert not found.largest.any()
    assert not found.leakage.any()


@pytest.mark.parametrize("band", [LOW_BAND, HIGH_BAND, Band(0.0, 1.0)])
def test_the_change_keeps_to_its_bounds_and_lowers_the_loss(band):
    images = pictures(low=0, high=1)
    settings = PixelAttack(band=band)
    target = np.random.default_rng(5).random((16, 16, 3))
    found = attack(images, toward(target), settings)
    assert (found.loss_after < found.loss_before).all()
    assert (found.largest <= settings.epsilon + 1e-12).all()
    assert np.abs(found.images - images).max() <= settings.epsilon + 1e-12
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert (found.leakage >= 0).all()
    if band.high == 1 and band.low == 0:
        assert found.leakage == pytest.approx(np.zeros(2), abs=1e-12)


def test_nothing_leaks_where_nothing_is_clipped():
    found = attack(
        pictures(), toward(np.ones((16, 16, 3))), PixelAttack(epsilon=0.1, step=0.001, steps=3)
    )
    assert (found.largest < 0.1).all()
    assert found.leakage == pytest.approx(np.zeros(2), abs=1e-12)


def test_clipping_leaks_and_the_leak_is_what_lies_outside_the_band():
    images = pictures(low=0, high=1)
    target = np.random.default_rng(5).random((16, 16, 3))
    found = attack(images, toward(target), PixelAttack(epsilon=0.02, step=0.02, band=LOW_BAND))
    spectrum = np.abs(np.fft.fft2(found.images - images, axes=(1, 2))) ** 2
    outside = (spectrum * ~LOW_BAND.mask(16, 16)[None, :, :, None]).sum((1, 2, 3))
    assert found.leakage == pytest.approx(outside / spectrum.sum((1, 2, 3)), rel=1e-6)
    assert (found.leakage > 0.001).all()


def test_pictures_do_not_see_one_another():
    images = pictures(3)
    goal = np.random.default_rng(1).random((16, 16, 3))
    together = attack(images, toward(goal), PixelAttack())
    alone = attack(images[1:2], toward(goal), PixelAttack())
    assert together.images[1] == pytest.approx(alone.images[0], abs=1e-15)


def test_the_best_step_is_kept():
    images = np.full((1, 16, 16, 3), 0.5)

    def loss(pictures):
        # Lowest a little above the clean picture, rising steeply after: the first step is best.
        return (pictures.mean((1, 2, 3)) - 0.51) ** 2

    found = attack(images, loss, PixelAttack(epsilon=0.5, step=0.01, steps=1))
    longer = attack(images, loss, PixelAttack(epsilon=0.5, step=0.01, steps=6))
    assert longer.loss_after <= found.loss_after
    assert found.images.mean() == pytest.approx(0.51)


def test_rates_count_flips_that_lower_the_score(clusters_of):
    images = np.arange(4)
    found = attack_rates(
        images,
        np.array([True, True, False, True]),
        np.array([-1.0, 0.5, -2.0, -0.1]),
        clusters_of(images),
    )
    assert found.success.value == 0.5
    assert found.flips.value == 0.75


def test_what_cannot_be_attacked_is_refused():
    images = pictures()
    with pytest.raises(UsageError, match="does not depend"):
        attack(images, lambda p: torch.zeros(2), PixelAttack())
    with pytest.raises(DataError, match="one finite value each"):
        attack(images, lambda p: p.sum(), PixelAttack())
    with pytest.raises(DataError, match=r"values in \[0, 1\]"):
        attack(images * 255, toward(images[0]), PixelAttack())
    with pytest.raises(UsageError, match="negative"):
        PixelAttack(epsilon=-0.1)
