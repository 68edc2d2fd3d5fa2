"""How alike the sampled answers of a question are: one matrix per record, many records at once.

Records with equally many samples are stacked, so that whatever follows is batched linear algebra.
The samples stand in the order of their texts and log-probabilities, so that the order they were
drawn in changes no bit of a score (unless vectors stored of equal samples differ). Equal texts have
similarity 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.estimators.encoders import ContentWords
from sightline.estimators.lexical import Metric, pairwise_similarity

Similarity = Literal[
    "words",
    "embeddings",
    "entailment",
    "contradiction",
    "nli",
    "jaccard",
    "rouge1",
    "rouge2",
    "rougeL",
]
"""What makes two answers alike.

``words``: cosine of their content words, computed here. ``embeddings``: cosine of the stored
sentence vectors. ``entailment``: p(entailed), mean of both directions. ``contradiction``: 1 −
p(contradicted). ``nli``: entailed counts 1, neutral ½, contradicted 0. ``jaccard``, ``rouge1``,
``rouge2``, ``rougeL``: words in common. A negative cosine counts as 0.
"""

_STORED: Mapping[str, frozenset[Feature]] = MappingProxyType(
    {
        "embeddings": frozenset({Feature.EMBEDDINGS}),
        "entailment": frozenset({Feature.ENTAILMENT}),
        "contradiction": frozenset({Feature.CONTRADICTION}),
        "nli": frozenset({Feature.ENTAILMENT, Feature.CONTRADICTION}),
    }
)
_LEXICAL: Mapping[str, Metric] = MappingProxyType(
    {"jaccard": "jaccard", "rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rougeL"}
)
_CHUNK = 1 << 22  # entries of the largest temporary array
_WIDTH = 512  # entries of a vector of content words


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Records with equally many samples, their samples in the order of their texts.

    Attributes:
        rows: Which records these are.
        records: The records.
        order: For each record its samples, as indices into `Record.samples`.
        texts: For each record the texts of its samples.
        same: Whether two samples have the same text.
    """

    rows: Int[np.ndarray, " k"]
    records: list[Record]
    order: Int[np.ndarray, "k m"]
    texts: list[list[str]]
    same: Bool[np.ndarray, "k m m"]


def similarity_needs(similarity: Similarity) -> frozenset[Feature]:
    """The signals a similarity of the samples is read off."""
    return frozenset({Feature.SAMPLES}) | _STORED.get(similarity, frozenset())


def similarity_shape(similarity: Similarity) -> Feature | None:
    """The array whose shape records of one group share; None where nothing stored is read."""
    return Feature.EMBEDDINGS if similarity == "embeddings" else None


def groups(records: Sequence[Record], feature: Feature | None = None) -> Iterator[Group]:
    """Splits records by their number of samples, in chunks that bound the memory taken.

    Args:
        records: Records with samples.
        feature: An array that is read too; its shape is the same within a group.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for row, record in enumerate(records):
        shape = (_WIDTH,) if feature is None else record.array(feature).shape
        alike.setdefault((len(record.samples), *shape), []).append(row)
    for key, rows in alike.items():
        step = max(1, _CHUNK // (key[0] * max(key[0], key[-1])))
        for begin in range(0, len(rows), step):
            chosen = rows[begin : begin + step]
            yield _group(np.array(chosen, dtype=np.int64), [records[row] for row in chosen])


def similarities(
    records: Sequence[Record], similarity: Similarity
) -> Iterator[tuple[Group, Float[np.ndarray, "k m m"]]]:
    """Similarity of the samples of every record.

    Yields:
        Records with equally many samples and their matrices: symmetric, in [0, 1], the diagonal 1.

    Source: Lin et al. (TMLR 2024) for entailment, contradiction and Jaccard. LM-Polygraph takes
    what the model of entailment says of two equal texts; here they are alike.
    """
    for group in groups(records, similarity_shape(similarity)):
        one_way = _between_samples(group, similarity)
        both = (one_way + one_way.transpose(0, 2, 1)) / 2
        yield group, np.where(group.same, 1.0, np.clip(both, 0.0, 1.0))


def score_similarities(
    records: Sequence[Record],
    similarity: Similarity,
    score: Callable[[Float[np.ndarray, "k m m"]], Float[np.ndarray, " k"]],
) -> Float[np.ndarray, " n"]:
    """Applies a function of stacked matrices to the similarities of every record's samples."""
    values = np.zeros(len(records))
    for group, matrices in similarities(records, similarity):
        values[group.rows] = score(matrices)
    return values


def similarity_to_answer(group: Group, similarity: Similarity) -> Float[np.ndarray, "k m"]:
    """Similarity of the judged answer to each sample, in [0, 1]; 1 where the texts are equal.

    Entailment is read in one direction: what the answer entails.
    """
    answers = [record.answer.text for record in group.records]
    if similarity in _LEXICAL:
        both = [[answer, *texts] for answer, texts in zip(answers, group.texts, strict=True)]
        alike = pairwise_similarity(both, _LEXICAL[similarity])[:, 0, 1:]
    elif similarity in _STORED:
        alike = np.take_along_axis(_stored(group, similarity)[:, 0], group.order + 1, axis=1)
    else:
        answer = embedded([[answer] for answer in answers])
        alike = (embedded(group.texts) @ answer.transpose(0, 2, 1))[:, :, 0]
    same = [[t == a for t in texts] for a, texts in zip(answers, group.texts, strict=True)]
    return np.where(np.array(same, dtype=bool), 1.0, np.clip(alike, 0.0, 1.0))


def sample_vectors(
    group: Group, similarity: Literal["words", "embeddings"]
) -> Float[np.ndarray, "k m d"]:
    """Unit vector of every sample."""
    if similarity == "words":
        return embedded(group.texts)
    vectors = stacked(group, Feature.EMBEDDINGS)[:, 1:]
    return unit(np.take_along_axis(vectors, group.order[:, :, None], axis=1))


def embedded(texts: Sequence[Sequence[str]]) -> Float[np.ndarray, "k m d"]:
    """Vectors of content words; equal texts are read once."""
    numbers: dict[str, int] = {}
    at = [[numbers.setdefault(text, len(numbers)) for text in own] for own in texts]
    return np.asarray(ContentWords().embed(tuple(numbers))[np.array(at, dtype=np.int64)])


def unit(vectors: Float[np.ndarray, "*k d"]) -> Float[np.ndarray, "*k d"]:
    """Scales vectors to length 1; a vector of zeros stays."""
    length = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    return np.asarray(vectors / np.maximum(length, np.finfo(np.float64).tiny))


def stacked(group: Group, feature: Feature) -> Float[np.ndarray, "k ..."]:
    """A feature of all records of a group, in double precision."""
    return np.stack([record.array(feature) for record in group.records]).astype(np.float64)


def _group(rows: Int[np.ndarray, " k"], records: list[Record]) -> Group:
    orders, texts, numbers = [], [], []
    for record in records:
        drawn = [
            (s.text, b"" if s.logprobs is None else s.logprobs.tobytes()) for s in record.samples
        ]
        order = sorted(range(len(drawn)), key=drawn.__getitem__)
        own = [drawn[i][0] for i in order]
        new = (own[i] != own[i - 1] for i in range(1, len(own)))
        numbers.append([0, *accumulate(new)])
        orders.append(order)
        texts.append(own)
    number = np.array(numbers, dtype=np.int64)
    same = number[:, :, None] == number[:, None, :]
    return Group(rows, records, np.array(orders, dtype=np.int64), texts, same)


def _between_samples(group: Group, similarity: Similarity) -> Float[np.ndarray, "k m m"]:
    if similarity in _LEXICAL:
        return pairwise_similarity(group.texts, _LEXICAL[similarity])
    if similarity in ("words", "embeddings"):
        vectors = sample_vectors(group, similarity)
        return np.asarray(vectors @ vectors.transpose(0, 2, 1))
    record = np.arange(len(group.rows))[:, None, None]
    order = group.order + 1
    return np.asarray(_stored(group, similarity)[record, order[:, :, None], order[:, None, :]])


def _stored(group: Group, similarity: Similarity) -> Float[np.ndarray, "k a a"]:
    """Similarity of all answers, the judged one first, by what is stored."""
    if similarity == "embeddings":
        vectors = unit(stacked(group, Feature.EMBEDDINGS))
        return np.asarray(vectors @ vectors.transpose(0, 2, 1))
    if similarity == "entailment":
        return stacked(group, Feature.ENTAILMENT)
    contradiction = stacked(group, Feature.CONTRADICTION)
    if similarity == "contradiction":
        return np.asarray(1.0 - contradiction)
    return np.asarray((1.0 + stacked(group, Feature.ENTAILMENT) - contradiction) / 2)
