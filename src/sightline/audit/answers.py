"""What an audit knows of each answer: the features that become uncertainties."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.audit.drift import ControlDrift
from sightline.audit.labels import item_means
from sightline.audit.prior import PriorIndex
from sightline.core.errors import DataError
from sightline.core.results import Skipped

FEATURES = ("flip_rate", "margin_loss", "drift_percent", "energy_change", "prior_index")
"""Columns in the order of the table; higher = less stable in each."""


@dataclass(frozen=True, slots=True, eq=False)
class AnswerFeatures:
    """One row per answer, one column per feature that was given.

    Attributes:
        items: Items with every feature, ascending.
        names: Of the columns, in the order of `FEATURES`.
        values: ``flip_rate`` share of its pairs that flip; ``margin_loss`` mean fall of the clean
            label's margin, nats; ``drift_percent`` mean drift as per cent of the mean control;
            ``energy_change`` mean size of the change of token energy; ``prior_index`` mean
            drift-to-prior.
        excluded: Items that lack a feature, by which ones.
    """

    items: Int[np.ndarray, " i"]
    names: tuple[str, ...]
    values: Float[np.ndarray, "i f"]
    excluded: tuple[Skipped, ...]

    def column(self, name: str) -> Float[np.ndarray, " i"]:
        """One feature of all items.

        Raises:
            DataError: The table has no such column.
        """
        if name not in self.names:
            raise DataError(
                f"The audit has no {name}; one of {', '.join(self.names)} is required. Give the "
                "table what it is computed from."
            )
        return self.values[:, self.names.index(name)]


def answer_features(
    items: Int[np.ndarray, " n"],
    *,
    flipped: Bool[np.ndarray, " n"] | None = None,
    margin_loss: Float[np.ndarray, " n"] | None = None,
    drift: Float[np.ndarray, " n"] | None = None,
    control: ControlDrift | None = None,
    energy_change: Float[np.ndarray, " n"] | None = None,
    prior: PriorIndex | None = None,
) -> AnswerFeatures:
    """Averages what the pairs of an answer show; higher = less stable.

    Args:
        items: Item of each pair that counts.
        flipped: Whether the label changed.
        margin_loss: Margin of the clean label under the clean picture less that under the
            perturbed one, in nats.
        drift: Drift of each pair.
        control: What drift is held against; required beside it.
        energy_change: Change of token energy, of either sign.
        prior: Index of the pairs that have one.

    Raises:
        DataError: No feature at all, drift without a control that moves, or a value that is not
            finite.
    """
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if flipped is not None:
        found["flip_rate"] = item_means(items, flipped * 1.0)
    if margin_loss is not None:
        found["margin_loss"] = item_means(items, margin_loss)
    if drift is not None:
        found["drift_percent"] = item_means(items, 100 * drift / _control_mean(control))
    if energy_change is not None:
        found["energy_change"] = item_means(items, np.abs(energy_change))
    if prior is not None:
        found["prior_index"] = item_means(items[prior.rows], prior.values)
    if not found:
        raise DataError(
            f"{len(items)} pairs without any feature; at least one of {', '.join(FEATURES)} is "
            "required. Give the table what the run observed."
        )
    for name, (_, values) in found.items():
        if not np.isfinite(values).all():
            raise DataError(
                f"{name} is NaN or infinite for {int((~np.isfinite(values)).sum())} items; finite "
                "values are required. Leave out pairs that were not observed."
            )
    every = np.unique(items)
    has = np.stack([np.isin(every, own) for own, _ in found.values()], axis=1)
    whole = every[has.all(axis=1)]
    lacking = Counter(
        " and ".join(name for name, there in zip(found, row, strict=True) if not there)
        for row in has[~has.all(axis=1)]
    )
    return AnswerFeatures(
        items=whole,
        names=tuple(found),
        values=np.stack(
            [values[np.searchsorted(own, whole)] for own, values in found.values()], axis=1
        ),
        excluded=tuple(Skipped(f"no {names}", n) for names, n in sorted(lacking.items())),
    )


def _control_mean(control: ControlDrift | None) -> float:
    """Mean over items of the item's mean control."""
    mean = (
        0.0
        if control is None or not len(control.items)
        else float(np.mean(item_means(control.items, control.values)[1]))
    )
    if not mean > 0:
        raise DataError(
            "Drift without a control that moves; drift is reported as per cent of one. Draw "
            "partners with other_images or other_items."
        )
    return mean
