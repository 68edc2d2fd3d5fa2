"""Verdicts hold, fail and stay open where they should, and say by which rule."""

from dataclasses import replace

import numpy as np
import pytest

from sightline.audit.drift import moved_far
from sightline.audit.instability import TRUTH_CHANGES, Pairs
from sightline.audit.verdicts import SizedRun, hidden_drift, scale_does_not_help, task_dependent
from sightline.core.errors import UsageError


def pairs(*, flip_rate, accuracy=0.7, lost=0.0, images=300, first=0, seed=0):
    """One question an image, three perturbations; flips and losses at known rates."""
    rng = np.random.default_rng(seed)
    item = np.repeat(np.arange(images), 3)
    right = (rng.random(images) < accuracy)[item]
    flipped = rng.random(len(item)) < flip_rate
    after = right & (rng.random(len(item)) >= lost)
    everyone = np.ones(len(item), dtype=bool)
    return Pairs(item + first, item, flipped, right, after, everyone, np.full(len(item), ""))


def far(share, n=600, seed=0):
    rng = np.random.default_rng(seed)
    drift = np.where(rng.random(n) < share, 0.9, 0.01)
    return np.arange(n) // 3, moved_far(drift, rng.uniform(0.5, 1.5, 400))


@pytest.mark.parametrize(
    ("share", "outcome"), [(0.3, "holds"), (0.005, "does not hold"), (0.055, "undecided")]
)
def test_hidden_drift(share, outcome, clusters_of):
    images, moved = far(share)
    unchanged = np.ones(600, dtype=bool)
    unchanged[::5] = False
    found = hidden_drift(images, unchanged, moved, clusters_of(images), control="x")
    assert found.outcome == outcome
    assert found.estimate.n == 480
    assert "5%" in found.rule
    assert moved.rule in found.rule
    assert (found.reason is None) == (outcome != "undecided")
    assert found.evidence["share of answers that flip"].value == 0.2


def test_hidden_drift_with_too_few_controls_is_undecided(clusters_of):
    images = np.arange(10)
    moved = moved_far(np.ones(10), np.ones(5))
    found = hidden_drift(images, np.ones(10, dtype=bool), moved, clusters_of(images), control="x")
    assert found.outcome == "undecided"
    assert found.estimate.value is None
    assert "5 control values" in found.reason


@pytest.mark.parametrize(("pictures", "outcome"), [(19, "undecided"), (20, "holds")])
def test_hidden_drift_is_not_decided_on_few_pictures(pictures, outcome, clusters_of):
    """However many answers there are about them, and whatever the interval says."""
    images = np.repeat(np.arange(pictures), 30)
    moved = moved_far(np.arange(len(images)) % 3 * 1.0, np.full(400, 0.5))
    everyone = np.ones(len(images), dtype=bool)
    found = hidden_drift(images, everyone, moved, clusters_of(images), control="other pictures")
    assert found.outcome == outcome
    assert found.estimate.value == pytest.approx(2 / 3)
    assert "as far as the control (other pictures)" in found.rule
    if outcome == "undecided":
        assert found.reason == "answers stay about 19 pictures, and 20 are required"


def test_pictures_on_which_every_answer_flips_decide_nothing(clusters_of):
    images = np.repeat(np.arange(40), 5)
    moved = moved_far(np.ones(200), np.full(400, 0.5))
    found = hidden_drift(images, images < 19, moved, clusters_of(images), control="x")
    assert found.outcome == "undecided"


def test_nothing_moved_far_does_not_hold(clusters_of):
    images, moved = far(0.0)
    found = hidden_drift(images, np.ones(600, dtype=bool), moved, clusters_of(images), control="x")
    assert found.outcome == "does not hold"
    assert found.estimate.value == 0


def three_runs(flips, accuracies, images=300):
    return [
        SizedRun(name, size, pairs(flip_rate=flip, accuracy=accuracy, images=images, seed=2))
        for name, size, flip, accuracy in zip("abc", (1, 5, 10), flips, accuracies, strict=True)
    ]


@pytest.mark.parametrize(
    ("flips", "outcome"), [((0.1, 0.2, 0.3), "holds"), ((0.3, 0.2, 0.1), "does not hold")]
)
def test_scale(flips, outcome, clusters_of):
    runs = three_runs(flips, (0.5, 0.6, 0.8))
    found = scale_does_not_help(runs[::-1], clusters_of(np.arange(300)))
    assert found.outcome == outcome
    assert found.reason is None
    assert found.estimate.n == 1800
    assert {"flip rate, b less a", "flip rate, c less b"} < set(found.evidence)
    assert "flip rate of c less that of a" in found.rule


def test_scale_is_undecided_without_a_rise_of_accuracy_or_with_few_images(clusters_of):
    flat = three_runs((0.1, 0.2, 0.3), (0.6, 0.6, 0.6))
    found = scale_does_not_help(flat, clusters_of(np.arange(300)))
    assert found.outcome == "undecided"
    assert "not more often right" in found.reason
    few = three_runs((0.2, 0.2, 0.2), (0.5, 0.6, 0.8), images=10)
    few[2] = SizedRun("c", 10, pairs(flip_rate=0.2, accuracy=0.8, images=10, seed=8))
    found = scale_does_not_help(few, clusters_of(np.arange(10)))
    assert found.outcome == "undecided"
    assert found.estimate.low < -0.01 < 0 < found.estimate.high


def test_a_difference_of_runs_is_paired_by_image(clusters_of):
    one, other = pairs(flip_rate=0.3, seed=3), pairs(flip_rate=0.3, seed=3)
    other.flipped[:6] = ~other.flipped[:6]
    clusters = clusters_of(np.arange(300))
    found = scale_does_not_help([SizedRun("a", 1, one), SizedRun("b", 2, other)], clusters)
    alone = clusters.share(one.images, one.flipped)
    assert found.estimate.high - found.estimate.low < (alone.high - alone.low) / 4


def test_excluded_pairs_do_not_count(clusters_of):
    small, large = pairs(flip_rate=0.3), pairs(flip_rate=0.3, seed=1)
    reasons = np.where(large.flipped, TRUTH_CHANGES, "")
    kept = replace(large, excluded=reasons)
    found = scale_does_not_help(
        [SizedRun("a", 1, small), SizedRun("b", 2, kept)], clusters_of(np.arange(300))
    )
    assert found.outcome == "does not hold"
    assert found.estimate.value == pytest.approx(-small.flipped.mean())


def test_scale_needs_two_sizes(clusters_of):
    one = SizedRun("a", 1, pairs(flip_rate=0.1))
    for runs in ([one], [one, one]):
        with pytest.raises(UsageError, match="different sizes"):
            scale_does_not_help(runs, clusters_of(np.arange(300)))


@pytest.mark.parametrize(("lost", "outcome"), [(0.3, "holds"), (0.0005, "does not hold")])
def test_task(lost, outcome, clusters_of):
    reasoning = pairs(flip_rate=0.1, lost=lost, images=1500, seed=4)
    hallucination = pairs(flip_rate=0.1, lost=0.0005, images=1500, first=1500, seed=5)
    clusters = clusters_of(np.arange(3000))
    found = task_dependent(("reasoning", reasoning), ("hallucination", hallucination), clusters)
    assert found.outcome == outcome
    assert found.evidence["accuracy change, reasoning"].value == pytest.approx(
        (reasoning.right_after * 1.0 - reasoning.right_before).mean()
    )
    assert "reasoning less that on hallucination" in found.rule


def test_task_with_few_answers_is_undecided(clusters_of):
    few = pairs(flip_rate=0.1, lost=0.2, images=8, seed=6)
    other = pairs(flip_rate=0.1, lost=0.2, images=8, first=8, seed=7)
    found = task_dependent(("a", few), ("b", other), clusters_of(np.arange(16)))
    assert found.outcome == "undecided"
    assert found.reason
