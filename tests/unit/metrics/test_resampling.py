"""Weightings of groups: the sums are exact, shared and never all in memory."""

import os

import numpy as np
import pytest

from sightline.metrics.calibration_error import ece_mass, ece_mass_levels
from sightline.metrics.ranked import rank
from sightline.metrics.resampling import Prepared, Sample, drawn, left_out, measure_in_blocks


def ranked_under_weights(seed=0, n=60, b=7, *, binary=True):
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(n), 1 if seed % 2 else 6)
    correct = (rng.random(n) < confidence).astype(float) if binary else rng.random(n)
    weights = rng.integers(0, 4, size=(b, n)).astype(float)
    return confidence, correct, weights, rank(confidence, correct).ranked(weights)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("binary", [True, False])
def test_running_sums_are_those_of_the_rows(seed, binary):
    *_, ranked = ranked_under_weights(seed, binary=binary)
    np.testing.assert_array_equal(ranked.rows_above, np.cumsum(ranked.rows, axis=1))
    np.testing.assert_array_equal(ranked.right_above, np.cumsum(ranked.right, axis=1))


def test_counts_beyond_single_precision_stay_exact():
    ranked = rank(np.array([0.9, 0.5, 0.1]), np.array([1.0, 0.0, 1.0])).ranked(
        np.array([[2.0**24, 1.0, 2.0**30]])
    )
    assert ranked.rows_above[0].tolist() == [2**24, 2**24 + 1, 2**24 + 1 + 2**30]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_bins", [1, 10, 200])
def test_bins_of_equal_mass_under_weights_are_those_of_repeated_rows(seed, n_bins):
    confidence, correct, weights, ranked = ranked_under_weights(seed)
    repeats = weights.astype(int)
    expected = [
        ece_mass(np.repeat(confidence, times), np.repeat(correct, times), n_bins=n_bins)
        for times in repeats
    ]
    np.testing.assert_allclose(ece_mass_levels(ranked, n_bins), expected, atol=1e-14)


def test_a_shift_moves_gaps_and_keeps_the_sums():
    *_, ranked = ranked_under_weights()
    above, gap = ranked.rows_above, ranked.gap
    shifted = ranked.shifted(np.full(len(ranked.confidence), 0.25))
    assert shifted.rows_above is above
    np.testing.assert_allclose(shifted.gap, gap - 0.25 * ranked.rows, atol=1e-14)
    assert ranked.gap is gap


def test_resamples_do_not_depend_on_the_size_of_blocks():
    for make in (lambda size: drawn(9, 23, size, np.random.default_rng(1)),
                 lambda size: left_out(9, size, np.random.default_rng(1))):  # fmt: skip
        whole = np.concatenate(list(make(100)))
        np.testing.assert_array_equal(np.concatenate(list(make(4))), whole)
    assert whole.sum(axis=0).tolist() == [8.0] * 9


def test_weightings_wait_their_turn():
    rng = np.random.default_rng(0)
    sample = Sample(rng.random((1, 30)), (rng.random(30) < 0.5).astype(float), np.arange(30))
    prepared = [Prepared.of(sample, np.arange(30), ("auroc",))]
    live = [0, 0]

    class Weights(np.ndarray):
        def __del__(self):
            if self.base is None:
                live[0] -= 1

    def blocks():
        for _ in range(40 * (os.cpu_count() or 1)):
            block = np.ndarray.__new__(Weights, (2, 30))
            block[:] = 1.0
            live[0] += 1
            live[1] = max(live)
            yield block

    figures = measure_in_blocks(prepared, blocks(), ("auroc",), 1, {})
    assert figures["auroc"].shape == (1, 80 * (os.cpu_count() or 1))
    assert live[1] <= 3 * (os.cpu_count() or 1)
