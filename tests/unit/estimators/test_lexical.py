"""Lexical similarity against ROUGE written out pair by pair."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.types import Example, Generation, Record
from sightline.estimators.lexical import LexicalSimilarity

METRICS = ("rouge1", "rouge2", "rougeL")


def record(*texts):
    return Record(Example("1", "?"), samples=tuple(Generation(t) for t in texts))


def subsequence(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        table[i + 1, j + 1] = (
            table[i, j] + 1 if a[i] == b[j] else max(table[i, j + 1], table[i + 1, j])
        )
    return table[-1, -1]


def rouge_f1(first, second, metric):
    a, b = (re.findall(r"[^\W_]+", text.lower()) for text in (first, second))
    if a == b:
        return 1.0
    if metric == "rougeL":
        common, total = subsequence(a, b), len(a) + len(b)
    else:
        n = int(metric[-1])
        a, b = (Counter(zip(*(t[i:] for i in range(n)), strict=False)) for t in (a, b))
        common, total = (a & b).total(), a.total() + b.total()
    return 2 * common / total if total else 0.0


def expected(texts, metric):
    pairs = [rouge_f1(a, b, metric) for a, b in itertools.combinations(texts, 2)]
    return 1 - np.mean(pairs) if pairs else 0.0


def test_worked_values():
    # Words in common: a, dog (of 3 and 2); word pairs: none; in order: a dog.
    one = record("a red dog", "a dog")
    assert LexicalSimilarity("rouge1").uncertainty([one])[0] == pytest.approx(1 - 4 / 5)
    assert LexicalSimilarity("rouge2").uncertainty([one])[0] == 1.0
    assert LexicalSimilarity("rougeL").uncertainty([one])[0] == pytest.approx(1 - 4 / 5)
    turned = record("red dog", "dog red")
    assert LexicalSimilarity("rouge1").uncertainty([turned])[0] == 0.0
    assert LexicalSimilarity("rougeL").uncertainty([turned])[0] == 0.5


@pytest.mark.parametrize("metric", METRICS)
def test_limits(metric):
    records = [
        record("yes"),
        record("yes", "Yes!", "yes."),
        record("yes", "no"),
        record("", "", "?"),
        record("", "yes"),
    ]
    assert LexicalSimilarity(metric).uncertainty(records).tolist() == [0, 0, 1, 0, 1]


def test_a_repeated_word_counts_as_often_as_both_have_it():
    one = record("no no no", "no no yes")
    assert LexicalSimilarity("rouge1").uncertainty([one])[0] == pytest.approx(1 - 4 / 6)
    assert LexicalSimilarity("rouge2").uncertainty([one])[0] == pytest.approx(1 - 2 / 4)


@pytest.mark.parametrize("metric", METRICS)
def test_equals_pairwise_rouge_on_many_records_of_mixed_lengths(metric):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(12)]
    groups = [
        [" ".join(rng.choice(words, size=rng.choice([0, 1, 2, 3, 7, 30]))) for _ in range(m)]
        for m in rng.choice([1, 2, 3, 7], size=60)
    ]
    values = LexicalSimilarity(metric).uncertainty([record(*texts) for texts in groups])
    np.testing.assert_allclose(values, [expected(t, metric) for t in groups], atol=1e-12)


word = st.sampled_from(["red", "dog", "Dog", "a", "", "?", "the", "3", "é"])
texts = st.lists(st.lists(word, max_size=7).map(" ".join), min_size=1, max_size=5)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from(METRICS))
def test_equals_pairwise_rouge(groups, metric):
    values = LexicalSimilarity(metric).uncertainty([record(*t) for t in groups])
    np.testing.assert_allclose(values, [expected(t, metric) for t in groups], atol=1e-12)


@settings(deadline=None)
@given(texts, st.sampled_from(METRICS), st.randoms(use_true_random=False))
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
def test_the_order_of_the_samples_changes_no_bit(drawn, metric, random):
    shuffled = list(drawn)
    random.shuffle(shuffled)
    values = LexicalSimilarity(metric).uncertainty([record(*drawn), record(*shuffled)])
    assert values[0] == values[1]


def test_long_answers_in_bounded_memory():
    rng = np.random.default_rng(0)
    long = [" ".join(map(str, rng.integers(0, 300, size=2000))) for _ in range(4)]
    values = LexicalSimilarity().uncertainty([record(*long), record("1", long[0])])
    assert 0.5 < values[0] < 1
    assert values[1] == pytest.approx(1 - 2 / 2001)
