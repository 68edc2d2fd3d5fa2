"""Which frequencies the perturbations change, and how that goes with energy and drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL.Image import Image

from sightline.audit.frequency import (
    band_edges,
    band_fractions,
    band_means,
    coherence,
    pixels,
    spectral_change,
)
from sightline.audit.resampled import Clusters
from sightline.core.audit_results import BandMeans, Spectrum
from sightline.core.errors import ImageError, UsageError
from sightline.core.estimates import Estimate
from sightline.core.results import Skipped
from sightline.core.types import Example
from sightline.data.images import load_image
from sightline.data.perturbations import parse_condition, prepared
from sightline.workflow.auditing.columns import Columns
from sightline.workflow.auditing.drifts import Drifts, Place
from sightline.workflow.auditing.pairs import AuditRows
from sightline.workflow.conditions import views_of

BANDS = ("low", "middle", "high")

FEWEST_PICTURES = 10
"""Pictures below which the energy is correlated with nothing: pairs of one picture go together, so
that a correlation over few is that of their differences."""


@dataclass(frozen=True, slots=True, eq=False)
class PairSpectra:
    """Spectra of some pairs' perturbations, low band first.

    Attributes:
        rows: Pairs that count, were rendered and change a pixel.
        shares: Share of each band in the change of the pixels.
        relative: Change of each band's power over the clean picture's total power.
        coherence: Agreement of clean and perturbed picture in each band.
        means: Mean power of each band's coefficients, of the clean and of the perturbed picture.
        pictures: Pictures that were rendered.
        missing: Why there are none, in words; None where there are some.
        skipped: Questions whose picture was not rendered, by reason.
    """

    rows: np.ndarray
    shares: Float[np.ndarray, "r 3"]
    relative: Float[np.ndarray, "r 3"]
    coherence: Float[np.ndarray, "r 3"]
    means: Float[np.ndarray, "r 2 3"]
    pictures: int
    missing: str | None
    skipped: tuple[Skipped, ...]


def measure_spectra(rows: AuditRows, columns: Columns, root: Path, *, pictures: int) -> PairSpectra:
    """Renders the perturbations of some of the run's questions again and measures them.

    Only pairs that count are rendered, and only of questions with one picture. The first question
    of every picture comes first, so that many pictures are measured rather than few several times.

    Args:
        rows: Questions and pairs.
        columns: What was measured of each pair.
        root: Folder that relative image paths start from.
        pictures: Questions that are rendered.
    """
    of_item: dict[int, list[int]] = {}
    for number in np.flatnonzero(columns.pairs.counted):
        if rows.pairs[number].condition.changes_image:
            of_item.setdefault(rows.pairs[number].item, []).append(int(number))
    asked: Counter[int] = Counter()
    turns = []
    for item in of_item:
        shown = rows.items[item].image
        turns.append((asked[shown], item))
        asked[shown] += 1
    found: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    skipped: Counter[str] = Counter()
    rendered = 0
    for _, item in sorted(turns):
        numbers = of_item[item]
        if rendered == pictures:
            break
        clean = rows.items[item].record
        picture = _picture(clean.example, root)
        if isinstance(picture, str):
            skipped[picture] += 1
            continue
        rendered += 1
        image, edges = picture
        before = pixels(image)
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
                    band_means(np.stack([before, after]), edges),
                )
            )
    left_out = tuple(Skipped(reason, n) for reason, n in skipped.most_common())
    if not found:
        empty = np.zeros((0, len(BANDS)))
        why = _missing(bool(of_item), pictures, rendered, left_out)
        none = np.zeros(0, dtype=np.int64)
        pairs = np.zeros((0, 2, len(BANDS)))
        return PairSpectra(none, empty, empty, empty, pairs, rendered, why, left_out)
    numbers_, shares, relative, agreement, means = zip(*found, strict=True)
    return PairSpectra(
        np.array(numbers_),
        np.stack(shares),
        np.stack(relative),
        np.stack(agreement),
        np.stack(means),
        rendered,
        None,
        left_out,
    )


def _picture(example: Example, root: Path) -> tuple[Image, Float[np.ndarray, " edges"]] | str:
    """A question's only picture with the edges of its bands, or why it has no spectrum."""
    if len(example.images) != 1:
        return "spectra are of questions with one picture"
    try:
        image = prepared(load_image(example.images[0], root))
    except ImageError as error:
        return str(error)
    try:
        return image, band_edges(len(BANDS), height=image.height, width=image.width)
    except UsageError:
        return f"a picture of {image.width} × {image.height} pixels has no {len(BANDS)} bands"


def _missing(counted: bool, pictures: int, rendered: int, skipped: Sequence[Skipped]) -> str | None:
    if not pictures:
        return "No spectra: none were asked for"
    if not counted:
        return "No spectra: no pair with a changed picture counts"
    if not rendered and skipped:
        return f"No spectra: {skipped[0].reason}"
    return "No spectra: no perturbation changes a pixel"


def spectra_by_kind(columns: Columns, spectra: PairSpectra) -> tuple[Spectrum, ...]:
    """Mean shares of the bands per type, over its pairs that count and over their flips alone."""
    kinds, flipped = columns.kinds[spectra.rows], columns.pairs.flipped[spectra.rows]
    out = []
    for kind in dict.fromkeys(kinds.tolist()):
        own = kinds == kind
        flips = own & flipped
        out.append(
            Spectrum(
                name=kind,
                pictures=int(own.sum()),
                shares=_means(spectra.shares[own]),
                relative=_means(spectra.relative[own]),
                shares_of_flips=_means(spectra.shares[flips]) if flips.any() else None,
                coherence=_means(spectra.coherence[own]),
                means=_band_means(spectra, own),
                means_of_flips=_band_means(spectra, flips),
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
    """Pearson's correlations of the change of normalised energy with what else changes.

    Over the picture pairs that count: where the picture stays, nothing changes and nothing is told.
    Not measured on pairs of fewer than `FEWEST_PICTURES` pictures, whatever their number.
    """
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
        used = columns.counted_pictures & np.isfinite(values) & np.isfinite(energy)
        pictures = len(np.unique(images[used]))
        if pictures < FEWEST_PICTURES:
            few = f"{pictures} of at least {FEWEST_PICTURES} pictures"
            found[name] = Estimate(None, n=int(used.sum()), reason=few)
        else:
            found[name] = clusters.correlation(images[used], energy[used], values[used])
    return found


def _band_means(spectra: PairSpectra, own: Bool[np.ndarray, " r"]) -> BandMeans | None:
    """Means over some pairs; None where there are none."""
    if not own.any():
        return None
    return BandMeans(*(_means(spectra.means[own, side]) for side in (0, 1)))


def _means(values: Float[np.ndarray, "r 3"]) -> tuple[float, ...]:
    return tuple(float(value) for value in values.mean(axis=0))
