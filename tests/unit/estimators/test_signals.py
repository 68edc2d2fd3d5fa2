"""Ragged arrays reduced by segment."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sightline.estimators.signals import Ragged, mean_count

lists = st.lists(
    st.integers(1, 9).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(-50, 50))),
    max_size=6,
)


@given(lists)
def test_equals_reducing_each_array(each):
    ragged = Ragged.of(each)
    for name, direct in (("sum", np.sum), ("mean", np.mean), ("min", np.min), ("max", np.max)):
        np.testing.assert_allclose(getattr(ragged, name)(), [direct(a) for a in each], atol=1e-9)
    np.testing.assert_array_equal(ragged.first(), [a[0] for a in each])
    ordered = ragged.descending()
    for start, array in zip(ragged.starts, each, strict=True):
        np.testing.assert_array_equal(
            ordered.values[start : start + len(array)], np.sort(array)[::-1]
        )


@given(lists)
def test_log_softmax_sums_to_one_and_keeps_differences(each):
    ragged = Ragged.of(each)
    normal = ragged.log_softmax()
    np.testing.assert_allclose(normal.map(np.exp).sum(), np.ones(len(each)), rtol=1e-12)
    np.testing.assert_allclose(
        normal.values - normal.spread(normal.first()),
        ragged.values - ragged.spread(ragged.first()),
        atol=1e-9,
    )
    assert (normal.values <= 0).all()


def test_mean_counts_are_rounded_up():
    assert [mean_count([]), mean_count([2, 2]), mean_count([2, 3])] == [0, 2, 3]
