"""The paper's three findings as tests: each with n, an interval, and the rule that decided.

A verdict is read off an interval, never off a value: a finding *holds* where the whole interval
lies on its side of a limit named in the rule, *does not hold* where it lies on the other, and is
*undecided* otherwise. Limits are settings, and part of the rule's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from sightline.audit.drift import MovedFar
from sightline.audit.instability import Pairs
from sightline.audit.resampled import Clusters, Ratio
from sightline.core.errors import UsageError
from sightline.core.estimates import Estimate

Outcome = Literal["holds", "does not hold", "undecided"]

FEWEST_PICTURES = 20
"""Pictures below which hidden drift is not decided: one of 20 is the 5 % that it is held to."""


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
    """

    name: str
    parameters: int
    pairs: Pairs


def scale_does_not_help(
    runs: Sequence[SizedRun], clusters: Clusters, *, tolerance: float = 0.01
) -> Verdict:
    """Whether the largest model flips as often as the smallest, although it is more often right.

    Args:
        runs: At least two models of different sizes.
        clusters: Resamples of the images of all runs.
        tolerance: Difference of flip rates that counts as no help.

    Raises:
        UsageError: Fewer than two runs, or two of one size.
        DataError: An image the clusters were not drawn from.

    Source:
        arXiv 2602.06652, second failure mode: accuracy rises with size, flip rates do not fall.
    """
    ordered = sorted(runs, key=lambda run: run.parameters)
    if len({run.parameters for run in ordered}) < max(2, len(ordered)):
        raise UsageError(
            f"{len(ordered)} runs with the sizes {[run.parameters for run in ordered]}; two or "
            "more models of different sizes are required. Collect another size."
        )
    small, large = ordered[0], ordered[-1]
    flips = clusters.difference(_flip_rate(large.pairs), _flip_rate(small.pairs))
    gain = clusters.difference(
        _accuracy(large.pairs), _accuracy(small.pairs), undefined="no pair has a known right answer"
    )
    evidence = {"accuracy, largest less smallest": gain}
    for less, more in pairwise(ordered):
        evidence[f"flip rate, {more.name} less {less.name}"] = clusters.difference(
            _flip_rate(more.pairs), _flip_rate(less.pairs)
        )
    rule = (
        f"flip rate of {large.name} less that of {small.name}: holds where the whole interval lies "
        f"above -{tolerance:g} and accuracy rises beyond chance, does not hold where the whole "
        "interval lies below 0 and reaches below that"
    )
    finding = "A larger model flips as often although it is more often right"
    outcome, reason = _not_lower(flips, tolerance)
    if outcome == "holds" and not (gain.low is not None and gain.low > 0):
        outcome, reason = "undecided", "the larger model is not more often right beyond chance"
    return Verdict(finding, outcome, flips, rule, reason, evidence)


def task_dependent(
    first: tuple[str, Pairs],
    second: tuple[str, Pairs],
    clusters: Clusters,
    *,
    tolerance: float = 0.01,
) -> Verdict:
    """Whether perturbations change accuracy differently on two kinds of task.

    Args:
        first: Name and pairs of one kind, such as reasoning.
        second: Name and pairs of the other, such as hallucination.
        clusters: Resamples of the images of both; an image that both use has one number, others
            have numbers of their own.
        tolerance: Difference of accuracy changes that counts as none.

    Raises:
        DataError: An image the clusters were not drawn from.

    Source:
        arXiv 2602.06652, third failure mode: reasoning suffers while hallucinations become fewer.
    """
    no_truth = "a task has no pair with a known right answer"
    found = clusters.difference(_change(first[1]), _change(second[1]), undefined=no_truth)
    evidence = {
        f"accuracy change, {name}": clusters.ratio(
            _change(pairs), n=int((pairs.counted & pairs.graded).sum()), undefined=no_truth
        )
        for name, pairs in (first, second)
    }
    rule = (
        f"accuracy change on {first[0]} less that on {second[0]}: holds where the interval leaves "
        f"out 0, does not hold where it lies within {tolerance:g} of 0 and holds 0"
    )
    finding = f"Perturbations act otherwise on {first[0]} than on {second[0]}"
    outcome, reason = _differs(found, tolerance)
    return Verdict(finding, outcome, found, rule, reason, evidence)


def _flip_rate(pairs: Pairs) -> Ratio:
    return Ratio(pairs.images, (pairs.flipped & pairs.counted) * 1.0, pairs.counted * 1.0)


def _accuracy(pairs: Pairs) -> Ratio:
    used = pairs.counted & pairs.graded
    return Ratio(pairs.images, (pairs.right_before & used) * 1.0, used * 1.0)


def _change(pairs: Pairs) -> Ratio:
    used = pairs.counted & pairs.graded
    change = np.where(used, pairs.right_after * 1.0 - pairs.right_before, 0.0)
    return Ratio(pairs.images, change, used * 1.0)


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
