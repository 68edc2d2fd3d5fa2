"""The bootstrap over groups: values, pairing, intervals, refusals."""

import numpy as np
import pytest

from sightline.core.errors import DataError, UsageError
from sightline.core.estimates import Estimate
from sightline.metrics import METRICS
from sightline.metrics.discrimination import auroc
from sightline.metrics.intervals import Sample, cluster_bootstrap


def sample(seed=0, n=120, estimators=2, *, groups=None, types=None, binary=True):
    rng = np.random.default_rng(seed)
    correct = (rng.random(n) < 0.6).astype(float) if binary else rng.integers(0, 4, n) / 3
    logits = rng.normal(size=(estimators, n)) + 1.2 * correct
    return Sample(
        scores=1 / (1 + np.exp(-logits)),
        correct=correct,
        groups=np.arange(n) if groups is None else groups,
        types=types,
    )


def bootstrap(*samples, metrics=("auroc",), seed=0, **settings):
    settings = {"n_resamples": 200} | settings
    return cluster_bootstrap(samples, metrics=metrics, rng=np.random.default_rng(seed), **settings)


def test_every_metric_has_its_plain_value_inside_its_interval():
    one = sample()
    drawn = bootstrap(one, metrics=tuple(METRICS))
    for name, metric in METRICS.items():
        for e in range(2):
            estimate = drawn.estimate(e, name)
            assert estimate.value == pytest.approx(
                metric.function(one.scores[e], one.correct), abs=1e-14
            )
            assert estimate.low < estimate.high, name
            assert estimate.low <= estimate.value <= estimate.high, name
            assert estimate.n == 120


def test_a_figure_is_the_mean_over_the_seeds():
    first, second = sample(0), sample(1, n=80)
    estimate = bootstrap(first, second).estimate(1, "auroc")
    values = [auroc(s.scores[1], s.correct) for s in (first, second)]
    assert estimate.value == pytest.approx(np.mean(values), abs=1e-15)
    assert estimate.n == 100


def test_the_same_generator_gives_the_same_interval():
    one = sample()
    assert bootstrap(one).estimate(0, "auroc") == bootstrap(one).estimate(0, "auroc")
    assert bootstrap(one, seed=1).estimate(0, "auroc") != bootstrap(one).estimate(0, "auroc")


def test_a_higher_level_widens_the_interval():
    narrow, wide = (bootstrap(sample(), level=level).estimate(0, "auroc") for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_copies_in_one_group_add_nothing():
    one = sample(n=60)
    copied = Sample(
        scores=np.repeat(one.scores, 4, axis=1),
        correct=np.repeat(one.correct, 4),
        groups=np.repeat(one.groups, 4),
    )
    alone, many = bootstrap(one).estimate(0, "auroc"), bootstrap(copied).estimate(0, "auroc")
    assert (many.value, many.low, many.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_one_group_gives_a_value_without_interval():
    estimate = bootstrap(sample(groups=np.zeros(120, dtype=int))).estimate(0, "auroc")
    assert estimate.value is not None
    assert (estimate.low, estimate.high, estimate.reason) == (None, None, None)


def test_differences_are_paired():
    one = sample(n=200)
    rng = np.random.default_rng(9)
    # The second score is the first with a little noise: each is uncertain, their difference not.
    near = np.stack([one.scores[0], one.scores[0] + 0.01 * rng.random(200)])
    drawn = bootstrap(Sample(near, one.correct, one.groups))
    alone, difference = drawn.estimate(0, "auroc"), drawn.difference(0, 1, "auroc")
    assert difference.value == pytest.approx(
        alone.value - drawn.estimate(1, "auroc").value, abs=1e-15
    )
    assert difference.high - difference.low < 0.2 * (alone.high - alone.low)
    assert drawn.difference(1, 0, "auroc").value == -difference.value


def test_identical_scores_differ_by_exactly_nothing():
    one = sample()
    twice = Sample(one.scores[[0, 0]], one.correct, one.groups)
    difference = bootstrap(twice).difference(0, 1, "auroc")
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    rare = np.append(np.ones(119), 0.0)
    difference = bootstrap(Sample(twice.scores, rare, one.groups)).difference(0, 1, "auroc")
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_two_groups_have_an_interval():
    estimate = bootstrap(sample(groups=np.repeat([0, 1], 60))).estimate(0, "auroc")
    assert estimate.low <= estimate.value <= estimate.high


def test_a_difference_of_perfect_and_constant_scores_has_no_interval():
    correct = np.tile([1.0, 0.0], 30)
    drawn = bootstrap(Sample(np.stack([correct, np.ones(60)]), correct, np.arange(60)))
    difference = drawn.difference(0, 1, "auroc")
    assert (difference.value, difference.low, difference.high) == (0.5, None, None)


def test_agreement_of_all_resamples_is_no_certainty():
    correct = np.tile([1.0, 0.0], 30)
    estimate = bootstrap(Sample(correct[None], correct, np.arange(60))).estimate(0, "auroc")
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)


def test_a_rare_class_leaves_too_many_resamples_undefined():
    correct = np.ones(40)
    correct[0] = 0.0
    estimate = bootstrap(Sample(np.linspace(0, 1, 40)[None], correct, np.arange(40))).estimate(
        0, "auroc"
    )
    # A third of the resamples miss the only wrong answer.
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)
    shifted = np.roll(np.linspace(0, 1, 40), 1)[None]
    estimate = bootstrap(Sample(shifted, correct, np.arange(40))).estimate(0, "auroc")
    assert (estimate.value, estimate.low) == (0.0, None)


def test_calibration_error_keeps_its_estimate_in_a_basic_interval():
    rng = np.random.default_rng(2)
    confidence = rng.random(500)
    correct = (rng.random(500) < confidence).astype(float)
    drawn = bootstrap(Sample(confidence[None], correct, np.arange(500)), metrics=("ece",))
    estimate = drawn.estimate(0, "ece")
    resamples = drawn.draws["ece"][0]
    # Resamples lie above the estimate by about as much as it lies above the truth, 0.
    assert np.mean(resamples > estimate.value) > 0.9
    assert 0.0 <= estimate.low < estimate.value <= estimate.high < np.median(resamples)


def test_all_resamples_on_one_side_fall_back_to_the_basic_interval():
    # A perfect ranking but for one wrong pair of twins in one group: E-AURC 0 is an edge.
    confidence = np.linspace(1, 0, 50)
    correct = (np.arange(50) < 25).astype(float)
    groups = np.arange(50)
    drawn = bootstrap(Sample(confidence[None], correct, groups), metrics=("coverage_at_risk",))
    estimate = drawn.estimate(0, "coverage_at_risk")
    assert estimate.low <= estimate.value <= estimate.high


def test_reasons_instead_of_values():
    few = sample(n=30)
    drawn = bootstrap(few, metrics=("auroc", "ece"))
    assert drawn.estimate(0, "auroc").value is not None
    estimate = drawn.estimate(0, "ece")
    assert (estimate.value, estimate.n) == (None, 30)
    assert estimate.reason == "30 rows; ece requires at least 50"
    assert drawn.difference(0, 1, "ece").reason == estimate.reason


def test_the_smallest_seed_decides_whether_rows_suffice():
    estimate = bootstrap(sample(n=300), sample(1, n=8)).estimate(0, "auroc")
    assert estimate.reason == "8 rows; auroc requires at least 10"


def seeds_of_which_one_is_all_right():
    """Three split seeds; the answers of the last are all right."""
    seeds = [sample(seed) for seed in range(3)]
    return [*seeds[:2], Sample(seeds[2].scores, np.ones(120), seeds[2].groups)]


def test_a_seed_of_one_class_is_left_out_of_the_mean_and_counted():
    seeds = seeds_of_which_one_is_all_right()
    drawn = bootstrap(*seeds, metrics=("auroc", "prr", "brier_skill", "aurc"))
    for name in ("auroc", "prr", "brier_skill"):
        defined = [METRICS[name].function(s.scores[0], s.correct) for s in seeds[:2]]
        estimate = drawn.estimate(0, name)
        assert estimate.value == pytest.approx(np.mean(defined), abs=1e-14), name
        assert estimate.low < estimate.value < estimate.high, name
        assert estimate.reason == "mean over 2 of 3 splits; the others leave it undefined", name
        assert drawn.difference(0, 1, name).reason == estimate.reason
    everywhere = drawn.estimate(0, "aurc")
    expected = np.mean([METRICS["aurc"].function(s.scores[0], s.correct) for s in seeds])
    assert everywhere.value == pytest.approx(expected, abs=1e-14)
    assert everywhere.reason is None


def test_no_seed_is_left_out_for_its_scores():
    seeds = seeds_of_which_one_is_all_right()[:2]
    certain = seeds[1].scores.copy()
    certain[0, np.argmin(seeds[1].correct)] = 1.0  # an infinite loss
    drawn = bootstrap(
        seeds[0], Sample(certain, seeds[1].correct, seeds[1].groups), metrics=("nll",)
    )
    assert drawn.estimate(0, "nll").value is None
    assert "exactly 0 on a right or 1 on a wrong" in drawn.estimate(0, "nll").reason
    assert drawn.estimate(1, "nll").value > 0


def test_one_class_gives_the_reason_of_the_metric():
    one = sample()
    drawn = bootstrap(
        Sample(one.scores, np.ones(120), one.groups), metrics=("auroc", "prr", "aurc")
    )
    assert "requires both" in drawn.estimate(0, "auroc").reason
    assert "equally right" in drawn.estimate(0, "prr").reason
    assert drawn.estimate(0, "aurc").value == 0.0


def test_fractional_correctness_keeps_the_metrics_that_extend_to_it():
    drawn = bootstrap(sample(binary=False), metrics=tuple(METRICS))
    for name, metric in METRICS.items():
        estimate = drawn.estimate(0, name)
        if metric.binary:
            assert estimate.reason == f"correctness is fractional; {name} requires 0 or 1"
        else:
            assert estimate.low <= estimate.value <= estimate.high, name


def test_a_seed_without_rows_is_a_reason():
    empty = Sample(np.zeros((2, 0)), np.zeros(0), np.zeros(0, dtype=int))
    estimate = bootstrap(sample(), empty).estimate(0, "auroc")
    assert estimate.reason == "0 rows; auroc requires at least 10"
    assert bootstrap(empty).estimate(0, "auroc") == Estimate(None, n=0, reason=estimate.reason)


def test_within_type_auroc_is_the_mean_over_types_with_both_classes():
    types = np.repeat([0, 1, 2, 3], [50, 40, 25, 5])
    one = sample(types=types)
    correct = one.correct.copy()
    correct[types == 2] = 1.0
    one = Sample(one.scores, correct, one.groups, types)
    drawn = bootstrap(one, metrics=("auroc", "within_type_auroc"))
    estimate = drawn.estimate(0, "within_type_auroc")
    # Type 2 is all right and type 3 has five rows.
    expected = np.mean([auroc(one.scores[0][types == t], correct[types == t]) for t in (0, 1)])
    assert estimate.value == pytest.approx(expected, abs=1e-15)
    assert estimate.low < estimate.value < estimate.high


def test_a_score_that_only_knows_the_type_has_no_signal_within_it():
    types = np.tile([0, 1], 60)
    rng = np.random.default_rng(0)
    correct = (rng.random(120) < np.where(types, 0.9, 0.3)).astype(float)
    drawn = bootstrap(
        Sample(types[None].astype(float), correct, np.arange(120), types),
        metrics=("auroc", "within_type_auroc"),
    )
    assert drawn.estimate(0, "auroc").low > 0.6
    assert drawn.estimate(0, "within_type_auroc").value == 0.5


def test_no_usable_type_is_a_reason():
    drawn = bootstrap(sample(types=np.arange(120)), metrics=("within_type_auroc",))
    assert drawn.estimate(0, "within_type_auroc").reason == (
        "no question type has 10 rows with both right and wrong answers"
    )


def test_refusals():
    one = sample()
    with pytest.raises(UsageError, match="Metric 'auc' is unknown; one of auroc, "):
        bootstrap(one, metrics=("auc",))
    with pytest.raises(UsageError, match="No samples"):
        bootstrap()
    with pytest.raises(UsageError, match=r"Samples hold \[2, 3\] estimators"):
        bootstrap(one, sample(estimators=3))
    with pytest.raises(UsageError, match="within_type_auroc without question types"):
        bootstrap(one, metrics=("within_type_auroc",))
    raw = Sample(one.scores * 5, one.correct, one.groups)
    assert bootstrap(raw).estimate(0, "auroc").value is not None
    with pytest.raises(DataError, match=r"requires probabilities in \[0, 1\]"):
        bootstrap(raw, metrics=("ece",))
    broken = one.scores.copy()
    broken[1, 3] = np.nan
    with pytest.raises(DataError, match="Confidence is nan at row 3"):
        bootstrap(Sample(broken, one.correct, one.groups))


def test_a_sample_checks_its_lengths(unchecked):
    module = unchecked("sightline.metrics.resampling")
    with pytest.raises(DataError, match="Sample has lengths"):
        module.Sample(np.zeros((2, 3)), np.zeros(3), np.zeros(4, dtype=int))
    with pytest.raises(DataError, match="'scores': -1"):
        module.Sample(np.zeros(3), np.zeros(3), np.zeros(3, dtype=int))


def test_blocks_do_not_show(monkeypatch):
    one = sample()
    whole = bootstrap(one, metrics=("auroc", "ece"), n_resamples=64)
    monkeypatch.setattr("sightline.metrics.resampling._BLOCK_CELLS", 120 * 5)
    parts = bootstrap(one, metrics=("auroc", "ece"), n_resamples=64)
    for metric in ("auroc", "ece"):
        np.testing.assert_allclose(parts.draws[metric], whole.draws[metric], rtol=1e-12)
        np.testing.assert_allclose(parts.jackknife[metric], whole.jackknife[metric], rtol=1e-12)
