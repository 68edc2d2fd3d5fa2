"""Support sets: which images to draw, the prototypes they average to, and what is held out.

Example:
    >>> labels = np.array([0, 1, 0, 1, 1])
    >>> rows = draw_support(labels, shots=2, rng=np.random.default_rng(0))
    >>> np.bincount(labels[rows])
    array([2, 2])
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError, MissingExtraError
from sightline.zeroshot.blocks import Block
from sightline.zeroshot.outputs import (
    ClassTexts,
    Encoder,
    Support,
    check_aux_width,
    check_support,
    normalised,
    require_aux,
)
from sightline.zeroshot.protocols import Scored, Traits

FOLDS = 4
"""Folds of the support set that settings are chosen by; fewer where a class has fewer images."""

_EPOCHS = 20
_TUNING_RATE = 1e-3
_TUNING_BATCH = 256


def draw_support(
    labels: Int[np.ndarray, " n"], shots: int, rng: np.random.Generator
) -> Int[np.ndarray, " s"]:
    """Rows of ``shots`` images of every class, drawn without replacement.

    Args:
        labels: Class of each image of the training split, from 0, every class present.
        shots: Images per class, >= 1; a class with fewer gives all it has.
        rng: Draw again with the same generator for the next repeated draw.

    Returns:
        Rows, by class.

    Raises:
        DataError: A class has no image, or ``shots`` is below 1.
    """
    members = _members(labels, shots)
    return np.concatenate([rng.permutation(rows)[:shots] for rows in members])


def draw_support_compat(labels: Int[np.ndarray, " n"], shots: int) -> Int[np.ndarray, " s"]:
    """The draw of TrustVLM's released code: `random` seeded with 0 anew before each class.

    Args:
        labels: Class of each image in the order of the split file.
        shots: Images per class.

    Raises:
        DataError: A class has fewer images than shots, where the released code fails too.
    """
    members = _members(labels, shots)
    short = [index for index, rows in enumerate(members) if len(rows) < shots]
    if short:
        raise DataError(
            f"Class {short[0]} has {len(members[short[0]])} images for {shots} shots; the released "
            "sampling needs as many in every class. Use fewer shots, or draw at random."
        )
    drawn = [random.Random(0).sample(rows.tolist(), shots) for rows in members]  # noqa: S311
    return np.array(drawn, dtype=np.int64).ravel()


def _members(labels: Int[np.ndarray, " n"], shots: int) -> list[Int[np.ndarray, " m"]]:
    counts = np.bincount(labels)
    if shots < 1 or not len(counts) or (counts == 0).any():
        raise DataError(
            f"{shots} shots from {len(counts)} classes, {int((counts == 0).sum())} of them without "
            "an image; at least 1 shot and 1 image of every class are required. Add images."
        )
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def deal_folds(
    labels: Int[np.ndarray, " s"], folds: int, rng: np.random.Generator
) -> Int[np.ndarray, " s"]:
    """Fold of each support image, so that every class keeps an image outside each fold.

    The images of a class are dealt to the folds in random order; with as many folds as shots, one
    image of every class is left out at a time. The only image of its class is in no fold (-1).
    """
    fold = np.full(len(labels), -1, dtype=np.int64)
    for rows in np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]):
        if len(rows) > 1:
            fold[rng.permutation(rows)] = np.arange(len(rows)) % max(folds, 2)
    return fold


def class_prototypes(
    vectors: Float[np.ndarray, "s w"], labels: Int[np.ndarray, " s"]
) -> Float[np.ndarray, "c w"]:
    """Mean vector of each class, at length one, float64.

    Args:
        vectors: Vectors of the support images; give unit ones so that every image counts alike.
        labels: Their classes, every one present.

    Raises:
        DataError: The vectors of a class cancel out.
    """
    counts = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(vectors[order].astype(np.float64), starts, axis=0)
    length = np.linalg.norm(sums, axis=1)
    if (length <= 1e-9 * counts).any():
        raise DataError(
            f"The support vectors of class {int(np.argmin(length / counts))} cancel out; a mean "
            "direction is required. Check them, or add images."
        )
    return np.asarray(sums / length[:, None])


def raw_vectors(support: Support, encoder: Encoder, who: object) -> Float[np.ndarray, "s w"]:
    """Vectors of one encoder as stored; the classifier's own are stored at length one."""
    if encoder == "own":
        return support.image
    return require_aux(support.aux, "support images", who)


def query_vectors(
    block: Block, encoder: Encoder, width: int, who: object
) -> Float[np.ndarray, "b w"]:
    """Unit vectors of the images, of the encoder and width of the support images."""
    if encoder == "own":
        return block.image
    vectors = block.aux(who)
    check_aux_width(vectors, width)
    return vectors


def tuned_prototypes(
    prototypes: Float[np.ndarray, "c w"],
    vectors: Float[np.ndarray, "s w"],
    labels: Int[np.ndarray, " s"],
    *,
    tau: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "c w"]:
    """Prototypes trained on the support images they average.

    Cross-entropy of softmax(cosine / τ), AdamW with rate 1e-3, 20 epochs in batches of 256; the
    prototypes are at length one in every step.

    Args:
        prototypes: Where to start.
        vectors: Unit vectors of the support images.
        labels: Their classes.
        tau: Temperature, > 0.
        rng: Orders the batches.

    Raises:
        MissingExtraError: torch is not installed.

    Source:
        The paper names fine-tuned prototypes and its code has none; the recipe is that of
        Tip-Adapter-F (Zhang et al. 2022), without its own cache weights.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "models", "tuning prototypes") from error
    parameters = torch.nn.Parameter(torch.from_numpy(prototypes.copy()))
    optimiser = torch.optim.AdamW([parameters], lr=_TUNING_RATE)
    images, targets = torch.from_numpy(vectors), torch.from_numpy(labels.astype(np.int64))
    for _ in range(_EPOCHS):
        order = torch.from_numpy(rng.permutation(len(labels)))
        for rows in torch.split(order, _TUNING_BATCH):
            unit = torch.nn.functional.normalize(parameters, dim=1)
            logits = images[rows] @ unit.T / tau
            loss = torch.nn.functional.cross_entropy(logits, targets[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return normalised(parameters.detach().numpy())


@dataclass(frozen=True, slots=True)
class PrototypeDistance:
    """One minus the cosine of the image to the prototype of the predicted class, in [0, 2].

    Attributes:
        encoder: own or aux.

    Source: TrustVLM's image-image score alone (Dong et al. 2025).
    """

    encoder: Encoder = "own"

    @property
    def traits(self) -> Traits:
        """Uses the support set."""
        return Traits("Dong et al. 2025", uses_support=True, uses_aux=self.encoder == "aux")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedPrototypeDistance:
        """Returns the prototypes.

        Raises:
            MissingFeatureError: No support set, or one without auxiliary vectors.
            DataError: The support set does not fit the classes.
        """
        known = check_support(texts, support, self)
        prototypes = class_prototypes(known.of(self.encoder, self), known.labels)
        return FittedPrototypeDistance(self.encoder, prototypes.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class FittedPrototypeDistance:
    """Prototypes of the classes.

    Attributes:
        encoder: own or aux.
        prototypes: Unit vector of each class.
    """

    encoder: Encoder
    prototypes: Float[np.ndarray, "c w"]

    def score(self, block: Block) -> Scored:
        """1 − cosine to the predicted class's prototype."""
        return Scored(block.label, 1.0 - self.similarity(block))

    def similarity(self, block: Block) -> Float[np.ndarray, " b"]:
        """Cosine to the predicted class's prototype."""
        vectors = query_vectors(block, self.encoder, self.prototypes.shape[1], self)
        return cosine_by_row(vectors, self.prototypes[block.label])


def cosine_by_row(
    vectors: Float[np.ndarray, "b w"], others: Float[np.ndarray, "b w"]
) -> Float[np.ndarray, " b"]:
    """Product of each row with the same row of the other."""
    return np.einsum("bw,bw->b", vectors, others).astype(np.float64)
