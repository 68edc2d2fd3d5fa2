"""Scoring embedded pictures: every score, fitted anew on each support draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from sightline.core.errors import SightlineError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.results import NotApplicable, Skipped
from sightline.core.specs import spec_of
from sightline.core.types import Generation, Record
from sightline.workflow.classifying.reading import Embedded, SupportDraws
from sightline.zeroshot import (
    ZERO_SHOT_SCORES,
    ClassifierOutputs,
    ClassTexts,
    FittedScore,
    Scored,
    Traits,
    ZeroShotScore,
    parse_score,
    score,
    score_all,
)

ZERO_SHOT = "zero-shot"
WITH_LABELS = "uses support labels"
SIMPLE = frozenset(
    {"msp", "max_logit", "energy", "entropy", "margin", "mcm", "doctor_alpha", "doctor_beta"}
    | {"max_cosine"}
)
"""Scores that may serve as the simple baseline: all they need is the logits."""
SLOW = "its fit takes longer than seconds; name it with -e"
"""Why a score is left out where none is named."""


@dataclass(frozen=True, slots=True, eq=False)
class AppliedScore:
    """A fitted score with an estimator's traits, so that one protocol measures both.

    Attributes:
        texts: The classes.
        fitted: The score.
        traits: What it needs.
        simple: Whether it may serve as the simple baseline.
        aux: Where the vectors of its auxiliary encoder lie among all, or None.
    """

    texts: ClassTexts
    fitted: FittedScore
    traits: Traits
    simple: bool
    aux: slice | None
    control: bool = field(default=False, init=False)

    @property
    def needs(self) -> frozenset[Feature]:
        """The vectors it reads."""
        needed = {Feature.IMAGE_VECTOR}
        if self.traits.uses_aux:
            needed.add(Feature.AUX_VECTORS)
        if self.traits.uses_views:
            needed.add(Feature.VIEW_VECTORS)
        return frozenset(needed)

    @property
    def family(self) -> str:
        """Whether labelled support pictures are learned from: the fair comparison."""
        return WITH_LABELS if self.traits.uses_support else ZERO_SHOT

    @property
    def is_probability(self) -> bool:
        """Whether 1 − uncertainty is a probability."""
        return self.traits.is_probability

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Uncertainty of the score's own label."""
        return self._scored(records).uncertainty

    def answered(self, records: Sequence[Record]) -> list[Record]:
        """The records with the score's own labels as answers; those that lack a signal as given."""
        found = list(records)
        rows = [row for row, record in enumerate(found) if not record.missing(self.needs)]
        if self.traits.may_relabel and rows:
            labels = self._scored([found[row] for row in rows]).label.tolist()
            for row, label in zip(rows, labels, strict=True):
                found[row] = replace(found[row], greedy=Generation(self.texts.classes[label]))
        return found

    def _scored(self, records: Sequence[Record]) -> Scored:
        image = np.stack([r.array(Feature.IMAGE_VECTOR) for r in records])
        aux = views = None
        if self.aux is not None:
            aux = np.stack([r.array(Feature.AUX_VECTORS)[self.aux] for r in records])
        if self.traits.uses_views:
            views = np.stack([r.array(Feature.VIEW_VECTORS) for r in records], axis=1)
        return score(self.fitted, ClassifierOutputs(self.texts, image, aux, views))

    def cost(self, records: Sequence[Record]) -> Cost:
        """One pass of the auxiliary encoder, or one for every view, beyond the classifier's own."""
        passes = int(self.traits.uses_aux)
        if self.traits.uses_views and records and records[0].has(Feature.VIEW_VECTORS):
            passes += len(records[0].array(Feature.VIEW_VECTORS))
        return Cost(forward_passes=passes)


@dataclass(slots=True, eq=False)
class Drawn:
    """One score over the support draws; one entry where it uses no support.

    Attributes:
        name: What it is shown as.
        estimator: The score as fitted on the first draw.
        spec: Its settings, and the encoder it reads.
        results: Labels and uncertainties of every picture, by draw.
        seconds: Seconds of the first draw: its own fit, and its share of the joint scoring.
    """

    name: str
    estimator: AppliedScore
    spec: Mapping[str, Any]
    results: list[Scored]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Entry:
    """A score to compute: its name, itself, and the index of its encoder."""

    name: str
    score: ZeroShotScore
    encoder: int | None


def score_embedded(
    seen: Embedded,
    others: Sequence[Embedded],
    draws: SupportDraws | None,
    specs: Sequence[str] | None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[list[Drawn], list[list[Drawn]], list[NotApplicable]]:
    """Fits every score on each support draw, and scores all pictures.

    Args:
        seen: The pictures to judge.
        others: Further pictures to score alike, such as out-of-distribution ones.
        draws: Support draws, or None.
        specs: Scores by name or ``name:setting=value``; None: all whose fit takes but seconds.
        seed: Of the fits.
        progress: Called with draws done and all.

    Returns:
        The scores, the same for each of ``others``, and those that cannot be computed, and why.
    """
    wanted, lacking = _entries(seen, specs, supported=draws is not None)
    count = 1 if draws is None else len(draws.rows)
    tables = [seen, *others]
    found: list[dict[str, Drawn]] = [{} for _ in tables]
    for draw in range(count):
        progress(draw, count)
        for encoder in sorted({e.encoder for e in wanted}, key=lambda e: -1 if e is None else e):
            mine = [e for e in wanted if e.encoder == encoder]
            fitted, seconds, failed = _fitted(mine, seen.texts, draws, draw, seed)
            place = f"on draw {draw + 1} of {count}: " if count > 1 else ""
            lacking += [
                NotApplicable(n, (Skipped(place + why, len(seen)),)) for n, why in failed.items()
            ]
            wanted = [e for e in wanted if e.name not in failed]
            for name in failed:
                for table in found:
                    table.pop(name, None)
            for table, pictures in zip(found, tables, strict=True):
                started = time.perf_counter()
                scored = _scored(fitted, pictures, encoder) if fitted else {}
                share = (time.perf_counter() - started) / max(1, len(scored))
                for entry in mine:
                    if entry.name in scored:
                        if entry.name not in table:
                            table[entry.name] = _drawn(
                                entry, seen, fitted[entry.name], seconds[entry.name] + share
                            )
                        table[entry.name].results.append(scored[entry.name])
    ordered = [[table[e.name] for e in wanted if e.name in table] for table in found]
    return ordered[0], ordered[1:], lacking


def _entries(
    seen: Embedded, specs: Sequence[str] | None, *, supported: bool
) -> tuple[list[_Entry], list[NotApplicable]]:
    """The scores to compute, those of auxiliary vectors once an encoder."""
    chosen = dict(ZERO_SHOT_SCORES)
    if specs is not None:
        chosen = {spec: parse_score(spec) for spec in specs}
    entries, lacking = [], []
    for name, one in chosen.items():
        why = _lacks(one.traits, seen, supported=supported)
        if why is None and specs is None and one.traits.slow:
            why = SLOW
        if why is not None:
            lacking.append(NotApplicable(name, (Skipped(why, len(seen)),)))
        elif not one.traits.uses_aux:
            entries.append(_Entry(name, one, None))
        else:
            several = len(seen.encoders) > 1
            for at, encoder in enumerate(seen.encoders):
                entries.append(_Entry(f"{name}[{encoder}]" if several else name, one, at))
    return entries, lacking


def _lacks(traits: Traits, seen: Embedded, *, supported: bool) -> str | None:
    """What the run does not hold that a score needs, and how to get it."""
    if traits.uses_aux and not seen.encoders:
        return "no auxiliary encoder; classify with --encoder"
    if traits.uses_views and not seen.has_views:
        return "no transformed views; classify with --views"
    if traits.uses_templates and seen.texts.templates is None:
        return "a single prompt template; classify with several --templates"
    if traits.uses_support and not supported:
        return "no support pictures; classify with --support"
    return None


def _fitted(
    entries: Sequence[_Entry],
    texts: ClassTexts,
    draws: SupportDraws | None,
    draw: int,
    seed: int,
) -> tuple[dict[str, FittedScore], dict[str, float], dict[str, str]]:
    """Scores fitted on one draw, with the seconds it took, and why others could not be."""
    support = None
    if draws is not None and entries:
        support = draws.pictures.support(draws.rows[draw], entries[0].encoder)
    fitted: dict[str, FittedScore] = {}
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    for entry in entries:
        uses_support = entry.score.traits.uses_support
        if draw and not uses_support:
            continue
        started = time.perf_counter()
        try:
            fitted[entry.name] = entry.score.fit(
                texts, support if uses_support else None, np.random.default_rng([seed, draw])
            )
        except SightlineError as error:
            failed[entry.name] = str(error)
        seconds[entry.name] = time.perf_counter() - started
    return fitted, seconds, failed


def _scored(
    fitted: Mapping[str, FittedScore], pictures: Embedded, encoder: int | None
) -> dict[str, Scored]:
    """All pictures scored, those of one part of the run after another."""
    parts = [score_all(fitted, outputs) for outputs in pictures.parts(encoder)]
    return {
        name: Scored(
            np.concatenate([part[name].label for part in parts]),
            np.concatenate([part[name].uncertainty for part in parts]),
        )
        for name in fitted
    }


def _drawn(entry: _Entry, seen: Embedded, fitted: FittedScore, seconds: float) -> Drawn:
    spec = spec_of(entry.score, ZERO_SHOT_SCORES, "score")
    aux = None
    if entry.encoder is not None:
        spec["auxiliary_encoder"] = seen.encoders[entry.encoder]
        aux = slice(sum(seen.widths[: entry.encoder]), sum(seen.widths[: entry.encoder + 1]))
    applied = AppliedScore(seen.texts, fitted, entry.score.traits, spec["name"] in SIMPLE, aux)
    return Drawn(entry.name, applied, spec, [], seconds)
