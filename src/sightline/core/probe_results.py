"""Typed results of the parts of an audit that are made only when asked: probes and a budget."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from sightline.core.estimates import Estimate
from sightline.core.results import Skipped

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class FilterProbe:
    """How far pictures can be filtered before the label flips.

    Attributes:
        filtering: ``low`` keeps low frequencies, ``high`` high ones and the mean colour.
        cutoffs: Radii from mild to strong, in [0, 1] of the spectrum's corner.
        kept: For each, the share of questions whose label has not flipped by then.
        flipped: Questions that flip at some cut-off.
        threshold: Mean cut-off of their first flip.
    """

    filtering: Literal["low", "high"]
    cutoffs: tuple[float, ...]
    kept: tuple[Estimate, ...]
    flipped: int
    threshold: Estimate


@dataclass(frozen=True, config=_STRICT)
class NoiseProbe:
    """Share of draws of one band's noise that flip the label; `size` is its largest change."""

    band: str
    size: float
    flips: Estimate


@dataclass(frozen=True, config=_STRICT)
class AttackProbe:
    """An attack on the pixels within one band of frequencies.

    Attributes:
        band: Its name.
        low: Its lowest radius.
        high: Its highest.
        success: Share of questions whose label flips while the clean label's score falls.
        flips: Share whose label flips, however it came about.
        score_change: Mean log-probability of the clean label or free answer, after less before,
            nats.
        leakage: Mean share of the change's power outside the band, let out by clipping.
        leakage_most: The largest such share.
        largest: Largest change of a pixel.
        coherence: Mean agreement of clean and attacked picture in the low, middle and high band.
    """

    band: str
    low: float
    high: float
    success: Estimate
    flips: Estimate
    score_change: Estimate
    leakage: Estimate
    leakage_most: float
    largest: float
    coherence: tuple[float, ...]


@dataclass(frozen=True, config=_STRICT)
class Probes:
    """Frequency probes, made in the model's own pixel space, or the picture's where it reads tiles.

    Attributes:
        questions: Questions that were probed.
        images: Their pictures.
        skipped: Questions that could not be probed, by reason.
        sides: Heights and widths of that space.
        agreement: Share of questions whose label in that space is the collected one.
        filters: Low pass and high pass.
        noise: By band and size.
        attacks: By band.
        trials: Draws of noise for each band and size.
        epsilon: Largest change of a pixel by an attack.
        step: Length of its steps.
        steps: Their number.
        seed: Of the noise.
        reads: Pictures the model was asked about.
        gradients: How often it was asked for a gradient too.
        free: Questions that are answered freely; their score is the clean answer's log-probability,
            and they flip when the answer decoded again has another short form.
    """

    questions: int
    images: int
    skipped: tuple[Skipped, ...]
    sides: tuple[tuple[int, int], ...]
    agreement: Estimate
    filters: tuple[FilterProbe, ...]
    noise: tuple[NoiseProbe, ...]
    attacks: tuple[AttackProbe, ...]
    trials: int
    epsilon: float
    step: float
    steps: int
    seed: int
    reads: int
    gradients: int
    free: int = 0


@dataclass(frozen=True, config=_STRICT)
class BudgetStep:
    """One condition of a budget, in the order it was chosen on all questions.

    Attributes:
        condition: Its name.
        loss: Cross-validated loss with it and those before it, nats per question.
        gain: By how much it lowers that loss, on the questions that chose it.
        held_out: What as many conditions gain on questions that did not choose them.
        folds: In how many of the parts it is among the chosen ones.
    """

    condition: str
    loss: float
    gain: float
    held_out: Estimate
    folds: int


@dataclass(frozen=True, config=_STRICT)
class BudgetedAudit:
    """The few conditions that tell most about one target.

    Attributes:
        target: What is predicted, in words.
        questions: Questions it is known of.
        share: Share of them for which it is true.
        conditions: Conditions to choose among.
        loss: Cross-validated loss without any condition, nats per question.
        parts: Parts of the pictures; each measures what the others chose.
        steps: In the order they were chosen; empty where nothing could be.
        everything: What all conditions together gain, measured on other questions.
        reason: Why nothing could be chosen, in words; None where something was.
    """

    target: str
    questions: int
    share: float
    conditions: int
    loss: float | None
    parts: int
    steps: tuple[BudgetStep, ...]
    everything: Estimate
    reason: str | None
