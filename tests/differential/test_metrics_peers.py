"""Our metrics against numbers frozen from the peers, and every place where we differ on purpose.

The JSON files hold inputs and outputs of one release of each peer; see their heads.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from sightline.core.errors import DataError, UndefinedMetricError
from sightline.metrics import METRICS
from sightline.metrics.calibration_error import ace, ece, ece_mass, mce
from sightline.metrics.consistency import spiegelhalter_test
from sightline.metrics.curves import reliability_bins
from sightline.metrics.discrimination import aupr_right, aupr_wrong, auroc, fpr95
from sightline.metrics.operating_points import coverage_at_risk, risk_at_coverage
from sightline.metrics.proper_scores import brier, nll
from sightline.metrics.ranked import rank
from sightline.metrics.selective import accuracy, auarc, augrc, aurc, e_aurc, prr

ORACLES = Path(__file__).parent / "oracles" / "metrics"


def load(peer):
    document = json.loads((ORACLES / f"{peer}.json").read_text(encoding="utf-8"))
    return {case["id"]: case for case in document["cases"]}


LM, FD, TU = load("lm_polygraph"), load("fd_shifts"), load("torch_uncertainty")
NETCAL, MAPIE, SKLEARN = load("netcal"), load("mapie"), load("sklearn")
UQLM, TTLM, FOLK, TIES = load("uqlm"), load("truthtorchlm"), load("folktexts"), load("ties")


def floats(values):
    return np.array(values, dtype=np.float64)


def inputs(case, *names):
    return [floats(case["inputs"][name]) for name in names]


def top_class(case):
    """Confidence in the predicted class and whether it is right."""
    logits, target = inputs(case, "logits", "target")
    return top_probability(np.exp(logits - logits.max(1, keepdims=True)), target)


def top_probability(weights, target):
    probabilities = weights / weights.sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    return probabilities.max(1), (predicted == target).astype(float)


def raw_accuracy(uncertainty, quality, max_rejection):
    """The unnormalised area under the rejection curve."""
    n = len(quality)
    kept = floats([n - int(max_rejection * n)])
    return rank(-uncertainty, quality).ranked().mean_accuracy_from(kept)[0]


def rescaled(quality):
    return (quality - quality.min()) / (quality.max() - quality.min())


def one_of_the_orders(measure, uncertainty, expected, within):
    """Checks a peer's number on rows of which some pairs are tied.

    Theirs must be what one order of the tied rows gives, and ours the mean over all orders.
    """
    values, counts = np.unique(uncertainty, return_counts=True)
    assert counts.max() <= 2
    firsts = [np.flatnonzero(uncertainty == tied)[0] for tied in values[counts == 2]]
    orders = []
    for signs in itertools.product((1, -1), repeat=len(firsts)):
        parted = uncertainty.copy()
        parted[firsts] += 1e-9 * np.array(signs)
        orders.append(measure(parted))
    assert min(np.abs(np.subtract(orders, expected))) < within
    assert measure(uncertainty) == pytest.approx(np.mean(orders), abs=within)


# lm-polygraph

PRR_WITHOUT_TIES = [c for c in LM if c.startswith("prr_") and "ties" not in c]


@pytest.mark.parametrize("name", PRR_WITHOUT_TIES)
def test_lm_polygraph_rejection_area(name):
    case = LM[name]
    uncertainty, quality = inputs(case, "uncertainty", "quality")
    limit = case["inputs"]["max_rejection"]
    # Theirs first rescales quality to [0, 1] by its range.
    one_of_the_orders(
        lambda u: raw_accuracy(u, rescaled(quality), limit), uncertainty, case["output"], 1e-12
    )
    if "oracle" in case:
        ideal = raw_accuracy(-quality, rescaled(quality), limit)
        assert ideal == pytest.approx(case["oracle"], abs=1e-12)


@pytest.mark.parametrize("name", [c for c in PRR_WITHOUT_TIES if "prr_normalized" in LM[c]])
def test_lm_polygraph_prr_but_for_its_drawn_baseline(name):
    case = LM[name]
    uncertainty, quality = inputs(case, "uncertainty", "quality")
    limit = case["inputs"]["max_rejection"]
    exact = prr(-uncertainty, quality, max_rejection=limit)
    drawn = prr(
        -uncertainty,
        quality,
        max_rejection=limit,
        shuffles=1000,
        rng=np.random.default_rng(42),
    )
    # On ten rows a thousand shuffles still miss the mean by .01, and the ratio by a few times that.
    allowed = 0.05 if len(quality) == 10 else 0.01
    assert case["prr_normalized"] == pytest.approx(exact, abs=allowed)
    assert case["prr_normalized"] == pytest.approx(drawn, abs=allowed)
    baseline, ideal = case["random_mc1000_seed42"], case["oracle"]
    with_theirs = (case["output"] - baseline) / (ideal - baseline)
    assert with_theirs == pytest.approx(case["prr_normalized"], abs=1e-12)


def test_lm_polygraph_prr_depends_on_row_order_under_ties_and_ours_does_not():
    for limit in ("1.0", "0.5"):
        first, second = LM[f"prr_{limit}_ties"], LM[f"prr_{limit}_ties_reversed_order"]
        assert first["output"] != second["output"]
        ours = {
            raw_accuracy(*inputs(case, "uncertainty", "quality"), float(limit))
            for case in (first, second)
        }
        assert len(ours) == 1
        # The mean over shuffles of the rows, each sorted stably.
        rng = np.random.default_rng(0)
        uncertainty, quality = inputs(first, "uncertainty", "quality")
        shuffled = []
        for _ in range(4000):
            order = rng.permutation(len(quality))
            ranked = quality[order][np.argsort(uncertainty[order], kind="stable")]
            kept = len(quality) - int(float(limit) * len(quality))
            running = np.cumsum(ranked) / np.arange(1, len(quality) + 1)
            shuffled.append(running[kept:].mean())
        assert ours.pop() == pytest.approx(np.mean(shuffled), abs=5e-3)


@pytest.mark.parametrize("name", ["aurc_small", "aurc_n200", "aurc_continuous_quality"])
def test_lm_polygraph_aurc(name):
    uncertainty, quality = inputs(LM[name], "uncertainty", "quality")
    one_of_the_orders(lambda u: aurc(-u, rescaled(quality)), uncertainty, LM[name]["output"], 1e-12)


@pytest.mark.parametrize("name", ["small", "n200", "continuous_quality"])
def test_lm_polygraph_unnormalised_aurc_is_the_generalised_risk(name):
    case = LM[f"aurc_unnormalized_{name}"]
    uncertainty, quality = inputs(case, "uncertainty", "quality")
    quality = rescaled(quality)
    # They add up the kept errors without dividing by coverage: n AUGRC, plus half the last step.
    half_step = (1 - accuracy(quality, quality)) / 2
    one_of_the_orders(
        lambda u: len(quality) * augrc(-u, quality) + half_step, uncertainty, case["output"], 1e-10
    )


@pytest.mark.parametrize("name", ["small", "n200", "ties"])
def test_lm_polygraph_roc_and_pr(name):
    for metric, case in ((auroc, LM[f"rocauc_{name}"]), (aupr_wrong, LM[f"prauc_{name}"])):
        uncertainty, error = inputs(case, "uncertainty", "is_error")
        assert metric(-uncertainty, 1 - error) == pytest.approx(case["output"], abs=1e-12)


@pytest.mark.parametrize("name", ["ece10_n200", "ece20_n200", "ece_edges"])
def test_lm_polygraph_ece(name):
    confidence, correct = inputs(LM[name], "confidence", "correct")
    ours = ece(confidence, correct, n_bins=LM[name]["inputs"]["n_bins"])
    assert ours == pytest.approx(LM[name]["output"], abs=1e-12)


def test_lm_polygraph_ece_calls_values_outside_the_range_perfect_and_ours_refuses():
    case = LM["ece_out_of_range_conf"]
    assert case["output"] == 0.0
    with pytest.raises(DataError, match=r"Confidence is 1\.2 at row 0"):
        ece(*inputs(case, "confidence", "correct"))


# fd-shifts


@pytest.mark.parametrize("name", FD)
def test_fd_shifts_areas(name):
    confidence, residuals = inputs(FD[name], "confids", "residuals")
    correct, expected = 1 - residuals, FD[name]["output"]
    ours = {
        "aurc": aurc(confidence, correct, rule="fd_shifts"),
        "eaurc": e_aurc(confidence, correct, rule="fd_shifts", ideal="asymptotic"),
        "augrc": augrc(confidence, correct),
        "eaugrc": augrc(confidence, correct) - augrc(correct, correct),
    }
    if name == "rc_continuous":
        # Their ideal AURC for fractions ranks by the residual; the asymptotic one is for 0/1.
        del ours["eaurc"]
        by_residual = aurc(correct, correct, rule="fd_shifts")
        assert 1000 * (ours["aurc"] - by_residual) == pytest.approx(expected["eaurc"], abs=1e-9)
    else:
        ours["augrc_optimal"] = augrc(correct, correct)
    for key, value in ours.items():
        assert 1000 * value == pytest.approx(expected[key], abs=1e-9), key


# torch-uncertainty (float32)


def test_torch_uncertainty_areas():
    confidence, correct = top_class(TU["AURC_mcq"])
    ours = aurc(confidence, correct, rule="torch_uncertainty")
    assert ours == pytest.approx(TU["AURC_mcq"]["output"], abs=1e-6)
    assert abs(aurc(confidence, correct) - ours) < 1 / len(correct)
    generalised = augrc(confidence, correct, rule="torch_uncertainty")
    assert generalised == pytest.approx(TU["AUGRC_mcq"]["output"], abs=1e-6)


def test_torch_uncertainty_operating_points():
    confidence, correct = top_class(TU["AURC_mcq"])
    assert coverage_at_risk(confidence, correct) == pytest.approx(
        TU["CovAt5Risk_mcq"]["output"], abs=1e-7
    )
    assert coverage_at_risk(confidence, correct, risk=0.3) == pytest.approx(
        TU["CovAt30Risk_mcq"]["output"], abs=1e-7
    )
    assert risk_at_coverage(confidence, correct) == pytest.approx(
        TU["RiskAt80Cov_mcq"]["output"], abs=1e-7
    )


def test_torch_uncertainty_calibration_errors():
    confidence, correct = top_class(TU["ECE15_l1_mcq"])
    assert ece(confidence, correct, n_bins=15) == pytest.approx(
        TU["ECE15_l1_mcq"]["output"], abs=1e-6
    )
    assert mce(confidence, correct, n_bins=15) == pytest.approx(
        TU["ECE15_max_mcq"]["output"], abs=1e-6
    )
    assert ace(confidence, correct) == pytest.approx(TU["ACE15_mcq"]["output"], abs=1e-6)
    bins = reliability_bins(confidence, correct, n_bins=15)
    squares = sum(b.n * (b.accuracy.value - b.confidence) ** 2 for b in bins if b.n)
    assert (squares / len(correct)) ** 0.5 == pytest.approx(TU["ECE15_l2_mcq"]["output"], abs=1e-6)
    confidence, correct = inputs(TU["ECE10_binary_n200"], "confidence", "correct")
    assert ece(confidence, correct) == pytest.approx(TU["ECE10_binary_n200"]["output"], abs=1e-6)


def test_torch_uncertainty_takes_wrong_as_positive_by_default():
    score, error = inputs(TU["FPR95_n200"], "score", "label")
    assert fpr95(score, error) == pytest.approx(TU["FPR95_n200"]["output"], abs=1e-6)
    # With right = positive, as we define it, the same rows give another number.
    assert fpr95(-score, 1 - error) != pytest.approx(TU["FPR95_n200"]["output"], abs=1e-3)
    assert auroc(-score, 1 - error) == pytest.approx(TU["AUROC_n200"]["output"], abs=1e-6)


def test_torch_uncertainty_sums_brier_over_the_classes():
    logits, target = inputs(TU["Brier_mcq"], "logits", "target")
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    per_class = [brier(probabilities[:, k], (target == k).astype(float)) for k in range(4)]
    assert sum(per_class) == pytest.approx(TU["Brier_mcq"]["output"], abs=1e-6)
    # Their NLL is that of the true class, not of being right.
    true_class = probabilities[np.arange(len(target)), target.astype(int)]
    assert nll(true_class, np.ones(len(target))) == pytest.approx(TU["NLL_mcq"]["output"], abs=1e-6)


# netcal


@pytest.mark.parametrize("bins", [10, 20])
def test_netcal_ece_and_mce(bins):
    confidence, correct = inputs(NETCAL[f"ECE{bins}_n200"], "confidence", "correct")
    assert ece(confidence, correct, n_bins=bins) == pytest.approx(
        NETCAL[f"ECE{bins}_n200"]["output"], abs=1e-12
    )
    assert mce(confidence, correct, n_bins=bins) == pytest.approx(
        NETCAL[f"MCE{bins}_n200"]["output"], abs=1e-12
    )


def test_netcal_multiclass_is_the_top_class():
    probabilities, target = inputs(NETCAL["ECE15_mcq"], "probs", "target")
    confidence, correct = top_probability(probabilities, target)
    assert ece(confidence, correct, n_bins=15) == pytest.approx(
        NETCAL["ECE15_mcq"]["output"], abs=1e-9
    )
    assert mce(confidence, correct, n_bins=15) == pytest.approx(
        NETCAL["MCE15_mcq"]["output"], abs=1e-9
    )


@pytest.mark.parametrize("bins", [10, 20])
def test_netcal_ace_is_the_average_error_and_ours_the_adaptive_one(bins):
    case = NETCAL[f"ACE{bins}_n200"]
    confidence, correct = inputs(case, "confidence", "correct")
    gaps = [
        abs(b.accuracy.value - b.confidence)
        for b in reliability_bins(confidence, correct, n_bins=bins)
        if b.n
    ]
    assert np.mean(gaps) == pytest.approx(case["output"], abs=1e-12)
    assert abs(ace(confidence, correct, n_ranges=bins) - case["output"]) > 1e-3


# MAPIE


@pytest.mark.parametrize("bins", [10, 20])
def test_mapie_makes_one_bin_less(bins):
    case = MAPIE[f"ece_uniform{bins}"]
    confidence, correct = inputs(case, "confidence", "correct")
    assert ece(confidence, correct, n_bins=bins - 1) == pytest.approx(case["output"], abs=1e-12)
    assert abs(ece(confidence, correct, n_bins=bins) - case["output"]) > 1e-3


def test_mapie_spiegelhalter_is_one_sided():
    statistic, p_value = MAPIE["spiegelhalter_statistic"], MAPIE["spiegelhalter_p_value"]
    outcome = spiegelhalter_test(*inputs(statistic, "confidence", "correct"))
    assert outcome.statistic == pytest.approx(statistic["output"], abs=1e-12)
    assert outcome.p_value == pytest.approx(2 * p_value["output"], abs=1e-12)


# scikit-learn, uqlm, folktexts, TruthTorchLM


def test_scikit_learn():
    for name, metric in (("brier", brier), ("log_loss", nll), ("auroc", auroc), ("ap", aupr_right)):
        case = SKLEARN[name]
        ours = metric(*inputs(case, "confidence", "correct"))
        assert ours == pytest.approx(case["output"], abs=1e-12), name


def test_scikit_learn_calibration_curve():
    case = SKLEARN["calibration_curve_uniform"]
    bins = reliability_bins(*inputs(case, "confidence", "correct"))
    assert [b.accuracy.value for b in bins] == pytest.approx(case["output"]["prob_true"])
    assert [b.confidence for b in bins] == pytest.approx(case["output"]["prob_pred"])
    case = SKLEARN["calibration_curve_quantile"]
    gaps = np.subtract(case["output"]["prob_true"], case["output"]["prob_pred"])
    ours = ece_mass(*inputs(case, "confidence", "correct"))
    assert ours == pytest.approx(np.mean(np.abs(gaps)), abs=1e-12)


@pytest.mark.parametrize("name", UQLM)
def test_uqlm_evaluation(name):
    case = UQLM[name]
    confidence, correct = inputs(case, "confidence", "correct")
    bins = case["inputs"]["n_bins"]
    ours = {
        "average_accuracy": accuracy(confidence, correct),
        "brier_score": brier(confidence, correct),
        "log_loss": nll(confidence, correct),
        "ece": ece(confidence, correct, n_bins=bins),
        "mce": mce(confidence, correct, n_bins=bins),
    }
    for key, value in ours.items():
        assert value == pytest.approx(case["output"][key], abs=1e-12), key


def test_folktexts_evaluation():
    case = FOLK["evaluate_predictions"]
    confidence, correct = inputs(case, "confidence", "correct")
    ours = {
        "roc_auc": auroc(confidence, correct),
        "brier_score_loss": brier(confidence, correct),
        "log_loss": nll(confidence, correct),
        "ece": ece(confidence, correct),
    }
    for key, value in ours.items():
        assert value == pytest.approx(case["output"][key], abs=1e-12), key
    # Their quantile bins are cut at interpolated quantiles, so they hold 19 to 21 rows, not 20.
    assert ece_mass(confidence, correct) == pytest.approx(case["output"]["ece_quantile"], abs=0.01)


@pytest.mark.parametrize("name", ["small", "n200"])
def test_truthtorchlm_scores(name):
    case = TTLM[f"metric_score_{name}"]
    uncertainty, correct = inputs(case, "uncertainty", "correct")
    expected = case["output"]
    assert auroc(-uncertainty, correct) == pytest.approx(expected["auroc"], abs=1e-12)
    assert auarc(-uncertainty, correct, rule="trapezoid") == pytest.approx(
        expected["auarc"], abs=1e-12
    )
    # Random baseline by shuffles of these very rows.
    assert prr(-uncertainty, correct) == pytest.approx(expected["prr"], abs=0.02)
    raw = TTLM[f"prr_raw_{name}"]
    truth, correct = inputs(raw, "truth_value", "correct")
    assert raw_accuracy(-truth, correct, 1.0) == pytest.approx(raw["output"], abs=1e-12)


@pytest.mark.parametrize("name", ["small", "n200", "ties"])
def test_truthtorchlm_auprc_is_a_trapezoid_and_ours_average_precision(name):
    from sklearn.metrics import auc, precision_recall_curve

    case = TTLM[f"metric_score_{name}"]
    uncertainty, correct = inputs(case, "uncertainty", "correct")
    precision, recall, _ = precision_recall_curve(correct, -uncertainty)
    assert auc(recall, precision) == pytest.approx(case["output"]["auprc"], abs=1e-12)
    assert aupr_right(-uncertainty, correct) != pytest.approx(case["output"]["auprc"], abs=1e-4)


def test_truthtorchlm_depends_on_row_order_under_ties_and_ours_does_not():
    first, second = TTLM["metric_score_ties"], TTLM["metric_score_ties_reversed_order"]
    assert first["output"]["auarc"] != second["output"]["auarc"]
    assert first["output"]["prr"] != second["output"]["prr"]
    for metric in (prr, auarc):
        ours = {
            metric(-uncertainty, correct)
            for uncertainty, correct in (
                inputs(case, "uncertainty", "correct") for case in (first, second)
            )
        }
        assert len(ours) == 1


def test_truthtorchlm_scores_a_failure_as_most_truthful_and_ours_refuses():
    case = TTLM["auroc_nan_truth_value"]
    assert case["output"]["auroc"] == 0.5
    truth, correct = inputs(case, "truth_values", "correct")
    with pytest.raises(DataError, match="Confidence is nan at row 2"):
        auroc(truth, correct)
    # Without the failed row the ranking is perfect.
    kept = np.isfinite(truth)
    assert auroc(truth[kept], correct[kept]) == 1.0


# The same twelve rows in two orders


def test_ties_have_one_value_where_the_peers_have_two():
    case = TIES["ties12"]
    uncertainty, correct = inputs(case, "uncertainty", "correct")
    other = case["inputs"]["permutation_for_second_order"]
    peers = case["output"]
    for name, metric in METRICS.items():
        if metric.input == "ranking" and name != "cohens_d":
            values = {
                metric.function(-uncertainty[order], correct[order])
                for order in (np.arange(12), np.array(other))
            }
            assert len(values) == 1, name
    drawn = peers["mean-of-risks AURC over 20000 random tie orders"]
    assert aurc(-uncertainty, correct) == pytest.approx(drawn["mean"], abs=2e-3)
    assert drawn["min"] < aurc(-uncertainty, correct) < drawn["max"]
    polygraph = [peers["lm-polygraph 0.7.0"][o]["aurc"] for o in ("as_given", "permuted")]
    assert polygraph == pytest.approx([drawn["min"], drawn["max"]])
    # Each peer's two values lie on either side of ours: theirs are two of the orders we average.
    torch = peers["torch-uncertainty 0.13.0"]
    for key, ours in (
        ("AURC", aurc(-uncertainty, correct, rule="torch_uncertainty")),
        ("AUGRC", augrc(-uncertainty, correct, rule="torch_uncertainty")),
        ("RiskAt80Cov", risk_at_coverage(-uncertainty, correct)),
    ):
        low, high = sorted(torch[order][key] for order in ("as_given", "permuted"))
        assert low < ours < high, key
        assert ours == pytest.approx((low + high) / 2, abs=0.03), key
    merged = peers["fd-shifts"]["as_given"]
    assert aurc(-uncertainty, correct, rule="fd_shifts") == pytest.approx(merged["aurc"])
    assert augrc(-uncertainty, correct) == pytest.approx(merged["augrc"])


def test_one_class_is_no_coin_toss():
    # Peers return .5 or 0 here; a metric without a value has none.
    with pytest.raises(UndefinedMetricError):
        auroc(np.array([0.1, 0.9]), np.ones(2))
