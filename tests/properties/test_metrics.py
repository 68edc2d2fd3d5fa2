"""Laws every metric obeys on any rows: order, transforms, bounds, limits."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sightline.core.errors import UndefinedMetricError
from sightline.metrics import METRICS
from sightline.metrics.closed_form import auroc_estimate, proportion
from sightline.metrics.discrimination import aupr_right, auroc
from sightline.metrics.selective import aurc, e_aurc, prr

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def rows(draw, *, binary=None, both=False):
    """Confidence on a coarse grid (ties) or a fine one, with 0/1 or fractional correctness."""
    n = draw(st.integers(2, 25))
    grid = draw(st.sampled_from([3, 8, 2**30]))
    confidence = np.array(draw(st.lists(st.integers(0, grid), min_size=n, max_size=n))) / grid
    if draw(st.booleans()) if binary is None else binary:
        correct = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), dtype=float)
    else:
        correct = np.array(draw(st.lists(st.integers(0, 7), min_size=n, max_size=n))) / 7
    if both:
        correct[0], correct[-1] = 1.0, 0.0
    return confidence, correct


def value(name, confidence, correct):
    metric = METRICS[name]
    if metric.binary:
        correct = np.round(correct)
    try:
        return metric.function(confidence, correct)
    except UndefinedMetricError:
        return None


@quick
@given(rows(), st.randoms(use_true_random=False))
def test_row_order_never_shows_and_values_stay_in_bounds(drawn, random):
    confidence, correct = drawn
    order = list(range(len(correct)))
    random.shuffle(order)
    for name, metric in METRICS.items():
        result = value(name, confidence, correct)
        assert result == value(name, confidence[order], correct[order]), name
        low, high = metric.bounds
        assert result is None or low - 1e-12 <= result <= high + 1e-12, name


@quick
@given(rows())
def test_ranking_metrics_see_only_the_order(drawn):
    confidence, correct = drawn
    names = [n for n, m in METRICS.items() if m.input == "ranking" and n != "cohens_d"]
    plain = {name: value(name, confidence, correct) for name in names}
    for transform in (
        lambda c: 4 * c - 2,
        lambda c: np.floor(c * 2**31) ** 3,
        lambda c: -1 / (1 + c),
    ):
        for name in names:
            assert value(name, transform(confidence), correct) == plain[name], name


@quick
@given(rows())
def test_every_row_twice_changes_no_plug_in(drawn):
    # Means over k, n - 1 and whole rows do see n; the rest are functions of the distribution.
    sees_n = {"prr", "aurc", "e_aurc", "auarc", "cohens_d", "risk_at_coverage", "ece_debiased"}
    confidence, correct = drawn
    for name in METRICS.keys() - sees_n:
        once = value(name, confidence, correct)
        twice = value(name, np.repeat(confidence, 2), np.repeat(correct, 2))
        assert (once is None) == (twice is None), name
        assert once is None or twice == pytest.approx(once, abs=1e-12), name


@quick
@given(rows(binary=True, both=True))
def test_reversing_the_scores_reverses_auroc(drawn):
    confidence, correct = drawn
    assert auroc(-confidence, correct) == pytest.approx(1 - auroc(confidence, correct), abs=1e-15)
    assert auroc(-confidence, 1 - correct) == pytest.approx(auroc(confidence, correct), abs=1e-15)


@quick
@given(rows(both=True))
def test_the_ideal_ranking_is_the_best(drawn):
    confidence, correct = drawn
    assert prr(correct, correct) == pytest.approx(1.0, abs=1e-9)
    assert prr(confidence, correct) <= 1.0 + 1e-12
    assert aurc(correct, correct) <= aurc(confidence, correct) + 1e-12
    assert e_aurc(correct, correct) == pytest.approx(0.0, abs=1e-12)
    assert prr(np.zeros(len(correct)), correct) == pytest.approx(0.0, abs=1e-9)


@quick
@given(rows(binary=True, both=True))
def test_perfect_ranking_has_perfect_precision(drawn):
    _, correct = drawn
    assert aupr_right(correct, correct) == 1.0


@quick
@given(rows(), st.booleans())
def test_shares_hold_their_value(drawn, grouped):
    confidence, correct = drawn
    groups = np.unique(confidence, return_inverse=True)[1] if grouped else None
    estimate = proportion(correct, groups)
    assert estimate.value == pytest.approx(correct.mean())
    if estimate.low is not None:
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@quick
@given(rows(both=True), st.booleans())
def test_auroc_estimates_hold_their_value(drawn, grouped):
    confidence, correct = drawn
    groups = np.arange(len(correct)) // 3 if grouped else None
    estimate = auroc_estimate(confidence, correct, groups)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    if np.all((correct == 0) | (correct == 1)):
        assert estimate.value == pytest.approx(auroc(confidence, correct), abs=1e-12)
