"""Columns of all pairs of an audit, and which of the pairs count: the one place that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.audit.instability import Pairs
from sightline.audit.labels import labels, margins, per_token, yes_margins
from sightline.audit.prior import drift_to_prior
from sightline.core.audit_answers import Part
from sightline.core.results import Skipped
from sightline.data.perturbations import Condition
from sightline.data.wordings import Rewording
from sightline.workflow.auditing.pairs import AuditRows

PICTURE, WORDING = "picture", "wording"
_MARGINS = ("before", "after", "true_before", "true", "blank", "yes_before", "yes")


def part_of(condition: Condition) -> Part:
    """What a condition tests.

    Returns:
        ``injection`` where it writes an option on the picture, or is a control of that; else
        ``wording`` where the question has other words, whatever happens to the picture; else
        ``picture``.
    """
    if condition.needs_answer:
        return "injection"
    if any(isinstance(step.perturbation, Rewording) for step in condition.steps):
        return "wording"
    return "picture"


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Columns of all pairs, NaN where a pair has no such value.

    Attributes:
        pairs: Flips and grades.
        kinds: Type of perturbation.
        conditions: Condition.
        parts: What the condition tests; see `part_of`.
        margin_before: Margin of the clean label, nats.
        margin: The same under the condition.
        margin_true_before: Margin of the right option under the clean picture.
        margin_true: The same under the condition.
        yes_before: Score of yes less that of no under the clean picture, nats.
        yes: The same under the condition.
        per_token: 1 where the label by mean log-probability per token flips, else 0.
        letters: The same of the label by the scores of the options' letters.
        score_change: Log-probability of the clean answer, after less before.
        energy_change: Change of the normalised energy.
        prior_index: Drift-to-prior.
        without_index: Scored pairs that have none, by reason.
    """

    pairs: Pairs
    kinds: np.ndarray
    conditions: np.ndarray
    parts: np.ndarray
    margin_before: Float[np.ndarray, " n"]
    margin: Float[np.ndarray, " n"]
    margin_true_before: Float[np.ndarray, " n"]
    margin_true: Float[np.ndarray, " n"]
    yes_before: Float[np.ndarray, " n"]
    yes: Float[np.ndarray, " n"]
    per_token: Float[np.ndarray, " n"]
    letters: Float[np.ndarray, " n"]
    score_change: Float[np.ndarray, " n"]
    energy_change: Float[np.ndarray, " n"]
    prior_index: Float[np.ndarray, " n"]
    without_index: tuple[Skipped, ...]

    @property
    def pictures(self) -> Bool[np.ndarray, " n"]:
        """Picture pairs, counted or not."""
        return np.asarray(self.parts == PICTURE)

    @property
    def counted_pictures(self) -> Bool[np.ndarray, " n"]:
        """Picture pairs whose right answer stays: those of every figure of all pairs together."""
        return self.pairs.counted & self.pictures


def columns_of(rows: AuditRows) -> Columns:
    """Reads the columns off a run's pairs."""
    found = _margin_columns(rows)
    index = np.full(len(rows.pairs), np.nan)
    there = np.flatnonzero(np.isfinite(found["blank"]) & np.isfinite(found["after"]))
    without: tuple[Skipped, ...] = ()
    if len(there):
        prior = drift_to_prior(found["before"][there], found["after"][there], found["blank"][there])
        index[there[prior.rows]] = prior.values
        without = prior.excluded
    return Columns(
        pairs=rows.as_pairs(),
        kinds=rows.kinds,
        conditions=rows.conditions,
        parts=np.array([part_of(pair.condition) for pair in rows.pairs], dtype=object),
        margin_before=found["before"],
        margin=found["after"],
        margin_true_before=found["true_before"],
        margin_true=found["true"],
        yes_before=found["yes_before"],
        yes=found["yes"],
        per_token=_per_token(rows),
        letters=_letters(rows),
        score_change=rows.column("score_change").astype(np.float64),
        energy_change=_energy_changes(rows),
        prior_index=index,
        without_index=without,
    )


def _scored(rows: AuditRows) -> Int[np.ndarray, " s"]:
    """Pairs whose label is read off scores."""
    return np.array([i for i, pair in enumerate(rows.pairs) if pair.scores is not None], int)


def _margin_columns(rows: AuditRows) -> Mapping[str, Float[np.ndarray, " n"]]:
    """Margins in nats, NaN where there are none.

    ``before`` and ``after`` are of the clean label, ``true`` of the right option, ``blank`` of the
    clean label without the picture, ``yes`` of yes against no.
    """
    found = {name: np.full(len(rows.pairs), np.nan) for name in _MARGINS}
    for i in _scored(rows):
        pair = rows.pairs[i]
        item = rows.items[pair.item]
        if item.scores is None or pair.scores is None:
            continue
        clean, now = item.scores[None], pair.scores[None]
        label = labels(clean)
        found["before"][i] = margins(clean, label)[0]
        found["after"][i] = margins(now, label)[0]
        if item.truth >= 0:
            truth = np.array([item.truth])
            found["true_before"][i] = margins(clean, truth)[0]
            found["true"][i] = margins(now, truth)[0]
        if item.blank_scores is not None:
            found["blank"][i] = margins(item.blank_scores[None], label)[0]
        if item.form == "yes_no":
            found["yes_before"][i] = yes_margins(clean[:, 1], clean[:, 0])[0]
            found["yes"][i] = yes_margins(now[:, 1], now[:, 0])[0]
    return found


def _per_token(rows: AuditRows) -> Float[np.ndarray, " n"]:
    out = np.full(len(rows.pairs), np.nan)
    for i in _scored(rows):
        pair, item = rows.pairs[i], rows.items[rows.pairs[i].item]
        if pair.lengths is None or item.scores is None or pair.scores is None:
            continue
        before, after = (per_token(s[None], pair.lengths[None]) for s in (item.scores, pair.scores))
        out[i] = labels(before)[0] != labels(after)[0]
    return out


def _letters(rows: AuditRows) -> Float[np.ndarray, " n"]:
    out = np.full(len(rows.pairs), np.nan)
    for i, pair in enumerate(rows.pairs):
        if pair.letters is not None:
            before, after = pair.letters
            out[i] = np.argmax(before) != np.argmax(after)
    return out


def _energy_changes(rows: AuditRows) -> Float[np.ndarray, " n"]:
    out = np.full(len(rows.pairs), np.nan)
    for i, pair in enumerate(rows.pairs):
        before = rows.items[pair.item].energy
        if before is not None and pair.energy is not None:
            out[i] = pair.energy[1] - before[1]
    return out
