"""Entropies over sampled answers, clustered by their meaning.

Answers with the same `canonical_answer` mean the same; a model of entailment is not needed for
short answers, and may cluster longer ones. Equal inputs give bitwise equal scores whatever the
order of the samples, so that ties stay ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.agreement import canonical_forms
from sightline.estimators.signals import (
    Ragged,
    answer_logprobs,
    cost_of_samples,
    require,
    run_begins,
)
from sightline.estimators.similarity import (
    Group,
    groups,
    sample_vectors,
    similarity_needs,
    similarity_shape,
    stacked,
)

Clusters = Literal["canonical", "words", "embeddings", "entailment"]
"""What makes two samples mean the same.

``canonical``: the same canonical answer. ``words``: a cosine of their content words of at least the
threshold. ``embeddings``: the same of their stored sentence vectors. ``entailment``: each entails
the other, as the likeliest of entailed, neutral and contradicted. Samples with the same text always
mean the same. By the latter three a sample, in the order of the texts, joins the first cluster
whose first member it means the same as.
"""

_CLUSTER_NEEDS: Mapping[str, frozenset[Feature]] = MappingProxyType(
    {
        "canonical": similarity_needs("words"),
        "words": similarity_needs("words"),
        "embeddings": similarity_needs("embeddings"),
        "entailment": similarity_needs("nli"),
    }
)


@dataclass(frozen=True, slots=True)
class DiscreteSemanticEntropy:
    """Entropy of the shares of the samples' meanings.

    One sample, or samples that all agree, give 0.

    Attributes:
        clusters: What means the same: canonical forms, words, embeddings
            (stored) or entailment (stored).
        threshold: Least cosine of words or embeddings that mean the same.

    Source: "discrete semantic entropy" of Farquhar et al. (Nature 2024), with canonical forms in
    place of entailment by default. The entailment clusters are those of LM-Polygraph, save that
    samples are taken in the order of their texts.
    """

    clusters: Clusters = "canonical"
    threshold: float = 0.9

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples, and what they are clustered by."""
        return _CLUSTER_NEEDS[self.clusters]

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Entropy in nats, between 0 and log m."""
        require(records, self.needs, self)
        clusters = _clusters(records, self.clusters, self.threshold)
        counts = [np.unique(own, return_counts=True)[1] for own in clusters]
        shares = Ragged.of([own / own.sum() for own in counts])
        return _entropy(shares)

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


@dataclass(frozen=True, slots=True)
class DistinctAnswers:
    """Number of different canonical answers among the samples.

    Grows with the number of samples: compare only records that have equally many.

    Source: "number of semantic sets" of Lin et al. (TMLR 2024), with canonical forms.
    """

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.SAMPLES})
    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """A count, between 1 and m."""
        require(records, self.needs, self)
        return np.array([own.max() + 1 for own in _canonical_clusters(records)], dtype=np.float64)

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


@dataclass(frozen=True, slots=True)
class PredictiveEntropy:
    """Monte-Carlo estimate of the entropy over answers: mean negative log-probability of samples.

    Attributes:
        length_normalised: Divide each sample's log-probability by its number of tokens, the end
            token counted in both.

    Source: Malinin and Gales (ICLR 2021). LM-Polygraph's length-normalised form counts the end
    token in the log-probability but not in the length.
    """

    length_normalised: bool = False

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.SAMPLES, Feature.SAMPLE_LOGPROBS})
    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """−(1/m) Σ log p, in nats (per token if normalised), ≥ 0."""
        require(records, self.needs, self)
        scores = _sample_scores(records, per_token=self.length_normalised)
        return -scores.descending().mean()

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


@dataclass(frozen=True, slots=True)
class SemanticEntropy:
    """Entropy over the samples' meanings, each weighted by the probability of its texts.

    Every different text counts once with its probability (the highest seen, where it was drawn
    with different tokens); the weights are normalised over the texts seen, so the result is a true
    entropy. One sample, or samples that all agree, give 0.

    Attributes:
        length_normalised: Weight by the geometric mean of the token probabilities instead.
        clusters: What means the same: canonical forms, words, embeddings
            (stored) or entailment (stored).
        threshold: Least cosine of words or embeddings that mean the same.

    Source: Kuhn et al. (ICLR 2023) and the Rao-Blackwellised estimator of Farquhar et al. (Nature
    2024), with canonical forms in place of entailment by default. LM-Polygraph does not normalise
    over the clusters, so its value can be negative; TruthTorchLM counts a text that was drawn k
    times k² times.
    """

    length_normalised: bool = True
    clusters: Clusters = "canonical"
    threshold: float = 0.9

    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    @property
    def needs(self) -> frozenset[Feature]:
        """The samples with their log-probabilities, and what they are clustered by."""
        return _CLUSTER_NEEDS[self.clusters] | {Feature.SAMPLE_LOGPROBS}

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Entropy in nats, between 0 and log m."""
        require(records, self.needs, self)
        clusters = _clusters(records, self.clusters, self.threshold)
        scores = _sample_scores(records, per_token=self.length_normalised)
        owners, best, cluster = [], [], []
        for row, record in enumerate(records):
            seen: dict[str, tuple[float, int]] = {}
            own = scores.values[scores.starts[row] : scores.starts[row] + scores.lengths[row]]
            for sample, score, group in zip(record.samples, own, clusters[row], strict=True):
                if sample.text not in seen or score > seen[sample.text][0]:
                    seen[sample.text] = (float(score), int(group))
            owners.append(len(seen))
            best += [score for score, _ in seen.values()]
            cluster += [group for _, group in seen.values()]
        return _weighted_entropy(
            np.array(owners, dtype=np.int64), np.array(best), np.array(cluster, dtype=np.int64)
        )

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


def _weighted_entropy(
    lengths: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, " texts"],
    cluster: Int[np.ndarray, " texts"],
) -> Float[np.ndarray, " n"]:
    """Entropy over clusters whose mass is the normalised probability of their texts."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-scores, cluster, owner))
    ordered = Ragged(scores[order], np.cumsum(lengths) - lengths, lengths)
    weights = np.exp(ordered.log_softmax().values)
    owner, cluster = owner[order], cluster[order]
    begins = np.flatnonzero(run_begins(owner, cluster))
    if not begins.size:
        return np.empty(0)
    mass = np.add.reduceat(weights, begins)
    clusters = np.bincount(owner[begins], minlength=len(lengths))
    return _entropy(Ragged(mass, np.cumsum(clusters) - clusters, clusters))


def _entropy(shares: Ragged) -> Float[np.ndarray, " n"]:
    """Entropy of each array of shares, in nats; a share that underflowed to 0 adds 0."""
    ordered = shares.descending()
    positive = np.maximum(ordered.values, np.finfo(np.float64).tiny)
    entropy = ordered.map(lambda values: -values * np.log(positive)).sum()
    return np.asarray(np.maximum(entropy, 0.0))


def _clusters(
    records: Sequence[Record], clusters: Clusters, threshold: float
) -> list[Int[np.ndarray, " m"]]:
    """For each record the cluster of every sample, as a number."""
    if clusters == "canonical":
        return _canonical_clusters(records)
    out: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(records)
    for group in groups(records, similarity_shape(clusters)):
        cluster = _greedy_clusters(_same_meaning(group, clusters, threshold) | group.same)
        drawn = np.empty_like(cluster)
        np.put_along_axis(drawn, group.order, cluster, axis=1)
        for row, own in zip(group.rows.tolist(), drawn, strict=True):
            out[row] = own
    return out


def _same_meaning(
    group: Group, clusters: Literal["words", "embeddings", "entailment"], threshold: float
) -> Bool[np.ndarray, "k m m"]:
    if clusters != "entailment":
        vectors = sample_vectors(group, clusters)
        return np.asarray(vectors @ vectors.transpose(0, 2, 1) >= threshold)
    entailment, contradiction = (
        stacked(group, feature) for feature in (Feature.ENTAILMENT, Feature.CONTRADICTION)
    )
    neutral = 1.0 - entailment - contradiction
    entailed = entailment > np.maximum(contradiction, neutral)
    record, order = np.arange(len(group.rows))[:, None, None], group.order + 1
    own = entailed[record, order[:, :, None], order[:, None, :]]
    return np.asarray(own & own.transpose(0, 2, 1))


def _greedy_clusters(same: Bool[np.ndarray, "k m m"]) -> Int[np.ndarray, "k m"]:
    """Puts every sample in the first cluster whose first member means the same, or a new one.

    A cluster's number is the place of its first member.
    """
    k, m, _ = same.shape
    cluster = np.zeros((k, m), dtype=np.int64)
    leads = np.zeros((k, m), dtype=bool)
    for sample in range(m):
        joins = same[:, :, sample] & leads
        joins[:, sample] = True
        cluster[:, sample] = joins.argmax(axis=1)
        leads[:, sample] = cluster[:, sample] == sample
    return cluster


def check_threshold(threshold: float) -> None:
    """Requires a cosine.

    Raises:
        UsageError: It is none.
    """
    if not -1 <= threshold <= 1:
        raise UsageError(
            f"Setting threshold={threshold}; a cosine between -1 and 1 is required. "
            "Use for example 0.9."
        )


def _canonical_clusters(records: Sequence[Record]) -> list[Int[np.ndarray, " m"]]:
    """For each record the cluster of every sample, numbered by first appearance."""
    clusters = []
    for record in records:
        numbers: dict[str, int] = {}
        forms = canonical_forms(record.example, [sample.text for sample in record.samples])
        clusters.append(np.array([numbers.setdefault(f, len(numbers)) for f in forms]))
    return clusters


def _sample_scores(records: Sequence[Record], *, per_token: bool) -> Ragged:
    """Log-probability of every sample, summed or averaged over its tokens."""
    tokens = answer_logprobs(sample for record in records for sample in record.samples)
    scores = tokens.mean() if per_token else tokens.sum()
    lengths = np.array([len(record.samples) for record in records], dtype=np.int64)
    return Ragged(scores, np.cumsum(lengths) - lengths, lengths)
