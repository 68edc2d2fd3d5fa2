"""TrustVLM: the classifier's own probability joined with what its images look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import UsageError
from sightline.metrics.selective import aurc
from sightline.zeroshot.blocks import Block, gather, score_all
from sightline.zeroshot.outputs import ClassTexts, Encoder, Support, check_support
from sightline.zeroshot.protocols import Scored, Traits
from sightline.zeroshot.prototypes import (
    FOLDS,
    class_prototypes,
    cosine_by_row,
    deal_folds,
    query_vectors,
    raw_vectors,
    tuned_prototypes,
)
from sightline.zeroshot.scores import tail_probability
from sightline.zeroshot.settings import LEAST, require_between

ALPHAS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Weights of the image-image score that the folds choose among; 0 is MSP."""
TAUS = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Temperatures of the prototype classifier that the folds choose among."""

_Fold = tuple[Float[np.ndarray, "c w"], Support]


@dataclass(frozen=True, slots=True)
class TrustVLM:
    """κ = largest softmax probability + α · cosine to the predicted class's prototype.

    Uncertainty is 1 + α − κ, so that α = 0 is `MaxSoftmax` to the bit. The re-scored variant adds
    α · softmax(cosines / τ) of the prototypes to the probabilities before the class is chosen, and
    its uncertainty is 1 + 2α − κ; the sum is not made a distribution again.

    Where settings are chosen, every fold of the support set is scored with prototypes of the other
    folds, and the (α, τ) with the smallest area under the risk-coverage curve of all folds counts,
    of equals the nearest to the settings given. Where no class has two images, nothing can be held
    out and the given settings are used.

    Attributes:
        rescored: Whether the prototypes may change the label.
        encoder: Whose image vectors are averaged: own or aux.
        tuned: Whether the prototypes are trained on the support images (`tuned_prototypes`).
        standardised: Whether α is in units of the spread: it is multiplied by the standard
            deviation of the largest probability over that of the cosine on held-out support images.
            κ only.
        select: folds chooses α and τ on the support set; fixed uses those given.
        alpha: Weight of the image-image score, from 0 to 1e9.
        tau: Temperature of the prototypes' softmax, from 1e-6 to 1e9.
        mode: compat follows the authors' released code: shots are averaged as the encoder gives
            them, and α and τ are those given; it is computed in double precision, so that it can be
            held against the formulas. corrected averages unit vectors, in single precision.

    Source: Dong et al. (arXiv 2505.23745) and its released code. The paper's fixed α = 1 and
    τ = 0.01 had no validation; choosing them on the support set and averaging unit vectors are our
    choices, as is the recipe of the tuned prototypes, which the code lacks. What else the released
    code does is decided when pictures are embedded: the auxiliary encoder fed with the classifier's
    pixels, the mean over all of its tokens, and one support draw seeded anew for every class. The
    classifier's own vectors come at length one.
    """

    rescored: bool = False
    encoder: Encoder = "own"
    tuned: bool = False
    standardised: bool = False
    select: Literal["folds", "fixed"] = "folds"
    alpha: float = 1.0
    tau: float = 0.01
    mode: Literal["corrected", "compat"] = "corrected"

    def __post_init__(self) -> None:
        require_between(self, "alpha", 0.0, usual=1.0)
        require_between(self, "tau", LEAST, usual=0.01)
        if self.standardised and (self.rescored or self.mode == "compat"):
            raise UsageError(
                "TrustVLM is asked for a standardised and re-scored or compat score; only the "
                "corrected score that keeps the label can be standardised. Leave one of them out."
            )

    @property
    def traits(self) -> Traits:
        """Uses the support set."""
        return Traits(
            "Dong et al. 2025 (TrustVLM)",
            uses_support=True,
            uses_aux=self.encoder == "aux",
            may_relabel=self.rescored,
            slow=self.tuned,
        )

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> FittedTrustVLM:
        """Averages the support images of each class and chooses α and τ on them.

        Raises:
            MissingFeatureError: No support set, or one without auxiliary vectors.
            DataError: The support set does not fit the classes.
            MissingExtraError: Prototypes are to be tuned and torch is not installed.
        """
        known = check_support(texts, support, self)
        fitted = FittedTrustVLM(
            self.encoder,
            self._prototypes(known, rng),
            self.alpha,
            self.tau if self.rescored else None,
            exact=self.mode == "compat",
        )
        chosen = self.select == "folds" and self.mode == "corrected"
        if not (chosen or self.standardised):
            return fitted
        folds = list(self._folds(known, rng))
        if not folds:
            return fitted
        unit = _spread_ratio(fitted, texts, folds) if self.standardised else 1.0
        if chosen:
            fitted = self._chosen(fitted, texts, folds, unit)
        return replace(fitted, alpha=fitted.alpha * unit)

    def _prototypes(self, support: Support, rng: np.random.Generator) -> Float[np.ndarray, "c w"]:
        compat = self.mode == "compat"
        averaged = raw_vectors(support, self.encoder, self)
        if not compat:
            averaged = support.of(self.encoder, self)
        prototypes = class_prototypes(averaged, support.labels)
        if not compat:
            prototypes = prototypes.astype(np.float32)
        if not self.tuned:
            return prototypes
        vectors = support.of(self.encoder, self)
        return tuned_prototypes(prototypes, vectors, support.labels, tau=self.tau, rng=rng)

    def _folds(self, support: Support, rng: np.random.Generator) -> Iterator[_Fold]:
        """Prototypes of all but a fold, and the fold."""
        fold = deal_folds(support.labels, FOLDS, rng)
        for held in range(fold.max() + 1):
            rest = support.take(np.flatnonzero(fold != held))
            yield self._prototypes(rest, rng), support.take(np.flatnonzero(fold == held))

    def _chosen(
        self, fitted: FittedTrustVLM, texts: ClassTexts, folds: list[_Fold], unit: float
    ) -> FittedTrustVLM:
        taus = sorted({*TAUS, self.tau}) if self.rescored else [None]
        grid = list(product(sorted({*ALPHAS, self.alpha}), taus))
        candidates = {
            str(at): replace(fitted, alpha=alpha * unit, tau=tau)
            for at, (alpha, tau) in enumerate(grid)
        }
        areas = held_out_aurc(candidates, texts, folds)
        best = min(areas.values())
        equals = [grid[int(at)] for at, area in areas.items() if area <= best + 1e-12]
        alpha, tau = min(equals, key=self._distance)
        return replace(fitted, alpha=alpha, tau=tau)

    def _distance(self, settings: tuple[float, float | None]) -> float:
        """How far settings are from those given, on a logarithmic scale."""
        alpha, tau = settings
        floor = min(a for a in ALPHAS if a) / 10
        steps = abs(np.log(max(alpha, floor) / max(self.alpha, floor)))
        return float(steps + (0.0 if tau is None else abs(np.log(tau / self.tau))))


@dataclass(frozen=True, slots=True, eq=False)
class FittedTrustVLM:
    """Prototypes with the weights that join them to the classifier's probabilities.

    Attributes:
        encoder: own or aux.
        prototypes: Unit vector of each class.
        alpha: Weight of the image-image score.
        tau: Temperature of the prototypes' softmax; None keeps the classifier's label.
        exact: Whether it is computed in double precision.
    """

    encoder: Encoder
    prototypes: Float[np.ndarray, "c w"]
    alpha: float
    tau: float | None
    exact: bool = False

    def score(self, block: Block) -> Scored:
        """1 + α − κ, or 1 + 2α − κ where prototypes may relabel."""
        block = block.exact if self.exact else block
        vectors = query_vectors(block, self.encoder, self.prototypes.shape[1], self)
        if self.tau is None:
            against = 1.0 - cosine_by_row(vectors, self.prototypes[block.label])
            return Scored(block.label, tail_probability(block.tail) + self.alpha * against)
        cosines = block.product(vectors, self.prototypes)
        similar = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / self.tau)
        total = similar.sum(axis=1)
        label = self._label(block, similar, total)
        held = similar[block.each, label].astype(np.float64)
        # Summed as what speaks against the label, so that alpha = 0 loses no digit.
        own = np.where(label == block.label, block.tail, 1.0 + block.tail)
        own = (own - block.rest[block.each, label]) / (1.0 + block.tail)
        against = 2.0 - held / total - cosines[block.each, label]
        return Scored(label, own + self.alpha * against)

    def _label(
        self, block: Block, similar: Float[np.ndarray, "b c"], total: Float[np.ndarray, " b"]
    ) -> Int[np.ndarray, " b"]:
        joint = (
            similar
            * (np.float32(self.alpha) * (1.0 + block.tail) / total).astype(np.float32)[:, None]
        )
        joint += block.rest
        joint[block.each, block.label] += np.float32(1.0)
        return np.asarray(joint.argmax(axis=1))


def held_out_aurc(
    candidates: dict[str, FittedTrustVLM], texts: ClassTexts, folds: list[_Fold]
) -> dict[str, float]:
    """Area under the risk-coverage curve of every candidate on all folds together."""
    uncertainty: dict[str, list[np.ndarray]] = {name: [] for name in candidates}
    correct: dict[str, list[np.ndarray]] = {name: [] for name in candidates}
    for prototypes, held in folds:
        fitted = {name: replace(c, prototypes=prototypes) for name, c in candidates.items()}
        for name, scored in score_all(fitted, held.outputs(texts)).items():
            uncertainty[name].append(scored.uncertainty)
            correct[name].append((scored.label == held.labels).astype(np.float64))
    return {
        name: aurc(-np.concatenate(uncertainty[name]), np.concatenate(correct[name]))
        for name in candidates
    }


def _spread_ratio(fitted: FittedTrustVLM, texts: ClassTexts, folds: list[_Fold]) -> float:
    """Standard deviation of the largest probability over that of the held-out cosine."""
    parts = []
    for prototypes, held in folds:
        alone = replace(fitted, prototypes=prototypes, alpha=1.0)

        def pair(block: Block, alone: FittedTrustVLM = alone) -> np.ndarray:
            own = tail_probability(block.tail)
            return np.stack([own, alone.score(block).uncertainty - own], axis=1)

        parts.append(gather(held.outputs(texts), pair))
    own, cosine = np.concatenate(parts).std(axis=0)
    return float(own / cosine) if cosine > 0 else 1.0
