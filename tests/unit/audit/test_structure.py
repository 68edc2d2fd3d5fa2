"""Dirichlet energy by hand and the layouts of vision tokens."""

import numpy as np
import pytest

from sightline.audit.structure import (
    NoGrid,
    TokenGrid,
    base_tile,
    dirichlet_energy,
    energy_change,
    energy_map,
    merged_grid,
    query_tokens,
    square_grid,
    token_energy,
)
from sightline.core.errors import DataError, UndefinedMetricError

BY_HAND = np.array([[1.0, 2.0, 4.0], [1.0, 3.0, 3.0], [0.0, 3.0, 5.0]])[:, :, None]


def test_a_grid_of_three_by_three_by_hand():
    # Across: 1 4 | 4 0 | 9 4 = 22. Down: 0 1 1 | 1 0 4 = 7. Twelve edges.
    assert dirichlet_energy(BY_HAND) == pytest.approx(29 / 12, abs=1e-15)
    squares = (BY_HAND**2).mean()
    assert dirichlet_energy(BY_HAND, normalised=True) == pytest.approx(29 / 12 / squares)


def test_the_map_shows_each_tokens_own_share():
    found = energy_map(BY_HAND)
    assert found[0, 0] == pytest.approx((1 + 0) / 2)
    assert found[1, 1] == pytest.approx((1 + 0 + 4 + 0) / 4)
    assert found[2, 1] == pytest.approx((9 + 4 + 0) / 3)
    assert found.shape == (3, 3)


def test_a_constant_grid_has_no_energy():
    grid = np.full((2, 4, 5, 3), 0.1)
    assert not dirichlet_energy(grid).any()
    assert not dirichlet_energy(grid, normalised=True).any()
    assert not energy_map(grid).any()


def test_the_normalised_energy_knows_no_scale_and_is_two_for_unrelated_tokens():
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(40, 30, 64))
    one = dirichlet_energy(grid, normalised=True)
    assert dirichlet_energy(grid * 1e3, normalised=True) == pytest.approx(one)
    assert one == pytest.approx(2, abs=0.05)
    assert dirichlet_energy(grid * 10) == pytest.approx(100 * dirichlet_energy(grid))


def test_every_layout_finds_its_grid():
    tokens = np.arange(24.0)[:, None]
    assert square_grid(576) == TokenGrid(24, 24)
    assert merged_grid(1, 8, 12, merge=2) == TokenGrid(4, 6)
    assert TokenGrid(2, 3, frames=2, start=5).of(tokens)[1, 0].ravel().tolist() == [11, 12, 13]
    assert base_tile(3).of(tokens).ravel().tolist() == list(range(9))
    wide = TokenGrid(4, 6)
    assert token_energy(tokens, wide) == pytest.approx((20 * 1 + 18 * 36) / 38)


def test_frames_do_not_touch_one_another():
    one = np.random.default_rng(1).normal(size=(6, 2))
    far = np.concatenate([one, one + 100])
    assert token_energy(far, TokenGrid(2, 3, frames=2)) == pytest.approx(
        token_energy(one, TokenGrid(2, 3))
    )


def test_queries_have_no_energy_and_say_why():
    layout = query_tokens(32)
    assert isinstance(layout, NoGrid)
    with pytest.raises(UndefinedMetricError, match="32 vision tokens are learned queries"):
        token_energy(np.zeros((32, 4)), layout)


def test_the_change_is_after_less_before_and_zero_for_the_same():
    rng = np.random.default_rng(2)
    smooth, rough = np.ones((9, 3)), rng.normal(size=(9, 3))
    grid = TokenGrid(3, 3)
    assert energy_change(rough, rough.copy(), grid) == 0
    assert energy_change(smooth, rough, grid) == token_energy(rough, grid) > 0
    grown = rng.normal(size=(16, 3))
    assert energy_change(smooth, grown, grid, TokenGrid(4, 4)) > 0


def test_grids_that_cannot_be_are_refused():
    with pytest.raises(DataError, match="square number"):
        square_grid(577)
    with pytest.raises(DataError, match="multiples"):
        merged_grid(1, 7, 8, merge=2)
    with pytest.raises(DataError, match="at least 12"):
        token_energy(np.zeros((9, 1)), TokenGrid(3, 4))
    with pytest.raises(DataError, match="positive"):
        TokenGrid(0, 4)
    with pytest.raises(DataError, match="NaN"):
        dirichlet_energy(np.full((2, 2, 1), np.nan))
    for energy in (dirichlet_energy, energy_map):
        with pytest.raises(UndefinedMetricError, match="neighbours"):
            energy(np.zeros((1, 1, 4)))
    with pytest.raises(UndefinedMetricError, match="normalised"):
        dirichlet_energy(np.zeros((2, 2, 1)), normalised=True)
