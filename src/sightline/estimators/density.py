"""Scores that weigh the probability of sampled answers by how alike they are to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.signals import answer_logprobs, cost_of_samples, require
from sightline.estimators.similarity import (
    Group,
    Similarity,
    groups,
    similarities,
    similarity_needs,
    similarity_shape,
    similarity_to_answer,
)


@dataclass(frozen=True, slots=True)
class SemanticDensity:
    """One minus the share of probability that lies near the answer in meaning.

    Every different text counts once with the geometric mean of its tokens' probabilities (the
    highest seen, the greedy answer included), times its similarity to the answer. Samples that all
    equal the answer give 0.

    Attributes:
        similarity: What makes two answers alike: words, embeddings, entailment, contradiction, nli,
            jaccard, rouge1, rouge2 or rougeL. The published distance is that of nli.

    Source: Qiu and Miikkulainen (NeurIPS 2024); one minus LM-Polygraph's density where no sample
    has the answer's text. Where one has, LM-Polygraph counts that text twice.
    """

    similarity: Similarity = "words"

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """Answer and samples with their log-probabilities, and what similarity is read off."""
        both = {Feature.ANSWER, Feature.LOGPROBS, Feature.SAMPLE_LOGPROBS}
        return similarity_needs(self.similarity) | both

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − density, in [0, 1]."""
        require(records, self.needs, self)
        values = np.zeros(len(records))
        for group in groups(records, similarity_shape(self.similarity)):
            alike = similarity_to_answer(group, self.similarity)
            own = answer_logprobs(record.answer for record in group.records).mean()
            scores, own, kept = _by_text(group, own)
            values[group.rows] = semantic_distance(scores, own, kept, alike)
        return values

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


@dataclass(frozen=True, slots=True)
class SentenceSAR:
    """Mean negative log of each sample's probability, raised by those of samples like it.

    Samples that all mean the same and are likely give the lowest values, which may be negative:
    the weights do not sum to 1. One sample gives its negative log-probability. Compare only records
    that have equally many samples.

    Attributes:
        temperature: Divides what the other samples contribute.
        similarity: What makes two samples alike: words, embeddings, entailment, contradiction, nli,
            jaccard, rouge1, rouge2 or rougeL.

    Source: SentSAR of Duan et al. (ACL 2024); equals LM-Polygraph's on the same similarities, in
    logarithms, so that the improbable stays finite.
    """

    temperature: float = 0.001
    similarity: Similarity = "words"

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise UsageError(
                f"Setting temperature={self.temperature} of sentence_sar; a number above 0 is "
                "required. Leave it out for the published 0.001."
            )

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples with their log-probabilities, and what their similarity is read off."""
        return similarity_needs(self.similarity) | {Feature.SAMPLE_LOGPROBS}

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Mean over the samples, in nats."""
        require(records, self.needs, self)
        values = np.zeros(len(records))
        for group, matrices in similarities(records, self.similarity):
            scores = _sample_scores(group, per_token=False)
            values[group.rows] = sentence_relevance(scores, matrices, self.temperature)
        return values

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


def semantic_distance(
    scores: Float[np.ndarray, "n m"],
    own: Float[np.ndarray, " n"],
    kept: Bool[np.ndarray, "n m"],
    alike: Float[np.ndarray, "n m"],
) -> Float[np.ndarray, " n"]:
    """One minus the semantic density of answers.

    Args:
        scores: Log-probability per token of every sample.
        own: Log-probability per token of the answer.
        kept: Which samples count: one for each text that is not the answer's.
        alike: Similarity of the answer to every sample.
    """
    top = np.maximum(np.where(kept, scores, -np.inf).max(axis=1), own)
    weights = np.where(kept, np.exp(np.minimum(scores - top[:, None], 0.0)), 0.0)
    total = weights.sum(axis=1) + np.exp(own - top)
    return np.asarray((weights * (1.0 - alike)).sum(axis=1) / total)


def sentence_relevance(
    scores: Float[np.ndarray, "n m"], similarity: Float[np.ndarray, "n m m"], temperature: float
) -> Float[np.ndarray, " n"]:
    """Mean of −log(p(i) + Σ p(j) s(i, j) / t) over the samples i, j ≠ i, in nats.

    Args:
        scores: Log-probability of every sample.
        similarity: Of all pairs, in [0, 1]; the diagonal has no effect.
        temperature: The t above.
    """
    with np.errstate(divide="ignore"):
        terms = scores[:, None, :] + np.log(similarity / temperature)
    diagonal = np.arange(scores.shape[1])
    terms[:, diagonal, diagonal] = scores
    top = terms.max(axis=2)
    rest = np.exp(terms - top[:, :, None]).sum(axis=2)
    return np.asarray(-(top + np.log(rest)).mean(axis=1))


def _by_text(
    group: Group, own: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, "k m"], Float[np.ndarray, " k"], Bool[np.ndarray, "k m"]]:
    """Every text once, with the highest log-probability it was seen with.

    Returns:
        Of every sample and of the answer the highest log-probability of their text, and which
        samples are the first of a text that is not the answer's.
    """
    drawn = _sample_scores(group, per_token=True)
    best = np.where(group.same, drawn[:, None, :], -np.inf).max(axis=2)
    first = group.same.argmax(axis=2) == np.arange(drawn.shape[1])
    answers = zip(group.records, group.texts, strict=True)
    mine = np.array([[t == record.answer.text for t in texts] for record, texts in answers])
    own = np.maximum(own, np.where(mine, best, -np.inf).max(axis=1))
    return best, own, first & ~mine


def _sample_scores(group: Group, *, per_token: bool) -> Float[np.ndarray, "k m"]:
    """Log-probability of every sample, summed or averaged over its tokens."""
    drawn = zip(group.records, group.order, strict=True)
    tokens = answer_logprobs([record.samples[i] for record, order in drawn for i in order])
    scores = tokens.mean() if per_token else tokens.sum()
    return np.asarray(scores.reshape(group.order.shape))
