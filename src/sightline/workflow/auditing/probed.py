"""What the frequency probes of a run come to, with intervals over pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from sightline.audit.attack import attack_rates
from sightline.audit.probes import HIGH_PASS_CUTOFFS, LOW_PASS_CUTOFFS
from sightline.audit.resampled import Clusters
from sightline.core.estimates import Estimate
from sightline.core.probe_results import AttackProbe, FilterProbe, NoiseProbe, Probes
from sightline.core.results import Skipped
from sightline.workflow.auditing.pairs import AuditRows
from sightline.workflow.auditing.probe_rows import AttackedQuestion, ProbedQuestion, load_probes
from sightline.workflow.auditing.probing import BANDS, FILTERS


def probes_of(run: Path, rows: AuditRows, clusters: Clusters) -> Probes | None:
    """Summarises what was probed; None where nothing was.

    Args:
        run: The run's directory.
        rows: Its questions.
        clusters: Resamples of their pictures.

    Raises:
        DataError: The file of the probes is damaged.
    """
    probed = load_probes(run)
    if probed is None:
        return None
    image_of = {item.record.example.id: item.image for item in rows.items}
    known = [row for row in probed.questions if row.example_id in image_of]
    found = [row for row in known if row.reason is None]
    reasons = Counter(row.reason for row in known if row.reason is not None)
    images = np.array([image_of[row.example_id] for row in found], dtype=np.int64)
    plan = probed.source
    return Probes(
        questions=len(found),
        images=len(np.unique(images)),
        skipped=tuple(Skipped(reason, n) for reason, n in reasons.most_common()),
        sides=tuple(sorted({row.side for row in found})),
        agreement=clusters.share(images, np.array([row.agrees for row in found], dtype=bool)),
        filters=tuple(_filter(name, found, images, clusters) for name in FILTERS),
        noise=tuple(
            NoiseProbe(band, size, _noise(band, i, plan["trials"], found, images, clusters))
            for band in BANDS
            for i, size in enumerate(plan["sizes"])
        ),
        attacks=tuple(_attack(band, found, images, clusters) for band in BANDS),
        trials=plan["trials"],
        epsilon=plan["epsilon"],
        step=plan["step"],
        steps=plan["steps"],
        seed=plan["seed"],
        reads=sum(row.reads for row in found),
        gradients=sum(row.gradients for row in found),
        free=sum(row.free for row in found),
    )


def _filter(
    name: str, found: list[ProbedQuestion], images: np.ndarray, clusters: Clusters
) -> FilterProbe:
    tried = LOW_PASS_CUTOFFS if name == "low" else HIGH_PASS_CUTOFFS
    first = [(row.cutoffs or {}).get(name) for row in found]
    step = np.array([len(tried) if cut is None else tried.index(cut) for cut in first], dtype=int)
    flips = step < len(tried)
    at = np.array([0.0 if cut is None else cut for cut in first])
    return FilterProbe(
        filtering="low" if name == "low" else "high",
        cutoffs=tried,
        kept=tuple(clusters.share(images, step > i) for i in range(len(tried))),
        flipped=int(flips.sum()),
        threshold=clusters.mean(images[flips], at[flips])
        if flips.any()
        else Estimate(None, n=0, reason="no label flips"),
    )


def _noise(
    band: str,
    size: int,
    trials: int,
    found: list[ProbedQuestion],
    images: np.ndarray,
    clusters: Clusters,
) -> Estimate:
    flips = np.array([(row.noise or {})[band][size] for row in found], dtype=np.int64)
    hits = np.arange(trials) < flips[:, None]  # which of a question's draws flip does not matter
    return clusters.share(np.repeat(images, trials), hits.ravel())


def _attack(
    band: str, found: list[ProbedQuestion], images: np.ndarray, clusters: Clusters
) -> AttackProbe:
    own: list[AttackedQuestion] = [(row.attacks or {})[band] for row in found]
    change = np.array([one.score_change for one in own])
    rates = attack_rates(images, np.array([one.flipped for one in own], bool), change, clusters)
    leakage = np.array([one.leakage for one in own])
    nothing = Estimate(None, n=0, reason="no question was probed")
    return AttackProbe(
        band=band,
        low=BANDS[band].low,
        high=BANDS[band].high,
        success=rates.success,
        flips=rates.flips,
        score_change=clusters.mean(images, change) if own else nothing,
        leakage=clusters.mean(images, leakage) if own else nothing,
        leakage_most=float(leakage.max(initial=0.0)),
        largest=max((one.largest for one in own), default=0.0),
        coherence=tuple(float(v) for v in np.mean([one.coherence for one in own], axis=0))
        if own
        else (),
    )
