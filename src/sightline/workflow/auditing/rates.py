"""Flips, accuracies, margins, energy and language prior of an audit's pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from sightline.audit.instability import Pairs, instability, mean_visual_entropy
from sightline.audit.labels import labels, margins
from sightline.audit.prior import drift_to_prior, language_prior
from sightline.audit.resampled import Clusters
from sightline.audit.yes_no import YesNoRates, yes_no_rates
from sightline.core.audit_results import Prior, Rates, YesNo
from sightline.core.estimates import Estimate
from sightline.core.results import Skipped
from sightline.workflow.auditing.pairs import WORDING, AuditRows, per_token_labels

ALL = "all"


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Columns of all pairs, NaN where a pair has no such value.

    Attributes:
        pairs: Flips and grades.
        kinds: Type of perturbation.
        conditions: Condition.
        pictures: Whether the picture is changed, and not the wording alone.
        margin_before: Margin of the clean label, nats.
        margin: The same under the condition.
        margin_true: Margin of the right option under the condition.
        score_change: Log-probability of the clean answer, after less before.
        energy_change: Change of the normalised energy.
        prior_index: Drift-to-prior.
        without_index: Scored pairs that have none, by reason.
    """

    pairs: Pairs
    kinds: np.ndarray
    conditions: np.ndarray
    pictures: Bool[np.ndarray, " n"]
    margin_before: Float[np.ndarray, " n"]
    margin: Float[np.ndarray, " n"]
    margin_true: Float[np.ndarray, " n"]
    score_change: Float[np.ndarray, " n"]
    energy_change: Float[np.ndarray, " n"]
    prior_index: Float[np.ndarray, " n"]
    without_index: tuple[Skipped, ...]


def columns_of(rows: AuditRows) -> Columns:
    """Reads the columns off a run's pairs."""
    found = rows.margin_columns()
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
        pictures=rows.kinds != WORDING,
        margin_before=found["before"],
        margin=found["after"],
        margin_true=found["true"],
        score_change=rows.column("score_change").astype(np.float64),
        energy_change=_energy_changes(rows),
        prior_index=index,
        without_index=without,
    )


def every_rate(columns: Columns, clusters: Clusters) -> tuple[Rates, ...]:
    """Rates of all changed pictures, of each type of perturbation and of each condition."""
    found = [_rates(ALL, columns, columns.pictures, clusters)]
    for names in (columns.kinds, columns.conditions):
        for name in dict.fromkeys(names.tolist()):
            found.append(_rates(name, columns, names == name, clusters))
    unique: dict[str, Rates] = {}
    for rates in found:
        unique.setdefault(rates.name, rates)
    return tuple(unique.values())


def entropy_of(rows: AuditRows, columns: Columns, clusters: Clusters) -> Estimate:
    """Mean visual entropy of the labels of a question over all its pictures, in nats."""
    codes: dict[str, int] = {}
    clean, perturbed = (
        np.array([codes.setdefault(label, len(codes)) for label in own], dtype=np.int64)
        for own in (
            [rows.items[pair.item].label for pair in rows.pairs],
            [pair.label for pair in rows.pairs],
        )
    )
    if not columns.pairs.counted.any():
        return Estimate(None, n=0, reason="no pair counts")
    return mean_visual_entropy(columns.pairs, clean, perturbed, clusters)


def label_variants(rows: AuditRows, columns: Columns, clusters: Clusters) -> dict[str, Estimate]:
    """Flip rates with labels read off in other ways, on the pairs that have them."""
    found = {}
    at, flips = per_token_labels(rows)
    if len(at):
        used = columns.pairs.counted[at]
        images = columns.pairs.images[at]
        found["options, mean per token"] = clusters.share(images[used], flips[used])
    lettered = [i for i, pair in enumerate(rows.pairs) if pair.letters is not None]
    if lettered:
        pairs = [rows.pairs[i].letters for i in lettered]
        flips = np.array([bool(np.argmax(p[0]) != np.argmax(p[1])) for p in pairs if p])
        used = columns.pairs.counted[lettered]
        found["letters"] = clusters.share(columns.pairs.images[lettered][used], flips[used])
    for form in ("choice", "yes_no", "text"):
        own = np.array([rows.items[pair.item].form == form for pair in rows.pairs])
        used = own & columns.pairs.counted
        if used.any():
            name = {"choice": "multiple choice", "yes_no": "yes or no", "text": "free answers"}
            found[f"{name[form]} only"] = clusters.share(
                columns.pairs.images[used], columns.pairs.flipped[used]
            )
    return found


def yes_no_of(rows: AuditRows, columns: Columns, clusters: Clusters) -> tuple[YesNo, ...]:
    """Yes-or-no figures of the clean pictures and under each type; empty without such questions."""
    asked = [i for i, item in enumerate(rows.items) if item.form == "yes_no" and item.truth >= 0]
    if not asked:
        return ()
    items = rows.items
    clean = yes_no_rates(
        np.array([items[i].image for i in asked]),
        np.array([items[i].label == "yes" for i in asked]),
        np.array([items[i].truth == 1 for i in asked]),
        clusters,
    )
    found = [_yes_no("clean", len(asked), clean)]
    known = set(asked)
    for kind in dict.fromkeys(columns.kinds.tolist()):
        at = [
            i
            for i, pair in enumerate(rows.pairs)
            if pair.item in known and pair.kind == kind and columns.pairs.counted[i]
        ]
        if at:
            own = yes_no_rates(
                columns.pairs.images[at],
                np.array([rows.pairs[i].label == "yes" for i in at]),
                np.array([items[rows.pairs[i].item].truth == 1 for i in at]),
                clusters,
            )
            found.append(_yes_no(kind, len(at), own))
    return tuple(found)


def prior_of(rows: AuditRows, columns: Columns, clusters: Clusters) -> Prior | None:
    """What is answered without the picture; None where that was not asked."""
    asked = [item for item in rows.items if item.blank_label is not None]
    if not asked:
        return None
    unchanged = clusters.share(
        np.array([item.image for item in asked]),
        np.array([item.label == item.blank_label for item in asked]),
    )
    table = [
        (item, item.scores[None], item.blank_scores[None])
        for item in asked
        if item.scores is not None and item.blank_scores is not None
    ]
    if not table:
        none = Estimate(None, n=0, reason="no question has options or yes and no as answers")
        return Prior(unchanged, none, none, none, none, columns.without_index)
    label = np.array([int(labels(clean)[0]) for _, clean, _ in table])
    found = language_prior(
        np.array([item.image for item, _, _ in table]),
        label,
        np.array([int(labels(blank)[0]) for _, _, blank in table]),
        np.array([margins(clean, label[[i]])[0] for i, (_, clean, _) in enumerate(table)]),
        np.array([margins(blank, label[[i]])[0] for i, (_, _, blank) in enumerate(table)]),
        np.array([item.truth for item, _, _ in table]),
        clusters,
    )
    return Prior(
        unchanged,
        found.accuracy,
        found.accuracy_blank,
        found.margin,
        found.margin_blank,
        columns.without_index,
    )


def mean_where(
    columns: Columns,
    values: Float[np.ndarray, " n"],
    among: Bool[np.ndarray, " n"],
    clusters: Clusters,
    missing: str,
) -> Estimate:
    """Mean over the pairs that count and have a value."""
    used = among & columns.pairs.counted & np.isfinite(values)
    if not used.any():
        return Estimate(None, n=0, reason=missing)
    return clusters.mean(columns.pairs.images[used], values[used])


def _rates(name: str, columns: Columns, among: Bool[np.ndarray, " n"], clusters: Clusters) -> Rates:
    found = instability(columns.pairs.where(among), clusters)
    moves = found.transitions
    return Rates(
        name=name,
        pairs=found.pairs,
        items=found.items,
        excluded=found.excluded,
        ifr=found.ifr,
        iv=found.iv,
        right_wrong=moves.right_wrong,
        wrong_right=moves.wrong_right,
        right_right=moves.right_right,
        wrong_wrong=moves.wrong_wrong,
        lost=found.lost,
        won=found.won,
        accuracy_before=found.accuracy_before,
        accuracy_after=found.accuracy_after,
        accuracy_change=found.accuracy_change,
        margin_change=mean_where(
            columns, columns.margin - columns.margin_before, among, clusters, "no scored pair"
        ),
        score_change=mean_where(
            columns, columns.score_change, among, clusters, "the clean answer was not scored"
        ),
        energy_change=mean_where(
            columns, columns.energy_change, among, clusters, "no energy was observed"
        ),
        prior_index=mean_where(
            columns, columns.prior_index, among, clusters, "no pair has a prior index"
        ),
    )


def _yes_no(name: str, n: int, found: YesNoRates) -> YesNo:
    return YesNo(
        name,
        n,
        found.accuracy,
        found.precision,
        found.recall,
        found.f1,
        found.false_positive_rate,
        found.yes_rate,
    )


def _energy_changes(rows: AuditRows) -> Float[np.ndarray, " n"]:
    out = np.full(len(rows.pairs), np.nan)
    for i, pair in enumerate(rows.pairs):
        before = rows.items[pair.item].energy
        if before is not None and pair.energy is not None:
            out[i] = pair.energy[1] - before[1]
    return out
