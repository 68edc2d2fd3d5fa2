"""Tables of an audit's frequency probes: filters, noise within bands, attacks within bands."""

from __future__ import annotations

from sightline.core.estimates import Estimate
from sightline.core.probe_results import Probes
from sightline.workflow.studies.tables import Cell, StudyTable

BANDS = ("low", "middle", "high")


def probe_tables(run: str, probes: Probes | None) -> list[StudyTable]:
    """Tables of what was probed; none where nothing was.

    Args:
        run: Name of the run.
        probes: The results.
    """
    if probes is None:
        return []
    asked = (
        f"{probes.questions} questions about {probes.images} pictures, {probes.free} of them "
        "answered freely, in the model's own pixel space; the label read there is the collected "
        f"one for {_said(probes.agreement)} of them."
    )
    return [
        _thresholds(run, probes, asked),
        _filtered(run, probes),
        _noise(run, probes, asked),
        _attacks(run, probes, asked),
    ]


def _said(share: Estimate) -> str:
    return share.reason or "none" if share.value is None else f"{share.value:.1%}"


def _thresholds(run: str, probes: Probes, asked: str) -> StudyTable:
    """The cut-off at which a label first flips."""
    return StudyTable(
        key=f"thresholds-{run}",
        title=f"Flip thresholds of filters on {run}",
        note=(
            f"{asked} Cut-offs are radii in the spectrum, 0 the mean colour, 1 the finest detail, "
            "tried from mild to strong; low-pass keeps what lies below, high-pass what lies above, "
            "and the mean colour. Threshold: mean cut-off of the first flip, of those that flip."
        ),
        columns=("Filter", "Questions", "Never flips", "Flips", "Threshold"),
        rows=tuple(
            (
                f"{own.filtering}-pass",
                probes.questions,
                own.kept[-1],
                own.flipped,
                own.threshold,
            )
            for own in probes.filters
        ),
    )


def _filtered(run: str, probes: Probes) -> StudyTable:
    rows: list[tuple[Cell, ...]] = []
    for own in probes.filters:
        for cutoff, kept in zip(own.cutoffs, own.kept, strict=True):
            rows.append((f"{own.filtering}-pass at {cutoff:g}", kept))
    return StudyTable(
        key=f"filters-{run}",
        title=f"Labels that outlast filters on {run}",
        note="Share of questions whose label has not flipped at this cut-off or a milder one.",
        columns=("Filter", "Not flipped yet"),
        rows=tuple(rows),
    )


def _noise(run: str, probes: Probes, asked: str) -> StudyTable:
    sizes = list(dict.fromkeys(own.size for own in probes.noise))
    bands = dict.fromkeys(own.band for own in probes.noise)
    found = {(own.band, own.size): own.flips for own in probes.noise}
    return StudyTable(
        key=f"noise-{run}",
        title=f"Flips under noise within bands on {run}",
        note=(
            f"{asked} Gaussian noise within one band, scaled so that its largest value is the one "
            f"named (of pixels in [0, 1]), {probes.trials} draws a question; share of draws that "
            "flip the label."
        ),
        columns=("Band", *(f"{255 * size:g}/255" for size in sizes)),
        rows=tuple((band, *(found[band, size] for size in sizes)) for band in bands),
    )


def _attacks(run: str, probes: Probes, asked: str) -> StudyTable:
    rows: list[tuple[Cell, ...]] = []
    for own in probes.attacks:
        agreement = own.coherence or (None,) * len(BANDS)
        rows.append(
            (
                own.band,
                f"{own.low:g} to {own.high:g}",
                own.success,
                own.flips,
                own.score_change,
                own.leakage,
                f"{own.leakage_most:.3f}",
                f"{own.largest:.4f}",
                *(None if value is None else f"{value:.3f}" for value in agreement),
            )
        )
    return StudyTable(
        key=f"attacks-{run}",
        title=f"Attacks within bands on {run}",
        note=(
            f"{asked} Projected gradient descent on the pixels within one band, {probes.steps} "
            f"steps of {255 * probes.step:.2g}/255 within {255 * probes.epsilon:.2g}/255. Success: "
            "the label flips while the clean label's score falls. Δ score: of the clean label or "
            "answer, nats. Leakage: share of the change's power outside the band, let out by "
            "clipping. Coherence: agreement of clean and attacked picture by band."
        ),
        columns=(
            "Band", "Radii", "Success", "Flips", "Δ score", "Leakage", "Largest leakage",
            "Largest change", *(f"coherence, {band}" for band in BANDS),
        ),
        rows=tuple(rows),
    )  # fmt: skip
