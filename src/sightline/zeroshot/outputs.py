"""What a zero-shot classifier showed: vectors of class texts, of images, and of a support set.

Axes: ``n`` images, ``s`` support images, ``c`` classes, ``p`` prompt templates, ``v`` transformed
views of an image, ``d`` width of the classifier's space, ``e`` width of an auxiliary encoder's.

Example:
    >>> texts = ClassTexts(("cat", "dog"), np.eye(2, dtype=np.float32), logit_scale=100.0)
    >>> seen = ClassifierOutputs(texts, image=np.array([[0.6, 0.8]], dtype=np.float32))
    >>> len(seen), seen.texts.classes
    (1, ('cat', 'dog'))
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError, MissingFeatureError

Encoder = Literal["own", "aux"]
"""Whose image vectors are compared: the classifier's own, or the auxiliary encoder's."""

_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
_SLICE = 16_384  # rows checked at a time, so that a memory map is never held whole
_UNIT_SLACK = 5e-3  # float16 rounds a unit vector's length by less


@dataclass(frozen=True, slots=True, eq=False)
class ClassTexts:
    """The classes as a classifier sees them: vectors of their texts, and how cosines are read.

    Attributes:
        classes: Their names, at least two, none twice.
        vectors: Unit vector of each class, float32; with several templates their joint vector.
        logit_scale: What cosines are multiplied by, > 0.
        logit_bias: What is added then; 0 for CLIP.
        link: Whether logits compete (CLIP, ``softmax``) or each stands for its class alone
            (SigLIP, ``sigmoid``). One class being right given, both have the same distribution over
            classes: the odds of a sigmoid are the exponential that a softmax normalises.
        templates: Unit vectors of each class in each prompt template, or None.

    Raises:
        DataError: Fewer than two classes, a name twice, a shape that does not fit, a vector that is
            zero, not finite or not of length one, or a scale that is not above 0.
    """

    classes: tuple[str, ...]
    vectors: Float[np.ndarray, "c d"]
    logit_scale: float
    logit_bias: float = 0.0
    link: Literal["softmax", "sigmoid"] = "softmax"
    templates: Float[np.ndarray, "p c d"] | None = None

    def __post_init__(self) -> None:
        _check_names(self.classes)
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.classes):
            raise DataError(
                f"Class vectors have shape {self.vectors.shape} for {len(self.classes)} classes; "
                "one row per class is required. Embed every class name once."
            )
        if not (np.isfinite(self.logit_scale) and self.logit_scale > 0):
            raise DataError(
                f"The logit scale is {self.logit_scale}; a number above 0 is required. Pass the "
                "exponential of the model's logit_scale parameter."
            )
        if not np.isfinite(self.logit_bias):
            raise DataError(
                f"The logit bias is {self.logit_bias}; a finite number is required. Use 0 for CLIP."
            )
        object.__setattr__(self, "vectors", np.ascontiguousarray(self.vectors, dtype=np.float32))
        check_vectors("Class vector", self.vectors, unit=True)
        if self.templates is not None:
            _check_stack("Template vectors", self.templates, self.vectors.shape)
            joined = np.ascontiguousarray(self.templates, dtype=np.float32)
            object.__setattr__(self, "templates", joined)
            for index, vectors in enumerate(joined):
                check_vectors(f"Template {index}: class vector", vectors, unit=True)


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierOutputs:
    """Vectors of the images to be classified; arrays may be memory maps and are read in blocks.

    Attributes:
        texts: The classes.
        image: Unit vectors, float32 or float16.
        aux: Vectors of an auxiliary image encoder as it gives them, not normalised, or None.
        views: Unit vectors of transformed versions of each image, or None.

    Raises:
        DataError: No image, a width or number of rows that does not fit, or a vector that is zero,
            not finite or, where it must be, not of length one.
    """

    texts: ClassTexts
    image: Float[np.ndarray, "n d"]
    aux: Float[np.ndarray, "n e"] | None = None
    views: Float[np.ndarray, "v n d"] | None = None

    def __post_init__(self) -> None:
        _check_width("Image vectors", self.image, self.texts)
        _check_parts("Image", self.image, self.aux, self.views)

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """Labelled images, some of every class; scores may learn from them, never be tested on them.

    Attributes:
        image: Unit vectors in the classifier's space.
        labels: Index of each image's class.
        aux: Vectors of the auxiliary encoder, not normalised, or None.
        views: Unit vectors of transformed versions, or None.
        unit_aux: The auxiliary vectors at length one, float32, or None.

    Raises:
        DataError: No image, a number of rows or labels that does not fit, a label below 0, or a
            vector that is zero, not finite or, where it must be, not of length one.
    """

    image: Float[np.ndarray, "s d"]
    labels: Int[np.ndarray, " s"]
    aux: Float[np.ndarray, "s e"] | None = None
    views: Float[np.ndarray, "v s d"] | None = None
    unit_aux: Float[np.ndarray, "s e"] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.labels.shape != self.image.shape[:1] or not np.issubdtype(
            self.labels.dtype, np.integer
        ):
            raise DataError(
                f"Support labels of shape {self.labels.shape} and type {self.labels.dtype} for "
                f"image vectors of shape {self.image.shape}; one class index per image is "
                "required. Label every support image."
            )
        _check_parts("Support image", self.image, self.aux, self.views)
        object.__setattr__(self, "image", np.ascontiguousarray(self.image, dtype=np.float32))
        if self.aux is not None:
            object.__setattr__(self, "unit_aux", normalised(self.aux))

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, encoder: Encoder, who: object) -> Float[np.ndarray, "s w"]:
        """Unit vectors of one encoder, float32.

        Raises:
            MissingFeatureError: The auxiliary encoder's are asked for and there are none.
        """
        if encoder == "own":
            return self.image
        return require_aux(self.unit_aux, "support images", who)

    def outputs(self, texts: ClassTexts) -> ClassifierOutputs:
        """The same images as something to classify."""
        return ClassifierOutputs(texts, self.image, self.aux, self.views)

    def take(self, rows: Int[np.ndarray, " k"]) -> Support:
        """Some of the images."""
        return Support(
            self.image[rows],
            self.labels[rows],
            None if self.aux is None else self.aux[rows],
            None if self.views is None else self.views[:, rows],
        )


def check_support(texts: ClassTexts, support: Support | None, who: object) -> Support:
    """The support set, checked against the classes.

    Raises:
        MissingFeatureError: There is none.
        DataError: Its width differs, a label names no class, or a class has no image.
    """
    if support is None:
        raise MissingFeatureError(
            f"{type(who).__name__} was given no support set; labelled images of every class are "
            "required. Pass a Support, or choose a zero-shot score."
        )
    _check_width("Support image vectors", support.image, texts)
    c = len(texts.classes)
    if support.labels.min() < 0 or support.labels.max() >= c:
        at = int(np.argmax((support.labels < 0) | (support.labels >= c)))
        raise DataError(
            f"Support label {int(support.labels[at])} at row {at} names none of {c} classes; an "
            f"index from 0 to {c - 1} is required. Map the labels to the class names."
        )
    counts = np.bincount(support.labels, minlength=c)
    if (counts == 0).any():
        empty = np.flatnonzero(counts == 0)
        raise DataError(
            f"{empty.size} of {c} classes have no support image, among them "
            f"{texts.classes[empty[0]]!r}; at least one per class is required. Add images or leave "
            "the classes out."
        )
    return support


def require_aux(
    aux: Float[np.ndarray, "n e"] | None, whose: str, who: object
) -> Float[np.ndarray, "n e"]:
    """The auxiliary vectors.

    Raises:
        MissingFeatureError: There are none.
    """
    if aux is None:
        raise MissingFeatureError(
            f"{type(who).__name__} found no auxiliary vectors of the {whose}; it compares images "
            "by an auxiliary encoder. Collect with one, or use encoder=own."
        )
    return aux


def check_aux_width(aux: Float[np.ndarray, "n e"], width: int) -> None:
    """Checks that images and support images are from one auxiliary encoder.

    Raises:
        DataError: The widths differ.
    """
    if aux.shape[1] != width:
        raise DataError(
            f"Auxiliary vectors of the images are {aux.shape[1]} wide, those of the support images "
            f"{width}; one encoder for both is required. Embed both with the same encoder."
        )


def normalised(
    vectors: Float[np.ndarray, "n w"], dtype: type[np.floating] = np.float32
) -> Float[np.ndarray, "n w"]:
    """Rows of length one."""
    rows = as_rows(vectors, dtype, copy=True)
    rows /= np.sqrt(np.einsum("nw,nw->n", rows, rows))[:, None]
    return rows


def as_rows(
    vectors: Float[np.ndarray, "n w"], dtype: type[np.floating], *, copy: bool = False
) -> Float[np.ndarray, "n w"]:
    """The same numbers in a type as wide or wider, rows one after another.

    Float16 is looked up in a table of all its values, in half the time of NumPy's conversion.
    """
    if vectors.dtype == np.float16 and dtype is np.float32:
        return np.take(_HALVES, vectors.view(np.uint16), mode="clip")
    return np.array(vectors, dtype=dtype, order="C", copy=True if copy else None)


def check_vectors(what: str, vectors: Float[np.ndarray, "n w"], *, unit: bool) -> None:
    """Checks every row, some at a time.

    Raises:
        DataError: A row is zero, not finite or, with ``unit``, not of length one.
    """
    for start in range(0, len(vectors), _SLICE):
        part = as_rows(vectors[start : start + _SLICE], np.float32)
        length = np.sqrt(np.einsum("nw,nw->n", part, part, dtype=np.float64))
        for bad, found, needed in (
            (~np.isfinite(length), "is not finite", "finite numbers"),
            (length == 0, "is zero", "a direction"),
            (unit & (abs(length - 1) > _UNIT_SLACK), "is not of length one", "a unit vector"),
        ):
            if bad.any():
                row = start + int(np.argmax(bad))
                raise DataError(
                    f"{what} {row} {found}; {needed} is required. Check the embedding file"
                    f"{' or normalise it' if found.endswith('one') else ''}."
                )


def _check_names(classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise DataError(
            f"{len(classes)} classes were given; at least 2 are required. Name every class."
        )
    name, times = Counter(classes).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"Class {name!r} is named {times} times; names must differ. Rename or merge the "
            "classes."
        )


def _check_width(what: str, vectors: Float[np.ndarray, "n w"], texts: ClassTexts) -> None:
    width = texts.vectors.shape[1]
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise DataError(
            f"{what} have shape {vectors.shape}; rows as wide as the class vectors, {width}, are "
            "required. Embed images and class names with the same model."
        )


def _check_stack(what: str, stack: Float[np.ndarray, "v n w"], shape: tuple[int, ...]) -> None:
    if stack.ndim != 3 or stack.shape[1:] != shape or not len(stack):
        raise DataError(
            f"{what} have shape {stack.shape}; (number, {shape[0]}, {shape[1]}) is required. Give "
            "one layer per template or view."
        )


def _check_parts(
    what: str,
    image: Float[np.ndarray, "n d"],
    aux: Float[np.ndarray, "n e"] | None,
    views: Float[np.ndarray, "v n d"] | None,
) -> None:
    if image.ndim != 2 or not len(image):
        raise DataError(
            f"{what} vectors have shape {image.shape}; at least one row is required. Pass images."
        )
    check_vectors(f"{what} vector", image, unit=True)
    if aux is not None:
        if aux.ndim != 2 or len(aux) != len(image):
            raise DataError(
                f"{what}: auxiliary vectors have shape {aux.shape} beside {len(image)} images; one "
                "row per image is required. Embed the same images with both encoders."
            )
        check_vectors(f"{what}: auxiliary vector", aux, unit=False)
    if views is not None:
        _check_stack(f"{what}: views", views, image.shape)
        for view in views:
            check_vectors(f"{what}: view vector", view, unit=True)
