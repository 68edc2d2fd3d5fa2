"""Estimators against numbers of LM-Polygraph, TruthTorchLM and uqlm, and where we differ and why.

The peers cluster by entailment. To compare entropies given the same clusters, texts are replaced by
others that have the same canonical form within a cluster and another form in another.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators import ESTIMATORS
from sightline.estimators.agreement import SampleAgreement
from sightline.estimators.lexical import LexicalSimilarity
from sightline.estimators.likelihood import TokenMargin
from sightline.estimators.semantic import (
    DiscreteSemanticEntropy,
    DistinctAnswers,
    PredictiveEntropy,
    SemanticEntropy,
)

ORACLES = json.loads(
    (Path(__file__).parent / "oracles" / "estimators.json").read_text(encoding="utf-8")
)
POLYGRAPH = ORACLES["lm-polygraph"]["cases"]
TRUTHTORCH = ORACLES["TruthTorchLM"]["cases"]
UQLM = ORACLES["uqlm"]["cases"]


def greedy(logprobs, **features):
    return Record(
        Example("1", "?"),
        greedy=Generation("x", logprobs=np.array(logprobs, dtype=float)),
        features={Feature(name): np.array(array) for name, array in features.items()},
    )


def sampled(texts, logprobs=None):
    logprobs = [[0.0]] * len(texts) if logprobs is None else logprobs
    samples = tuple(
        Generation(text, logprobs=np.array(lp, dtype=float))
        for text, lp in zip(texts, logprobs, strict=True)
    )
    return Record(Example("1", "What?"), greedy=Generation(texts[0]), samples=samples)


def clustered(clusters, texts=None):
    """Texts of the given clusters: equal where the originals were, of one canonical form within."""
    size = 1 + max(i for cluster in clusters for i in cluster)
    originals = texts if texts is not None else list(range(size))
    out = [""] * size
    for word, cluster in zip(("dog", "cat", "cow", "owl"), clusters, strict=False):
        variants = iter((word, "a " + word, "the " + word, word + "!"))
        chosen = {}
        for i in cluster:
            if originals[i] not in chosen:
                chosen[originals[i]] = next(variants)
            out[i] = chosen[originals[i]]
    return out


def score(name, records):
    return ESTIMATORS[name].uncertainty(records)


def test_sequence_scores_equal_lm_polygraph():
    case = POLYGRAPH["max_seq_prob"]
    records = [greedy(lp) for lp in case["inputs"]["greedy_log_likelihoods"]]
    np.testing.assert_allclose(
        score("negative_log_likelihood", records), case["output"], rtol=1e-12
    )
    np.testing.assert_allclose(
        score("perplexity", records), POLYGRAPH["perplexity"]["output"], rtol=1e-12
    )
    case = POLYGRAPH["mean_token_entropy"]
    records = [greedy(np.full(len(e), -1.0), token_entropy=e) for e in case["inputs"]["entropy"]]
    np.testing.assert_allclose(score("mean_token_entropy", records), case["output"], rtol=1e-12)


def test_sequence_scores_equal_truthtorchlm():
    case = TRUTHTORCH["scoring_logprob"]
    records = [greedy(case["inputs"]["logprobs"])]
    assert score("negative_log_likelihood", records)[0] == pytest.approx(-case["output"])
    mean = TRUTHTORCH["scoring_length_normalized"]["output"]
    assert score("perplexity", records)[0] == pytest.approx(-mean)


def test_sequence_scores_equal_uqlm():
    case = UQLM["single_logprobs"]
    tokens = [[t["logprob"] for t in answer] for answer in case["inputs"]["logprobs"]]
    records = [greedy(lp) for lp in tokens]
    np.testing.assert_allclose(
        1 - score("min_token_probability", records), case["output"]["min_probability"], rtol=1e-12
    )
    # What uqlm calls sequence probability is length-normalised by default.
    np.testing.assert_allclose(
        1 - score("length_normalised_probability", records),
        case["output"]["sequence_probability"],
        rtol=1e-12,
    )
    raw = [pair[1] for pair in UQLM["length_norm_sequence_prob"]["output"]]
    np.testing.assert_allclose(1 - score("sequence_probability", records), raw, rtol=1e-12)


def test_margin_equals_uqlm():
    case = UQLM["top_logprobs"]
    (answer,) = case["inputs"]["logprobs"]
    top = [[t["logprob"] for t in token["top_logprobs"]] for token in answer]
    record = greedy([token["logprob"] for token in answer], top_logprobs=top)
    margin = 1 - TokenMargin(over="mean").uncertainty([record])[0]
    assert margin == pytest.approx(case["output"]["probability_margin"][0])


def test_predictive_entropy_equals_lm_polygraph():
    case = POLYGRAPH["mc_norm_sequence_entropy"]["inputs"]
    records = []
    for totals, tokens in zip(case["sample_log_probs"], case["sample_tokens"], strict=True):
        spread = [
            np.full(len(ids), total / len(ids)) for total, ids in zip(totals, tokens, strict=True)
        ]
        records.append(sampled(["x"] * len(totals), spread))
    np.testing.assert_allclose(
        PredictiveEntropy().uncertainty(records),
        POLYGRAPH["mc_sequence_entropy"]["output"],
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        PredictiveEntropy(length_normalised=True).uncertainty(records),
        POLYGRAPH["mc_norm_sequence_entropy"]["output"],
        rtol=1e-12,
    )


def test_differs_lm_polygraph_leaves_the_end_token_out_of_the_length():
    """Its pipeline sums the end token's log-probability in, but divides by the length without."""
    with_end = sampled(["dog"], [[-0.6, -0.4]])
    theirs = (0.6 + 0.4) / 1
    ours = PredictiveEntropy(length_normalised=True).uncertainty([with_end])[0]
    assert ours == pytest.approx(theirs / 2)


def test_discrete_semantic_entropy_equals_lm_polygraph():
    case = POLYGRAPH["semantic_entropy_frequency_mean"]
    clusters = case["inputs"]["class_to_sample"].values()
    records = [
        sampled(clustered(c, t))
        for c, t in zip(clusters, case["inputs"]["sample_texts"], strict=True)
    ]
    np.testing.assert_allclose(
        DiscreteSemanticEntropy().uncertainty(records), case["output"], atol=1e-12
    )


@pytest.mark.parametrize("number", range(4))
def test_semantic_entropy_equals_uqlm(number):
    case = UQLM[f"discrete_semantic_entropy_{number}"]
    clusters = case["inputs"]["cluster_indices"]
    probabilities = case["inputs"]["response_probabilities"]
    record = sampled(clustered(clusters), [[np.log(p)] for p in probabilities])
    expected = case["output"]["semantic_entropy"]
    for normalised in (False, True):  # one token each, so both weights are the same
        entropy = SemanticEntropy(normalised).uncertainty([record])[0]
        assert entropy == pytest.approx(expected, abs=1e-12)
    if len(set(probabilities)) == 1:
        discrete = DiscreteSemanticEntropy().uncertainty([record])[0]
        assert discrete == pytest.approx(expected, abs=1e-12)


def test_differs_lm_polygraph_does_not_normalise_over_clusters():
    """Its four identical answers have the "entropy" -1.286; a true one is 0 (its issue 223)."""
    case = POLYGRAPH["semantic_entropy_sum_mean"]
    inputs = case["inputs"]
    clusters = list(inputs["class_to_sample"].values())
    records = [
        sampled(clustered(c, t), [[p] for p in lp])
        for c, t, lp in zip(
            clusters, inputs["sample_texts"], inputs["sample_log_probs"], strict=True
        )
    ]
    ours = SemanticEntropy().uncertainty(records)
    assert case["output"][2] < -1.28
    assert ours[2] == 0.0
    for row, cluster in enumerate(clusters):
        texts = inputs["sample_texts"][row]
        mass = np.array(
            [
                sum({texts[i]: np.exp(inputs["sample_log_probs"][row][i]) for i in c}.values())
                for c in cluster
            ]
        )
        mass /= mass.sum()
        assert ours[row] == pytest.approx(-np.sum(mass * np.log(mass)), abs=1e-12)


def test_differs_truthtorchlm_counts_repeats_and_does_not_normalise():
    """Paris (p = .6) three times, Its Paris (.3), London (.1): the clusters hold .9 and .1."""
    case = TRUTHTORCH["semantic_entropy_duplicates"]
    texts = clustered([[0, 1, 2, 3], [4]], case["inputs"]["texts"])
    record = sampled(texts, [[p] for p in case["inputs"]["log_scores"]])
    ours = SemanticEntropy().uncertainty([record])[0]
    assert ours == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1))
    # Theirs: the mean over clusters of -log mass, where three repeats weigh nine, as sets three.
    assert case["output"] == pytest.approx(-(np.log(9 * 0.6 + 0.3) + np.log(0.1)) / 2)
    as_sets = TRUTHTORCH["semantic_entropy_sets"]["output"]
    assert as_sets == pytest.approx(-(np.log(3 * 0.6 + 0.3) + np.log(0.1)) / 2)
    without = TRUTHTORCH["semantic_entropy_nodup"]
    masses = [np.exp([-1.2, -2.0, -1.4]).sum(), np.exp(-0.5)]
    assert without["output"] == pytest.approx(-np.mean(np.log(masses)))
    shares = np.array(masses) / sum(masses)
    record = sampled(clustered([[0, 1, 3], [2]]), [[p] for p in without["inputs"]["log_scores"]])
    assert SemanticEntropy().uncertainty([record])[0] == pytest.approx(
        -np.sum(shares * np.log(shares))
    )


@pytest.mark.parametrize("metric", ["rouge1", "rougeL"])
def test_lexical_similarity_equals_lm_polygraph(metric):
    case = POLYGRAPH[f"lexsim_{metric}"]
    records = [sampled(texts) for texts in case["inputs"]["sample_texts"]]
    ours = LexicalSimilarity(metric).uncertainty(records)
    np.testing.assert_allclose(ours - 1, case["output"], rtol=1e-12)


def test_differs_lm_polygraph_finds_no_pairs_in_one_word_answers():
    """Two equal one-word answers share no word pair, so its ROUGE-2 calls full agreement none."""
    case = POLYGRAPH["lexsim_rouge2"]
    records = [sampled(texts) for texts in case["inputs"]["sample_texts"]]
    ours = LexicalSimilarity("rouge2").uncertainty(records) - 1
    np.testing.assert_allclose(ours[[0, 3]], np.array(case["output"])[[0, 3]], rtol=1e-12)
    assert case["inputs"]["sample_texts"][2] == ["yes"] * 4
    assert case["output"][1:3] == [0.0, 0.0]
    np.testing.assert_allclose(ours[1:3], [-1 / 6, -1.0], rtol=1e-12)


def test_differs_lm_polygraph_stems_words():
    """ "buses" and "bus" are two words here and one there."""
    assert LexicalSimilarity("rouge1").uncertainty([sampled(["buses", "bus"])])[0] == 1.0


def test_differs_uqlm_matches_letter_by_letter():
    """Case, numerals and surrounding space make answers differ there, not here."""
    case = UQLM["exact_match"]
    records = [
        sampled([response, *samples])
        for response, samples in zip(
            case["inputs"]["responses"], case["inputs"]["sampled"], strict=True
        )
    ]
    records = [Record(r.example, greedy=r.greedy, samples=r.samples[1:]) for r in records]
    assert case["output"] == [0.5, 0.25]
    assert SampleAgreement().uncertainty(records).tolist() == [0.25, 0.25]


def test_differs_canonical_forms_join_numerals_but_not_paraphrases():
    """LM-Polygraph's entailment model joins "red dog" with "a dog"; canonical forms do not."""
    case = POLYGRAPH["num_sem_sets"]
    records = [sampled(texts) for texts in case["inputs"]["sample_texts"]]
    assert case["output"] == [2.0, 2.0, 1.0]
    assert DistinctAnswers().uncertainty(records).tolist() == [3.0, 2.0, 1.0]
