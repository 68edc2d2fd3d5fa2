"""Zero-shot scores: uncertainty read off the classifier's logits alone, higher = worse.

None looks at a support set, so each is its own fitted form. Odds against the predicted class are
summed directly and never taken as one minus a rounded probability, so that images the classifier
is very sure of still differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sightline.core.errors import MissingFeatureError
from sightline.zeroshot.blocks import Block, rest_of
from sightline.zeroshot.outputs import ClassTexts, Support
from sightline.zeroshot.protocols import Scored, Traits
from sightline.zeroshot.settings import LEAST, require_between


def tail_probability(tail: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Probability of all other classes from the odds against the predicted one."""
    return tail / (1.0 + tail)


@dataclass(frozen=True, slots=True)
class MaxSoftmax:
    """One minus the largest softmax probability, in [0, 1).

    Source: Hendrycks and Gimpel (2017), MSP. With a sigmoid link the probability is that of the
    class given that exactly one is right, which is the softmax of the same logits.
    """

    traits: ClassVar[Traits] = Traits("Hendrycks and Gimpel 2017", is_probability=True)

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> MaxSoftmax:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """Probability that another class is right."""
        return Scored(block.label, tail_probability(block.tail))


@dataclass(frozen=True, slots=True)
class MaxLogit:
    """Minus the largest logit.

    Source: Hendrycks et al. (2022). The largest sigmoid probability ranks the same way.
    """

    traits: ClassVar[Traits] = Traits("Hendrycks et al. 2022")

    def fit(self, texts: ClassTexts, support: Support | None, rng: np.random.Generator) -> MaxLogit:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """Minus the largest logit of each row."""
        return Scored(block.label, -block.top.astype(np.float64))


@dataclass(frozen=True, slots=True)
class Energy:
    """Free energy: minus the log of the summed exponentials of the logits.

    With a sigmoid link it is the joint energy: minus the sum over classes of log(1 + exp(logit)).

    Source: Liu et al. (2020); joint energy: Wang et al. (2021).
    """

    traits: ClassVar[Traits] = Traits("Liu et al. 2020; sigmoid link: Wang et al. 2021")

    def fit(self, texts: ClassTexts, support: Support | None, rng: np.random.Generator) -> Energy:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """Energy of each row, in nats."""
        if block.texts.link == "softmax":
            return Scored(block.label, -log_sum(block))
        joint = np.logaddexp(np.float32(0.0), block.logits).sum(axis=1)
        return Scored(block.label, -joint.astype(np.float64))


def log_sum(block: Block) -> Float[np.ndarray, " b"]:
    """Log of the summed exponentials of the logits, in nats."""
    return block.top.astype(np.float64) + np.log1p(block.tail)


@dataclass(frozen=True, slots=True)
class Entropy:
    """Entropy of the softmax distribution, in nats, in [0, ln c]."""

    traits: ClassVar[Traits] = Traits("Shannon 1948")

    def fit(self, texts: ClassTexts, support: Support | None, rng: np.random.Generator) -> Entropy:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """Entropy of each row."""
        return Scored(block.label, entropy(block.rest, block.logits, block.top, block.tail))


def entropy(
    rest: Float[np.ndarray, "b c"],
    logits: Float[np.ndarray, "b c"],
    top: Float[np.ndarray, " b"],
    tail: Float[np.ndarray, " b"],
) -> Float[np.ndarray, " b"]:
    """Entropy in nats: ln(1 + Σ r) − Σ r ln r / (1 + Σ r), with r = exp(logit − top) elsewhere."""
    gaps = np.einsum("bc,bc->b", rest, logits).astype(np.float64) - top * tail
    return np.asarray(np.maximum(np.log1p(tail) - gaps / (1.0 + tail), 0.0))


@dataclass(frozen=True, slots=True)
class Margin:
    """One minus the gap between the two largest softmax probabilities, in [0, 1].

    Source: Scheffer et al. (2001), best versus second best.
    """

    traits: ClassVar[Traits] = Traits("Scheffer et al. 2001")

    def fit(self, texts: ClassTexts, support: Support | None, rng: np.random.Generator) -> Margin:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """1 − (p₁ − p₂), summed without cancellation."""
        second = block.rest.max(axis=1).astype(np.float64)
        return Scored(block.label, (block.tail + second) / (1.0 + block.tail))


@dataclass(frozen=True, slots=True)
class MaximumConceptMatching:
    """One minus the largest softmax probability of the cosines themselves.

    Attributes:
        temperature: What cosines are divided by, from 1e-6 to 1e9.

    Source: Ming et al. (2022), MCM, temperature 1.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_between(self, "temperature", LEAST, usual=1.0)

    traits: ClassVar[Traits] = Traits("Ming et al. 2022")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> MaximumConceptMatching:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """Share of the other classes among the exponentials of cosine / temperature."""
        scale = np.float32(1.0 / (block.texts.logit_scale * self.temperature))
        rest = rest_of(block.logits * scale, block.label, block.top * scale)
        return Scored(block.label, tail_probability(rest.sum(axis=1).astype(np.float64)))


@dataclass(frozen=True, slots=True)
class DoctorAlpha:
    """(1 − Σ p²) / Σ p², ≥ 0.

    Source: Granese et al. (2021), D_α.
    """

    traits: ClassVar[Traits] = Traits("Granese et al. 2021")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> DoctorAlpha:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """D_α of each row, summed without cancellation."""
        squares = np.einsum("bc,bc->b", block.rest, block.rest).astype(np.float64)
        others = 2.0 * block.tail + block.tail**2 - squares
        return Scored(block.label, np.maximum(others, 0.0) / (1.0 + squares))


@dataclass(frozen=True, slots=True)
class DoctorBeta:
    """(1 − p_max) / p_max, the odds against the predicted class, ≥ 0; ranks as `MaxSoftmax`.

    Source: Granese et al. (2021), D_β.
    """

    traits: ClassVar[Traits] = Traits("Granese et al. 2021")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> DoctorBeta:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """D_β of each row."""
        return Scored(block.label, block.tail)


@dataclass(frozen=True, slots=True)
class MaxCosine:
    """One minus the largest cosine of image and class text, in [0, 2]; ranks as `MaxLogit`."""

    traits: ClassVar[Traits] = Traits("cosine of image and text")

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> MaxCosine:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """1 − cosine to the predicted class."""
        cosine = (block.top.astype(np.float64) - block.texts.logit_bias) / block.texts.logit_scale
        return Scored(block.label, 1.0 - cosine)


@dataclass(frozen=True, slots=True)
class TemplateDisagreement:
    """How far the prompt templates disagree: Jensen-Shannon divergence of their distributions.

    In nats, in [0, ln p]; 0 where all templates give the same distribution over the classes.

    Source: Houlsby et al. (2011), mutual information of label and ensemble member; the members are
    prompt templates.
    """

    traits: ClassVar[Traits] = Traits("Houlsby et al. 2011, over templates", uses_templates=True)

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> TemplateDisagreement:
        """Itself; nothing is learned.

        Raises:
            MissingFeatureError: The classes come without templates.
        """
        _templates(texts)
        return self

    def score(self, block: Block) -> Scored:
        """Entropy of the mean distribution less the mean entropy."""
        templates = _templates(block.texts)
        mean = np.zeros_like(block.logits)
        single = np.zeros(len(mean))
        for classes in templates:
            logits = block.logits_of(block.image, classes)
            label = logits.argmax(axis=1)
            top = logits[block.each, label]
            rest = rest_of(logits, label, top)
            tail = rest.sum(axis=1).astype(np.float64)
            single += entropy(rest, logits, top, tail)
            rest[block.each, label] = 1.0
            rest *= (1.0 / (1.0 + tail)).astype(np.float32)[:, None]
            mean += rest
        mean /= np.float32(len(templates))
        # The smallest number keeps 0 ln 0 = 0 defined.
        joint = -np.einsum("bc,bc->b", mean, np.log(mean + np.float32(1e-37)))
        divergence = joint.astype(np.float64) - single / len(templates)
        return Scored(block.label, np.maximum(divergence, 0.0))


def _templates(texts: ClassTexts) -> Float[np.ndarray, "p c d"]:
    if texts.templates is None:
        raise MissingFeatureError(
            "The class texts show no single templates; this score compares them. Embed the classes "
            "in several templates, or choose another score."
        )
    return texts.templates


@dataclass(frozen=True, slots=True)
class AugmentationConsistency:
    """One minus the mean probability that transformed views give to the predicted class.

    Source: Bahat and Shakhnarovich (2018), without their learned weights.
    """

    traits: ClassVar[Traits] = Traits("Bahat and Shakhnarovich 2018", uses_views=True)

    def fit(
        self, texts: ClassTexts, support: Support | None, rng: np.random.Generator
    ) -> AugmentationConsistency:
        """Itself; nothing is learned."""
        return self

    def score(self, block: Block) -> Scored:
        """Mean over the views of the probability of all other classes.

        Raises:
            MissingFeatureError: No views were collected.
        """
        against = np.zeros(len(block.each))
        for logits in block.view_logits:
            top = logits.max(axis=1)
            share = np.exp(logits - top[:, None])
            held = share[block.each, block.label].astype(np.float64)
            share[block.each, block.label] = 0.0
            others = share.sum(axis=1).astype(np.float64)
            against += others / (others + held)
        return Scored(block.label, against / len(block.view_logits))
