"""Pictures by spatial frequency: power in bands, filters, band-limited noise, coherence.

A frequency's *radius* is its distance from 0 over that of the corner of the spectrum, the highest
frequency both down and across: in [0, 1], 0 for the mean colour. A band holds the radii from its
lower edge up to, and not with, its upper edge; the last band holds 1 too. Bands from 0 to 1 hold
every coefficient once, so that their sums add up to the total power (Parseval).

The source leaves open what its radius is measured in; the corner makes a low pass of 1 the whole
picture. Pictures are (h, w, channels) with values in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float

from sightline.core.errors import DataError, UnscorableError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

NOISE_SIZES = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)
"""Largest change of a pixel by noise, as published."""

_NO_POWER = 1e-20
"""Share of a picture's power that rounding leaves in empty bands."""


def pixels(image: Image, size: tuple[int, int] | None = None) -> Float[np.ndarray, "h w 3"]:
    """A picture's values in [0, 1], scaled to another width and height if asked (bicubic).

    Example:
        >>> from PIL import Image
        >>> pixels(Image.new("RGB", (3, 2), "white"), (6, 4)).shape
        (4, 6, 3)
    """
    from PIL.Image import Resampling

    rgb = image.convert("RGB")
    if size is not None and rgb.size != size:
        rgb = rgb.resize(size, Resampling.BICUBIC)
    return np.asarray(rgb, dtype=np.float64) / 255


@lru_cache(maxsize=32)
def radii(height: int, width: int) -> Float[np.ndarray, "h w"]:
    """Radius of each coefficient of a two-dimensional FFT, in [0, 1]; not to be written to.

    The corner is half a cycle per pixel both ways; odd sides stay a little below it.
    """
    down, across = np.fft.fftfreq(height), np.fft.fftfreq(width)
    radius: Float[np.ndarray, "h w"] = np.hypot(down[:, None], across[None, :]) / np.sqrt(0.5)
    radius.flags.writeable = False
    return radius


def band_edges(
    count: int = 3,
    spacing: Literal["log", "equal", "percentile"] = "log",
    *,
    height: int = 256,
    width: int = 256,
) -> Float[np.ndarray, " edges"]:
    """Edges of bands that cover all radii, ascending from 0 to 1.

    Args:
        count: Bands, at least 1.
        spacing: ``log``: upper edges in equal ratios from the lowest radius of the longer side;
            ``equal``: of equal width; ``percentile``: with equally many coefficients each.
        height: Size of the picture, for ``log`` and ``percentile``.
        width: Size of the picture.

    Raises:
        UsageError: The picture is too small for as many bands.

    Source:
        arXiv 2602.06652 has three bands of these spacings and does not give their ends.
    """
    edges = np.linspace(0.0, 1.0, count + 1)
    if count >= 1 and spacing == "log":
        lowest = 1 / max(height, width) / np.sqrt(0.5)
        edges = np.concatenate([[0.0], np.geomspace(min(lowest, 1.0), 1.0, count + 1)[1:]])
    elif count >= 1 and spacing == "percentile":
        edges = np.quantile(radii(height, width), edges)
        edges[-1] = 1.0
    if count < 1 or np.any(np.diff(edges) <= 0):
        raise UsageError(
            f"{count} bands of a picture of {width} x {height} pixels; at least one, and no more "
            "than the picture has frequencies, are required. Ask for 3."
        )
    return edges


@dataclass(frozen=True, slots=True)
class Band:
    """Radii from ``low`` up to ``high``, which is left out unless it is 1."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise UsageError(
                f"Band from {self.low} to {self.high}; 0 <= low < high <= 1 is required. Write for "
                "example 0 to 0.25."
            )

    def mask(self, height: int, width: int) -> Bool[np.ndarray, "h w"]:
        """Which coefficients of a picture lie in the band."""
        radius = radii(height, width)
        return np.asarray((radius >= self.low) & ((radius < self.high) | (self.high == 1)))

    def keep(self, image: Float[np.ndarray, "*n h w c"]) -> Float[np.ndarray, "*n h w c"]:
        """What of a picture lies in the band; values may leave [0, 1]."""
        spectrum = np.fft.fft2(image, axes=(-3, -2))
        spectrum *= self.mask(*image.shape[-3:-1])[..., None]
        return np.asarray(np.fft.ifft2(spectrum, axes=(-3, -2)).real)

    def share(self, image: Float[np.ndarray, "h w c"]) -> float:
        """Share of the power that lies in the band, in [0, 1].

        Raises:
            UnscorableError: The picture is 0 throughout.
        """
        power = np.sum(np.abs(np.fft.fft2(image, axes=(0, 1))) ** 2, axis=-1)
        total = float(power.sum())
        if total == 0:
            raise UnscorableError([0], "no power at all", "Leave out what is 0 throughout.")
        return float(power[self.mask(*image.shape[:2])].sum()) / total


def band_power(
    image: Float[np.ndarray, "*n h w c"], edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, "*n k"]:
    """Power of each band, summed over its coefficients and over channels.

    Args:
        image: Pictures, or differences of pictures.
        edges: As `band_edges` gives them.

    Returns:
        Squared pixel values; the bands add up to the sum of squares of the picture.

    Raises:
        DataError: A value is not finite, or the edges do not run from 0 to 1.

    Source:
        arXiv 2602.06652 prints the mean per coefficient; only sums add up.
    """
    _require_edges(edges)
    _require_finite(image)
    h, w = image.shape[-3:-1]
    power = np.sum(np.abs(np.fft.fft2(image, axes=(-3, -2))) ** 2, axis=-1) / (h * w)
    return np.asarray(power.reshape(*power.shape[:-2], h * w) @ _members(h, w, edges))


def band_means(
    image: Float[np.ndarray, "*n h w c"], edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, "*n k"]:
    """Mean power of a coefficient in each band, over its coefficients and over channels.

    Args:
        image: Pictures.
        edges: As `band_edges` gives them.

    Returns:
        Squared pixel values; 0 for a band without coefficients. Unlike sums, means of bands of
        different widths stand side by side, and do not add up.

    Raises:
        DataError: As `band_power`.

    Source:
        arXiv 2602.06652; there without the division by the number of pixels, which relative
        changes do not show.
    """
    power = band_power(image, edges)
    h, w, channels = image.shape[-3:]
    sizes = _members(h, w, edges).sum(axis=0) * channels
    return np.asarray(power / np.maximum(sizes, 1))


def band_fractions(
    image: Float[np.ndarray, "n h w c"], edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, "n k"]:
    """Share of each band in a perturbation's power; rows sum to 1.

    Raises:
        UnscorableError: Rows that are 0 throughout, such as those of the identity.
        DataError: As `band_power`.
    """
    power = band_power(image, edges)
    total = power.sum(axis=1, keepdims=True)
    empty = np.flatnonzero(total == 0)
    if len(empty):
        raise UnscorableError(
            empty.tolist(), "a perturbation of no power", "Leave out rows that change no pixel."
        )
    return np.asarray(power / total)


@dataclass(frozen=True, slots=True, eq=False)
class SpectralChange:
    """What a perturbation does to a picture's spectrum, by band.

    Attributes:
        perturbation: Power of the difference of the pictures.
        absolute: Power of the perturbed less that of the clean picture.
        relative: `absolute` over the clean picture's total power; bands add up to the whole change.
    """

    perturbation: Float[np.ndarray, "n k"]
    absolute: Float[np.ndarray, "n k"]
    relative: Float[np.ndarray, "n k"]


def spectral_change(
    clean: Float[np.ndarray, "n h w c"],
    perturbed: Float[np.ndarray, "n h w c"],
    edges: Float[np.ndarray, " edges"],
) -> SpectralChange:
    """Compares the spectra of clean and perturbed pictures of one size.

    Raises:
        UnscorableError: A clean picture is black throughout.
        DataError: As `band_power`.

    Source:
        arXiv 2602.06652, whose relative change is within bands, and explodes where one is empty.
    """
    before, after = band_power(clean, edges), band_power(perturbed, edges)
    total = before.sum(axis=1, keepdims=True)
    black = np.flatnonzero(total == 0)
    if len(black):
        raise UnscorableError(black.tolist(), "a black clean picture", "Leave them out.")
    return SpectralChange(
        perturbation=band_power(perturbed - clean, edges),
        absolute=after - before,
        relative=(after - before) / total,
    )


def low_pass(image: Float[np.ndarray, "*n h w c"], cutoff: float) -> Float[np.ndarray, "*n h w c"]:
    """The picture's radii up to and with the cutoff; values may leave [0, 1].

    A cutoff of 1 keeps the picture as it is, to the bit; 0 keeps its mean colour.

    Raises:
        UsageError: The cutoff is not in [0, 1].
    """
    _require_cutoff(cutoff)
    return image.copy() if cutoff == 1 else _filtered(image, cutoff, low=True)


def high_pass(
    image: Float[np.ndarray, "*n h w c"], cutoff: float, *, keep_mean: bool = True
) -> Float[np.ndarray, "*n h w c"]:
    """The picture's radii above the cutoff; values may leave [0, 1].

    Args:
        image: Pictures.
        cutoff: In [0, 1]; 0 with the mean kept leaves the picture as it is.
        keep_mean: Keep the mean colour too, around which the details stand.

    Raises:
        UsageError: The cutoff is not in [0, 1].
    """
    _require_cutoff(cutoff)
    if cutoff == 0 and keep_mean:
        return image.copy()
    details = _filtered(image, cutoff, low=False)
    return details + image.mean(axis=(-3, -2), keepdims=True) if keep_mean else details


def band_noise(
    shape: tuple[int, int, int],
    band: Band,
    size: float,
    *,
    norm: Literal["linf", "l2"] = "linf",
    rng: np.random.Generator,
) -> Float[np.ndarray, "h w c"]:
    """Gaussian noise of one band, scaled to a given size.

    Args:
        shape: Height, width, channels.
        band: Where the noise has its power.
        size: The norm of the noise, at least 0: 1/255 is one step of a pixel.
        norm: ``linf`` the largest change of a value, ``l2`` the root of the sum of squares.
        rng: Draws the noise.

    Raises:
        UsageError: The size is negative, or the picture has no frequency in the band.

    Source:
        arXiv 2602.06652, normalised by its peak (``linf``).
    """
    if not band.mask(*shape[:2]).any() or size < 0:
        raise UsageError(
            f"Noise of size {size} in the band {band.low} to {band.high} of a picture of "
            f"{shape[1]} x {shape[0]} pixels; a size of 0 or more and a frequency in the band are "
            "required. Widen the band."
        )
    noise = band.keep(rng.standard_normal(shape))
    length = np.abs(noise).max() if norm == "linf" else np.sqrt(np.sum(noise**2))
    return np.asarray(noise * (size / length))


def coherence(
    clean: Float[np.ndarray, "n h w c"],
    perturbed: Float[np.ndarray, "n h w c"],
    edges: Float[np.ndarray, " edges"],
) -> Float[np.ndarray, "n k"]:
    """How far two pictures agree in each band, in phase as in strength; higher = more alike.

    The squared magnitude of the cross-spectrum, averaged over the band's coefficients and channels,
    over the product of the two powers.

    Args:
        clean: Clean pictures.
        perturbed: Perturbed pictures of the same size.
        edges: As `band_edges` gives them; the first band also holds the mean colour.

    Returns:
        In [0, 1]: 1 where the band is the same up to a factor. Where only one picture has power in
        the band they share nothing, 0; where neither has, they are the same there, 1.

    Raises:
        DataError: As `band_power`.

    Source:
        Magnitude-squared coherence (Carter 1987), with coefficients of a band in place of segments
        in time; arXiv 2602.06652 names the measure without a formula.
    """
    _require_edges(edges)
    _require_finite(clean)
    _require_finite(perturbed)
    h, w = clean.shape[-3:-1]
    first, second = np.fft.fft2(clean, axes=(1, 2)), np.fft.fft2(perturbed, axes=(1, 2))
    band = np.clip(np.searchsorted(edges, radii(h, w), side="right") - 1, 0, len(edges) - 2)
    members = np.eye(len(edges) - 1)[band.ravel()]

    def total(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.sum(axis=-1).reshape(len(clean), h * w) @ members)

    cross = np.abs(total(first * second.conj())) ** 2
    own, other = total(np.abs(first) ** 2), total(np.abs(second) ** 2)
    none, none_other = (p <= _NO_POWER * p.sum(axis=1, keepdims=True) for p in (own, other))
    shared = np.divide(cross, own * other, out=np.zeros_like(cross), where=~none & ~none_other)
    return np.where(none & none_other, 1.0, np.clip(shared, 0.0, 1.0))


def _filtered(
    image: Float[np.ndarray, "*n h w c"], cutoff: float, *, low: bool
) -> Float[np.ndarray, "*n h w c"]:
    spectrum = np.fft.fft2(image, axes=(-3, -2))
    spectrum *= ((radii(*image.shape[-3:-1]) <= cutoff) == low)[..., None]
    return np.asarray(np.fft.ifft2(spectrum, axes=(-3, -2)).real)


def _members(
    height: int, width: int, edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, "hw k"]:
    """Whether each coefficient lies in each band, 1 or 0."""
    band = np.searchsorted(edges, radii(height, width), side="right") - 1
    return np.asarray(np.eye(len(edges) - 1)[np.clip(band, 0, len(edges) - 2).ravel()])


def _require_cutoff(cutoff: float) -> None:
    if not 0 <= cutoff <= 1:
        raise UsageError(f"Cutoff {cutoff}; a radius from 0 to 1 is required. Use 0.25.")


def _require_edges(edges: Float[np.ndarray, " edges"]) -> None:
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or np.any(np.diff(edges) <= 0):
        raise DataError(
            f"Band edges {edges.tolist()}; ascending ones from 0 to 1 are required. Take them from "
            "band_edges."
        )


def _require_finite(image: np.ndarray) -> None:
    if not np.isfinite(image).all():
        raise DataError(
            f"{int((~np.isfinite(image)).sum())} pixel values are NaN or infinite; finite ones are "
            "required. Read the pictures again."
        )
