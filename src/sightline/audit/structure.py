"""How smooth the grid of vision tokens is: Dirichlet energy, and where there is no grid.

Axes: ``t`` vision tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
from jaxtyping import Float

from sightline.core.errors import DataError, UndefinedMetricError


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Where the grid lies among a picture's vision tokens, row by row.

    Attributes:
        height: Rows of the grid.
        width: Columns.
        frames: Grids one after the other (video); edges run within each.
        start: Tokens before the first grid.
    """

    height: int
    width: int
    frames: int = 1
    start: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.frames) < 1 or self.start < 0:
            raise DataError(
                f"A token grid of {self.frames} x {self.height} x {self.width} from token "
                f"{self.start}; positive sides are required. Take them from the model's processor."
            )

    def of(self, tokens: Float[np.ndarray, "t d"]) -> Float[np.ndarray, "frames h w d"]:
        """The grid's tokens; those before and after it are left out.

        Raises:
            DataError: There are fewer tokens than the grid holds.
        """
        count = self.frames * self.height * self.width
        if len(tokens) < self.start + count:
            raise DataError(
                f"{len(tokens)} vision tokens for a grid of {self.frames} x {self.height} x "
                f"{self.width} from token {self.start}; at least {self.start + count} are "
                "required. Take the grid from the same picture's inputs."
            )
        inside = tokens[self.start : self.start + count]
        return inside.reshape(self.frames, self.height, self.width, tokens.shape[1])


@dataclass(frozen=True, slots=True)
class NoGrid:
    """Vision tokens that are not laid out as the picture is.

    Attributes:
        reason: Why, in words.
    """

    reason: str


TokenLayout = TokenGrid | NoGrid


def square_grid(tokens: int) -> TokenGrid:
    """The layout of models that cut every picture into the same square (LLaVA).

    Raises:
        DataError: The number of tokens is not a square.
    """
    side = isqrt(max(tokens, 0))
    if side < 1 or side * side != tokens:
        raise DataError(
            f"{tokens} vision tokens; a square number is required for a square grid. Leave out the "
            "class token, or name height and width."
        )
    return TokenGrid(side, side)


def merged_grid(frames: int, height: int, width: int, *, merge: int) -> TokenGrid:
    """The layout of models whose grid follows the picture's shape (Qwen): t, h, w of its inputs.

    Args:
        frames: Time steps; 1 for a picture.
        height: Patches down, before neighbours are merged.
        width: Patches across.
        merge: Side of the square of patches that becomes one token.

    Raises:
        DataError: The sides are not multiples of ``merge``.
    """
    if merge < 1 or height % merge or width % merge:
        raise DataError(
            f"A grid of {height} x {width} patches merged by {merge}; sides that are multiples are "
            "required. Take grid and merge size from the same model."
        )
    return TokenGrid(height // merge, width // merge, frames)


def base_tile(side: int, *, start: int = 0) -> TokenGrid:
    """The layout of models that show the whole picture and enlarged tiles (LLaVA-NeXT, OneVision).

    Only the base tile, the whole picture at low resolution, covers the picture once; the tiles and
    the tokens that end their lines are left out.

    Args:
        side: Tokens along a side of the base tile.
        start: Tokens before it.

    Raises:
        DataError: The side is not positive.

    Source:
        As in the code of arXiv 2602.06652.
    """
    return TokenGrid(side, side, start=start)


def query_tokens(count: int) -> NoGrid:
    """The layout of models whose learned queries read the picture (BLIP-2, InstructBLIP)."""
    return NoGrid(f"the {count} vision tokens are learned queries, not places in the picture")


def dirichlet_energy(
    grid: Float[np.ndarray, "*rows h w d"], *, normalised: bool = False
) -> Float[np.ndarray, " *rows"]:
    """Mean squared difference of neighbouring vision tokens; higher = less smooth.

    Args:
        grid: Tokens by place; leading axes (frames, pictures) are kept.
        normalised: Divide by the mean squared length of the tokens, so that neither the scale of
            the features nor the grid's size shows.

    Returns:
        At least 0, squared units of the tokens (none if normalised: about 2 for unrelated tokens
        around 0); 0 where all tokens are equal.

    Raises:
        UndefinedMetricError: The grid is a single token, or all tokens are 0 and their energy is
            to be normalised.
        DataError: A token is not finite.

    Source:
        arXiv 2602.06652: sum over the edges between neighbours down and across, over their number;
        the normalised form is ours.

    Example:
        >>> dirichlet_energy(np.array([[[0.0], [1.0]], [[2.0], [5.0]]])).tolist()
        7.5
    """
    values = _finite(grid)
    *_, h, w, _ = values.shape
    edges = h * (w - 1) + (h - 1) * w
    if not edges:
        raise UndefinedMetricError("a grid of one token has no neighbours")
    down, across = np.diff(values, axis=-3), np.diff(values, axis=-2)
    total = np.sum(down**2, axis=(-3, -2, -1)) + np.sum(across**2, axis=(-3, -2, -1))
    energy = np.asarray(total / edges)
    if not normalised:
        return energy
    length = np.asarray(np.mean(np.sum(values**2, axis=-1), axis=(-2, -1)))
    if np.any(length == 0):
        raise UndefinedMetricError("all vision tokens are 0; their energy cannot be normalised")
    return np.asarray(energy / length)


def energy_map(grid: Float[np.ndarray, "*rows h w d"]) -> Float[np.ndarray, "*rows h w"]:
    """For each token, the mean squared difference to its two to four neighbours.

    Raises:
        UndefinedMetricError: The grid is a single token.
        DataError: A token is not finite.
    """
    values = _finite(grid)
    *_, h, w, _ = values.shape
    if h * w == 1:
        raise UndefinedMetricError("a grid of one token has no neighbours")
    down = np.sum(np.diff(values, axis=-3) ** 2, axis=-1)
    across = np.sum(np.diff(values, axis=-2) ** 2, axis=-1)
    total, neighbours = np.zeros(values.shape[:-1]), np.zeros((h, w))
    total[..., :-1, :] += down
    total[..., 1:, :] += down
    total[..., :, :-1] += across
    total[..., :, 1:] += across
    neighbours[:-1] += 1
    neighbours[1:] += 1
    neighbours[:, :-1] += 1
    neighbours[:, 1:] += 1
    return np.asarray(total / neighbours)


def token_energy(
    tokens: Float[np.ndarray, "t d"], layout: TokenLayout, *, normalised: bool = False
) -> float:
    """Dirichlet energy of one picture's vision tokens, mean over frames.

    Args:
        tokens: All vision tokens of the picture, in the model's order.
        layout: Where the grid lies among them.
        normalised: As for `dirichlet_energy`.

    Raises:
        UndefinedMetricError: There is no grid; the reason says why.
        DataError: There are fewer tokens than the grid holds.
    """
    if isinstance(layout, NoGrid):
        raise UndefinedMetricError(layout.reason)
    return float(np.mean(dirichlet_energy(layout.of(tokens), normalised=normalised)))


def energy_change(
    clean: Float[np.ndarray, "t d"],
    perturbed: Float[np.ndarray, "s d"],
    layout: TokenLayout,
    perturbed_layout: TokenLayout | None = None,
    *,
    normalised: bool = False,
) -> float:
    """Energy under the perturbation less that of the clean picture; positive = less smooth.

    Args:
        clean: Vision tokens of the clean picture.
        perturbed: Vision tokens of the perturbed picture.
        layout: Layout of the clean picture.
        perturbed_layout: Layout of the perturbed one where it differs, as when a picture grows.
        normalised: As for `dirichlet_energy`.

    Raises:
        UndefinedMetricError: There is no grid.
        DataError: There are fewer tokens than the grid holds.
    """
    after = token_energy(perturbed, perturbed_layout or layout, normalised=normalised)
    return after - token_energy(clean, layout, normalised=normalised)


def _finite(grid: Float[np.ndarray, "*rows h w d"]) -> Float[np.ndarray, "*rows h w d"]:
    values = np.asarray(grid, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(
            f"{int((~np.isfinite(values)).any(axis=-1).sum())} vision tokens hold NaN or infinity; "
            "finite ones are required. Collect them again with another dtype."
        )
    return values
