"""Lexical similarity of texts: words in common, for the samples of all records at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.signals import Ragged, cost_of_samples, require, run_begins

Metric = Literal["rouge1", "rouge2", "rougeL", "jaccard"]

_WORD = re.compile(r"[^\W_]+")
_CHUNK = 1 << 21  # entries of the largest temporary array


@dataclass(frozen=True, slots=True)
class LexicalSimilarity:
    """One minus the mean similarity of words over all pairs of samples.

    Words are runs of letters and digits, lower case. Samples with the same words have similarity
    1. One sample, or samples that are all the same, give 0.

    Attributes:
        metric: ROUGE F1 of common words, of common word pairs or of the longest common subsequence
            of words, or the Jaccard index of the sets of words.

    Source: Fomicheva et al. (TACL 2020) and LM-Polygraph. LM-Polygraph stems the words, and gives
    two equal one-word answers the ROUGE-2 similarity 0, so that full agreement looks like none.
    """

    metric: Metric = "rougeL"

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.SAMPLES})
    family: ClassVar[str] = "semantic"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """1 − mean similarity, in [0, 1]."""
        require(records, self.needs, self)
        texts = _distinct_texts([[sample.text for sample in record.samples] for record in records])
        pairs = _pairs(texts.per_record)
        weights = np.bincount(texts.of, minlength=len(texts.lengths)).astype(np.float64)
        times = weights[pairs.first] * weights[pairs.second]
        unlike = times * (1.0 - _similarity(texts, pairs, self.metric))
        counts = np.bincount(pairs.record, minlength=len(records))
        some = np.flatnonzero(counts)
        ordered = Ragged(unlike, (np.cumsum(counts) - counts)[some], counts[some]).descending()
        total = np.zeros(len(records))
        total[some] = ordered.sum()
        m = np.array([len(record.samples) for record in records], dtype=np.float64)
        return np.asarray(total / np.maximum(m * (m - 1) / 2, 1.0))

    def cost(self, records: Sequence[Record]) -> Cost:
        """The samples."""
        return cost_of_samples(records)


def pairwise_similarity(
    texts: Sequence[Sequence[str]], metric: Metric
) -> Float[np.ndarray, "n m m"]:
    """Similarity of all pairs of texts of each record; 1 between texts with the same words.

    Args:
        texts: Equally many texts for each record.
        metric: As in `LexicalSimilarity`.

    Returns:
        Symmetric matrices in [0, 1], the diagonal 1.

    Example:
        >>> pairwise_similarity([["a red dog", "a dog"]], "jaccard")[0, 0].round(3).tolist()
        [1.0, 0.667]
    """
    distinct = _distinct_texts(texts)
    pairs = _pairs(distinct.per_record)
    most = int(distinct.per_record.max(initial=0))
    between = np.tile(np.eye(most), (len(texts), 1, 1))
    begin = np.cumsum(distinct.per_record) - distinct.per_record
    i, j = pairs.first - begin[pairs.record], pairs.second - begin[pairs.record]
    between[pairs.record, i, j] = _similarity(distinct, pairs, metric)
    between[pairs.record, j, i] = between[pairs.record, i, j]
    of = distinct.of.reshape(len(texts), -1 if texts else 0) - begin[:, None]
    record = np.arange(len(texts))[:, None, None]
    return np.asarray(between[record, of[:, :, None], of[:, None, :]])


class _Texts(NamedTuple):
    """The different texts of each record, as word numbers laid end to end.

    Attributes:
        words: Word numbers of all texts.
        lengths: Words of each text.
        of: For every sample of every record its text.
        per_record: Different texts of each record.
    """

    words: Int[np.ndarray, " words"]
    lengths: Int[np.ndarray, " texts"]
    of: Int[np.ndarray, " samples"]
    per_record: Int[np.ndarray, " n"]


class _Pairs(NamedTuple):
    """Pairs of different texts of one record, record by record."""

    record: Int[np.ndarray, " pairs"]
    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]


def _distinct_texts(records: Sequence[Sequence[str]]) -> _Texts:
    numbers: dict[str, int] = {}
    words: list[int] = []
    lengths: list[int] = []
    of: list[int] = []
    per_record = []
    for texts in records:
        seen: dict[tuple[int, ...], int] = {}
        known: dict[str, int] = {}
        for text in texts:
            if text not in known:
                found = _WORD.findall(text.lower())
                key = tuple([numbers.setdefault(word, len(numbers)) for word in found])
                known[text] = seen.setdefault(key, len(lengths) + len(seen))
        of += [known[text] for text in texts]
        for key in seen:
            words.extend(key)
        lengths += map(len, seen)
        per_record.append(len(seen))
    return _Texts(
        np.array(words, dtype=np.int64),
        np.array(lengths, dtype=np.int64),
        np.array(of, dtype=np.int64),
        np.array(per_record, dtype=np.int64),
    )


def _pairs(per_record: Int[np.ndarray, " n"]) -> _Pairs:
    first_text = np.cumsum(per_record) - per_record
    record, first, second = [], [], []
    for size in np.unique(per_record):
        rows = np.flatnonzero(per_record == size)
        i, j = np.triu_indices(size, 1)
        record.append(np.repeat(rows, len(i)))
        first.append((first_text[rows][:, None] + i).ravel())
        second.append((first_text[rows][:, None] + j).ravel())
    if not record:
        return _Pairs(*(np.empty(0, dtype=np.int64) for _ in range(3)))
    order = np.argsort(np.concatenate(record), kind="stable")
    return _Pairs(*(np.concatenate(part)[order] for part in (record, first, second)))


def _similarity(texts: _Texts, pairs: _Pairs, metric: Metric) -> Float[np.ndarray, " pairs"]:
    """F1 or Jaccard index of each pair; 0 where neither text has what the metric counts."""
    lengths = texts.lengths
    if metric == "rougeL":
        common = _longest_common_subsequence(texts, pairs)
    else:
        grams, owner = _grams(texts, 2 if metric == "rouge2" else 1)
        if metric == "jaccard":
            grams, owner = np.unique(np.stack([grams, owner]), axis=1)
        lengths = np.bincount(owner, minlength=len(lengths))
        common = _common_grams(grams, owner, texts.per_record, pairs)
    total = lengths[pairs.first] + lengths[pairs.second]
    if metric == "jaccard":
        return np.asarray(common / np.maximum(total - common, 1))
    return np.asarray(2.0 * common / np.maximum(total, 1))


def _grams(
    texts: _Texts, n: Literal[1, 2]
) -> tuple[Int[np.ndarray, " grams"], Int[np.ndarray, " grams"]]:
    """Words or word pairs as numbers, and the text each is of."""
    owner = np.repeat(np.arange(len(texts.lengths)), texts.lengths)
    if n == 1:
        return texts.words, owner
    inside = owner[1:] == owner[:-1]
    base = texts.words.max(initial=0) + 1
    return (texts.words[:-1] * base + texts.words[1:])[inside], owner[1:][inside]


def _common_grams(
    grams: Int[np.ndarray, " grams"],
    owner: Int[np.ndarray, " grams"],
    per_record: Int[np.ndarray, " n"],
    pairs: _Pairs,
) -> Float[np.ndarray, " pairs"]:
    """Size of the common multiset of grams of each pair.

    The second "cat" of a text is another element than its first, so that multisets become sets;
    the common sizes of all pairs of a record are then the product of its 0/1 matrix (texts by
    elements) with its transpose.
    """
    order = np.lexsort((grams, owner))
    grams, owner = grams[order], owner[order]
    occurrence = _since(run_begins(grams, owner))
    record = np.repeat(np.arange(len(per_record)), per_record)[owner]
    order = np.lexsort((occurrence, grams, record))
    record, grams, occurrence, owner = (a[order] for a in (record, grams, occurrence, owner))
    first_of_element = run_begins(record, grams, occurrence)
    number = np.cumsum(first_of_element)
    elements = np.bincount(record[first_of_element], minlength=len(per_record))
    element = number - 1 - (np.cumsum(elements) - elements)[record]
    first_text = np.cumsum(per_record) - per_record
    text = owner - first_text[record]
    begin = np.searchsorted(record, np.arange(len(per_record) + 1))
    pair_begin = np.searchsorted(pairs.record, np.arange(len(per_record) + 1))
    common = np.zeros(len(pairs.record))
    slot = np.empty(len(per_record), dtype=np.int64)
    for rows in _alike(per_record, elements, per_record * np.maximum(elements, 1)):
        slot[rows] = np.arange(len(rows))
        mine = _spans(begin[rows], begin[rows + 1])
        shape = len(rows), int(per_record[rows].max()), int(elements[rows].max())
        present = np.zeros(shape, dtype=np.float32)
        present[slot[record[mine]], text[mine], element[mine]] = 1.0
        both = present @ present.transpose(0, 2, 1)
        wanted = _spans(pair_begin[rows], pair_begin[rows + 1])
        of = pairs.record[wanted]
        i, j = pairs.first[wanted] - first_text[of], pairs.second[wanted] - first_text[of]
        common[wanted] = both[slot[of], i, j]
    return common


def _since(begins: Bool[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """How many entries ago the current run began."""
    position = np.arange(len(begins))
    return np.asarray(position - np.maximum.accumulate(np.where(begins, position, 0)))


def _longest_common_subsequence(texts: _Texts, pairs: _Pairs) -> Int[np.ndarray, " pairs"]:
    """Length of the longest common subsequence of each pair.

    The usual table is filled by anti-diagonals, whose entries do not depend on one another, for
    many pairs at once; pairs of like lengths go together.
    """
    starts = np.cumsum(texts.lengths) - texts.lengths
    common = np.zeros(len(pairs.record), dtype=np.int64)
    swap = texts.lengths[pairs.first] < texts.lengths[pairs.second]
    longer = np.where(swap, pairs.second, pairs.first)
    shorter = np.where(swap, pairs.first, pairs.second)
    long, short = texts.lengths[longer], texts.lengths[shorter]
    for chosen in _alike(long, short, long + short):
        first, second = shorter[chosen], longer[chosen]
        a = _padded(texts.words, starts[first], texts.lengths[first], -1)
        b = _padded(texts.words, starts[second], texts.lengths[second], -2)[::-1]
        rows, columns = len(a), len(b)
        before, last, now = np.zeros((3, rows + 1, len(chosen)), dtype=np.int32)
        for diagonal in range(2, rows + columns + 1):
            low, high = max(1, diagonal - columns), min(rows, diagonal - 1) + 1
            shift = columns - diagonal
            match = a[low - 1 : high - 1] == b[low + shift : high + shift]
            cells = now[low:high]
            np.add(before[low - 1 : high - 1], match, out=cells)
            np.maximum(cells, last[low - 1 : high - 1], out=cells)
            np.maximum(cells, last[low:high], out=cells)
            before, last, now = last, now, before
        if rows and columns:
            common[chosen] = last[rows]
    return common


def _padded(
    words: Int[np.ndarray, " words"],
    starts: Int[np.ndarray, " k"],
    lengths: Int[np.ndarray, " k"],
    filler: int,
) -> Int[np.ndarray, "longest k"]:
    """Texts as columns, filled up with a number that is no word."""
    at = np.arange(lengths.max(initial=0))[:, None]
    inside = at < lengths
    out = np.full(inside.shape, filler, dtype=np.int32)
    out[inside] = words[(starts + at)[inside]]
    return out


def _alike(
    height: Int[np.ndarray, " k"], width: Int[np.ndarray, " k"], entries: Int[np.ndarray, " k"]
) -> Iterator[Int[np.ndarray, " chunk"]]:
    """Splits items into chunks that are alike, so that little is padded and memory is bounded.

    Heights and widths within a chunk differ by less than a factor of 2; ``entries`` is what an item
    takes in memory.
    """
    kind = np.frexp(height)[1].astype(np.int64) * 64 + np.frexp(width)[1]
    order = np.argsort(kind, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
        step = max(1, _CHUNK // int(entries[group].max(initial=1)))
        for begin in range(0, len(group), step):
            yield group[begin : begin + step]


def _spans(begin: Int[np.ndarray, " k"], end: Int[np.ndarray, " k"]) -> Int[np.ndarray, " total"]:
    """Indices begin[0] … end[0] − 1, begin[1] … and so on."""
    lengths = end - begin
    offset = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(lengths.sum()) + np.repeat(begin - offset, lengths))
