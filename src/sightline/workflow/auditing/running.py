"""An audit of one run, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

import sightline
from sightline.audit.drift import MovedFar
from sightline.audit.instability import Pairs
from sightline.audit.resampled import Clusters
from sightline.audit.verdicts import TaskPairs, Verdict, hidden_drift, task_dependent
from sightline.core.audit_answers import Rates
from sightline.core.audit_results import CONTROL_NAMES, Audit, AuditedPair, AuditProtocol, Finding
from sightline.core.errors import UsageError
from sightline.core.estimates import Estimate
from sightline.core.features import Feature
from sightline.core.results import Skipped
from sightline.core.types import Example
from sightline.data.perturbations import parse_conditions
from sightline.models.vision import no_grid_reason
from sightline.store.run import RunStore
from sightline.workflow.auditing import drifts as drift_measures
from sightline.workflow.auditing import rates, shown, spectra
from sightline.workflow.auditing.budgeting import budgets_of
from sightline.workflow.auditing.columns import Columns, columns_of
from sightline.workflow.auditing.derived import answer_signals
from sightline.workflow.auditing.drifts import Drifts, Place
from sightline.workflow.auditing.geometry import similarities, similarities_by_type
from sightline.workflow.auditing.meaning import changed_meanings, meanings_of
from sightline.workflow.auditing.pairs import CHANNEL_ORDER, AuditRows, read_pairs
from sightline.workflow.auditing.probed import probes_of
from sightline.workflow.classifying.reading import open_answers
from sightline.workflow.derive import EntailmentClassifier

DEFAULT_CHANNEL = Feature.CTX_OPEN


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """How a run is audited.

    Attributes:
        channel: Channel whose drift flags single answers, at its last stored layer; None =
            `DEFAULT_CHANNEL` where the run has it, else the first that it has.
        control_items: Questions that controls are drawn among.
        controls: Partners of each question.
        spectra: Questions whose perturbations are rendered again for their spectra.
        budget: Conditions to choose as the most informative; 0 for none.
        geometry: Whether CKA is taken of every channel and layer, of as many questions as controls
            are drawn among; reads the run again.
        preserving: Conditions that keep the right answer of this run's questions, where that is
            not known otherwise: as `sightline.data.condition_lists` reads them.
        threshold: A free answer is right when its mark reaches this.
        resamples: Bootstrap resamples over pictures.
        level: Coverage of the intervals.
        seed: Of bootstrap and controls.
    """

    channel: str | None = None
    control_items: int = 600
    controls: int = 25
    spectra: int = 32
    budget: int = 0
    geometry: bool = False
    preserving: tuple[str, ...] = ()
    threshold: float = 0.5
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AuditOutcome:
    """An audit, its exported rows, and what a comparison of runs needs.

    Attributes:
        audit: The results.
        pairs: One row per pair.
        columns: Flips and grades of the picture pairs; see `auditing.columns.part_of`.
        conditions: Condition of each of the picture pairs.
        questions: Id, words and options of each question, in the order of its number.
        image_keys: What identifies each picture, in the order of its number.
        model: The run's model, as its manifest has it.
        signals: What is known of each clean answer, by example id.
    """

    audit: Audit
    pairs: tuple[AuditedPair, ...]
    columns: Pairs
    conditions: Shaped[np.ndarray, " n"]
    questions: tuple[tuple[str, ...], ...]
    image_keys: tuple[str, ...]
    model: Mapping[str, Any]
    signals: Mapping[str, Mapping[Feature, float]]


def audit_run(
    path: Path,
    settings: AuditSettings = AuditSettings(),
    *,
    judge: EntailmentClassifier | None = None,
) -> AuditOutcome:
    """Measures a run that was collected under conditions.

    Args:
        path: The run's directory.
        settings: How to audit.
        judge: Compares free answers by meaning too; None = by their content words alone.

    Raises:
        DataError: The run has no answer under a perturbation.
        UsageError: The channel is none, or the run does not have it; or a condition that is said to
            preserve the answer is none.
    """
    check_settings(settings)
    store = open_answers(path)
    preserving = preserved_by(settings)
    rows = read_pairs(store, threshold=settings.threshold, preserving=preserving)
    columns = columns_of(rows)
    clusters = Clusters.of(
        np.array([item.image for item in rows.items]),
        rng=np.random.default_rng(settings.seed),
        n_resamples=settings.resamples,
        level=settings.level,
    )
    drifts = drift_measures.measure_drifts(
        rows, control_items=settings.control_items, k=settings.controls, seed=settings.seed
    )
    place = _flagged_place(drifts, settings.channel)
    counted = columns.counted_pictures
    nothing = np.full(len(rows.pairs), np.nan)
    far, rule, control = np.zeros(len(rows.pairs), dtype=bool), "no channel was observed", ""
    findings: list[Finding] = []
    moved_share = Estimate(None, n=0, reason=rule)
    if place is not None:
        moved, control = drift_measures.flag(drifts, place, counted & ~rows.flipped)
        far, rule = moved.flags, moved.rule
        used = counted & np.isfinite(drifts.cosine[place])
        if used.any():
            kept = replace(moved, flags=moved.flags[used])
            verdict = hidden_drift(
                rows.image_of[used],
                ~rows.flipped[used],
                kept,
                clusters,
                control=CONTROL_NAMES[control],
            )
            findings.append(finding_of(verdict))
        moved_share = _moved_share(rows, used & ~rows.flipped, moved, clusters)
    findings += _by_task(rows, columns, clusters)
    root = Path(store.manifest.image_root) if store.manifest.image_root else store.path
    seen = spectra.measure_spectra(rows, columns, root, pictures=settings.spectra)
    drift = nothing if place is None else drifts.cosine[place]
    changed = changed_meanings(rows, judge)
    pairs = shown.audited_pairs(
        rows,
        columns,
        drift,
        nothing if place is None else drifts.l2[place],
        far,
        list(changed.values())[-1] if changed else {},
    )
    signals = answer_signals(
        rows, columns, drift, None if place is None else drifts.controls[place][control]
    )
    sheets, unstable = shown.sheet(rows, pairs), shown.most_unstable(rows, pairs, signals)
    manifest = store.manifest
    everything = rates.every_rate(columns, clusters)
    audit = Audit(
        format_version=2,
        sightline_version=sightline.__version__,
        run=store.path.name,
        path=str(store.path),
        model=str(manifest.model.get("name", "unknown")),
        dataset=str(manifest.dataset.get("name", "unknown")),
        partial=_partial(store),
        notes=tuple(manifest.notes),
        warning=_warning(columns, everything[0]),
        items=len(rows.items),
        images=len({item.image for item in rows.items if item.record.example.images}),
        quarantined=len({row.key for row in store.quarantined()}),
        refused=_refused(store),
        protocol=AuditProtocol(
            conditions=tuple(dict.fromkeys(pair.record.condition for pair in rows.pairs)),
            preserving=preserving,
            named_pairs=rows.named,
            layers=rows.layers,
            channel="" if place is None else place.channel.value,
            flag_rule=rule,
            flag_control=control,
            controls=settings.controls,
            unrelated=len(rows.unrelated),
            control_items=min(settings.control_items, len(rows.items)),
            resamples=settings.resamples,
            level=settings.level,
            threshold=settings.threshold,
            seed=settings.seed,
            band_edges="log, from the lowest frequency of the longer side to the corner",
            spectra_pictures=seen.pictures,
        ),
        rates=everything,
        visual_entropy=rates.entropy_of(rows, columns, clusters),
        variants=rates.label_variants(rows, columns, clusters),
        drift=drift_measures.drift_table(rows, columns, drifts, clusters, flagged=place),
        densities=tuple(
            drift_measures.density(columns, drifts, own) for own in _last_places(drifts)
        ),
        cka={} if place is None else similarities(store, rows, columns, [place])[place],
        no_energy=_no_energy(rows, str(manifest.model.get("model_type", "this model"))),
        energy_correlations=spectra.energy_correlations(columns, seen, drifts, place, clusters),
        yes_no=rates.yes_no_of(rows, columns, clusters),
        prior=rates.prior_of(rows, columns, clusters),
        spectra=spectra.spectra_by_kind(columns, seen),
        no_spectra=seen.missing,
        spectra_skipped=seen.skipped,
        findings=tuple(findings),
        moved_far=moved_share,
        unstable=unstable,
        hidden=shown.same_answer_moved_far(rows, pairs),
        sheet=sheets,
        maps=shown.maps(store, (*unstable, *sheets)),
        meaning=meanings_of(rows, columns, changed, clusters),
        probes=probes_of(store.path, rows, clusters),
        budgets=budgets_of(rows, columns, drift, clusters, k=settings.budget, seed=settings.seed)
        if settings.budget
        else (),
        similarities=similarities_by_type(
            store, rows, columns, drifts.places, questions=settings.control_items
        )
        if settings.geometry
        else (),
    )
    compared = columns.pairs.where(columns.pictures)
    return AuditOutcome(
        audit=audit,
        pairs=tuple(pairs),
        columns=compared,
        conditions=columns.conditions[columns.pictures],
        questions=tuple(_words(item.record.example) for item in rows.items),
        image_keys=_image_keys(rows),
        model=manifest.model,
        signals=signals,
    )


def check_settings(settings: AuditSettings) -> None:
    """Refuses what no run could be audited with, before anything is collected.

    Raises:
        UsageError: A channel, or a condition that is said to preserve the answer, does not exist.
    """
    preserved_by(settings)
    names = [feature.value for feature in CHANNEL_ORDER]
    if settings.channel is not None and settings.channel not in names:
        raise UsageError(
            f"--channel {settings.channel!r}; one of {', '.join(names)} is required. Correct the "
            "name."
        )


def preserved_by(settings: AuditSettings) -> tuple[str, ...]:
    """Names of the conditions that are said to keep the right answer.

    Raises:
        UsageError: A name that does not exist, or that of a control.
    """
    if not settings.preserving:
        return ()
    found = parse_conditions(settings.preserving)
    for condition in found:
        if condition.is_control:
            raise UsageError(
                f"--preserving {condition.name}, which is a control: its right answer is not asked "
                "for. Name perturbations only."
            )
    return tuple(condition.name for condition in found)


def _moved_share(
    rows: AuditRows, stayed: Bool[np.ndarray, " n"], moved: MovedFar, clusters: Clusters
) -> Estimate:
    """Share of flagged pairs among those that stay and have the channel."""
    if moved.threshold is None:
        return Estimate(None, n=int(stayed.sum()), reason=moved.rule)
    return clusters.share(
        rows.image_of, moved.flags, stayed, undefined="no answer stays under perturbation"
    )


def _warning(columns: Columns, everything: Rates) -> str | None:
    """What to do where no pair of a changed picture counts."""
    if everything.pairs:
        return None
    if not columns.pictures.any():
        return "No condition changes the picture alone: all figures of changed pictures are empty."
    return (
        f"None of {int(columns.pictures.sum())} pairs of changed pictures counts, since it is not "
        "known whether the right answer stays, or it changes: flip rates are empty. Collect with "
        "milder conditions, or name those that keep the answers with --preserving."
    )


def _flagged_place(drifts: Drifts, channel: str | None) -> Place | None:
    """The last layer of the channel that flags answers; None where the run has no channel."""
    if channel is None:
        default = (place for place in drifts.places if place.channel == DEFAULT_CHANNEL)
        return next(default, drifts.places[0] if drifts.places else None)
    if not drifts.places:
        raise UsageError(
            f"--channel {channel}, and the run was collected without channels; one that it holds "
            "is required. Collect with --channels, or leave --channel out."
        )
    found = next((place for place in drifts.places if place.channel == channel), None)
    if found is None:
        have = ", ".join(dict.fromkeys(place.channel.value for place in drifts.places))
        raise UsageError(
            f"The run has no {channel}; a channel it holds is required. Choose one of {have}."
        )
    return found


def _last_places(drifts: Drifts) -> list[Place]:
    first: dict[Feature, Place] = {}
    for place in drifts.places:
        first.setdefault(place.channel, place)
    return list(first.values())


def _by_task(rows: AuditRows, columns: Columns, clusters: Clusters) -> list[Finding]:
    """Yes-or-no questions, which ask for hallucinations, against all others."""
    asked = np.array([rows.items[pair.item].form == "yes_no" for pair in rows.pairs])
    tasks = TaskPairs("", columns.pairs, columns.conditions)
    others = tasks.where(columns.pictures & ~asked, "other questions")
    yes_no = tasks.where(columns.pictures & asked, "yes-or-no questions")
    if not (others.used.any() and yes_no.used.any()):
        return []
    return [finding_of(task_dependent(others, yes_no, clusters))]


def finding_of(verdict: Verdict) -> Finding:
    """The verdict as results keep it."""
    return Finding(
        finding=verdict.finding,
        outcome=verdict.outcome,
        estimate=verdict.estimate,
        rule=verdict.rule,
        reason=verdict.reason,
        evidence=dict(verdict.evidence),
    )


def _no_energy(rows: AuditRows, model_type: str) -> str | None:
    if any(item.energy is not None for item in rows.items):
        return None
    if not any(item.record.example.images for item in rows.items):
        return "no question has a picture"
    return no_grid_reason(model_type) or "the run was collected without --channels"


def _refused(store: RunStore) -> tuple[Skipped, ...]:
    found = Counter(row.reason for row in store.refused())
    return tuple(Skipped(reason, n) for reason, n in found.most_common())


def _partial(store: RunStore) -> str | None:
    reasons = [store.manifest.partial] if store.manifest.partial else []
    done, planned = len(store.committed()), store.manifest.n_shards or 0
    if done < planned:
        reasons.append(f"{done} of {planned} shards collected")
    return "; ".join(reasons) or None


def _words(example: Example) -> tuple[str, ...]:
    return (example.id, example.question.strip(), *(example.choices or ()))


def _image_keys(rows: AuditRows) -> tuple[str, ...]:
    keys: dict[int, str] = {}
    for item in rows.items:
        example = item.record.example
        keys.setdefault(
            item.image, "+".join(image.sha256 for image in example.images) or example.group
        )
    return tuple(keys[i] for i in sorted(keys))
