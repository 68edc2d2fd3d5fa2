"""Rows in blocks, and what several scores need of a block, computed once.

Memory is bounded by the block. A row's score depends on that row alone, up to the rounding of
float32 matrix products: fast kernels sum in an order that differs with a row's place among others.
The same rows in the same order give the same numbers to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import MissingFeatureError
from sightline.zeroshot.outputs import (
    ClassifierOutputs,
    ClassTexts,
    as_rows,
    normalised,
    require_aux,
)
from sightline.zeroshot.protocols import FittedScore, Scored

_PILE = 16
BLOCK_ROWS = 512

_MOST_THREADS = 8
_MOST_LOGITS = 1 << 25  # of the blocks that are scored at once; each holds several such arrays


T = TypeVar("T")


class _kept(Generic[T]):  # noqa: N801 (a decorator)
    """A value that a block computes once.

    `functools.cached_property` without its lock: on Python 3.11 one lock is shared by all blocks,
    so that threads would wait for each other's products.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, block: object, owner: type | None = None) -> T:
        value = block.__dict__[self._name] = self._make(block)
        return value


class Block:
    """At most `BLOCK_ROWS` rows of outputs.

    Attributes:
        texts: The classes.
    """

    def __init__(
        self, outputs: ClassifierOutputs, start: int, dtype: type[np.floating] = np.float32
    ) -> None:
        self.texts: ClassTexts = outputs.texts
        self._dtype = dtype
        self._outputs = outputs
        self._start = start
        self._products: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._nearest: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    @_kept
    def image(self) -> Float[np.ndarray, "b d"]:
        """Unit vectors in the classifier's space."""
        return self._rows(self._outputs.image)

    def aux(self, who: object) -> Float[np.ndarray, "b e"]:
        """Unit vectors of the auxiliary encoder.

        Raises:
            MissingFeatureError: There are none.
        """
        require_aux(self._outputs.aux, "images", who)
        return self._aux

    @_kept
    def _aux(self) -> Float[np.ndarray, "b e"]:
        return normalised(require_aux(self._outputs.aux, "images", self)[self._span], self._dtype)

    @_kept
    def logits(self) -> Float[np.ndarray, "b c"]:
        """Logit of each class; not to be written to."""
        return self.logits_of(self.image, self.texts.vectors)

    @_kept
    def label(self) -> Int[np.ndarray, " b"]:
        """Class with the largest logit; the first of equals."""
        return np.asarray(self.logits.argmax(axis=1))

    @_kept
    def top(self) -> Float[np.ndarray, " b"]:
        """The largest logit."""
        return self.logits[self.each, self.label]

    @_kept
    def rest(self) -> Float[np.ndarray, "b c"]:
        """exp(logit − the largest), with 0 at the predicted class; not to be written to."""
        return rest_of(self.logits, self.label, self.top)

    @_kept
    def tail(self) -> Float[np.ndarray, " b"]:
        """Sum of `rest`: the odds against the predicted class, exact however small."""
        return self.rest.sum(axis=1).astype(np.float64)

    @_kept
    def view_logits(self) -> tuple[Float[np.ndarray, "b c"], ...]:
        """Logits of each transformed view.

        Raises:
            MissingFeatureError: No views were collected.
        """
        views = self._outputs.views
        if views is None:
            raise MissingFeatureError(
                "The outputs show no transformed views of the images; this score compares them. "
                "Collect with views, or choose another score."
            )
        return tuple(self.logits_of(self._rows(view), self.texts.vectors) for view in views)

    @_kept
    def exact(self) -> Block:
        """The same rows in double precision, at half the speed."""
        return Block(self._outputs, self._start, np.float64)

    @_kept
    def each(self) -> Int[np.ndarray, " b"]:
        """The block's row numbers."""
        return np.arange(len(self.image))

    def logits_of(
        self, vectors: Float[np.ndarray, "b d"], classes: Float[np.ndarray, "c d"]
    ) -> Float[np.ndarray, "b c"]:
        """Scaled cosines of unit vectors, with the bias added."""
        logits: Float[np.ndarray, "b c"] = vectors @ classes.T
        logits *= self.texts.logit_scale
        if self.texts.logit_bias:
            logits += self.texts.logit_bias
        return logits

    def product(
        self, vectors: Float[np.ndarray, "b w"], others: Float[np.ndarray, "k w"]
    ) -> Float[np.ndarray, "b k"]:
        """Products with the rows of ``others``, kept for every score that asks for the same.

        Args:
            vectors: An array that the block itself holds, such as `image`, or an earlier product.
            others: Scores that were fitted apart may bring equal rows in arrays of their own.
        """
        for left, right, kept in self._products:
            if left is vectors and _equal(right, others):
                return kept
        made: Float[np.ndarray, "b k"] = vectors @ others.T
        self._products.append((vectors, others, made))
        return made

    def nearest(
        self, vectors: Float[np.ndarray, "b w"], others: Float[np.ndarray, "k w"], count: int
    ) -> Int[np.ndarray, "b n"]:
        """Rows of ``others`` with the largest products, in ascending order; kept like `product`."""
        key = id(others), count
        kept = self._nearest.get(key)
        if kept is None:
            found = largest(self.product(vectors, others), count)
            kept = self._nearest[key] = (others, np.sort(found, axis=1))
        return kept[1]

    def _rows(self, array: Float[np.ndarray, "n w"]) -> Float[np.ndarray, "b w"]:
        return as_rows(array[self._span], self._dtype)

    @property
    def _span(self) -> slice:
        return slice(self._start, self._start + BLOCK_ROWS)


def largest(values: Float[np.ndarray, "b k"], count: int) -> Int[np.ndarray, "b n"]:
    """Columns of the largest values of every row, in any order.

    Long rows are dealt out to piles: the largest values lie in the piles with the largest maxima,
    so that only these are looked through.
    """
    rows, columns = values.shape
    piles = columns // _PILE
    if piles <= 2 * count:
        return np.argpartition(values, columns - count, axis=1)[:, columns - count :]
    maxima = values[:, : piles * _PILE].reshape(rows, _PILE, piles).max(axis=1)
    best = np.argpartition(maxima, piles - count, axis=1)[:, piles - count :]
    inside = (np.arange(_PILE)[:, None] * piles + best[:, None, :]).reshape(rows, -1)
    behind = np.broadcast_to(np.arange(piles * _PILE, columns), (rows, columns - piles * _PILE))
    candidates = np.concatenate([inside, behind], axis=1)
    seen = np.take_along_axis(values, candidates, axis=1)
    place = np.argpartition(seen, seen.shape[1] - count, axis=1)[:, seen.shape[1] - count :]
    return np.take_along_axis(candidates, place, axis=1)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same rows; unequal ones are told apart by their first."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return np.array_equal(a[0], b[0]) and np.array_equal(a, b)


def rest_of(
    logits: Float[np.ndarray, "b c"],
    label: Int[np.ndarray, " b"],
    top: Float[np.ndarray, " b"],
) -> Float[np.ndarray, "b c"]:
    """exp(logit − top), with 0 at the label."""
    rest: Float[np.ndarray, "b c"] = logits - top[:, None]
    np.exp(rest, out=rest)
    rest[np.arange(len(rest)), label] = 0.0
    return rest


def score(fitted: FittedScore, outputs: ClassifierOutputs) -> Scored:
    """Labels and uncertainties of all images, higher uncertainty = worse."""
    return score_all({"": fitted}, outputs)[""]


def score_all(fitted: Mapping[str, FittedScore], outputs: ClassifierOutputs) -> dict[str, Scored]:
    """The same for several scores, which share what they have in common.

    Args:
        fitted: Fitted scores by name.
        outputs: Images; read once, `BLOCK_ROWS` at a time.

    Returns:
        By name, in the order of the images.

    Raises:
        MissingFeatureError: A score needs vectors the outputs lack.
        DataError: The outputs are of other classes, or of another encoder, than the fit.
    """
    n = len(outputs)
    results = {
        name: Scored(np.empty(n, dtype=np.int64), np.empty(n, dtype=np.float64)) for name in fitted
    }

    def fill(start: int) -> None:
        block, rows = Block(outputs, start), slice(start, start + BLOCK_ROWS)
        for name, one in fitted.items():
            part = one.score(block)
            results[name].label[rows] = part.label
            results[name].uncertainty[rows] = part.uncertainty

    # What lies between the matrix products runs on one processor; another block fills the others.
    most = max(1, _MOST_LOGITS // (BLOCK_ROWS * len(outputs.texts.classes)))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS, most)) as threads:
        for _ in threads.map(fill, range(0, n, BLOCK_ROWS)):
            pass
    return results


def blocks(outputs: ClassifierOutputs) -> Iterator[tuple[slice, Block]]:
    """Each block with the rows it holds."""
    for start in range(0, len(outputs), BLOCK_ROWS):
        yield slice(start, start + BLOCK_ROWS), Block(outputs, start)


def gather(outputs: ClassifierOutputs, compute: Callable[[Block], np.ndarray]) -> np.ndarray:
    """What ``compute`` gives for each row of every block, joined along the first axis."""
    return np.concatenate([compute(block) for _, block in blocks(outputs)])
