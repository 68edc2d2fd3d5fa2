"""The paper's three findings as tests: each with n, an interval, and the rule that decided.

A verdict is read off an interval, never off a value: a finding *holds* where the whole interval
lies on its side of a limit named in the rule, *does not hold* where it lies on the other, and is
*undecided* otherwise. Limits are settings, and part of the rule's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sightline.audit.drift import MovedFar
from sightline.audit.instability import Pairs
from sightline.audit.resampled import Clusters, Ratio
from sightline.core.errors import UsageError
from sightline.core.estimates import Estimate
from sightline.metrics.ranked import ratio

Outcome = Literal["holds", "does not hold", "undecided"]

FEWEST_PICTURES = 20
"""Pictures below which hidden drift is not decided: one of 20 is the 5 % that it is held to; and
below which a condition is none that tasks are compared under: with fewer, resamples lose it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run, or several, say about one finding.

    Attributes:
        finding: The finding in words.
        outcome: ``holds``, ``does not hold`` or ``undecided``.
        estimate: The figure that decided, with its interval and n.
        rule: How the figure was turned into the outcome.
        reason: Why there is no decision, in words; None otherwise.
        evidence: Further figures that were looked at, by name.
    """

    finding: str
    outcome: Outcome
    estimate: Estimate
    rule: str
    reason: str | None
    evidence: Mapping[str, Estimate]


def hidden_drift(
    images: Int[np.ndarray, " n"],
    unchanged: Bool[np.ndarray, " n"],
    moved: MovedFar,
    clusters: Clusters,
    *,
    control: str,
    at_least: float = 0.05,
) -> Verdict:
    """Whether answers that do not change hide representations that move far.

    Not decided on answers that stay about fewer than `FEWEST_PICTURES` pictures, whatever their
    number: with fewer, a single picture is worth more than the share asked for, and an interval
    over pictures cannot tell 5 % from none. Nor with fewer control values than the threshold
    requires (20 for the 5 % quantile; see `sightline.audit.drift.moved_far`).

    Args:
        images: Image of each pair that counts.
        unchanged: Whether the label stayed.
        moved: Which pairs moved as far as an unrelated picture.
        clusters: Resamples of the images.
        control: What the control is, in words: what drift is held against.
        at_least: The finding holds above this share of unchanged answers.

    Raises:
        DataError: An image the clusters were not drawn from.

    Source:
        arXiv 2602.06652, first failure mode; it compares means without conditioning on the label.
    """
    share = clusters.share(
        images, moved.flags, unchanged, undefined="no answer stays under perturbation"
    )
    rule = (
        f"holds where more than {at_least:.0%} of the answers that stay moved as far as the "
        f"control ({control}), does not hold where less, by the whole interval, on at least "
        f"{FEWEST_PICTURES} pictures; moved far: {moved.rule}"
    )
    finding = "Answers that stay hide representations that move far"
    changed = {"share of answers that flip": clusters.share(images, ~unchanged)}
    if moved.threshold is None:
        missing = Estimate(None, n=share.n, reason="no threshold")
        return Verdict(finding, "undecided", missing, rule, moved.rule, changed)
    pictures = len(np.unique(images[unchanged]))
    if pictures < FEWEST_PICTURES:
        few = f"answers stay about {pictures} pictures, and {FEWEST_PICTURES} are required"
        return Verdict(finding, "undecided", share, rule, few, changed)
    outcome, reason = _beyond(share, at_least)
    return Verdict(finding, outcome, share, rule, reason, changed)


@dataclass(frozen=True, slots=True, eq=False)
class SizedRun:
    """The pairs of one model, to be compared with others on the same questions.

    Attributes:
        name: Of the model.
        parameters: Its size.
        pairs: Its pairs; images are numbered alike in all runs.
        keys: Number of each pair, its own within the run: the same question about the same
            picture under the same condition has the same number in all runs.
        conditions: Condition of each pair.
    """

    name: str
    parameters: int
    pairs: Pairs
    keys: Int[np.ndarray, " n"]
    conditions: Shaped[np.ndarray, " n"]

    @property
    def counted_keys(self) -> Int[np.ndarray, " c"]:
        """Numbers of the pairs that count, ascending."""
        return np.unique(self.keys[self.pairs.counted])


def scale_does_not_help(
    runs: Sequence[SizedRun], clusters: Clusters, *, tolerance: float = 0.01
) -> Verdict:
    """Whether the largest model flips as often as the smallest, although it is more often right.

    Only pairs that count in every run are looked at, so that no model is held to other questions
    or other perturbations than its rival; accuracies are of those that are graded in every run.

    Args:
        runs: At least two models of different sizes.
        clusters: Resamples of the images of all runs.
        tolerance: Difference of flip rates that counts as no help.

    Raises:
        UsageError: Fewer than two runs, two of one size, or no pair that counts in all.
        DataError: An image the clusters were not drawn from.

    Source:
        arXiv 2602.06652, second failure mode: accuracy rises with size, flip rates do not fall.
        There all models are asked everything; ours matches what they were asked.
    """
    ordered = sorted(runs, key=lambda run: run.parameters)
    if len({run.parameters for run in ordered}) < max(2, len(ordered)):
        raise UsageError(
            f"{len(ordered)} runs with the sizes {[run.parameters for run in ordered]}; two or "
            "more models of different sizes are required. Collect another size."
        )
    common = reduce(np.intersect1d, (run.counted_keys for run in ordered))
    if not len(common):
        raise UsageError(
            f"No pair counts in each of {', '.join(run.name for run in ordered)}; the same "
            "questions about the same pictures under the same conditions are required to compare "
            "sizes. Collect the models alike."
        )
    matched = [run.pairs.where(run.pairs.counted & np.isin(run.keys, common)) for run in ordered]
    known = reduce(
        np.intersect1d,
        (run.keys[run.pairs.counted & run.pairs.graded] for run in ordered),
        common,
    )
    graded = [run.pairs.where(run.pairs.counted & np.isin(run.keys, known)) for run in ordered]
    flips = clusters.difference(_flip_rate(matched[-1]), _flip_rate(matched[0]))
    gain = clusters.difference(
        _accuracy(graded[-1]), _accuracy(graded[0]), undefined="no pair has a known right answer"
    )
    evidence = {"accuracy, largest less smallest": gain}
    for (less, fewer), (more, larger) in pairwise(zip(ordered, matched, strict=True)):
        evidence[f"flip rate, {more.name} less {less.name}"] = clusters.difference(
            _flip_rate(larger), _flip_rate(fewer)
        )
    small, large = ordered[0], ordered[-1]
    rule = (
        f"flip rate of {large.name} less that of {small.name}: holds where the whole interval lies "
        f"above -{tolerance:g} and accuracy rises beyond chance, does not hold where the whole "
        f"interval lies below 0 and reaches below that; {_matching(ordered, common)}"
    )
    finding = "A larger model flips as often although it is more often right"
    outcome, reason = _not_lower(flips, tolerance)
    if outcome == "holds" and not (gain.low is not None and gain.low > 0):
        outcome, reason = "undecided", "the larger model is not more often right beyond chance"
    return Verdict(finding, outcome, flips, rule, reason, evidence)


def _matching(runs: Sequence[SizedRun], common: Int[np.ndarray, " c"]) -> str:
    """On how many pairs runs are compared, and what of each is left out, in words."""
    asked = set(runs[0].conditions[np.isin(runs[0].keys, common)])
    left = []
    for run in runs:
        lost = run.pairs.counted & ~np.isin(run.keys, common)
        if lost.any():
            elsewhere = len(set(run.conditions[lost]) - asked)
            left.append(
                f"{_number(int(lost.sum()), 'pair')} of {run.name}"
                + (f", with all of {_number(elsewhere, 'condition')}" if elsewhere else "")
            )
    return (
        f"on {_number(len(common), 'pair')} under {_number(len(asked), 'condition')} that count in "
        f"every run, left out: {'; '.join(left) or 'none'}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class TaskPairs:
    """The pairs of one kind of question, to be compared with those of another.

    Attributes:
        name: Of the kind.
        pairs: Its pairs; an image that both kinds use has one number.
        conditions: Condition of each pair.
    """

    name: str
    pairs: Pairs
    conditions: Shaped[np.ndarray, " n"]

    def where(self, rows: Bool[np.ndarray, " n"], name: str) -> TaskPairs:
        """Some of the pairs under a name of their own."""
        return TaskPairs(name, self.pairs.where(rows), self.conditions[rows])

    @property
    def used(self) -> Bool[np.ndarray, " n"]:
        """Whether each pair counts and is known to be right or wrong before and after."""
        return self.pairs.counted & self.pairs.graded


def common_conditions(tasks: Sequence[TaskPairs], *, fewest: int = FEWEST_PICTURES) -> list[str]:
    """Conditions under which every task has graded pairs that count about enough pictures.

    Args:
        tasks: Kinds of question.
        fewest: Pictures that are enough.
    """
    found = []
    for task in tasks:
        used = task.used
        pictures: dict[str, set[int]] = {}
        for condition, image in zip(
            task.conditions[used].tolist(), task.pairs.images[used].tolist(), strict=True
        ):
            pictures.setdefault(condition, set()).add(image)
        found.append({name for name, images in pictures.items() if len(images) >= fewest})
    return sorted(set.intersection(*found))


def change_of_accuracy(task: TaskPairs, conditions: Sequence[str], clusters: Clusters) -> Estimate:
    """Mean over conditions of the change of accuracy under each: all conditions weigh alike.

    Args:
        task: Pairs of one kind of question.
        conditions: What the mean is over; each must have graded pairs that count.
        clusters: Resamples of the images.

    Returns:
        Accuracy under perturbation less that before, in [-1, 1]; ``n`` is the pairs it is of.

    Raises:
        DataError: An image the clusters were not drawn from.
    """
    images, rows, n = _sums_by_condition(task, conditions)
    return clusters.estimate(
        images, rows, _mean_ratio, n=n, undefined="no common condition", bounds=(-1.0, 1.0)
    )


def task_dependent(
    first: TaskPairs,
    second: TaskPairs,
    clusters: Clusters,
    *,
    tolerance: float = 0.01,
    fewest: int = FEWEST_PICTURES,
) -> Verdict:
    """Whether perturbations change accuracy differently on two kinds of task.

    Which pairs count depends on the question: where mild perturbations alone keep the right
    answers of one kind, and harsh ones those of the other too, their mean changes differ whatever
    the model does. Both are therefore measured under the conditions that count for both, and every
    condition weighs alike in both.

    Args:
        first: One kind, such as reasoning.
        second: The other, such as hallucination.
        clusters: Resamples of the images of both; an image that both use has one number, others
            have numbers of their own.
        tolerance: Difference of accuracy changes that counts as none.
        fewest: Pictures of each kind that a condition must count about to be compared under.

    Raises:
        DataError: An image the clusters were not drawn from.

    Source:
        arXiv 2602.06652, third failure mode: reasoning suffers while hallucinations become fewer.
        There every pair counts for every task; ours compares under the conditions that do.
    """
    finding = f"Perturbations act otherwise on {first.name} than on {second.name}"
    common = common_conditions((first, second), fewest=fewest)
    kept = [task.used & np.isin(task.conditions, common) for task in (first, second)]
    every = set(first.conditions[first.used]) | set(second.conditions[second.used])
    rule = (
        f"accuracy change on {first.name} less that on {second.name}, mean over the conditions "
        f"that count about at least {fewest} pictures of each: holds where the interval leaves out "
        f"0, does not hold where it lies within {tolerance:g} of 0 and holds 0; "
        f"{_number(len(common), 'condition')} with {_number(int(kept[0].sum()), 'pair')} and "
        f"{int(kept[1].sum()):,}, left out: {_number(len(every) - len(common), 'condition')}"
    )
    if not common:
        nothing = _nothing_common(first, second, fewest)
        missing = Estimate(None, n=0, reason=nothing)
        return Verdict(finding, "undecided", missing, rule, nothing, {})
    own, other = (_sums_by_condition(task, common) for task in (first, second))
    found = clusters.estimate(
        np.concatenate([own[0], other[0]]),
        np.block([[own[1], np.zeros_like(other[1])], [np.zeros_like(own[1]), other[1]]]),
        lambda sums: (
            _mean_ratio(sums[:, : 2 * len(common)]) - _mean_ratio(sums[:, 2 * len(common) :])
        ),
        n=own[2] + other[2],
    )
    evidence = {
        f"accuracy change, {task.name}": change_of_accuracy(task, common, clusters)
        for task in (first, second)
    }
    outcome, reason = _differs(found, tolerance)
    return Verdict(finding, outcome, found, rule, reason, evidence)


def _nothing_common(first: TaskPairs, second: TaskPairs, fewest: int) -> str:
    """Why two tasks cannot be compared, in words."""
    for task in (first, second):
        if not task.used.any():
            return f"no pair of {task.name} counts and has a known right answer"
    if not common_conditions((first, second), fewest=1):
        return "no condition counts for both"
    return f"no condition counts about {fewest} pictures of each"


def _sums_by_condition(
    task: TaskPairs, conditions: Sequence[str]
) -> tuple[Int[np.ndarray, " g"], Float[np.ndarray, "s g"], int]:
    """Images, sums of changes and of pairs by condition and image, and how many pairs."""
    used = task.used & np.isin(task.conditions, conditions)
    pairs = task.pairs.where(used)
    images, place = np.unique(pairs.images, return_inverse=True)
    number = {name: i for i, name in enumerate(conditions)}
    of = np.array([number[name] for name in task.conditions[used]], dtype=np.int64)
    cells, shape = of * len(images) + place, (len(conditions), len(images))
    change = pairs.right_after * 1.0 - pairs.right_before
    changes = np.bincount(cells, change, minlength=shape[0] * shape[1])
    counts = np.bincount(cells, minlength=shape[0] * shape[1]) * 1.0
    return images, np.concatenate([changes.reshape(shape), counts.reshape(shape)]), len(of)


def _mean_ratio(sums: Float[np.ndarray, "b s"]) -> Float[np.ndarray, " b"]:
    """Mean over conditions of change per pair: changes in the first half, pairs in the second."""
    over, under = np.split(sums, 2, axis=1)
    return np.asarray(ratio(over, under).mean(axis=1))


def _flip_rate(pairs: Pairs) -> Ratio:
    return Ratio(pairs.images, pairs.flipped * 1.0, np.ones(len(pairs.images)))


def _accuracy(pairs: Pairs) -> Ratio:
    return Ratio(pairs.images, pairs.right_before * 1.0, np.ones(len(pairs.images)))


def _number(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _beyond(found: Estimate, limit: float) -> tuple[Outcome, str | None]:
    if found.low is None or found.high is None:
        return "undecided", found.reason or "the figure has no interval"
    if found.low > limit:
        return "holds", None
    if found.high < limit:
        return "does not hold", None
    return "undecided", "the interval holds the limit"


def _not_lower(found: Estimate, tolerance: float) -> tuple[Outcome, str | None]:
    if found.low is None or found.high is None:
        return "undecided", found.reason or "the figure has no interval"
    if found.low > -tolerance:
        return "holds", None
    if found.high < 0:
        return "does not hold", None
    return "undecided", "the interval reaches from a fall to none"


def _differs(found: Estimate, tolerance: float) -> tuple[Outcome, str | None]:
    if found.low is None or found.high is None:
        return "undecided", found.reason or "the figure has no interval"
    if found.low > 0 or found.high < 0:
        return "holds", None
    if found.low > -tolerance and found.high < tolerance:
        return "does not hold", None
    return "undecided", "the interval holds 0 and differences that would count"
