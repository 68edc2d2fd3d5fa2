"""Which frequencies the perturbations change, and how that goes with energy and drift."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sightline.audit.frequency import (
    band_edges,
    band_fractions,
    coherence,
    pixels,
    spectral_change,
)
from sightline.audit.resampled import Clusters
from sightline.core.audit_results import Spectrum
from sightline.core.errors import ImageError
from sightline.core.estimates import Estimate
from sightline.data.images import load_image
from sightline.data.perturbations import parse_condition, prepared
from sightline.workflow.auditing.drifts import Drifts, Place
from sightline.workflow.auditing.pairs import AuditRows
from sightline.workflow.auditing.rates import Columns
from sightline.workflow.conditions import views_of

BANDS = ("low", "middle", "high")


@dataclass(frozen=True, slots=True, eq=False)
class PairSpectra:
    """Spectra of some pairs' perturbations, low band first.

    Attributes:
        rows: Pairs that were rendered and change a pixel.
        shares: Share of each band in the change of the pixels.
        relative: Change of each band's power over the clean picture's total power.
        coherence: Agreement of clean and perturbed picture in each band.
        pictures: Pictures that were rendered.
        missing: Why there are none, in words; None where there are some.
    """

    rows: np.ndarray
    shares: Float[np.ndarray, "r 3"]
    relative: Float[np.ndarray, "r 3"]
    coherence: Float[np.ndarray, "r 3"]
    pictures: int
    missing: str | None


def measure_spectra(rows: AuditRows, root: Path, *, pictures: int) -> PairSpectra:
    """Renders the perturbations of the run's first questions again and measures them.

    Args:
        rows: Questions and pairs.
        root: Folder that relative image paths start from.
        pictures: Questions that are rendered.
    """
    of_item: dict[int, list[int]] = {}
    for number, pair in enumerate(rows.pairs):
        of_item.setdefault(pair.item, []).append(number)
    found: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    rendered, reason = 0, "no question of the run has a picture"
    for item, numbers in of_item.items():
        if rendered == pictures:
            break
        clean = rows.items[item].record
        if len(clean.example.images) != 1:
            continue
        try:
            image = prepared(load_image(clean.example.images[0], root))
        except ImageError as error:
            reason = str(error)
            continue
        rendered += 1
        before = pixels(image)
        edges = band_edges(len(BANDS), height=image.height, width=image.width)
        names = {rows.pairs[n].record.condition: n for n in numbers}
        views, _ = views_of(clean, [parse_condition(name) for name in names])
        for view in views:
            after = pixels(view.render((image,))[0], image.size)
            if np.array_equal(after, before) or not before.any():
                continue
            pair_of = before[None], after[None]
            found.append(
                (
                    names[view.condition.name],
                    band_fractions(after[None] - before[None], edges)[0],
                    spectral_change(*pair_of, edges).relative[0],
                    coherence(*pair_of, edges)[0],
                )
            )
    if not found:
        empty = np.zeros((0, len(BANDS)))
        return PairSpectra(np.zeros(0, dtype=np.int64), empty, empty, empty, rendered, reason)
    numbers_, shares, relative, agreement = zip(*found, strict=True)
    return PairSpectra(
        np.array(numbers_),
        np.stack(shares),
        np.stack(relative),
        np.stack(agreement),
        rendered,
        None,
    )


def spectra_by_kind(rows: AuditRows, spectra: PairSpectra) -> tuple[Spectrum, ...]:
    """Mean shares of the bands per type of perturbation, over all pairs and over flips alone."""
    kinds, flipped = rows.kinds[spectra.rows], rows.flipped[spectra.rows]
    out = []
    for kind in dict.fromkeys(kinds.tolist()):
        own = kinds == kind
        flips = own & flipped
        out.append(
            Spectrum(
                name=kind,
                pictures=int(own.sum()),
                shares=_means(spectra.shares[own]),
                shares_of_flips=_means(spectra.shares[flips]) if flips.any() else None,
                coherence=_means(spectra.coherence[own]),
            )
        )
    return tuple(out)


def energy_correlations(
    columns: Columns,
    spectra: PairSpectra,
    drifts: Drifts,
    place: Place | None,
    clusters: Clusters,
) -> dict[str, Estimate]:
    """Pearson's correlations of the change of normalised energy with what else changes."""
    energy, images = columns.energy_change, columns.pairs.images
    if not np.isfinite(energy).any():
        return {}
    others = {"change of the clean answer's log-probability": columns.score_change}
    if place is not None:
        others[f"L2 drift of {place.channel.value}"] = drifts.l2[place]
    for number, band in enumerate(BANDS):
        values = np.full(len(energy), np.nan)
        values[spectra.rows] = spectra.relative[:, number]
        others[f"relative change of the {band} band"] = values
    found = {}
    for name, values in others.items():
        used = np.isfinite(values) & np.isfinite(energy)
        found[name] = clusters.correlation(images[used], energy[used], values[used])
    return found


def _means(values: Float[np.ndarray, "r 3"]) -> tuple[float, ...]:
    return tuple(float(value) for value in values.mean(axis=0))
