"""Estimators over the similarity of samples against LM-Polygraph and TruthTorchLM.

The array functions are given the peers' own matrices, so that values must be equal. Through
records the matrices differ where equal texts do not fully entail each other there; they do here.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators.density import SemanticDensity, sentence_relevance
from sightline.estimators.graph import (
    Degree,
    Eccentricity,
    LaplacianEigenvalues,
    eccentricity,
    eigenvalue_sum,
    mean_distance,
)
from sightline.estimators.importance import TokenSAR
from sightline.estimators.kernel import (
    KernelLanguageEntropy,
    heat_kernel,
    von_neumann_entropy,
)
from sightline.estimators.semantic import DiscreteSemanticEntropy
from sightline.estimators.similarity import similarities
from sightline.estimators.spectral import EigenScore, eigenscore

ORACLES = json.loads(
    (Path(__file__).parent / "oracles" / "estimators.json").read_text(encoding="utf-8")
)
POLYGRAPH = ORACLES["lm-polygraph"]["cases"]
TRUTHTORCH = ORACLES["TruthTorchLM"]["cases"]
UQLM = ORACLES["uqlm"]["cases"]
GRAPH = ((mean_distance, "degmat"), (lambda w: eccentricity(w, 0.9), "eccentricity"))


def mean_of_directions(case):
    """The peer's symmetric similarity of its stored directions."""
    one_way = np.array(case["inputs"]["semantic_matrix_entail"])
    if case["inputs"].get("affinity") == "contra":
        one_way = 1 - np.array(case["inputs"]["semantic_matrix_contra"])
    return (one_way + one_way.transpose(0, 2, 1)) / 2


def nli(inputs):
    entailment, contradiction = (
        np.array(inputs[f"semantic_matrix_{name}"]) for name in ("entail", "contra")
    )
    one_way = (1 + entailment - contradiction) / 2
    return (one_way + one_way.transpose(0, 2, 1)) / 2


def record(texts, entailment=None, contradiction=None):
    """Samples; the judged answer, which these estimators leave out, is unlike all of them."""
    features = {}
    for feature, given in (
        (Feature.ENTAILMENT, entailment),
        (Feature.CONTRADICTION, contradiction),
    ):
        if given is not None:
            features[feature] = np.pad(np.array(given), (1, 0), constant_values=0.3)
    samples = tuple(Generation(text) for text in texts)
    return Record(Example("1", "?"), greedy=Generation("-"), samples=samples, features=features)


def jaccard_records():
    return [record(texts) for texts in POLYGRAPH["degmat_jaccard"]["inputs"]["sample_texts"]]


@pytest.mark.parametrize("affinity", ["entail", "contra"])
def test_graph_scores_equal_lm_polygraph(affinity):
    for score, name in (*GRAPH, (eigenvalue_sum, "eigv")):
        case = POLYGRAPH[f"{name}_nli_{affinity}"]
        np.testing.assert_allclose(
            score(mean_of_directions(case)), case["output"], rtol=1e-12, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("question", ["q0", "q1", "q2"])
def test_graph_scores_equal_truthtorchlm(question):
    degree, eigenvalues = TRUTHTORCH[f"U_deg_{question}"], TRUTHTORCH[f"U_eigv_{question}"]
    matrix = np.array([degree["inputs"]["W"]])
    np.testing.assert_allclose(mean_distance(matrix), degree["output"], rtol=1e-12)
    np.testing.assert_allclose(eigenvalue_sum(matrix), eigenvalues["output"], rtol=1e-12)


@pytest.mark.parametrize("question", ["q0", "q1", "q2"])
def test_differs_truthtorchlm_adds_up_lengths(question):
    """Its eccentricity sums the lengths of the samples' coordinates; here squares are summed."""
    case = TRUTHTORCH[f"U_ecc_{question}"]
    matrix = np.array(case["inputs"]["W"])
    root = np.sqrt(matrix.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(4) - matrix / np.outer(root, root))
    centred = (vectors - vectors.mean(axis=0))[:, values < 0.9]
    lengths = np.linalg.norm(centred, axis=1)
    assert case["output"] == pytest.approx(lengths.sum(), abs=1e-12)
    own = eccentricity(matrix[None], 0.9)[0]
    assert own == pytest.approx(np.sqrt(np.square(lengths).sum()), abs=1e-12)


def test_jaccard_equals_lm_polygraph():
    case = POLYGRAPH["jaccard_matrix"]
    ((group, matrices),) = similarities([record(case["inputs"]["texts"])], "jaccard")
    theirs = np.array(case["output"])[np.ix_(group.order[0], group.order[0])]
    np.testing.assert_allclose(matrices[0], theirs, rtol=1e-14)
    estimators = (
        (Degree("jaccard"), "degmat"),
        (Eccentricity(similarity="jaccard"), "eccentricity"),
        (LaplacianEigenvalues("jaccard"), "eigvallaplacian"),
    )
    for estimator, name in estimators:
        np.testing.assert_allclose(
            estimator.uncertainty(jaccard_records())[:3],
            POLYGRAPH[f"{name}_jaccard"]["output"][:3],
            rtol=1e-10,
            atol=1e-12,
            err_msg=name,
        )


def test_differs_lm_polygraph_keeps_punctuation_in_words():
    """It splits "It is a bus." at spaces: "bus." is another word than the "bus" of "a bus"."""
    theirs = POLYGRAPH["degmat_jaccard"]["output"][3]
    assert jaccard_records()[3].samples[0].text == "It is a bus."
    # Its pair with "a bus": 2/4, theirs 1/5; with the long text: 3/9, theirs 2/10.
    ours = Degree("jaccard").uncertainty(jaccard_records())[3]
    assert theirs - ours == pytest.approx(2 * (2 / 4 - 1 / 5 + 3 / 9 - 2 / 10) / 16)


@pytest.mark.parametrize(
    ("case", "settings"),
    [("kle_default", {}), ("kle_t1.0", {"t": 1.0}), ("kle_scaleFalse", {"scaled": False})],
)
def test_kernel_language_entropy_equals_lm_polygraph(case, settings):
    inputs = POLYGRAPH[case]["inputs"]
    own = KernelLanguageEntropy(similarity="nli", **settings)
    np.testing.assert_allclose(own.entropy(nli(inputs)), POLYGRAPH[case]["output"], rtol=1e-9)


def test_kernel_language_entropy_through_records():
    """Equal texts entail each other fully here; LM-Polygraph's numbers come out where they do."""
    inputs = POLYGRAPH["kle_default"]["inputs"]
    texts = [["p", "q", "r", "s"]] * 3  # the peer's stored values, under texts that differ
    pairs = [inputs["semantic_matrix_entail"], inputs["semantic_matrix_contra"]]
    records = [record(t, e, c) for t, e, c in zip(texts, *pairs, strict=True)]
    own = KernelLanguageEntropy(similarity="nli").uncertainty(records)
    np.testing.assert_allclose(own, POLYGRAPH["kle_default"]["output"], rtol=1e-9)


def test_differs_lm_polygraph_leaves_the_trace_of_the_kernel():
    """Without its normalisation the kernel's trace is not 1, and the "entropy" is none."""
    case = POLYGRAPH["kle_normalizeFalse_scaleFalse"]
    kernels = heat_kernel(2 * nli(case["inputs"]), 0.3)
    np.testing.assert_allclose(von_neumann_entropy(kernels), case["output"], rtol=1e-9)
    assert (np.trace(kernels, axis1=1, axis2=2) > 1.2).all()


@pytest.mark.parametrize("question", ["q0", "q1", "q2"])
def test_differs_truthtorchlm_takes_the_exponential_of_each_entry(question):
    """Its heat kernel is no matrix exponential: the "entropies" are far below 0."""
    case = TRUTHTORCH[f"kle_heat_normFalse_{question}"]
    weights = np.array(case["inputs"]["W"])
    own = KernelLanguageEntropy(scaled=False).entropy(weights[None] / 2)[0]
    assert case["output"] < -3.2
    assert 0 < own < np.log(4)


@pytest.mark.parametrize("alpha", [0.001, 0.1])
def test_eigenscore_equals_lm_polygraph(alpha):
    case = POLYGRAPH[f"eigenscore_alpha{alpha}"]
    vectors = [np.array(one) for one in case["inputs"]["sample_embeddings"]]
    own = [eigenscore(one[None], alpha)[0] for one in vectors]
    np.testing.assert_allclose(own, case["output"], rtol=1e-9)
    records = [
        Record(
            Example("1", "?"),
            samples=tuple(Generation(f"t{i}") for i in range(len(one))),
            features={Feature.SAMPLE_HIDDEN: one[None]},
            layers=(16,),
        )
        for one in vectors
    ]
    through = EigenScore(alpha=alpha).uncertainty(records)
    np.testing.assert_allclose(through, case["output"], rtol=1e-9)


@pytest.mark.parametrize("question", ["q0", "q1"])
def test_eigenscore_is_minus_truthtorchlm(question):
    case = TRUTHTORCH[f"inside_{question}"]
    own = eigenscore(np.array([case["inputs"]["embeddings"]]), 0.001)[0]
    assert own == pytest.approx(-case["output"], rel=1e-9)


def test_sentence_sar_equals_lm_polygraph():
    case = POLYGRAPH["sentence_sar"]["inputs"]
    own = sentence_relevance(
        np.array(case["sample_log_probs"]), np.array(case["sample_sentence_similarity"]), 0.001
    )
    np.testing.assert_allclose(own, POLYGRAPH["sentence_sar"]["output"], rtol=1e-12)


def weighed(logprobs, similarity):
    return Record(
        Example("1", "?"),
        greedy=Generation("x", logprobs=np.array(logprobs)),
        features={Feature.TOKEN_IMPORTANCE: 1 - np.array(similarity)},
    )


def test_token_sar_equals_lm_polygraph():
    case = POLYGRAPH["token_sar"]
    pairs = zip(
        *(case["inputs"][k] for k in ("greedy_log_likelihoods", "token_similarity")), strict=True
    )
    own = TokenSAR("stored").uncertainty([weighed(*pair) for pair in pairs])
    np.testing.assert_allclose(own, case["output"], rtol=1e-12)


def test_semantic_density_equals_lm_polygraph():
    case = POLYGRAPH["semantic_density"]
    keys = ("sample_texts", "sample_log_probs", "sample_tokens", "greedy_log_likelihoods")
    records = []
    for texts, totals, tokens, own, contra, neutral in zip(
        *(case["inputs"][k] for k in (*keys, "contra", "neutral")), strict=True
    ):
        m = len(texts)
        contradiction, entailment = np.zeros((m + 1, m + 1)), np.eye(m + 1)
        contradiction[0, 1:] = contra
        entailment[0, 1:] = 1 - np.array(contra) - np.array(neutral)
        drawn = zip(texts, totals, tokens, strict=True)
        records.append(
            Record(
                Example("1", "?"),
                greedy=Generation("another text", logprobs=np.array(own)),
                samples=tuple(
                    Generation(text, logprobs=np.full(len(ids), total / len(ids)))
                    for text, total, ids in drawn
                ),
                features={
                    Feature.ENTAILMENT: entailment,
                    Feature.CONTRADICTION: contradiction,
                },
            )
        )
    own = SemanticDensity("nli").uncertainty(records)
    np.testing.assert_allclose(1 - own, -np.array(case["output"]), rtol=1e-12)


def test_entailment_clusters_equal_lm_polygraph():
    case = POLYGRAPH["semantic_classes"]
    inputs = POLYGRAPH["degmat_nli_entail"]["inputs"]
    assert inputs["sample_texts"] == case["inputs"]["sample_texts"]
    records = [
        record(texts, entailment, contradiction)
        for texts, entailment, contradiction in zip(
            inputs["sample_texts"],
            inputs["semantic_matrix_entail"],
            inputs["semantic_matrix_contra"],
            strict=True,
        )
    ]
    own = DiscreteSemanticEntropy("entailment").uncertainty(records)
    sizes = [[len(cluster) / 4 for cluster in clusters] for clusters in case["output"].values()]
    expected = [-sum(share * np.log(share) for share in own_sizes) for own_sizes in sizes]
    np.testing.assert_allclose(own, expected, atol=1e-12)


def test_differs_uqlm_puts_one_response_in_two_clusters():
    """Where c fits a and b, but a and b do not fit: its clusters hold 4 of 3 responses."""
    case = UQLM["cluster_overlap_bug"]
    assert sum(len(cluster) for cluster in case["output"]["clusters"]) == 4
    entails = [[1, 0, 1], [0, 1, 1], [1, 1, 1]]
    one = record(["a", "b", "c"], np.array(entails, dtype=float), 0.5 - 0.5 * np.eye(3))
    own = DiscreteSemanticEntropy("entailment").uncertainty([one])[0]
    assert own == pytest.approx(np.log(3) - 2 / 3 * np.log(2))
