"""Typed results of an audit about its answers: what flips, by which margins, and without pictures.

They are parts of `sightline.core.audit_results.Audit`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from sightline.core.estimates import Estimate
from sightline.core.results import Skipped

Part = Literal["picture", "wording", "injection"]
"""What a condition tests; only pairs of changed pictures count among ``all``."""

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Rates:
    """How often the answers of some pairs change.

    Attributes:
        name: ``all``, a type of perturbation (``pad/crop``) or one condition (``jpeg:3``).
        part: ``picture`` where the pairs count among ``all``; ``wording`` and ``injection`` (an
            option is written on the picture) are rows of their own.
        pairs: Pairs that count.
        items: Their questions.
        excluded: Pairs that do not count, by reason.
        undecided: Share of flips among pairs left out because it is not known whether the right
            answer stays; n of them. In no other figure.
        ifr: Share of pairs whose label flipped.
        iv: Share of questions with at least one flip.
        right_wrong: Pairs that were right and became wrong; and so on.
        wrong_right: The reverse.
        right_right: Right before and after.
        wrong_wrong: Wrong before and after.
        lost: R→W/(R→W+R→R).
        won: W→R/(W→R+W→W).
        accuracy_before: Share of graded pairs whose clean answer is right.
        accuracy_after: Share of them whose perturbed answer is right.
        accuracy_change: After less before, paired.
        margin_change: Mean margin of the clean label after less before, nats, of scored pairs.
        margin_true_change: The same of the right option, of scored pairs whose truth is known.
        margin_flipped: Mean over questions of the clean label's margin where it flips, nats.
        margin_stays: The same where it stays.
        score_change: Mean log-probability of the clean answer after less before, nats.
        energy_change: Mean ΔE of the vision tokens over their mean squared length.
        prior_index: Mean drift-to-prior of the pairs that have one.
    """

    name: str
    part: Part
    pairs: int
    items: int
    excluded: tuple[Skipped, ...]
    undecided: Estimate
    ifr: Estimate
    iv: Estimate
    right_wrong: int
    wrong_right: int
    right_right: int
    wrong_wrong: int
    lost: Estimate
    won: Estimate
    accuracy_before: Estimate
    accuracy_after: Estimate
    accuracy_change: Estimate
    margin_change: Estimate
    margin_true_change: Estimate
    margin_flipped: Estimate
    margin_stays: Estimate
    score_change: Estimate
    energy_change: Estimate
    prior_index: Estimate


@dataclass(frozen=True, config=_STRICT)
class YesNo:
    """Yes-or-no figures under one type of perturbation (``clean`` for the clean pictures).

    Attributes:
        name: Type of perturbation.
        n: Answers.
        accuracy: Share right; see `sightline.audit.yes_no.YesNoRates` for this and what follows.
        precision: Of answers yes.
        recall: Of questions whose truth is yes.
        f1: Of both.
        false_positive_rate: Of questions whose truth is no, the share answered yes.
        yes_rate: Share answered yes.
        margin: Mean score of yes less that of no, nats.
        margin_flipped: The same over flips, mean over questions.
        margin_stays: The same over answers that stay.
        hit: Share that flips of clean answers yes that are right.
        false_alarm: Of clean answers yes that are wrong.
        miss: Of clean answers no that are wrong.
        rejection: Of clean answers no that are right.
    """

    name: str
    n: int
    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    false_positive_rate: Estimate
    yes_rate: Estimate
    margin: Estimate
    margin_flipped: Estimate
    margin_stays: Estimate
    hit: Estimate
    false_alarm: Estimate
    miss: Estimate
    rejection: Estimate


@dataclass(frozen=True, config=_STRICT)
class Prior:
    """What is answered without the picture.

    ``unchanged`` is over all questions, the rest over those whose label is read off scores; see
    `sightline.audit.prior.LanguagePrior`.
    """

    unchanged: Estimate
    unchanged_right: Estimate
    unchanged_wrong: Estimate
    accuracy: Estimate
    accuracy_blank: Estimate
    accuracy_gain: Estimate
    margin: Estimate
    margin_blank: Estimate
    without_index: tuple[Skipped, ...]


@dataclass(frozen=True, config=_STRICT)
class Meaning:
    """Free answers compared by meaning, beside the comparison of their short forms.

    Attributes:
        judge: What compares them.
        changed: Share of pairs whose meaning changed.
        flipped: Share of the same pairs whose short form changed.
        reworded: Among pairs whose short form changed, the share that says the same.
        overlooked: Among pairs whose short form stayed, the share that says something else.
    """

    judge: str
    changed: Estimate
    flipped: Estimate
    reworded: Estimate
    overlooked: Estimate
