"""Figures over images: values, intervals, bad input."""

import numpy as np
import pytest

from sightline.audit.resampled import Clusters
from sightline.core.errors import DataError
from sightline.metrics.intervals import proportion


def test_a_share_counts_rows_and_its_interval_holds_it(clusters_of):
    images = np.repeat(np.arange(20), 3)
    hits = np.arange(60) % 4 == 0
    found = clusters_of(images).share(images, hits)
    assert found.value == 0.25
    assert found.n == 60
    assert 0 <= found.low < 0.25 < found.high <= 1


def test_a_share_among_some_rows_leaves_out_the_others(clusters_of):
    images = np.arange(10)
    hits, among = np.arange(10) < 3, np.arange(10) < 5
    found = clusters_of(images).share(images, hits, among)
    assert found.value == pytest.approx(0.6)
    assert found.n == 5


def test_no_hit_at_all_still_has_an_upper_end(clusters_of):
    images = np.repeat(np.arange(30), 4)
    hits = np.zeros(120, dtype=bool)
    found = clusters_of(images).share(images, hits)
    assert found == proportion(hits.astype(float), images)
    assert found.high > 0.05


def test_nothing_to_count_gives_the_reason(clusters_of):
    images = np.arange(4)
    none = np.zeros(4, dtype=bool)
    found = clusters_of(images).share(images, none, none, undefined="no clean answer is right")
    assert found.value is None
    assert found.reason == "no clean answer is right"
    assert found.n == 0


def test_the_order_of_rows_never_shows(clusters_of):
    rng = np.random.default_rng(1)
    images, x, y = rng.integers(0, 15, 80), rng.normal(size=80), rng.normal(size=80)
    clusters, order = clusters_of(images), rng.permutation(80)
    assert clusters.mean(images, x) == clusters.mean(images[order], x[order])
    assert clusters.correlation(images, x, y) == clusters.correlation(
        images[order], x[order], y[order]
    )


def test_copies_of_an_image_do_not_narrow_an_interval():
    rng = np.random.default_rng(2)
    hits = rng.random(60) < 0.4
    images = np.arange(60)
    clusters = Clusters.of(images, rng=rng, n_resamples=500)
    once = clusters.share(images, hits)
    copied = clusters.share(np.tile(images, 5), np.tile(hits, 5))
    assert (copied.low, copied.high) == (once.low, once.high)
    assert copied.n == 300


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        rate = rng.beta(2, 6, size=60)  # images differ, their rows are alike
        images = np.repeat(np.arange(60), 6)
        hits = rng.random(360) < rate[images]
        found = Clusters.of(images, rng=rng, n_resamples=300).share(images, hits)
        covered += found.low <= 0.25 <= found.high
    assert 180 <= covered <= 199


def test_a_correlation_equals_the_usual_formula(clusters_of):
    rng = np.random.default_rng(4)
    x = rng.normal(size=50) + 1e6
    y = x + rng.normal(size=50)
    found = clusters_of(np.arange(50)).correlation(np.arange(50), x, y)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_a_constant_column_has_no_correlation(clusters_of):
    found = clusters_of(np.arange(5)).correlation(np.arange(5), np.ones(5), np.arange(5.0))
    assert found.value is None
    assert "vary" in found.reason


def test_unknown_images_and_missing_values_are_refused(clusters_of):
    clusters = clusters_of(np.arange(4))
    with pytest.raises(DataError, match="drawn from"):
        clusters.mean(np.array([9]), np.array([1.0]))
    with pytest.raises(DataError, match="NaN"):
        clusters.mean(np.array([1]), np.array([np.nan]))
    with pytest.raises(DataError, match="No rows"):
        clusters_of(np.zeros(0, dtype=int))
