"""The largest values of long rows are found by looking through few of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.zeroshot.blocks import largest


@given(
    columns=st.integers(1, 3000),
    count=st.integers(1, 12),
    seed=st.integers(0, 2**16),
    digits=st.sampled_from([0, 1, 6]),
)
def test_the_largest_are_those_of_a_sort(columns, count, seed, digits):
    count = min(count, columns)
    values = np.random.default_rng(seed).normal(size=(3, columns)).round(digits)
    found = largest(values, count)
    assert found.shape == (3, count)
    assert all(len(set(row)) == count for row in found.tolist())
    expected = np.sort(values, axis=1)[:, columns - count :]
    np.testing.assert_array_equal(
        np.sort(np.take_along_axis(values, found, axis=1), axis=1), expected
    )


@pytest.mark.parametrize("place", [0, 639, 640, 1279, 1280, 1299])
def test_no_column_is_overlooked(place):
    values = np.zeros((1, 1300))
    values[0, place] = 1.0
    assert largest(values, 1)[0, 0] == place
