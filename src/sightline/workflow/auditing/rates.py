"""Flips, accuracies, margins, energy and language prior of an audit's pairs."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from jaxtyping import Bool, Float

from sightline.audit.instability import TRUTH_UNKNOWN, instability, mean_visual_entropy
from sightline.audit.labels import labels, margins, margins_by_flip
from sightline.audit.prior import language_prior
from sightline.audit.resampled import Clusters
from sightline.audit.yes_no import YesNoFlips, YesNoRates, yes_no_flips, yes_no_rates
from sightline.core.audit_answers import Part, Prior, Rates, YesNo
from sightline.core.estimates import Estimate
from sightline.workflow.auditing.columns import Columns
from sightline.workflow.auditing.pairs import AuditRows

ALL = "all"


def every_rate(columns: Columns, clusters: Clusters) -> tuple[Rates, ...]:
    """Rates of all picture pairs together, of each type of perturbation and of each condition."""
    found = [_rates(ALL, columns, columns.pictures, clusters)]
    for names in (columns.kinds, columns.conditions):
        for name in dict.fromkeys(names.tolist()):
            found.append(_rates(name, columns, names == name, clusters))
    unique: dict[str, Rates] = {}
    for rates in found:
        unique.setdefault(rates.name, rates)
    return tuple(unique.values())


def entropy_of(rows: AuditRows, columns: Columns, clusters: Clusters) -> Estimate:
    """Mean visual entropy of a question's labels over its clean and changed pictures, in nats."""
    codes: dict[str, int] = {}
    clean, perturbed = (
        np.array([codes.setdefault(label, len(codes)) for label in own], dtype=np.int64)
        for own in (
            [rows.items[pair.item].label for pair in rows.pairs],
            [pair.label for pair in rows.pairs],
        )
    )
    own = columns.counted_pictures
    if not own.any():
        return Estimate(None, n=0, reason="no pair counts")
    return mean_visual_entropy(columns.pairs.where(own), clean[own], perturbed[own], clusters)


def label_variants(rows: AuditRows, columns: Columns, clusters: Clusters) -> dict[str, Estimate]:
    """Flip rates with labels read off in other ways, on the picture pairs that have them."""
    found = {}
    for name, flips in (
        ("options, mean per token", columns.per_token),
        ("letters", columns.letters),
    ):
        used = columns.counted_pictures & np.isfinite(flips)
        if used.any():
            found[name] = clusters.share(columns.pairs.images[used], flips[used] > 0)
    forms = np.array([rows.items[pair.item].form for pair in rows.pairs])
    for form, name in (
        ("choice", "multiple choice only"),
        ("yes_no", "yes or no only"),
        ("text", "free answers only"),
    ):
        used = columns.counted_pictures & (forms == form)
        if used.any():
            found[name] = clusters.share(columns.pairs.images[used], columns.pairs.flipped[used])
    return found


def yes_no_of(rows: AuditRows, columns: Columns, clusters: Clusters) -> tuple[YesNo, ...]:
    """Yes-or-no figures of the clean pictures and under each type; empty without such questions."""
    items = rows.items
    asked = [i for i, item in enumerate(items) if item.form == "yes_no" and item.truth >= 0]
    if not asked:
        return ()
    images = np.array([items[i].image for i in asked])
    scores = [items[i].scores for i in asked]
    rates = yes_no_rates(
        images,
        np.array([items[i].label == "yes" for i in asked]),
        np.array([items[i].truth == 1 for i in asked]),
        clusters,
    )
    scored = np.array([own is not None for own in scores])
    gaps = np.array([float(own[1] - own[0]) for own in scores if own is not None])
    none = Estimate(None, n=0, reason="the clean pictures")
    margin = clusters.mean(images[scored], gaps)
    found = [
        YesNo("clean", len(asked), **_fields(rates), margin=margin, margin_flipped=none,
              margin_stays=none, hit=none, false_alarm=none, miss=none, rejection=none)
    ]  # fmt: skip
    known = set(asked)
    usable = columns.pairs.counted & np.array([pair.item in known for pair in rows.pairs])
    for kind in dict.fromkeys(columns.kinds.tolist()):
        own = usable & (columns.kinds == kind)
        if own.any():
            found.append(_yes_no(kind, rows, columns, np.flatnonzero(own), clusters))
    return tuple(found)


def _yes_no(
    kind: str, rows: AuditRows, columns: Columns, at: np.ndarray, clusters: Clusters
) -> YesNo:
    images = columns.pairs.images[at]
    items = [rows.items[rows.pairs[i].item] for i in at]
    says = np.array([rows.pairs[i].label == "yes" for i in at])
    said = np.array([item.label == "yes" for item in items])
    right = np.array([item.truth == 1 for item in items])
    scored = at[np.isfinite(columns.yes[at])]
    flipped, stays = _by_flip(columns, columns.yes, scored, clusters)
    return YesNo(
        kind,
        len(at),
        **_fields(yes_no_rates(images, says, right, clusters)),
        margin=clusters.mean(columns.pairs.images[scored], columns.yes[scored]),
        margin_flipped=flipped,
        margin_stays=stays,
        **_fields(yes_no_flips(images, said, says, right, clusters)),
    )


def _fields(found: YesNoRates | YesNoFlips) -> dict[str, Estimate]:
    return {field.name: getattr(found, field.name) for field in fields(found)}


def _by_flip(
    columns: Columns, margin: Float[np.ndarray, " n"], at: np.ndarray, clusters: Clusters
) -> tuple[Estimate, Estimate]:
    """Means over questions of a margin where the label flips, and where it stays."""
    images = dict(zip(columns.pairs.items.tolist(), columns.pairs.images.tolist(), strict=True))
    own = margins_by_flip(columns.pairs.items[at], margin[at], columns.pairs.flipped[at])

    def mean(items: np.ndarray, values: np.ndarray, missing: str) -> Estimate:
        if not len(items):
            return Estimate(None, n=0, reason=missing)
        return clusters.mean(np.array([images[item] for item in items.tolist()]), values)

    return (
        mean(own.flipped_items, own.flipped, "no scored answer flips"),
        mean(own.kept_items, own.kept, "no scored answer stays"),
    )


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
        return Prior(
            unchanged=unchanged, unchanged_right=none, unchanged_wrong=none, accuracy=none,
            accuracy_blank=none, accuracy_gain=none, margin=none, margin_blank=none,
            without_index=columns.without_index,
        )  # fmt: skip
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
        unchanged=unchanged,
        unchanged_right=found.unchanged_right,
        unchanged_wrong=found.unchanged_wrong,
        accuracy=found.accuracy,
        accuracy_blank=found.accuracy_blank,
        accuracy_gain=found.accuracy_gain,
        margin=found.margin,
        margin_blank=found.margin_blank,
        without_index=columns.without_index,
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
    parts: list[Part] = columns.parts[among].tolist()
    undecided = among & (columns.pairs.excluded == TRUTH_UNKNOWN)
    scored = np.flatnonzero(among & columns.pairs.counted & np.isfinite(columns.margin))
    flipped, stays = _by_flip(columns, columns.margin, scored, clusters)

    def mean(values: Float[np.ndarray, " n"], missing: str) -> Estimate:
        return mean_where(columns, values, among, clusters, missing)

    return Rates(
        name=name,
        part=parts[0] if parts else "picture",
        pairs=found.pairs,
        items=found.items,
        excluded=found.excluded,
        undecided=clusters.share(
            columns.pairs.images[undecided],
            columns.pairs.flipped[undecided],
            undefined="no pair is undecided",
        ),
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
        margin_change=mean(columns.margin - columns.margin_before, "no scored pair"),
        margin_true_change=mean(
            columns.margin_true - columns.margin_true_before, "no scored pair has a known truth"
        ),
        margin_flipped=flipped,
        margin_stays=stays,
        score_change=mean(columns.score_change, "the clean answer was not scored"),
        energy_change=mean(columns.energy_change, "no energy was observed"),
        prior_index=mean(columns.prior_index, "no pair has a prior index"),
    )
