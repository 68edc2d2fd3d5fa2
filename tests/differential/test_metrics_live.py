"""Our metrics against scikit-learn and torchmetrics on random rows, ties included."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from sightline.calibration.calibrators import Isotonic, Platt
from sightline.metrics import curves
from sightline.metrics.calibration_error import ece, mce
from sightline.metrics.discrimination import (
    aupr_right,
    aupr_wrong,
    auroc,
    fpr95,
    fpr_at_tpr_nearest,
)
from sightline.metrics.proper_scores import brier, nll

ROWS = [(seed, digits) for seed in range(6) for digits in (1, 2, 9)]


def random_rows(seed, digits, n=157):
    """Rows rounded to ``digits``, so that few digits mean many ties."""
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.beta(2, 1, n), digits)
    correct = (rng.random(n) < 0.2 + 0.6 * confidence).astype(float)
    return confidence, correct


@pytest.mark.parametrize(("seed", "digits"), ROWS)
def test_ranking_is_scikit_learns(seed, digits):
    confidence, correct = random_rows(seed, digits)
    assert auroc(confidence, correct) == pytest.approx(
        roc_auc_score(correct, confidence), abs=1e-12
    )
    assert aupr_right(confidence, correct) == pytest.approx(
        average_precision_score(correct, confidence), abs=1e-12
    )
    assert aupr_wrong(confidence, correct) == pytest.approx(
        average_precision_score(1 - correct, -confidence), abs=1e-12
    )


@pytest.mark.parametrize(("seed", "digits"), ROWS)
def test_roc_is_scikit_learns(seed, digits):
    confidence, correct = random_rows(seed, digits)
    false_positive, true_positive, _ = roc_curve(correct, confidence, drop_intermediate=False)
    x, y = curves.roc(confidence, correct)
    np.testing.assert_allclose(x, false_positive, atol=1e-15)
    np.testing.assert_allclose(y, true_positive, atol=1e-15)
    strict = false_positive[np.argmax(true_positive >= 0.95 - 1e-12)]
    assert fpr95(confidence, correct) == pytest.approx(strict, abs=1e-15)
    # TrustVLM's rule, on the points that scikit-learn keeps unless told otherwise.
    false_positive, true_positive, _ = roc_curve(correct, confidence)
    nearest = false_positive[np.argmin(np.abs(true_positive - 0.95))]
    assert fpr_at_tpr_nearest(confidence, correct) == pytest.approx(nearest, abs=1e-15)


@pytest.mark.parametrize(("seed", "digits"), ROWS)
def test_proper_scores_are_scikit_learns(seed, digits):
    confidence, correct = random_rows(seed, digits)
    assert brier(confidence, correct) == pytest.approx(
        brier_score_loss(correct, confidence), abs=1e-14
    )
    inside = np.clip(confidence, 1e-6, 1 - 1e-6)
    assert nll(inside, correct) == pytest.approx(log_loss(correct, inside), abs=1e-12)


@pytest.mark.parametrize(("seed", "digits"), ROWS)
def test_calibration_errors_are_torchmetrics(seed, digits):
    import torch
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        binary_calibration_error,
    )

    confidence, correct = random_rows(seed, digits)
    # Off the edges, which float32 places elsewhere; their bins are [low, high), ours (low, high].
    confidence = np.clip(confidence + 1e-4, 0, 1 - 1e-4)
    preds, target = torch.tensor(confidence), torch.tensor(correct).long()
    for bins in (10, 15):
        theirs = binary_calibration_error(preds, target, n_bins=bins, norm="l1").item()
        assert ece(confidence, correct, n_bins=bins) == pytest.approx(theirs, abs=1e-6)
        theirs = binary_calibration_error(preds, target, n_bins=bins, norm="max").item()
        assert mce(confidence, correct, n_bins=bins) == pytest.approx(theirs, abs=1e-6)
    assert auroc(confidence, correct) == pytest.approx(binary_auroc(preds, target).item(), abs=1e-6)
    assert aupr_right(confidence, correct) == pytest.approx(
        binary_average_precision(preds, target).item(), abs=1e-6
    )


@pytest.mark.parametrize(("seed", "digits"), ROWS)
def test_isotonic_is_scikit_learns(seed, digits):
    confidence, correct = random_rows(seed, digits)
    query = np.linspace(-0.1, 1.1, 50)
    model = IsotonicRegression(out_of_bounds="clip").fit(confidence, correct)
    ours = Isotonic().fit(-confidence, correct).confidence(-query)
    # Their steps held away from 0 and 1, interpolated as they do.
    bound = 1 / (len(correct) + 2)
    steps = np.clip(model.y_thresholds_, bound, 1 - bound)
    np.testing.assert_allclose(ours, np.interp(query, model.X_thresholds_, steps), atol=1e-9)


@pytest.mark.parametrize(("seed", "digits"), ROWS)
def test_platt_without_smoothing_is_logistic_regression(seed, digits):
    confidence, correct = random_rows(seed, digits)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    theirs = model.fit(confidence[:, None], correct).predict_proba(confidence[:, None])[:, 1]
    ours = Platt(smooth_targets=False).fit(-confidence, correct).confidence(-confidence)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
