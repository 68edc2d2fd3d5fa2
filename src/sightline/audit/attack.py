"""White-box attacks on the pixels, limited to a band of frequencies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.audit.frequency import Band
from sightline.audit.resampled import Clusters
from sightline.core.errors import DataError, MissingExtraError, UsageError
from sightline.core.estimates import Estimate

if TYPE_CHECKING:
    import torch

    PixelLoss = Callable[[torch.Tensor], torch.Tensor]

LOW_BAND, HIGH_BAND = Band(0.0, 0.25), Band(0.25, 1.0)
"""The published attack's two bands, on either side of the cut-off 0.25."""


@dataclass(frozen=True, slots=True)
class PixelAttack:
    """Settings of projected gradient descent on pixels in [0, 1].

    Attributes:
        epsilon: Largest change of a value; 0 changes nothing.
        step: Length of a step, for every value alike.
        steps: Number of steps.
        band: Frequencies the change may have.
    """

    epsilon: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    band: Band = field(default=LOW_BAND)

    def __post_init__(self) -> None:
        if not (self.epsilon >= 0 and self.step >= 0 and self.steps >= 0):
            raise UsageError(
                f"Attack with epsilon {self.epsilon}, step {self.step} and {self.steps} steps; "
                "none may be negative. Use 8/255, 2/255 and 10."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Attacked:
    """What an attack found.

    Attributes:
        images: The attacked pictures, in [0, 1].
        loss_before: Loss of the clean pictures.
        loss_after: Loss of the attacked ones; never above `loss_before`.
        largest: Largest change of a value in each picture, at most epsilon.
        leakage: Share of the change's power outside the band, which clipping lets out; 0 where
            nothing changed.
    """

    images: Float[np.ndarray, "n h w c"]
    loss_before: Float[np.ndarray, " n"]
    loss_after: Float[np.ndarray, " n"]
    largest: Float[np.ndarray, " n"]
    leakage: Float[np.ndarray, " n"]


def attack(
    images: Float[np.ndarray, "n h w c"], loss: PixelLoss, settings: PixelAttack
) -> Attacked:
    """Lowers a loss by small changes of the pixels within one band.

    Each step goes against the sign of the gradient; the change is then projected to the band,
    clipped to epsilon, and clipped again so that the picture stays in [0, 1]. Clipping comes last
    and breaks the limits of the band a little: `Attacked.leakage` says by how much.

    Args:
        images: Clean pictures with values in [0, 1], of one size: the model's own input size, so
            that nothing is scaled between here and the model.
        loss: From pictures (n, h, w, c), double, to one value each, differentiable; what is to be
            lowered, such as the margin of the clean label.
        settings: Sizes, steps and band.

    Returns:
        For each picture the best of all steps, the clean picture among them.

    Raises:
        DataError: A picture leaves [0, 1], or the loss is not one finite value each.
        UsageError: The loss does not depend on the pixels.
        MissingExtraError: torch is not installed.

    Source:
        Madry et al. 2018, band-limited as in arXiv 2602.06652, which takes the last step in place
        of the best, and does not report leakage.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "models", "attacking pixels") from error
    if not (
        np.isfinite(images).all() and images.min(initial=0) >= 0 and images.max(initial=0) <= 1
    ):
        raise DataError(
            f"Pictures with values from {np.min(images):.3g} to {np.max(images):.3g}; values in "
            "[0, 1] are required. Divide bytes by 255."
        )
    inside = torch.from_numpy(settings.band.mask(*images.shape[1:3]).copy())[None, :, :, None]
    clean = torch.from_numpy(np.array(images, dtype=np.float64))
    change = torch.zeros_like(clean)
    best, lowest, before = change, None, None
    for step in range(settings.steps + 1):
        last = step == settings.steps
        value, gradient = _loss_of(loss, clean + change, gradient=not last)
        if lowest is None:
            lowest = before = value
        better = value < lowest
        best = torch.where(better[:, None, None, None], change, best)
        lowest = torch.where(better, value, lowest)
        if gradient is not None:
            stepped = change - settings.step * gradient.sign()
            spectrum = torch.fft.fft2(stepped, dim=(1, 2)) * inside
            limited = torch.fft.ifft2(spectrum, dim=(1, 2)).real
            limited = limited.clamp(-settings.epsilon, settings.epsilon)
            change = (clean + limited).clamp(0, 1) - clean
    found = best.numpy()
    return Attacked(
        images=np.clip(images + found, 0.0, 1.0),
        loss_before=_numbers(before),
        loss_after=_numbers(lowest),
        largest=np.abs(found).max(axis=(1, 2, 3), initial=0.0),
        leakage=np.array(
            [max(0.0, 1 - settings.band.share(own)) if own.any() else 0.0 for own in found]
        ),
    )


@dataclass(frozen=True, slots=True)
class AttackRates:
    """How often an attack succeeds.

    Attributes:
        success: Share of pictures whose label flips while the clean label's score falls.
        flips: Share whose label flips, however it came about.
    """

    success: Estimate
    flips: Estimate


def attack_rates(
    images: Int[np.ndarray, " n"],
    flipped: Bool[np.ndarray, " n"],
    score_change: Float[np.ndarray, " n"],
    clusters: Clusters,
) -> AttackRates:
    """Success and flip rate of an attack, with intervals over images.

    Args:
        images: Image of each attacked picture.
        flipped: Whether its label is another than the clean one's.
        score_change: Score of the clean label after less before, in nats.
        clusters: Resamples of the images.

    Raises:
        DataError: An image the clusters were not drawn from.

    Source:
        arXiv 2602.06652.
    """
    return AttackRates(
        success=clusters.share(images, flipped & (score_change < 0)),
        flips=clusters.share(images, flipped),
    )


def _loss_of(
    loss: PixelLoss, pictures: torch.Tensor, *, gradient: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Loss of each picture and, if asked, its gradient."""
    import torch

    leaf = pictures.detach().requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        value = loss(leaf)
    if value.shape != (len(pictures),) or not bool(torch.isfinite(value).all()):
        raise DataError(
            f"The loss has shape {tuple(value.shape)} for {len(pictures)} pictures; one finite "
            "value each is required. Do not sum over pictures."
        )
    slope = None
    if gradient:
        if not value.requires_grad:
            raise UsageError(
                "The loss does not depend on the pixels; a differentiable one is required. Compute "
                "it with torch from the given tensor, outside inference mode."
            )
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach().double().cpu(), slope


def _numbers(values: torch.Tensor | None) -> Float[np.ndarray, " n"]:
    return np.zeros(0) if values is None else values.numpy()
