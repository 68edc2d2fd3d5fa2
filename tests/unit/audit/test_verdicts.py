"""Verdicts hold, fail and stay open where they should, and say by which rule."""

from dataclasses import replace

import numpy as np
import pytest

from sightline.audit.drift import moved_far
from sightline.audit.instability import TRUTH_CHANGES, Pairs
from sightline.audit.resampled import Ratio
from sightline.audit.verdicts import (
    SizedRun,
    TaskPairs,
    change_of_accuracy,
    common_conditions,
    hidden_drift,
    scale_does_not_help,
    task_dependent,
)
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


PER_ITEM = ("jpeg:1", "blur:1", "rotate:30")


def sized(name, parameters, own):
    """Pairs of `pairs`: three conditions an item, numbered alike in all runs."""
    conditions = np.array(PER_ITEM * (len(own.items) // 3), dtype=object)
    return SizedRun(name, parameters, own, np.arange(len(own.items)), conditions)


def task(name, own):
    return TaskPairs(name, own, np.array(PER_ITEM * (len(own.items) // 3), dtype=object))


def changes(name, by_condition, *, images=30, first=0):
    """One question an image; under each condition its share of the clean answers, all right, is
    lost, evenly."""
    conditions = np.repeat(np.array(list(by_condition), dtype=object), images)
    item = np.tile(np.arange(images), len(by_condition))
    lost = np.concatenate([np.arange(images) < share * images for share in by_condition.values()])
    yes = np.ones(len(item), dtype=bool)
    own = Pairs(item + first, item, lost, yes, ~lost, yes, np.full(len(item), ""))
    return TaskPairs(name, own, conditions)


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
        sized(name, size, pairs(flip_rate=flip, accuracy=accuracy, images=images, seed=2))
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
    few[2] = sized("c", 10, pairs(flip_rate=0.2, accuracy=0.8, images=10, seed=8))
    found = scale_does_not_help(few, clusters_of(np.arange(10)))
    assert found.outcome == "undecided"
    assert found.estimate.low < -0.01 < 0 < found.estimate.high


def test_a_difference_of_runs_is_paired_by_image(clusters_of):
    one, other = pairs(flip_rate=0.3, seed=3), pairs(flip_rate=0.3, seed=3)
    other.flipped[:6] = ~other.flipped[:6]
    clusters = clusters_of(np.arange(300))
    found = scale_does_not_help([sized("a", 1, one), sized("b", 2, other)], clusters)
    alone = clusters.share(one.images, one.flipped)
    assert found.estimate.high - found.estimate.low < (alone.high - alone.low) / 4


def test_excluded_pairs_do_not_count(clusters_of):
    small, large = pairs(flip_rate=0.3), pairs(flip_rate=0.3, seed=1)
    reasons = np.where(large.flipped, TRUTH_CHANGES, "")
    kept = replace(large, excluded=reasons)
    found = scale_does_not_help(
        [sized("a", 1, small), sized("b", 2, kept)], clusters_of(np.arange(300))
    )
    assert found.outcome == "does not hold"
    assert found.estimate.value == pytest.approx(-small.flipped[~large.flipped].mean())


def test_scale_needs_two_sizes(clusters_of):
    one = sized("a", 1, pairs(flip_rate=0.1))
    for runs in ([one], [one, one]):
        with pytest.raises(UsageError, match="different sizes"):
            scale_does_not_help(runs, clusters_of(np.arange(300)))


def test_runs_are_compared_on_the_pairs_that_count_in_all_of_them(clusters_of):
    """What one was asked and the others were not changes nothing but the count of what is left."""
    small, middle, large = three_runs((0.1, 0.2, 0.3), (0.5, 0.6, 0.8))
    clusters = clusters_of(np.arange(400))
    alike = scale_does_not_help([small, middle, large], clusters)
    more = pairs(flip_rate=0.9, images=100, first=300, seed=9)
    harsh = np.full(300, "rotate:-30", dtype=object)
    joined = Pairs(
        **{
            name: np.concatenate([getattr(large.pairs, name), getattr(more, name)])
            for name in Pairs.__dataclass_fields__
        }
    )
    wider = SizedRun("c", 10, joined, np.arange(1200), np.concatenate([large.conditions, harsh]))
    order = np.random.default_rng(0).permutation(1200)
    wider = SizedRun("c", 10, joined_in(joined, order), wider.keys[order], wider.conditions[order])
    found = scale_does_not_help([small, middle, wider], clusters)
    assert found.estimate == alike.estimate
    assert found.evidence == alike.evidence
    assert "left out: none" in alike.rule
    assert "on 900 pairs under 3 conditions that count in every run" in found.rule
    assert "left out: 300 pairs of c, with all of 1 condition" in found.rule


def joined_in(own, order):
    return Pairs(**{name: getattr(own, name)[order] for name in Pairs.__dataclass_fields__})


def test_accuracy_rises_on_pairs_that_are_graded_in_all_runs(clusters_of):
    small, _, large = three_runs((0.2, 0.2, 0.2), (0.5, 0.6, 0.8))
    known = np.arange(900) % 2 == 0
    half = replace(large, pairs=replace(large.pairs, graded=known))
    found = scale_does_not_help([small, half], clusters_of(np.arange(300)))
    gain = found.evidence["accuracy, largest less smallest"]
    expected = large.pairs.right_before[known].mean() - small.pairs.right_before[known].mean()
    assert gain.value == pytest.approx(expected)
    assert gain.n == 900


def test_runs_without_a_common_pair_are_refused(clusters_of):
    one = sized("a", 1, pairs(flip_rate=0.1))
    other = replace(one, name="b", parameters=2, keys=one.keys + 900)
    with pytest.raises(UsageError, match="No pair counts in each of a, b") as raised:
        scale_does_not_help([one, other], clusters_of(np.arange(300)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("lost", "outcome"), [(0.3, "holds"), (0.0005, "does not hold")])
def test_task(lost, outcome, clusters_of):
    reasoning = pairs(flip_rate=0.1, lost=lost, images=1500, seed=4)
    hallucination = pairs(flip_rate=0.1, lost=0.0005, images=1500, first=1500, seed=5)
    clusters = clusters_of(np.arange(3000))
    found = task_dependent(
        task("reasoning", reasoning), task("hallucination", hallucination), clusters
    )
    assert found.outcome == outcome
    assert found.evidence["accuracy change, reasoning"].value == pytest.approx(
        (reasoning.right_after * 1.0 - reasoning.right_before).mean()
    )
    assert "reasoning less that on hallucination" in found.rule


def test_task_with_few_answers_is_undecided(clusters_of):
    few = pairs(flip_rate=0.1, lost=0.2, images=8, seed=6)
    other = pairs(flip_rate=0.1, lost=0.2, images=8, first=8, seed=7)
    found = task_dependent(task("a", few), task("b", other), clusters_of(np.arange(16)))
    assert found.outcome == "undecided"
    assert found.reason == "no condition counts about 20 pictures of each"
    assert found.estimate.value is None
    assert found.estimate.n == 0
    assert not found.evidence


def test_which_conditions_count_decides_nothing(clusters_of):
    """A model that treats two tasks alike, of which one counts under harsh conditions too."""
    mild = {"jpeg:1": 0.1, "blur:1": 0.1}
    every = changes("existence", {**mild, "rotate:30": 0.8, "crop:16": 0.9})
    few = changes("position", mild, first=30)
    pooled = (every.pairs.right_after * 1.0).mean() - (few.pairs.right_after * 1.0).mean()
    assert pooled < -0.3
    found = task_dependent(few, every, clusters_of(np.arange(60)))
    assert found.estimate.value == pytest.approx(0)
    assert found.outcome != "holds"
    assert found.estimate.n == 120
    assert found.evidence["accuracy change, existence"].value == pytest.approx(-0.1)
    assert "2 conditions with 60 pairs and 60, left out: 2 conditions" in found.rule


def test_every_condition_weighs_alike(clusters_of):
    """By hand: (0.1 - 0.2 + 0.4 - 0.2) / 2, though one task has ten times as many of one."""
    one = changes("a", {"jpeg:1": 0.1, "blur:1": 0.4}, images=40)
    other = changes("b", {"jpeg:1": 0.2}, images=400, first=40)
    rest = changes("b", {"blur:1": 0.2}, images=40, first=40)
    both = TaskPairs(
        "b",
        Pairs(
            **{
                name: np.concatenate([getattr(other.pairs, name), getattr(rest.pairs, name)])
                for name in Pairs.__dataclass_fields__
            }
        ),
        np.concatenate([other.conditions, rest.conditions]),
    )
    found = task_dependent(one, both, clusters_of(np.arange(440)))
    assert found.estimate.value == pytest.approx(-0.05)
    assert found.estimate.low < found.estimate.value < found.estimate.high
    assert found.estimate.n == 80 + 440


def test_one_condition_is_the_difference_of_the_changes(clusters_of):
    """The limiting case: with a single condition figure and interval are those of pooled pairs."""
    one, other = changes("a", {"jpeg:1": 0.3}), changes("b", {"jpeg:1": 0.1}, first=30)
    clusters = clusters_of(np.arange(60))
    found = task_dependent(one, other, clusters)

    def pooled(own):
        change = own.pairs.right_after * 1.0 - own.pairs.right_before
        return Ratio(own.pairs.images, change, np.ones(len(change)))

    expected = clusters.difference(pooled(one), pooled(other))
    assert found.estimate.value == pytest.approx(expected.value)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((expected.low, expected.high))


def test_conditions_about_few_pictures_join_nothing(clusters_of):
    one = changes("a", {"jpeg:1": 0.1, "blur:1": 0.1}, images=30)
    thin = one.pairs.images < 19
    one = one.where((one.conditions == "jpeg:1") | thin, "a")
    assert common_conditions([one, changes("b", {"jpeg:1": 0, "blur:1": 0})]) == ["jpeg:1"]
    assert common_conditions([one], fewest=19) == ["blur:1", "jpeg:1"]


def test_nothing_in_common_is_undecided_with_its_reason(clusters_of):
    one, other = changes("a", {"jpeg:1": 0.1}), changes("b", {"blur:1": 0.9}, first=30)
    clusters = clusters_of(np.arange(60))
    found = task_dependent(one, other, clusters)
    assert (found.outcome, found.reason) == ("undecided", "no condition counts for both")
    unknown = replace(other, pairs=replace(other.pairs, graded=np.zeros(30, dtype=bool)))
    found = task_dependent(one, unknown, clusters)
    assert found.reason == "no pair of b counts and has a known right answer"


def test_excluded_and_ungraded_pairs_change_no_accuracy(clusters_of):
    one = changes("a", {"jpeg:1": 0.5}, images=40)
    excluded = np.where(one.pairs.flipped & (one.pairs.images % 2 == 0), TRUTH_CHANGES, "")
    graded = one.pairs.images >= 4
    own = replace(one, pairs=replace(one.pairs, excluded=excluded, graded=graded))
    found = change_of_accuracy(own, ["jpeg:1"], clusters_of(np.arange(40)))
    used = (excluded == "") & graded
    assert found.n == used.sum()
    assert found.value == pytest.approx(-one.pairs.flipped[used].mean())
