"""Prediction sets: hand-worked cases, coverage, ties and what is refused."""

import json
import math

import numpy as np
import pytest

from sightline.calibration.conformal import ConformalSets, fit_conformal_sets
from sightline.core.errors import DataError, UsageError


def drawn(rng, n, options=5, sharpness=2.0):
    logits = sharpness * rng.normal(size=(n, options))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = np.array([rng.choice(options, p=row) for row in p])
    return p, right


def test_lac_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    fitted = fit_conformal_sets(p, np.array([0, 0, 1, 1]), level=0.6, score="lac")
    # Scores of the right options are .1, .2, .3, .6; the third of four is taken: ceil(5 x .6) = 3.
    assert fitted.quantile == pytest.approx(0.3)
    assert fitted.sets(np.array([[0.75, 0.25], [0.5, 0.5]])).tolist() == [
        [True, False],
        [True, True],  # neither reaches .7; the likeliest, here both, are in every set
    ]


def test_aps_and_raps_by_hand():
    p = np.array([[0.5, 0.3, 0.2]] * 9)
    right = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2])
    aps = fit_conformal_sets(p, right, level=0.7, score="aps")
    assert aps.quantile == pytest.approx(0.8)  # ceil(10 x .7) = 7th of .5 x 5, .8 x 3, 1
    assert aps.sets(p[:1]).tolist() == [[True, True, False]]
    raps = fit_conformal_sets(p, right, level=0.7, score="raps", penalty=0.25, free=1)
    assert raps.quantile == pytest.approx(0.8 + 0.25)
    assert raps.sets(np.array([[0.5, 0.3, 0.2]])).tolist() == [[True, True, False]]


def test_too_few_rows_give_every_option():
    p, right = drawn(np.random.default_rng(0), 8)
    fitted = fit_conformal_sets(p, right, level=0.9)
    assert fitted.quantile is None
    assert fitted.sets(p).all()


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
def test_sets_cover_as_often_as_they_say(score):
    covered = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        p, right = drawn(rng, 160)
        fitted = fit_conformal_sets(p[:60], right[:60], level=0.8, score=score)
        covered.append(fitted.sets(p[60:])[np.arange(100), right[60:]].mean())
    # Mean coverage is at least .8; its standard error here is below .004.
    assert np.mean(covered) > 0.8 - 0.012
    assert np.mean(covered) < 0.95


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
def test_sets_depend_on_each_row_alone_and_not_on_the_order_of_options(score):
    rng = np.random.default_rng(3)
    p, right = drawn(rng, 200)
    p[0] = 0.2  # all tied
    fitted = fit_conformal_sets(p, right, score=score)
    whole = fitted.sets(p)
    assert np.array_equal(whole, np.vstack([fitted.sets(p[i : i + 1]) for i in range(200)]))
    order = rng.permutation(5)
    assert np.array_equal(fitted.sets(p[:, order]), whole[:, order])
    assert whole[np.arange(200), p.argmax(axis=1)].all()
    assert len(set(whole[0].tolist())) == 1


def test_it_is_read_back_as_written():
    p, right = drawn(np.random.default_rng(4), 100)
    fitted = fit_conformal_sets(p, right, score="raps")
    again = ConformalSets.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted


@pytest.mark.parametrize(
    ("p", "right"),
    [
        ([[0.5, 0.6]], [0]),
        ([[-0.1, 1.1]], [0]),
        ([[np.nan, 1.0]], [0]),
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], []),
        (np.empty((0, 2)), []),
    ],
)
def test_wrong_rows_are_refused(p, right):
    with pytest.raises(DataError):
        fit_conformal_sets(np.array(p, float), np.array(right, dtype=int))


@pytest.mark.parametrize("settings", [{"level": 1.0}, {"penalty": -1.0}, {"free": -1}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(UsageError, match="required"):
        fit_conformal_sets(np.array([[0.5, 0.5]]), np.array([0]), **settings)


@pytest.mark.parametrize(("n", "level"), [(12, 0.9), (9, 0.9), (100, 0.8), (1000, 0.95)])
def test_how_far_the_coverage_of_one_fit_may_lie_is_a_beta_distribution(n, level):
    stats = pytest.importorskip("scipy.stats", reason="the learn extra is not installed")
    rank = math.ceil((n + 1) * level - 1e-9)
    found = ConformalSets("lac", level, 0.5, n).coverage
    beta = stats.beta(rank, n + 1 - rank)
    assert (found.low, found.high) == pytest.approx(beta.ppf([0.025, 0.975]), abs=1e-9)
    assert found.value == pytest.approx(beta.mean())
    assert found.n == n


def test_the_coverage_of_a_fit_lies_in_its_interval_as_often_as_it_says():
    """Scores uniform on (0, 1): the coverage of a fit is its quantile."""
    rng = np.random.default_rng(0)
    inside, covered = [], []
    for _ in range(2000):
        own = rng.random(12)
        p = np.column_stack([1.0 - own, own])
        fitted = fit_conformal_sets(p, np.zeros(12, dtype=int), level=0.8, score="lac")
        low, high = fitted.coverage.low, fitted.coverage.high
        inside.append(low <= fitted.quantile <= high)
        covered.append(fitted.quantile)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    assert np.mean(covered) == pytest.approx(fitted.coverage.value, abs=0.01)


def test_sets_that_hold_everything_are_never_wrong():
    found = ConformalSets("aps", 0.99, None, 5).coverage
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("score", ["lac", "aps"])
def test_the_last_bits_of_a_probability_change_no_set(score):
    """They depend on how many options the other rows of a batch have, which are summed with it."""
    p = np.tile([0.45, 0.4, 0.15], (20, 1))
    fitted = fit_conformal_sets(p, np.ones(20, dtype=int), level=0.8, score=score)
    for bits in (0.0, -4e-16, 4e-16):
        assert fitted.sets(p * (1.0 + bits)).tolist() == [[True, True, False]] * 20
