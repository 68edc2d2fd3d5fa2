"""One score in one setting: means over support sets, paired differences, refusals kept as such."""

import numpy as np
import pytest

from sightline.core.estimates import Estimate
from sightline.metrics.selective import aurc
from sightline.workflow.studies.classifier_scores import (
    Labelled,
    draw_supports,
    measure,
    relative,
)
from sightline.workflow.studies.classifiers import targets_table
from sightline.workflow.studies.tables import StudyTable
from sightline.zeroshot import ClassifierOutputs, ClassTexts

CLASSES = 4


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def setting():
    """Pictures near their class text, with an auxiliary encoder that sees the class clearly."""
    rng = np.random.default_rng(0)
    texts = ClassTexts(tuple("abcd"), unit(np.eye(CLASSES, 8)), logit_scale=10.0)

    def labelled(n):
        labels = np.tile(np.arange(CLASSES), n // CLASSES)
        own = unit(np.eye(CLASSES, 8)[labels] + 0.6 * rng.standard_normal((n, 8)))
        aux = unit(np.eye(CLASSES, 6)[labels] + 0.2 * rng.standard_normal((n, 6)))
        return Labelled(ClassifierOutputs(texts, own, aux), labels)

    pool = labelled(80)
    return texts, draw_supports(pool, 8, 3), labelled(200), labelled(400)


def measured(name, setting):
    texts, supports, calibration, test = setting
    return measure(name, texts, supports, calibration, test, resamples=200)


def test_what_learns_nothing_is_fitted_once_and_has_no_spread(setting):
    result = measured("msp", setting)
    assert (result.draws, result.spread) == (1, 0.0)
    outputs, labels = setting[3].outputs, setting[3].labels
    logits = 10.0 * outputs.image.astype(float) @ outputs.texts.vectors.T.astype(float)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    right = (p.argmax(1) == labels).astype(float)
    assert result.figure("accuracy").value == pytest.approx(right.mean())
    assert result.figure("aurc", 1000).value == pytest.approx(
        1000 * aurc(p.max(1), right), rel=1e-4
    )
    ece = result.figure("ece")
    assert 0 <= ece.value < 0.2


def test_a_better_encoder_lowers_the_risk_beyond_chance(setting):
    first, second = measured("logistic_aux", setting), measured("msp", setting)
    assert first.draws == 3
    gain = relative(first, second)
    assert gain.low > 0
    assert gain.value == pytest.approx(1 - first.figure("aurc").value / second.figure("aurc").value)
    back = relative(second, first)
    assert back.high < 0
    same = relative(second, measured("doctor_beta", setting))
    assert same.value == pytest.approx(0.0, abs=1e-9)


def test_a_probability_is_also_measured_as_it_is(setting):
    sure, ranked = measured("msp", setting), measured("max_logit", setting)
    assert 0 <= sure.raw.estimate(0, "ece").value < 1
    assert sure.raw.estimate(0, "ece").value != sure.figure("ece").value
    assert ranked.raw is None


def test_a_score_that_cannot_be_fitted_says_why(setting):
    result = measured("template_disagreement", setting)
    assert result.figure("aurc") == Estimate(None, reason=result.reason)
    assert "template" in result.reason
    assert relative(result, measured("msp", setting)).reason == result.reason


def test_the_target_counts_settings_and_rivals():
    def table(key, rows, *columns):
        return StudyTable(key, "t", "n", ("Score", *columns), tuple(rows))

    gains = [Estimate(0.25, 0.2, 0.3), Estimate(0.3, 0.2, 0.4), Estimate(0.1, 0.0, 0.2)]
    shots = table(
        "shots-clip-scenes",
        [
            *((f"{n}: trustvlm_aux", gain) for n, gain in zip((1, 2, 4), gains, strict=True)),
            ("1: trustvlm_aux_rescored", gains[2]),
        ],
        "AURC lower than msp's by",
    )
    every = table(
        "all-clip-scenes",
        [
            ("trustvlm_aux", "support labels", Estimate(50.0), None),
            ("msp", "zero-shot", Estimate(60.0), Estimate(0.17, 0.05, 0.3)),
            ("energy", "zero-shot", Estimate(None, reason="?"), Estimate(None, reason="?")),
            ("logistic_aux", "support labels", Estimate(45.0), Estimate(-0.1, -0.2, -0.05)),
        ],
        "Uses",
        "AURC ×1000",
        "trustvlm_aux's AURC lower than its by",
    )
    rows = targets_table([shots, every]).rows
    assert rows[0][1:] == ("2 of 3 settings", "reached")
    assert rows[1][1:] == ("0 of 1 settings", "not reached")
    assert rows[2][2] == "reached: lower than 2 of 2, beyond chance than 1"
    assert rows[3][1:] == (
        "50.0; best rival logistic_aux 45.0",
        "not reached: lower than 0 of 1, beyond chance than 0",
    )
