"""What every observed array must be: of its declared axes, finite, and read-only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sightline.core.errors import DataError
from sightline.core.features import ARRAY_AXES, Feature


def frozen_vector(array: Sequence[float] | np.ndarray, dtype: type) -> np.ndarray:
    """A read-only copy of one value per token.

    Raises:
        DataError: It has another number of axes than one.
    """
    out: np.ndarray = np.array(array, dtype=dtype)
    if out.ndim != 1:
        raise DataError(f"Array of shape {out.shape}; one value per token is required. Flatten it.")
    out.setflags(write=False)
    return out


def checked_array(
    feature: Feature, array: np.ndarray, sizes: Mapping[str, int | None], *, where: object
) -> np.ndarray:
    """A feature's array, read-only; copied where it is not.

    Args:
        feature: What was observed.
        array: Of the axes in `ARRAY_AXES`.
        sizes: Length of an axis, by its letter; None or absent where any will do.
        where: What to call the record in errors.

    Raises:
        DataError: No array feature, other axes or lengths, or NaN or infinity in it.
    """
    axes = ARRAY_AXES.get(feature)
    if axes is None:
        raise DataError(
            f"{feature.value} of record {where} is not an array feature; store it on the "
            "generation instead."
        )
    array = np.asarray(array)
    if array.ndim != len(axes):
        raise DataError(
            f"{feature.value} of record {where} has shape {array.shape}; axes {axes} are required. "
            "Reshape it before storing."
        )
    for axis, size in zip(axes, array.shape, strict=True):
        want = sizes.get(axis)
        if want is not None and size != want:
            raise DataError(
                f"{feature.value} of record {where} has {size} along axis {axis}; the record has "
                f"{want}. Store one entry per token, layer, choice, sample or fixed reply."
            )
    if not _all_finite(array):
        raise DataError(
            f"{feature.value} of record {where} holds NaN or infinity; observed arrays must be "
            "finite. Leave the feature out where it could not be observed."
        )
    if array.flags.writeable:
        array = array.copy()
        array.setflags(write=False)
    return array


def _all_finite(array: np.ndarray) -> bool:
    if array.dtype == np.float16:  # by its exponent bits: 8 times faster than np.isfinite
        return bool(((array.view(np.uint16) & 0x7C00) != 0x7C00).all())
    return bool(np.isfinite(array).all())
